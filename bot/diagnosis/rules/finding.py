"""What a rule answers: a finding, or that its symptom was looked for and is not there, with the number that says so."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from bot.diagnosis.observations import Observations
from bot.diagnosis.readings import rounded, shown
from bot.domain.diagnosis import Diagnosis, Evidence, Severity, Symptom

RECIPE = "recipe.yaml"


class Basis(StrEnum):
    """Where the evidence comes from. It decides what hides what: a count over the data stands on its own feet, while
    odd answers of a model that never trained are a consequence."""

    CRASH = "crash"
    DATA = "data"
    CURVE = "curve"
    ANSWERS = "answers"


@dataclass(frozen=True, slots=True)
class Finding:
    diagnosis: Diagnosis
    basis: Basis
    harm: float
    """Estimated share of the run that this spoils, in [0, 1]; orders findings of one severity."""


@dataclass(frozen=True, slots=True)
class RuledOut:
    symptom: Symptom
    because: str

    def __str__(self) -> str:
        return f"{self.symptom}: {self.because}"


Answer = Finding | RuledOut | None
"""None: nothing was observed that could decide it either way."""


@dataclass(frozen=True, slots=True)
class Rule:
    symptom: Symptom
    check: Callable[[Observations], Answer]
    source: str
    """Where the rule and its threshold come from; thresholds marked † are this project's own."""
    preflight: bool = False
    """It needs no training: data and recipe alone decide."""
    online: bool = False
    """It may speak while the run goes on: what it says of a prefix of a run, no healthy rest of it takes back."""


def finding(
    observations: Observations,
    symptom: Symptom,
    basis: Basis,
    *,
    severity: Severity,
    confidence: float,
    evidence: list[Evidence],
    cause: str,
    key: str | None,
    suggested: Any = None,
    harm: float = 1.0,
    runner_up: str | None = None,
    refuted_by: str,
    file: str = RECIPE,
    line: int | None = None,
    certain_at: int | None = None,
    whatever_the_score: bool = False,
) -> Finding:
    """A finding on the line of the recipe that sets `key`, or on `line` of another `file` of the experiment.

    A run that met its target gets advice, not blame, unless the score itself is what is wrong (`whatever_the_score`).
    """
    if severity is Severity.HARMFUL and observations.met and not whatever_the_score:
        severity = Severity.ADVICE
    if key is not None:
        key = observations.written_as(key)
    if basis is Basis.CURVE and certain_at is None and observations.steps:
        certain_at = observations.last_step
    diagnosis = Diagnosis(
        symptom=symptom,
        severity=severity,
        confidence=round(min(0.99, max(0.05, confidence)), 2),
        evidence=tuple(evidence),
        cause=cause,
        file=file,
        line=observations.line(key) if key is not None else line,
        key=key,
        suggested=suggested,
        runner_up=runner_up,
        refuted_by=refuted_by,
        certain_at=certain_at,
    )
    return Finding(diagnosis, basis, harm)


def seen(key: str, step: int | None, value: float | int | str | None) -> Evidence:
    """One observed number, rounded to what a person reads; strict JSON has no NaN, so that is written out."""
    if isinstance(value, float):
        value = rounded(value) if math.isfinite(value) else shown(value)
    return Evidence(key, step, value)


def percent(share: float) -> str:
    """`12.5 %`, without decimals where they are zero."""
    return f"{100 * share:.1f}".rstrip("0").rstrip(".") + " %"
