"""The gates of a training set that no goal's job built: files on this machine, held against a benchmark's items.

They are the bot's own, in the bot's words, for whoever trains without it (`postdoc check-data`, the Action's `train`).
What a goal has and files have not is left out: data sets by their name, and paraphrases by embeddings. A licence is
judged where one is stated; of the others it is said that none is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bot.conversation.policy import Policy
from bot.data.combination import Answer, Combination, Licensed, Part, Terms, combined, terms_of
from bot.data.contamination import Contamination
from bot.data.licences import find_licence, licence_gate
from bot.data.scan import scan
from bot.data.script_audit import audit_scripts
from bot.errors import UserError
from bot.evaluation.benchmark_file import Benchmark
from bot.evaluation.benchmarks import held_out_items

LARGEST_SCRIPT_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class TrainingFiles:
    """What would be trained on. Rows are JSON lines."""

    train: Path
    validation: Path | None = None
    scripts: Path | None = None
    """A folder: every file in it is looked through."""
    sources: Mapping[str, Path] | None = None
    """Name -> file or folder that the rows were built from."""
    base: Path | None = None
    """The folder of the model to start from."""


@dataclass(frozen=True, slots=True)
class Gates:
    contamination: Contamination
    scripts: int
    """Files that were looked through."""
    licences: Mapping[str, str | None]
    """What -> identifier; None where none is stated."""
    combination: Combination | None
    """None where no licence is stated."""
    licence_problem: str | None

    @property
    def blocked(self) -> str | None:
        """Why nothing may be trained on this; None when something may."""
        return self.contamination.blocked or self.licence_problem

    def as_dict(self) -> dict[str, Any]:
        """Without any benchmark text."""
        return {
            **self.contamination.as_facts(),
            "licences": dict(self.licences),
            "combination": self.combination.as_dict() if self.combination is not None else None,
            "blocked": self.blocked,
            "said": self.said(),
        }

    def said(self) -> list[str]:
        """What was looked at and found, a sentence each."""
        found = self.contamination
        lines = [found.report.summary()]
        if found.validation.rows:
            flagged = len(found.validation.flagged_rows)
            lines.append(f"{flagged:,} of {found.validation.rows:,} rows held out for validation overlap.")
        lines += [each.sentence() for each in found.scripts]
        if self.scripts and not found.scripts:
            lines.append(f"No item in {self.scripts} file{'s' if self.scripts > 1 else ''} of the experiment's own.")
        if found.blocked is None and (left := len(found.dropped) + len(found.validation.flagged_rows)):
            lines.append(f"{left:,} rows that overlap are left out, as the policy says.")
        return [*lines, *self._licences_said()]

    def _licences_said(self) -> Iterator[str]:
        unknown = [what for what, identifier in self.licences.items() if identifier is None]
        if self.combination is not None:
            yield self.licence_problem or self.combination.reason
        if unknown:
            yield f"No licence that is known is stated for {', '.join(unknown)}, so that was not judged."


def gates_of(files: TrainingFiles, benchmark: Benchmark, policy: Policy, seed: int = 0) -> Gates:
    """Look at everything that would be trained on. Raises: UserError for what cannot be read."""
    held_out = held_out_items(benchmark, seed)
    scripts = _scripts(files.scripts) if files.scripts is not None else {}
    contamination = Contamination(
        scan(_rows(files.train), held_out),
        scan(_rows(files.validation) if files.validation is not None else (), held_out),
        tuple(audit_scripts(scripts, held_out)),
        drops=policy.contamination == "drop",
    )
    parts = list(_parts(files))
    stated = [each for each in parts if terms_of(each.identifier) is not Terms.UNKNOWN]
    together = combined(stated, policy.licences_allowed) if stated else None
    return Gates(
        contamination,
        len(scripts),
        {each.what: each.identifier if each in stated else None for each in parts},
        together,
        _licence_problem(stated, together, policy),
    )


def write_kept(files: TrainingFiles, found: Contamination, folder: Path) -> None:
    """The rows without those that are left out: `train.jsonl` and `validation.jsonl`, of each that loses some."""
    flagged = found.validation.flagged_rows if found.drops else frozenset()
    folder.mkdir(parents=True, exist_ok=True)
    for source, dropped, name in (
        (files.train, found.dropped, "train.jsonl"), (files.validation, flagged, "validation.jsonl"),
    ):  # fmt: skip
        if source is not None and dropped:
            with (folder / name).open("wb") as kept:
                kept.writelines(line + b"\n" for number, line in enumerate(_lines(source)) if number not in dropped)


def _lines(file: Path) -> Iterator[bytes]:
    """One row each: empty lines are none."""
    with file.open("rb") as stream:
        for line in stream:
            if content := line.rstrip(b"\n"):
                yield content


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(_lines(file), 1):
        try:
            row = json.loads(line.decode())
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise UserError(f"{file.name}: row {number} is no JSON object; write one JSON object per line.")
        yield row


def _scripts(folder: Path) -> dict[str, bytes]:
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        name = path.relative_to(folder).as_posix()
        if path.stat().st_size > LARGEST_SCRIPT_BYTES:
            raise UserError(
                f"{name} is larger than {LARGEST_SCRIPT_BYTES >> 20} MB: a script is smaller, data are rows."
            )
        found[name] = path.read_bytes()
    return found


def _parts(files: TrainingFiles) -> Iterator[Licensed]:
    if files.base is not None:
        yield Licensed("the base model", Part.BASE, find_licence(files.base).identifier)
    for name, path in (files.sources or {}).items():
        yield Licensed(f"the training data `{name}`", Part.DATA, find_licence(path).identifier)


def _licence_problem(stated: list[Licensed], together: Combination | None, policy: Policy) -> str | None:
    gates = [licence_gate(each.identifier, policy.licences_allowed, what=each.what) for each in stated]
    if refused := next((gate for gate in gates if not gate.ok), None):
        return f"{refused.reason} {refused.advice}".strip()
    if together is None or together.answer is Answer.ALLOWED:
        return None
    if together.answer is Answer.REFUSED:
        return f"{together.reason} Name another teacher, or other data."
    named = ", ".join(dict.fromkeys(str(each.identifier) for each in stated))
    return (
        f"{together.reason} If the terms were read and allow it, write `licences: {{allowed: [{named}]}}` into "
        ".github/postdoc.yml. Otherwise name other data, or another model."
    )
