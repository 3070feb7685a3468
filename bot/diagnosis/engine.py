"""Runs every rule over a diagnosis folder, hides consequences behind their causes, and orders what is left."""

from __future__ import annotations

from pathlib import Path

from bot.diagnosis.consequences import hides
from bot.diagnosis.folder import read_folder
from bot.diagnosis.observations import Observations
from bot.diagnosis.readings import shown
from bot.diagnosis.rules import (
    access,
    adapters,
    answers,
    crashes,
    gradients,
    guessing,
    machine,
    masks,
    media,
    memorising,
    memory,
    mismatch,
    mixture,
    not_finite,
    optimization,
    precision,
    preference,
    progress,
    reinforcement,
    retention,
    rewards,
    rollouts,
    rows,
    templates,
    tokens,
    vocabulary,
)
from bot.diagnosis.rules.finding import Answer, Basis, Finding, Rule, RuledOut, finding, seen
from bot.domain.diagnosis import DiagnosisReport, Severity, Symptom

RULES: tuple[Rule, ...] = (
    *crashes.RULES,
    *memory.RULES,
    *machine.RULES,
    *access.RULES,
    *rows.RULES,
    *media.RULES,
    *mixture.RULES,
    *tokens.RULES,
    *masks.RULES,
    *vocabulary.RULES,
    *precision.RULES,
    *templates.RULES,
    *adapters.RULES,
    *not_finite.RULES,
    *optimization.RULES,
    *gradients.RULES,
    *guessing.RULES,
    *progress.RULES,
    *memorising.RULES,
    *preference.RULES,
    *reinforcement.RULES,
    *rewards.RULES,
    *rollouts.RULES,
    *mismatch.RULES,
    *answers.RULES,
    *retention.RULES,
)

_SEVERITY_ORDER = {Severity.FATAL: 0, Severity.HARMFUL: 1, Severity.ADVICE: 2}


def diagnose(folder: Path) -> DiagnosisReport:
    """What went wrong in the run whose traces lie in `folder`, most harmful first; equal for equal files.

    Raises: UserError when the folder or its recipe.yaml cannot be read.
    """
    return diagnosis_of(read_folder(folder))


def diagnosis_of(observations: Observations, rules: tuple[Rule, ...] = RULES) -> DiagnosisReport:
    """The report over observations that were read already.

    Of a run that goes on (`observations.running`) only rules that may speak before the end are asked, and nothing is
    called unknown.
    """
    asked = tuple(rule for rule in rules if rule.online or rule.preflight) if observations.running else rules
    answered = [rule.check(observations) for rule in asked]
    found = _first_per_symptom([a for a in answered if isinstance(a, Finding)])
    kept = [f for f in found if not any(hides(cause, f) for cause in found)]
    if not any(f.diagnosis.severity is not Severity.ADVICE for f in kept) and asked is RULES:
        unknown = _unknown(observations)
        kept += [unknown] if isinstance(unknown, Finding) else []
    kept.sort(
        key=lambda f: (_SEVERITY_ORDER[f.diagnosis.severity], -f.harm * f.diagnosis.confidence, f.diagnosis.symptom)
    )
    return DiagnosisReport(tuple(f.diagnosis for f in kept), _ruled_out(answered, found, kept))


def _first_per_symptom(findings: list[Finding]) -> list[Finding]:
    """One finding per symptom: the more severe, then the surer. Two rules may see one fault from two sides."""
    best: dict[Symptom, Finding] = {}
    for candidate in findings:
        other = best.get(candidate.diagnosis.symptom)
        if other is None or _rank(candidate) < _rank(other):
            best[candidate.diagnosis.symptom] = candidate
    return list(best.values())


def _rank(item: Finding) -> tuple[int, float]:
    return _SEVERITY_ORDER[item.diagnosis.severity], -item.diagnosis.confidence


def _unknown(observations: Observations) -> Answer:
    """Something is wrong and no rule can name it."""
    evaluation, shortfall = observations.evaluation, observations.shortfall
    if observations.failed:
        words = str(observations.job.get("failure") or observations.job.get("state"))
        return finding(
            observations,
            Symptom.UNKNOWN,
            Basis.CRASH,
            severity=Severity.FATAL,
            confidence=0.5,
            evidence=[seen("job.state", None, str(observations.job.get("state"))), seen("job.failure", None, words)],
            cause=f"The job ended as {words} and left no trace that names a cause.",
            key=None,
            refuted_by="the same job ending well when it is started again unchanged (then it was the machine)",
        )
    if observations.target is None and observations.worse_than_base:
        return _unknown_worse(observations)
    if evaluation is None or shortfall is None or not observations.missed_by_far:
        return None
    return finding(
        observations,
        Symptom.UNKNOWN,
        Basis.ANSWERS,
        severity=Severity.HARMFUL,
        confidence=0.5,
        evidence=[
            seen("value", None, evaluation.value),
            seen("target", None, observations.target),
            seen("n", None, evaluation.n),
        ],
        cause=f"The score of {shown(evaluation.value)} (standard error {shown(evaluation.standard_error)}, n = "
        f"{evaluation.n}) "
        f"misses the target of {shown(observations.target)} by {shown(shortfall)}, and no rule names a cause.",
        key=None,
        refuted_by="a second seed that reaches the target with the same recipe",
    )


def _unknown_worse(observations: Observations) -> Answer:
    after, before = observations.evaluation, observations.baseline
    assert after is not None and before is not None
    return finding(
        observations,
        Symptom.UNKNOWN,
        Basis.ANSWERS,
        severity=Severity.HARMFUL,
        confidence=0.5,
        evidence=[seen("value", None, after.value), seen("baseline", None, before.value), seen("n", None, after.n)],
        cause=f"The trained model scores {shown(after.value)} where the base model scored {shown(before.value)} "
        f"(n = {after.n}), and no rule names a cause.",
        key=None,
        refuted_by="a second seed that is not below the base model with the same recipe",
    )


def _ruled_out(answered: list[Answer], found: list[Finding], kept: list[Finding]) -> tuple[str, ...]:
    """One line per symptom that was looked for and not found, or that another finding explains."""
    named = {f.diagnosis.symptom for f in found}
    lines: dict[Symptom, str] = {}
    for answer in answered:
        if isinstance(answer, RuledOut) and answer.symptom not in named:
            lines.setdefault(answer.symptom, str(answer))
    for item in found:
        symptom = item.diagnosis.symptom
        if not any(f.diagnosis.symptom is symptom for f in kept):
            cause = next(c.diagnosis.symptom for c in found if hides(c, item))
            lines[symptom] = f"{symptom}: a consequence of {cause}"
    return tuple(lines[symptom] for symptom in Symptom if symptom in lines)
