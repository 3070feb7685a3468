"""While a run trains: is it doomed, so that every further second is spent for nothing?

Said only of a run that cannot come back. A loss that jumps may recover and a plateau may end, so they wait for the
diagnosis at the end; weights that are not numbers any more stay so. Not covered: runs that are merely hopeless.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bot.diagnosis.engine import RULES, diagnosis_of
from bot.diagnosis.folder import observations_of
from bot.domain.diagnosis import Diagnosis, Severity, Symptom

FATAL_RULES = tuple(rule for rule in RULES if rule.symptom is Symptom.NAN_INF)
TELLING_ROWS = 3
"""So many logged steps in a row without a number: fp16 loss scaling skips one or two and goes on."""


def doomed(recipe_text: str, rows: Sequence[Mapping[str, Any]]) -> Diagnosis | None:
    """The diagnosis that no further step can refute, or None; `rows` are those of metrics.jsonl so far."""
    last = [row for row in rows if "loss" in row or "grad_norm" in row][-TELLING_ROWS:]
    if len(last) < TELLING_ROWS or not all(_lost(row) for row in last):
        return None
    report = diagnosis_of(observations_of(recipe_text, rows), FATAL_RULES)
    return next((found for found in report.diagnoses if found.severity is Severity.FATAL), None)


def _lost(row: Mapping[str, Any]) -> bool:
    """No number in the row says that the weights still are numbers. A NaN is written as a string or as null; a loss of
    exactly 0 beside a gradient norm that is none is how some trainers hide it."""
    if "grad_norm" in row and _finite(row["grad_norm"]):
        return False
    return "loss" not in row or not _finite(row["loss"]) or ("grad_norm" in row and row["loss"] == 0)


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
