"""Deliveries that did not come by themselves: asked for again, or read from GitHub altogether (`serve --pull`).

GitHub makes each delivery once, records it whether or not it arrived, keeps the record for three days (GitHub
Enterprise Server for seven) and repeats nothing unasked:
https://docs.github.com/en/webhooks/using-webhooks/automatically-redelivering-failed-deliveries-for-a-github-app-webhook
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from bot.conversation.events import acts_on
from bot.conversation.github import Refused
from bot.errors import PostdocError
from bot.loop.leases import INBOX, POLL_SECONDS

if TYPE_CHECKING:
    from bot.conversation.github import GitHubApp
    from bot.loop.inbox import Inbox
    from bot.server.app import Bot
    from bot.server.webhook import Admission

log = logging.getLogger("postdoc.deliveries")

FIRST_SWEEP_SECONDS, SECOND_SWEEP_SECONDS = 0.3, 5.0
FIRST_PULL_SECONDS, LONGEST_PULL_SECONDS = 1.0, 30.0
WINDOW_SECONDS = 3 * 86_400.0
OVERLAP_SECONDS = 300.0
"""A delivery is dated by its start and listed after its end, so a later one may be listed first."""
FIRST_AGAIN_SECONDS, LONGEST_AGAIN_SECONDS = 4.0, 6 * 3600.0
REFUSED_BY_US = frozenset({400, 401, 413})
"""Asked for again, it would be refused again."""
PULLED = "pulled until"
"""The mark in the database: the moment up to which every delivery has been read."""

Row = dict[str, Any]
"""A delivery as GitHub lists it: id, guid, event, action, delivered_at, status_code, redelivery."""


async def sweep_deliveries(bot: Bot) -> None:
    """Ask again for what did not arrive, until cancelled."""
    sweep = Sweep(bot.app, bot.inbox)
    turn, due = (0, 0), 0.0
    pauses: Iterator[float] = iter(())
    while True:
        await asyncio.sleep(FIRST_SWEEP_SECONDS)
        lease = bot.leases.lease(INBOX)
        if lease is None or not bot.leading:
            continue
        if turn != (lease.fence, bot.leases.outages):
            # After every time that nobody could listen: at once, and again for what was asked for before the socket
            # listened. Later looks are for a network that was down.
            turn = (lease.fence, bot.leases.outages)
            due, pauses = 0.0, itertools.chain((SECOND_SWEEP_SECONDS,), itertools.repeat(bot.settings.sweep_seconds))
        if time.monotonic() < due:
            continue
        due = time.monotonic() + min(next(pauses), bot.settings.sweep_seconds)
        try:
            asked = await sweep.look()
        except (PostdocError, sa.exc.SQLAlchemyError) as error:
            log.warning("deliveries that were missed could not be asked for: %s", _first_line(error))
            continue
        except Exception:
            log.exception("looking for missed deliveries failed")
            continue
        if asked:
            log.warning("asked again for %d deliveries that had not arrived", asked)


class Sweep:
    """Looks through the failed deliveries of the last three days once, and from then on at the new ones."""

    def __init__(self, app: GitHubApp, inbox: Inbox) -> None:
        self._app, self._inbox = app, inbox
        self._looked_until = 0.0
        self._missed: dict[str, _Missed] = {}
        """GUID -> what is known of a delivery that has not arrived."""

    async def look(self) -> int:
        """Returns how many deliveries were asked for. Raises: PostdocError, sqlalchemy's errors."""
        now = time.time()
        newest = max(
            self._looked_until, await self._list(max(self._looked_until - OVERLAP_SECONDS, now - WINDOW_SECONDS))
        )
        arrived = await asyncio.to_thread(self._inbox.known, list(self._missed))
        for guid in [g for g, m in self._missed.items() if g in arrived or m.first_at < now - WINDOW_SECONDS]:
            del self._missed[guid]
        due = [missed for missed in self._missed.values() if missed.again_at <= now]
        for missed in sorted(due, key=lambda missed: (missed.first_at, missed.id)):
            # One that fails again and again is asked for ever more seldom, as long as GitHub keeps it.
            missed.pause = min(max(FIRST_AGAIN_SECONDS, missed.pause * 4), LONGEST_AGAIN_SECONDS)
            missed.again_at = now + missed.pause
            await self._app.redeliver(missed.id)
        self._looked_until = newest
        return len(due)

    async def _list(self, since: float) -> float:
        """Note what failed since then; returns the moment of the newest."""
        newest, cursor = 0.0, None
        while True:
            rows, cursor = await self._app.deliveries(cursor=cursor, status="failure")
            for row in rows:
                at = _moment(row)
                newest = max(newest, at)
                if row["status_code"] in REFUSED_BY_US or not acts_on(row["event"], row.get("action")):
                    continue
                if at >= since and row["guid"] not in self._missed:
                    self._missed[row["guid"]] = _Missed(row["id"], at)
            if cursor is None or not rows or _moment(rows[-1]) < since:
                return newest


class _Missed:
    __slots__ = ("again_at", "first_at", "id", "pause")

    def __init__(self, delivery_id: int, first_at: float) -> None:
        self.id, self.first_at, self.again_at, self.pause = delivery_id, first_at, 0.0, 0.0


async def pull_deliveries(bot: Bot) -> None:
    """Read the App's deliveries from GitHub until cancelled: soon after one came, more and more seldom after none."""
    pull = Pull(bot.app, bot.inbox, bot.admission)
    pause = FIRST_PULL_SECONDS
    while True:
        if not bot.leading:
            await asyncio.sleep(POLL_SECONDS)
            continue
        try:
            stored = await pull.look()
        except (PostdocError, sa.exc.SQLAlchemyError) as error:
            asked_for = getattr(error, "retry_after_seconds", None) or 0.0
            log.warning("deliveries could not be read: %s", _first_line(error))
            pause = max(asked_for, min(pause * 2, LONGEST_PULL_SECONDS))
        except Exception:
            log.exception("reading deliveries failed")
            pause = LONGEST_PULL_SECONDS
        else:
            pause = FIRST_PULL_SECONDS if stored else min(pause * 1.3, LONGEST_PULL_SECONDS)
            if stored:
                bot.arrived.set()
        await asyncio.sleep(pause)


class Pull:
    """Stores each delivery of the last three days once, oldest first, in the same inbox that the webhook fills.

    One that has also been pushed is known by its GUID: GitHub hands out the payload parsed, so its bytes, and with
    them the hash that the webhook goes by, are not the ones that were sent.
    """

    def __init__(self, app: GitHubApp, inbox: Inbox, admission: Admission) -> None:
        self._app, self._inbox, self._admission = app, inbox, admission
        self._top: set[int] = set()
        """Ids on the list's first page when all of it had been read: nothing is new while they are the same."""

    async def look(self) -> int:
        """Returns how many deliveries were new. Raises: PostdocError, sqlalchemy's errors."""
        until = float(str(await asyncio.to_thread(self._inbox.mark, PULLED) or 0))
        since = max(until - OVERLAP_SECONDS, time.time() - WINDOW_SECONDS)
        listed, top = await self._list(since)
        if top == self._top:
            return 0
        rows = [row for row in listed if _moment(row) >= since and acts_on(row["event"], row.get("action"))]
        known = await asyncio.to_thread(self._inbox.known, [row["guid"] for row in rows])
        stored = 0
        for row in sorted(rows, key=lambda row: (_moment(row), row["id"])):
            if row["guid"] in known:
                continue
            known.add(row["guid"])
            payload = await self._payload(row)
            if payload is None or self._admission.refusal(row["event"], payload) is not None:
                continue
            body = json.dumps(payload, separators=(",", ":")).encode()
            stored += await self._inbox.receive(row["guid"], row["event"], body)
        # Only now: whoever dies on the way begins at the same mark and finds by the GUIDs what is stored.
        newest = max(_moment(row) for row in listed)
        if newest > until:
            await asyncio.to_thread(self._inbox.set_mark, PULLED, str(newest))
        self._top = top
        return stored

    async def _payload(self, row: Row) -> Any:
        """None when GitHub has forgotten it."""
        try:
            found = await self._app.delivery(row["id"])
        except Refused as refused:
            log.warning("delivery %s (%s) cannot be read: %s", row["guid"], row["event"], refused)
            return None
        return (found.get("request") or {}).get("payload")

    async def _list(self, since: float) -> tuple[list[Row], set[int]]:
        """(what was delivered since then, newest first; ids of the first page). Reads no further when that is known."""
        listed, cursor = await self._app.deliveries(cursor=None)
        top = {row["id"] for row in listed}
        while cursor is not None and listed and _moment(listed[-1]) >= since and top != self._top:
            rows, cursor = await self._app.deliveries(cursor=cursor)
            listed = [*listed, *rows]
        return listed, top


def _moment(row: Row) -> float:
    """Unix seconds; now for a date that cannot be read, so that the row is looked at."""
    try:
        moment = datetime.fromisoformat(row["delivered_at"])
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    except (KeyError, TypeError, ValueError):
        return time.time()


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
