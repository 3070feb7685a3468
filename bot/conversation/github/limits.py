"""How fast one installation may speak: a gate that every request of it passes, shared by all of its goals.

GitHub counts by installation, asks for a second between writes, and documents secondary limits of 80 contents a minute
and 500 an hour, 900 points a minute (a write counts 5, a read 1) and 100 requests at a time:
https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api#about-secondary-rate-limits
https://docs.github.com/en/rest/using-the-rest-api/best-practices-for-using-the-rest-api

A request that would have to wait long is not made: it fails with the time to wait, and the durable step comes back.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from weakref import WeakKeyDictionary

import httpx

from bot.conversation.github.answers import LONGEST_WAIT_SECONDS, asked_wait, is_limit, is_primary
from bot.conversation.github.errors import Dropped
from bot.errors import TransientError

WRITES_PER_MINUTE = 60
POINTS_PER_MINUTE = 720
"""A fifth below what GitHub documents, because other people's tools may speak as the same installation's account."""
READ_POINTS, WRITE_POINTS = 1, 5
COSMETIC_SHARE = 0.75
"""Share of the hour's writes that progress may have used up before it is left out."""
COSMETIC_REMAINING = 0.1
"""Share of the primary limit below which progress is left out."""
PATIENCE_SECONDS = 60.0
"""Longest wait inside of a request; for a longer one the caller is told when to come back."""
LONGEST_BACKOFF_SECONDS = 60.0
SECONDARY_SECONDS = 60.0
"""GitHub asks for at least a minute where it names no time, then for ever longer ones."""


class Urgency(IntEnum):
    """Whose write goes first. Reads do not queue."""

    ANSWER = 0
    """Somebody is waiting for a sign that they were heard."""
    WORK = 1
    """Decisions, commits, reviews, endings: may wait, never left out."""
    COSMETIC = 2
    """Progress: left out rather than waited for."""


@dataclass(frozen=True, slots=True)
class Pacing:
    """How one process spends an installation's limits. A pause of 0 is for servers that count nothing: a practice
    forge, or a GitHub Enterprise Server with its rate limits off."""

    write_pause_seconds: float = 1.0
    writes_per_hour: int = 400
    """0 for no ceiling."""
    concurrent: int = 10
    """Requests at a time, for each event loop."""


@dataclass(slots=True)
class Quota:
    """What GitHub last said of one primary limit."""

    limit: int
    remaining: int
    reset_at: float
    """On the gate's own clock."""


@dataclass(order=True, slots=True)
class _Place:
    """A place in the line of writes."""

    urgency: Urgency
    number: int


@dataclass(slots=True)
class _Window:
    """Amounts spent within the last `seconds`."""

    seconds: float
    spent: deque[tuple[float, int]] = field(default_factory=deque)
    total: int = 0

    def add(self, now: float, amount: int) -> None:
        self.spent.append((now, amount))
        self.total += amount

    def wait_for(self, now: float, amount: int, budget: int) -> float:
        """Seconds until `amount` more fits into the budget."""
        while self.spent and self.spent[0][0] <= now - self.seconds:
            self.total -= self.spent.popleft()[1]
        excess = self.total + amount - budget
        for at, spent in self.spent:
            if excess <= 0:
                break
            excess -= spent
            if excess <= 0:
                return at + self.seconds - now
        return 0.0


class Gate:
    """One installation's gate. Threads and event loops may share it."""

    def __init__(
        self, pacing: Pacing, *, tick: Callable[[], float] = time.monotonic, counts: Counter[str] | None = None
    ) -> None:
        self._pacing, self._tick = pacing, tick
        self._counts: Counter[str] = Counter() if counts is None else counts
        self._lock = threading.Lock()
        self._closed: dict[str, float] = {}
        """Resource -> until when it is closed; "" is all of them."""
        self._closed_at, self._strikes, self._failures = float("-inf"), 0, 0
        self._next_write = float("-inf")
        self._line: list[_Place] = []
        self._places = 0
        self._hour, self._minute, self._points = _Window(3600.0), _Window(60.0), _Window(60.0)
        self._slots: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()
        self.quotas: dict[str, Quota] = {}

    @asynccontextmanager
    async def passage(
        self, *, write: bool, urgency: Urgency = Urgency.WORK, resource: str = "core"
    ) -> AsyncIterator[None]:
        """Wait for leave, and hold one of the concurrent slots for as long as the request lasts.

        Raises: TransientError with the time to wait when that is long; Dropped for a cosmetic write that is left out.
        """
        await self._admission(write, urgency, resource)
        async with self._slot():
            yield

    async def _admission(self, write: bool, urgency: Urgency, resource: str) -> None:
        place = self._join(urgency) if write else None
        try:
            waited = 0.0
            while (found := self._wait(place, resource)) is not None:
                wait, why = found
                if urgency is Urgency.COSMETIC and waited + wait > self._pacing.write_pause_seconds:
                    self._counts["dropped"] += 1
                    raise Dropped(why)
                if waited + wait > PATIENCE_SECONDS:
                    raise TransientError(f"{why}: again in {wait:.0f} s", retry_after_seconds=wait)
                await asyncio.sleep(wait)
                waited += wait
                self._counts["waited_milliseconds"] += round(wait * 1000)
        finally:
            if place is not None:
                self._leave(place)

    def _slot(self) -> asyncio.Semaphore:
        loop = asyncio.get_running_loop()
        with self._lock:
            return self._slots.setdefault(loop, asyncio.Semaphore(self._pacing.concurrent))

    def _join(self, urgency: Urgency) -> _Place:
        with self._lock:
            self._places += 1
            place = _Place(urgency, self._places)
            self._line.append(place)
            return place

    def _leave(self, place: _Place) -> None:
        with self._lock:
            if place in self._line:
                self._line.remove(place)

    def _wait(self, place: _Place | None, resource: str) -> tuple[float, str] | None:
        """(seconds to wait, why), or None after the request has been entered into the books: it goes now."""
        with self._lock:
            now = self._tick()
            waits = [(self._closed.get(name, now) - now, "GitHub's rate limit") for name in ("", resource)]
            waits += [(self._quota_wait(now, resource, place), "GitHub's hourly limit is used up")]
            if self._pacing.write_pause_seconds > 0:
                points = WRITE_POINTS if place is not None else READ_POINTS
                waits.append((self._points.wait_for(now, points, POINTS_PER_MINUTE), "this minute's requests are made"))
            if place is not None:
                waits += self._write_waits(now, place)
            wait, why = max(waits)
            if wait > 0:
                return wait, why
            self._enter(now, place)
            return None

    def _quota_wait(self, now: float, resource: str, place: _Place | None) -> float:
        quota = self.quotas.get(resource)
        if quota is None or quota.reset_at <= now:
            return 0.0
        least = quota.limit * COSMETIC_REMAINING if place is not None and place.urgency is Urgency.COSMETIC else 0
        return quota.reset_at - now if quota.remaining <= least else 0.0

    def _write_waits(self, now: float, place: _Place) -> list[tuple[float, str]]:
        pause, hourly = self._pacing.write_pause_seconds, self._pacing.writes_per_hour
        waits = []
        if hourly:
            budget = int(hourly * COSMETIC_SHARE) if place.urgency is Urgency.COSMETIC else hourly
            waits.append((self._hour.wait_for(now, 1, budget), "this hour's writes are made"))
        if pause > 0:
            ahead = sum(other < place for other in self._line)
            waits.append((max(self._next_write - now, 0.0) + ahead * pause, "writes are paced"))
            waits.append((self._minute.wait_for(now, 1, WRITES_PER_MINUTE), "this minute's writes are made"))
        return waits

    def _enter(self, now: float, place: _Place | None) -> None:
        self._points.add(now, WRITE_POINTS if place is not None else READ_POINTS)
        if place is not None:
            self._line.remove(place)
            self._next_write = now + self._pacing.write_pause_seconds
            self._hour.add(now, 1)
            self._minute.add(now, 1)

    # What the answers teach

    def heard(self, response: httpx.Response, *, started: float, github_time: float) -> TransientError | None:
        """Learn from an answer; the exception when it is a rate limit or an outage, None otherwise.

        `started` is the gate's clock when the request left, `github_time` GitHub's clock now.
        """
        with self._lock:
            now = self._tick()
            self._learn_quota(response, now, github_time)
            if is_limit(response):
                wait = self._close(response, now, started, github_time)
                return TransientError(f"GitHub's rate limit: again in {wait:.0f} s", retry_after_seconds=wait)
            if response.status_code >= 500:
                return self._failure(f"GitHub answered {response.status_code}")
            self._failures = 0
            if started >= self._closed_at:
                self._strikes = 0
            return None

    def unreachable(self, why: str) -> TransientError:
        """The exception for a request that nobody answered, with a wait that doubles up to a minute."""
        with self._lock:
            return self._failure(why)

    def closed_seconds(self, resource: str = "core") -> float:
        """How much longer no request may be made."""
        with self._lock:
            now = self._tick()
            closed = max(self._closed.get(name, now) - now for name in ("", resource))
            return max(closed, self._quota_wait(now, resource, None), 0.0)

    def _failure(self, why: str) -> TransientError:
        self._failures = min(self._failures + 1, 16)
        wait = min(2.0 ** (self._failures - 1), LONGEST_BACKOFF_SECONDS)
        return TransientError(why, retry_after_seconds=wait)

    def _close(self, response: httpx.Response, now: float, started: float, github_time: float) -> float:
        self._counts["limited"] += 1
        asked = asked_wait(response, github_time)
        primary = is_primary(response)
        # What was already under way when the gate closed is the same limit met again, not another one.
        if started >= self._closed_at and not primary:
            self._strikes = min(self._strikes + 1, 8)
        backoff = SECONDARY_SECONDS * 2.0 ** max(self._strikes - 1, 0)
        wait = min(asked if asked is not None else backoff, LONGEST_WAIT_SECONDS)
        resource = response.headers.get("x-ratelimit-resource", "core") if primary else ""
        self._closed[resource] = max(self._closed.get(resource, now), now + wait)
        self._closed_at = now
        return wait

    def _learn_quota(self, response: httpx.Response, now: float, github_time: float) -> None:
        try:
            limit, remaining, reset = (
                int(response.headers[f"x-ratelimit-{name}"]) for name in ("limit", "remaining", "reset")
            )
        except (KeyError, ValueError):
            return
        seconds = min(max(reset - github_time, 0.0), LONGEST_WAIT_SECONDS) + 1.0
        resource = response.headers.get("x-ratelimit-resource", "core")
        self.quotas[resource] = Quota(limit, remaining, now + seconds)
