"""Near duplicates in one pass: rows equal in their words, or sharing four fifths of their five-word runs."""

from __future__ import annotations

import heapq
import zlib
from array import array
from collections.abc import Sequence
from itertools import pairwise

_RUN = 5
# Short rows share runs by chance (forms filled in); below this many words only equal words count.
_LONG_WORDS = 20
_SIMILARITY = 0.8
# A bottom-k sketch estimates the similarity of two rows within about 0.07 at k = 32.
_SKETCH = 32
# Two rows of similarity 0.8 miss each other in all three smallest hashes with probability 0.8 %.
_PROBES = 3
_MOST_SKETCHES = 50_000


class NearDuplicates:
    """Remembers rows. Hashes are of integers, so counts are the same in every process."""

    def __init__(self) -> None:
        self._equal: set[int] = set()
        self._sketches: list[array[int]] = []
        self._probes: dict[int, int] = {}

    def saw(self, words: Sequence[str]) -> bool:
        """Whether an earlier row is nearly this one; remembers this one if not."""
        codes = [zlib.crc32(word.encode(errors="replace")) for word in words]
        whole = hash(tuple(codes))
        if whole in self._equal:
            return True
        self._equal.add(whole)
        return len(words) >= _LONG_WORDS and self._saw_similar(codes)

    def _saw_similar(self, codes: Sequence[int]) -> bool:
        runs = set(map(hash, zip(*(codes[offset:] for offset in range(_RUN)), strict=False)))
        sketch = array("q", heapq.nsmallest(_SKETCH, runs))
        for probe in sketch[:_PROBES]:
            place = self._probes.get(probe)
            if place is not None and _similarity(sketch, self._sketches[place]) >= _SIMILARITY:
                return True
        if len(self._sketches) < _MOST_SKETCHES:
            for probe in sketch[:_PROBES]:
                self._probes.setdefault(probe, len(self._sketches))
            self._sketches.append(sketch)
        return False


def _similarity(left: array[int], right: array[int]) -> float:
    """Estimated share of runs that both have: of the smallest hashes of the two together, those in both."""
    merged = sorted([*left, *right])
    union = [value for value, following in pairwise([*merged, None]) if value != following][:_SKETCH]
    both = set(left) & set(right)
    return sum(value in both for value in union) / len(union)
