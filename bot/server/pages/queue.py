"""The jobs on this machine and each goal's place in line, with an estimate only where there is ground for one."""

from __future__ import annotations

import heapq
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bot.domain.experiment import Job, JobRole
from bot.domain.goal import GoalId
from bot.server.pages.timeline import task_of
from bot.server.summaries import Summary
from runners.job import JobId, JobState, JobStatus

ENOUGH_JOBS = 3
"""Jobs of one kind that have to have ended before their median says how long the next one takes."""


@dataclass(frozen=True, slots=True)
class Live:
    """What a running job was last seen to have done."""

    job_id: str
    role: str
    run: int
    step: int = 0
    total_steps: int | None = None
    loss: float | None = None
    eta_seconds: float | None = None

    @classmethod
    def of(cls, seen: Mapping[str, Any] | None) -> Live | None:
        """Of what the watcher keeps for a goal; None when it keeps nothing, or nothing that makes sense."""
        try:
            if not seen:
                return None
            total, step = seen.get("total_steps"), int(seen.get("step") or 0)
            return cls(
                str(seen["job_id"]), str(seen["role"]), int(seen["run"]), step,
                max(int(total), step) if total else None, _finite(seen.get("loss")), _finite(seen.get("eta_seconds")),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, OverflowError):
            return None


def _finite(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


@dataclass(frozen=True, slots=True)
class Placed:
    """A job that runs or waits on this machine."""

    summary: Summary
    job: Job
    task: str
    since: float
    """Unix seconds: when it started, or was put in line."""
    place: int = 0
    """1 is next; 0 runs."""
    seconds: float | None = None
    """Until it ends (running) or starts (waiting), about; None when nobody can say."""
    live: Live | None = None


def placed(
    summaries: Sequence[Summary],
    status: Callable[[JobId], JobStatus | None],
    progress: Mapping[GoalId, Mapping[str, Any]],
    slots: int,
    *,
    now: float | None = None,
) -> tuple[list[Placed], list[Placed]]:
    """The jobs that run and those in line, each in the order in which they were launched."""
    now = time.time() if now is None else now
    lasts = durations(summaries)
    running: list[Placed] = []
    waiting: list[Placed] = []
    open_jobs = sorted(((s, job) for s in summaries for job in s.running), key=lambda pair: pair[1].launched_at)
    for summary, job in open_jobs:
        found = status(JobId(job.job_id))
        if found is None or found.state.ended:
            continue  # elsewhere, or its end is about to be noted
        task = task_of(job.role, job.run)
        if found.state is JobState.QUEUED:
            waiting.append(Placed(summary, job, task, job.launched_at, len(waiting) + 1))
        else:
            live = Live.of(progress.get(summary.goal_id))
            live = live if live is not None and live.job_id == job.job_id else None
            since = found.started_at or job.launched_at
            left = _left(live, lasts.get(kind_of(summary, job.role)), now - since)
            running.append(Placed(summary, job, task, since, 0, left, live))
    starts = start_estimates(
        [each.seconds for each in running], [lasts.get(kind_of(each.summary, each.job.role)) for each in waiting], slots
    )
    return running, [
        Placed(each.summary, each.job, each.task, each.since, each.place, start)
        for each, start in zip(waiting, starts, strict=True)
    ]


def _left(live: Live | None, usual: float | None, elapsed: float) -> float | None:
    if live is not None and live.eta_seconds is not None:
        return live.eta_seconds
    # A job that has already taken longer than usual says nothing about when it ends.
    return usual - elapsed if usual is not None and usual > elapsed else None


def kind_of(summary: Summary, role: JobRole) -> tuple[str, ...]:
    """What has to be the same for one job to say how long another takes."""
    goal = summary.goal
    return (str(role), *((goal.base_model, goal.benchmark) if goal is not None else ()))


def durations(summaries: Sequence[Summary]) -> dict[tuple[str, ...], float]:
    """Median seconds of each kind of job of which enough have succeeded."""
    found: dict[tuple[str, ...], list[float]] = {}
    for summary in summaries:
        for role, seconds in summary.lasted:
            found.setdefault(kind_of(summary, role), []).append(seconds)
    return {kind: statistics.median(each) for kind, each in found.items() if len(each) >= ENOUGH_JOBS}


def start_estimates(running: Sequence[float | None], waiting: Sequence[float | None], slots: int) -> list[float | None]:
    """Seconds until each waiting job starts, first come first served over `slots`.

    `running` holds what is left of each running job, `waiting` how long each would take. None is unknown, and so is
    whatever depends on it: a number is given only when everything before it is known.
    """
    free = [0.0] * max(0, slots - len(running)) + [math.inf if left is None else left for left in running]
    heapq.heapify(free)
    starts: list[float | None] = []
    for takes in waiting:
        # A slot whose job ends nobody knows when may be free before the others: then nothing is certain any more.
        certain = math.inf not in free or (bool(free) and free[0] == 0.0)
        start = heapq.heappop(free) if free else math.inf
        starts.append(start if certain and math.isfinite(start) else None)
        heapq.heappush(free, start + takes if takes is not None and certain else math.inf)
    return starts


def ordinal(place: int) -> str:
    """`1st`, `2nd`, `3rd`, `11th`."""
    ending = "th" if place % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")
    return f"{place}{ending}"


def about(seconds: float) -> str:
    """A time to wait, rounded as an estimate should be."""
    minutes = math.ceil(seconds / 60)
    if minutes <= 1:
        return "about a minute"
    if minutes < 90:
        return f"about {minutes} min"
    return f"about {round(seconds / 3600)} h"
