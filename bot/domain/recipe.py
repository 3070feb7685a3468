"""Recipes: flat YAML with one key per line, so that every hyperparameter has a line a review can blame.

Reading YAML is the caller's business (`yaml.safe_load`); this module knows lines and values. Values are normalised
before hashing because YAML 1.1 reads `2e-5` as a string and `2.0e-5` as a number, and both are the same recipe.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bot.domain.goal import digest_of

Scalar = str | int | float | bool | None

_KEY_LINE = re.compile(r"^(?P<key>[A-Za-z_][A-Za-z0-9_]*)\s*:(?P<rest>\s.*|)$")
_NUMBER = re.compile(r"^[+-]?(\d[\d_]*\.?\d*|\.\d+)([eE][+-]?\d+)?$")
_COMMENT = re.compile(r"\s+#.*$")
# Keys that say how a run is observed or where it writes, not what is trained.
UNHASHED_KEYS = frozenset({"output_dir", "run_name", "report_to", "logging_steps", "disable_tqdm"})


def normalised_value(value: Any) -> Any:
    """`value` with numeric strings as numbers and whole floats as integers, recursively."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, str):
        text = value.strip()
        if not _NUMBER.match(text):
            return text
        value = float(text.replace("_", ""))
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, Mapping):
        return {str(k): normalised_value(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [normalised_value(v) for v in value]
    return value


def normalised(values: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe's keys in sorted order with normalised values."""
    return {str(key): normalised_value(values[key]) for key in sorted(values, key=str)}


def recipe_hash(values: Mapping[str, Any], *, script_digest: str = "") -> str:
    """Twelve hex digits: equal for two recipes that would train the same thing with the same script."""
    trained = {key: value for key, value in normalised(values).items() if key not in UNHASHED_KEYS}
    return digest_of([trained, script_digest])[:12]


def line_of(text: str, key: str) -> int | None:
    """1-based number of the line of `text` that sets `key` at top level, or None."""
    for number, line in enumerate(text.splitlines(), start=1):
        match = _KEY_LINE.match(line)
        if match and match["key"] == key:
            return number
    return None


def line_with(text: str, key: str, value: Scalar) -> str:
    """The line that sets `key` in `text`, rewritten to hold `value`; its trailing comment is kept."""
    number = line_of(text, key)
    if number is None:
        return f"{key}: {as_yaml(value)}"
    line = text.splitlines()[number - 1]
    comment = _COMMENT.search(line)
    return f"{key}: {as_yaml(value)}{comment.group(0) if comment else ''}"


def with_value(text: str, key: str, value: Scalar) -> str:
    """`text` with `key` set to `value`: its line changes, or one is added at the end; the rest stays as it is."""
    lines = text.splitlines()
    number = line_of(text, key)
    new_line = line_with(text, key, value)
    if number is None:
        lines.append(new_line)
    else:
        lines[number - 1] = new_line
    return "\n".join(lines) + "\n"


def as_yaml(value: Scalar) -> str:
    """`value` as a YAML scalar that every YAML reader takes for the same value (`2.0e-05`, never `2e-05`)."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case float():
            text = repr(value)
            mantissa, mark, exponent = text.partition("e")
            return f"{mantissa}.0e{exponent}" if mark and "." not in mantissa else text
        case int():
            return str(value)
        case str():
            plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_./-]*", value)
            reserved = value.lower() in {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
            return value if plain and not reserved else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Keys whose normalised value differs: `{key: (before, after)}`, None standing for an absent key."""
    left, right = normalised(before), normalised(after)
    return {k: (left.get(k), right.get(k)) for k in sorted(left.keys() | right.keys()) if left.get(k) != right.get(k)}
