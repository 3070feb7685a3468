"""The methods of a goal one after the other, and the one that sometimes has to come first."""

from __future__ import annotations

from collections.abc import Sequence

from bot.brain.keeping import best_of, kept_run
from bot.brain.playbook import Kind, Means, Remedy, stage_recipe
from bot.domain.diagnosis import Diagnosis, Symptom
from bot.domain.experiment import Experiment, Run
from bot.domain.methods import METHODS
from bot.domain.recipe import run_name

_NEEDS_SFT = frozenset({Symptom.REWARD_ZERO, Symptom.ZERO_STD})
_STARTS_FROM_SFT = frozenset({"grpo", "rft"})


def next_stage(x: Experiment, run: Run, means: Means, *, repairable: bool) -> Remedy | None:
    """The goal's next method, once the present one has a model and nothing of it can be repaired, or no run is left to
    do so; None where there is none."""
    assert x.goal is not None
    stages, between = x.goal.stages, _comes_first(x, run)
    index = x.stage if between else x.stage + 1
    if index >= len(stages):
        return None
    best = _best(x, run)
    if best is None or (repairable and means.runs_left > len(stages) - index):
        return None
    method = stages[index]
    done = METHODS[run.method].title if run.method in METHODS else run.method
    why = f"{METHODS[method].title} goes on from run {best.n}, the best of {done}"
    why += "." if between else f": stage {index + 1} of {len(stages)}."
    before = next((each for each in reversed(x.runs) if between and each.method == method), None)
    return _stage(run, means, method, run_name(best.n), why, index=index, again=before)


def sft_first(x: Experiment, run: Run, means: Means, harmful: Sequence[Diagnosis]) -> Remedy | None:
    """Supervised fine-tuning before a method whose samples are never told apart by their reward: what is never right
    cannot be preferred. The method then goes on from what this gives.

    A person decides, unless the goal left the method open.
    """
    assert x.goal is not None
    symptom = next((found.symptom for found in harmful if found.symptom in _NEEDS_SFT), None)
    if symptom is None or run.method not in _STARTS_FROM_SFT or means.runs_left < 2:
        return None
    if any(each.method == "sft" and each.score is not None for each in x.runs):
        return None
    open_to_us = x.goal.method is None and x.goal.recipe is None
    why = (
        f"No sample of `{run.method}` was told from another by its reward. Supervised fine-tuning first makes right "
        "answers that it can then prefer."
    )
    waits = "" if open_to_us else f"the goal trains by `{run.method}`, and this trains by another method first"
    return _stage(run, means, "sft", x.goal.base_model, why, index=x.stage, waits=waits, symptom=str(symptom))


def _stage(
    run: Run, means: Means, method: str, init_from: str, why: str, *, index: int, waits: str = "", symptom: str = "",
    again: Run | None = None,
) -> Remedy:  # fmt: skip
    """`again` is a run whose recipe the method goes on with; else it starts with the playbook's row."""
    if again is not None:
        text = again.recipe
    else:
        size = means.parameters or 0.0
        text = stage_recipe(run.recipe, method, init_from=init_from, family=means.family, parameters=size).text
    stage = {"index": index, "method": method, "agreed": not waits}
    return Remedy(
        "method", method, symptom, why, also={"init_from": init_from}, kind=Kind.STAGE, recipe=text,
        stage=stage, waits=waits,
    )  # fmt: skip


def _comes_first(x: Experiment, run: Run) -> bool:
    """Whether the run is of a method that was put before the goal's own."""
    assert x.goal is not None
    return run.method != x.goal.stages[min(x.stage, len(x.goal.stages) - 1)]


def _best(x: Experiment, run: Run) -> Run | None:
    """The run of this stage and method that the next goes on from."""
    kept = kept_run(x)
    if kept is not None:
        return kept[0]
    of_stage = [each for each in x.runs if (each.stage, each.method) == (run.stage, run.method)]
    return best_of(x, [each for each in of_stage if each.yardstick in ("", x.yardstick)])
