"""Launching jobs: under which name, within which reservation, and from which checkpoint on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml

import bot
from bot.conversation.policy import Policy
from bot.domain.budget import Spend
from bot.domain.experiment import BASELINE, EventKind, Experiment, Job, JobRole, NewEvent, State
from bot.domain.goal import digest_of, slug
from bot.domain.recipe import earlier_run
from bot.errors import PlatformError, TransientError, UserError
from bot.loop.action import Action
from bot.loop.actions.machines import machine_price
from bot.loop.actions.specs import (
    CHECKPOINTS,
    EARLIER_RUN_KEYS,
    LATEST,
    Trained,
    arm_of,
    goal_folder,
    jsonl,
    light_machine,
    reproduced_run,
    spec_of,
    write_input,
)
from bot.loop.spending import SHORTEST_JOB_HOURS, allowance, data_key
from bot.loop.thinking import with_candidate
from bot.loop.treasury import Refusal
from bot.loop.world import World
from runners.job import JobId, JobSpec, Runner
from runners.metrics import METRICS
from runners.outputs import read_output

_LOOK_SECONDS = 0.2


async def launch(world: World, x: Experiment, action: Action) -> list[NewEvent]:
    """Start the job (or find the one an interrupted attempt started) and note it. One for a proposal of the language
    model sees it at the head."""
    x = with_candidate(x, action.args.get("thought"))
    role, run = JobRole(action.args["role"]), int(action.args["run"])
    attempt, expects = int(action.args["attempt"]), str(action.args["expects"])
    job_id = job_id_of(x, role, run, attempt, expects)
    if (gone := _gone_before(world, x, role, run)) is not None:
        return [outputs_gone(gone)]
    light = await light_machine(world, x, role, run)
    price = await machine_price(world, light.flavor if light is not None else None)
    if price is not None:
        # A policy's price may count more than the machine: power, or a reserve.
        price = max(price, Policy.from_dict(x.policy).usd_per_hour)
    granted = await _reserve(world, x, role, job_id, price)
    if isinstance(granted, Refusal):
        state = State.STOPPED if granted.halted else State.EXHAUSTED
        refused: dict[str, Any] = {"state": str(state), "reason": granted.reason}
        if role.of_reproduction:
            refused["reproduction"] = run
        return [NewEvent(EventKind.SPENDING_REFUSED, f"spending-refused/{x.length}", refused)]
    try:
        spec = await spec_of(world, x, role, run, job_id)
    except UserError as error:
        await asyncio.to_thread(world.treasury.release, job_id)  # nothing was started
        if role.of_reproduction:  # the goal itself has met no problem
            refused = {"reason": str(error).rstrip("."), "reproduction": run, "state": str(x.state)}
            return [NewEvent(EventKind.SPENDING_REFUSED, f"spending-refused/{x.length}", refused)]
        raise
    resumed_from = await asyncio.to_thread(_last_checkpoint, world, x, x.job_for(role, run, expects))
    if resumed_from is not None and spec.checkpoints:
        spec = _resumed(spec, resumed_from, goal_folder(world, x) / "inputs" / job_id)
    labels = {"repository": x.full_name, "goal": str(x.issue), "role": str(role), "run": str(run), "sha": x.head_sha}
    trains = role in (JobRole.TRAIN, JobRole.ABLATE)
    spec = replace(
        spec,
        caps=replace(spec.caps, timeout_seconds=granted.gpu_hours * 3600),
        labels=labels,
        monitor=Policy.from_dict(x.policy).monitor if trains else "",
    )
    try:
        await asyncio.to_thread(world.runner.launch, spec)
    except UserError:
        await asyncio.to_thread(world.treasury.release, job_id)
        raise
    except PlatformError as error:
        raise TransientError(f"the runner cannot start a job now: {error}") from error
    data = {
        "job_id": job_id,
        "role": str(role),
        "run": run,
        "attempt": attempt,
        "expects": expects,
        "reserved": {"usd": granted.usd, "gpu_hours": granted.gpu_hours},
        "usd_per_hour": price,
        "resumed_from": resumed_from.step if resumed_from is not None and spec.checkpoints else None,
        "place": place_of(world, spec),
    }
    return [NewEvent(EventKind.JOB_LAUNCHED, f"job/{job_id}/launched", data)]


def place_of(world: World, spec: JobSpec) -> dict[str, Any]:
    """What a job is launched on, for whoever makes it again."""
    return {
        "runner": world.runner.name,
        "image": getattr(world.runner, "image", ""),  # of those runners that have one
        "flavor": spec.hardware.flavor,
        "gpus": spec.hardware.gpus,
        "nodes": spec.hardware.nodes,
        "threads": spec.caps.cpu_threads,
        "memory_gib": spec.caps.memory_gib,
        "postdoc": bot.__version__,
    }


def _gone_before(world: World, x: Experiment, role: JobRole, run: int) -> Job | None:
    """The ended job without whose outputs this one cannot be started, when they are gone."""
    needed: Job | None = None
    if role in (JobRole.EVALUATE, JobRole.CONFIRM):
        needed = x.job_for(JobRole.TRAIN, run)
    elif role is JobRole.WEIGH:
        needed = x.job_for(JobRole.ABLATE, run)
    elif role in (JobRole.RETRAIN, JobRole.REASSESS):
        needed = x.job_for(JobRole.REBUILD if role is JobRole.RETRAIN else JobRole.RETRAIN, run)
    elif role is JobRole.SMOKE:
        found = x.data.get(data_key(x.recipe, x.recipe_digests))
        needed = x.jobs.get(found["job_id"]) if found is not None else None
    elif role in (JobRole.TRAIN, JobRole.PROBE, JobRole.ABLATE, JobRole.AUDIT):
        trained = Trained.of_arm(*arm_of(x, run)) if role is JobRole.ABLATE else Trained.of_run(x.runs[run - 1])
        values = yaml.safe_load(trained.recipe) or {}
        for n in (earlier_run(values.get(key)) for key in EARLIER_RUN_KEYS):
            earlier = x.job_for(JobRole.TRAIN, n) if n is not None else None
            if earlier is not None and earlier.succeeded and is_gone(world, earlier):
                return earlier
        found = x.data.get(trained.data_key)
        needed = x.jobs.get(found["job_id"]) if found is not None else None
    return needed if needed is not None and is_gone(world, needed) else None


def is_gone(world: World, job: Job) -> bool:
    """Whether the folder of an ended job is not on this machine (any more)."""
    return not job.gone and not job.refused and not world.runner.folder(JobId(job.job_id)).exists()


def outputs_gone(job: Job) -> NewEvent:
    data = {"job_id": job.job_id, "role": str(job.role), "run": job.run}
    return NewEvent(EventKind.OUTPUTS_GONE, f"job/{job.job_id}/gone", data)


class Checkpoint(NamedTuple):
    """What an attempt left whose machine was lost, or that a person stopped."""

    step: int
    folder: Path
    metrics: list[dict[str, Any]]
    """Logged up to that step."""


def _last_checkpoint(world: World, x: Experiment, before: Job | None) -> Checkpoint | None:
    """Where the attempt before this one can be taken up again; None when there was none, or nothing is left of it."""
    # A person who stopped it and goes on means the same run; what the monitor ended is never trained again.
    if before is None or before.stopped is not None or status_of(before).get("state") not in ("lost", "cancelled"):
        return None
    out = world.runner.folder(JobId(before.job_id)) / CHECKPOINTS
    try:
        name = read_output(out, LATEST, 256).decode("ascii").strip()
    except (OSError, ValueError, UserError):
        return None
    step = name.removeprefix("checkpoint-")
    if (
        not (name.startswith("checkpoint-") and step.isdecimal())
        or not (out / name).is_dir()
        or (out / name).is_symlink()
    ):
        return None
    metrics = [row for row in world.runner.metrics(JobId(before.job_id)) if row["step"] <= int(step)]
    return Checkpoint(int(step), out / name, metrics)


def _resumed(spec: JobSpec, checkpoint: Checkpoint, inputs: Path) -> JobSpec:
    """The same job from the checkpoint on, with what was logged up to there."""
    metrics = {METRICS: write_input(inputs / "metrics.jsonl", jsonl(checkpoint.metrics))} if checkpoint.metrics else {}
    return replace(
        spec,
        argv=(*spec.argv, "--resume_from_checkpoint", "{mount:checkpoint}"),
        files=dict(spec.files) | metrics,
        mounts=dict(spec.mounts) | {"checkpoint": str(checkpoint.folder)},
    )


async def _reserve(world: World, x: Experiment, role: JobRole, job_id: JobId, price: float | None) -> Spend | Refusal:
    """What this job may cost at most, set aside under the goal's and the repository's ceilings before it starts."""
    wanted = allowance(x, role, world.clock(), price)
    if wanted.gpu_hours < SHORTEST_JOB_HOURS:
        return Refusal(f"what is left of the budget is too little for the {role} job")
    month = Policy.from_dict(x.policy).month
    ceilings = Spend(usd=month.usd, gpu_hours=month.gpu_hours)
    return await asyncio.to_thread(world.treasury.reserve, job_id, x, wanted, ceilings)


async def end_job(world: World, x: Experiment, job: Job) -> None:
    """End a running job. Training that a person stopped makes a checkpoint first, for whoever resumes it."""
    job_id = JobId(job.job_id)
    if job.role in (JobRole.TRAIN, JobRole.ABLATE) and x.stop_requested is not None:
        await asyncio.to_thread(_checkpoint_first, world.runner, job_id)
    await asyncio.to_thread(world.runner.cancel, job_id)


def _checkpoint_first(runner: Runner, job_id: JobId) -> None:
    if not runner.metrics(job_id):
        return  # nothing has been learned that could be kept
    until = time.monotonic() + runner.checkpoint_first(job_id)
    while time.monotonic() < until and not runner.checkpoint_is_made(job_id):
        status = runner.status(job_id)
        if status is None or status.state.ended:
            return
        time.sleep(_LOOK_SECONDS)


async def settle(world: World, x: Experiment) -> None:
    """Bring what is reserved for the goal's jobs into line with what they took."""
    await asyncio.to_thread(world.treasury.restore, x)


def job_id_of(x: Experiment, role: JobRole, run: int, attempt: int, expects: str) -> JobId:
    """The same for the same work, so that a replayed launch is recognised; another recipe is other work."""
    if role in (JobRole.DATA, JobRole.BASELINE, JobRole.SMOKE):
        work = expects
    elif role.of_ablation:
        work = arm_of(x, run)[1].recipe_hash
    elif run == BASELINE:
        work = x.goal.hash if x.goal is not None else ""
    elif role.of_reproduction:
        work = reproduced_run(x, run).recipe_hash
    else:
        work = x.runs[run - 1].recipe_hash
    return JobId(f"{job_prefix(x)}{digest_of([x.goal_id, work])[:6]}-{role}-{run:02d}-{attempt}")


def job_prefix(x: Experiment) -> str:
    """How the ids of this goal's jobs begin, and no other goal's."""
    return f"{slug(x.repository, limit=24)}-{x.issue}-{digest_of(x.goal_id)[:6]}-"


def status_of(job: Job | None) -> Mapping[str, Any]:
    return job.status if job is not None and job.status is not None else {}
