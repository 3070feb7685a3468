"""Which of several processes on one database does what: a lease for each goal, and one for each task done once.

A process is a row of `executors` that it renews; a lease belongs to whoever it names, for as long as that row stands.
So one small write renews any number of leases, and deleting the row gives all of them back. Rows that have expired by
the database's clock are deleted by whoever notices first. A process whose row is gone has lost everything, whatever
its own clock says: each lease carries a fence, a number that grows with every change of hands, and a journal is
written only under the fence that the database still shows.

A process that was killed is noticed sooner where both see the same data folder: each holds a lock on a file of its
own there, which the kernel lets go of when the process ends, and not before.
"""

from __future__ import annotations

import contextlib
import contextvars
import fcntl
import logging
import os
import threading
import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from bot.errors import LeaseLost, PostdocError, TransientError
from bot.loop.database import database_now, metadata

log = logging.getLogger("postdoc.leases")

_executors = sa.Table(
    "executors",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("expires_at", sa.Float, nullable=False),
)
_leases = sa.Table(
    "leases",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("holder", sa.Text, nullable=False, index=True),
    sa.Column("fence", sa.Integer, nullable=False),
    # Set by a process that left work for the holder, cleared when the holder has seen it.
    sa.Column("poked", sa.Integer, nullable=False, server_default="0"),
)

INBOX = "inbox"
"""Held by the process that reads the inbox."""
POLL_SECONDS = 0.5
"""How often a process looks for work left by others, and for others that have gone."""
_BATCH = 500


@dataclass(frozen=True, slots=True)
class Lease:
    """`fence` is larger than that of every earlier holder."""

    name: str
    fence: int


@dataclass(frozen=True, slots=True)
class Changes:
    """What a look at the database found."""

    gained: Sequence[str] = ()
    """Held according to the database, unknown here until now."""
    lost: Sequence[str] = ()
    poked: Sequence[str] = ()
    """Held, with work that another process left."""
    freed: bool = False
    """Some process has gone, so there may be leases to take."""


_acting_under: contextvars.ContextVar[Lease | None] = contextvars.ContextVar("acting_under", default=None)


class Leases:
    """This process's leases. Methods block for about one disk write, `holds`, `lease` and `check_write` do not."""

    def __init__(self, engine: sa.Engine, folder: Path, *, seconds: float = 30.0) -> None:
        """`folder` is for the lock files, the same one for all processes that share a data folder."""
        self._engine, self._folder, self.seconds = engine, folder, seconds
        self._insert = postgresql.insert if engine.dialect.name == "postgresql" else sqlite.insert
        self._now = database_now(engine)
        self._lock = threading.RLock()
        self._held: dict[str, Lease] = {}
        self._fresh_until = 0.0
        self._renew_at = 0.0
        self._seen: frozenset[str] = frozenset()
        self._file: int | None = None
        self._closed = False
        self.executor = ""
        """This process's id; another one after everything was lost."""
        self.reachable = True
        """False while the database does not answer."""
        self.outages = 0
        """How often it came back."""

    # Living and dying

    def start(self) -> None:
        """Appear among the executors. Raises: TransientError when the database cannot be used."""
        with self._lock:
            self._register()

    def stop(self) -> None:
        """Give everything back, so that another process goes on at once. Nothing is held from here on."""
        with self._lock:
            self._closed, self._held, self._fresh_until = True, {}, 0.0
            with contextlib.suppress(PostdocError), self._engine.begin() as connection:
                connection.execute(_executors.delete().where(_executors.c.id == self.executor))
            self._unlock()

    def abandon(self) -> None:
        """Block every write now and give everything back if the database takes it within a second."""
        self._held, self._fresh_until = {}, 0.0
        giving = threading.Thread(target=self.stop, daemon=True)
        giving.start()
        giving.join(timeout=1.0)

    def _register(self) -> None:
        self._unlock()
        self.executor = f"{os.getpid()}-{uuid.uuid4().hex[:12]}"
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / self.executor
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        before = _clock()
        with self._engine.begin() as connection:
            values = {"id": self.executor, "expires_at": self._now + self.seconds}
            connection.execute(_executors.insert().values(values))
        self._renewed(before)

    def _unlock(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
            (self._folder / self.executor).unlink(missing_ok=True)

    def _renewed(self, before: float) -> None:
        # Counted from before the question was asked: the database's clock can only have started later.
        self._fresh_until, self._renew_at = before + self.seconds, before + self.seconds / 3

    # Asking, without the database

    def holds(self, name: str) -> bool:
        """True while nobody else can have it."""
        return name in self._held and _clock() < self._fresh_until

    def lease(self, name: str) -> Lease | None:
        return self._held.get(name)

    @property
    def held(self) -> frozenset[str]:
        return frozenset(self._held)

    def check(self, lease: Lease) -> None:
        """Raises: LeaseLost when it is not ours any more; TransientError while nobody here can tell."""
        if self._held.get(lease.name) != lease:
            raise LeaseLost(f"{lease.name} is another process's now")
        self._check_fresh()

    def check_write(self) -> None:
        """Before a write to the outside: the process lives, and holds what it is acting under.

        Raises: as `check`.
        """
        lease = _acting_under.get()
        if lease is not None:
            self.check(lease)
        else:
            self._check_fresh()

    def _check_fresh(self) -> None:
        if _clock() >= self._fresh_until:
            raise TransientError(
                "this process has not reached the database for so long that others may have taken over"
            )

    @contextlib.contextmanager
    def acting_under(self, lease: Lease) -> Iterator[None]:
        """Writes made in this context, and in tasks started from it, are checked against `lease`."""
        token = _acting_under.set(lease)
        try:
            yield
        finally:
            _acting_under.reset(token)

    # Taking and giving back

    def acquire(self, name: str) -> bool:
        """Take the lease if it is free; True when it is held now."""
        with self._lock:
            if name not in self._held:
                self._take([name])
            return self.holds(name)

    def acquire_free(self, names: Collection[str]) -> list[str]:
        """Take all that are free among `names`; returns those that are new here."""
        with self._lock:
            living = sa.select(_executors.c.id)
            query = sa.select(_leases.c.name).where(_leases.c.holder.in_(living))
            with self._engine.connect() as connection:
                taken = {row[0] for row in connection.execute(query)}
            return self._take([name for name in names if name not in taken and name not in self._held])

    def _take(self, names: Sequence[str]) -> list[str]:
        if self._closed or not names:
            return []
        statement = self._insert(_leases)
        free = _leases.c.holder.notin_(sa.select(_executors.c.id))
        mine = {"holder": statement.excluded.holder, "fence": _leases.c.fence + 1, "poked": 0}
        statement = statement.on_conflict_do_update(index_elements=[_leases.c.name], set_=mine, where=free)
        found: list[Lease] = []
        with self._engine.begin() as connection:
            # In one order everywhere, so that two processes that take the same ones do not wait for each other.
            for start in range(0, len(names), _BATCH):
                rows = [
                    {"name": name, "holder": self.executor, "fence": 1, "poked": 0}
                    for name in sorted(names)[start : start + _BATCH]
                ]
                returned = connection.execute(statement.values(rows).returning(_leases.c.name, _leases.c.fence))
                found += [Lease(name, fence) for name, fence in returned]
        self._held |= {lease.name: lease for lease in found}
        return [lease.name for lease in found]

    def release(self, *names: str) -> None:
        """Give leases back; those that are not held are left alone."""
        with self._lock:
            gone = [self._held.pop(name) for name in names if name in self._held]
            for start in range(0, len(gone), _BATCH):
                part = [lease.name for lease in gone[start : start + _BATCH]]
                ours = sa.and_(_leases.c.name.in_(part), _leases.c.holder == self.executor)
                # The row stays: its fence must never begin again.
                with self._engine.begin() as connection:
                    connection.execute(_leases.update().where(ours).values(holder=""))

    def verify(self, lease: Lease) -> None:
        """Ask the database. Raises: LeaseLost when it is somebody else's, TransientError when it does not answer."""
        with self._engine.connect() as connection:
            self.fence(connection, lease)

    # Inside other transactions

    def fence(self, connection: sa.Connection, lease: Lease) -> None:
        """Hold on to `lease` until the transaction ends. Raises: LeaseLost when somebody else has it."""
        ours = sa.and_(_leases.c.name == lease.name, _leases.c.holder == self.executor, _leases.c.fence == lease.fence)
        # SQLite ignores FOR SHARE: there the transaction's own write keeps everybody else out.
        if connection.execute(sa.select(_leases.c.fence).where(ours).with_for_update(read=True)).first() is None:
            raise LeaseLost(f"{lease.name} is another process's now")

    def poke(self, connection: sa.Connection, name: str) -> None:
        """Tell the holder, whoever it is, that there is something new."""
        connection.execute(_leases.update().where(_leases.c.name == name).values(poked=1))

    # Looking

    def look(self) -> Changes:
        """Renew what is due and see what others did; call it every `POLL_SECONDS`."""
        with self._lock:
            if self._closed:
                return Changes()
            try:
                changes = self._look()
            except TransientError as error:
                if self.reachable:
                    log.warning("%s", error)
                self.reachable = False
                return Changes()
            if not self.reachable:
                log.warning("the database answers again")
                self.outages += 1
            self.reachable = True
            return changes

    def _look(self) -> Changes:
        gained: list[str] = []
        lost: list[str] = []
        freed = False
        if _clock() >= self._renew_at or not self.reachable:
            gained, lost = self._renew()
            freed = True  # now and then, also for what nobody ever took
        poked = _leases.update().where(_leases.c.holder == self.executor, _leases.c.poked == 1).values(poked=0)
        asked = sa.select(_leases.c.name).where(_leases.c.holder == self.executor, _leases.c.poked == 1)
        with self._engine.connect() as connection:
            names = [row[0] for row in connection.execute(asked)]
            others = connection.execute(sa.select(_executors.c.id, _executors.c.expires_at <= self._now)).all()
        if names:
            with self._engine.begin() as connection:
                connection.execute(poked.where(_leases.c.name.in_(names)))
        living = frozenset(executor for executor, expired in others if not self._gone(executor, bool(expired)))
        freed = freed or bool(self._seen - living)
        self._seen = living
        return Changes(gained, lost, names, freed)

    def _renew(self) -> tuple[list[str], list[str]]:
        """Renew this process's row, and agree with the database on what is held."""
        before = _clock()
        with self._engine.begin() as connection:
            values = {"expires_at": self._now + self.seconds}
            # An expired row that nobody has deleted still stands: nobody has taken anything.
            alive = connection.execute(_executors.update().where(_executors.c.id == self.executor).values(values))
        if not alive.rowcount:
            lost = list(self._held)
            log.warning("this process was taken for dead; %d leases went to others", len(lost))
            self._held = {}
            self._register()
            return [], lost
        query = sa.select(_leases.c.name, _leases.c.fence).where(_leases.c.holder == self.executor)
        with self._engine.connect() as connection:
            held = {name: Lease(name, fence) for name, fence in connection.execute(query)}
        self._renewed(before)
        lost = [name for name, lease in self._held.items() if held.get(name) != lease]
        gained = [name for name, lease in held.items() if self._held.get(name) != lease]
        self._held = held
        return gained, lost

    def _gone(self, executor: str, expired: bool) -> bool:
        """True when the process is dead and its row deleted, so that what it held is free."""
        if executor == self.executor:
            return False
        killed = self._killed(executor)
        if not killed and not expired:
            return False
        dead = _executors.delete().where(_executors.c.id == executor)
        if not killed:
            dead = dead.where(_executors.c.expires_at <= self._now)  # unless it has renewed itself just now
        with self._engine.begin() as connection:
            gone = bool(connection.execute(dead).rowcount)
        if gone or killed:
            (self._folder / executor).unlink(missing_ok=True)
        if gone:
            log.warning("process %s is gone (%s)", executor, "killed" if killed else "not heard from")
        return gone or killed

    def _killed(self, executor: str) -> bool:
        """True when its lock file lies here and nobody holds it; False when that cannot be told from here."""
        path = self._folder / executor
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return True


def _clock() -> float:
    """Seconds that go on while the machine sleeps, where the system has such a clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
