"""An ablation: several values of one recipe key trained side by side on the same data, told in one table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from bot.brain.playbook import Remedy
from bot.conversation import messages
from bot.domain.ablation import Ablation, Arm
from bot.domain.evaluation import Evaluation
from bot.domain.experiment import BASELINE, EventKind, Experiment, JobRole, NewEvent
from bot.domain.fold import foreseen
from bot.domain.goal import digest_of
from bot.domain.recipe import recipe_hash, with_value
from bot.domain.redaction import redact
from bot.loop.action import Action
from bot.loop.actions.consent import left_of
from bot.loop.actions.jobs import status_of
from bot.loop.actions.lineage import lineage_of
from bot.loop.actions.planning import post_sticky, result_of, score_of
from bot.loop.actions.traces import metrics_of, number
from bot.loop.judging import told_together, unmeasured
from bot.loop.spending import data_key, next_run_hours
from bot.loop.world import World
from runners.job import JobId

CURVE_POINTS = 40


def ablation_problem(x: Experiment) -> str | None:
    """Why no ablation may be opened now, a sentence that says what to do; None when one may."""
    if x.ablation is not None:
        return f"Ablation {x.ablation.n} is under way; its table comes first."
    if x.consent is None:
        return "Nobody has agreed to spending on this recipe yet. Write `/postdoc run` first."
    return None


def new_ablation(x: Experiment, key: str, values: list[Any], *, by: str) -> Ablation:
    """One arm for each value; a value whose recipe a run has trained already takes that run's result."""
    return _ablation(x, [(key, value) for value in values], by=by)


async def open_ablation(world: World, x: Experiment, action: Action) -> list[NewEvent]:
    """Try the suspects that a run's remedy names side by side, each alone changed in the recipe at the head."""
    run = x.runs[int(action.args["run"]) - 1]
    assert run.remedy is not None
    ablation = _ablation(x, list(Remedy.from_dict(run.remedy).arms), by="postdoc", for_run=run.n)
    return [NewEvent(EventKind.ABLATION_OPENED, f"ablation/run/{run.n}", ablation.as_dict())]


def _ablation(x: Experiment, settings: list[tuple[str, Any]], *, by: str, for_run: int = 0) -> Ablation:
    first = 1 + sum(len(ablation.arms) for ablation in x.ablations)
    arms = []
    keys = {key for key, _ in settings}
    for offset, (key, value) in enumerate(settings):
        text = with_value(x.recipe, key, value)
        name = recipe_hash(yaml.safe_load(text) or {}, script_digest=digest_of(dict(x.recipe_digests)))
        known = x.tried.get(name)
        scored = known is not None and x.runs[known - 1].score is not None
        arms.append(Arm(first + offset, value, text, name, key if len(keys) > 1 else "", known if scored else None))
    digests, rows = dict(x.recipe_digests), data_key(x.recipe, x.recipe_digests)
    key = ", ".join(dict.fromkeys(key for key, _ in settings))
    return Ablation(len(x.ablations) + 1, key, arms, x.head_sha, digests, rows, by, for_run)


def ablation_price_problem(x: Experiment, ablation: Ablation) -> str | None:
    """Why the budget does not hold this many runs; None when it does, as far as is known."""
    wanted, left = len(ablation.trained), left_of(x, x.ceilings)
    if left.runs < wanted:
        more = wanted - left.runs
        return f"That takes {wanted} runs and {left.runs} are left. Write `/postdoc budget +{more}runs` first."
    hours = next_run_hours(x)
    if hours is not None and hours * wanted > left.gpu_hours:
        return (
            f"That takes about {hours * wanted:.2g} hours of job time and {left.gpu_hours:.2g} are left. "
            "Try fewer values, or raise the ceiling with `/postdoc budget +1h`."
        )
    return None


async def report_ablation(world: World, x: Experiment, action: Action) -> list[NewEvent]:
    """Gather every arm, and tell them in one comment."""
    assert x.pull_request is not None
    ablation = next(ablation for ablation in x.ablations if ablation.n == action.args["ablation"])
    rows = await _rows(world, x, ablation)
    data = {"ablation": ablation.n, "rows": rows}
    events = [NewEvent(EventKind.ABLATION_REPORTED, f"ablation/{ablation.n}/reported", data)]
    after = foreseen(x, events, world.clock())
    body = redact(messages.ablation(after, after.ablations[ablation.n - 1]), world.known_secrets)
    key = messages.hidden_key(x.goal_id, messages.ablation_name(ablation))
    await world.repository(x).upsert_comment(x.pull_request, key, body)
    await post_sticky(world, after)
    return events


async def _rows(world: World, x: Experiment, ablation: Ablation) -> list[dict[str, Any]]:
    results = {arm.n: result for arm in ablation.arms if (result := await _result(world, x, arm)) is not None}
    lineages = await _lineages(world, x, [arm for arm in ablation.trained if arm.n in results])
    spoiled = {n: why for n, result in results.items() if (why := unmeasured(result)) is not None}
    for n, data in lineages.items():
        if (found := messages.disowned_by(data)) is not None:
            spoiled[n] = messages.lineage_failure(found)
    results = {n: result for n, result in results.items() if n not in spoiled}
    baseline = await result_of(world, x, x.job_for(JobRole.BASELINE, BASELINE)) if results else None
    best = max(results, key=lambda n: results[n].measure.rank(results[n].value), default=None)
    # Told in one table, so corrected for being several.
    against_base = told_together([(baseline, each) for each in results.values()]) if baseline is not None else []
    rivals = [n for n in results if n != best]
    against_best = told_together([(results[best], results[n]) for n in rivals]) if best is not None else []
    told = {"against_baseline": dict(zip(results, against_base, strict=True))}
    told["against_best"] = dict(zip(rivals, against_best, strict=True))
    rows = []
    for arm in ablation.arms:
        result = results.get(arm.n)
        row: dict[str, Any] = {
            "arm": arm.n,
            "key": arm.key,
            "value": arm.value,
            "run": arm.run,
            "score": None,
            "failure": None,
        }
        if arm.n in lineages:
            row["lineage"] = lineages[arm.n]
        if arm.n in spoiled:
            row["failure"] = spoiled[arm.n]
        elif result is None:
            row["failure"] = _failure(world, x, ablation, arm)
        else:
            row["score"] = score_of(result, "")
            row |= {name: found[arm.n] for name, found in told.items() if arm.n in found}
        row |= _curve(world, x, arm)
        rows.append(row)
    return rows


async def _lineages(world: World, x: Experiment, arms: Sequence[Arm]) -> dict[int, dict[str, Any]]:
    """Of what these arms have trained, as runs are asked: weights of another origin have no value here either."""
    return {arm.n: await lineage_of(world, x, JobRole.ABLATE, arm.n, arm.recipe) for arm in arms}


async def _result(world: World, x: Experiment, arm: Arm) -> Evaluation | None:
    role, n = (JobRole.WEIGH, arm.n) if arm.run is None else (JobRole.EVALUATE, arm.run)
    job = x.job_for(role, n)
    if job is None or not job.succeeded or x.unjudged(job):
        return None
    return await result_of(world, x, job)


def _failure(world: World, x: Experiment, ablation: Ablation, arm: Arm) -> str:
    """Why there is no value, one sentence."""
    for role in (JobRole.WEIGH, JobRole.ABLATE):
        job = x.job_for(role, arm.n)
        if job is not None and job.succeeded and x.unjudged(job):
            why = (x.spending_refused or {}).get("reason", f"{x.pins['judge']} was not asked")
            return f"its answers were not scored: {why}"
        if job is not None:
            status = status_of(job)
            tail = world.runner.log_tail(JobId(job.job_id), 3).strip().splitlines()[-1:]
            what = "evaluation" if role is JobRole.WEIGH else "training"
            return f"{what} failed ({status.get('failure') or status.get('state')}): {' '.join(tail)[:200]}"
    checked = x.data.get(ablation.data_key, {})
    if why := checked.get("blocked") or checked.get("build_failed"):
        return f"not trained: {why}"
    if x.consent is None:
        return "not trained: what was agreed to does not stand any more"
    return "not trained: its training set was not built before the recipe changed"


def _curve(world: World, x: Experiment, arm: Arm) -> dict[str, Any]:
    """The loss as it went, and the seconds of training."""
    role, n = (JobRole.ABLATE, arm.n) if arm.run is None else (JobRole.TRAIN, arm.run)
    job = x.job_for(role, n)
    if job is None:
        return {"losses": [], "seconds": 0.0}
    rows = metrics_of(world.runner.folder(JobId(job.job_id)))
    losses = [number(row["loss"]) for row in rows if "loss" in row]
    kept = losses[:: max(1, len(losses) // CURVE_POINTS)]
    if losses and kept[-1] is not losses[-1]:
        kept.append(losses[-1])
    return {"losses": kept, "seconds": job.seconds}
