"""One training run: started with its check, diagnosed, reviewed on the lines it blames, and followed by one change."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import yaml

from bot.brain.playbook import Kind, Means, Remedy, settled
from bot.brain.search import Decision, Search, next_change
from bot.conversation import messages
from bot.conversation.github import InlineComment, StaleHead
from bot.conversation.policy import Policy
from bot.diagnosis import diagnose
from bot.domain.budget import remaining
from bot.domain.diagnosis import Diagnosis, DiagnosisReport, Severity, Symptom
from bot.domain.evaluation import Evaluation
from bot.domain.experiment import BASELINE, EventKind, Experiment, Job, JobRole, NewEvent, Run
from bot.domain.fold import foreseen
from bot.domain.goal import digest_of
from bot.domain.recipe import as_yaml, differences, line_with, recipe_hash, with_value
from bot.domain.redaction import redact
from bot.domain.scripts import with_data_scripts
from bot.loop.action import Action
from bot.loop.actions.card import experiment_card
from bot.loop.actions.generated import card_of, generated_rows, spoiled
from bot.loop.actions.jobs import is_gone, outputs_gone, status_of
from bot.loop.actions.lineage import lineage_of
from bot.loop.actions.planning import data_card, holdout_of, post_sticky, raw_result, result_of, score_of
from bot.loop.actions.scripts import keep_shipped, script_of
from bot.loop.actions.specs import base_model
from bot.loop.actions.traces import (
    collect_trace,
    committed_files,
    job_path,
    keep_files,
    metrics_of,
    number,
    output_json,
)
from bot.loop.judging import forgotten, holdout_events, judged, reached_run, unmeasured, wise
from bot.loop.models import describe_model, longest_sequence
from bot.loop.policy import arm_chosen, head_recipe_hash
from bot.loop.spending import allowance, data_key, remedy_waits, spend_of
from bot.loop.world import World
from runners.job import JobId


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


async def revise(world: World, x: Experiment, action: Action) -> list[NewEvent]:
    """Commit the remedy, with the results of the run that called for it."""
    run = x.runs[int(action.args["run"]) - 1]
    assert run.remedy is not None
    remedy = Remedy.from_dict(run.remedy)
    if remedy.kind is Kind.ABLATION:
        remedy = _chosen_arm(x, run, remedy)
    return await commit_remedy(world, x, remedy, why=remedy.why, by="postdoc")


def _chosen_arm(x: Experiment, run: Run, remedy: Remedy) -> Remedy:
    """The suspect that did best, as the change to make."""
    found = arm_chosen(x, run)
    assert found is not None, "decided only once there is one"
    ablation, arm, value = found
    why = (
        f"Of the suspects of ablation {ablation.n}, {ablation.key_of(arm)} {as_yaml(arm.value)} did best ({value:.3g})."
    )
    return replace(remedy, key=ablation.key_of(arm), value=arm.value, also={}, why=why)


async def commit_remedy(world: World, x: Experiment, remedy: Remedy, *, why: str, by: str) -> list[NewEvent]:
    """Commit a remedy on the head, with the scripts that it brings."""
    symptom = remedy.symptom if by == "postdoc" else ""
    stage = dict(remedy.stage) if remedy.stage is not None else None
    return await _commit_recipe(
        world, x, remedy.applied(x.recipe), why=why, by=by, symptom=symptom, stage=stage, scripts=remedy.scripts
    )


async def commit_change(
    world: World, x: Experiment, settings: dict[str, Any], *, why: str, by: str, symptom: str = ""
) -> list[NewEvent]:
    """Commit recipe settings on the head; results of reviewed runs travel along.

    When the branch has moved meanwhile, the answer is that move: it is read before anything else is decided.
    """
    text = x.recipe
    for key, value in settings.items():
        text = with_value(text, key, value)
    return await _commit_recipe(world, x, text, why=why, by=by, symptom=symptom)


async def _commit_recipe(
    world: World, x: Experiment, text: str, *, why: str, by: str, symptom: str = "",
    stage: dict[str, Any] | None = None, scripts: Mapping[str, str] | None = None,
) -> list[NewEvent]:  # fmt: skip
    last = x.run.recipe if x.run is not None else x.recipe
    changed = {k: list(pair) for k, pair in differences(yaml.safe_load(last) or {}, yaml.safe_load(text) or {}).items()}
    files: dict[str, bytes | None] = {f"{x.folder}/recipe.yaml": text.encode()}
    if stage is not None:
        for path, wanted in stage["digests"].items():
            if x.recipe_digests.get(path) != wanted:
                files[f"{x.folder}/{path}"] = await script_of(world, x, path, wanted, x.head_sha)
        files |= {f"{x.folder}/{path}": None for path in x.recipe_digests.keys() - stage["digests"].keys()}
    for path, wanted in (scripts or {}).items():
        files[f"{x.folder}/{path}"] = await script_of(world, x, path, wanted, x.head_sha)
    for run in x.runs:
        if run.reviewed:
            files |= committed_files(world, x, run)
    files |= {f"{x.folder}/README.md": experiment_card(world, x)} | await world.record_files(x)
    if card_of(x) is not None:
        files[f"{x.folder}/data/README.md"] = data_card(x, synthetic=card_of(x)).encode()
    reason, method = f"{symptom}: {why}" if symptom else why, stage["method"] if stage is not None else ""
    message = messages.commit_message(x, len(x.runs), changed, reason, method=method, scripts=sorted(scripts or ()))
    what = [x.head_sha, text, dict(scripts)] if scripts else [x.head_sha, text]
    key = f"{x.goal_id}/change/{digest_of(what)[:12]}"
    try:
        head = await world.repository(x).commit(
            x.branch, expected_head=x.head_sha, message=f"{message.headline}\n\n{message.body}", key=key, files=files
        )
    except StaleHead:
        actual = await world.repository(x).branch_head(x.branch)
        moved = {"head_sha": actual, "by": "someone"}
        return [NewEvent(EventKind.HEAD_MOVED, f"head/{actual}", moved)]
    data: dict[str, Any] = {"head_sha": head, "recipe": text, "changed": changed, "why": why, "by": by}
    if scripts:
        data["scripts"] = dict(scripts)
    if stage is not None:
        data["stage"] = {key: stage[key] for key in ("index", "agreed", "digests", "shipped_digests")}
    return [NewEvent(EventKind.REVISED, f"revised/{head}", data)]
