"""The mapping of a data set's columns to what a method trains on: `map_columns`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .accounting import refuse_unexplained
from .classes import class_uses, speech_uses, text_uses
from .expressions import Unreadable
from .facts import Column, Kind
from .mapping import LOOKED_AT, ROLES, ColumnMapping, Question, Table, Unclear, Use, key_of_role
from .names import CONTEXTS, rank_of
from .pairs import pair_uses
from .preferences import preference_uses

FEWEST_UNASKED = 0.8
"""Share of the rows that must have every part; what would leave more of them out is a person's decision."""
FEWEST_PAIRS = 0.2
"""The share of the rows where two answers are compared: many are as good as each other."""


def map_columns(
    rows: Sequence[Mapping[str, Any]], method: str, features: Any = None, named: Mapping[str, str] | None = None
) -> ColumnMapping:
    """How rows like these become rows of `method`, with what was seen; or the question that only a person can answer.

    `features` is what the Hub says of the columns, in either of its forms. `named` are the recipe's own words, role ->
    expression. Never raises for what the data are.
    """
    table = Table(rows[:LOOKED_AT], features, named or {})
    names = tuple(table.names)
    try:
        uses, notes = _uses(table, method)
        _check(table, uses)
        refuse_unexplained(table, method, uses)
    except Unclear as unclear:
        return ColumnMapping(method, question=unclear.question, columns=names, rows=len(table.rows))
    except Unreadable as error:
        return ColumnMapping(method, question=Question(f"{error}.", ()), columns=names)
    notes = [*notes, *_left_out(table, uses)]
    return ColumnMapping(method, tuple(uses), None, tuple(dict.fromkeys(notes)), names, len(table.rows))


def _left_out(table: Table, uses: Sequence[Use]) -> list[str]:
    """One sentence on the columns of text that nothing is made from."""
    read = {path.partition(".")[0] for path in table.read(*uses)} | set(table.read(*uses))
    unread = [column.path for column in table.columns if column.path not in read and _tells(column)]
    return [f"Left out: {', '.join(unread)}."] if unread else []


def _tells(column: Column) -> bool:
    """Whether somebody might want the column in a row."""
    if column.kind in (Kind.TURNS, Kind.MARKED) or (column.is_text and column.words >= 3):
        return True
    return rank_of(column.path, CONTEXTS) is not None


def _uses(table: Table, method: str) -> tuple[list[Use], list[str]]:
    if not table.rows:
        raise Unclear("The data has no rows, so nothing is known about its columns.")
    match ROLES[method]:
        case ("prompt", "completion"):
            return pair_uses(table, method)
        case ("prompt", "chosen", "rejected"):
            return preference_uses(table, method)
        case ("text",):
            return text_uses(table)
        case ("audio", "text"):
            return speech_uses(table)
        case (thing, "label"):
            return class_uses(table, thing)
    raise Unclear(f"method: {method} is not known; write one of {', '.join(ROLES)}")


def _check(table: Table, uses: Sequence[Use]) -> None:
    """Two parts of a row must not be the same column, and most rows must have every part. Raises: Unclear."""
    needed = [use for use in uses if use.role not in ("system", "tools")]
    for at, use in enumerate(needed):
        for other in needed[at + 1 :]:
            if use.expression == other.expression:
                raise Unclear(f"{use.expression} cannot be {use.role} and {other.role} at once.")
    shares = {use.role: table.share(use.expression) for use in needed}
    worst = min(needed, key=lambda use: shares[use.role])
    least = FEWEST_PAIRS if worst.role in ("chosen", "rejected") else FEWEST_UNASKED
    if shares[worst.role] < least and worst.role not in table.named:
        raise Unclear(
            f"{worst.expression} would be {worst.role}, and only {shares[worst.role]:.0%} of the rows have it; the "
            "others would be left out.",
            [f"{key_of_role(worst.role)}: {worst.expression}"],
        )
