"""An event loop in which waiting takes no time: its clock jumps to the next timer as soon as nothing else is to do."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    ahead = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready:
            return ready
        if timeout is None:
            raise AssertionError("everything waits, and for nothing that will come")
        self.ahead += max(timeout, 0.0)
        return []


class ClockworkLoop(asyncio.SelectorEventLoop):
    """`time()` starts at 0 and is what `asyncio.sleep` goes by."""

    def __init__(self) -> None:
        self._clockwork = _Selector()
        super().__init__(self._clockwork)

    def time(self) -> float:
        return self._clockwork.ahead


def in_no_time(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end; an hour of sleeping takes milliseconds."""
    with asyncio.Runner(loop_factory=ClockworkLoop) as runner:
        return runner.run(work)


def ticks() -> float:
    """The running loop's clock."""
    return asyncio.get_running_loop().time()
