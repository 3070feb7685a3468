"""A reward that collapses again after a repair: its suspects are tried side by side, as one ablation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from bot.brain.fitting import Room, fitted
from bot.brain.keeping import comparable_runs
from bot.brain.playbook import Kind, Means, Remedy
from bot.brain.remedies import STEPS, scope_change
from bot.domain.diagnosis import Diagnosis, Severity, Symptom
from bot.domain.experiment import Experiment, Run
from bot.domain.goal import digest_of
from bot.domain.recipe import as_yaml, recipe_hash

COLLAPSES = frozenset({Symptom.KL_BLOWUP, Symptom.REWARD_HACK, Symptom.ENTROPY_COLLAPSE})
SUSPECTS = ("learning_rate", "beta", "epsilon_high", "temperature")
"""In the order of the field's guides: docs/training_stability.qmd of Axolotl, then DAPO (2503.14476)."""
MOST_ARMS = 3
"""† Runs that it may take; one is left for what comes of it."""


def suspects(x: Experiment, run: Run, means: Means, room: Room) -> Remedy | None:
    """The ablation that is due, once for each stage and within what was agreed; None when none is."""
    found = next((each for each in run.report.diagnoses if each.symptom in COLLAPSES), None)
    if found is None or found.severity is Severity.ADVICE:
        return None
    before = [each for each in comparable_runs(x) if each.n < run.n]
    again = any(str(found.symptom) in each.symptoms and each.remedy is not None for each in before)
    done = any(each.remedy is not None and each.remedy.get("kind") == Kind.ABLATION for each in before)
    if not again or done:
        return None
    values = yaml.safe_load(run.recipe) or {}
    untried = _alternatives(found, run, values, x.tried, means.parameters)
    arms = [
        (key, value)
        for key, value in untried
        if scope_change(values, {**values, key: value}) is None
        and means.covers([key])
        and fitted(values, {key: value}, room) == {key: value}
    ][: max(0, min(MOST_ARMS, means.runs_left - 1))]
    if len(arms) < 2:
        return None
    said = ", ".join(f"`{key}` {as_yaml(value)}" for key, value in arms)
    why = f"`{found.symptom}` came back after a repair, so its suspects are tried side by side: {said}."
    return Remedy(arms[0][0], arms[0][1], str(found.symptom), why, kind=Kind.ABLATION, arms=tuple(arms))


def _alternatives(
    found: Diagnosis, run: Run, values: Mapping[str, Any], tried: Mapping[str, int], parameters: float | None
) -> Iterator[tuple[str, Any]]:
    """One untried value for each suspect, the first that the table knows."""
    scripts = digest_of(run.digests)
    symptoms = (found.symptom, *sorted(COLLAPSES))
    changes = [step.change(values, parameters) for symptom in symptoms for step in STEPS[symptom]]
    for key in SUSPECTS:
        single = [settings[key] for settings in changes if list(settings) == [key]]
        for value in single:
            if recipe_hash({**values, key: value}, script_digest=scripts) not in tried:
                yield key, value
                break
