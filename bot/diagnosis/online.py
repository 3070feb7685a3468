"""A run judged while it goes on: what its first steps already show, and from which step on a finished one showed it.

    report = diagnosis_of(observations_of(recipe_text, rows_so_far, setup=..., audit=...))

A report on a prefix of a run holds what no healthy rest of it takes back: rules that compare a run with its end, with
its score or with its target do not speak. `Diagnosis.certain_at` is the step at which a finding became certain. Calls
cost a few milliseconds for some hundred steps, so a monitor may ask at every record.
"""

from __future__ import annotations

from bot.diagnosis.engine import RULES, diagnosis_of
from bot.diagnosis.folder import observations_of
from bot.diagnosis.observations import Observations
from bot.diagnosis.rules.finding import Rule
from bot.domain.diagnosis import Diagnosis, Severity, Symptom

__all__ = ["ONLINE_RULES", "diagnosis_of", "first_noticed", "observations_of"]

ONLINE_RULES: tuple[Rule, ...] = tuple(rule for rule in RULES if rule.online)


def first_noticed(
    observations: Observations, *, every: int = 1, advice: bool = False
) -> dict[Symptom, tuple[int, Diagnosis]]:
    """For each symptom the first step at which the run so far showed it, with what was said then; 0 before training.

    Asked at every `every`-th record and at the last. `advice`: findings of that severity count, too.
    """
    steps = [int(record["step"]) for record in observations.steps]
    asked = [0, *steps[every - 1 :: every]]
    asked += steps[-1:] if asked[-1] != (steps[-1] if steps else 0) else []
    found: dict[Symptom, tuple[int, Diagnosis]] = {}
    for step in asked:
        for diagnosis in diagnosis_of(observations.until(step)).diagnoses:
            if advice or diagnosis.severity is not Severity.ADVICE:
                found.setdefault(diagnosis.symptom, (step, diagnosis))
    return found
