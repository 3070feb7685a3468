"""Which job is due before a goal can go on: of pieces that `policy` puts in order, as pure as it is."""

from __future__ import annotations

import yaml

from bot.domain.experiment import BASELINE, Experiment, JobRole, Run, State
from bot.domain.recipe import earlier_run
from bot.loop.action import Action, ActionKind, conclude
from bot.loop.spending import data_key

MAX_ATTEMPTS = 3
"""Launches of one job when the platform, not the recipe, failed."""


def job_due(x: Experiment, role: JobRole, run: int, expects: str = "") -> Action | None:
    """The launch that is due for this job, or None when it has ended for good."""
    job = x.job_for(role, run, expects)
    attempt = 1 if job is None else job.attempt + 1
    if job is None or job.gone or (job.blameless and job.attempt < MAX_ATTEMPTS):
        return Action(ActionKind.LAUNCH, {"role": str(role), "run": run, "attempt": attempt, "expects": expects})
    return None


def data_due(x: Experiment) -> Action | None:
    """What is due before the head's training data can be trained on; None when it is ready (or known to be broken)."""
    key = data_key(x.recipe, x.recipe_digests)
    if key in x.data:
        return None
    upcoming = len(x.runs) + 1
    return job_due(x, JobRole.DATA, upcoming, key) or Action(ActionKind.CHECK_DATA, {"data_key": key, "run": upcoming})


def baseline_due(x: Experiment) -> Action:
    """The evaluation of the untouched base model, or noting what it found."""
    assert x.goal is not None
    launch = job_due(x, JobRole.BASELINE, BASELINE, x.goal.hash)
    return launch or Action(ActionKind.RECORD_BASELINE, {"goal_hash": x.goal.hash})


def run_data_due(x: Experiment, run: Run) -> Action | None:
    """What is due because the set that this run trains on is gone with its machine; None when nothing is."""
    key = data_key(run.recipe, run.digests)
    built = [job for job in x.jobs.values() if job.role is JobRole.DATA and job.expects == key]
    if not any(job.gone for job in built) or key != data_key(x.recipe, x.recipe_digests):
        return None
    return data_due(x)


def data_lost(x: Experiment, run: Run) -> bool:
    """Whether that set is gone for good, because the head asks for another by now."""
    key = data_key(run.recipe, run.digests)
    return key not in x.data and key != data_key(x.recipe, x.recipe_digests)


def earlier_again(x: Experiment, run: Run) -> Action | None:
    """What is due before a run can start from an earlier run's model that is gone with the machine that trained it."""
    values = yaml.safe_load(run.recipe) or {}
    for key in ("init_from", "teacher"):
        n = earlier_run(values.get(key))
        job = x.job_for(JobRole.TRAIN, n) if n is not None and n <= len(x.runs) else None
        if n is not None and job is not None and job.gone:
            return model_again(x, x.runs[n - 1], f"run {run.n} starts from run {n}")
    return None


def model_again(x: Experiment, best: Run, wanted: str = "") -> Action | None:
    """What is due before the best run's model can be confirmed, when it is gone with the machine that trained it; or
    the model of any run, which `wanted` says what for."""
    trained = [job for job in x.jobs.values() if job.role is JobRole.TRAIN and job.run == best.n]
    if not any(job.gone for job in trained):
        return None
    last = trained[-1]
    if last.gone and data_lost(x, best):
        reason = f"run {best.n}'s model and training data are gone with their machine, so nothing can confirm it"
        return conclude(State.NEEDS_HUMAN, reason)
    if last.gone and not last.again:
        if wanted:
            return conclude(
                State.NEEDS_HUMAN,
                f"{wanted}, whose model is gone with the machine that trained it; `/postdoc resume` trains it once "
                "more, at the same cost, and then goes on",
            )
        return conclude(
            State.NEEDS_HUMAN,
            f"run {best.n} reached the target, but its model is gone with the machine that trained it, so the sealed "
            "test cannot be made; `/postdoc resume` trains it once more, at the same cost, and then makes it",
        )
    if (due := run_data_due(x, best)) is not None:
        return due
    if (train := job_due(x, JobRole.TRAIN, best.n)) is not None:
        return train
    if last.succeeded:
        return None
    return conclude(State.NEEDS_HUMAN, f"run {best.n}'s model was gone, and training it once more failed")
