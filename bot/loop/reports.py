"""What jobs report of themselves where their backend cannot be watched: the latest steps of each, for the check run.

Kept in the database, because the process that a report reaches need not be the one that holds the goal.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from bot.loop.database import metadata

MOST_STEPS = 200
"""Kept for a job. When there are more, every second one goes, so that the whole course stays visible."""
KEPT_SECONDS = 8 * 86400.0

_reports = sa.Table(
    "reports",
    metadata,
    sa.Column("job_id", sa.Text, primary_key=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("steps", sa.Text, nullable=False),
)


class Reports:
    """Methods block for about one disk write; call them from a thread in asynchronous code."""

    def __init__(self, engine: sa.Engine, *, clock: Callable[[], float] = time.time) -> None:
        self._engine, self._clock = engine, clock

    def add(self, job_id: str, step: dict[str, Any]) -> None:
        """Keep a step: {"step", "loss", "max_steps" ...}. One that is not further than the last replaces it."""
        with self._engine.begin() as connection:
            known = connection.execute(sa.select(_reports.c.steps).where(_reports.c.job_id == job_id)).scalar()
            steps: list[dict[str, Any]] = json.loads(known) if known else []
            while steps and steps[-1]["step"] >= step["step"]:
                steps.pop()
            steps.append(step)
            if len(steps) > MOST_STEPS:
                steps = [*steps[:-1][::2], steps[-1]]
            values = {"at": self._clock(), "steps": json.dumps(steps)}
            if known is None:
                connection.execute(_reports.insert().values(job_id=job_id, **values))
            else:
                connection.execute(_reports.update().where(_reports.c.job_id == job_id).values(values))

    def steps(self, job_id: str) -> list[dict[str, Any]]:
        """Oldest first; empty for a job that has reported nothing."""
        with self._engine.connect() as connection:
            known = connection.execute(sa.select(_reports.c.steps).where(_reports.c.job_id == job_id)).scalar()
        return json.loads(known) if known else []

    def prune(self) -> None:
        """Forget jobs that have long been silent."""
        with self._engine.begin() as connection:
            connection.execute(_reports.delete().where(_reports.c.at < self._clock() - KEPT_SECONDS))
