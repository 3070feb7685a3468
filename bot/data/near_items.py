"""Near-duplicates of evaluation items inside rows of any length, by MinHash sketches of the items.

Of each item the smallest hashes of its three-word runs are kept, and the share of them that a stretch of the row holds
estimates how much of the item is contained there (Broder, On the resemblance and containment of documents, 1997).
Containment, not resemblance, because a short test item in a long document resembles it hardly at all.

Not covered: items of less than ten words, forms filled in, questions on a passage that others share, and wording of
which hardly any three words stay together.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence

from bot.data.item_index import TEMPLATE_WORDS, IndexedItem, Run, Span, runs
from bot.data.row_text import RowText

_SKETCH = 64
_FEWEST_RUNS = 8
CONTAINED = 0.4
"""Share of an item's runs. Replacing every sixth word leaves half of the three-word runs, every fifth two in five."""
# Sentences of a small grammar are made of the same runs again and again: an item is looked for by runs of its own, and
# only where most of its runs are that.
_OWN_SHARE = 0.6
# The runs must stand together: a stretch of the row may be so many times as long as the item.
_STRETCH = 2.0


class NearItems:
    def __init__(self, items: Sequence[IndexedItem], counts: Mapping[Run, int]) -> None:
        """`counts`: of each run of three words, how many items hold it."""
        self.holders: dict[Run, int] = {}
        """A sketched run -> the item in whose sketch it is."""
        self.sizes: dict[int, int] = {}
        """Runs in an item's sketch; items without one are left out."""
        self._lengths = [len(item.words) for item in items]
        for number, item in enumerate(items):
            every = set(runs(item.words, TEMPLATE_WORDS))
            telling = {run for run in every if counts[run] == 1}
            if item.is_form or len(telling) < max(_FEWEST_RUNS, _OWN_SHARE * len(every)):
                continue
            sketch = sorted(telling, key=_order)[:_SKETCH] if len(telling) > _SKETCH else list(telling)
            self.sizes[number] = len(sketch)
            self.holders |= dict.fromkeys(sketch, number)

    def found(self, text: RowText) -> Iterable[Span]:
        if not self.sizes:
            return
        places: dict[int, list[tuple[int, Run]]] = {}
        held = [(place, run) for place, run in enumerate(runs(text.words, TEMPLATE_WORDS)) if run in self.holders]
        for place, run in held:
            places.setdefault(self.holders[run], []).append((place, run))
        for number, hits in places.items():
            if len(hits) >= CONTAINED * self.sizes[number]:
                count, start, end = _densest(hits, round(_STRETCH * self._lengths[number]))
                if count >= CONTAINED * self.sizes[number]:
                    yield Span(number, "near-duplicate", start, end + TEMPLATE_WORDS, count / self.sizes[number])


def _densest(hits: Sequence[tuple[int, Run]], longest: int) -> tuple[int, int, int]:
    """Most different runs in a stretch of at most `longest` words, and where the first and the last of them stand."""
    best = (0, 0, 0)
    counts: dict[Run, int] = {}
    first = 0
    for place, run in hits:
        counts[run] = counts.get(run, 0) + 1
        while place - hits[first][0] > longest:
            left = hits[first][1]
            counts[left] -= 1
            if not counts[left]:
                del counts[left]
            first += 1
        if len(counts) > best[0]:
            best = (len(counts), hits[first][0], place)
    return best


def _order(run: Run) -> tuple[int, Run]:
    """The same in every process, so that a scan gives the same answer twice."""
    return zlib.crc32(" ".join(run).encode(errors="replace")), run
