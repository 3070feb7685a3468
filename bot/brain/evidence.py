"""What a language model is told of an experiment: numbers with the run and the step that they belong to.

Nothing of a benchmark's text is in it, for what is answered may be read by anybody. Text that somebody else wrote (a
cause, a reason, a log's line) stands as quoted data.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bot.domain.curves import thinned
from bot.domain.diagnosis import Diagnosis
from bot.domain.experiment import Experiment, Run, Score
from bot.domain.recipe import as_yaml

Curves = Mapping[int, Mapping[str, Sequence[tuple[int, float | None]]]]
"""Run number -> metric -> (step, value)."""
POINTS = 24
"""Of each curve."""
FIRST_METRICS = ("loss", "eval_loss", "grad_norm", "learning_rate", "reward", "kl", "entropy", "mean_token_accuracy")
MOST_METRICS = 8
_MOST_QUOTED = 400


def evidence_of(x: Experiment, curves: Curves) -> str:
    """The experiment as plain text. `curves` may hold fewer runs than there are."""
    return "\n\n".join(part for part in (_contract(x), _baseline(x), *_runs(x, curves), _ending(x)) if part)


def _contract(x: Experiment) -> str:
    goal = x.goal
    if goal is None:
        return ""
    ceilings = x.ceilings
    lines = [
        "## Goal",
        f"base model: {goal.base_model}",
        f"benchmark: {goal.benchmark}, metric {goal.metric}"
        + ("" if goal.measure.higher_is_better else " (less is better)"),
        f"target: {goal.said_target} on the sealed test, reached on dev first",
        f"method: {goal.method or 'open'}",
        f"licences allowed: {', '.join(goal.licences) or 'any that is known'}",
        f"ceilings: {ceilings.runs} runs, {ceilings.gpu_hours:g} GPU hours, {ceilings.usd:g} USD, "
        f"{ceilings.wall_hours:g} hours from consent to end",
        f"state: {x.state}",
    ]
    return "\n".join(lines)


def _baseline(x: Experiment) -> str:
    return f"## Untouched base model\n{_scored(x.baseline)}" if x.baseline is not None else ""


def _runs(x: Experiment, curves: Curves) -> Iterator[str]:
    for run in x.runs:
        yield "\n".join([f"## Run {run.n}", *_run(run), *_curves(curves.get(run.n, {}))])


def _run(run: Run) -> Iterator[str]:
    changed = ", ".join(f"{key} {as_yaml(old)} -> {as_yaml(new)}" for key, (old, new) in run.changed.items())
    yield f"changed: {changed or 'nothing before it'}; commit {run.head_sha[:12]}"
    yield f"value: {_scored(run.score)}"
    for name, found in (
        ("against the base model", run.against_baseline),
        ("against the best before", run.against_best),
    ):
        if found:
            yield (
                f"{name}: difference {_number(found.get('difference'))} ({_number(found.get('ci_low'))} to "
                f"{_number(found.get('ci_high'))}), p = {_number(found.get('p_value'))}, {found.get('verdict')}"
            )
    if run.failure:
        yield f"failed: {_quoted(run.failure)}"
    for diagnosis in run.report.diagnoses:
        yield f"diagnosis: {_diagnosis(diagnosis)}"
    if run.probe:
        trials = [
            f"{_number(t.get('learning_rate'))}: loss {_number(t.get('loss_first'))} -> {_number(t.get('loss_last'))}"
            for t in run.probe.get("trials", ())
        ]
        yield f"learning-rate probe: {'; '.join(trials)}; suggested {_number(run.probe.get('suggested'))}"
    if run.remedy:
        change = f"{run.remedy.get('key')} to {as_yaml(run.remedy.get('value'))}"
        yield f"next change: {change}, because {_quoted(run.remedy.get('why'))}"
    if run.stuck:
        yield f"nothing follows: {_quoted(run.stuck)}"
    yield f"recipe: {json.dumps(run.recipe[:4000], ensure_ascii=False)}"


def _diagnosis(found: Diagnosis) -> str:
    shown = ", ".join(
        f"{item.key} {item.value}" + (f" at step {item.step}" if item.step is not None else "")
        for item in found.evidence[:4]
    )
    return (
        f"{found.symptom}, {found.severity}, confidence {found.confidence:.2f}, blames {found.key or 'no one line'}; "
        f"{shown}; cause {_quoted(found.cause)}; would be refuted by {_quoted(found.refuted_by)}"
    )


def _curves(found: Mapping[str, Sequence[tuple[int, float | None]]]) -> Iterator[str]:
    known = [name for name in FIRST_METRICS if name in found]
    others = sorted(set(found) - set(known))
    for name in (known + others)[:MOST_METRICS]:
        finite = [(step, value) for step, value in found[name] if value is not None and math.isfinite(value)]
        lost = [step for step, value in found[name] if value is None or not math.isfinite(value)]
        points = " ".join(f"{step}:{value:.4g}" for step, value in thinned(finite, POINTS))
        broken = f" (not a number at step {lost[0]} and {len(lost) - 1} more)" if lost else ""
        yield f"curve {name[:60]} (step:value): {points}{broken}"


def _ending(x: Experiment) -> str:
    if not x.state.ended:
        return ""
    found = f"; sealed test: {_quoted(x.confirmation.get('reason'))}" if x.confirmation else ""
    return f"## Ended\n{x.state}: {_quoted(x.reason)}{found}"


def _scored(score: Score | None) -> str:
    if score is None:
        return "no value"
    margin = f"95 % interval {score.measure.said_interval(score.ci_low, score.ci_high)}"
    return f"{score.measure.said(score.value)} ({margin}, n = {score.n}, {score.split})"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)[:40]


def _quoted(text: Any) -> str:
    """Words that are data, on one line, in quotation marks that they cannot close."""
    return json.dumps(" ".join(str(text or "").split())[:_MOST_QUOTED], ensure_ascii=False)
