"""Everything that a scan looks for in one row, strongest first, and the screen that names the rows worth a look."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Protocol

import numpy as np

from bot.data.choices import ChoiceItems
from bot.data.code_forms import CodeItems
from bot.data.item_index import GRAM, LONG_GRAM, ItemIndex, Span
from bot.data.near_items import CONTAINED, NearItems
from bot.data.row_text import RowText
from bot.data.rows import Segment
from bot.data.screen import Batch, Hashes, RunSet, hashes_of, runs_in
from bot.data.words import closes

# How many words may stand between a prompt and its reference: markers and phrases such as "Answer: it is".
_LARGEST_GAP = 8
_MATCH_CHARACTERS = 200
_PROBE_LENGTHS = (1, 2, 3)


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
    """`exact`, `13-gram`, `8-gram`, `prompt` (whole, inside other text), `prompt+reference`, `renamed code`,
    `shuffled choices`, `near-duplicate` or `paraphrase`."""
    match: str
    """The words that match, normalised. Benchmark text: keep it out of anything public."""
    score: float
    """Share of what tells the item (8-grams, runs of code or of three words) that the row holds; 1 for a whole prompt;
    of a paraphrase the cosine of the two embeddings."""


class Detectors:
    """Evaluation items, looked for in every way that needs no model."""

    def __init__(self, items: Iterable[ItemLike]) -> None:
        held = list(items)
        self.index = ItemIndex((item.id, item.prompt, item.reference) for item in held)
        self.near = NearItems(self.index.items, self.index.counts)
        self.choices = ChoiceItems(self.index.items, [(item.prompt, getattr(item, "choices", ())) for item in held])
        self.code = CodeItems((item.prompt, item.reference) for item in held)
        self._screen = _Screen(self.index, self.near, self.choices)

    def suspects(self, rows: Sequence[bytes]) -> set[int]:
        """Which of the rows may match an item by their words; no row that does is left out."""
        return self._screen.suspects(rows)

    def matches(self, parts: Sequence[Segment], row: int, *, by_words: bool) -> list[Match]:
        """The strongest match of each item with one row. `by_words`: the row is one of the `suspects`."""
        best: dict[int, Match] = {}

        def take(span: Span, words: str) -> None:
            # The searches come in the order of their strength.
            best.setdefault(
                span.item,
                Match(row, self.index.ids[span.item], span.kind, words[:_MATCH_CHARACTERS], round(span.score, 4)),
            )

        if by_words:
            text = RowText(parts)
            for span in chain(
                _exact(text, self.index), _grams(text, self.index), _sequences(text, self.index),
                self.choices.found(text), self.near.found(text),
            ):  # fmt: skip
                take(span, " ".join(text.words[span.start : span.end]))
        if self.code:
            for span, tokens in self.code.found(text for _, text in parts):
                take(span, tokens)
        return list(best.values())


class _Screen:
    def __init__(self, index: ItemIndex, near: NearItems, choices: ChoiceItems) -> None:
        probes = [*index.probes, *choices.probes]
        self._sets = [RunSet(n, hashes_of((run for run in probes if len(run) == n), n)) for n in _PROBE_LENGTHS]
        self._sets.append(RunSet(GRAM, _gram_hashes(index)))
        self._near = _NearScreen(near)

    def suspects(self, rows: Sequence[bytes]) -> set[int]:
        batch = Batch(rows)
        found: set[int] = set(self._near.suspects(batch))
        for runs in self._sets:
            if len(runs):
                found.update(np.unique(batch.hits(runs)[0]).tolist())
        return found


class _NearScreen:
    """Counts, for each row and item, the sketched runs that are there."""

    def __init__(self, near: NearItems) -> None:
        hashes = hashes_of(near.holders, 3)
        self._runs = RunSet(3, hashes)
        # Of two runs with one hash the second is left out: its row is named if the rest of the item is there.
        _, first = np.unique(hashes, return_index=True)
        self._holders = np.fromiter(near.holders.values(), np.int64, len(near.holders))[first]
        self._needed = np.full(max(near.sizes, default=0) + 1, np.iinfo(np.int64).max)
        for number, size in near.sizes.items():
            self._needed[number] = int(np.ceil(CONTAINED * size))
        self._least = self._needed.min()

    def suspects(self, batch: Batch) -> list[int]:
        if not len(self._runs):
            return []
        rows, members = batch.hits(self._runs)
        # A row with fewer hits than the least item needs is left out before they are counted item by item.
        many = np.bincount(rows)[rows] >= self._least if len(rows) else np.empty(0, bool)
        rows, members = rows[many], members[many]
        pairs, hits = np.unique(rows * len(self._needed) + self._holders[members], return_counts=True)
        near = pairs[hits >= self._needed[pairs % len(self._needed)]] // len(self._needed)
        return list(np.unique(near).tolist())


def _gram_hashes(index: ItemIndex) -> Hashes:
    """Of all telling 8-grams."""
    words: list[str] = []
    starts: list[int] = []
    for item in index.items:
        for text, places in zip((item.words, item.reference), item.places, strict=True):
            starts += [len(words) + place for place in places]
            words += text
    return runs_in(words, GRAM)[starts] if starts else np.empty(0, np.uint64)


def _exact(text: RowText, index: ItemIndex) -> Iterable[Span]:
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
                yield Span(number, "exact", start, end, 1.0)


def _grams(text: RowText, index: ItemIndex) -> Iterable[Span]:
    words = text.words
    hashes = list(map(hash, zip(*(words[offset:] for offset in range(GRAM)), strict=False)))
    places: dict[int, list[int]] = {}
    for place, gram in [(place, gram) for place, gram in enumerate(hashes) if gram in index.grams]:
        for number in index.grams[gram]:
            places.setdefault(number, []).append(place)
    for number, found in places.items():
        start, length = _longest_run(found)
        kind = f"{LONG_GRAM}-gram" if length + GRAM - 1 >= LONG_GRAM else f"{GRAM}-gram"
        share = len({hashes[place] for place in found}) / index.items[number].telling_grams
        yield Span(number, kind, start, start + length + GRAM - 1, share)


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


def _sequences(text: RowText, index: ItemIndex) -> Iterable[Span]:
    words = text.words
    for place, pair in enumerate(pairwise(words)) if index.pairs else ():
        for number, offset in index.pairs.get(pair, ()):
            item = index.items[number]
            start, end = place - offset, place - offset + len(item.words)
            if start < 0 or words[start:end] != item.words or text.signs(start, end) != item.signs:
                continue
            if len(item.words) >= GRAM:
                yield Span(number, "prompt", start, end, 1.0)
            elif (last := _reference_end(text, end, item.reference)) is not None:
                yield Span(number, "prompt+reference", start, last, 1.0)


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
