"""The inbox of webhook deliveries: stored before anybody is told that they arrived, in the order they arrived."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa

from bot.loop.database import metadata

_inbox = sa.Table(
    "inbox",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("delivery_id", sa.Text, nullable=False),
    sa.Column("body_hash", sa.Text, nullable=False),
    sa.Column("event", sa.Text, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("received_at", sa.Float, nullable=False),
    sa.Column("handled_at", sa.Float),
    sa.Column("error", sa.Text),
    # A redelivery carries the same GUID. The hash stands beside it because not every sender's ids are unique.
    sa.UniqueConstraint("delivery_id", "body_hash"),
)


@dataclass(frozen=True, slots=True)
class Delivery:
    """A webhook delivery as it arrived."""

    seq: int
    delivery_id: str
    event: str
    body: bytes


class Inbox:
    """Methods block for about one disk write; call them from a thread in asynchronous code."""

    def __init__(self, engine: sa.Engine, *, clock: Callable[[], float] = time.time) -> None:
        self._engine, self._clock = engine, clock
        self._lock = threading.Lock()  # SQLite has one writer; queueing here is fairer than its busy loop

    def receive(self, delivery_id: str, event: str, body: bytes) -> bool:
        """Store a delivery; False when this one is already here."""
        row = {
            "delivery_id": delivery_id,
            "body_hash": hashlib.sha256(body).hexdigest(),
            "event": event,
            "body": body,
            "received_at": self._clock(),
        }
        with self._lock, self._engine.begin() as connection:
            try:
                connection.execute(_inbox.insert().values(row))
            except sa.exc.IntegrityError:
                return False
        return True

    def unhandled(self, limit: int = 100) -> list[Delivery]:
        """Stored deliveries nobody has acted on yet, in the order they arrived."""
        query = (
            sa.select(_inbox.c.seq, _inbox.c.delivery_id, _inbox.c.event, _inbox.c.body)
            .where(_inbox.c.handled_at.is_(None))
            .order_by(_inbox.c.seq)
            .limit(limit)
        )
        with self._engine.connect() as connection:
            return [Delivery(*row) for row in connection.execute(query)]

    def waiting(self) -> tuple[int, float | None]:
        """How many deliveries nobody has acted on yet, and when the oldest of them arrived (Unix seconds)."""
        query = sa.select(sa.func.count(), sa.func.min(_inbox.c.received_at)).where(_inbox.c.handled_at.is_(None))
        with self._engine.connect() as connection:
            count, oldest = connection.execute(query).one()
        return int(count), oldest

    def mark_handled(self, seq: int, error: str | None = None) -> None:
        statement = _inbox.update().where(_inbox.c.seq == seq).values(handled_at=self._clock(), error=error)
        with self._lock, self._engine.begin() as connection:
            connection.execute(statement)
