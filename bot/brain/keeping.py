"""Which run the next change builds on: the best so far, and among those that cannot be told apart the cheaper one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from bot.domain.comparison import told_alone
from bot.domain.evaluation import Verdict
from bot.domain.experiment import Experiment, JobRole, Run
from bot.domain.metrics import Metric, metric_named

CHEAPER = 0.9
"""† Of the other's training time, below which a run counts as the cheaper one; the rest is a machine's mood."""
_TOO_FAR = frozenset({"divergence", "nan_inf", "grad_explosion", "kl_blowup", "dpo_overshoot", "overfit"})


def comparable_runs(x: Experiment) -> Sequence[Run]:
    """Runs of the latest one's stage, scripts and yardstick, from the last change by a person on: what that person
    changed is not taken back by building on an earlier run."""
    latest = x.run
    found: list[Run] = []
    for run in x.runs:
        if latest is None or (run.stage, run.method, run.digests, run.yardstick) != (
            latest.stage, latest.method, latest.digests, latest.yardstick,
        ):  # fmt: skip
            continue
        if run.changed_by not in ("", "postdoc"):
            found.clear()
        found.append(run)
    return found


def metric_of(x: Experiment) -> Metric:
    assert x.goal is not None
    return metric_named(x.goal.metric)


def best_of(x: Experiment, runs: Iterable[Run]) -> Run | None:
    """The run with the best value, the earliest among equals; None where none was evaluated."""
    rank = metric_of(x).rank
    scored = [(rank(run.score.value), run) for run in runs if run.score is not None]
    return max(scored, key=lambda pair: pair[0])[1] if scored else None


def kept_run(x: Experiment) -> tuple[Run, str] | None:
    """(the run that is built on, why), None before one was evaluated."""
    kept: Run | None = None
    why = ""
    for run in comparable_runs(x):
        if run.score is None:
            continue
        if kept is None:
            kept, why = run, "it is the first with a value"
            continue
        better, why_other = _compared(x, kept, run)
        if better is run:
            kept = run
        why = why_other
    return (kept, why) if kept is not None else None


def _compared(x: Experiment, kept: Run, run: Run) -> tuple[Run, str]:
    match _verdict(x, kept, run):
        case Verdict.BETTER:
            return run, f"it is better than run {kept.n}"
        case Verdict.WORSE:
            return kept, f"run {run.n} is worse"
    if (symptom := _repaired(x, kept, run)) is not None:
        return run, f"it cannot be told from run {kept.n} by its value, and `{symptom}` is gone"
    before, after = _price(x, kept), _price(x, run)
    if before and after and after < CHEAPER * before:
        return (
            run,
            f"it cannot be told from run {kept.n}, and its training is cheaper ({after:.0f} s, not {before:.0f})",
        )
    if before and after and before < CHEAPER * after:
        return (
            kept,
            f"run {run.n} cannot be told from it, and its training is cheaper ({before:.0f} s, not {after:.0f})",
        )
    assert kept.score is not None and run.score is not None
    if metric_of(x).better(run.score.value, kept.score.value):
        return run, f"it cannot be told from run {kept.n}, costs the same, and its value is the better one"
    return kept, f"run {run.n} cannot be told from it and costs the same"


def _verdict(x: Experiment, kept: Run, run: Run) -> Verdict:
    """Of `run` against `kept`: the paired test by itself where it was made, else by their standard errors. Building on
    a run claims nothing, so it is not corrected for the number of runs."""
    against = run.against_best or {}
    if against.get("run") == kept.n and against.get("verdict"):
        return told_alone(against)
    assert kept.score is not None and run.score is not None
    difference = metric_of(x).gain(kept.score.value, run.score.value)
    if abs(difference) <= 1.96 * math.hypot(run.score.standard_error, kept.score.standard_error):
        return Verdict.CANNOT_TELL
    return Verdict.BETTER if difference > 0 else Verdict.WORSE


def is_worse(x: Experiment, run: Run, than: Run) -> bool:
    """Whether both have a value, and that of `run` is worse by more than chance explains."""
    return than.score is not None and run.score is not None and _verdict(x, than, run) is Verdict.WORSE


def _repaired(x: Experiment, kept: Run, run: Run) -> str | None:
    """The symptom of `kept` that the change which led to `run` was made against, and that `run` does not show."""
    before = x.runs[run.n - 2] if run.n >= 2 else None
    if before is None or before.remedy is None or run.changed_by != "postdoc":
        return None
    symptom = str(before.remedy["symptom"])
    return symptom if symptom in kept.symptoms and symptom not in run.symptoms else None


def _price(x: Experiment, run: Run) -> float:
    """Seconds of training, 0 where it is not known."""
    job = x.job_for(JobRole.TRAIN, run.n)
    return job.seconds if job is not None and job.succeeded else 0.0


def overshot_runs(x: Experiment, base: Run) -> frozenset[int]:
    """Runs whose one change of `base`'s recipe went too far: it crashed, broke in a way that `base` did not, or got
    worse."""
    found = set()
    for run in comparable_runs(x):
        if run.n == base.n or run.n < base.n:
            continue
        broke = (_TOO_FAR & set(run.symptoms)) - set(base.symptoms)
        if run.score is None or broke or is_worse(x, run, base):
            found.add(run.n)
    return frozenset(found)
