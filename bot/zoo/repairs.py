"""Mends faulty runs: by the playbook's remedy for what the diagnosis says, and by random edits at as many tries.

A run is repaired when its score is within noise of its control's and its label is gone. Only faults that a recipe can
undo are tried: nobody's recipe repairs a broken evaluator, a full disk or answers that were shuffled in the source.
"""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from bot.brain.playbook import after_probe, remedy_for
from bot.diagnosis import diagnose
from bot.domain.diagnosis import Severity
from bot.domain.recipe import differences, recipe_hash, with_value
from bot.errors import PlatformError
from bot.zoo.faults import FAULTS
from bot.zoo.judging import LEAST_HARM, verdict
from bot.zoo.plan import FAULT, Case
from bot.zoo.progress import Progress, side_by_side
from bot.zoo.running import Keeper, Outcome, recipe_text
from bot.zoo.scoring import interval, share
from bot.zoo.specimen import Json, Specimen
from bot.zoo.traces import Trace, trace_of

if TYPE_CHECKING:
    from bot.zoo.making import Making

RECORD = "repairs.jsonl"
TRIES = 3
PLAYBOOK, RANDOM = "playbook", "random"


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
    """A faulty run and the recipes that were tried on it."""

    case: Case
    control: Outcome
    text: str
    """Of the recipe as it stands."""
    labels: tuple[str, ...]
    trace: Path
    """What the diagnosis sees of the last run."""
    tried: dict[str, int] = field(default_factory=dict)
    attempts: list[Attempt] = field(default_factory=list)
    probed: bool = False
    """A range test has been run; its answer stands for the recipes that follow."""


def repairable(case: Case) -> bool:
    """The fault is a difference between two recipes, and nothing else makes the run impossible."""
    changed = differences(case.control().specimen().recipe, case.specimen().recipe)
    return case.kind == FAULT and bool(changed.keys() - {"init_from"})


def mend(
    making: Making,
    cases: Sequence[Case],
    say: Callable[[str], None],
    *,
    budget_minutes: float | None = None,
    workers: int = 1,
) -> None:
    """Try to repair every faulty run of the making that counts; goes on where it was stopped."""
    done = {(entry["name"], entry["policy"]) for entry in records(making.folder)}
    wanted = [
        (case, policy)
        for case in cases
        for policy in (PLAYBOOK, RANDOM)
        if (case.name, policy) not in done and _counts(making, case)
    ]
    if not wanted:
        return
    progress = Progress(len(wanted), budget_minutes, workers, say)
    with Keeper(making.folder / "cache") as keeper:
        side_by_side(workers, [partial(_mend_one, keeper, making, case, policy, progress) for case, policy in wanted])
    if progress.left_out:
        say(f"stopped at {budget_minutes:g} minutes with {progress.left_out} repairs to go")


def _mend_one(keeper: Keeper, making: Making, case: Case, policy: str, progress: Progress) -> None:
    if not progress.may_begin():
        return
    try:
        attempts = repaired(keeper, making, case, policy)
    except PlatformError as error:
        progress.tell(f"repair of {case.description} by {policy}: could not be tried: {error}")
        return
    entry = {"name": case.name, "policy": policy, "attempts": [attempt.as_dict() for attempt in attempts]}
    with making.writing, (making.folder / RECORD).open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")
    said = "repaired" if any(attempt.repaired for attempt in attempts) else "not repaired"
    progress.tell(f"repair of {case.description} by {policy}: {said} after {len(attempts)}")


def _counts(making: Making, case: Case) -> bool:
    if case.kind != FAULT or case.name not in making.done:
        return False
    control = making.done.get(case.control().name)
    return control is not None and repairable(case) and verdict(case, making.done[case.name], control).kept


def repaired(keeper: Keeper, making: Making, case: Case, policy: str) -> list[Attempt]:
    """Up to TRIES runs, each with one change more (playbook) or one other change (random)."""
    specimen = case.specimen()
    patient = Patient(
        case, making.done[case.control().name], recipe_text(specimen.recipe), FAULTS[case.faults[0]].labels,
        making.folder / "raw" / case.name,
    )  # fmt: skip
    patient.tried[recipe_hash(yaml.safe_load(patient.text), script_digest="")] = 0
    rng = random.Random(f"edits/{case.name}")
    original = patient.text
    for number in range(1, TRIES + 1):
        text = (
            _by_playbook(keeper, making.folder / "work", patient)
            if policy == PLAYBOOK
            else randomly_edited(original, rng)
        )
        if text is None:
            break
        attempt = _tried(keeper, making.folder / "work", patient, text, policy, number)
        patient.attempts.append(attempt)
        if attempt.repaired:
            break
    shutil.rmtree(making.folder / "work" / f"{case.name}-{policy}-trace", ignore_errors=True)
    return patient.attempts


def _by_playbook(keeper: Keeper, work: Path, patient: Patient) -> str | None:
    report = diagnose(patient.trace)
    remedy = remedy_for(report, patient.text, tried=patient.tried, probed=patient.probed)
    if remedy is None:
        return None
    if remedy.probe:
        patient.probed = True
        specimen = patient.case.specimen()
        specimen.recipe = yaml.safe_load(patient.text)
        place = work / f"{patient.case.name}-probe"
        shutil.rmtree(place, ignore_errors=True)
        remedy = after_probe(remedy, keeper.probe(specimen, place, remedy.rates))
        shutil.rmtree(place, ignore_errors=True)
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
    shown = work / f"{patient.case.name}-{policy}-trace"
    shutil.rmtree(shown, ignore_errors=True)
    patient.trace = trace.write(shown)
    patient.text = text
    patient.tried[recipe_hash(specimen.recipe, script_digest="")] = number
    return Attempt(changed, outcome.value, outcome.state, is_repaired(patient, outcome))


def is_repaired(patient: Patient, outcome: Outcome) -> bool:
    """The score is within noise of the control's, and the diagnosis no longer names the fault."""
    if outcome.value is None or patient.control.value is None:
        return False
    values = (outcome.value, patient.control.value)
    noise = max(LEAST_HARM, 1.96 * math.sqrt(sum(value * (1 - value) / 200 for value in values)))
    said = {str(d.symptom) for d in diagnose(patient.trace).diagnoses if d.severity is not Severity.ADVICE}
    return outcome.value >= patient.control.value - noise and not said.intersection(patient.labels)


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
        tries = [n for n, attempt in enumerate(entry["attempts"], start=1) if attempt["repaired"]]
        found.setdefault(entry["name"], {})[entry["policy"]] = tries[0] if tries else 0
    return found


def repair_figures(traces: Sequence[Trace]) -> Json:
    """repair_1 and repair_3 by policy, over the traces whose repair was tried; empty without any."""
    truths = [trace.truth for trace in traces]
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
