"""When a job last wrote something, and how busy it has been since: what tells one that hangs from one that computes.

`activity.json` in the job's folder is the supervisor's, and only there while the job is silent.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from runners.job import read_json
from runners.layout import LOG, WORK, write_json
from runners.metrics import METRICS

FILE = "activity.json"
SILENT_SECONDS = 60.0
"""A job that writes more often than that is not measured: reading all its processes costs milliseconds."""
LOOK_SECONDS = 30.0


def last_output_at(folder: Path) -> float:
    """Unix seconds of the last line of log or logged step, by the files in a job's folder; 0 where there is none."""
    return max(_written_at(folder / LOG), _written_at(folder / WORK / METRICS))


def seconds_since_output(folder: Path, started_at: float | None, now: float) -> float | None:
    """None for a job that has not begun."""
    return None if started_at is None else round(max(0.0, now - max(started_at, last_output_at(folder))), 1)


def cpu_share(folder: Path) -> float | None:
    """Of one core, on average, for as long as the job has been silent; None where that has not been measured."""
    found = read_json(folder / FILE) or {}
    if found.get("output_at") != last_output_at(folder) or not isinstance(found.get("cpu_share"), int | float):
        return None  # it has written since
    return float(found["cpu_share"])


def _written_at(path: Path) -> float:
    try:
        return os.stat(path, follow_symlinks=False).st_mtime
    except OSError:
        return 0.0


class Silence:
    """The supervisor's measurement of a job that says nothing."""

    def __init__(
        self,
        folder: Path,
        cpu_seconds: Callable[[], float | None],
        *,
        silent_seconds: float = SILENT_SECONDS,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        """`cpu_seconds` is what the job's processes have used so far, None where nobody can say."""
        self._folder, self._cpu_seconds = folder, cpu_seconds
        self._silent_seconds, self._look_seconds = silent_seconds, look_seconds
        self._began = time.time()
        self._next_look = 0.0
        self._since: tuple[float, float, float] | None = None
        """(time of the last output, when that was first measured from, CPU seconds then)"""

    def look(self) -> None:
        """Called about once a second."""
        now = time.time()
        if now < self._next_look:
            return
        output_at = last_output_at(self._folder)
        silent = now - max(self._began, output_at)
        if silent < self._silent_seconds:
            self._next_look = now + self._silent_seconds - silent
            self._since = None
            return
        self._next_look = now + self._look_seconds
        used = self._cpu_seconds()
        if used is None:
            return
        if self._since is None or self._since[0] != output_at or used < self._since[2]:
            # Less than before: a process has ended, and with it what it had used.
            self._since = (output_at, now, used)
            return
        _, at, before = self._since
        share = round((used - before) / max(1e-3, now - at), 4)
        write_json(self._folder / FILE, {"output_at": output_at, "cpu_share": share}, durable=False)
