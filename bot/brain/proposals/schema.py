"""The form of a proposal. Closed: a key that is not here is refused, and nothing but these fields is ever acted on.

A path is one of the experiment's own scripts by its exact name, so that there is nothing to traverse, and what stands
in a file comes whole or as replacements of passages that stand there once.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import yaml

from bot.conversation.recipe_rules import setting_problem
from bot.domain.data_source import parse_source
from bot.domain.goal import digest_of
from bot.domain.recipe import Scalar, recipe_hash, with_value
from bot.domain.thought import text_digest
from bot.errors import UserError

MOST_SETTINGS = 8
MOST_REASON = 1200
MOST_QUESTION = 1000
MOST_FILE = 250_000
"""Characters. The longest script that ships, `prepare.py`, has 155,000."""
MOST_EDITS = 40
PATCHABLE = ("data/prepare.py", "train.py", "rewards.py")
"""Scripts that may be rewritten, where the experiment has them. The recipe changes by settings alone."""
NO_LABEL = "none"
_DATASET = re.compile(r"(hf:)?[A-Za-z0-9][A-Za-z0-9._@/-]{0,199}")
_HEADER = re.compile(r"^# /// script$\n(?:^#(?: .*)?$\n)+^# ///$", re.MULTILINE)


class Kind(StrEnum):
    RECIPE = "recipe"
    """Other values of recipe.yaml's keys."""
    DATA = "data"
    """Other rows: another data set, other data_ keys, another data/prepare.py."""
    PATCH = "patch"
    """Another train.py or rewards.py."""
    QUESTION = "question"
    """To a person, in one sentence or two; the goal goes on with the playbook meanwhile."""
    NOTHING = "nothing"
    """Nothing better than what the playbook would do."""

    @property
    def changes(self) -> bool:
        return self not in (Kind.QUESTION, Kind.NOTHING)


SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["kind", "reason"],
    "properties": {
        "kind": {"type": "string", "enum": [str(kind) for kind in Kind]},
        "reason": {
            "type": "string",
            "maxLength": MOST_REASON,
            "description": "Why, for the engineers: which numbers of which run say so, and what would prove it wrong. "
            "It is published, so nothing of the benchmark's items may stand in it.",
        },
        "label": {
            "type": "string",
            "description": "The diagnosis that this answers, by its label (plateau, overfit ...), or none.",
        },
        "base": {
            "type": "integer",
            "description": "The run whose recipe and scripts this changes; by default the latest.",
        },
        "settings": {
            "type": "object",
            "maxProperties": MOST_SETTINGS,
            "additionalProperties": {"type": ["number", "string", "boolean", "null"]},
            "description": "Keys of recipe.yaml with their new values. One cause: keys of one kind only.",
        },
        "dataset": {
            "type": "string",
            "description": "kind data: what to train on, hf:owner/name or a path in the repository.",
        },
        "files": {
            "type": "array",
            "maxItems": len(PATCHABLE),
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["path"],
                "properties": {
                    "path": {"type": "string", "enum": list(PATCHABLE)},
                    "content": {"type": "string", "description": "The whole file."},
                    "edits": {
                        "type": "array",
                        "maxItems": MOST_EDITS,
                        "items": {
                            "type": "object",
                            "additionalProperties": False,
                            "required": ["old", "new"],
                            "properties": {"old": {"type": "string"}, "new": {"type": "string"}},
                        },
                        "description": "Or replacements, one after the other; each `old` stands there exactly once.",
                    },
                },
            },
        },
        "question": {"type": "string", "maxLength": MOST_QUESTION},
    },
}


@dataclass(frozen=True, slots=True)
class Standing:
    """What a proposal changes: a recipe with its scripts."""

    recipe: str
    digests: Mapping[str, str]
    """Path -> SHA-256 of every script of the experiment."""
    texts: Mapping[str, str]
    """Path -> text of those that may be rewritten."""


@dataclass(frozen=True, slots=True)
class Proposal:
    kind: Kind
    reason: str
    label: str = ""
    """Of the diagnosis that it answers; empty where it answers none."""
    settings: Mapping[str, Scalar] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    """Path -> the whole new text."""
    dataset: str = ""
    """As it was named; what it is pinned to stands in `settings`, as `data_sources`."""
    question: str = ""
    base: int = 0
    """The run that it changes; 0: the latest, or the plan."""
    recipe: str = ""
    """Of recipe.yaml, with the settings made."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """Of all scripts, with the files in their places."""

    @property
    def rewritten(self) -> frozenset[str]:
        return frozenset(self.files)

    @property
    def recipe_hash(self) -> str:
        return recipe_hash(yaml.safe_load(self.recipe) or {}, script_digest=digest_of(dict(self.digests)))

    def on(self, standing: Standing) -> Proposal:
        """The same with recipe and digests worked out."""
        recipe = standing.recipe
        for key, value in self.settings.items():
            recipe = with_value(recipe, key, value)
        digests = dict(standing.digests) | {path: text_digest(text) for path, text in self.files.items()}
        return _with(self, recipe=recipe, digests=digests)

    def as_dict(self) -> dict[str, Any]:
        whole: dict[str, Any] = {
            "kind": str(self.kind), "reason": self.reason, "label": self.label, "settings": dict(self.settings),
            "files": dict(self.files), "dataset": self.dataset, "question": self.question, "base": self.base,
            "recipe": self.recipe, "digests": dict(self.digests),
        }  # fmt: skip
        return {key: value for key, value in whole.items() if value or key in ("kind", "reason")}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Proposal:
        """What a newer version wrote beside the fields of this one is left out."""
        known = {key: data[key] for key in cls.__dataclass_fields__ if key in data}
        return cls(**known | {"kind": Kind(data["kind"])})


def _with(proposal: Proposal, **changed: Any) -> Proposal:
    return Proposal(**{key: getattr(proposal, key) for key in Proposal.__dataclass_fields__} | changed)


def pinned(proposal: Proposal, source: str) -> Proposal:
    """The same, training on `source`, which names one state of the data set for good."""
    return _with(proposal, settings={**proposal.settings, "data_sources": source})


def read_proposal(arguments: Mapping[str, Any], standing: Mapping[int, Standing]) -> Proposal:
    """The proposal that a model's arguments are. `standing` is what may be changed: run -> recipe and scripts, 0 for
    what stands at the head.

    Raises: UserError with everything that is wrong, a sentence each.
    """
    problems = _shape(arguments, SCHEMA, "")
    if problems:
        raise UserError(" ".join(problems[:8]))
    base = int(arguments.get("base") or 0)
    if base not in standing:
        known = ", ".join(str(each) for each in standing if each) or "none"
        raise UserError(f"`base` is {base}, and the runs that can be changed are: {known}.")
    kind = Kind(arguments["kind"])
    files, wrong = _files(arguments.get("files") or (), standing[base].texts)
    settings: dict[str, Scalar] = dict(arguments.get("settings") or {})
    label = str(arguments.get("label") or "")
    proposal = Proposal(
        kind, _line(arguments["reason"]), "" if label == NO_LABEL else label, settings, files,
        str(arguments.get("dataset") or ""), _line(arguments.get("question") or ""), base,
    )  # fmt: skip
    wrong += [problem for key, value in settings.items() if (problem := setting_problem(key, value)) is not None]
    wrong += _kind_problems(proposal)
    if wrong:
        raise UserError(" ".join(wrong[:8]))
    return proposal.on(standing[base])


def _line(text: str) -> str:
    return " ".join(str(text).split())


def _kind_problems(proposal: Proposal) -> list[str]:
    """What does not go with the kind that it says it is."""
    kind, found = proposal.kind, []
    if not proposal.reason:
        found.append("`reason` is empty: say which numbers of which run it rests on.")
    if kind is Kind.QUESTION and not proposal.question:
        found.append("A question needs `question`.")
    if kind is not Kind.QUESTION and proposal.question:
        found.append("`question` goes with the kind question alone.")
    if not kind.changes and (proposal.settings or proposal.files or proposal.dataset):
        found.append(f"A proposal of kind {kind} changes nothing: leave out settings, files and dataset.")
    if kind is Kind.RECIPE and not proposal.settings:
        found.append("A recipe change needs `settings`.")
    if kind is Kind.PATCH and not proposal.files:
        found.append("A patch needs `files`.")
    if kind is Kind.DATA and not (proposal.settings or proposal.files or proposal.dataset):
        found.append("A data change needs `dataset`, `files` with data/prepare.py, or data_ keys in `settings`.")
    if proposal.dataset:
        found += _dataset_problems(proposal)
    return found


def _dataset_problems(proposal: Proposal) -> list[str]:
    if proposal.kind is not Kind.DATA:
        return ["`dataset` goes with the kind data alone."]
    if "data_sources" in proposal.settings:
        return ["Name the data in `dataset` or in `data_sources`, not in both."]
    if not _DATASET.fullmatch(proposal.dataset) or ".." in proposal.dataset:
        return [f"`dataset` is {json.dumps(proposal.dataset[:80])}: write hf:owner/name, or a path in the repository."]
    try:
        parse_source(proposal.dataset)
    except UserError as error:
        return [f"`dataset` {error}."]
    return []


def _files(given: Sequence[Mapping[str, Any]], texts: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    found: dict[str, str] = {}
    wrong: list[str] = []
    for each in given:
        path = each["path"]
        if path not in texts:
            wrong.append(f"`{path}` is no script of this experiment; there are {', '.join(sorted(texts))}.")
        elif path in found:
            wrong.append(f"`{path}` stands there twice.")
        elif ("content" in each) == ("edits" in each):
            wrong.append(f"`{path}` has no draft that differs: write one, or give either `content` or `edits`.")
        else:
            try:
                text = each["content"] if "content" in each else _edited(path, texts[path], each["edits"])
                _check_script(path, text, texts[path])
                found[path] = text
            except UserError as error:
                wrong.append(str(error))
    return found, wrong


def _edited(path: str, text: str, edits: Sequence[Mapping[str, str]]) -> str:
    for number, edit in enumerate(edits, 1):
        count = text.count(edit["old"]) if edit["old"] else 0
        if count != 1:
            where = "is not there" if not count else f"stands there {count} times"
            raise UserError(f"`{path}`, edit {number}: `old` {where}. Copy a passage that stands there exactly once.")
        text = text.replace(edit["old"], edit["new"])
    return text


def _check_script(path: str, text: str, before: str) -> None:
    """Raises: UserError."""
    if len(text) > MOST_FILE:
        raise UserError(f"`{path}` would have {len(text):,} characters, and {MOST_FILE:,} are the limit.")
    if text == before:
        raise UserError(f"`{path}` would be what it is already.")
    try:
        text.encode()
        ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise UserError(f"`{path}` is no Python{line}: {_line(str(error))[:200]}.") from error
    if _header(text) != _header(before):
        raise UserError(
            f"`{path}`: the block `# /// script` names the environment, which is fixed. Leave it as it was."
        )


def _header(text: str) -> str:
    found = _HEADER.search(text)
    return found[0] if found else ""


# --- the schema itself

_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list, tuple), "string": (str,), "integer": (int,), "number": (int, float),
    "boolean": (bool,), "null": (type(None),),
}  # fmt: skip


def _shape(value: Any, schema: Mapping[str, Any], place: str) -> list[str]:
    """What of `value` is not as `schema` says. Of JSON Schema only what `SCHEMA` uses; our own, so that each mistake is
    a sentence that says what to write."""
    wanted = schema.get("type")
    named = f"`{place}`" if place else "The proposal"
    kinds = [wanted] if isinstance(wanted, str) else list(wanted or ())
    if kinds and not any(_is(value, kind) for kind in kinds):
        return [f"{named} has to be {' or '.join(kinds)}."]
    found: list[str] = []
    if isinstance(value, str):
        if "enum" in schema and value not in schema["enum"]:
            found.append(f"{named} is {json.dumps(value[:60])}: write one of {', '.join(schema['enum'])}.")
        if len(value) > schema.get("maxLength", math.inf):
            found.append(f"{named} has {len(value):,} characters, and {schema['maxLength']:,} are the limit.")
    elif isinstance(value, Mapping):
        found += _object_shape(value, schema, place, named)
    elif isinstance(value, list | tuple):
        if len(value) > schema.get("maxItems", math.inf):
            found.append(f"{named} has {len(value)} entries, and {schema['maxItems']} are the limit.")
        for number, each in enumerate(value[: schema.get("maxItems", len(value))]):
            found += _shape(each, schema["items"], f"{place}[{number}]")
    return found


def _object_shape(value: Mapping[str, Any], schema: Mapping[str, Any], place: str, named: str) -> list[str]:
    properties, more = schema.get("properties", {}), schema.get("additionalProperties", False)
    dot = f"{place}." if place else ""
    found = [f"{named} lacks `{key}`." for key in schema.get("required", ()) if key not in value]
    if len(value) > schema.get("maxProperties", math.inf):
        found.append(f"{named} has {len(value)} keys, and {schema['maxProperties']} are the limit.")
    for key, each in value.items():
        if key in properties:
            found += _shape(each, properties[key], f"{dot}{key}")
        elif more is False:
            found.append(f"{named} has no key {json.dumps(str(key)[:60])}: there are {', '.join(properties)}.")
        else:
            found += _shape(each, more, f"{dot}{str(key)[:60]}")
    return found


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, _TYPES[kind])
