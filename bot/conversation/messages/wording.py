"""How numbers, durations, money and states are said, the same everywhere."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bot.domain.evaluation import Verdict
from bot.domain.experiment import Experiment, Run, Score, State
from bot.domain.goal import Goal
from bot.domain.inert import code
from bot.domain.metrics import DEFAULT, Metric, metric_named
from bot.domain.recipe import as_yaml


def percent(rate: float) -> str:
    """A measured rate: one decimal, always. A value of a metric is said by its `Metric` instead."""
    return f"{rate * 100:.1f} %"


def scored(score: Score) -> str:
    """A value as it must always be said: with interval and n."""
    measure = score.measure
    margin = measure.said_interval(score.ci_low, score.ci_high)
    return f"{measure.said(score.value)} (95 % interval {margin}, n = {score.n})"


def scored_briefly(score: Score) -> str:
    """For a table's cell."""
    measure = score.measure
    return f"{measure.said(score.value)} ({measure.bare_interval(score.ci_low, score.ci_high)}, n {score.n})"


def measure_of(comparison: Mapping[str, Any]) -> Metric:
    """The metric of a `Comparison.as_dict()`; one from before others existed has none written down."""
    return metric_named(str(comparison.get("metric") or DEFAULT))


def difference(comparison: Mapping[str, Any], key: str = "difference") -> str:
    """A comparison's difference, or one end of its interval, signed, with its unit where that is said."""
    return measure_of(comparison).said_difference(float(comparison[key]))


def with_unit(comparison: Mapping[str, Any]) -> str:
    return difference(comparison) + measure_of(comparison).unit


def p_value(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def amount(value: float) -> str:
    """A metric: short, and never in a form that hides its size."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("\u2212" if value < 0 else "") + "infinite"
    if value == 0 or 0.001 <= abs(value) < 100_000:
        return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:.1e}"


def usd(value: float) -> str:
    """In Markdown a dollar sign may open a formula, so the unit follows."""
    return f"{value:,.2f} USD"


def duration(seconds: float) -> str:
    total = round(max(0.0, seconds))
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60} min {total % 60:02d} s"
    return f"{total // 3600:,} h {total % 3600 // 60:02d} min"


def clock(seconds: float) -> str:
    """Time left: `14:20`, or `2:14:20` from an hour on."""
    total = round(max(0.0, seconds))
    hours, minutes, rest = total // 3600, total % 3600 // 60, total % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def hours(value: float) -> str:
    return f"{value:g} GPU hour" if value == 1 else f"{value:g} GPU hours"


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else list(words))


def setting(value: Any) -> str:
    """A recipe's value, as short as it can be written."""
    if isinstance(value, float):
        return repr(value)
    return as_yaml(value) if value is None or isinstance(value, (str, int, bool)) else str(value)


def changes(changed: Mapping[str, Sequence[Any]], *, marked: bool = True) -> str:
    """`learning_rate` 2.0e-05 → 0.001. With `marked` the keys are code spans."""
    said = []
    for name, (before, after) in changed.items():
        shown = code(name, 64) if marked else name
        old, new = (
            (code(setting(before), 60), code(setting(after), 60)) if marked else (setting(before), setting(after))
        )
        if before is None:
            said.append(f"{shown} set to {new}")
        elif after is None:
            said.append(f"{shown} removed (was {old})")
        else:
            said.append(f"{shown} {old} → {new}")
    return ", ".join(said)


def short(sha: str) -> str:
    return sha[:7]


def goal_of(experiment: Experiment) -> Goal:
    """The goal of an experiment whose contract has been read."""
    if experiment.goal is None:
        raise ValueError(f"{experiment.goal_id}: the contract has not been read yet")
    return experiment.goal


def model_name(goal: Goal) -> str:
    return goal.base_model.rsplit("/", 1)[-1]


def state_sentence(experiment: Experiment) -> str:
    """Where the goal is, in words."""
    run = experiment.run
    number = f"run {run.n}" if run is not None else "the first run"
    sentences = {
        State.CONTRACT: "Reading the goal.",
        State.NEEDS_AUTHOR: "Waiting for the goal to be completed.",
        State.PLAN: "Preparing the data and the plan.",
        State.PROPOSED: "Proposed; the next run starts as soon as it may.",
        State.AWAITING_CONSENT: "Waiting for consent to train.",
        State.BASELINE: "Evaluating the untouched base model.",
        State.TRAINING: f"Training {number}.",
        State.EVALUATING: f"Evaluating {number}.",
        State.REVIEWING: f"Reviewing {number}.",
        State.REVISING: f"Revising the recipe after {number}.",
        State.CONFIRMING: "Confirming on the sealed test.",
        State.MET: "Target met, and confirmed on the sealed test.",
        State.NOT_CONFIRMED: "Target met on the dev items, not confirmed on the sealed test.",
        State.EXHAUSTED: "Ended: the budget is spent.",
        State.NEEDS_HUMAN: "Ended: a person is needed.",
        State.STOPPED: "Stopped.",
        State.CLOSED: "Merged; the goal is closed." if experiment.merged else "Closed.",
    }
    return sentences[experiment.state]


def verdict_word(run: Run) -> str:
    """A run's verdict for a table."""
    if run.failure is not None:
        return "failed"
    return run.verdict or "not yet"


def verdict_clause(verdict: str | None) -> str:
    """A run against the base model, as the beginning of a sentence."""
    match verdict:
        case Verdict.BETTER:
            return "Better than the untouched base model"
        case Verdict.WORSE:
            return "Worse than the untouched base model"
        case _:
            return "Cannot tell this run from the untouched base model"
