"""The curves that training jobs log, thinned for a drawing and kept for as long as their file stays as it is."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bot.loop.actions.traces import metrics_of, number, thinned
from bot.server.pages.charts import LARGEST_VALUE, MOST_POINTS, Line

NAMES = {"loss": "training loss", "eval_loss": "evaluation loss", "grad_norm": "gradient norm"}
MOST_KEPT = 32
SHARE_OF_TIME = 0.05
"""A job that runs logs on and on; its file is parsed again when no more than this share of the time goes into it."""
LARGEST_STEP = 1e12


@dataclass(frozen=True, slots=True)
class Curve:
    line: Line
    logged: int
    missing: int
    """Logged values that are no number one could draw."""


@dataclass(frozen=True, slots=True)
class _Kept:
    stamp: tuple[int, int]
    read_at: float
    cost_seconds: float
    curves: dict[str, Curve]


class CurveFiles:
    """Reads `metrics.jsonl` files of jobs; safe to call from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[Path, _Kept] = OrderedDict()

    def read(self, places: Sequence[tuple[Path | None, str]]) -> dict[str, Curve]:
        """The curves in the first (folder, path in it) that has any, by their key in the log."""
        for folder, path in places:
            if folder is not None and (found := self._read(folder, path)):
                return found
        return {}

    def _read(self, folder: Path, path: str) -> dict[str, Curve]:
        place = folder / path
        try:
            status = place.stat(follow_symlinks=False)
        except OSError:
            return {}
        stamp = (status.st_size, status.st_mtime_ns)
        with self._lock:
            kept = self._kept.get(place)
            if kept is not None:
                self._kept.move_to_end(place)
                age = time.monotonic() - kept.read_at
                if kept.stamp == stamp or age < kept.cost_seconds / SHARE_OF_TIME:
                    return kept.curves
        began = time.monotonic()
        found = _curves_in(folder, path)
        now = time.monotonic()
        with self._lock:
            self._kept[place] = _Kept(stamp, now, now - began, found)
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        return found


def _curves_in(folder: Path, path: str) -> dict[str, Curve]:
    rows = [row for row in metrics_of(folder, path) if abs(row["step"]) < LARGEST_STEP]
    rows.sort(key=lambda row: int(row["step"]))
    found = {}
    for key, name in NAMES.items():
        points = [(float(row["step"]), _drawable(row[key])) for row in rows if key in row]
        if points:
            missing = sum(value is None for _, value in points)
            found[key] = Curve(Line(name, thinned(points, MOST_POINTS)), len(points), missing)
    return found


def _drawable(value: object) -> float | None:
    found = number(value)
    return found if found is not None and abs(found) < LARGEST_VALUE else None
