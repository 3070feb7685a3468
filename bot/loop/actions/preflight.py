"""What is known of a run before its training job is submitted, and whether that says it cannot work.

Asked are the rules that need no training, over the recipe, the built rows, the benchmark's items of dev, and the audit
of an earlier job that prepared the same rows with the same keys. What a job writes about
its tokens, masks and weights before its first step the server cannot find out without the job's libraries: where the
machine costs something a job without it looks first (`bot.loop.auditing`), and else the monitor judges it in the
training job, at step 0.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from bot.conversation.policy import Policy
from bot.diagnosis import preflight
from bot.domain.diagnosis import Diagnosis, Severity
from bot.domain.experiment import EventKind, Experiment, Job, JobRole, NewEvent, Run
from bot.domain.goal import DEFAULT_METHOD, digest_of
from bot.domain.recipe import recipe_hash
from bot.errors import UserError
from bot.evaluation.benchmarks import Item, items
from bot.loop.action import Action
from bot.loop.actions import jobs
from bot.loop.actions.specs import goal_folder, jsonl
from bot.loop.actions.traces import built_rows, goal_of, output
from bot.loop.auditing import AUDITING_ROLES, prepares_alike
from bot.loop.own_benchmark import benchmark_of
from bot.loop.thinking import with_candidate
from bot.loop.world import World
from runners.job import JobId

AUDIT = "out/data_audit.json"


async def launch(world: World, x: Experiment, action: Action) -> list[NewEvent]:
    """Start the job, but no training that is known to be in vain: that is noted instead, and nothing is spent."""
    role, run = JobRole(action.args["role"]), int(action.args["run"])
    # Where the monitor may only advise, or is off, nothing is refused either. What a language model proposed meets the
    # same rules before it is tried at all.
    if role in (JobRole.TRAIN, JobRole.SMOKE) and Policy.from_dict(x.policy).monitor == "abort":
        job_id = jobs.job_id_of(x, role, run, int(action.args["attempt"]), str(action.args["expects"]))
        # What an interrupted attempt has started already is watched like any other.
        if await asyncio.to_thread(world.runner.status, job_id) is None:
            view = with_candidate(x, action.args.get("thought"))
            fatal = await fatal_findings(world, view, upcoming(view) if role is JobRole.SMOKE else x.runs[run - 1])
            if fatal:
                return [_refused(job_id, action, fatal)]
    return await jobs.launch(world, x, action)


def upcoming(view: Experiment) -> Run:
    """The run that what stands at the head would be."""
    values = yaml.safe_load(view.recipe) or {}
    digests = dict(view.recipe_digests)
    name = recipe_hash(values, script_digest=digest_of(digests))
    method = str(values.get("method") or DEFAULT_METHOD)
    return Run(len(view.runs) + 1, view.recipe, name, view.head_sha, method, digests=digests)


def _refused(job_id: JobId, action: Action, fatal: Sequence[Diagnosis]) -> NewEvent:
    data = {
        **action.args,
        "job_id": job_id,
        "refused": True,
        "tier": "preflight",
        "step": 0,
        "diagnoses": [each.as_dict() for each in fatal],
    }
    return NewEvent(EventKind.JOB_REFUSED, f"job/{job_id}/refused", data)


async def fatal_findings(world: World, x: Experiment, run: Run) -> tuple[Diagnosis, ...]:
    """What makes this run not worth starting, most harmful first; nothing where nothing does."""
    assert x.goal is not None
    asked = items(await benchmark_of(world, x), "dev", x.goal.seed)
    return await asyncio.to_thread(_fatal, world, x, run, asked)


def _fatal(world: World, x: Experiment, run: Run, asked: Sequence[Item]) -> tuple[Diagnosis, ...]:
    folder = goal_folder(world, x) / "runs" / f"{run.n:02d}" / "preflight"
    folder.mkdir(parents=True, exist_ok=True)
    audit = earlier_audit(world, x, run)
    found: dict[str, bytes | None] = {
        "recipe.yaml": run.recipe.encode(),
        "goal.json": json.dumps(goal_of(x)).encode(),
        "train.jsonl": built_rows(world, x, run),
        # Right pairs of this task: without them rows that repeat their prompt would look wrong where that is asked.
        "eval.jsonl": jsonl([{"prompt": item.prompt, "completion": item.reference} for item in asked]),
        "data_audit.json": json.dumps(audit).encode() if audit else None,
    }
    for name, content in found.items():
        (folder / name).unlink(missing_ok=True)
        if content is not None:
            (folder / name).write_bytes(content)
    try:
        report = preflight(folder)
    except UserError:
        return ()  # the script has the word on a recipe that cannot be read
    return tuple(each for each in report.diagnoses if each.severity is Severity.FATAL)


def earlier_audit(world: World, x: Experiment, run: Run) -> Mapping[str, Any] | None:
    """What the latest job wrote that prepared the same rows with the same scripts and keys; None where none did."""
    for job in reversed(x.jobs.values()):
        if job.role in AUDITING_ROLES and not job.refused and prepares_alike(x.runs[job.run - 1], run):
            audit = _audit_of(world, job)
            if audit:
                return audit
    return None


def _audit_of(world: World, job: Job) -> dict[str, Any]:
    try:
        found = json.loads(output(world.runner.folder(JobId(job.job_id)), AUDIT) or b"{}")
    except (ValueError, RecursionError):
        return {}
    # How long the warm-up takes is the one part that follows from keys that may have changed.
    return {key: value for key, value in found.items() if key != "warm_up_steps"} if isinstance(found, dict) else {}
