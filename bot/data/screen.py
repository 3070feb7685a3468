"""A first look at many rows at once: which of them hold any run of words that an index of evaluation items knows.

Runs are compared as 64-bit polynomial hashes (Karp and Rabin, IBM J. Res. Dev. 31, 1987) that numpy computes for all
words of a batch together, so that only the few rows with a hit are read word by word in Python. The answer errs on
one side alone: a row that holds a run is always named, and one that is named need hold nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from bot.data.words import spaced_words

Hashes = NDArray[np.uint64]
Places = NDArray[np.int64]

# Odd, so that each has an inverse modulo 2^64; otherwise arbitrary.
_BYTE_BASE, _WORD_BASE, _MIX = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93, 0xA0761D6478BD642F
_FEWEST_BITS, _MOST_BITS = 14, 24
_SPACE = 32
_SLOTS_EACH = 32


class RunSet:
    """A set of hashed runs of `length` words that is asked about millions of runs at a time."""

    def __init__(self, length: int, hashes: Hashes) -> None:
        self.length = length
        self.hashes: Hashes = np.unique(hashes)
        bits = max(_FEWEST_BITS, min(_MOST_BITS, math.ceil(math.log2(_SLOTS_EACH * len(self.hashes) + 1))))
        self._shift = np.uint64(64 - bits)
        # Enough slots that most runs that are no members are answered by one look, few enough to stay in the cache.
        self._slots = np.zeros(1 << bits, dtype=bool)
        self._slots[self.hashes >> self._shift] = True

    def __len__(self) -> int:
        return len(self.hashes)

    def hits(self, runs: Hashes) -> tuple[Places, Places]:
        """Of those runs that are members: their places in `runs`, and which members they are."""
        if not len(self.hashes):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        places = np.flatnonzero(self._slots[runs >> self._shift])
        members = np.minimum(np.searchsorted(self.hashes, runs[places]), len(self.hashes) - 1)
        true = self.hashes[members] == runs[places]
        return places[true], members[true]


class Batch:
    """Rows as one array of hashed words."""

    def __init__(self, rows: Sequence[bytes]) -> None:
        """`rows`: of each its words in lower case, divided by spaces, as `spaced_words` gives them."""
        words, starts = word_hashes(b" ".join(rows))
        self._runs = _RunHashes(words)
        lengths = np.fromiter((len(row) + 1 for row in rows), np.int64, len(rows))
        row_starts = np.cumsum(lengths) - lengths
        self.first_words: Places = np.searchsorted(starts, row_starts)
        """Place of each row's first word."""

    def hits(self, runs: RunSet) -> tuple[Places, Places]:
        """Row and member of each run that lies in one row whole."""
        places, members = runs.hits(self._runs.of(runs.length))
        rows = self.rows_of(places)
        inside = rows == self.rows_of(places + runs.length - 1)
        return rows[inside], members[inside]

    def rows_of(self, places: Places) -> Places:
        return np.searchsorted(self.first_words, places, side="right") - 1


def word_hashes(data: bytes) -> tuple[Hashes, Places]:
    """Hash and first byte of each word; words are what stands between spaces."""
    text = np.frombuffer(data, np.uint8)
    inside = np.zeros(len(text) + 2, dtype=bool)
    np.not_equal(text, _SPACE, out=inside[1:-1])
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    starts, ends = edges[::2], edges[1::2]
    powers, inverses = _powers(_BYTE_BASE, len(text))
    sums = np.zeros(len(text) + 1, np.uint64)
    np.cumsum(text * powers, out=sums[1:])
    mixed = (sums[ends] - sums[starts]) * inverses[starts] * np.uint64(_MIX)
    return mixed ^ (mixed >> np.uint64(31)), starts


class _RunHashes:
    """Hashes of the runs of any length in a sequence of words, from sums that are made once."""

    def __init__(self, words: Hashes) -> None:
        powers, self._inverses = _powers(_WORD_BASE, len(words))
        self._sums = np.zeros(len(words) + 1, np.uint64)
        np.cumsum(words * powers, out=self._sums[1:])

    def of(self, length: int) -> Hashes:
        """As many as there are places where a run of so many words begins."""
        if len(self._sums) <= length:
            return np.empty(0, np.uint64)
        runs: Hashes = self._sums[length:] - self._sums[:-length]
        runs *= self._inverses[: len(runs)]
        runs *= np.uint64(_MIX)
        return runs


def run_hashes(words: Hashes, length: int) -> Hashes:
    """Hash of each run of `length` neighbouring words."""
    return _RunHashes(words).of(length)


_AT_ONCE = 1 << 13
"""Runs that are hashed together: the tables of powers need be no longer than a batch of rows asks for."""


def hashes_of(runs: Iterable[Sequence[str]], length: int) -> Hashes:
    """Hashes of runs of words as `split_words` makes them, in their order. Each has `length` words."""
    rest, found = iter(runs), [np.empty(0, np.uint64)]
    while some := list(islice(rest, _AT_ONCE)):
        data = " ".join(word for run in some for word in run).encode(errors="replace")
        found.append(run_hashes(word_hashes(data)[0], length)[::length])
    return np.concatenate(found)


def runs_in(words: Sequence[str], length: int) -> Hashes:
    """Hashes of all runs of one text."""
    found = [np.empty(0, np.uint64)]
    for start in range(0, len(words), _AT_ONCE):
        data = " ".join(words[start : start + _AT_ONCE + length - 1]).encode(errors="replace")
        found.append(run_hashes(word_hashes(data)[0], length))
    return np.concatenate(found)


def data_of(texts: Iterable[str]) -> bytes:
    """A row's texts, one after the other, as `Batch` takes them."""
    return b" ".join(map(spaced_words, texts))


_LEAST = 1 << 14
"""Entries of the smallest table. A table is made twice as long whenever a batch needs it, so that a small scan takes a
few hundred KB and a large one not twice what its largest batch needs."""
_tables: dict[int, tuple[Hashes, Hashes]] = {}


def _powers(base: int, count: int) -> tuple[Hashes, Hashes]:
    """The first `count` powers of `base` modulo 2^64, and of its inverse."""
    powers, inverses = _tables.get(base, (_NOTHING, _NOTHING))
    if len(powers) < count:
        size = max(_LEAST, 1 << (count - 1).bit_length())
        powers, inverses = _grown(powers, base, size), _grown(inverses, pow(base, -1, 1 << 64), size)
        _tables[base] = powers, inverses
    return powers[:count], inverses[:count]


_NOTHING: Hashes = np.ones(1, np.uint64)


def _grown(powers: Hashes, base: int, size: int) -> Hashes:
    while len(powers) < size:
        powers = np.concatenate((powers, powers * np.uint64(pow(base, len(powers), 1 << 64))))
    return powers
