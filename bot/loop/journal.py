"""The inbox of webhook deliveries and the append-only journals of goals, in one SQL database.

Both are written before anybody is told that something happened: a delivery before its 202, an event before the next
action is decided.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bot.domain.experiment import Event, EventKind, NewEvent
from bot.domain.goal import GoalId
from bot.errors import SettingsError

_metadata = sa.MetaData()

_inbox = sa.Table(
    "inbox",
    _metadata,
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

_journal = sa.Table(
    "journal",
    _metadata,
    sa.Column("goal_id", sa.Text, primary_key=True),
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("data", sa.Text, nullable=False),
    sa.UniqueConstraint("goal_id", "key"),
)


@dataclass(frozen=True, slots=True)
class Delivery:
    """A webhook delivery as it arrived."""

    seq: int
    delivery_id: str
    event: str
    body: bytes


def open_database(url: str) -> sa.Engine:
    """An engine for `url` with our tables present.

    Raises: SettingsError when the database cannot be opened.
    """
    try:
        engine = sa.create_engine(url)
        if engine.dialect.name == "sqlite":
            if engine.url.database:
                Path(engine.url.database).parent.mkdir(parents=True, exist_ok=True)
            sa.event.listen(engine, "connect", _tune_sqlite)
        _metadata.create_all(engine)
    except (sa.exc.SQLAlchemyError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise SettingsError(f"The database {url!r} cannot be opened ({reason}). Set POSTDOC_DATABASE_URL.") from error
    return engine


def _tune_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")  # a delivery that was acknowledged survives a power cut
    cursor.execute("PRAGMA busy_timeout=10000")
    cursor.close()


class Journal:
    """Inbox and journals. Methods block for about one disk write; call them from a thread in asynchronous code."""

    def __init__(self, engine: sa.Engine, *, clock: Callable[[], float] = time.time) -> None:
        self._engine, self._clock = engine, clock
        self._lock = threading.Lock()  # SQLite has one writer; queueing here is fairer than its busy loop
        self._cache: dict[GoalId, list[Event]] = {}

    # Inbox

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

    def mark_handled(self, seq: int, error: str | None = None) -> None:
        statement = _inbox.update().where(_inbox.c.seq == seq).values(handled_at=self._clock(), error=error)
        with self._lock, self._engine.begin() as connection:
            connection.execute(statement)

    # Journals

    def goals(self) -> list[GoalId]:
        """Every goal that has a journal, oldest first."""
        query = sa.select(_journal.c.goal_id).where(_journal.c.seq == 0).order_by(_journal.c.at)
        with self._engine.connect() as connection:
            return [GoalId(row[0]) for row in connection.execute(query)]

    def read(self, goal_id: GoalId) -> Sequence[Event]:
        """The goal's events in order; empty for an unknown goal."""
        with self._lock:
            if goal_id not in self._cache:
                self._cache[goal_id] = self._load(goal_id)
            return tuple(self._cache[goal_id])

    def _load(self, goal_id: GoalId) -> list[Event]:
        columns = (_journal.c.seq, _journal.c.kind, _journal.c.key, _journal.c.at, _journal.c.data)
        query = sa.select(*columns).where(_journal.c.goal_id == goal_id).order_by(_journal.c.seq)
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
        return [Event(seq, EventKind(kind), key, at, json.loads(data)) for seq, kind, key, at, data in rows]

    def append(self, goal_id: GoalId, events: Iterable[NewEvent]) -> list[Event]:
        """Add `events` in one transaction; those whose key the journal already holds are left out.

        Returns what was added.
        """
        with self._lock:
            if goal_id not in self._cache:
                self._cache[goal_id] = self._load(goal_id)
            known = self._cache[goal_id]
            keys = {event.key for event in known}
            added: list[Event] = []
            for new in events:
                if new.key in keys:
                    continue
                keys.add(new.key)
                # Through JSON at once, so that a fresh event reads exactly as it will after a restart.
                data = json.loads(json.dumps(new.data))
                added.append(Event(len(known) + len(added), new.kind, new.key, self._clock(), data))
            if added:
                with self._engine.begin() as connection:
                    connection.execute(_journal.insert(), [_row(goal_id, event) for event in added])
            self._cache[goal_id] = [*known, *added]
            return added


def _row(goal_id: GoalId, event: Event) -> dict[str, Any]:
    data = json.dumps(event.data, separators=(",", ":"))
    return {
        "goal_id": goal_id,
        "seq": event.seq,
        "kind": str(event.kind),
        "key": event.key,
        "at": event.at,
        "data": data,
    }
