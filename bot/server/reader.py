"""The inbox's reader: each goal's deliveries in the order they arrived, and no goal waits for another's."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable

import sqlalchemy as sa

from bot.conversation.events import Occurrence
from bot.errors import PostdocError, TransientError
from bot.loop.inbox import Inbox
from bot.server.handlers import Handlers

log = logging.getLogger("postdoc.inbox")

FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 2.0, 60.0
LOOK_AGAIN_SECONDS = 1.0
"""Without being told of an arrival: another process on the same database may have stored one."""
MOST_IN_HAND = 200
PRUNE_SECONDS = 3600.0


class InboxReader:
    """Hands stored deliveries to the handlers, lane by lane.

    A lane that meets an outage waits with growing pauses and lets go of its deliveries meanwhile; they stand in the
    inbox unhandled, so memory holds one number for it. What a person asked for is never dropped for an outage.
    """

    def __init__(
        self,
        inbox: Inbox,
        handlers: Handlers,
        arrived: asyncio.Event,
        *,
        may_read: Callable[[], bool] = lambda: True,
        on_handled: Callable[[str, str | None], None] = lambda event, outcome: None,
    ) -> None:
        self._inbox, self._handlers, self._arrived = inbox, handlers, arrived
        self._may_read, self._on_handled = may_read, on_handled
        """Of several processes on one database, one reads: two would each keep the order and together lose it."""
        self._after = 0
        self._looked_whole = 0.0
        self._in_hand: set[int] = set()
        self._no_room = False
        self._lanes: dict[str, deque[tuple[int, str, Occurrence]]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._blocked: dict[str, int] = {}
        """Lane -> the first delivery that waits for its outage to end."""
        self._failures: dict[str, int] = {}
        self._pruned_at = time.monotonic()

    async def run(self) -> None:
        """Read until cancelled."""
        try:
            await self._load()
            while True:
                self._arrived.clear()
                try:
                    if self._may_read():
                        more = True
                        while more:
                            more = await self._read_page()
                    await self._prune()
                except (sa.exc.SQLAlchemyError, TransientError) as error:
                    log.warning("the inbox cannot be read now: %s", type(error).__name__)
                    await asyncio.sleep(FIRST_RETRY_SECONDS)
                except Exception:
                    log.exception("reading the inbox failed")
                    await asyncio.sleep(FIRST_RETRY_SECONDS)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._arrived.wait(), timeout=LOOK_AGAIN_SECONDS)
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _load(self) -> None:
        pause = FIRST_RETRY_SECONDS
        while True:
            try:
                return await self._handlers.load()
            except (PostdocError, sa.exc.SQLAlchemyError) as error:
                log.warning("deliveries wait, because GitHub does not tell who we are: %s", error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_RETRY_SECONDS)

    async def _read_page(self) -> bool:
        """Take what is next in the inbox; False when there is no more or no room for it."""
        self._no_room = len(self._in_hand) >= MOST_IN_HAND
        if self._no_room:
            return False
        now = time.monotonic()
        if now - self._looked_whole >= LOOK_AGAIN_SECONDS:
            # Another process may commit a lower number later than this one read a higher.
            self._after, self._looked_whole = 0, now
        reached, in_hand = self._after, frozenset(self._in_hand)
        page = await asyncio.to_thread(self._inbox.unhandled, after=reached)
        settled: list[tuple[int, str | None]] = []
        for delivery in page:
            reading = await self._handlers.read(delivery)
            if self._after != reached:
                break  # an outage has ended meanwhile, and what waited for that comes before this
            self._after = reached = delivery.seq
            if delivery.seq in in_hand or delivery.seq in self._in_hand:
                continue  # also one that was finished while the page was read
            if reading.occurrence is None:
                settled.append((delivery.seq, reading.reason))
                self._on_handled(delivery.event, reading.reason)
            elif reading.lane in self._blocked:
                self._blocked[reading.lane] = min(self._blocked[reading.lane], delivery.seq)
            else:
                self._queue(reading.lane, delivery.seq, delivery.event, reading.occurrence)
        if settled:
            await self._inbox.mark_handled(settled)
        return bool(page)

    def _queue(self, lane: str, seq: int, event: str, occurrence: Occurrence) -> None:
        self._in_hand.add(seq)
        self._lanes.setdefault(lane, deque()).append((seq, event, occurrence))
        if lane not in self._tasks:
            self._tasks[lane] = asyncio.create_task(self._work(lane), name=f"inbox {lane}")

    async def _work(self, lane: str) -> None:
        queue = self._lanes[lane]
        try:
            while queue:
                seq, event, occurrence = queue[0]
                try:
                    outcome = await self._handlers.act(occurrence)
                except (TransientError, sa.exc.SQLAlchemyError) as error:
                    self._block(lane, seq, error)
                    return
                except Exception as error:
                    log.exception("delivery %d could not be handled", seq)
                    outcome = f"error: {type(error).__name__}"
                try:
                    await self._inbox.mark_handled([(seq, outcome)])
                except TransientError as error:
                    self._block(lane, seq, error)
                    return
                self._on_handled(event, outcome)
                self._failures.pop(lane, None)
                queue.popleft()
                self._in_hand.discard(seq)
        finally:
            self._in_hand.difference_update(seq for seq, _, _ in queue)
            del self._lanes[lane], self._tasks[lane]
            if self._no_room:
                self._arrived.set()

    def _block(self, lane: str, seq: int, error: Exception) -> None:
        self._blocked[lane] = seq
        failures = self._failures[lane] = self._failures.get(lane, 0) + 1
        pause = min(FIRST_RETRY_SECONDS * 2 ** (failures - 1), LONGEST_RETRY_SECONDS)
        pause = max(pause, getattr(error, "retry_after_seconds", None) or 0.0)
        log.warning("delivery %d of %s has to wait %.0f s: %s", seq, lane, pause, error)
        asyncio.get_running_loop().call_later(pause, self._unblock, lane)

    def _unblock(self, lane: str) -> None:
        self._after = min(self._after, self._blocked.pop(lane) - 1)
        self._arrived.set()

    async def _prune(self) -> None:
        if time.monotonic() - self._pruned_at >= PRUNE_SECONDS:
            self._pruned_at = time.monotonic()
            await asyncio.to_thread(self._inbox.prune)
