"""Contamination scan: does what a model is trained on contain the items it is evaluated on?

Long items (eight words or more, prompts and references alike) are found by any shared run of eight words, reported as a
13-gram where thirteen match in a row. Short items, and items that are mostly a form filled in ("Tell me what is the sum
of 12 and 7"), are found by their whole prompt: alone, or inside a longer text followed by the reference. Wording that
many items share is no evidence and is left out of the n-grams. Beside them: code whose names were changed, multiple
choice in another order, and wording of which half was replaced. Paraphrases need embeddings (`bot.data.paraphrases`).

Not covered: translations, paraphrases where no embedding model is given, and answers shorter than eight words without
their question. A clean verdict says that no text was copied, not that nothing was learned from the benchmark.
"""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from bot.data.detectors import Detectors, ItemLike, Match
from bot.data.rows import Item, Row, Segment, Shard, data_files, read_items, read_rows, read_shard, segments, shards
from bot.data.screen import data_of
from bot.errors import UserError

_BATCH_BYTES, _BATCH_ROWS = 1 << 17, 4096
# A longer text is looked at in pieces that overlap, so that memory does not grow with the length of a row.
_LONGEST_TEXT, _OVERLAP = 1 << 20, 1 << 13
_SHARD_BYTES = 4 << 20
# Below this, starting a second process takes longer than it saves.
_WORTH_A_PROCESS = 16 << 20
MOST_MATCHES = 100_000
"""Matches that a report lists; further ones are counted. Whoever has so many trains on the benchmark itself."""


@dataclass(frozen=True, slots=True)
class ScanReport:
    rows: int
    items: int
    flagged: tuple[Match, ...]
    """The strongest match of each pair of row and item, at most MOST_MATCHES of them."""
    unscannable_rows: int
    """Rows that hold something, but no word of text (token ids, for example)."""
    unscannable_items: tuple[str, ...]
    """Ids of items too short to be recognised: a prompt of less than two words."""
    seconds: float
    bytes: int
    """Of training text, in UTF-8."""
    unlisted: int = 0
    """Matches beyond those in `flagged`."""

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
        } | ({"unlisted": self.unlisted} if self.unlisted else {})  # fmt: skip

    def summary(self) -> str:
        """One sentence without any benchmark text."""
        sizes = f"{self.rows:,} training rows against {self.items:,} evaluation items"
        if self.flagged:
            touched = len({match.eval_id for match in self.flagged})
            least = "at least " if self.unlisted else ""
            return f"Contaminated: {least}{len(self.flagged_rows):,} of {sizes} overlap ({touched:,} items touched)."
        if not self.items:
            return f"Unclear: there was no evaluation item to scan {self.rows:,} training rows for."
        if self.unscannable:
            return (
                f"Unclear: no overlap found in {sizes}, but {self.unscannable_rows:,} rows hold no text and "
                f"{len(self.unscannable_items):,} items are too short to be recognised."
            )
        return f"Clean: no overlap found in {sizes}."

    def with_matches(self, more: Sequence[Match]) -> ScanReport:
        """This report and what another search found; a pair of row and item that is here already stays as it is."""
        here = {(match.row, match.eval_id) for match in self.flagged}
        new = [match for match in more if (match.row, match.eval_id) not in here]
        return replace(self, flagged=tuple(sorted((*self.flagged, *new), key=lambda match: match.row)))


def scan(
    train: Iterable[Row], items: Iterable[ItemLike], *, clock: Callable[[], float] = time.perf_counter
) -> ScanReport:
    """Scan `train` row by row (it may be a stream of any length) for `items`, which are held in memory as hashes."""
    started = clock()
    detectors = Detectors(items)
    tally = _Tally()
    tally.add(_scanned(train, detectors))
    return tally.report(detectors, clock() - started)


def scan_files(
    train: Path, evaluation: Path, *, workers: int = 1, clock: Callable[[], float] = time.perf_counter
) -> ScanReport:
    """`scan` over files or folders, in so many processes where the data is large enough to need them.

    Raises: UserError for what cannot be read.
    """
    items = read_items(evaluation)
    if workers < 2 or sum(file.stat().st_size for file in data_files(train)) < _WORTH_A_PROCESS:
        return scan(read_rows(train), items, clock=clock)
    started = clock()
    detectors = Detectors(items)
    tally = _Tally()
    try:
        for part in _parts(shards(train, _SHARD_BYTES), items, detectors, workers):
            tally.add(part)
    except UserError:
        # A shard does not know how many lines came before it, so the error is met again where they are counted.
        return scan(read_rows(train), items, clock=clock)
    return tally.report(detectors, clock() - started)


class _Part(NamedTuple):
    """What was found in some rows, which are numbered from 0 here."""

    rows: int
    flagged: list[Match]
    unlisted: int
    unscannable: int
    bytes: int


class _Tally:
    """Sums parts in the order of their rows."""

    def __init__(self) -> None:
        self.flagged: list[Match] = []
        self.rows = self.unlisted = self.unscannable = self.bytes = 0

    def add(self, part: _Part) -> None:
        taken = part.flagged[: MOST_MATCHES - len(self.flagged)]
        self.flagged += [replace(match, row=match.row + self.rows) for match in taken] if self.rows else taken
        self.unlisted += part.unlisted + len(part.flagged) - len(taken)
        self.rows += part.rows
        self.unscannable += part.unscannable
        self.bytes += part.bytes

    def report(self, detectors: Detectors, seconds: float) -> ScanReport:
        index = detectors.index
        unseen = tuple(index.ids[number] for number in index.unscannable)
        return ScanReport(
            self.rows, len(index.ids), tuple(self.flagged), self.unscannable, unseen, seconds, self.bytes, self.unlisted
        )


def _scanned(train: Iterable[Row], detectors: Detectors) -> _Part:
    flagged: list[Match] = []
    rows = unlisted = unscannable = size = 0
    for batch in _batches(train):
        suspects = detectors.suspects([view.data for view in batch])
        matches: dict[tuple[int, str], Match] = {}
        for number, view in enumerate(batch):
            if number in suspects or detectors.code:
                for match in detectors.matches(view.parts, view.row, by_words=number in suspects):
                    matches.setdefault((match.row, match.eval_id), match)
            size += view.bytes
            unscannable += view.unscannable
            rows = view.row + 1
        room = MOST_MATCHES - len(flagged)
        flagged += list(matches.values())[:room]
        unlisted += max(0, len(matches) - room)
    return _Part(rows, flagged, unlisted, unscannable, size)


class _View(NamedTuple):
    """A row, or a piece of one too long to be looked at whole."""

    row: int
    parts: list[Segment]
    data: bytes
    """Its words, as the screen reads them."""
    bytes: int
    unscannable: bool


def _batches(train: Iterable[Row]) -> Iterator[list[_View]]:
    batch: list[_View] = []
    size = 0
    for number, row in enumerate(train):
        for view in _views(number, row):
            batch.append(view)
            size += len(view.data)
            if size >= _BATCH_BYTES or len(batch) >= _BATCH_ROWS:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _views(number: int, row: Row) -> Iterator[_View]:
    parts = segments(row)
    size = sum(len(text) if text.isascii() else len(text.encode(errors="replace")) for _, text in parts)
    for place, some in enumerate(_pieces(parts)):
        data = data_of(text for _, text in some)
        silent = not data.strip() and any(value not in (None, "", [], {}) for value in row.values())
        yield _View(number, some, data, 0 if place else size, silent and place == 0)


def _pieces(parts: list[Segment]) -> Iterator[list[Segment]]:
    """All of the segments together where they are short enough, else pieces of them."""
    if sum(len(text) for _, text in parts) <= _LONGEST_TEXT:
        yield parts
        return
    for part, text in parts:
        for start in range(0, max(1, len(text) - _OVERLAP), _LONGEST_TEXT - _OVERLAP):
            yield [Segment(part, text[start : start + _LONGEST_TEXT])]


# --- Several processes ------------------------------------------------------------------------------------------------

_detectors: Detectors | None = None
"""Of a worker process."""


def _parts(some: Iterable[Shard], items: Sequence[Item], detectors: Detectors, workers: int) -> Iterator[_Part]:
    """Each shard's part, in their order; few of them are under way at a time, so memory does not grow with the data."""
    global _detectors
    # A fork shares the index; it is safe only as long as no other thread holds a lock.
    forks = "fork" in multiprocessing.get_all_start_methods() and threading.active_count() == 1
    _detectors = detectors if forks else None
    context = multiprocessing.get_context("fork" if forks else "spawn")
    under_way: deque[Future[_Part]] = deque()
    try:
        with ProcessPoolExecutor(workers, context, _begin, (None if forks else items,)) as pool:
            for shard in some:
                under_way.append(pool.submit(_scan_shard, shard))
                if len(under_way) > 2 * workers:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
    finally:
        _detectors = None


def _begin(items: Sequence[Item] | None) -> None:
    global _detectors
    if items is not None:
        _detectors = Detectors(items)


def _scan_shard(shard: Shard) -> _Part:
    assert _detectors is not None
    return _scanned(read_shard(shard), _detectors)
