"""Judges what a column mapper makes of the shapes in `schemas/`: right, asked, or silently wrong.

`schemas/` is what a mapper is written with; `schemas_unseen/` was collected by somebody who had not seen the mapper,
and says how it does on what it was not written for. A mapper changed after a look at a shape there has seen that shape.
`schemas_unseen/` sought what is easily got wrong; `schemas_fresh/` is a later, typical mix, collected in the same way,
`schemas_late/` a later one still, of the data sets that are most often trained on, and `schemas_latest/` one more of
these.

**A shape** is a data set of the Hub as its card shows it:

- `id`; `dataset` and `card`, where it was seen; `method` it is wanted for: `sft`, `distill`, `dpo`, `kto`, `reward`,
  `grpo`, `classify`, `pretrain`, `vision`, `speech`.
- `columns`: name to type. `list<...>`, `struct<name:type,...>` or `{name:type}` within a list, `class_label<names>`,
  `translation<languages>`, `image`, `audio<sampling rate>`. Deep fields and long repetitions of a card are shortened.
- `rows`: two invented rows of that shape, in the other folders often more, where values tell; images and recordings as
  the dataset viewer gives them.
- either `roles` and `transform`, with `also` for other readings that are as good; or `ask`, why a person must choose.

**Roles** (column, or `column.field`, to role): `messages`, `prompt`, `completion`, `system`, `chosen`, `rejected`,
`reference` (what a reward checks against), `text`, `label`, `image`, `audio`, `tools`, `score` (what chooses between
answers or filters them). A column that isn't named is ignored. Several columns with one role are used together; the
order they are told in reads well, and is not judged. `text` for two columns means a pair.

**Transformations**: `join` (several columns or a list make one text), `from_value_turns`, `user_assistant_turns`,
`dict_of_lists` (a sequence of dictionaries as `datasets` loads it), `parse_json`, `nested` (a field of a struct),
`first_of_list`, `whole_conversations` (chosen and rejected hold the prompt too), `transcript` ("Human: ... Assistant:"
made into turns), `choices_and_answer` (choices printed, the answer an index, a letter or a text), `final_answer` (after
`####` or in `\\boxed{}`), `label_names` (a class label's integer by its name), `pair`, `steps`, `choose_by_winner`,
`choose_by_rank`, `choose_by_score`, `to_messages`, `audio_array`.

**An answer** is `{"roles": {...}, "transform": [...]}` or `{"ask": why}`; `None` counts as asked. An answer without
`transform` is judged by its roles alone; what follows from roles and types anyhow (`IMPLIED`) may be left out. Where
a shape says `ask`, any mapping is silently wrong; where it has a mapping, asking is not wrong, but it is not right
either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

SCHEMAS = Path(__file__).parent / "schemas"
UNSEEN = Path(__file__).parent / "schemas_unseen"
FRESH = Path(__file__).parent / "schemas_fresh"
LATE = Path(__file__).parent / "schemas_late"
LATEST = Path(__file__).parent / "schemas_latest"

METHODS = frozenset(("sft", "distill", "dpo", "kto", "reward", "grpo", "classify", "pretrain", "vision", "speech"))

ROLES = frozenset(
    (
        "messages",
        "prompt",
        "completion",
        "system",
        "chosen",
        "rejected",
        "reference",
        "text",
        "label",
        "image",
        "audio",
        "tools",
        "score",
    )
)

TRANSFORMS = frozenset(
    (
        "join",
        "from_value_turns",
        "user_assistant_turns",
        "dict_of_lists",
        "parse_json",
        "nested",
        "first_of_list",
        "whole_conversations",
        "transcript",
        "choices_and_answer",
        "final_answer",
        "label_names",
        "pair",
        "steps",
        "choose_by_winner",
        "choose_by_rank",
        "choose_by_score",
        "to_messages",
        "audio_array",
    )
)

IMPLIED = frozenset(("join", "nested", "first_of_list", "dict_of_lists", "label_names", "pair"))


@dataclass(frozen=True, slots=True)
class Score:
    """What was counted over all shapes; each tuple holds shapes' ids."""

    right: tuple[str, ...]
    asked: tuple[str, ...]
    # A person was asked although the shape has a right mapping; asking where the shape says so is right.
    wrong: tuple[tuple[str, str], ...]
    # The shape's id, and what was taken for what.

    @property
    def n(self) -> int:
        return len(self.right) + len(self.asked) + len(self.wrong)

    @property
    def share_right(self) -> float:
        return len(self.right) / self.n if self.n else 0.0

    def lines(self) -> list[str]:
        """The score in words, one line each, with every shape that was not got right."""
        told = [f"{len(self.right)} right, {len(self.asked)} asked, {len(self.wrong)} silently wrong of {self.n}"]
        return [*told, *(f"asked: {one}" for one in self.asked), *(f"wrong: {one}: {why}" for one, why in self.wrong)]


@cache
def shapes(folder: Path = SCHEMAS) -> dict[str, dict[str, Any]]:
    """Every shape of a folder (`SCHEMAS`, `UNSEEN`, `FRESH`, `LATE` or `LATEST`) by its id."""
    return {
        shape["id"]: shape
        for file in sorted(folder.glob("*.yaml"))
        for shape in yaml.safe_load(file.read_text(encoding="utf-8"))
    }


def score(answers: Mapping[str, Mapping[str, Any] | None], folder: Path = SCHEMAS) -> Score:
    """Judge an answer for each shape of a folder, by id; a shape without an answer counts as asked.

    Raises:
        KeyError: an answer names a shape that is not there.
    """
    known = shapes(folder)
    if unknown := set(answers) - set(known):
        raise KeyError(f"no such shape: {', '.join(sorted(unknown))}")
    right, asked, wrong = [], [], []
    for one, shape in known.items():
        verdict = judge(shape, answers.get(one))
        if verdict == "right":
            right.append(one)
        elif verdict == "asked":
            asked.append(one)
        else:
            wrong.append((one, verdict))
    return Score(tuple(right), tuple(asked), tuple(wrong))


def judge(shape: Mapping[str, Any], answer: Mapping[str, Any] | None) -> str:
    """`right`, `asked`, or what is wrong with the answer."""
    if answer is None or "roles" not in answer:
        return "right" if "ask" in shape else "asked"
    given = _roles(answer["roles"])
    if "ask" in shape:
        return f"took {given or 'nothing'} without asking, though {shape['ask']}"
    readings = [reading for reading in (shape, *shape.get("also", ())) if _roles(reading["roles"]) == given]
    if not readings:
        return f"took {given}, not {_roles(shape['roles'])}"
    if answer.get("transform") is None:
        return "right"
    done = set(answer["transform"]) - IMPLIED
    if any(set(reading["transform"]) - IMPLIED == done for reading in readings):
        return "right"
    return f"transforms {sorted(done)}, not {sorted(set(readings[0]['transform']) - IMPLIED)}"


def _roles(roles: Mapping[str, str]) -> list[tuple[str, str]]:
    """Columns with their roles, ignored ones left out, in one order."""
    return sorted((role, column) for column, role in roles.items() if role != "ignore")
