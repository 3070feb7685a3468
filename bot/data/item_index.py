"""Evaluation items prepared for a scan: what tells them apart, which are forms filled in, which cannot be seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

from bot.data.words import signs_between, split_words

GRAM = 8
"""Words in a row that two texts on different things hardly share; open-r1 and s1 decontaminate with it too."""
LONG_GRAM = 13
"""The run of words that GPT-3's authors called contamination (arXiv 2005.14165, appendix C)."""
TEMPLATE_WORDS = 3
# A run of three words in more items than this is the benchmark's wording, not one item's content. The fixed number lets
# a few questions share a passage in a small benchmark.
_TEMPLATE_SHARE = 0.05
_TEMPLATE_ITEMS = 3
# From this share of such wording on, an item counts as a form filled in, recognised by its whole prompt only.
_FORM_SHARE = 0.5
# A prompt with its reference is looked for inside longer texts from this size on.
_PAIR_WORDS = 3
_PAIR_CHARACTERS = 6

Run = tuple[str, ...]


class IndexedItem:
    """The words of one item, and which of them tell it from others."""

    __slots__ = ("is_form", "places", "reference", "signs", "telling_grams", "words")

    def __init__(self, prompt: str, reference: str) -> None:
        self.words, gaps = split_words(prompt)
        self.signs = [signs_between(self.words[i], gaps[i + 1], self.words[i + 1]) for i in range(len(self.words) - 1)]
        self.reference = split_words(reference).words
        self.is_form = False
        """Whether most of the prompt is wording that many items share."""
        self.places: tuple[list[int], list[int]] = ([], [])
        """Where the telling 8-grams begin: in the prompt, in the reference."""
        self.telling_grams = 0


class ItemIndex:
    """Look-ups from hashes of words to item numbers. Python's own hashes: they differ from process to process."""

    def __init__(self, items: Iterable[tuple[str, str, str]]) -> None:
        """From (id, prompt, reference) of each item."""
        self.ids: list[str] = []
        self.items: list[IndexedItem] = []
        self.exact: dict[int, tuple[int, ...]] = {}
        """Hash of a whole prompt."""
        self.grams: dict[int, tuple[int, ...]] = {}
        """Hash of a telling 8-gram of a prompt or a reference."""
        self.pairs: dict[tuple[str, str], list[tuple[int, int]]] = {}
        """Rarest pair of neighbouring words of a prompt that is looked for whole -> (item, place of the pair in it)."""
        self.unscannable: list[int] = []
        self.probes: list[Run] = []
        """One word or two of every prompt that has no telling 8-gram: a row without any of them holds none of these."""
        for name, prompt, reference in items:
            self.ids.append(name)
            self.items.append(IndexedItem(prompt, reference))
        self.counts = Counter(run for item in self.items for run in set(runs(item.words, TEMPLATE_WORDS)))
        """Of each run of three words, how many items hold it."""
        self._common = _common_runs(self.counts, len(self.items))
        self._rare = RarestPairs([item.words for item in self.items])
        for number, item in enumerate(self.items):
            self._add(number, item)

    def _add(self, number: int, item: IndexedItem) -> None:
        if item.words:
            whole = hash(tuple(item.words))
            self.exact[whole] = (*self.exact.get(whole, ()), number)
        shared = _covered(item.words, self._common)
        item.is_form = sum(shared) >= _FORM_SHARE * len(shared)
        asked = [] if item.is_form else _unshared(shared)
        answered = list(range(len(item.reference) - GRAM + 1))
        item.places = asked, answered
        telling = {hash(gram) for gram in (*_at(item.words, asked), *_at(item.reference, answered))}
        if not asked and (len(item.words) >= GRAM or _is_recognisable(item)):
            place = self._rare.place_in(item.words)
            self.pairs.setdefault((item.words[place], item.words[place + 1]), []).append((number, place))
        if not asked and item.words:
            self.probes.append(self._rare.pair_in(item.words) if len(item.words) > 1 else tuple(item.words))
        item.telling_grams = len(telling)
        own = (number,)  # One tuple for all n-grams of an item: a large benchmark has a million of them.
        for gram in telling:
            self.grams[gram] = own if gram not in self.grams else (*self.grams[gram], number)
        if len(item.words) < 2 and not telling:
            self.unscannable.append(number)


class RarestPairs:
    """Which two neighbouring words of a text fewest of the texts hold."""

    def __init__(self, texts: Sequence[Sequence[str]]) -> None:
        self._texts = texts

    @cached_property
    def _counts(self) -> Counter[Run]:
        return Counter(pair for words in self._texts for pair in set(runs(words, 2)))

    def place_in(self, words: Sequence[str]) -> int:
        return min(range(len(words) - 1), key=lambda place: self._counts[words[place], words[place + 1]])

    def pair_in(self, words: Sequence[str]) -> Run:
        place = self.place_in(words)
        return tuple(words[place : place + 2])


def runs(words: Sequence[str], length: int) -> Iterable[Run]:
    return zip(*(words[offset:] for offset in range(length)), strict=False)


def _common_runs(counts: Mapping[Run, int], items: int) -> frozenset[Run]:
    """Runs that more of the items hold than content would explain."""
    limit = max(_TEMPLATE_ITEMS, _TEMPLATE_SHARE * items)
    return frozenset(run for run, count in counts.items() if count > limit)


def _covered(words: Sequence[str], common: frozenset[Run]) -> list[bool]:
    """For each word, whether it stands in a run of words that many items share."""
    found = [False] * len(words)
    for place, run in enumerate(runs(words, TEMPLATE_WORDS)) if common else ():
        if run in common:
            found[place : place + TEMPLATE_WORDS] = [True] * TEMPLATE_WORDS
    return found


def _unshared(shared: Sequence[bool]) -> list[int]:
    """Where the 8-grams begin that do not consist of shared wording alone."""
    if True not in shared:
        return list(range(len(shared) - GRAM + 1))
    return [place for place in range(len(shared) - GRAM + 1) if not all(shared[place : place + GRAM])]


class Span(NamedTuple):
    """A match of an item with a row, in words of the row."""

    item: int
    kind: str
    start: int
    end: int
    score: float


def _is_recognisable(item: IndexedItem) -> bool:
    """Whether a short prompt followed by its reference is long enough not to be said by chance."""
    both = item.words + item.reference
    return len(item.words) >= 2 and len(both) >= _PAIR_WORDS and sum(map(len, both)) >= _PAIR_CHARACTERS


def _at(words: Sequence[str], places: Iterable[int]) -> Iterable[Run]:
    return (tuple(words[place : place + GRAM]) for place in places)
