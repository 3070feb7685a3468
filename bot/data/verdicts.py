"""What is to be done with rows after an audit: kept, left out, or not trained on at all, each with its reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bot.data.audit import Audit

_MOSTLY = 0.5
_NEARLY_ALL = 0.95


class Verdict(StrEnum):
    KEEP = "keep"
    """Trained on as they are; somebody should know."""
    FILTER = "filter"
    """The rows that it is about are better left out."""
    REFUSE = "refuse"
    """Training on this data would teach nothing, or something else."""


@dataclass(frozen=True, slots=True)
class Judgement:
    action: Verdict
    rows: int
    """That it is about."""
    reason: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def judgements(audit: Audit) -> Iterator[Judgement]:
    """Everything that an audit gives reason for, the gravest first; nothing for rows that are as they should be."""
    found = [*_refusals(audit), *_filters(audit), *_remarks(audit)]
    order = list(Verdict)[::-1]
    return iter(sorted(found, key=lambda one: order.index(one.action)))


def _refusals(audit: Audit) -> Iterator[Judgement]:
    n = audit.rows
    cases = (
        (audit.empty_rows, _MOSTLY, "hold no text"),
        (audit.empty_answers, _MOSTLY, "have an empty answer"),
        (audit.conflicting_rows, _MOSTLY, "answer a prompt differently from its first row: the answers look shuffled"),
        (audit.cut_rows, _MOSTLY, f"are probably longer than max_length ({audit.max_length} tokens) and would be cut"),
    )
    for count, share, what in cases:
        if count and n and count > share * n:
            yield Judgement(Verdict.REFUSE, count, f"{count:,} of {n:,} rows {what}.")
    if audit.largest_class_share is not None and audit.largest_class_share > _NEARLY_ALL:
        same = round(audit.largest_class_share * n)
        reason = f"{same:,} of {n:,} rows have the same answer: always giving it is all that could be learned."
        yield Judgement(Verdict.REFUSE, same, reason)


def _filters(audit: Audit) -> Iterator[Judgement]:
    n = audit.rows
    counted = (
        (audit.empty_rows, "hold no text"),
        (audit.empty_answers, "have an empty answer"),
        (audit.exact_duplicates, "repeat an earlier row exactly"),
        (audit.cut_rows, f"are probably longer than max_length ({audit.max_length} tokens)"),
    )
    for count, what in counted:
        if 0 < count <= _MOSTLY * n:
            yield Judgement(Verdict.FILTER, count, f"{count:,} of {n:,} rows {what}.")
    for kind, count in {**audit.sensitive, **audit.abusive}.items():
        yield Judgement(Verdict.FILTER, count, f"{count:,} of {n:,} rows hold what looks like {kind}.")


def _remarks(audit: Audit) -> Iterator[Judgement]:
    n = audit.rows
    if audit.near_duplicates > 0.05 * n:
        reason = f"{audit.near_duplicates:,} of {n:,} rows repeat an earlier one with small changes."
        yield Judgement(Verdict.KEEP, audit.near_duplicates, reason)
    if 0.01 * n < audit.conflicting_rows <= _MOSTLY * n:
        reason = f"{audit.conflicting_rows:,} of {n:,} rows answer a prompt differently from its first row."
        yield Judgement(Verdict.KEEP, audit.conflicting_rows, reason)
    share = audit.largest_class_share
    if share is not None and 0.8 < share <= _NEARLY_ALL:
        reason = f"One of {audit.classes} answers is given in {round(100 * share, 1):g} % of rows: balance the classes."
        yield Judgement(Verdict.KEEP, round(share * n), reason)
    if audit.uncheckable is not None and audit.uncheckable > _MOSTLY * n:
        reason = (
            f"{audit.uncheckable:,} of {n:,} answers are texts that no rule of rewards.py can compare: a number, a "
            "choice, a few words or JSON could be checked."
        )
        yield Judgement(Verdict.KEEP, audit.uncheckable, reason)
