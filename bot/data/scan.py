"""Contamination scan: does what a model is trained on contain the items it is evaluated on?

Long items (eight words or more, prompts and references alike) are found by any shared run of eight words, reported as a
13-gram where thirteen match in a row. Short items, and items that are mostly a form filled in ("Tell me what is the sum
of 12 and 7"), are found by their whole prompt: alone, or inside a longer text followed by the reference. Wording that
many items share is no evidence and is left out of the n-grams.

Not covered: paraphrases, translations, code with its names changed, and answers shorter than eight words without their
question. A clean verdict says that no text was copied, not that nothing was learned from the benchmark.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Protocol

from bot.data.item_index import GRAM, LONG_GRAM, ItemIndex
from bot.data.rows import Part, Row, Segment, read_items, read_rows, segments
from bot.data.words import closes, signs_between, split_words

# How many words may stand between a prompt and its reference: markers and phrases such as "Answer: it is".
_LARGEST_GAP = 8
_MATCH_CHARACTERS = 200


class ItemLike(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def prompt(self) -> str: ...
    @property
    def reference(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Match:
    row: int
    """0-based place in the training data; over a folder, in all its files in the order of their names."""
    eval_id: str
    kind: str
    """`exact`, `13-gram`, `8-gram`, `prompt` (whole, inside other text) or `prompt+reference`."""
    match: str
    """The words that match, normalised. Benchmark text: keep it out of anything public."""
    score: float
    """Share of the item's telling 8-grams that the row holds; 1 when the whole prompt does."""


@dataclass(frozen=True, slots=True)
class ScanReport:
    rows: int
    items: int
    flagged: tuple[Match, ...]
    """The strongest match of each pair of row and item."""
    unscannable_rows: int
    """Rows that hold something, but no word of text (token ids, for example)."""
    unscannable_items: tuple[str, ...]
    """Ids of items too short to be recognised: a prompt of less than two words."""
    seconds: float
    bytes: int
    """Of training text, in UTF-8."""

    @property
    def unscannable(self) -> int:
        return self.unscannable_rows + len(self.unscannable_items)

    @property
    def flagged_rows(self) -> frozenset[int]:
        return frozenset(match.row for match in self.flagged)

    @property
    def verdict(self) -> str:
        """`contaminated`, `unclear` when something could not be looked at, or `clean`."""
        if self.flagged:
            return "contaminated"
        return "unclear" if self.unscannable or not self.items else "clean"

    def as_dict(self) -> dict[str, Any]:
        """What `postdoc scan --json` writes."""
        return {
            "rows": self.rows,
            "flagged": [asdict(match) for match in self.flagged],
            "unscannable": self.unscannable,
            "verdict": self.verdict,
            "seconds": self.seconds,
            "bytes": self.bytes,
        }

    def summary(self) -> str:
        """One sentence without any benchmark text."""
        sizes = f"{self.rows:,} training rows against {self.items:,} evaluation items"
        if self.flagged:
            touched = len({match.eval_id for match in self.flagged})
            return f"Contaminated: {len(self.flagged_rows):,} of {sizes} overlap ({touched:,} items touched)."
        if not self.items:
            return f"Unclear: there was no evaluation item to scan {self.rows:,} training rows for."
        if self.unscannable:
            return (
                f"Unclear: no overlap found in {sizes}, but {self.unscannable_rows:,} rows hold no text and "
                f"{len(self.unscannable_items):,} items are too short to be recognised."
            )
        return f"Clean: no overlap found in {sizes}."


def scan(
    train: Iterable[Row], items: Iterable[ItemLike], *, clock: Callable[[], float] = time.perf_counter
) -> ScanReport:
    """Scan `train` row by row (it may be a stream of any length) for `items`, which are held in memory as hashes."""
    started = clock()
    index = ItemIndex.of((item.id, item.prompt, item.reference) for item in items)
    flagged: list[Match] = []
    rows = unscannable = size = 0
    for row in train:
        parts = segments(row)
        size += sum(len(text) if text.isascii() else len(text.encode(errors="replace")) for _, text in parts)
        text = RowText(parts)
        if text.words:
            flagged += matches_in(text, index, rows)
        elif any(value not in (None, "", [], {}) for value in row.values()):
            unscannable += 1
        rows += 1
    unseen = tuple(index.ids[number] for number in index.unscannable)
    return ScanReport(rows, len(index.ids), tuple(flagged), unscannable, unseen, clock() - started, size)


def scan_files(train: Path, evaluation: Path) -> ScanReport:
    """`scan` over files or folders. Raises: UserError for what cannot be read."""
    return scan(read_rows(train), read_items(evaluation))


class RowText:
    """A row as one sequence of words that remembers where its segments began."""

    __slots__ = ("answer", "gaps", "pieces", "prompt", "words")

    def __init__(self, parts: Sequence[Segment]) -> None:
        self.words: list[str] = []
        self.gaps: list[str] = [""]
        self.pieces: list[tuple[Part, int, int]] = []
        """Part, first word and end of each segment that has words."""
        for part, text in parts:
            words, gaps = split_words(text)
            if not words:
                continue
            start = len(self.words)
            self.pieces.append((part, start, start + len(words)))
            self.words += words
            self.gaps[-1] += ("\n" if start else "") + gaps[0]
            self.gaps += gaps[1:]
        self.prompt = self._side(asking=True)
        self.answer = self._side(asking=False)

    def _side(self, *, asking: bool) -> tuple[int, int]:
        """Words from the first to the last segment of one side; (0, 0) when there is none."""
        ranges = [(start, end) for part, start, end in self.pieces if (part is not Part.ANSWER) == asking]
        return (ranges[0][0], ranges[-1][1]) if ranges else (0, 0)

    def signs(self, start: int, end: int) -> list[str]:
        return signs_of(self.words[start:end], self.gaps[start : end + 1])


def signs_of(words: Sequence[str], gaps: Sequence[str]) -> list[str]:
    """Arithmetic signs inside a run of words, one entry for each gap between two of them."""
    return [signs_between(words[i], gaps[i + 1], words[i + 1]) for i in range(len(words) - 1)]


def matches_in(text: RowText, index: ItemIndex, row: int) -> list[Match]:
    """The strongest match of each item with one row."""
    best: dict[int, Match] = {}
    for number, kind, start, end, score in chain(_exact(text, index), _grams(text, index), _sequences(text, index)):
        if number not in best:  # The three searches come in the order of their strength.
            words = " ".join(text.words[start:end])
            best[number] = Match(row, index.ids[number], kind, words[:_MATCH_CHARACTERS], round(score, 4))
    return list(best.values())


Found = tuple[int, str, int, int, float]
"""Item number, kind, first word, end, score."""


def _exact(text: RowText, index: ItemIndex) -> Iterable[Found]:
    sides = [(start, end) for _, start, end in text.pieces]
    if text.prompt not in sides:
        sides.append(text.prompt)
    for start, end in sides:
        for number in index.exact.get(hash(tuple(text.words[start:end])), ()):
            item = index.items[number]
            short = len(item.words) < GRAM
            if item.words != text.words[start:end] or (short and text.signs(start, end) != item.signs):
                continue
            # One or two words are often said by chance, so they must be asked; a single word also needs its answer.
            asked = text.prompt[0] <= start and end <= text.prompt[1]
            answered = item.reference == text.words[slice(*text.answer)] != []
            if len(item.words) > 2 or (asked and (len(item.words) == 2 or answered)):
                yield number, "exact", start, end, 1.0


def _grams(text: RowText, index: ItemIndex) -> Iterable[Found]:
    words = text.words
    if len(words) < GRAM or not index.grams:
        return
    hashes = list(map(hash, zip(*(words[offset:] for offset in range(GRAM)), strict=False)))
    if index.gram_set.isdisjoint(hashes):
        return
    places: dict[int, list[int]] = {}
    for place, gram in enumerate(hashes):
        for number in index.grams.get(gram, ()):
            places.setdefault(number, []).append(place)
    for number, found in places.items():
        start, length = _longest_run(found)
        kind = f"{LONG_GRAM}-gram" if length + GRAM - 1 >= LONG_GRAM else f"{GRAM}-gram"
        share = len({hashes[place] for place in found}) / index.items[number].telling_grams
        yield number, kind, start, start + length + GRAM - 1, share


def _longest_run(places: Sequence[int]) -> tuple[int, int]:
    """First place and length of the longest run of consecutive numbers."""
    best = (places[0], 1)
    start = places[0]
    for before, place in pairwise(places):
        if place != before + 1:
            start = place
        if place - start + 1 > best[1]:
            best = (start, place - start + 1)
    return best


def _sequences(text: RowText, index: ItemIndex) -> Iterable[Found]:
    words = text.words
    if index.pair_set.isdisjoint(pairwise(words)):
        return
    for place, pair in enumerate(pairwise(words)):
        for number, offset in index.pairs.get(pair, ()):
            item = index.items[number]
            start, end = place - offset, place - offset + len(item.words)
            if start < 0 or words[start:end] != item.words or text.signs(start, end) != item.signs:
                continue
            if len(item.words) >= GRAM:
                yield number, "prompt", start, end, 1.0
            elif (last := _reference_end(text, end, item.reference)) is not None:
                yield number, "prompt+reference", start, last, 1.0


def _reference_end(text: RowText, end: int, reference: list[str]) -> int | None:
    """Where the reference ends that follows a prompt ending at `end`; None when none follows.

    The prompt must have been said to its end: "max of 3 5" is no part of "max of 3 5 9". In running text, though, a
    reference may follow with nothing but a space between.
    """
    if not reference:
        return None
    closed = closes(text.gaps[end])
    farthest = end + _LARGEST_GAP if closed else end
    if not closed and len(text.pieces) > 1:
        return None
    for place in range(end, farthest + 1):
        if text.words[place : place + len(reference)] == reference:
            return place + len(reference)
    return None
