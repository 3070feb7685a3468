"""How fast one host is asked, by everything in this process together.

Nobody waits long here: when a request's turn is further away than a short bound, its caller is told when to come back.

Not covered: other processes of the same machine, which keep a pace of their own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

PATIENCE_SECONDS = 4.0
"""Longest wait for a turn; a little more than the slowest host's pause."""
FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS = 15.0, 900.0


class Pace:
    """One host's. Threads and event loops may share it."""

    def __init__(self, pause_seconds: float, tick: Callable[[], float] = time.monotonic) -> None:
        self.pause_seconds, self._tick = pause_seconds, tick
        self._lock = threading.Lock()
        self._next = self._closed_until = float("-inf")
        self._strikes = 0

    def turn(self) -> tuple[float, float]:
        """Seconds to wait for a turn that is taken now, and seconds to come back after. One of them is 0."""
        with self._lock:
            now = self._tick()
            if self._closed_until > now:
                return 0.0, self._closed_until - now
            wait = max(0.0, self._next - now)
            if wait > PATIENCE_SECONDS:
                return 0.0, wait
            self._next = max(now, self._next) + self.pause_seconds
            return wait, 0.0

    def close(self, asked_seconds: float | None) -> float:
        """The host wants to be left alone, for `asked_seconds` where it said. Returns for how long it will be."""
        with self._lock:
            self._strikes += 1
            backoff = FIRST_BACKOFF_SECONDS * 2 ** min(self._strikes - 1, 10)
            seconds = min(backoff if asked_seconds is None else asked_seconds, LONGEST_BACKOFF_SECONDS)
            self._closed_until = max(self._closed_until, self._tick() + seconds)
            return seconds

    def answered(self) -> None:
        with self._lock:
            self._strikes = 0
