"""What held-out rows say beside their loss: the task's own score while training, and what training had reached then."""

from __future__ import annotations

import re
from dataclasses import dataclass
from statistics import median

from bot.diagnosis.curves import LossShape, Series, held_out_of
from bot.diagnosis.observations import Observations

# Names that `compute_metrics` returns in transformers' examples and in `evaluate`, and which way is better. Accuracies
# of single tokens are left out: with the right words before it nearly any token can be told.
_MORE_IS_BETTER = re.compile(r"(?:accuracy|acc|f1(?:_\w+)?|exact_match|rouge\w*|bleu|meteor|chrf|mcc|auc|correlation)$")
_LESS_IS_BETTER = re.compile(r"(?:^|_)(?:wer|cer)$")
_OF_TOKENS = "token_accuracy"
AS_GOOD = 0.02
"""A score that lost less than this share of itself has lost nothing: sampling noise of 500 rows at 0.8.†"""
LAST_FEW = 3


@dataclass(frozen=True, slots=True)
class TaskScore:
    """A task's own metric on held-out rows: at the evaluation whose loss was best, and at the end."""

    key: str
    then: float
    last: float
    """Median of the last evaluations after that one, three at most."""
    last_step: int
    worse: bool


def task_scores(observations: Observations) -> tuple[TaskScore, ...]:
    """One for each metric of the task that was logged beside `eval_loss`; none when only losses were."""
    return observations.once("task scores", lambda: _task_scores(observations))


def _task_scores(observations: Observations) -> tuple[TaskScore, ...]:
    loss = held_out_of(observations)
    if len(loss) < 2:
        return ()
    best = loss.steps[loss.values.index(min(loss.values))]
    keys = sorted({key for record in observations.evals for key in record})
    found = (_task_score(held_out_of(observations, key), best) for key in keys)
    return tuple(score for score in found if score is not None)


def _task_score(series: Series, best_step: int) -> TaskScore | None:
    less = _LESS_IS_BETTER.search(series.key) is not None
    more = _MORE_IS_BETTER.search(series.key) is not None and not series.key.endswith(_OF_TOKENS)
    after = series.between(best_step + 1, series.last_step) if len(series) else series
    if not (less or more) or best_step not in series.steps:
        return None
    then = series.values[series.steps.index(best_step)]
    last = median(after.values[-LAST_FEW:]) if len(after) else then
    lost = last - then if less else then - last
    return TaskScore(series.key, then, last, series.last_step, lost > AS_GOOD * abs(then))


def spared(observations: Observations) -> TaskScore | None:
    """A score of the task that did not suffer although the held-out loss rose, when none of them did.

    Fine-tuned classifiers and Whisper do so regularly: they grow too sure of the few rows that they have wrong, which
    the loss counts and the score does not (arXiv 1706.04599, section 3).
    """
    scores = task_scores(observations)
    return scores[0] if scores and not any(score.worse for score in scores) else None


def training_loss_at(shape: LossShape, step: int, points: int = 5) -> float | None:
    """Median of the last few training losses up to `step`; None before the first."""
    before = shape.series.between(shape.series.first_step, step)
    return median(before.values[-points:]) if len(before) else None
