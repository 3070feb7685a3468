"""The data rules before any training: what the audit and the rows already say about the run to come."""

from __future__ import annotations

from pathlib import Path

from bot.diagnosis.engine import RULES, diagnosis_of
from bot.diagnosis.folder import read_folder
from bot.diagnosis.observations import Observations
from bot.domain.diagnosis import DiagnosisReport

PREFLIGHT_RULES = tuple(rule for rule in RULES if rule.preflight)


def preflight(folder: Path) -> DiagnosisReport:
    """What `recipe.yaml` with `data_audit.json` or `train.jsonl` (and `eval.jsonl`, when there) shows before a step.

    Raises: UserError when the folder or its recipe.yaml cannot be read.
    """
    return preflight_of(read_folder(folder))


def preflight_of(observations: Observations) -> DiagnosisReport:
    return diagnosis_of(observations, PREFLIGHT_RULES)
