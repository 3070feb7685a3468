"""The inbox of webhook deliveries: stored before anybody is told that they arrived, in the order they arrived.

One thread writes. Whatever waits when it is free goes into one transaction, so that a hundred deliveries at once cost
one disk write and not a hundred; nobody's wait ends before the commit that holds their row.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from bot.errors import TransientError
from bot.loop.database import metadata

KEPT_SECONDS = 8 * 86_400.0
"""Longer than a delivery can be sent again: GitHub does so for 3 days, GitHub Enterprise Server for 7."""
MOST_WAITING, MOST_WAITING_BYTES = 2_000, 64 * 1024 * 1024
"""Deliveries that wait for the disk; more are turned away."""
LARGEST_BATCH = 200
PAGE_BYTES = 8 * 1024 * 1024
_PRUNE_AT_ONCE = 200

_inbox = sa.Table(
    "inbox",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("delivery_id", sa.Text, nullable=False),
    sa.Column("body_hash", sa.Text, nullable=False),
    sa.Column("event", sa.Text, nullable=False),
    sa.Column("received_at", sa.Float, nullable=False),
    sa.Column("handled_at", sa.Float),
    sa.Column("error", sa.Text),
    sa.Column("body", sa.LargeBinary, nullable=False),
    # A redelivery carries the same GUID. The hash stands beside it because not every sender's ids are unique.
    sa.UniqueConstraint("delivery_id", "body_hash"),
)
_by_state = sa.Index("inbox_by_state", _inbox.c.handled_at, _inbox.c.seq)
"""Finds what is unhandled, and what is old, without reading the bodies of all the rest."""
_marks = sa.Table(
    "marks",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
_INSERT: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


class InboxFull(TransientError):
    """More deliveries wait than memory is given to; the sender has to come again."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A webhook delivery as it arrived."""

    seq: int
    delivery_id: str
    event: str
    body: bytes


@dataclass(slots=True)
class _Work:
    """What the writer has been asked for: a row to store, or rows to mark."""

    done: asyncio.Future[Any]
    row: dict[str, Any] | None = None
    handled: Sequence[tuple[int, str | None]] = ()


class Inbox:
    """`receive` and `mark_handled` wait for the writer; the other methods block for a read, so call them in a thread.

    Raises: TransientError when the database does not answer; nothing was stored then.
    """

    def __init__(self, engine: sa.Engine, *, clock: Callable[[], float] = time.time) -> None:
        self._engine, self._clock = engine, clock
        self._insert = _INSERT[engine.dialect.name](_inbox).on_conflict_do_nothing()
        self._insert = self._insert.returning(_inbox.c.delivery_id, _inbox.c.body_hash)
        with engine.begin() as connection:  # create_all leaves the indexes of a table that is there alone
            connection.execute(sa.schema.CreateIndex(_by_state, if_not_exists=True))
        self._wanted = threading.Condition()
        self._waiting: deque[_Work] = deque()
        self._bytes = 0
        self._writer: threading.Thread | None = None
        self._closing = False

    # Writing

    async def receive(self, delivery_id: str, event: str, body: bytes) -> bool:
        """Store a delivery; False when this one is already here. Returns after the commit.

        Raises: InboxFull, and TransientError when the database does not answer.
        """
        row = {
            "delivery_id": delivery_id,
            "body_hash": hashlib.sha256(body).hexdigest(),
            "event": event,
            "body": body,
            "received_at": self._clock(),
        }
        work = _Work(asyncio.get_running_loop().create_future(), row)
        with self._wanted:
            if self._closing or len(self._waiting) >= MOST_WAITING or self._bytes + len(body) > MOST_WAITING_BYTES:
                raise InboxFull("too many deliveries wait for the disk", retry_after_seconds=1.0)
            self._bytes += len(body)
            self._ask(work)
        return bool(await work.done)

    async def mark_handled(self, handled: Iterable[tuple[int, str | None]]) -> None:
        """(seq, why nothing was done or None), once what each delivery asked for is in a journal."""
        work = _Work(asyncio.get_running_loop().create_future(), handled=tuple(handled))
        with self._wanted:
            if self._closing:
                return  # it is read again after the start, and found to be known
            self._ask(work)
        await work.done

    def close(self) -> None:
        """Write what waits and end the writer. What arrives later is turned away."""
        with self._wanted:
            self._closing = True
            self._wanted.notify()
        if self._writer is not None:
            self._writer.join()

    def _ask(self, work: _Work) -> None:
        if self._writer is None:
            self._writer = threading.Thread(target=self._write, name="inbox", daemon=True)
            self._writer.start()
        self._waiting.append(work)
        self._wanted.notify()

    def _write(self) -> None:
        while True:
            with self._wanted:
                self._wanted.wait_for(lambda: self._waiting or self._closing)
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), LARGEST_BATCH))]
            if not batch:
                return
            try:
                results = self._commit(batch)
            except (sa.exc.SQLAlchemyError, TransientError) as error:
                reason = type(error).__name__
                results = [TransientError(f"the database did not store it ({reason})")] * len(batch)
            with self._wanted:
                self._bytes -= sum(len(work.row["body"]) for work in batch if work.row is not None)
            # One call into each loop for the whole batch: waking it for every delivery costs more than storing one.
            by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = defaultdict(list)
            for work, result in zip(batch, results, strict=True):
                by_loop[work.done.get_loop()].append((work.done, result))
            for loop, told in by_loop.items():
                if not loop.is_closed():
                    loop.call_soon_threadsafe(_tell, told)

    def _commit(self, batch: Sequence[_Work]) -> list[Any]:
        rows = [work.row for work in batch if work.row is not None]
        by_outcome: dict[str | None, list[int]] = defaultdict(list)
        for work in batch:
            for seq, outcome in work.handled:
                by_outcome[outcome].append(seq)
        stored: set[tuple[str, str]] = set()
        with self._engine.begin() as connection:
            if rows:
                stored = {(found[0], found[1]) for found in connection.execute(self._insert, rows)}
            now = self._clock()
            for outcome, seqs in by_outcome.items():
                mark = _inbox.update().where(_inbox.c.seq.in_(seqs)).values(handled_at=now, error=outcome)
                connection.execute(mark)
        results: list[Any] = []
        for work in batch:
            key = (work.row["delivery_id"], work.row["body_hash"]) if work.row is not None else ("", "")
            results.append(key in stored)
            stored.discard(key)  # the same delivery twice in one batch is new once
        return results

    # Reading

    def unhandled(self, limit: int = 100, *, after: int = 0) -> list[Delivery]:
        """Stored deliveries nobody has acted on yet, in the order they arrived; a page of at most about 8 MiB."""
        columns = (_inbox.c.seq, _inbox.c.delivery_id, _inbox.c.event, sa.func.length(_inbox.c.body))
        query = sa.select(*columns).where(_inbox.c.handled_at.is_(None), _inbox.c.seq > after)
        found: list[tuple[int, str, str]] = []
        size = 0
        with self._engine.connect() as connection:
            for seq, delivery_id, event, length in connection.execute(query.order_by(_inbox.c.seq).limit(limit)).all():
                size += length
                if found and size > PAGE_BYTES:
                    break
                found.append((seq, delivery_id, event))
            bodies = sa.select(_inbox.c.seq, _inbox.c.body).where(_inbox.c.seq.in_([row[0] for row in found]))
            body_of: dict[int, bytes] = dict(connection.execute(bodies).all())
        return [Delivery(*row, body=body_of[row[0]]) for row in found if row[0] in body_of]

    def known(self, delivery_ids: Iterable[str]) -> set[str]:
        """Those of the ids under which something has been stored."""
        query = sa.select(_inbox.c.delivery_id).where(_inbox.c.delivery_id.in_(list(delivery_ids)))
        with self._engine.connect() as connection:
            return set(connection.execute(query).scalars())

    def backlog(self) -> tuple[int, float]:
        """(unhandled deliveries, age of the oldest in seconds)."""
        query = sa.select(sa.func.count(), sa.func.min(_inbox.c.received_at)).where(_inbox.c.handled_at.is_(None))
        with self._engine.connect() as connection:
            count, oldest = connection.execute(query).one()
        return count, max(0.0, self._clock() - oldest) if count else 0.0

    def prune(self) -> int:
        """Forget what was handled long ago; returns how many. In small transactions, because others wait for each."""
        total = 0
        old = sa.select(_inbox.c.seq).where(_inbox.c.handled_at < self._clock() - KEPT_SECONDS).limit(_PRUNE_AT_ONCE)
        while True:
            with self._engine.begin() as connection:
                gone = connection.execute(_inbox.delete().where(_inbox.c.seq.in_(old.scalar_subquery()))).rowcount
            total += gone
            if gone < _PRUNE_AT_ONCE:
                return total

    # Marks: how far something has been read

    def mark(self, name: str) -> str | None:
        with self._engine.connect() as connection:
            return connection.execute(sa.select(_marks.c.value).where(_marks.c.name == name)).scalar()

    def set_mark(self, name: str, value: str) -> None:
        insert = _INSERT[self._engine.dialect.name](_marks).values(name=name, value=value)
        insert = insert.on_conflict_do_update(index_elements=[_marks.c.name], set_={"value": value})
        with self._engine.begin() as connection:
            connection.execute(insert)


def _tell(told: Sequence[tuple[asyncio.Future[Any], Any]]) -> None:
    for done, result in told:
        if done.done():
            continue  # whoever waited has gone
        if isinstance(result, Exception):
            done.set_exception(result)
        else:
            done.set_result(result)
