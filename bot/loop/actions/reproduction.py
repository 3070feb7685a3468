"""A run made again on a pull request: its data built, its training and its evaluation done once more, and a verdict.

It is a side road. What it finds is told in the sticky comment and in the run's own record; the goal's best run, its
ending and what comes next do not look at it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from bot.domain.budget import Envelope, Spend, exceeded
from bot.domain.experiment import RESUMABLE_STATES, EventKind, Experiment, JobRole, NewEvent, Run
from bot.domain.fold import foreseen
from bot.domain.redaction import redact
from bot.domain.reproduction import (
    Reproduction,
    ReproductionReport,
    Trial,
    environment_differences,
    judged,
    not_rebuilt,
)
from bot.errors import UserError
from bot.loop.action import Action
from bot.loop.actions.jobs import settle, status_of
from bot.loop.actions.planning import post_sticky, result_of
from bot.loop.actions.specs import reproduced_run
from bot.loop.actions.traces import environment_of, job_path, losses_of, output
from bot.loop.spending import data_key, next_run_hours, spend_of
from bot.loop.world import World, digest
from runners.job import JobId

ROWS = "data/train.jsonl"


def reproduction_problem(x: Experiment, n: int) -> str | None:
    """Why run `n` may not be made again now, a sentence that says what to do; None when it may."""
    if x.pull_request is None or x.closed:
        return "There is no open pull request whose runs could be made again."
    if n > len(x.runs):
        return f"There is no run {n}: the latest is run {len(x.runs)}." if x.runs else "No run has been trained yet."
    if x.reproduction is not None:
        return f"Reproduction {x.reproduction.n}, of run {x.reproduction.run}, is under way; its verdict comes first."
    run = x.runs[n - 1]
    if not run.diagnosed and not x.concluded:
        return f"Run {n} is still under way. Write it again once its review is here."
    if run.score is None:
        scored = ", ".join(str(each.n) for each in x.runs if each.score is not None)
        instead = f" Runs with one: {scored}." if scored else ""
        return f"Run {n} came to no result that could be compared with another.{instead}"
    if run.yardstick not in ("", x.yardstick):
        return f"Run {n} was measured before the goal was changed, on another yardstick; make a later run again."
    return _spending_problem(x)


def _spending_problem(x: Experiment) -> str | None:
    if x.consent is None:
        return "Nobody has agreed to spending on this pull request. Write `/postdoc run` first."
    assert x.goal is not None
    envelope = Envelope.from_dict(x.consent["envelope"])
    if envelope.goal_hash != x.goal.hash:
        return "What was agreed was agreed for another goal. Write `/postdoc run` first."
    # After the end nobody waits any more: hours on the clock count up to it.
    spent = spend_of(x, x.ended_at if x.concluded else None)
    over = exceeded(envelope.ceilings, spent, Spend(runs=1, gpu_hours=next_run_hours(x) or 0.0))
    if over is None:
        return None
    if x.concluded and x.state not in RESUMABLE_STATES:
        return f"{over} On a machine of your own: `postdoc reproduce {x.folder}/runs/NN`."
    return f"{over} `/postdoc budget +1runs` or `+1h` raises the ceiling."


def new_reproduction(x: Experiment, run: int, *, by: str) -> Reproduction:
    return Reproduction(len(x.reproductions) + 1, run, by)


async def check_rebuilt(world: World, x: Experiment, action: Action) -> list[NewEvent]:
    """Note what the training set is that was built again, before anything is trained on it."""
    asked = _asked(x, action)
    then = await asyncio.to_thread(rows_digest, world, x, reproduced_run(x, asked.n))
    built = output(job_path(world, x, JobRole.REBUILD, asked.n), ROWS)
    data = {"reproduction": asked.n, "rows": [then, digest(built) if built is not None else "none"]}
    return [NewEvent(EventKind.REPRODUCTION_REBUILT, f"reproduction/{asked.n}/rebuilt", data)]


def rows_digest(world: World, x: Experiment, run: Run) -> str:
    """SHA-256 of the rows that the run trained on, as data/prepare.py wrote it down; of the copy that its job was
    given where the journal has it no more; empty where neither is left."""
    build = x.data.get(data_key(run.recipe, run.digests), {}).get("build") or {}
    if named := str(build.get("sha256") or ""):
        return named
    given = output(job_path(world, x, JobRole.TRAIN, run.n), ROWS)
    return digest(given) if given is not None else ""


def reported(asked: Reproduction, report: Mapping[str, Any]) -> NewEvent:
    data = {"reproduction": asked.n, "run": asked.run, "report": dict(report)}
    return NewEvent(EventKind.REPRODUCTION_REPORTED, f"reproduction/{asked.n}/reported", data)


async def report_reproduction(world: World, x: Experiment, action: Action) -> list[NewEvent]:
    """End what still runs for it, judge what came out, and bring the sticky comment up to date."""
    asked = _asked(x, action)
    events = await _ended_jobs(world, x)
    after = foreseen(x, events, world.clock())
    if events:
        await settle(world, after)  # what was set aside for a job that was ended is free again
    report = await _report(world, after, asked)
    events.append(reported(asked, report))
    await post_sticky(world, foreseen(x, events, world.clock()))
    return events


def _asked(x: Experiment, action: Action) -> Reproduction:
    return next(each for each in x.reproductions if each.n == action.args["reproduction"])


async def _ended_jobs(world: World, x: Experiment) -> list[NewEvent]:
    events = []
    for job in x.running_jobs:
        await asyncio.to_thread(world.runner.cancel, JobId(job.job_id))
        status = await asyncio.to_thread(world.runner.status, JobId(job.job_id))
        if status is not None and status.state.ended:
            data = {"job_id": job.job_id, "status": status.as_dict()}
            events.append(NewEvent(EventKind.JOB_ENDED, f"job/{job.job_id}/ended", data))
    return events


async def _report(world: World, x: Experiment, asked: Reproduction) -> dict[str, Any]:
    if asked.refused:
        return {"failure": asked.refused}
    if x.consent is None:
        return {"failure": "what was agreed to does not stand any more"}
    if asked.rebuilt_otherwise is not None:
        return not_rebuilt(asked.rebuilt_otherwise).as_dict()
    if (failure := _failure(world, x, asked)) is not None:
        return {"failure": failure}
    try:
        return await _judged(world, x, asked)
    except UserError as error:
        return {"failure": str(error).rstrip(".")}


def _failure(world: World, x: Experiment, asked: Reproduction) -> str | None:
    """Why there is nothing to judge, one sentence; None when there is."""
    what = {JobRole.REBUILD: "building the training set", JobRole.RETRAIN: "training", JobRole.REASSESS: "evaluating"}
    for role, words in what.items():
        job = x.job_for(role, asked.n)
        if job is not None and job.succeeded:
            continue
        if job is None:
            return f"{words} it again was not started"
        status = status_of(job)
        tail = redact(world.runner.log_tail(JobId(job.job_id), 3), world.known_secrets).strip().splitlines()[-1:]
        how = f"{status.get('failure') or status.get('state')}"
        return f"{words} it again failed ({how}): {' '.join(tail)[:200]}"
    return None


async def _judged(world: World, x: Experiment, asked: Reproduction) -> dict[str, Any]:
    run = reproduced_run(x, asked.n)
    first, again = x.job_for(JobRole.TRAIN, run.n), x.job_for(JobRole.RETRAIN, asked.n)
    evaluations = [
        await result_of(world, x, job)
        for job in (x.job_for(JobRole.EVALUATE, run.n), x.job_for(JobRole.REASSESS, asked.n))
    ]
    then, now = Trial(evaluations[0], losses_of(world, first)), Trial(evaluations[1], losses_of(world, again))
    differences = environment_differences(environment_of(world, first), environment_of(world, again))
    report: ReproductionReport = judged(then, now, differences)
    return report.as_dict() | {"value": [then.evaluation.value, now.evaluation.value], "metric": then.evaluation.metric}
