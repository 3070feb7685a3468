"""What an ended run was worth, what went wrong in it, and what is to follow it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import yaml

from bot.brain.playbook import Means, Remedy
from bot.brain.search import Decision, Search, next_change
from bot.conversation import messages
from bot.conversation.policy import Policy
from bot.diagnosis import diagnose
from bot.domain.budget import remaining
from bot.domain.diagnosis import Diagnosis, DiagnosisReport, Severity, Symptom
from bot.domain.evaluation import Evaluation
from bot.domain.experiment import BASELINE, EventKind, Experiment, Job, JobRole, NewEvent, Run
from bot.domain.fold import foreseen
from bot.domain.goal import digest_of
from bot.domain.recipe import recipe_hash
from bot.domain.redaction import redact
from bot.domain.scripts import with_data_scripts
from bot.loop.action import Action
from bot.loop.actions.generated import generated_rows, spoiled
from bot.loop.actions.jobs import is_gone, outputs_gone, status_of
from bot.loop.actions.lineage import lineage_of
from bot.loop.actions.planning import holdout_of, raw_result, result_of, score_of
from bot.loop.actions.scripts import keep_shipped
from bot.loop.actions.specs import base_model
from bot.loop.actions.traces import collect_trace
from bot.loop.judging import forgotten, holdout_events, judged, reached_run, unmeasured, wise
from bot.loop.models import describe_model, longest_sequence
from bot.loop.spending import allowance, data_key, spend_of
from bot.loop.world import World
from runners.job import JobId


async def diagnose_run(world: World, x: Experiment, action: Action) -> list[NewEvent]:
    """Compare with the baseline and the best so far on the same items, name what went wrong and what to change."""
    run = x.runs[int(action.args["run"]) - 1]
    train, evaluate = x.job_for(JobRole.TRAIN, run.n), x.job_for(JobRole.EVALUATE, run.n)
    if train is not None and not train.blameless and is_gone(world, train):
        return [outputs_gone(train)]  # without its curves nothing would be found, and that would pass for healthy
    trace = await asyncio.to_thread(collect_trace, world, x, run)
    report = await asyncio.to_thread(diagnose, trace)
    if train is not None and train.stopped is not None:
        report = _with_monitors(report, train.stopped)
    found: dict[str, Any] = {"run": run.n, "score": None, "verdict": None, "against_baseline": None,
                             "against_best": None, "failure": _failure(world, x, run)}  # fmt: skip
    if train is not None and train.succeeded and evaluate is not None and evaluate.succeeded:
        result = await result_of(world, x, evaluate)
        if (no_number := unmeasured(result)) is not None:
            found["failure"] = no_number
        else:
            found |= await _measured(world, x, result, evaluate)
    blame = None
    if train is not None and train.succeeded:
        facts, blame = await generated_rows(world, x, run)
        found["generated"] = facts
        if facts is not None and blame is not None:
            report = replace(report, diagnoses=(blame, *report.diagnoses))
            nothing = dict.fromkeys(("score", "verdict", "against_baseline", "against_best"))
            found |= nothing | {"failure": spoiled(facts)}
        found |= await _with_lineage(world, x, run)
    found |= {"report": report.as_dict(), "remedy": None}
    key = f"run/{run.n}/diagnosed"
    asked = await _ask_holdout(world, foreseen(x, [NewEvent(EventKind.DIAGNOSED, key, found)], world.clock()), run)
    after = foreseen(x, [*asked, NewEvent(EventKind.DIAGNOSED, key, found)], world.clock())
    decision = await _decided(world, after)
    if blame is not None or (train is not None and train.refused):
        decision = _only_what_helps(decision, report)
    decision = _scripts_back(after, decision)
    found |= {"remedy": decision.remedy.as_dict() if decision.remedy else None, "kept": decision.kept}
    if decision.remedy is None and decision.stuck:
        found["stuck"] = decision.stuck
    proposer = world.proposer(Policy.from_dict(x.policy))
    if proposer is not None and _is_open(after, decision):
        found["brain"] = proposer
    return [*asked, NewEvent(EventKind.DIAGNOSED, key, found)]


async def _measured(world: World, x: Experiment, result: Evaluation, evaluate: Job) -> dict[str, Any]:
    """What an evaluated run's DIAGNOSED says of its result: the score, its verdicts, and what the model forgot."""
    best, baseline = x.best_run, x.job_for(JobRole.BASELINE, BASELINE)
    rival = (best.n, await result_of(world, x, x.job_for(JobRole.EVALUATE, best.n))) if best is not None else None
    found: dict[str, Any] = {"score": score_of(result, evaluate.job_id)}
    found |= judged(x, result, await result_of(world, x, baseline), rival)
    found["forgetting"] = forgotten(await raw_result(world, x, baseline), await raw_result(world, x, evaluate))
    return found


def _scripts_back(x: Experiment, decision: Decision) -> Decision:
    """After a crash of a script that the language model rewrote: the scripts of the run before, with the change that
    the playbook would have made there. Its rules know recipes alone, so they would go on with the broken script."""
    run = x.run
    if run is None or run.failure is None or run.changed_by != "postdoc" or not (paths := x.rewritten_in(run)):
        return decision
    before, thought = x.runs[run.n - 2], x.thought_on(run.n - 1)
    if thought is None or not thought.instead_of:
        return decision
    remedy = Remedy.from_dict(thought.instead_of)
    if remedy.stage is not None or remedy.arms:
        return decision
    scripts = {path: before.digests[path] for path in paths if path in before.digests}
    back = replace(
        remedy, base=before.n, recipe=remedy.recipe or before.recipe, probe=False, rates=(), scripts=scripts,
        why=f"Back to the scripts of run {before.n}. {remedy.why}",
    )  # fmt: skip
    values = yaml.safe_load(back.applied(before.recipe)) or {}
    if recipe_hash(values, script_digest=digest_of(before.digests)) in x.tried:
        return decision
    return decision._replace(remedy=back, stuck="")


def _is_open(after: Experiment, decision: Decision) -> bool:
    """Whether somebody else than the playbook may say what comes next: a change is due, there is a run for it, and it
    is not the goal's own next method."""
    due = decision.remedy is not None or bool(decision.stuck)
    staged = decision.remedy is not None and decision.remedy.stage is not None
    return due and not staged and remaining(after.ceilings, spend_of(after)).runs > 0


async def _ask_holdout(world: World, after: Experiment, run: Run) -> list[NewEvent]:
    """Hold a run that reaches the target on dev, as `after` has it, against the holdout; what the Ladder answers is all
    that is ever told of it. Nothing where another run is the better one, or the benchmark has no holdout."""
    reached = reached_run(after)
    if reached is None or reached.n != run.n:
        return []
    asked = await holdout_of(world, after, run.n)
    if asked is None:
        return []
    before = await holdout_of(world, after, after.rung.run) if after.rung is not None else None
    return holdout_events(after, run.n, asked, before)


async def _with_lineage(world: World, x: Experiment, run: Run) -> dict[str, Any]:
    """What the run's lineage adds to its DIAGNOSED, or takes away: weights of another origin have no value here."""
    lineage = await lineage_of(world, x, JobRole.TRAIN, run.n, run.recipe)
    found = messages.known_lineage(lineage)
    if found is None or found.verdict.counts:
        return {"lineage": lineage}
    nothing = {"score": None, "verdict": None, "against_baseline": None, "against_best": None}
    return {"lineage": lineage, "failure": messages.lineage_failure(found)} | nothing


async def _decided(world: World, x: Experiment) -> Decision:
    """What follows the run that has just been diagnosed, as `x` will be with that."""
    assert x.goal is not None
    reached = reached_run(x)
    if reached is not None and wise(x, reached):
        return Decision(None)  # the sealed test comes next
    base = await base_model(world, x)
    family, parameters = await asyncio.to_thread(describe_model, base)
    means = Means(
        remaining(x.ceilings, spend_of(x)).runs, family, parameters or None,
        covered=frozenset(x.consent["envelope"]["keys"]) if x.consent is not None else None,
        positions=await asyncio.to_thread(longest_sequence, base),
        seconds=3600 * allowance(x, JobRole.TRAIN, x.last_at).gpu_hours,
    )  # fmt: skip
    decision = next_change(x, means, Search(world.search))
    if decision.remedy is None or decision.remedy.stage is None:
        return decision
    return decision._replace(remedy=_with_scripts(world, x, decision.remedy))


def _only_what_helps(decision: Decision, report: DiagnosisReport) -> Decision:
    """After a run that was never started, or whose own rows spoiled it, another is tried only where it mends that."""
    fatal = [each.symptom for each in report.diagnoses if each.severity is Severity.FATAL]
    if not fatal or (decision.remedy is not None and decision.remedy.symptom in fatal):
        return decision
    stuck = f"`{fatal[0]}` stands in the way of every run with these rows, and no change of the recipe mends it"
    return decision._replace(remedy=None, stuck=stuck)


def _with_scripts(world: World, x: Experiment, remedy: Remedy) -> Remedy:
    """The remedy that changes the stage, with the scripts that it brings; the data is built as before."""
    assert remedy.stage is not None
    shipped = keep_shipped(world, remedy.stage["method"])
    stage = {
        **remedy.stage,
        "digests": with_data_scripts(shipped, x.recipe_digests),
        "shipped_digests": with_data_scripts(shipped, x.shipped_digests),
    }
    return replace(remedy, stage=stage)


def _with_monitors(report: DiagnosisReport, stopped: Mapping[str, Any]) -> DiagnosisReport:
    """What the run was ended for comes first, whether or not its end shows it once more."""
    ended_for = tuple(Diagnosis.from_dict(each) for each in stopped["diagnoses"])
    if not report.healthy:
        # What could not be named while it ran is named by now.
        ended_for = tuple(each for each in ended_for if each.symptom is not Symptom.UNKNOWN)
    named = {each.symptom for each in ended_for}
    again = {each.symptom: each for each in report.diagnoses}
    first = tuple(again.get(each.symptom, each) for each in ended_for)
    return replace(report, diagnoses=first + tuple(each for each in report.diagnoses if each.symptom not in named))


def _failure(world: World, x: Experiment, run: Run) -> str | None:
    """One sentence on the job that failed, None when none did."""
    checked = x.data.get(data_key(run.recipe, run.digests), {})
    if checked.get("build_failed"):
        return f"The training data could not be built: {checked['build_failed']}"
    for role in (JobRole.TRAIN, JobRole.EVALUATE):
        job = x.job_for(role, run.n)
        if job is not None and job.stopped is not None:
            return messages.stopped_sentence(job.stopped)
        if job is not None and not job.succeeded:
            status = status_of(job)
            tail = redact(world.runner.log_tail(JobId(job.job_id), 3), world.known_secrets).strip().splitlines()[-1:]
            what = f"{status.get('failure') or status.get('state')}, exit code {status.get('exit_code')}"
            return f"The {role} job failed ({what}): {' '.join(tail)[:300]}"
    if any(job.gone for job in x.jobs.values()) and x.job_for(JobRole.TRAIN, run.n) is None:
        return "The training data are gone with the machine that built them, and the recipe asks for others now."
    return None
