"""What all goals together may spend: reservations before a job starts or a language model is asked, their
reconciliation after it, and the halt.

A job is started only once its cost at most is reserved here, against the ceilings of its repository for the calendar
month; what it really took is settled when it has ended, so that what is free is never counted twice and never
forgotten. The same holds for each turn of the language model. A halt refuses every reservation in its scope. Whatever
fails here fails closed: no reservation, no job and no turn.

The rows follow from the journals (`job_launched` carries the reservation, `job_ended` the time, `llm_spent` a turn's
price), so a database that was lost gets them back with the journals.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from bot.domain.budget import Spend, month_of
from bot.domain.experiment import Experiment
from bot.loop.database import metadata
from bot.loop.spending import SHORTEST_JOB_HOURS

SERVER = "server"
"""The scope of a halt that stops every repository."""
_TOLERANCE = 1e-9

_reservations = sa.Table(
    "reservations",
    metadata,
    # A job's id, which has no slash, or a turn's: `owner/name#1/llm/thought/1/0`.
    sa.Column("job_id", sa.Text, primary_key=True),
    sa.Column("goal_id", sa.Text, nullable=False),
    sa.Column("repository", sa.Text, nullable=False),
    sa.Column("month", sa.Text, nullable=False),
    sa.Column("usd", sa.Float, nullable=False),
    sa.Column("gpu_hours", sa.Float, nullable=False),
    # False: an upper bound, the job may be running. True: what it took.
    sa.Column("settled", sa.Boolean, nullable=False),
    sa.Index("reservations_of_month", "repository", "month"),
)
_OF_A_TURN = _reservations.c.job_id.contains("/")
_halts = sa.Table(
    "halts",
    metadata,
    sa.Column("scope", sa.Text, primary_key=True),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
)
_lock = sa.Table(
    "treasury_lock",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("turns", sa.Integer, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Halt:
    scope: str
    """`server`, or a repository's `owner/name`."""
    by: str
    at: float

    def sentence(self) -> str:
        where = "on this server" if self.scope == SERVER else "in this repository"
        return f"all spending {where} was halted by @{self.by}"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nothing is reserved."""

    reason: str
    halted: bool = False


class Treasury:
    """Methods block for about one disk write; call them from a thread in asynchronous code."""

    def __init__(self, engine: sa.Engine, *, clock: Callable[[], float] = time.time) -> None:
        self._engine, self._clock = engine, clock
        # One row that every reservation updates first: it takes SQLite's write lock and a row lock in PostgreSQL, so
        # that two goals never see the same room.
        with contextlib.suppress(sa.exc.IntegrityError), engine.begin() as connection:
            connection.execute(_lock.insert().values(id=1, turns=0))

    def reserve(self, job_id: str, x: Experiment, wanted: Spend, ceilings: Spend) -> Spend | Refusal:
        """Reserve up to `wanted` (usd, gpu_hours) for a job of `x`, under its repository's `ceilings` of the month.

        Returns what was granted: less than was wanted when the month leaves less, the same as before when this job has
        its reservation already (a launch that is replayed).
        """
        month = month_of(self._clock())
        with self._engine.begin() as connection:
            if (refused := _queued(connection, x)) is not None:
                return refused
            known = connection.execute(
                sa.select(_reservations.c.usd, _reservations.c.gpu_hours).where(_reservations.c.job_id == job_id)
            ).first()
            if known is not None:
                return Spend(usd=known.usd, gpu_hours=known.gpu_hours)
            used = _month_spend(connection, x.full_name, month)
            granted = _granted(wanted, ceilings, used)
            if granted is None:
                return Refusal(_month_sentence(month, ceilings, used, wanted))
            connection.execute(
                _reservations.insert().values(
                    job_id=job_id,
                    goal_id=x.goal_id,
                    repository=x.full_name,
                    month=month,
                    usd=granted.usd,
                    gpu_hours=granted.gpu_hours,
                    settled=False,
                )
            )
        return granted

    def settle(self, job_id: str, took: Spend) -> None:
        """Replace a job's reservation by what it took."""
        statement = _reservations.update().where(_reservations.c.job_id == job_id)
        with self._engine.begin() as connection:
            connection.execute(statement.values(usd=took.usd, gpu_hours=took.gpu_hours, settled=True))

    def release(self, job_id: str) -> None:
        """Give back what was reserved for a job that was never started; asked for again, it is reserved anew."""
        ours = sa.and_(_reservations.c.job_id == job_id, sa.not_(_reservations.c.settled))
        with self._engine.begin() as connection:
            connection.execute(_reservations.delete().where(ours))

    def restore(self, x: Experiment) -> None:
        """Bring the rows of a goal into line with its journal: settle what has ended, put back what was lost."""
        with self._engine.begin() as connection:
            rows = connection.execute(
                sa.select(_reservations.c.job_id, _reservations.c.settled).where(_reservations.c.goal_id == x.goal_id)
            )
            known = {row.job_id: row.settled for row in rows}
            for key, price in x.llm_paid.items():
                if price.usd > 0 and not known.get(self.turn_id(x.goal_id, key), False):
                    _put_turn(connection, self.turn_id(x.goal_id, key), x, price.usd, price.month, settled=True)
            for job in x.jobs.values():
                if known.get(job.job_id, False):
                    continue
                hours = job.seconds / 3600
                usd = x.usd_of(job)
                if not job.ended:
                    usd, hours = job.reserved.get("usd", 0.0), job.reserved.get("gpu_hours", 0.0)
                values = {"usd": usd, "gpu_hours": hours, "settled": job.ended}
                if job.job_id in known:
                    connection.execute(
                        _reservations.update().where(_reservations.c.job_id == job.job_id).values(values)
                    )
                else:
                    place = {"goal_id": x.goal_id, "repository": x.full_name, "month": month_of(job.launched_at)}
                    connection.execute(_reservations.insert().values(job_id=job.job_id, **place, **values))

    # Turns of the language model, by the key of the event that tells their price

    @staticmethod
    def turn_id(goal_id: str, key: str) -> str:
        return f"{goal_id}/{key}"

    def reserve_turn(self, key: str, x: Experiment, usd: float, ceiling: float) -> Refusal | None:
        """Reserve `usd` for a turn of `x`, in place of what is reserved for it, under its repository's ceiling of the
        month in USD. All of it or nothing: half a turn is none."""
        month = month_of(self._clock())
        with self._engine.begin() as connection:
            if (refused := _queued(connection, x)) is not None:
                return refused
            if usd <= 0:
                return None
            turn_id = self.turn_id(x.goal_id, key)
            used = _month_spend(connection, x.full_name, month, besides=turn_id).usd
            if used + usd > ceiling + _TOLERANCE:
                return Refusal(
                    f"the next turn may cost {usd:.2f} USD, and this repository's ceiling for {month} of "
                    f"{ceiling:,.2f} USD leaves {max(0.0, ceiling - used):,.2f}; `month` in its policy holds it"
                )
            _put_turn(connection, turn_id, x, usd, month, settled=False)
        return None

    def settle_turn(self, key: str, x: Experiment, usd: float, month: str) -> None:
        """Replace a turn's reservation by its price, in the month in which it was paid."""
        if usd > 0:
            with self._engine.begin() as connection:
                _put_turn(connection, self.turn_id(x.goal_id, key), x, usd, month, settled=True)

    def turns(self, goal_id: str) -> dict[str, tuple[float, str]]:
        """Key -> (USD reserved or paid, month) of each turn of a goal."""
        query = sa.select(_reservations).where(_reservations.c.goal_id == goal_id, _OF_A_TURN)
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
        return {row.job_id.removeprefix(f"{goal_id}/"): (row.usd, row.month) for row in rows}

    # What it comes to

    def months(self) -> dict[tuple[str, str], Spend]:
        """(repository, month) -> what its goals have spent and reserved in it."""
        usd, hours = sa.func.sum(_reservations.c.usd), sa.func.sum(_reservations.c.gpu_hours)
        place = (_reservations.c.repository, _reservations.c.month)
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(*place, usd, hours).group_by(*place)).all()
        return {(row[0], row[1]): Spend(usd=float(row[2]), gpu_hours=float(row[3])) for row in rows}

    def month_spend(self, repository: str, month: str | None = None) -> Spend:
        """What the repository's goals have spent and reserved in a month, `2026-11`; this one by default."""
        with self._engine.connect() as connection:
            return _month_spend(connection, repository, month or month_of(self._clock()))

    def running(self, repository: str) -> int:
        """Jobs of the repository that are reserved for and not settled."""
        ours = (_reservations.c.repository == repository, ~_reservations.c.settled, ~_OF_A_TURN)
        query = sa.select(sa.func.count()).where(*ours)
        with self._engine.connect() as connection:
            return int(connection.execute(query).scalar_one())

    # The book, where it is kept somewhere else than in this database

    def book(self) -> dict[str, list[dict[str, Any]]]:
        """Every reservation and every halt, as plain data."""
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(_reservations).order_by(_reservations.c.job_id)).mappings()
            halts = connection.execute(sa.select(_halts).order_by(_halts.c.scope)).mappings()
            return {"reservations": [dict(row) for row in rows], "halts": [dict(row) for row in halts]}

    def open_book(self, book: Mapping[str, Any]) -> None:
        """Take over a book in place of what is here. Raises: ValueError for what is none."""
        tables = ((_reservations, "reservations"), (_halts, "halts"))
        try:
            found = {
                name: [{c.name: row[c.name] for c in table.columns} for row in book[name]] for table, name in tables
            }
        except (LookupError, TypeError) as error:
            raise ValueError("it is no book of reservations and halts") from error
        with self._engine.begin() as connection:
            for table, name in tables:
                connection.execute(table.delete())
                if found[name]:
                    connection.execute(table.insert(), found[name])

    # The halt

    def halt(self, scope: str, by: str) -> None:
        with self._engine.begin() as connection:
            connection.execute(_halts.delete().where(_halts.c.scope == scope))
            connection.execute(_halts.insert().values(scope=scope, by=by, at=self._clock()))

    def lift(self, scope: str) -> bool:
        """True when there was a halt to lift."""
        with self._engine.begin() as connection:
            return connection.execute(_halts.delete().where(_halts.c.scope == scope)).rowcount > 0

    def halted(self, repository: str = "") -> Halt | None:
        """The halt that covers the repository (the server's alone when none is named)."""
        with self._engine.connect() as connection:
            return _halt_over(connection, repository)

    def halts(self) -> list[Halt]:
        """Every halt that stands."""
        with self._engine.connect() as connection:
            return [Halt(row.scope, row.by, row.at) for row in connection.execute(sa.select(_halts))]


def _queued(connection: sa.Connection, x: Experiment) -> Refusal | None:
    """Wait until nobody else reserves. The halt that refuses it, when there is one."""
    connection.execute(_lock.update().values(turns=_lock.c.turns + 1))
    halt = _halt_over(connection, x.full_name)
    return Refusal(halt.sentence(), halted=True) if halt is not None else None


def _put_turn(connection: sa.Connection, turn_id: str, x: Experiment, usd: float, month: str, *, settled: bool) -> None:
    connection.execute(_reservations.delete().where(_reservations.c.job_id == turn_id))
    place = {"job_id": turn_id, "goal_id": x.goal_id, "repository": x.full_name, "month": month}
    connection.execute(_reservations.insert().values(**place, usd=usd, gpu_hours=0.0, settled=settled))


def _halt_over(connection: sa.Connection, repository: str) -> Halt | None:
    query = sa.select(_halts).where(_halts.c.scope.in_([SERVER, repository])).order_by(_halts.c.at)
    row = connection.execute(query).first()
    return Halt(row.scope, row.by, row.at) if row is not None else None


def _month_spend(connection: sa.Connection, repository: str, month: str, besides: str = "") -> Spend:
    sums = sa.select(
        sa.func.coalesce(sa.func.sum(_reservations.c.usd), 0.0),
        sa.func.coalesce(sa.func.sum(_reservations.c.gpu_hours), 0.0),
    ).where(_reservations.c.repository == repository, _reservations.c.month == month, _reservations.c.job_id != besides)
    usd, hours = connection.execute(sums).one()
    return Spend(usd=float(usd), gpu_hours=float(hours))


def _shares(wanted: Spend, ceilings: Spend, used: Spend) -> list[tuple[float, str]]:
    """For each ceiling that this job meets: the share of its wish that fits below, and the ceiling in words."""
    shares = []
    if wanted.usd > _TOLERANCE:
        words = f"{ceilings.usd:,.2f} USD is used up ({used.usd:,.2f} USD spent or reserved)"
        shares.append(((ceilings.usd - used.usd) / wanted.usd, words))
    if wanted.gpu_hours > _TOLERANCE:
        words = f"{ceilings.gpu_hours:g} h of job time is used up ({used.gpu_hours:,.2f} h spent or reserved)"
        shares.append(((ceilings.gpu_hours - used.gpu_hours) / wanted.gpu_hours, words))
    return shares


def _granted(wanted: Spend, ceilings: Spend, used: Spend) -> Spend | None:
    """What fits under the ceilings, None when it is too little to start a job with.

    Money and hours of one job are proportional, so the tighter of the two ceilings cuts both.
    """
    share = max(0.0, min([1.0, *(share for share, _ in _shares(wanted, ceilings, used))]))
    granted = Spend(usd=wanted.usd * share, gpu_hours=wanted.gpu_hours * share)
    return granted if granted.gpu_hours >= SHORTEST_JOB_HOURS - _TOLERANCE else None


def _month_sentence(month: str, ceilings: Spend, used: Spend, wanted: Spend) -> str:
    _, words = min(_shares(wanted, ceilings, used), default=(0.0, "job time is used up"))
    return f"this repository's ceiling for {month} of {words}; `month` in its policy holds it"
