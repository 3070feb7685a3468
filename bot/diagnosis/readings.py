"""Tolerant reading of what a training process leaves behind: numbers that are not, lines that end in the middle."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

Record = Mapping[str, Any]
LARGEST = 1e100
"""What no training number can be any more."""

_NOT_FINITE = {
    "nan": math.nan,
    "inf": math.inf,
    "infinity": math.inf,
    "+inf": math.inf,
    "+infinity": math.inf,
    "-inf": -math.inf,
    "-infinity": -math.inf,
}


def number(value: Any) -> float | None:
    """`value` as a float, None when it is no number at all.

    A key that is present with null is a number that could not be written: strict JSON has no NaN, so loggers put
    null there, and transformers' trainer_state.json holds a bare NaN. Both read as NaN.
    """
    if value is None:
        return math.nan
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    if isinstance(value, str):
        text = value.strip().lower()
        if text in _NOT_FINITE:
            return _NOT_FINITE[text]
        try:
            return float(text)
        except ValueError:
            return None
    return None


def finite(value: Any) -> float | None:
    """`value` as a finite float, or None."""
    result = number(value)
    return result if result is not None and math.isfinite(result) else None


def count(value: Any) -> int | None:
    """`value` as a whole number of at least 0, or None."""
    result = finite(value)
    return int(result) if result is not None and result >= 0 else None


def read_text(path: Path, *, limit_bytes: int, tail: bool = False) -> str | None:
    """At most `limit_bytes` of the file (its end with `tail`), undecodable bytes replaced; None when unreadable."""
    try:
        with path.open("rb") as file:
            if tail:
                file.seek(0, 2)
                file.seek(max(0, file.tell() - limit_bytes))
            return file.read(limit_bytes).decode("utf-8", errors="replace")
    except (OSError, ValueError):
        return None


def parsed(text: str) -> Any:
    """The JSON value in `text`, bare NaN and Infinity allowed; None when it is not JSON (or nested beyond reason)."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def json_object(path: Path, *, limit_bytes: int = 64 << 20) -> Record | None:
    """The object in the file, or None when it is absent, half-written or something else."""
    text = read_text(path, limit_bytes=limit_bytes)
    value = parsed(text) if text is not None else None
    return value if isinstance(value, dict) else None


def json_lines(path: Path, *, limit_bytes: int) -> Iterator[Record]:
    """The objects of a JSONL file. A line that does not parse is skipped: the last one is often half-written."""
    text = read_text(path, limit_bytes=limit_bytes)
    for line in (text or "").split("\n"):
        value = parsed(line) if line.strip() else None
        if isinstance(value, dict):
            yield value


def shown(value: float | None) -> str:
    """A number for a sentence: four significant digits, no trailing zeros, no exponent where plain digits are short."""
    if value is None:
        return "none"
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity"
    if value and not 1e-4 <= abs(value) < 1e7:
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    text = f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"
    return f"{float(text):.10f}".rstrip("0").rstrip(".") if "e" in text else text


def rounded(value: float, digits: int = 6) -> float:
    """`value` with `digits` significant digits; evidence need not carry sixteen."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else value
