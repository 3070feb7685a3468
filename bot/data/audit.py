"""Quality of training rows, measured without a tokenizer: empty and repeated rows, lengths, classes, secrets, abuse.

Only counts leave this module, never a row's text. Tokens are estimated from characters; the job that trains counts them
(`token_lengths` of its data_audit.json). Not covered: factual errors, abuse without blunt words, and personal data that
no pattern describes (names, addresses).
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bot.data.abuse import abuse_kinds
from bot.data.near_duplicates import NearDuplicates
from bot.data.rows import Part, Row, read_rows, segments
from bot.data.sensitive import sensitive_kinds
from bot.data.verdicts import Judgement, judgements
from bot.data.words import normalised_words
from bot.domain.languages import language_of, shares_of_known

# Up to so many different answers, and with so many rows to each, answers are classes rather than texts.
_MOST_CLASSES = 50
_FEWEST_ROWS_A_CLASS = 5
_FEW_WORDS = 5
"""Up to so many words an answer can be expected word for word."""
_A_NUMBER = re.compile(r"[-+]?\$?\d[\d,]*(?:\.\d+)?%?")
_MARKED_NUMBER = re.compile(r"####\s*[-+]?\$?\d[\d,.]*\s*$")
_DENSE = re.compile("[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]")
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
    abusive: Mapping[str, int] = field(default_factory=dict)
    """Kind of abusive language -> rows in which its pattern occurs."""
    estimated_tokens: Lengths = Lengths(0, 0, 0)
    """Percentiles of whole rows, estimated from characters and script."""
    max_length: int | None = None
    """Tokens at which the recipe cuts a row; None when it is not known."""
    cut_rows: int = 0
    """Rows that are probably longer than that."""
    checkable: Mapping[str, int] = field(default_factory=dict)
    """Rule of rewards.py -> answers that it can compare with: `numeric`, `boxed`, `json_equal`, `exact_match`."""
    uncheckable: int | None = None
    """Answers that none of them can; None for an audit of before it was counted."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Audit:
        names = ("prompt_characters", "answer_characters", "estimated_tokens")
        lengths = {name: Lengths(**data[name]) for name in names if name in data}
        return cls(**{name: data[name] for name in cls.__dataclass_fields__ if name in data} | lengths)

    def verdicts(self) -> list[Judgement]:
        """What is to be done with which rows and why, the gravest first."""
        return list(judgements(self))


def audit(rows: Iterable[Row], max_length: int | None = None) -> Audit:
    """Measure `rows`, which may be a stream; memory grows by about 100 bytes a row. `max_length` is the recipe's."""
    tally = _Tally(max_length)
    for row in rows:
        tally.add(row)
    return tally.audit()


def audit_file(path: Path) -> Audit:
    """`audit` of a file or a folder. Raises: UserError for what cannot be read."""
    return audit(read_rows(path))


class _Tally:
    def __init__(self, max_length: int | None) -> None:
        self.max_length, self.cut, self.uncheckable = max_length, 0, 0
        self.tokens = array("L")
        self.abusive: Counter[str] = Counter()
        self.checkable: Counter[str] = Counter()
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
            checks = checks_of(answer)
            self.checkable.update(checks)
            self.uncheckable += not checks
        tokens = estimated_tokens(prompt) + estimated_tokens(answer)
        self.tokens.append(tokens)
        self.cut += self.max_length is not None and tokens > self.max_length
        self.sensitive.update(sensitive_kinds(f"{prompt}\n{answer}"))
        self.abusive.update(abuse_kinds(f"{prompt}\n{answer}"))
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
            abusive=dict(sorted(self.abusive.items())),
            estimated_tokens=_lengths(self.tokens),
            max_length=self.max_length,
            cut_rows=self.cut,
            checkable=dict(sorted(self.checkable.items())),
            uncheckable=self.uncheckable,
        )


def estimated_tokens(text: str) -> int:
    """Of a vocabulary of tens of thousands: four characters of an alphabet to a token (OpenAI's rule of thumb for
    English), one of a script without blanks (Chinese, Japanese, Korean, Thai)."""
    dense = len(_DENSE.findall(text))
    return dense + math.ceil((len(text) - dense) / 4)


def checks_of(answer: str) -> list[str]:
    """The rules of rewards.py that can compare something with `answer` as a reference."""
    text = answer.strip()
    found = []
    if _A_NUMBER.fullmatch(text) or _MARKED_NUMBER.search(text):
        found.append("numeric")
    if "\\boxed{" in text:
        found.append("boxed")
    if text[:1] in ("{", "[") and _is_json(text):
        found.append("json_equal")
    if 0 < len(text.split()) <= _FEW_WORDS:
        found.append("exact_match")
    return found


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False


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
