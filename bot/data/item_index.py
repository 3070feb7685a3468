"""Evaluation items prepared for a scan: what tells them apart, which are forms filled in, which cannot be seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from bot.data.words import signs_between, split_words

GRAM = 8
"""Words in a row that two texts on different things hardly share; open-r1 and s1 decontaminate with it too."""
LONG_GRAM = 13
"""The run of words that GPT-3's authors called contamination (arXiv 2005.14165, appendix C)."""
_TEMPLATE_WORDS = 3
# A run of three words in more items than this is the benchmark's wording, not one item's content. The fixed number lets
# a few questions share a passage in a small benchmark.
_TEMPLATE_SHARE = 0.05
_TEMPLATE_ITEMS = 3
# From this share of such wording on, an item counts as a form filled in, recognised by its whole prompt only.
_FORM_SHARE = 0.5
# A prompt with its reference is looked for inside longer texts from this size on.
_PAIR_WORDS = 3
_PAIR_CHARACTERS = 6


@dataclass(slots=True)
class IndexedItem:
    words: list[str]
    """Of the prompt."""
    signs: list[str]
    reference: list[str]
    telling_grams: int = 0


@dataclass(slots=True)
class ItemIndex:
    """Look-ups from hashes of words to item numbers. Python's own hashes: they differ from process to process."""

    ids: list[str] = field(default_factory=list)
    items: list[IndexedItem] = field(default_factory=list)
    exact: dict[int, tuple[int, ...]] = field(default_factory=dict)
    """Hash of a whole prompt."""
    grams: dict[int, tuple[int, ...]] = field(default_factory=dict)
    """Hash of a telling 8-gram of a prompt or a reference."""
    pairs: dict[tuple[str, str], list[tuple[int, int]]] = field(default_factory=dict)
    """Rarest pair of neighbouring words of a prompt that is looked for whole -> (item, place of the pair in it)."""
    unscannable: list[int] = field(default_factory=list)
    gram_set: frozenset[int] = frozenset()
    pair_set: frozenset[tuple[str, str]] = frozenset()

    @classmethod
    def of(cls, items: Iterable[tuple[str, str, str]]) -> ItemIndex:
        """From (id, prompt, reference) of each item."""
        index = cls()
        for name, prompt, reference in items:
            words, gaps = split_words(prompt)
            signs = [signs_between(words[i], gaps[i + 1], words[i + 1]) for i in range(len(words) - 1)]
            index.ids.append(name)
            index.items.append(IndexedItem(words, signs, split_words(reference).words))
        common = _common_runs(index.items)
        pair_counts = Counter(pair for item in index.items for pair in set(_runs(item.words, 2)))
        for number, item in enumerate(index.items):
            index._add(number, item, common, pair_counts)
        index.gram_set, index.pair_set = frozenset(index.grams), frozenset(index.pairs)
        return index

    def _add(
        self,
        number: int,
        item: IndexedItem,
        common: frozenset[tuple[str, ...]],
        pair_counts: Counter[tuple[str, ...]],
    ) -> None:
        if item.words:
            whole = hash(tuple(item.words))
            self.exact[whole] = (*self.exact.get(whole, ()), number)
        shared = _covered(item.words, common)
        is_form = sum(shared) >= _FORM_SHARE * len(shared)
        telling = _telling_grams(item.reference, [False] * len(item.reference))
        if len(item.words) >= GRAM and not is_form:
            telling |= _telling_grams(item.words, shared)
        elif len(item.words) >= GRAM or _is_recognisable(item):
            self._add_pair(number, item.words, pair_counts)
        item.telling_grams = len(telling)
        own = (number,)  # One tuple for all n-grams of an item: a large benchmark has a million of them.
        for gram in telling:
            self.grams[gram] = own if gram not in self.grams else (*self.grams[gram], number)
        if len(item.words) < 2 and not telling:
            self.unscannable.append(number)

    def _add_pair(self, number: int, words: list[str], pair_counts: Counter[tuple[str, ...]]) -> None:
        rarest = min(range(len(words) - 1), key=lambda place: pair_counts[words[place], words[place + 1]])
        self.pairs.setdefault((words[rarest], words[rarest + 1]), []).append((number, rarest))


def _is_recognisable(item: IndexedItem) -> bool:
    """Whether a short prompt followed by its reference is long enough not to be said by chance."""
    both = item.words + item.reference
    return len(item.words) >= 2 and len(both) >= _PAIR_WORDS and sum(map(len, both)) >= _PAIR_CHARACTERS


def _runs(words: Sequence[str], length: int) -> Iterable[tuple[str, ...]]:
    return zip(*(words[offset:] for offset in range(length)), strict=False)


def _common_runs(items: Sequence[IndexedItem]) -> frozenset[tuple[str, ...]]:
    counts = Counter(run for item in items for run in set(_runs(item.words, _TEMPLATE_WORDS)))
    limit = max(_TEMPLATE_ITEMS, _TEMPLATE_SHARE * len(items))
    return frozenset(run for run, count in counts.items() if count > limit)


def _covered(words: Sequence[str], common: frozenset[tuple[str, ...]]) -> list[bool]:
    """For each word, whether it stands in a run of words that many items share."""
    covered = [False] * len(words)
    for place, run in enumerate(_runs(words, _TEMPLATE_WORDS)):
        if run in common:
            covered[place : place + _TEMPLATE_WORDS] = [True] * _TEMPLATE_WORDS
    return covered


def _telling_grams(words: Sequence[str], shared: Sequence[bool]) -> set[int]:
    """Hashes of the n-grams that do not consist of shared wording alone."""
    return {hash(gram) for place, gram in enumerate(_runs(words, GRAM)) if not all(shared[place : place + GRAM])}
