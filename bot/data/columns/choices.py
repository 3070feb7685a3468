"""Questions with choices, and which column says the right one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .expressions import is_absent, options_of, picked, value_of
from .facts import USUAL, Column, Kind
from .mapping import FEWEST, Table, Unclear
from .names import ANSWERS, CHOICES, PICKS

_SIBLING = re.compile(r"(op|opt|option|choice|answer|ans|sol|solution|ending|)[ _-]?([a-eA-E]|[0-9])")
_MISSING = frozenset({"", "-1"})


@dataclass(frozen=True, slots=True)
class Choices:
    columns: tuple[str, ...]
    """One column of lists or objects, or one column for each choice."""
    answer: str
    base: int
    evidence: str

    @property
    def listed(self) -> str:
        return f"options({', '.join(self.columns)})"

    @property
    def right(self) -> str:
        return f"pick{'1' if self.base else ''}({self.answer}, {', '.join(self.columns)})"


def choices_of(table: Table) -> Choices | None:
    """The choices of the rows with the column that names the right one; None where there are none.

    Raises: Unclear where several columns name different ones, or numbers may begin at 0 or at 1.
    """
    for columns in _choice_columns(table):
        options = [options_of([value_of(name, row) for name in columns]) for row in table.rows]
        if sum(len(one) >= 2 for one in options) < USUAL * len(table.rows):
            continue
        if (found := _with_answer(table, columns, options)) is not None:
            return found
    return None


def _choice_columns(table: Table) -> list[tuple[str, ...]]:
    lists = [
        (column.path,) for _, column in table.ranked(CHOICES)
        if column.kind in (Kind.ALTERNATING, Kind.OBJECT, Kind.RECORDS)
    ]  # fmt: skip
    groups: dict[str, list[str]] = {}
    for column in table.columns:
        match = _SIBLING.fullmatch(column.path.strip().lower())
        if match is not None and column.kind in (Kind.TEXT, Kind.WHOLE, Kind.NUMBER):
            groups.setdefault(match[1], []).append(column.path)
    return [*lists, *(tuple(sorted(names)) for names in groups.values() if len(names) >= 2)]


def _with_answer(table: Table, columns: Sequence[str], options: list[list[tuple[str, str]]]) -> Choices | None:
    found: list[tuple[Column, int, list[int | None], bool]] = []
    for _, column in table.ranked(PICKS, besides=columns):
        if column.kind not in (Kind.WHOLE, Kind.NUMBER, Kind.CLASS, Kind.TEXT) or column.path in columns:
            continue
        values = [value_of(column.path, row) for row in table.rows]
        base = 0 if column.kind is Kind.CLASS else _numbered_from(values, options)
        resolved = [_resolved(value, one, base or 0) for value, one in zip(values, options, strict=True)]
        given = [at for at, value in zip(resolved, values, strict=True) if not _is_missing(value)]
        if given and sum(at is not None for at in given) >= USUAL * len(given):
            found.append((column, base or 0, resolved, base is None))
    if not found:
        return None
    found.sort(key=lambda one: one[3])  # first what leaves no doubt about where numbers begin
    column, base, resolved, doubtful = found[0]
    if doubtful:
        listed = ", ".join(columns)
        raise Unclear(
            f"{column.path} numbers the choices, and the rows do not show whether from 0 or from 1.",
            [f"data_completion_column: {name}({column.path}, {listed})" for name in ("pick", "pick1")],
        )
    for other, _, others, unsure in found[1:]:
        if not unsure and _disagree(resolved, others) > 1 - USUAL:
            raise Unclear(
                f"{column.path} and {other.path} name different choices: which one is right?",
                [f"data_completion_column: pick({one}, {', '.join(columns)})" for one in (column.path, other.path)],
            )
    _refuse_other_answers(table, Choices(tuple(columns), column.path, base, ""), [one[0].path for one in found])
    how = f"names one of {len(options[0])} choices in every row that has it"
    return Choices(tuple(columns), column.path, base, f"{column.evidence()}; {how}")


def _refuse_other_answers(table: Table, choices: Choices, named: Sequence[str]) -> None:
    """Raises: Unclear where the answer stands in words, too, which are none of the choices."""
    for rank, column in table.ranked(ANSWERS, besides=[*choices.columns, *named]):
        if rank[0] <= 1 and column.is_text and column.words >= 4 and column.filled >= FEWEST:
            raise Unclear(
                f"{choices.answer} names a choice, and {column.path} answers in words ({column.evidence()}).",
                [f"data_completion_column: {one}" for one in (choices.right, column.path)],
            )


def ready_made(table: Table, choices: Choices) -> list[str]:
    """Columns of text that hold all the choices already."""
    options = [options_of([value_of(name, row) for name in choices.columns]) for row in table.rows]
    found = []
    for column in table.columns:
        if column.is_text and column.path not in (*choices.columns, choices.answer):
            texts = [str(row.get(column.path) or "") for row in table.rows]
            whole = [bool(text) and all(_is_listed(text, option) for _, option in one)
                     for text, one in zip(texts, options, strict=True)]  # fmt: skip
            found += [column.path] if sum(whole) >= USUAL * len(whole) else []
    return found


def _is_listed(text: str, option: str) -> bool:
    """Whether a choice stands in a text on a line of its own, after a letter, a number or another choice: not one word
    of a sentence among others."""
    at = text.find(option.strip())
    while at >= 0:
        before = text[:at].rstrip(" \t*'\"")
        if not before or before[-1] in "\n.):,;|-/>]}" or before.endswith((" or", "or:")):
            return True
        at = text.find(option.strip(), at + 1)
    return False


def _is_missing(value: Any) -> bool:
    return is_absent(value) or str(value).strip() in _MISSING


def _resolved(value: Any, options: Sequence[tuple[str, str]], base: int) -> int | None:
    return None if _is_missing(value) else picked(value, options, base)


def _numbered_from(values: Sequence[Any], options: Sequence[Sequence[tuple[str, str]]]) -> int | None:
    """Where the numbers of an answer column begin; 0 for letters and texts, None where the rows do not show it."""
    pairs = [(value, one) for value, one in zip(values, options, strict=True) if not _is_missing(value)]
    numbers = []
    for value, one in pairs:
        if isinstance(value, str):
            labels = [label.upper() for label, _ in one]
            word = value.strip().upper()
            if not word.isdigit() or word in labels or word in [text.strip().upper() for _, text in one]:
                return 0
            value = int(word)
        if isinstance(value, int | float):
            numbers.append((int(value), len(one)))
    if any(number == 0 for number, _ in numbers):
        return 0
    return 1 if any(number == size for number, size in numbers) else None


def _disagree(one: Sequence[int | None], other: Sequence[int | None]) -> float:
    both = [(mine, yours) for mine, yours in zip(one, other, strict=True) if mine is not None and yours is not None]
    return sum(mine != yours for mine, yours in both) / len(both) if both else 0.0
