"""Quality of training rows, measured without a tokenizer: empty and repeated rows, lengths, classes, secrets.

Only counts leave this module, never a row's text. Not covered: toxicity, factual errors, and personal data that no
pattern describes (names, addresses).
"""

from __future__ import annotations

import hashlib
import math
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bot.data.near_duplicates import NearDuplicates
from bot.data.rows import Part, Row, read_rows, segments
from bot.data.sensitive import sensitive_kinds
from bot.data.words import normalised_words
from bot.domain.languages import language_of, shares_of_known

# Up to so many different answers, and with so many rows to each, answers are classes rather than texts.
_MOST_CLASSES = 50
_FEWEST_ROWS_A_CLASS = 5
_ROWS_READ = 2000
"""From so many rows on, languages are told of a part of them."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Percentiles in characters, by nearest rank."""

    p50: int
    p95: int
    max: int


@dataclass(frozen=True, slots=True)
class Audit:
    rows: int
    columns: Mapping[str, int]
    """Column -> rows that have it."""
    nulls: Mapping[str, int]
    """Column -> rows where it is null, empty or missing; columns without any are left out."""
    empty_rows: int
    """Rows without any text."""
    empty_answers: int
    """Rows whose answer side exists and says nothing."""
    exact_duplicates: int
    """Rows that repeat an earlier one character by character."""
    near_duplicates: int
    """Further rows that repeat an earlier one but for case, punctuation, spacing or a few words."""
    distinct_prompts: int
    conflicting_rows: int
    """Rows that give a prompt another answer than its first row gave: noise in the references, or a real choice."""
    prompt_characters: Lengths
    answer_characters: Lengths
    """Of chosen and rejected answers together where a row has both."""
    classes: int | None
    """How many different answers there are when they are few; None when answers are texts."""
    largest_class_share: float | None
    """Of rows with an answer, those with the commonest one: what always giving that answer would score here."""
    sensitive: Mapping[str, int]
    """Kind of secret or personal data -> rows in which its pattern occurs."""
    languages: Mapping[str, float] = field(default_factory=dict)
    """Two-letter code -> share of the rows that tell theirs; empty where too few do."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Audit:
        lengths = {name: Lengths(**data[name]) for name in ("prompt_characters", "answer_characters")}
        return cls(**{name: data[name] for name in cls.__dataclass_fields__ if name in data} | lengths)

    def concerns(self) -> list[str]:
        """A sentence for each measurement that deserves a look before training."""
        shares = (
            (self.empty_rows, "hold no text", 0.0),
            (self.empty_answers, "have an empty answer", 0.0),
            (self.exact_duplicates, "repeat an earlier row exactly", 0.01),
            (self.near_duplicates, "repeat an earlier row with small changes", 0.05),
            (self.conflicting_rows, "answer a prompt differently from its first row", 0.01),
        )
        found = [
            f"{count:,} of {self.rows:,} rows {what}." for count, what, share in shares if count > share * self.rows
        ]
        if self.largest_class_share is not None and self.largest_class_share > 0.8:
            share = round(100 * self.largest_class_share, 1)
            found.append(
                f"One of {self.classes} answers is given in {share:g} % of rows: always giving it scores that."
            )
        found += [f"{count:,} rows hold what looks like {kind}." for kind, count in self.sensitive.items()]
        return found


def audit(rows: Iterable[Row]) -> Audit:
    """Measure `rows`, which may be a stream; memory grows by about 100 bytes a row."""
    tally = _Tally()
    for row in rows:
        tally.add(row)
    return tally.audit()


def audit_file(path: Path) -> Audit:
    """`audit` of a file or a folder. Raises: UserError for what cannot be read."""
    return audit(read_rows(path))


class _Tally:
    def __init__(self) -> None:
        self.rows = self.empty_rows = self.empty_answers = self.exact = self.near = self.conflicting = 0
        self.columns: Counter[str] = Counter()
        self.filled: Counter[str] = Counter()
        self.seen: set[int] = set()
        self.near_duplicates = NearDuplicates()
        self.first_answers: dict[int, int] = {}
        self.prompt_lengths, self.answer_lengths = array("L"), array("L")
        self.answers: Counter[int] = Counter()
        self.sensitive: Counter[str] = Counter()
        self.languages: Counter[str | None] = Counter()

    def add(self, row: Row) -> None:
        self.rows += 1
        self.columns.update(row.keys())
        self.filled.update(column for column, value in row.items() if not _is_empty(value))
        parts = segments(row)
        prompt = "\n".join(text for part, text in parts if part is not Part.ANSWER)
        answer = "\n".join(text for part, text in parts if part is Part.ANSWER)
        self.empty_answers += not answer and _has_answer_side(row)
        if not prompt and not answer:
            self.empty_rows += 1
            return
        self._count_repeats(prompt, answer)
        self.prompt_lengths.append(len(prompt))
        if answer:
            self.answer_lengths.append(len(answer))
            # Counting stops to be of use, and starts to cost memory, once answers are clearly texts.
            if len(self.answers) <= _MOST_CLASSES:
                self.answers[_digest(answer.strip())] += 1
        self.sensitive.update(sensitive_kinds(f"{prompt}\n{answer}"))
        # Thinned out evenly where there are many: shares are wanted, and reading a row for them takes longest of all.
        if self.rows % max(1, self.rows // _ROWS_READ) == 0:
            self.languages[language_of(f"{prompt}\n{answer}")] += 1

    def _count_repeats(self, prompt: str, answer: str) -> None:
        whole = _digest(f"{prompt}\0{answer}")
        if whole in self.seen:
            self.exact += 1
        else:
            self.seen.add(whole)
            self.near += self.near_duplicates.saw(normalised_words(f"{prompt}\n{answer}"))
        first = self.first_answers.setdefault(_digest(prompt), _digest(answer))
        self.conflicting += bool(answer) and first != _digest(answer)

    def audit(self) -> Audit:
        with_answer = len(self.answer_lengths)
        few = 0 < len(self.answers) <= min(_MOST_CLASSES, with_answer / _FEWEST_ROWS_A_CLASS)
        return Audit(
            rows=self.rows,
            columns=dict(self.columns),
            nulls={name: self.rows - self.filled[name] for name in self.columns if self.filled[name] < self.rows},
            empty_rows=self.empty_rows,
            empty_answers=self.empty_answers,
            exact_duplicates=self.exact,
            near_duplicates=self.near,
            distinct_prompts=len(self.first_answers),
            conflicting_rows=self.conflicting,
            prompt_characters=_lengths(self.prompt_lengths),
            answer_characters=_lengths(self.answer_lengths),
            classes=len(self.answers) if few else None,
            largest_class_share=max(self.answers.values()) / with_answer if few else None,
            sensitive=dict(sorted(self.sensitive.items())),
            languages={code: round(share, 4) for code, share in shares_of_known(self.languages).items()},
        )


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip()) or value in ([], {})


def _has_answer_side(row: Row) -> bool:
    names = {str(column).lower() for column in row}
    return bool(names & {"completion", "response", "answer", "output", "chosen", "messages", "conversations"})


def _lengths(lengths: Sequence[int]) -> Lengths:
    ordered = sorted(lengths)
    if not ordered:
        return Lengths(0, 0, 0)
    return Lengths(*(ordered[math.ceil(share * len(ordered)) - 1] for share in (0.5, 0.95, 1)))


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(errors="replace"), digest_size=8).digest())
