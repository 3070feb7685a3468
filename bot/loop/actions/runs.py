"""One training run as people see it: its check, and its one review on the lines that it blames."""

from __future__ import annotations

import asyncio
from typing import Any

import yaml

from bot.brain.playbook import Remedy, settled
from bot.conversation import messages
from bot.conversation.github import InlineComment
from bot.domain.diagnosis import Diagnosis, Severity
from bot.domain.experiment import EventKind, Experiment, JobRole, NewEvent, Run
from bot.domain.goal import digest_of
from bot.domain.recipe import line_with
from bot.domain.redaction import redact
from bot.loop.action import Action
from bot.loop.actions.jobs import status_of
from bot.loop.actions.planning import post_sticky
from bot.loop.actions.traces import job_path, keep_files, metrics_of, number, output_json
from bot.loop.policy import head_recipe_hash
from bot.loop.spending import remedy_waits
from bot.loop.world import World


async def start_run(world: World, x: Experiment, action: Action) -> list[NewEvent]:
    """Open the run's check on the head and number the run."""
    n = int(action.args["run"])
    values = yaml.safe_load(x.recipe) or {}
    run = Run(n, x.recipe, head_recipe_hash(x), x.head_sha, str(values.get("method", "sft")), changed=dict(x.changed))
    progress = messages.Progress(step=0, phase="starting")
    check = await world.repository(x).create_check(
        name=messages.check_name(run),
        sha=x.head_sha,
        external_id=f"{x.goal_id}/{n:02d}",
        output={"title": messages.check_title(run, progress), "summary": messages.check_summary(run, progress, [])},
    )
    data = {
        "run": n,
        "head_sha": x.head_sha,
        "recipe_hash": run.recipe_hash,
        "method": run.method,
        "changed": run.changed,
        "check_run_id": check,
    }
    return [NewEvent(EventKind.RUN_STARTED, f"run/{n}/started", data)]


async def review(world: World, x: Experiment, action: Action) -> list[NewEvent]:
    """Post the run's one review with its inline comments, complete its check, bring the sticky comment up to date."""
    assert x.pull_request is not None
    run = x.runs[int(action.args["run"]) - 1]
    remedy, run.probe = _settled_remedy(world, x, run)
    run.remedy = remedy.as_dict() if remedy else None
    body = messages.review(x, run, curves=_curves(world, x, run))
    comments = [
        _inline(x, run, label, diagnosis, remedy)
        for label, diagnosis in zip(messages.labels_of(x, run), run.report.diagnoses, strict=True)
        if diagnosis.severity is not Severity.ADVICE or (remedy is not None and remedy.symptom == diagnosis.symptom)
    ]
    repository = world.repository(x)
    review_id = await repository.review(
        x.pull_request,
        sha=run.head_sha,
        key_line=messages.hidden_key(x.goal_id, f"run/{run.n:02d}/review"),
        body=redact(body, world.known_secrets),
        comments=comments,
    )
    await complete_check(world, x, run)
    await asyncio.to_thread(keep_files, world, x, run)
    run.review_id, run.reviewed = review_id, True
    await post_sticky(world, x)
    data = {"run": run.n, "review_id": review_id, "remedy": run.remedy, "probe": run.probe}
    return [NewEvent(EventKind.REVIEWED, f"run/{run.n}/reviewed", data)]


def _settled_remedy(world: World, x: Experiment, run: Run) -> tuple[Remedy | None, dict[str, Any] | None]:
    """The remedy after its range test, and what the test found."""
    if run.remedy is None:
        return None, None
    remedy = Remedy.from_dict(run.remedy)
    folder = job_path(world, x, JobRole.PROBE, run.n)
    if folder is None:
        return remedy, None
    probe = output_json(folder, "out/probe.json")
    return settled(remedy, probe, run.recipe, tried=x.tried, script_digest=digest_of(run.digests)), probe


def _curves(world: World, x: Experiment, run: Run) -> list[messages.Curve]:
    metrics = metrics_of(job_path(world, x, JobRole.TRAIN, run.n))
    curves = []
    for name in ("loss", "eval_loss", "grad_norm"):
        points = [(int(row["step"]), number(row[name])) for row in metrics if name in row and "step" in row]
        if len(points) >= 2:
            curves.append(messages.Curve(name, points))
    return curves


def _inline(x: Experiment, run: Run, label: str, diagnosis: Diagnosis, remedy: Remedy | None) -> InlineComment:
    """A diagnosis on its line; the one that is acted on carries the line as it will be."""
    line = None
    acted_on = remedy is not None and remedy.symptom == diagnosis.symptom and remedy.key == diagnosis.key
    if diagnosis.key is not None and diagnosis.line is not None:
        if acted_on and remedy is not None:
            line = line_with(run.recipe, remedy.key, remedy.value)
        elif diagnosis.suggested is not None:
            line = line_with(run.recipe, diagnosis.key, diagnosis.suggested)
    body = messages.inline_comment(x, run, label, diagnosis, line)
    return InlineComment(f"{x.folder}/{diagnosis.file}", diagnosis.line, body)


async def complete_check(world: World, x: Experiment, run: Run) -> None:
    assert x.goal is not None
    if run.check_run_id is None:
        return
    train = x.job_for(JobRole.TRAIN, run.n)
    ended = None if train is not None and train.stopped is not None else status_of(train) or None
    conclusion = messages.check_conclusion(run, job_status=ended, target=x.goal.target)
    losses = [number(row["loss"]) for row in metrics_of(job_path(world, x, JobRole.TRAIN, run.n)) if "loss" in row]
    output = {
        "title": messages.check_done_title(run, x.baseline, x.goal.target),
        "summary": redact(messages.check_done_summary(run, losses), world.known_secrets),
    }
    await world.repository(x).update_check(
        run.check_run_id,
        output=output,
        conclusion=str(conclusion),
        actions=_accept_button(x, run) if world.buttons else [],
    )


def _accept_button(x: Experiment, run: Run) -> list[dict[str, str]]:
    """`Accept fix`, where the remedy is left to a person; GitHub shows a check's buttons once it has completed."""
    label = messages.remedy_label(x, run)
    if label is None or remedy_waits(x, run) is None:
        return []
    return [
        {"label": "Accept fix", "description": f"Commit the change of {label}"[:40], "identifier": f"accept {label}"}
    ]
