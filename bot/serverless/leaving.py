"""Ending jobs whose machine is about to end: each is told why, so that nobody takes it for a failure of the recipe."""

from __future__ import annotations

import asyncio

from bot.domain.experiment import EventKind, Experiment, Job, NewEvent
from bot.loop.engine import Engine
from runners.job import JobId, Runner

ON_THIS_MACHINE = frozenset({"local", "docker", "scripted"})
"""Runners whose jobs run where the bot does."""
_ADVICE = (
    "What was trained is gone. Give the workflow more minutes, or train on a machine that stays (a self-hosted runner "
    "with a data folder, or another runner); `/postdoc resume` trains it again"
)


async def end_jobs(engine: Engine, runner: Runner, why: str, *, again_since: float | None) -> None:
    """End every running job. A job that was launched after `again_since` (Unix seconds) had little of the time, so
    whoever comes next starts it again; the goals of the others stop, and a person says how to go on."""
    for goal_id in await asyncio.to_thread(engine.journal.goals):
        x = await engine.experiment(goal_id)
        for job in x.running_jobs:
            again = again_since is not None and job.launched_at > again_since
            await _end_job(engine, runner, x, job, why, again=again)


async def _end_job(engine: Engine, runner: Runner, x: Experiment, job: Job, why: str, *, again: bool) -> None:
    if again:
        engine.keep_still(x.goal_id)  # for the rest of this process
    status = await asyncio.to_thread(runner.cancel, JobId(job.job_id))
    if status is None:
        return
    ended = {"job_id": job.job_id, "status": status.as_dict()}
    events = [NewEvent(EventKind.JOB_ENDED, f"job/{job.job_id}/ended", ended)]
    if not again:
        reason = f"{why}, and with it the {job.role} job of this machine. {_ADVICE}"
        events.append(NewEvent(EventKind.STOPPED, f"out-of-time/{job.job_id}", {"by": why, "reason": reason}))
    await engine.append(x.goal_id, events)
