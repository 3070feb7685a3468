"""Mends faulty runs: by the policy that the loop follows, and by random edits at as many tries.

A run is repaired when its score is within noise of its control's and its label is gone; that score is what its goal
asks for. Only faults that a recipe can
undo are tried: nobody's recipe repairs a broken evaluator, a full disk or answers that were shuffled in the source. So
the control's own recipe is tried first wherever more than the recipe differs, and where that does not help the fault is
left out. A person agrees at once to what waits for one, and one run follows the other: an ablation's arms are tried as
runs of their own.
"""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from bot.brain.playbook import Means, after_probe
from bot.brain.search import next_change
from bot.diagnosis import diagnosis_of, read_folder
from bot.domain.diagnosis import DiagnosisReport, Severity
from bot.domain.experiment import Experiment, Job, JobRole, Run, Score
from bot.domain.goal import Budget, Goal, GoalId, digest_of
from bot.domain.recipe import differences, recipe_hash, with_value
from bot.errors import PlatformError
from bot.zoo.faults import FAULTS
from bot.zoo.job_folder import recipe_text
from bot.zoo.judging import LEAST_HARM, verdict
from bot.zoo.plan import FAULT, Case
from bot.zoo.progress import Progress, side_by_side
from bot.zoo.running import Keeper, Outcome
from bot.zoo.scoring import interval, share
from bot.zoo.specimen import DEV_ITEMS, Json, Specimen
from bot.zoo.traces import Trace, trace_of

if TYPE_CHECKING:
    from bot.zoo.making import Making

RECORD = "repairs.jsonl"
TRIES = 3
CONTROL_RECIPE, PLAYBOOK, RANDOM = "control", "playbook", "random"
BASE = "postdoc/tiny-qwen3"


@dataclass(slots=True)
class Attempt:
    changes: Json
    value: float | None
    state: str
    repaired: bool

    def as_dict(self) -> Json:
        return {"changes": self.changes, "value": self.value, "state": self.state, "repaired": self.repaired}


@dataclass(slots=True)
class Patient:
    """A faulty run and what was tried on it."""

    case: Case
    control: Outcome
    labels: tuple[str, ...]
    x: Experiment
    """The same as the loop would tell it: the faulty run is its first."""
    attempts: list[Attempt] = field(default_factory=list)
    arms: list[tuple[str, Any]] = field(default_factory=list)
    """Of an ablation, still to be tried."""

    @property
    def target(self) -> float:
        assert self.x.goal is not None
        return self.x.goal.target

    @property
    def text(self) -> str:
        """Of the latest recipe."""
        return self.x.runs[-1].recipe


def mend(
    making: Making,
    cases: Sequence[Case],
    say: Callable[[str], None],
    *,
    budget_minutes: float | None = None,
    workers: int = 1,
) -> None:
    """Try to repair every faulty run of the making that counts; goes on where it was stopped."""
    tried = repairs_of(making.folder)
    done = {name for name, of in tried.items() if of.get(CONTROL_RECIPE) == 0 or of.keys() >= {PLAYBOOK, RANDOM}}
    wanted = [case for case in cases if case.name not in done and _counts(making, case)]
    if not wanted:
        return
    progress = Progress(len(wanted), budget_minutes, workers, say)
    with Keeper(making.folder / "cache") as keeper:
        side_by_side(workers, [partial(_mend_one, keeper, making, case, progress) for case in wanted])
    if progress.left_out:
        say(f"stopped at {budget_minutes:g} minutes with {progress.left_out} repairs to go")


def _mend_one(keeper: Keeper, making: Making, case: Case, progress: Progress) -> None:
    if not progress.may_begin():
        return
    done = {entry["policy"]: entry["attempts"] for entry in records(making.folder) if entry["name"] == case.name}
    told = []
    for policy in (CONTROL_RECIPE, PLAYBOOK, RANDOM):
        if policy not in done:
            try:
                attempts = repaired(keeper, making, case, policy)
            except PlatformError as error:
                progress.tell(f"repair of {case.description} by {policy}: could not be tried: {error}")
                return
            done[policy] = [attempt.as_dict() for attempt in attempts]
            entry = {"name": case.name, "policy": policy, "attempts": done[policy]}
            with making.writing, (making.folder / RECORD).open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        tries = _tries(done[policy])
        told.append(f"{policy} {f'after {tries}' if tries else 'not'}")
        if policy == CONTROL_RECIPE and not tries:
            break  # no recipe undoes it
    progress.tell(f"repair of {case.description}: {', '.join(told)}")


def _counts(making: Making, case: Case) -> bool:
    """The fault counts, and is a difference between two recipes at least."""
    if case.kind != FAULT or case.name not in making.done:
        return False
    control = making.done.get(case.control().name)
    changed = differences(case.control().specimen().recipe, case.specimen().recipe)
    apart = bool(changed.keys() - {"init_from"})
    return control is not None and apart and verdict(case, making.done[case.name], control).kept


def repaired(keeper: Keeper, making: Making, case: Case, policy: str) -> list[Attempt]:
    """Up to TRIES runs, each with one change more (playbook) or one other change (random); or one, by the control's
    recipe."""
    patient = _admitted(making, case)
    rng = random.Random(f"edits/{case.name}")
    original = patient.text
    for number in range(1, 2 if policy == CONTROL_RECIPE else TRIES + 1):
        if policy == PLAYBOOK:
            text = _by_playbook(keeper, making.folder / "work", patient)
        else:
            text = drawn(patient, original, rng) if policy == RANDOM else recipe_text(case.control().specimen().recipe)
        if text is None:
            break
        attempt = _tried(keeper, making.folder / "work", patient, text, policy, number)
        patient.attempts.append(attempt)
        if attempt.repaired:
            break
    return patient.attempts


def _admitted(making: Making, case: Case) -> Patient:
    specimen, control = case.specimen(), making.done[case.control().name]
    assert control.value is not None
    benchmark, target = f"practice/{specimen.task}", within_noise(control.value, control.value)
    text = recipe_text(specimen.recipe)
    goal = Goal(
        title="Repair", base_model=BASE, benchmark=benchmark, target=target, method=specimen.method, recipe=text,
        budget=Budget(runs=TRIES + 1),
    )  # fmt: skip
    x = Experiment(GoalId("zoo/repairs#1"), is_goal=True, goal=goal, recipe=text, recipe_digests={"train.py": "ours"})
    x.shipped_digests = dict(x.recipe_digests)
    patient = Patient(case, control, FAULTS[case.faults[0]].labels, x)
    _noted(patient, text, making.done[case.name], _diagnosed(patient, making.folder / "raw" / case.name))
    return patient


def _diagnosed(patient: Patient, folder: Path) -> DiagnosisReport:
    """Of the run whose trace this is, with the goal of the repair in place of the one that the run was told."""
    observations = read_folder(folder)
    told = {"benchmark": f"practice/{patient.case.specimen().task}", "metric": "exact_match"}
    return diagnosis_of(replace(observations, goal=told | {"target": patient.target}))


def _noted(patient: Patient, text: str, outcome: Outcome, report: DiagnosisReport) -> None:
    """A run that has ended, as the journal would have it."""
    x, values = patient.x, yaml.safe_load(text)
    before = yaml.safe_load(x.runs[-1].recipe) if x.runs else values
    run = Run(
        len(x.runs) + 1, text, recipe_hash(values, script_digest=digest_of(x.recipe_digests)), "0" * 40,
        method=str(values["method"]), digests=dict(x.recipe_digests), report=report, diagnosed=True,
        changed={key: list(pair) for key, pair in differences(before, values).items()},
        changed_by="postdoc" if x.runs else "",
    )  # fmt: skip
    if outcome.value is None:
        run.failure = "The train job failed."
    else:
        noise = 1.96 * math.sqrt(outcome.value * (1 - outcome.value) / outcome.n)
        low, high = max(0.0, outcome.value - noise), min(1.0, outcome.value + noise)
        run.score = Score(outcome.value, noise / 1.96, outcome.n, low, high, "dev", "zoo")
    x.runs.append(run)
    x.recipe = text
    x.tried[run.recipe_hash] = run.n


def _by_playbook(keeper: Keeper, work: Path, patient: Patient) -> str | None:
    """The recipe that the loop would train next; None where it would ask for more than a recipe, or end."""
    x = patient.x
    if patient.arms:
        return with_value(patient.text, *patient.arms.pop(0))
    remedy = next_change(x, Means(TRIES + 1 - len(x.runs), "qwen3", None, frozenset({"*"}))).remedy
    if remedy is None or remedy.stage is not None:
        return None
    if remedy.arms:
        first, *patient.arms = remedy.arms
        x.runs[-1].remedy = remedy.as_dict()
        return with_value(remedy.recipe or patient.text, *first)
    if remedy.probe:
        specimen = patient.case.specimen()
        specimen.recipe = yaml.safe_load(patient.text)
        place = work / f"{patient.case.name}-probe"
        shutil.rmtree(place, ignore_errors=True)
        remedy = after_probe(remedy, keeper.probe(specimen, place, remedy.rates))
        shutil.rmtree(place, ignore_errors=True)
        x.jobs[f"probe-{len(x.runs)}"] = Job(f"probe-{len(x.runs)}", JobRole.PROBE, len(x.runs))  # one is enough
    x.runs[-1].remedy = remedy.as_dict()
    return remedy.applied(patient.text)


def _tried(keeper: Keeper, work: Path, patient: Patient, text: str, policy: str, number: int) -> Attempt:
    before = yaml.safe_load(patient.text)
    specimen: Specimen = patient.case.specimen()
    specimen.recipe = yaml.safe_load(text)
    changed = {key: new for key, (_, new) in differences(before, specimen.recipe).items()}
    place = work / f"{patient.case.name}-{policy}-{number}"
    shutil.rmtree(place, ignore_errors=True)
    outcome = keeper.run(specimen, place)
    trace = trace_of(specimen, outcome, place, patient.case.name)
    shutil.rmtree(place)
    shown = trace.write(work / f"{patient.case.name}-{policy}-trace")
    report = _diagnosed(patient, shown)
    shutil.rmtree(shown)
    _noted(patient, text, outcome, report)
    return Attempt(changed, outcome.value, outcome.state, is_repaired(patient, outcome, report))


def is_repaired(patient: Patient, outcome: Outcome, report: DiagnosisReport) -> bool:
    """The score is within noise of the control's, and the diagnosis no longer names the fault."""
    if outcome.value is None or patient.control.value is None:
        return False
    said = {str(found.symptom) for found in report.diagnoses if found.severity is not Severity.ADVICE}
    lowest = within_noise(patient.control.value, outcome.value)
    return outcome.value >= lowest and not said.intersection(patient.labels)


def within_noise(control: float, value: float) -> float:
    """The least score that is not told from the control's, where one of `value` was measured."""
    noise = 1.96 * math.sqrt((control * (1 - control) + value * (1 - value)) / DEV_ITEMS)
    return round(control - max(LEAST_HARM, noise), 4)


# --- Random edits -----------------------------------------------------------------------------------------------------

CHOICES: Mapping[str, tuple[Any, ...]] = {
    "lr_scheduler_type": ("constant", "linear", "cosine"), "lora_target_modules": ("all-linear", "q_proj"),
    "optim": ("adamw_torch", "sgd"), "dtype": ("float32", "bfloat16"), "loss_type": ("sigmoid", "ipo"),
    "max_grad_norm": (0.1, 1.0, 10.0), "warmup_steps": (0, 5, 20), "packing_strategy": ("bfd", "wrapped"),
    "temperature": (0.3, 0.7, 1.0), "beta": (0.0, 0.01, 0.1),
}  # fmt: skip
FACTORS: Mapping[str, tuple[float, ...]] = {
    "learning_rate": (0.001, 0.01, 0.1, 0.3, 3, 10, 100, 1000), "max_steps": (0.5, 2), "num_train_epochs": (0.5, 2),
    "per_device_train_batch_size": (0.25, 0.5, 2), "max_length": (0.5, 2, 4), "lora_r": (0.5, 2, 4),
    "max_completion_length": (0.5, 2, 4), "data_max_rows": (0.5, 2, 4), "save_steps": (0.5, 2),
    "data_validation_rows": (0.5, 2),
}  # fmt: skip


def drawn(patient: Patient, original: str, rng: random.Random) -> str:
    """Another edit than those that were tried."""
    tried = [yaml.safe_load(run.recipe) for run in patient.x.runs]
    while yaml.safe_load(text := randomly_edited(original, rng)) in tried:
        pass
    return text


def randomly_edited(text: str, rng: random.Random) -> str:
    """One key of the recipe with another value of its kind."""
    recipe: Json = yaml.safe_load(text)
    able = [key for key, value in recipe.items() if key in CHOICES or key in FACTORS or isinstance(value, bool)]
    key = rng.choice(sorted(able))
    value = recipe[key]
    if isinstance(value, bool):
        return with_value(text, key, not value)
    if key in CHOICES:
        return with_value(text, key, rng.choice([other for other in CHOICES[key] if other != value]))
    changed = float(value) * rng.choice(FACTORS[key])
    return with_value(text, key, max(1, round(changed)) if isinstance(value, int) else float(f"{changed:.3g}"))


# --- Figures ----------------------------------------------------------------------------------------------------------


def records(folder: Path) -> list[Json]:
    path = folder / RECORD
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue  # the line that was being written when the making was killed
    return found


def repairs_of(folder: Path) -> dict[str, Json]:
    """By trace and policy, after how many tries it was repaired; 0 when it was not."""
    found: dict[str, Json] = {}
    for entry in records(folder):
        found.setdefault(entry["name"], {})[entry["policy"]] = _tries(entry["attempts"])
    return found


def _tries(attempts: Sequence[Json]) -> int:
    return next((n for n, attempt in enumerate(attempts, start=1) if attempt["repaired"]), 0)


def repair_figures(traces: Sequence[Trace]) -> Json:
    """repair_1 and repair_3 by policy, over the traces that a recipe repairs and whose repair was tried; empty without
    any."""
    truths = [trace.truth for trace in traces if (trace.truth.repairs or {}).get(CONTROL_RECIPE)]
    tried = [truth.repairs for truth in truths if truth.repairs and truth.held_out]
    tried = tried or [truth.repairs for truth in truths if truth.repairs]
    found: Json = {}
    for policy in (PLAYBOOK, RANDOM) if tried else ():
        after = [int(repairs[policy]) for repairs in tried if policy in repairs]
        counted = {f"repair_{k}": (sum(0 < tries <= k for tries in after), len(after)) for k in (1, 3)}
        found[policy] = {name: share(*both) for name, both in counted.items()} | {
            "n": len(after), "intervals": {name: interval(*both) for name, both in counted.items()}
        }  # fmt: skip
    return found
