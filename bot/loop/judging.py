"""What a run's results mean for the goal: its verdicts, what it forgot, and whether the seal is opened for it.

Pure functions of the experiment and of evaluations; the actions read the files, the simulation of `make bench` calls
the very same functions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bot.domain.comparison import compare
from bot.domain.evaluation import Evaluation, Sample, Verdict
from bot.domain.experiment import EventKind, Experiment, NewEvent, Run
from bot.domain.sealing import chance_of_confirming, climbed, confirmation, wise_to_open
from bot.domain.sequential import holm_levels, level_after

BASELINE_FAMILY, BEST_FAMILY = "against_baseline", "against_best"
"""Fields of a run: its two comparisons. Each family of a goal claims something false with 5 % at most, half of that
in either direction, so that a false "better" is said in 5 % of goals at most, of both together."""


def unmeasured(result: Evaluation) -> str | None:
    """One sentence where an evaluation has no number to compare: a model whose weights are none answers every item with
    a likelihood that is none. None where it has."""
    lost = sum(not math.isfinite(sample.score) for sample in result.samples)
    if math.isfinite(result.value) and not lost:
        return None
    where = f"on {lost} of {len(result.samples)} items" if lost else "over all items"
    return f"The evaluation found no number {where}: what this model computes is not a number."


def judged(
    x: Experiment, result: Evaluation, baseline: Evaluation, best: tuple[int, Evaluation] | None
) -> dict[str, Any]:
    """`verdict`, `against_baseline` and `against_best` of the run that comes after those of `x` that have a score;
    `best` is the best of those with its evaluation. Each says the `level` that its p-value had to stay below."""
    found = _compared(x, BASELINE_FAMILY, baseline, result)
    answer: dict[str, Any] = {"verdict": found["verdict"], "against_baseline": found, "against_best": None}
    if best is not None:
        answer["against_best"] = {"run": best[0]} | _compared(x, BEST_FAMILY, best[1], result)
    return answer


def _compared(x: Experiment, family: str, a: Evaluation, b: Evaluation) -> dict[str, Any]:
    level = level_of(x, family)
    return compare(a, b, level=level).as_dict() | {"level": level}


def level_of(x: Experiment, family: str = BASELINE_FAMILY) -> float:
    """What the p-value of the next run's comparison has to stay below."""
    before = (getattr(run, family) for run in x.scored_runs)
    return level_after([found["verdict"] != Verdict.CANNOT_TELL for found in before if found])


def told_together(comparisons: Sequence[tuple[Evaluation, Evaluation]]) -> list[dict[str, Any]]:
    """Several comparisons that are told at once, such as an ablation's arms, corrected by Holm."""
    p_values = [compare(a, b).p_value for a, b in comparisons]
    return [
        compare(a, b, level=level).as_dict() | {"level": level}
        for (a, b), level in zip(comparisons, holm_levels(p_values), strict=True)
    ]


# --- Forgetting -------------------------------------------------------------------------------------------------------


def forgotten(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """What became of the benchmark's old tasks, from two evaluations as the evaluator wrote them: paired item by item,
    and corrected by Holm for being several tasks. Empty where they were not asked of both."""
    old, new = _old_tasks(before), _old_tasks(after)
    names = [name for name in new if name in old]
    told = told_together([(old[name], new[name]) for name in names])
    return [
        {"name": name, "before": old[name].value, "after": new[name].value}
        | {key: found[key] for key in ("n", "difference", "ci_low", "ci_high", "p_value", "level", "verdict")}
        for name, found in zip(names, told, strict=True)
    ]


def _old_tasks(raw: Mapping[str, Any] | None) -> dict[str, Evaluation]:
    """Name -> the task's own evaluation; only tasks that say their items' scores."""
    found = {}
    for task in _mappings((raw or {}).get("old_tasks")):
        scores = task.get("scores")
        if isinstance(scores, Mapping) and scores and raw is not None:
            samples = tuple(Sample(str(item), float(score)) for item, score in scores.items())
            found[str(task["name"])] = Evaluation(
                f"old task {task['name']}", str(raw.get("harness_digest", "")), str(raw.get("model", "")),
                str(raw.get("metric", "")), float(task["after"]), 0.0, len(samples), "dev", samples=samples,
            )  # fmt: skip
    return found


def _mappings(value: object) -> Iterable[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


# --- The seal ---------------------------------------------------------------------------------------------------------


def reached_run(x: Experiment) -> Run | None:
    """The run that reaches the target on dev and may count; None when there is none."""
    found = x.candidate
    if found is None or found.score is None or x.goal is None or not x.goal.reached(found.score.value):
        return None
    return found


def chance(x: Experiment, run: Run) -> float:
    """Probability that the sealed items will show at least the target for this run, the best of those so far."""
    assert x.goal is not None and run.score is not None
    sealed = x.splits.get("sealed", run.score.n)
    return chance_of_confirming(run.score, len(x.scored_runs), x.rung, target=x.goal.target, sealed=sealed)


def wise(x: Experiment, run: Run) -> bool:
    """Whether what is known of this run is enough to open the seal for it while something is left to try."""
    assert x.goal is not None and run.score is not None
    sealed = x.splits.get("sealed", run.score.n)
    return wise_to_open(run.score, len(x.scored_runs), x.rung, target=x.goal.target, sealed=sealed)


def holdout_events(after: Experiment, run: int, asked: Evaluation, before: Evaluation | None) -> list[NewEvent]:
    """The Ladder's answer for a run that was `asked` on the holdout, all that is ever told of it; `before` is what the
    run of the last answer was found to have there, where that is still known."""
    rung = climbed(asked, run, after.rung, before)
    data = {"run": run, "n": asked.n, "told": rung.run == run, "rung": rung.as_dict()}
    return [NewEvent(EventKind.HOLDOUT_ASKED, f"run/{run}/holdout", data)]


def seal_events(
    x: Experiment, run: int, result: Evaluation, score: Mapping[str, Any], why: str, base: Evaluation | None
) -> list[NewEvent]:
    """What the sealed items said of a run: that they were read, and whether they confirm it. Without the second, the
    base model is to be asked on them too; `base` is what it said. `why` made the seal be opened against the odds."""
    assert x.goal is not None and x.baseline is not None
    opened = x.seal or {"run": run, "score": dict(score), "chance": chance(x, x.runs[run - 1]), "why": why}
    events = [] if x.seal is not None else [NewEvent(EventKind.SEAL_OPENED, f"seal/{run}", opened)]
    found = confirmation(result, target=x.goal.target, baseline=x.baseline, base_on_seal=base)
    if found is None:
        return events
    reason, against = found.reason, str(opened["why"]).rstrip(".")
    if not found.confirmed and against:
        reason += f" It was opened at an estimated chance of {100 * opened['chance']:.0f} % ({against})."
    data = {"run": run, "confirmed": found.confirmed, "reason": reason, "lower_bound": found.lower_bound,
            "score": dict(score)}  # fmt: skip
    return [*events, NewEvent(EventKind.CONFIRMED, "confirmed", data)]
