"""From a contract to a pull request: baseline, training data with its gates, the proposal, and consent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from bot.conversation import messages
from bot.conversation.issue_form import goal_yaml
from bot.conversation.policy import Policy
from bot.data.audit import Audit, audit
from bot.data.card import dataset_card
from bot.data.licences import GateResult
from bot.diagnosis import preflight
from bot.domain.evaluation import Evaluation
from bot.domain.experiment import BASELINE, EventKind, Experiment, Job, JobRole, NewEvent
from bot.domain.goal import DEFAULT_METHOD
from bot.domain.languages import shares_of
from bot.domain.methods import METHODS
from bot.domain.statistics import value_interval
from bot.errors import UserError
from bot.evaluation.benchmarks import held_out_items, split_sizes
from bot.loop.action import Action
from bot.loop.actions.card import experiment_card
from bot.loop.actions.contamination import contamination_of
from bot.loop.actions.contract import refuse
from bot.loop.actions.jobs import is_gone, outputs_gone, status_of
from bot.loop.actions.licensing import combination_of, forbidden, licences_of
from bot.loop.actions.lineage import gather_published
from bot.loop.actions.machines import machine_price
from bot.loop.actions.research import research_facts
from bot.loop.actions.scripts import script_of
from bot.loop.actions.specs import (
    base_model,
    goal_folder,
    kept_name,
    lines_without,
)
from bot.loop.actions.traces import EVALUATION, HOLDOUT, output, output_json
from bot.loop.hardware import hardware_facts, plan_words
from bot.loop.own_benchmark import benchmark_of
from bot.loop.spending import (
    consent_missing,
    data_key,
    estimated,
    estimated_run_hours,
    memory_unfit,
    next_run_hours,
    spend_of,
)
from bot.loop.thinking import with_candidate
from bot.loop.world import World
from runners.job import JobId

_ALSO: Mapping[str, tuple[tuple[str, ...], ...]] = {
    # What TRL's SFTTrainer takes beside prompt and completion, and what dpo.py makes its own pairs from.
    "sft": (("messages",), ("text",)),
    "dpo": (("prompt", "completion"), ("chosen", "rejected")),
    "reward": (("chosen", "rejected"),),
}
"""Method -> other columns that its rows may have."""


_MOST_COLUMN_LINES = 24


def load_result(folder: Path) -> Evaluation:
    """The evaluation a job wrote.

    Raises: UserError when the job left none.
    """
    data = output_json(folder, "out/evaluation.json")
    if data is None:
        raise UserError("the evaluation job ended without writing its result")
    return Evaluation.from_dict(data)


async def result_of(world: World, x: Experiment, job: Job | None) -> Evaluation:
    """The evaluation that an ended job wrote; without its texts where only what was kept of it is left.

    Raises: UserError when there is none.
    """
    if job is None:
        raise UserError("an evaluation that is needed was never made")
    if x.unjudged(job):
        raise UserError(f"the answers of {job.role} job `{job.job_id}` were not scored by `{x.pins['judge']}`")
    folder = world.runner.folder(JobId(job.job_id))
    if world.kept_file is not None and not folder.exists():
        kept = await raw_result(world, x, job)
        if kept is None:
            raise UserError(f"what {job.role} job `{job.job_id}` found is gone with the machine that it ran on")
        found = Evaluation.from_dict(kept)
    else:
        found = load_result(folder)
    known = [score for score in (x.baseline, *(run.score for run in x.runs)) if score is not None]
    if any(score.job_id == job.job_id and score.results not in ("", found.results_digest) for score in known):
        raise UserError(
            f"the results of job `{job.job_id}` are not those that were recorded when it ended: somebody has edited "
            "them, so nothing is compared with them"
        )
    return found


async def raw_result(world: World, x: Experiment, job: Job | None, path: str = EVALUATION) -> dict[str, Any] | None:
    """What the evaluator wrote to `path`, with what an `Evaluation` leaves out; None when it is not there."""
    if job is None:
        return None
    folder = world.runner.folder(JobId(job.job_id))
    if world.kept_file is not None and not folder.exists():
        name = kept_name(job.job_id, path)
        kept = await world.kept_file(x.goal_id, name)
        return json.loads(kept) if kept is not None else None
    return output_json(folder, path)


async def holdout_of(world: World, x: Experiment, run: int) -> Evaluation | None:
    """What the evaluator found on the holdout for a run; None without a holdout, or when its machine is gone."""
    found = await raw_result(world, x, x.job_for(JobRole.EVALUATE, run), HOLDOUT)
    return Evaluation.from_dict(found) if found is not None else None


def score_of(evaluation: Evaluation, job_id: str) -> dict[str, Any]:
    """The aggregate that the journal keeps: no benchmark text, no samples."""
    low, high = value_interval(evaluation)
    return {
        "value": evaluation.value,
        "standard_error": evaluation.standard_error,
        "n": evaluation.n,
        "ci_low": low,
        "ci_high": high,
        "split": evaluation.split,
        "harness_digest": evaluation.harness_digest,
        "job_id": job_id,
        "strict": evaluation.strict,
        "lenient": evaluation.lenient,
        "termination_rate": evaluation.termination_rate,
        "metric": evaluation.metric,
        "results": evaluation.results_digest,
        **({"few_shot": _with_interval(evaluation)} if evaluation.few_shot else {}),
    }


def _with_interval(evaluation: Evaluation) -> dict[str, Any]:
    """What the same model reached with examples before each prompt."""
    found = evaluation.few_shot or {}
    value, error, n = float(found["value"]), float(found["standard_error"]), int(found["n"])
    low, high = value_interval(replace(evaluation, value=value, standard_error=error, n=n, samples=()))
    return {"shots": found["shots"], "value": value, "standard_error": error, "n": n, "ci_low": low, "ci_high": high}


async def record_baseline(world: World, x: Experiment, action: Action) -> list[NewEvent]:
    """Note the untouched model's score; a target it already reaches is answered and nothing else happens."""
    assert x.goal is not None
    job = x.job_for(JobRole.BASELINE, BASELINE, action.args["goal_hash"])
    assert job is not None
    if not job.succeeded:
        tail = world.runner.log_tail(JobId(job.job_id), 5).strip().splitlines()[-1:]
        raise UserError(f"the base model could not be evaluated ({status_of(job).get('failure')}: {' '.join(tail)})")
    evaluation = await result_of(world, x, job)
    key = f"baseline/{x.contract_version}/{action.args['goal_hash']}"
    splits = await asyncio.to_thread(split_sizes, await benchmark_of(world, x), _seed(x))
    data = {"score": score_of(evaluation, job.job_id), "splits": splits}
    events = [NewEvent(EventKind.BASELINE_RECORDED, key, data)]
    if x.goal.reached(evaluation.value):
        side, other = ("above", "higher") if x.goal.measure.higher_is_better else ("below", "lower")
        reason = (
            f"The target {x.goal.said_target} is not {side} what `{x.goal.base_model}` reaches untouched: "
            f"{x.goal.measure.said(evaluation.value)} on {evaluation.n} items. Edit the issue and write a {other} "
            "target."
        )
        events.append(await refuse(world, x, reason))
    return events


async def check_data(world: World, x: Experiment, action: Action) -> list[NewEvent]:
    """Pass the built training set through its gates: was it built, is its licence known, is it free of test items."""
    proposed = action.args.get("thought") is not None
    x = with_candidate(x, action.args.get("thought"))
    key = str(action.args["data_key"])
    job = x.job_for(JobRole.DATA, int(action.args["run"]), key)
    assert job is not None
    found: dict[str, Any] = {"data_key": key, "job_id": job.job_id}
    # The same rows are looked at again for another goal, and for a text that has been read again.
    name = f"data/{key}/{x.contract_version}/{x.goal.hash if x.goal else ''}"
    if any(each.gone for each in x.jobs.values()):
        name += f"/{job.job_id}"  # built once more, so found once more
    if job.succeeded and is_gone(world, job):
        return [outputs_gone(job)]
    if not job.succeeded:
        tail = world.runner.log_tail(JobId(job.job_id), 20).strip()
        found["build_failed"] = tail.splitlines()[-1] if tail else "the build wrote nothing"
        events = [NewEvent(EventKind.DATA_CHECKED, name, found)]
        if x.pull_request is None and (question := messages.column_question(found["build_failed"])) is not None:
            events.append(await refuse(world, x, question, question=True))
        return events
    folder = world.runner.folder(JobId(job.job_id))
    benchmark = await benchmark_of(world, x)
    held_out = await asyncio.to_thread(held_out_items, benchmark, _seed(x))
    content = output(folder, "data/train.jsonl") or b""
    rows, validation = _rows(content), _rows(output(folder, "data/validation.jsonl") or b"")
    if not rows or validation is None:
        which = "train.jsonl" if not rows else "validation.jsonl"
        found["build_failed"] = f"data/prepare.py left no {which} whose every line is a JSON object"
        return [NewEvent(EventKind.DATA_CHECKED, name, found)]
    if (problem := rows_problem(x.recipe, rows)) is not None:
        found["build_failed"] = problem
        return [NewEvent(EventKind.DATA_CHECKED, name, found)]
    contamination = await contamination_of(world, x, rows, validation, held_out)
    facts = contamination.as_facts()
    rows = [row for number, row in enumerate(rows) if number not in facts.get("dropped_rows", ())]
    content = lines_without(content, facts.get("dropped_rows", ()))
    licences = await licences_of(world, x)
    together = combination_of(x, licences)
    hardware = await hardware_facts(
        world.runner,
        await base_model(world, x),
        rows,
        memory_cap_gib=world.train_memory_gib,
        cores=world.cpu_threads,
        wanted=world.hardware,
    )
    found |= {
        "hardware": hardware,
        "audit_first": await _costs_something(world, x),
        "build": _build_without(output_json(folder, "data/build.json") or {}, len(facts.get("dropped_rows", ()))),
        **facts,
        "audit": (await asyncio.to_thread(audit, rows, max_length_of(x.recipe))).as_dict(),
        "warnings": await asyncio.to_thread(_warnings, world, x, key, content),
        "licences": {
            name: {"found": each.identifier, "ok": gate.ok, "reason": gate.reason, "cautions": list(gate.cautions),
                   "part": str(each.part)}
            for name, (each, gate) in licences.items()
        },
        "combination": together.as_dict(),
        "asked_in": shares_of(f"{item.prompt} {item.reference}" for item in held_out),
    }  # fmt: skip
    found["blocked"] = (
        contamination.blocked or _refused([gate for _, gate in licences.values()]) or forbidden(together, licences)
    )
    events = [NewEvent(EventKind.DATA_CHECKED, name, found)]
    if found["blocked"] and x.pull_request is None and not proposed:
        events.append(await refuse(world, x, found["blocked"]))
    return events


async def _costs_something(world: World, x: Experiment) -> bool:
    """Whether training asks for a GPU or for money: a run that cannot learn is then found out elsewhere first."""
    return bool(world.hardware.gpus or Policy.from_dict(x.policy).usd_per_hour or await machine_price(world))


def _rows(content: bytes) -> list[dict[str, Any]] | None:
    """Of JSON lines; None when a line is no JSON object."""
    try:
        rows = [json.loads(line) for line in content.decode().split("\n") if line]
    except ValueError:
        return None
    return rows if all(isinstance(row, dict) for row in rows) else None


def _build_without(build: dict[str, Any], dropped: int) -> dict[str, Any]:
    """What the build says of itself, when rows were left out after it."""
    if not dropped:
        return build
    reasons = {**build.get("dropped", {}), "hold evaluation items": dropped}
    return {**build, "rows": build.get("rows", dropped) - dropped, "dropped": reasons}


def rows_problem(recipe: str, rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Why the built rows are none that the recipe's method trains on; None when they are."""
    method = METHODS.get(str((yaml.safe_load(recipe) or {}).get("method") or DEFAULT_METHOD).lower())
    if method is None:
        return None  # the script has the word
    for form in (method.columns, *_ALSO.get(method.name, ())):
        if all(set(form) <= row.keys() for row in rows):
            return None
    number, row = next((n, row) for n, row in enumerate(rows, 1) if not set(method.columns) <= row.keys())
    missing = [column for column in method.columns if column not in row]
    return (
        f"row {number} of data/train.jsonl has the columns {', '.join(sorted(row)) or 'none'} and lacks "
        f"{', '.join(missing)}; {method.title} needs {', '.join(method.columns)}"
    )


def _warnings(world: World, x: Experiment, key: str, content: bytes) -> list[str]:
    """What the engine sees in the rows before a step is trained. It is said; the recipe still runs as agreed."""
    inputs = goal_folder(world, x) / "inputs" / key
    (inputs / "train.jsonl").write_bytes(content)
    return [diagnosis.cause for diagnosis in preflight(inputs).diagnoses]


def _refused(gates: Sequence[GateResult]) -> str | None:
    """The first licence's reason against training; None when all of them allow it."""
    return next((f"{gate.reason} {gate.advice}".strip() for gate in gates if not gate.ok), None)


async def propose(world: World, x: Experiment, action: Action) -> list[NewEvent]:
    """Open the pull request with the experiment's folder, and its sticky comment."""
    assert x.goal is not None
    repository = world.repository(x)
    base, base_sha = await repository.default_branch()
    key = f"{x.goal_id}/propose"
    branch_head = await repository.create_branch(x.branch, base_sha)
    published = await gather_published(world, x)
    facts = plan_facts(world, x) | {
        "published": list(published.names),
        "published_problem": published.problem,
        "research": await research_facts(world, x),
    }
    plan = {"facts": facts, "base": base, "base_sha": base_sha}
    x.plan = plan
    files = await _first_files(world, x) | await world.record_files(x)
    message = messages.proposal_message(x)
    head = await repository.commit(
        x.branch, expected_head=branch_head, message=f"{message.headline}\n\n{message.body}", key=key, files=files
    )
    number = await repository.open_pull_request(
        branch=x.branch, base=base, title=messages.pull_request_title(x),
        body=messages.pull_request_body(x, messages.PlanFacts(**facts)), draft=True,
    )  # fmt: skip
    x.pull_request, x.head_sha = number, head
    sticky = await post_sticky(world, x)
    proposed = {"pull_request": number, "head_sha": head, "sticky_comment_id": sticky}
    return [
        NewEvent(EventKind.PLANNED, "planned", plan),
        NewEvent(EventKind.PROPOSED, "proposed", proposed),
    ]


def plan_facts(world: World, x: Experiment) -> dict[str, Any]:
    """`messages.PlanFacts` as plain data, from what the gates found."""
    timed, price = next_run_hours(x), Policy.from_dict(x.policy).usd_per_hour
    hardware, too_large = estimated(x), memory_unfit(x)
    hours = timed if timed is not None else estimated_run_hours(x)
    if hardware is not None and hardware.here.flavor.usd_per_hour is not None:
        price = hardware.here.flavor.usd_per_hour
    checked = x.data.get(data_key(x.recipe, x.recipe_digests), {})
    build, found = checked.get("build", {}), checked.get("scan", {})
    licences = checked.get("licences", {})
    data_licences = [gate["found"] or "unknown" for gate in licences.values() if gate.get("part", "data") == "data"]
    together = checked.get("combination", {})
    return {
        "recipe_source": x.recipe_source,
        "machine": world.machine,
        "method": ", ".join(x.goal.stages) if x.goal else DEFAULT_METHOD,
        "rows": build.get("rows"),
        "validation_rows": build.get("validation_rows"),
        "dropped": build.get("dropped", {}),
        "licence": ", ".join(data_licences) or None,
        "licence_verdict": together.get("reason", ""),
        "licence_duties": list(together.get("duties", ())),
        "columns": columns_read(build),
        "scan_verdict": found.get("verdict"),
        "scan_flagged": len(found.get("flagged", ())),
        "scan_rows": found.get("rows"),
        "scan_dropped": found.get("dropped", 0),
        "memory": plan_words(hardware) if hardware is not None else "",
        "warnings": [*([too_large.diagnosis.cause] if too_large is not None else ()), *checked.get("warnings", ())],
        "quality": quality_lines(checked.get("audit")),
        "estimated": timed is None and hours is not None,
        "seconds_per_run": None if hours is None else hours * 3600,
        "usd_per_run": (None if hours is None else hours * price) if price else 0.0,
        "consent": _consent_words(x),
    }


def max_length_of(recipe: str) -> int | None:
    """Tokens at which the recipe cuts a row; None where it says nothing that is a number."""
    value = (yaml.safe_load(recipe) or {}).get("max_length")
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def quality_lines(found: Mapping[str, Any] | None) -> list[str]:
    """What the audit gives reason to keep, leave out or refuse: a line for each."""
    if not found:
        return []
    return [f"{one.action}: {one.reason}" for one in Audit.from_dict(found).verdicts()]


def columns_read(build: Mapping[str, Any]) -> list[str]:
    """How rows were made from columns with the evidence, and what was left out: a line for each."""
    mappings = [each for each in build.get("mappings", ()) if each.get("uses")]
    lines = []
    for each in mappings:
        lines += [f"{use['role']} = {use['expression']}: {use['evidence']}" for use in each["uses"]]
        lines += each.get("notes", ())
    return lines[:_MOST_COLUMN_LINES]


def _consent_words(x: Experiment) -> str:
    if x.pull_request is None:
        return ""  # who agrees is decided after the proposal
    waits = consent_missing(x, keys=tuple(x.changed))
    if waits is None:
        assert x.consent is not None
        return f"Agreed by `{x.consent['by']}` at {messages.short(x.consent['head_sha'])}."
    return f"It waits for consent: {waits}."


async def _first_files(world: World, x: Experiment) -> dict[str, bytes | None]:
    assert x.goal is not None
    files: dict[str, bytes | None] = {
        "goal.yaml": goal_yaml(x.goal).encode(),
        "recipe.yaml": x.recipe.encode(),
        **{path: await script_of(world, x, path, wanted, "") for path, wanted in x.recipe_digests.items()},
        "data/README.md": data_card(x).encode(),
        "README.md": experiment_card(world, x),
    }
    return {f"{x.folder}/{path}": content for path, content in files.items()}


def data_card(x: Experiment, *, synthetic: Mapping[str, Any] | None = None) -> str:
    """The dataset card of the head's training set, and of what a run made beside it."""
    checked = x.data.get(data_key(x.recipe, x.recipe_digests), {})
    licences = [gate["found"] for gate in checked.get("licences", {}).values() if gate.get("part", "data") == "data"]
    title = f"Training data of {x.folder}"
    return dataset_card(
        checked.get("build", {}), scan=checked.get("scan"), audit=checked.get("audit"), title=title,
        licence=licences[0] if len(licences) == 1 else None, synthetic=synthetic, asked_in=checked.get("asked_in"),
    )  # fmt: skip


async def post_sticky(world: World, x: Experiment, next_step: str = "") -> int:
    """Create or edit the one comment that always says how things stand."""
    assert x.pull_request is not None
    body = messages.sticky(x, next_step, spent_usd=spend_of(x).usd)
    key = messages.hidden_key(x.goal_id, "sticky")
    return await world.repository(x).upsert_comment(x.pull_request, key, body, known_id=x.sticky_comment_id)


def _seed(x: Experiment) -> int:
    assert x.goal is not None
    return x.goal.seed
