"""Whether the pairs that a mapping builds point the right way: judged by the rows alone, where they carry the truth.

`schema_scoring` says which columns make a pair, and not which of two answers comes out as the better one. Here the
answers that were built are looked up in the row, and what the row says of them is read as the shape's transformation
has it: the smaller rank, the larger score, the one that is named, or the column that is called chosen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from bot.data.columns import as_turns, value_of
from tests.data.mapped_shapes import mapped

_SIGNS = {"choose_by_rank": -1, "choose_by_score": 1, "choose_by_winner": 1}


def verdicts(shape: Mapping[str, Any]) -> list[bool]:
    """For each row that carries the truth, whether the better answer was taken for it; [] where nothing is built."""
    mapping = mapped(shape)
    if mapping is None or mapping.question is not None or "chosen" not in mapping.expressions:
        return []
    said = mapping.expressions
    return [
        verdict for row in shape["rows"]
        if (verdict := _verdict(shape, row, *(_text(value_of(said[role], row)) for role in ("chosen", "rejected"))))
        is not None
    ]  # fmt: skip


def _verdict(shape: Mapping[str, Any], row: Mapping[str, Any], good: str, bad: str) -> bool | None:
    if not good or not bad or good == bad:
        return None
    for reading in (shape, *shape.get("also", ())):
        columns = {role: [name for name, given in reading["roles"].items() if given == role]
                   for role in ("chosen", "rejected", "score")}  # fmt: skip
        if not columns["score"] and len(columns["chosen"]) == len(columns["rejected"]) == 1:
            ends = [_text(value_of(columns[role][0], row)) for role in ("chosen", "rejected")]
            return ends == [good, bad] or (ends[0].endswith(good) and ends[1].endswith(bad))
        sign = next((sign for name, sign in _SIGNS.items() if name in reading["transform"]), None)
        if sign is None or not columns["score"]:
            continue
        told = dict(_told(row, columns["chosen"] + columns["rejected"], columns["score"]))
        if good in told and bad in told and told[good] != told[bad]:
            return (told[good] > told[bad]) == (sign > 0)
    return None


def _told(row: Mapping[str, Any], answers: list[str], scores: list[str]) -> Iterator[tuple[str, float]]:
    """(answer, what the row's numbers or names say of it)."""
    for column in answers:
        value = value_of(column, row)
        numbers = value_of(scores[0], row)
        if isinstance(value, list) and isinstance(numbers, list):
            yield from ((_text(one), float(number)) for one, number in zip(value, numbers, strict=True))
            continue
        side = _side(column)
        beside = [name for name in scores if len(scores) > 1 and _side(name) == side]
        if beside:
            yield _text(value), float(row[beside[0]])
        elif isinstance(numbers, str):
            yield _text(value), float(numbers == column or _side(numbers) == side)
        elif isinstance(numbers, int) and side.isdigit():
            yield _text(value), float(str(numbers) == side)


def _side(name: str) -> str:
    return re.findall(r"[A-Za-z]+|\d+", name)[-1].lower()


def _text(value: Any) -> str:
    """A text, or the last answer of a conversation."""
    turns = as_turns(value) if isinstance(value, list | dict) else None
    return (turns[-1]["content"] if turns else str(value or "")).strip()
