"""How far a long making is: what is done, what is left, and whether there is time to begin another case."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

GUESSED_SECONDS = 15.0
"""Of one case, until some have been timed."""


class Progress:
    """How far a making is, and whether there is time to begin another case."""

    def __init__(self, total: int, budget_minutes: float | None, workers: int, say: Callable[[str], None]) -> None:
        self.total, self.workers, self.say = total, workers, say
        self.seconds = None if budget_minutes is None else 60 * budget_minutes
        self.done = self.left_out = 0
        self._began, self._lock = time.monotonic(), threading.Lock()

    @property
    def _each(self) -> float:
        """Seconds of one case."""
        return (time.monotonic() - self._began) * self.workers / self.done if self.done else GUESSED_SECONDS

    def may_begin(self) -> bool:
        with self._lock:
            able = self.seconds is None or time.monotonic() - self._began + self._each <= self.seconds
            self.left_out += not able
        return able

    def tell(self, line: str) -> None:
        with self._lock:
            self.done += 1
            minutes = self._each * (self.total - self.done) / self.workers / 60
            self.say(f"{self.done}/{self.total} {line}; {minutes:.0f} minutes to go")


def side_by_side(workers: int, tasks: Iterable[Callable[[], None]]) -> None:
    """Do all tasks, so many at a time. Whoever interrupts waits for none of them; what runs ends with its job."""
    pool = ThreadPoolExecutor(workers)
    try:
        for done in [pool.submit(task) for task in tasks]:
            done.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
