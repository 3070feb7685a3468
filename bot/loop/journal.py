"""The append-only journals of goals: an event is written here before the next action is decided."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import sqlalchemy as sa

from bot.domain.experiment import Event, EventKind, NewEvent
from bot.domain.goal import GoalId
from bot.errors import TransientError
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
_first = _journal.c.seq == 0
sa.Index("journal_goals", _journal.c.at, sqlite_where=_first, postgresql_where=_first)

Guard = Callable[[sa.Connection], None]
"""Runs inside an append's transaction, after its rows; what it raises undoes them."""

CONFLICTS = 100
"""Appends of other processes to the same goal that one append steps aside for."""


class Journal:
    """Several processes may append: a place in a goal's journal is taken by one, and the others take the next.

    Methods block for about one disk write; call them from a thread in asynchronous code.
    """

    def __init__(
        self,
        engine: sa.Engine,
        *,
        clock: Callable[[], float] = time.time,
        clean: Callable[[Any], Any] = lambda data: data,
    ) -> None:
        self._engine, self._clock, self._clean = engine, clock, clean
        self._lock = threading.Lock()  # SQLite has one writer; queueing here is fairer than its busy loop
        self._cache: dict[GoalId, tuple[Event, ...]] = {}
        """What was read so far. Rows never change, so a cache is at worst too short."""

    def goals(self) -> list[GoalId]:
        """Every goal that has a journal, oldest first."""
        query = sa.select(_journal.c.goal_id).where(_first).order_by(_journal.c.at)
        with self._engine.connect() as connection:
            return [GoalId(row[0]) for row in connection.execute(query)]

    def lengths(self) -> dict[GoalId, int]:
        """How many events each goal's journal has, in one query."""
        query = sa.select(_journal.c.goal_id, sa.func.count()).group_by(_journal.c.goal_id)
        with self._engine.connect() as connection:
            return {GoalId(goal_id): length for goal_id, length in connection.execute(query)}

    def read(self, goal_id: GoalId) -> Sequence[Event]:
        """The goal's events in order, those of other processes included; empty for an unknown goal."""
        known = self._cache.get(goal_id, ())
        columns = (_journal.c.seq, _journal.c.kind, _journal.c.key, _journal.c.at, _journal.c.data)
        query = (
            sa.select(*columns)
            .where(_journal.c.goal_id == goal_id, _journal.c.seq >= len(known))
            .order_by(_journal.c.seq)
        )
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
        if rows:
            known = (*known, *(Event(seq, _kind(kind), key, at, json.loads(data)) for seq, kind, key, at, data in rows))
            self._cache[goal_id] = known
        return known

    def append(self, goal_id: GoalId, events: Iterable[NewEvent], *, guard: Guard | None = None) -> list[Event]:
        """Add `events` in one transaction; those whose key the journal already holds are left out.

        Returns what was added. Raises: TransientError when the database cannot be used, and whatever `guard` raises;
        nothing has been added then.
        """
        wanted = list(events)
        with self._lock:
            for _ in range(CONFLICTS):
                known = self.read(goal_id)
                added = self._placed(known, wanted)
                if not added:
                    return []
                try:
                    # The rows come first: on SQLite the first write takes the lock under which the guard then reads.
                    with self._engine.begin() as connection:
                        connection.execute(_journal.insert(), [_row(goal_id, event) for event in added])
                        if guard is not None:
                            guard(connection)
                except sa.exc.IntegrityError:
                    continue  # another process was first: read what it wrote, and take the place after
                self._cache[goal_id] = (*known, *added)
                return added
        raise TransientError(f"the journal of {goal_id} is being written by too many at once")

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

    def _placed(self, known: Sequence[Event], wanted: Iterable[NewEvent]) -> list[Event]:
        keys = {event.key for event in known}
        added: list[Event] = []
        for new in wanted:
            if new.key in keys:
                continue
            keys.add(new.key)
            # Through JSON at once, so that a fresh event reads exactly as it will after a restart.
            # Cleaned of secrets, because everything that is shown, committed or trained comes from here.
            data = self._clean(json.loads(json.dumps(new.data)))
            added.append(Event(len(known) + len(added), new.kind, new.key, self._clock(), data))
        return added


def _kind(text: str) -> EventKind:
    """A kind that only a newer version knows stays the text that it is; `experiment_of` says what that means."""
    try:
        return EventKind(text)
    except ValueError:
        return cast(EventKind, text)


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
