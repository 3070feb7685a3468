"""Rules about what a model knew before: tasks that training made it forget."""

from __future__ import annotations

import math

from bot.diagnosis.curves import held_out_of, longest_run
from bot.diagnosis.observations import Observations, OldTask
from bot.diagnosis.readings import shown
from bot.diagnosis.remedies import duration_key, scaled_duration
from bot.diagnosis.rules.finding import Answer, Basis, Rule, RuledOut, finding, percent, seen
from bot.diagnosis.units import in_nats
from bot.domain.diagnosis import Severity, Symptom

# Drops of less than this are not worth a run, however sure they are.†
WORTH_SAYING = 0.05
# An old task's held-out loss this much above its best, three evaluations in a row.†
LOSS_RISE = 0.2


def forgetting(observations: Observations) -> Answer:
    """The old tasks' scores, before and after; without them, a held-out loss on old rows that keeps rising."""
    tasks = [task for task in observations.old_tasks if task.n > 0]
    if not tasks:
        return _trend(observations)
    lost = [task for task in tasks if _drop(task) > max(WORTH_SAYING, 2 * _error(task))]
    if not lost:
        least = max(tasks, key=_drop)
        return RuledOut(
            Symptom.FORGETTING,
            f"{least.name} went from {shown(least.before)} to {shown(least.after)} (n = {least.n}), within noise",
        )
    worst = max(lost, key=_drop)
    others = f" (and {len(lost) - 1} more)" if len(lost) > 1 else ""
    key = duration_key(observations.recipe)
    return finding(
        observations,
        Symptom.FORGETTING,
        Basis.DATA,
        severity=Severity.HARMFUL,
        confidence=0.95 if _drop(worst) > 4 * _error(worst) else 0.75,
        evidence=[
            seen(f"old_tasks.{worst.name}.before", None, worst.before),
            seen(f"old_tasks.{worst.name}.after", None, worst.after),
            seen("n", None, worst.n),
            seen("learning_rate", None, observations.rate.current),
        ],
        cause=f"On {worst.name}, which the base model solves at {percent(worst.before)}, the trained model scores "
        f"{percent(worst.after)} (n = {worst.n}){others}: learning the new rows overwrote it.",
        key=key,
        suggested=scaled_duration(observations.recipe, 0.5),
        harm=min(1.0, _drop(worst)),
        runner_up="data_sources: a tenth of rows of the old tasks among the new ones keeps them (replay)",
        refuted_by="the same drop after a run of half the length",
        whatever_the_score=True,
    )


def _drop(task: OldTask) -> float:
    return task.before - task.after


def _error(task: OldTask) -> float:
    """Standard error of the difference of two shares of n items (unpaired, which errs on the careful side)."""
    return math.sqrt(sum(max(0.0, p * (1 - p)) for p in (task.before, task.after)) / task.n)


def _trend(observations: Observations) -> Answer:
    """`eval_<name>_loss` of a second validation set, of rows that the base model knew."""
    names = sorted({k for r in observations.evals for k in r if k.startswith("eval_") and k.endswith("_loss")})
    main = held_out_of(observations)
    if not in_nats(observations):
        return None  # parts of one loss are called so as well
    for name in names:
        series = held_out_of(observations, name)
        if name == "eval_loss" or len(series) < 4 or not len(main):
            continue
        first = series.values[0]
        length, start = longest_run(series, lambda value, first=first: value > first * (1 + LOSS_RISE) + 0.02)  # type: ignore[misc]
        if length < 3 or start + length < len(series) or main.values[-1] > main.values[0]:
            continue
        return finding(
            observations,
            Symptom.FORGETTING,
            Basis.CURVE,
            severity=Severity.HARMFUL,
            confidence=0.7,
            evidence=[
                seen(name, series.first_step, first),
                seen(name, series.last_step, series.values[-1]),
                seen("eval_loss", main.last_step, main.values[-1]),
            ],
            cause=f"{name} rose from {shown(first)} to {shown(series.values[-1])} (step {series.last_step}) while "
            f"eval_loss fell to {shown(main.values[-1])}: the old rows are being unlearned.",
            key=duration_key(observations.recipe),
            suggested=scaled_duration(observations.recipe, 0.5),
            harm=0.5,
            runner_up="another distribution: rows that the base model did not know either",
            refuted_by="an unchanged score on the old tasks",
            certain_at=series.steps[start + 2],
            whatever_the_score=True,
        )
    return None


RULES = (
    Rule(
        Symptom.FORGETTING,
        forgetting,
        "a significant drop on held-out old tasks (arXiv 2509.04259); 5 points and two standard errors †",
        online=True,
    ),
)
