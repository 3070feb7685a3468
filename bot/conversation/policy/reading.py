"""From the text of `.github/postdoc.yml` to a policy, or to what is wrong on which line. No network, no exceptions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from pydantic import ValidationError

from bot.conversation.policy.form import PolicyForm
from bot.conversation.policy.value import Policy, settings_in
from bot.conversation.yaml_reader import Limits, Place, read_mapping
from bot.domain.inert import code

POLICY_PATH = ".github/postdoc.yml"
_LIMITS = Limits(bytes=65_536, keys=400, depth=4)


class ParsedPolicy(NamedTuple):
    policy: Policy | None
    problems: list[str]
    """Each begins with `line:column`."""


def parse_policy(text: str) -> ParsedPolicy:
    """The policy in the text of `.github/postdoc.yml`. Never raises; an empty file is the default policy."""
    document = read_mapping(text, _LIMITS)
    if document.problems:
        return ParsedPolicy(None, [str(problem) for problem in document.problems])
    try:
        values = document.values or {}
        return ParsedPolicy(replace(PolicyForm.model_validate(values).policy(), stated=settings_in(values)), [])
    except ValidationError as error:
        problems = [_sentence(dict(detail), document.places) for detail in error.errors(include_url=False)]
        return ParsedPolicy(None, sorted(set(problems), key=_place_of))


def read_policy(data: bytes) -> ParsedPolicy:
    """The policy in the bytes of a file. Never raises."""
    if len(data) > _LIMITS.bytes:
        size, most = f"{len(data):,}", f"{_LIMITS.bytes:,}"
        return ParsedPolicy(None, [f"1:1 The file has {size} bytes; at most {most} are read. Write a shorter one."])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return ParsedPolicy(None, [f"{line}:1 This is not UTF-8 text: save the file as UTF-8."])
    return parse_policy(text)


def policy_places(data: bytes) -> dict[str, Place]:
    """Where each setting of a readable policy stands: `consent.auto_approve.runs` -> (line, column)."""
    places = read_mapping(data.decode("utf-8-sig"), _LIMITS).places
    return {".".join(map(str, path)): place for path, place in places.items()}


_EXAMPLES = {
    "runs": "runs: 4",
    "gpu_hours": "gpu_hours: 2.5",
    "usd": "usd: 20",
    "wall_hours": "wall_hours: 24",
    "usd_per_hour": "usd_per_hour: 2.5",
    "recipe_keys": "recipe_keys: [learning_rate, max_steps]",
    "scripts": "scripts: [data/prepare.py, train.py]",
    "allowed": "allowed: [apache-2.0, mit]",
    "goal": "goal: postdoc",
    "self_approve_usd": "self_approve_usd: 20",
    "urls": "urls: [https://data.example.org/sets/]",
    "namespace": "namespace: my-organisation",
    "skip_ci": "skip_ci: true",
    "monitor": "monitor: advise",
    "brain": "brain: ask",
}


def _sentence(detail: dict[str, Any], places: Mapping[tuple[str | int, ...], Place]) -> str:
    path = tuple(detail["loc"])
    line, column = next((places[path[:n]] for n in range(len(path), 0, -1) if path[:n] in places), (1, 1))
    name = code(".".join(str(part) for part in path), 120)
    kind, context = detail["type"], detail.get("ctx", {})
    example = next((_EXAMPLES[str(part)] for part in reversed(path) if str(part) in _EXAMPLES), "")
    hint = f": write `{example}` for example." if example else "."
    match kind:
        case "extra_forbidden":
            why = f"There is no setting {name}: remove it, or see the documented example of this file."
        case "literal_error":
            why = f"{name} must be one of {context.get('expected', 'read, write, admin')}."
        case "greater_than_equal" | "greater_than" | "less_than_equal" | "finite_number":
            why = f"{name} is out of range{hint}"
        case "too_long" | "too_short" | "string_too_long" | "string_too_short":
            most, least = context.get("max_length"), context.get("min_length")
            what = "characters" if kind.startswith("string") else "items"
            why = f"{name} must have {f'at most {most}' if most is not None else f'at least {least}'} {what}{hint}"
        case "string_pattern_mismatch":
            why = f"{name} is not in the form that is read here{hint}"
        case "model_type":
            why = f"{name} holds settings of its own: write them below it, indented."
        case "value_error":
            why = f"{name}: {context.get('error')}{hint}"
        case _:
            wanted = re.sub(r"^Input should be ", "", str(detail["msg"]))
            why = f"{name} should be {wanted[:1].lower()}{wanted[1:]}{hint}"
    return f"{line}:{column} {why}"


def _place_of(problem: str) -> tuple[int, int]:
    line, column = problem.split(" ", 1)[0].split(":")
    return int(line), int(column)
