"""Recipes: flat YAML with one key per line, so that every hyperparameter has a line a review can blame.

Reading YAML is the caller's business (`yaml.safe_load`); this module knows lines and values. Values are normalised
before hashing because YAML 1.1 reads `2e-5` as a string and `2.0e-5` as a number, and both are the same recipe.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from bot.domain.goal import digest_of

Scalar = str | int | float | bool | None

_KEY_LINE = re.compile(r"^(?P<key>[A-Za-z_][A-Za-z0-9_]*)\s*:(?P<rest>\s.*|)$")
_NUMBER = re.compile(r"^[+-]?(\d[\d_]*\.?\d*|\.\d+)([eE][+-]?\d+)?$")
# A quoted value may hold the sign of a comment, so it is passed over first.
_QUOTED = re.compile(r"""\s*(?:"(?:[^"\\]|\\.)*"|'(?:[^']|'')*')""")
_COMMENT = re.compile(r"\s#")
# What a double-quoted YAML scalar must not hold as it is: line breaks, control characters, half of a surrogate pair.
_ESCAPED = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029\\ud800-\\udfff\\ufeff\\ufffe\\uffff]")
# Keys that say how a run is observed or where it writes, not what is trained.
UNHASHED_KEYS = frozenset({"output_dir", "run_name", "report_to", "logging_steps", "disable_tqdm"})


_EARLIER_RUN = re.compile(r"runs/(\d{2,4})")


def earlier_run(value: Any) -> int | None:
    """The run of the same goal that `runs/02` names, 2; None for any other value."""
    named = _EARLIER_RUN.fullmatch(value) if isinstance(value, str) else None
    return int(named[1]) or None if named else None


def run_name(n: int) -> str:
    """How a recipe names an earlier run of its goal."""
    return f"runs/{n:02d}"


def normalised_value(value: Any) -> Any:
    """`value` with numeric strings as numbers and whole floats as integers, recursively."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, str):
        text = value.strip()
        if not _NUMBER.match(text):
            return text
        digits = text.replace("_", "")
        value = float(digits) if re.search(r"[.eE]", digits) else int(digits)
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, Mapping):
        return {str(k): normalised_value(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [normalised_value(v) for v in value]
    return value if isinstance(value, int | float) else str(value)  # YAML reads 2026-11-21 as a date


def normalised(values: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe's keys in sorted order with normalised values."""
    return {str(key): normalised_value(values[key]) for key in sorted(values, key=str)}


def recipe_hash(values: Mapping[str, Any], *, script_digest: str = "") -> str:
    """Twelve hex digits: equal for two recipes that would train the same thing with the same script."""
    trained = {key: value for key, value in normalised(values).items() if key not in UNHASHED_KEYS}
    return digest_of([trained, script_digest])[:12]


def line_of(text: str, key: str) -> int | None:
    """1-based number of the line of `text` that sets `key` at top level, or None.

    Of several it is the last, which YAML readers take. Lines end where GitHub ends them, at a line feed.
    """
    found = None
    for number, line in enumerate(text.split("\n"), start=1):
        match = _KEY_LINE.match(line)
        if match and match["key"] == key:
            found = number
    return found


def line_with(text: str, key: str, value: Scalar) -> str:
    """The line that sets `key` in `text`, rewritten to hold `value`; its trailing comment is kept."""
    number = line_of(text, key)
    comment = "" if number is None else _comment_of(text.split("\n")[number - 1])
    return f"{key}: {as_yaml(value)}{comment}"


def _comment_of(line: str) -> str:
    """The comment that ends a key's line, with the spaces before it."""
    line = line.rstrip("\r")
    start = line.index(":") + 1
    quoted = _QUOTED.match(line, start)
    mark = _COMMENT.search(line, quoted.end() if quoted else start)
    return line[len(line[: mark.start()].rstrip()) :] if mark else ""


def with_value(text: str, key: str, value: Scalar) -> str:
    """`text` with `key` set to `value`: its line changes, or one is added at the end; the rest stays as it is.

    A value written over several lines becomes one line.
    """
    number = line_of(text, key)
    new_line = line_with(text, key, value)
    if number is None:
        return text + ("" if not text or text.endswith("\n") else "\n") + new_line + "\n"
    lines = text.split("\n")
    end = "\r" if lines[number - 1].endswith("\r") else ""
    lines[number - 1 : _end_of_value(lines, number)] = [new_line + end]
    return "\n".join(lines) + ("" if lines[-1] == "" else "\n")


def _end_of_value(lines: list[str], number: int) -> int:
    """Number of the last line of the value that starts on line `number`, indented lines and list entries included."""
    end = number
    for following, line in enumerate(lines[number:], start=number + 1):
        content = line.strip()
        if content and not line.startswith((" ", "\t", "- ")) and content != "-":
            break
        if content and not content.startswith("#"):
            end = following
    return end


def as_yaml(value: Scalar) -> str:
    """`value` as a YAML scalar that every YAML reader takes for the same value (`2.0e-05`, never `2e-05`)."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case float():
            if not math.isfinite(value):
                return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
            text = repr(value)
            mantissa, mark, exponent = text.partition("e")
            return f"{mantissa}.0e{exponent}" if mark and "." not in mantissa else text
        case int():
            return str(value)
        case str():
            plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_./-]*", value)
            reserved = value.lower() in {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
            return value if plain and not reserved else _quoted(value)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", escaped) + '"'


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Keys whose normalised value differs: `{key: (before, after)}`, None standing for an absent key."""
    left, right = normalised(before), normalised(after)
    pairs = ((key, left.get(key), right.get(key)) for key in sorted(left.keys() | right.keys()))
    # By their digests, as recipes are told apart too: for Python `True == 1`, and not-a-number differs from itself.
    return {key: (old, new) for key, old, new in pairs if digest_of(old) != digest_of(new)}
