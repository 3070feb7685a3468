"""What a supervisor waits for, in one place: pipes that fill, processes that end, signals that arrive."""

from __future__ import annotations

import os
import selectors
from collections.abc import Callable

_READ_BYTES = 1 << 16


class Events:
    """Descriptors with what to do when each can be read. One thread, no lock."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def watch(self, descriptor: int, handle: Callable[[bytes], None]) -> None:
        """Give everything that comes through `descriptor` to `handle`, until its other end is closed."""
        os.set_blocking(descriptor, False)

        def still_open() -> bool:
            try:
                data = os.read(descriptor, _READ_BYTES)
            except BlockingIOError:
                return True
            if data:
                handle(data)
            return bool(data)

        self._selector.register(descriptor, selectors.EVENT_READ, still_open)

    def wake_once(self, descriptor: int) -> None:
        """End the wait when `descriptor` becomes readable, once: that of a process does so when it ends."""
        self._selector.register(descriptor, selectors.EVENT_READ, lambda: False)

    def wait(self, timeout_seconds: float) -> bool:
        """Handle what has come, waiting for it if need be; False when nothing came in time."""
        ready = self._selector.select(max(0.0, timeout_seconds))
        for key, _ in ready:
            still_open: Callable[[], bool] = key.data
            if not still_open():
                self._selector.unregister(key.fileobj)
        return bool(ready)
