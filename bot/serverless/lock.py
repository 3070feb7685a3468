"""The repository's lock: of all the processes that events have started, one is at work.

It is a ref with a file, taken and renewed by moving the ref forward, which of several succeeds for one. It says until
when its holder is sure to live, so that a killed one is replaced. Whoever finds it taken rings: it writes that down on
the same ref, and the holder, who looks, goes and looks at GitHub once more before it answers the ring or gives the
lock back. So an event whose own process ended quickly is not lost, whatever the order.

Times are by GitHub's clock, the only one that all machines share.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from bot.conversation.github import RefMoved, Refs
from bot.errors import LeaseLost, PostdocError, TransientError

log = logging.getLogger("postdoc.lock")

NAME, FILE = "lock", "lock.json"
POLL_SECONDS = 2.0
MARGIN = 0.2
"""Of the lock's time: the holder stops writing that much before others may take it, for a request under way."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What the lock's file says. `rung` counts those who found it taken, `heard` those whom a holder has looked for."""

    holder: str = ""
    until: float = 0.0
    released_at: float = 0.0
    rung: int = 0
    heard: int = 0

    @classmethod
    def read(cls, content: bytes | None) -> Standing:
        """What cannot be read is nobody's."""
        try:
            data = json.loads(content or b"{}")
            return cls(
                str(data.get("holder", ""))[:200], float(data.get("until", 0)), float(data.get("released_at", 0)),
                int(data.get("rung", 0)), int(data.get("heard", 0)),
            )  # fmt: skip
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
            return cls()


class Lock:
    """`refs` must not be paced: a process that waits for its turn to renew would lose it."""

    def __init__(self, refs: Refs, run: str, *, seconds: float, now: Callable[[], float]) -> None:
        """`run` names the workflow run, of which one attempt at a time is alive."""
        self._refs, self._run, self._seconds, self._now = refs, run, seconds, now
        self.holder = f"{run}#{secrets.token_hex(4)}"
        self._sha: str | None = None
        self.standing = Standing()
        self._fresh_until = float("-inf")
        """On this machine's own clock."""
        self._writing = asyncio.Lock()
        self.lost = ""
        """Who has it now, once it was lost."""
        self.died_at: float | None = None
        """When the holder before was last known to live, if it did not give the lock back."""

    @property
    def held(self) -> bool:
        return not self.lost and time.monotonic() < self._fresh_until

    def check(self) -> None:
        """Raises: LeaseLost when another process has it; TransientError while it could not be renewed for so long
        that another may have."""
        if self.lost:
            raise LeaseLost(f"{self.lost} has taken over this repository")
        if not self.held:
            raise TransientError("the repository's lock could not be renewed in time, so another may hold it")

    async def acquire(self, patience_seconds: float) -> str:
        """Take it; returns "" when it is ours, else who has it and has heard of us. Raises: TransientError, Refused."""
        deadline, rang = time.monotonic() + patience_seconds, 0
        while True:
            sha, standing = await self._read()
            if self._is_free(standing):
                if await self._take(sha, standing):
                    return ""
                continue
            if rang and standing.heard >= rang:
                return _run_of(standing.holder)
            if not rang:
                rung = replace(standing, rung=standing.rung + 1)
                rang = rung.rung if await self._write(sha, rung) else 0
                continue
            if time.monotonic() >= deadline:
                raise TransientError(f"{_run_of(standing.holder)} holds this repository's lock and does not answer")
            await asyncio.sleep(min(POLL_SECONDS, self._seconds / 10))

    def _is_free(self, standing: Standing) -> bool:
        now = self._now()
        # A time further off than any holder writes is a clock or a hand that was wrong.
        taken = standing.holder and now < standing.until <= now + 2 * self._seconds
        return not taken or _run_of(standing.holder) == self._run  # what is run again has ended before

    async def _take(self, sha: str | None, before: Standing) -> bool:
        started = time.monotonic()
        mine = replace(before, holder=self.holder, until=self._now() + self._seconds)
        if not await self._write(sha, mine):
            return False
        self._renewed(started)
        if before.holder:
            self.died_at = before.until
            log.warning("%s ended without a word; this process takes over", _run_of(before.holder))
        return True

    async def renew(self) -> None:
        """Raises: LeaseLost, TransientError, Refused."""
        async with self._writing:
            for _ in range(10):
                started = time.monotonic()
                if await self._write(self._sha, replace(self.standing, until=self._now() + self._seconds)):
                    self._renewed(started)
                    return
                await self._reread()
        raise TransientError("the repository's lock is being written by too many at once")

    async def keep(self) -> None:
        """Renew until cancelled."""
        while not self.lost:
            try:
                await asyncio.sleep(self._seconds * (1 - MARGIN) / 2.5)
                await self.renew()
            except PostdocError as error:
                log.warning("the repository's lock: %s", error)

    async def rung(self) -> int:
        """How many have rung that were not answered. Raises: LeaseLost, TransientError, Refused."""
        async with self._writing:
            if await self._refs.standing(NAME) != self._sha:
                await self._reread()
        return self.standing.rung - self.standing.heard

    async def answer(self, rung: int) -> None:
        """Tell those who rang that GitHub was looked at since. Raises: as `renew`."""
        async with self._writing:
            self.standing = replace(self.standing, heard=self.standing.heard + rung)
        await self.renew()

    async def release(self, *, rung: bool = False) -> bool:
        """Give it back; False when somebody has rung, who has to be looked for first, unless that is left (`rung`) to
        whoever has it next. Raises: as `renew`."""
        async with self._writing:
            for _ in range(10):
                if self.standing.rung > self.standing.heard and not rung:
                    return False
                free = replace(self.standing, holder="", until=0.0, released_at=self._now())
                if await self._write(self._sha, free):
                    self._fresh_until = float("-inf")
                    return True
                await self._reread()
        return False

    async def _reread(self) -> None:
        """Somebody has written: a ring is taken over, another holder ends us."""
        sha, standing = await self._read()
        if sha is None:
            return  # deleted by a person: it is made again with the next write
        if standing.holder != self.holder:
            self.lost = _run_of(standing.holder) or "another process"
            raise LeaseLost(f"{self.lost} has taken over this repository")
        self._sha, self.standing = sha, replace(standing, heard=max(standing.heard, self.standing.heard))

    def _renewed(self, started: float) -> None:
        self._fresh_until = started + self._seconds * (1 - MARGIN)

    async def _read(self) -> tuple[str | None, Standing]:
        sha = await self._refs.standing(NAME)
        return sha, Standing.read(await self._refs.file(FILE, sha) if sha else None)

    async def _write(self, sha: str | None, standing: Standing) -> bool:
        """False when somebody else wrote first."""
        content = json.dumps(asdict(standing)).encode() + b"\n"
        try:
            self._sha = await self._refs.advance(
                NAME, sha, {FILE: content}, f"{_run_of(standing.holder) or 'Nobody'} is at work"
            )
        except RefMoved:
            return False
        self.standing = standing
        return True


def _run_of(holder: str) -> str:
    return holder.rpartition("#")[0] or holder
