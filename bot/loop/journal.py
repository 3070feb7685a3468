"""The append-only journals of goals: an event is written here before the next action is decided."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from bot.domain.experiment import Event, EventKind, NewEvent
from bot.domain.goal import GoalId
from bot.loop.database import metadata

_journal = sa.Table(
    "journal",
    metadata,
    sa.Column("goal_id", sa.Text, primary_key=True),
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("data", sa.Text, nullable=False),
    sa.UniqueConstraint("goal_id", "key"),
)


class Journal:
    """Methods block for about one disk write; call them from a thread in asynchronous code."""

    def __init__(self, engine: sa.Engine, *, clock: Callable[[], float] = time.time) -> None:
        self._engine, self._clock = engine, clock
        self._lock = threading.Lock()  # SQLite has one writer; queueing here is fairer than its busy loop
        self._cache: dict[GoalId, list[Event]] = {}

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

    def restore(self, goal_id: GoalId, events: Sequence[Event]) -> bool:
        """Put back the journal of a goal that has none, places and times as they were; False when it has one."""
        if not events or self.read(goal_id):
            return False
        with self._lock:
            try:
                with self._engine.begin() as connection:
                    connection.execute(_journal.insert(), [_row(goal_id, event) for event in events])
            except sa.exc.IntegrityError:
                return False  # somebody else was first
            finally:
                self._cache.pop(goal_id, None)
        return True


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
