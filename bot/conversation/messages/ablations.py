"""What is said of an ablation: that it was opened, how far it is, and its one table."""

from __future__ import annotations

import math
from typing import Any

from bot.conversation.messages.charts import sparkline
from bot.conversation.messages.keys import message
from bot.conversation.messages.tables import table
from bot.conversation.messages.wording import (
    amount,
    counted,
    duration,
    goal_of,
    hours,
    listed,
    scored,
    scored_briefly,
    setting,
    with_unit,
)
from bot.domain.ablation import Ablation, Arm
from bot.domain.evaluation import Verdict
from bot.domain.experiment import Experiment, Score
from bot.domain.inert import clipped, code, inert_line, unmentioned


def ablation_name(found: Ablation) -> str:
    return f"ablation/{found.n}"


def reply_ablate(experiment: Experiment, found: Ablation, hours_each: float | None) -> str:
    """It was opened; `hours_each` is what a run took, as far as one was timed."""
    values = listed([_arm(arm) for arm in found.arms])
    known = [arm for arm in found.arms if arm.run is not None]
    taken = f" {listed([_arm(arm) for arm in known])} was trained before, so that result is taken." if known else ""
    each = f", about {hours(round(hours_each, 3))} each by the last run's time" if hours_each is not None else ""
    waits = " It begins when the run under way has ended." if experiment.running_jobs else ""
    return (
        f"Ablation {found.n}: {code(found.key, 64)} with {values}, on the same training set and items. It takes "
        f"{counted(len(found.trained), 'run')} of the budget{each}, side by side where the machine has room.{taken}"
        f"{waits} One table tells them all; the recipe here stays as it is."
    )


def ablation_step(found: Ablation, experiment: Experiment) -> str:
    """What happens next, for the sticky comment."""
    ended = [job for job in experiment.jobs.values() if job.role == "weigh" and job.ended]
    done = sum(1 for arm in found.trained if any(job.run == arm.n for job in ended))
    return f"ablation {found.n} of {code(found.key, 64)}: {done} of {counted(len(found.trained), 'value')} evaluated."


def ablation(experiment: Experiment, found: Ablation) -> str:
    """The table, and what may be concluded from it."""
    goal = goal_of(experiment)
    several = any(arm.key for arm in found.arms)
    first = "Setting" if several else f"`{found.key}`"
    head = (first, "Value on dev (95 % interval)", "Against base", "Against the best", "Loss", "Time")
    return message(
        experiment.goal_id,
        ablation_name(found),
        f"### Ablation {found.n}: {code(found.key, 64)}",
        f"The same recipe, training set and {code(goal.benchmark, 120)} items; only "
        f"{'what the row names' if several else 'this key'} differs.",
        table(head, [_row(row, found) for row in found.rows]),
        _conclusion(found),
        _failures(found),
    )


def _row(row: dict[str, Any], found: Ablation) -> tuple[str, ...]:
    score = Score.from_dict(row["score"]) if row["score"] else None
    best = _best(found)
    value = _named(row)
    if best is not None and row["arm"] == best["arm"]:
        value = f"**{value}**"
    note = f" (run {row['run']})" if row["run"] else ""
    against = row.get("against_best")
    return (
        value + note,
        scored_briefly(score) if score is not None else "none",
        str(row["against_baseline"]["verdict"]) if score is not None else "failed",
        f"{with_unit(against)}, {against['verdict']}" if against else "",
        _losses(row["losses"]),
        duration(row["seconds"]) if row["seconds"] else "",
    )


def _named(row: dict[str, Any]) -> str:
    """The value of a row, with its key where the rows are of several."""
    return code(f"{row['key']}={setting(row['value'])}" if row.get("key") else setting(row["value"]), 80)


def _arm(arm: Arm) -> str:
    return _named({"key": arm.key, "value": arm.value})


def _losses(losses: list[float | None]) -> str:
    finite = [loss for loss in losses if loss is not None and math.isfinite(loss)]
    return f"`{sparkline(losses, 16)}` {amount(finite[-1])}" if finite else ""


def _best(found: Ablation) -> dict[str, Any] | None:
    scored_rows = [row for row in found.rows if row["score"]]
    return max(scored_rows, key=_rank, default=None)


def _rank(row: dict[str, Any]) -> float:
    score = Score.from_dict(row["score"])
    return score.measure.rank(score.value)


def _conclusion(found: Ablation) -> str:
    """Which value did best, whether the others can be told from it, and how to keep it."""
    best = _best(found)
    if best is None:
        return "No value could be evaluated, so nothing can be said of this key."
    score = Score.from_dict(best["score"])
    rivals = [row for row in found.rows if row.get("against_best")]
    close = [row for row in rivals if row["against_best"]["verdict"] != Verdict.WORSE]
    kept = f"{best.get('key') or found.key}={setting(best['value'])}"
    name = f"`{kept}`"
    highest = "Highest" if score.measure.higher_is_better else "Lowest"
    told = f"{highest}: {name} with {scored(score)}."
    if close:
        values = listed([_named(row) for row in close])
        told += f" It cannot be told from {values} on these {score.n} items."
    elif rivals:
        told += " Every other value is worse beyond chance, by paired tests, corrected for being several (Holm)."
    return (
        f"{told} The {highest.lower()} of {len(rivals) + 1} is flattered by having been chosen on the items it is "
        f"measured on; the sealed test is not opened for it.\n\nTo keep it: `/postdoc set {kept}`. "
        f"The base model's value, which verdicts are against, stands above: {score.measure.said(_base(best))}."
    )


def _base(row: dict[str, Any]) -> float:
    return float(row["score"]["value"]) - float(row["against_baseline"]["difference"])


def _failures(found: Ablation) -> str:
    lines = [
        f"- {code(setting(row['value']), 60)}: {unmentioned(inert_line(clipped(row['failure'], 400), 400))}"
        for row in found.rows
        if row["failure"]
    ]
    return "\n".join(lines)
