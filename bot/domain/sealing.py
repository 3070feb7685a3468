"""The holdout behind the Ladder, and the sealed split: what is asked of them, when, and what their answer means.

The dev items have chosen among runs, so the best value on them is flattered by luck. Before the seal is opened, which
happens once, two things speak for the run: its dev value less the luck that the best of so many runs is expected to
have, and what the holdout says of it through the parameter-free Ladder (Blum and Hardt 2015,
https://arxiv.org/abs/1502.04585, figure 2): a new value is told only when it beats the last one that was told by a
standard error of their paired difference; else the old number is repeated. So a hundred questions reveal hardly more
than one.

Not covered: items that the base model has seen in pretraining.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from bot.domain.comparison import compare, require_comparable
from bot.domain.distributions import normal_share
from bot.domain.evaluation import Evaluation, Rung
from bot.domain.experiment import Score
from bot.domain.metrics import Counting
from bot.domain.statistics import (
    CONFIDENCE,
    item_scores,
    item_weights,
    luck_of_best,
    mean_and_standard_error,
    one_sided_bound,
    proportion_standard_error,
)

WISE = 0.6
"""† Chance of being confirmed from which on the seal is opened while runs are left. Every tenth more loses fewer goals
at the seal and takes more runs (`make bench ARGS=statistics` prints both); below .6 a first run that meets the target
by a hair would open it."""
FAR = 0.99
"""Confidence of two bounds that do not meet: then nobody needs to ask the base model on the seal."""


class Confirmation(NamedTuple):
    """What the sealed split said, once."""

    confirmed: bool
    lower_bound: float
    """One-sided: the true value is better than it with the stated confidence."""
    reason: str
    """One sentence with the numbers in it."""


def climbed(asked: Evaluation, run: int, last: Rung | None, before: Evaluation | None = None) -> Rung:
    """The Ladder's answer for a run that was `asked` on the holdout, after the rung `last`; `before` is what that rung
    was told from, where it is still there, and makes the comparison a paired one."""
    new = Rung(run, asked.value, _error(asked.value, asked.standard_error, asked.n, asked), asked.n)
    if last is None:
        return new
    step = math.hypot(new.standard_error, last.standard_error) if before is None else _paired_error(before, asked)
    return new if asked.measure.gain(last.value, asked.value) > step else last


def _paired_error(a: Evaluation, b: Evaluation) -> float:
    """Standard error of the paired difference of the two values."""
    require_comparable(a, b)
    scores_a, scores_b, weights = item_scores(a), item_scores(b), item_weights(b)
    common = sorted(scores_a.keys() & scores_b.keys())
    if len(common) < 2:
        return math.hypot(a.standard_error, b.standard_error)
    middle = math.fsum(weights[item] for item in common) / len(common)
    error = mean_and_standard_error(
        [weights[item] / middle * (scores_b[item] - scores_a[item]) for item in common]
    ).standard_error
    return error * b.value if b.measure.counting is Counting.LOG else error


def _error(value: float, standard_error: float, n: int, of: Evaluation | Score) -> float:
    """Its standard error; of a share near 0 or 1 that of one more right and one more wrong item, never 0."""
    if of.measure.counting is not Counting.RIGHT:
        return max(standard_error, 1e-9)
    return max(standard_error, proportion_standard_error((value * n + 1) / (n + 2), n))


def chance_of_confirming(score: Score, looks: int, rung: Rung | None, *, target: float, sealed: int) -> float:
    """Probability that `sealed` items will show at least the target, for a run with this dev score that is the best of
    so many `looks`, given what the Ladder has said. Normal theory; both estimates weighted by their precision."""
    metric = score.measure
    error = _error(score.value, score.standard_error, score.n, score)
    luck = luck_of_best(looks, error)
    parts = [(score.value - luck if metric.higher_is_better else score.value + luck, error)]
    if rung is not None:
        parts.append((rung.value, rung.standard_error))
    precision = math.fsum(1 / part_error**2 for _, part_error in parts)
    expected = math.fsum(value / part_error**2 for value, part_error in parts) / precision
    spread = math.sqrt(1 / precision + error**2 * score.n / max(sealed, 1))
    return normal_share(metric.gain(target, expected) / spread)


def wise_to_open(score: Score, looks: int, rung: Rung | None, *, target: float, sealed: int) -> bool:
    """Whether the seal is opened while something is left to try. A dev value that cannot get better opens it too."""
    if not score.measure.better(score.measure.best, than=score.value):
        return True
    return chance_of_confirming(score, looks, rung, target=target, sealed=sealed) >= WISE


def confirmation(
    sealed: Evaluation, *, target: float, baseline: Score, base_on_seal: Evaluation | None = None
) -> Confirmation | None:
    """Whether the sealed split confirms: the value reaches the target and its one-sided 95 % bound is better than the
    baseline. None: to say so, the base model has to be asked on the sealed items too.

    The baseline is an estimate itself. Where the run's bound and the baseline's own do not even meet at 99 %, nothing
    more is asked; else both models' answers to the sealed items are compared, paired.
    """
    metric, bound = sealed.measure, one_sided_bound(sealed)
    side, lies = ("lower", "above") if metric.higher_is_better else ("upper", "below")
    found = f"{metric.said(sealed.value)} on {sealed.n} sealed items ({side} bound {metric.said(bound)})"
    if not metric.reached(sealed.value, target):
        short = metric.said_size(metric.gain(target, sealed.value))
        return Confirmation(
            False, bound, f"{found} does not reach the target of {metric.said(target)}: {short} are missing."
        )
    reached = f"{found} reaches the target of {metric.said(target)}"
    said = metric.said(baseline.value)
    if metric.better(one_sided_bound(sealed, FAR), than=_baseline_bound(baseline)):
        return Confirmation(True, bound, f"{reached} and lies {lies} the baseline of {said}.")
    if base_on_seal is None:
        return None
    gain = _cautious_gain(base_on_seal, sealed)
    on_seal = f"the base model's {metric.said(base_on_seal.value)} on the same items"
    if gain <= 0:
        return Confirmation(False, bound, f"{reached}, but cannot be told from {on_seal} (paired, one-sided 95 %).")
    return Confirmation(True, bound, f"{reached} and lies {lies} {on_seal} (paired, one-sided 95 %).")


def _baseline_bound(baseline: Score) -> float:
    """As good as the base model may be, judged by its dev items."""
    kept = Evaluation("", "", "", baseline.metric, baseline.value, baseline.standard_error, baseline.n, "dev")
    return one_sided_bound(kept, FAR, cautious=False)


def _cautious_gain(base: Evaluation, sealed: Evaluation) -> float:
    """One-sided 95 % bound of how much better the model is on the items that both answered."""
    found = compare(base, sealed, confidence=2 * CONFIDENCE - 1)
    return found.ci_low if sealed.measure.higher_is_better else -found.ci_high
