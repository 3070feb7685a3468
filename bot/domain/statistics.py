"""Standard errors, intervals, exact tests, and what a number of items can and cannot show. Standard library only.

`bot.domain.comparison` compares two evaluations with them, `bot.domain.sequential` says what that means after several
looks, `bot.domain.sealing` what the sealed split is opened for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from bot.domain.distributions import beta_quantile, expected_largest_normal, normal_quantile, t_quantile
from bot.domain.evaluation import Evaluation
from bot.domain.metrics import Counting
from bot.errors import UserError

CONFIDENCE = 0.95
POWER = 0.8
USUAL_CORRELATION = 0.5
"""Of two models' answers over items, before anything is known of them; GPQA's published arithmetic assumes it."""
# Six discordant pairs, all in one favour, are the fewest that the exact test calls significant: 2 * 0.5**6 = 0.031.
FEWEST_TELLING_PAIRS = 6


class Interval(NamedTuple):
    low: float
    high: float


class Estimate(NamedTuple):
    mean: float
    standard_error: float


def proportion_standard_error(value: float, n: int) -> float:
    """Normal-theory standard error of a share of `n` items; 0 at shares of 0 and 1: see `wilson_interval`."""
    return math.sqrt(max(value * (1 - value), 0.0) / n)


def mean_and_standard_error(scores: Sequence[float]) -> Estimate:
    """Mean of independent scores with its standard error, sd / sqrt(n) (n - 1 inside sd); 0 for a single score."""
    n = len(scores)
    if n == 0:
        raise UserError("There are no scores to average. Evaluate at least one item.")
    mean = math.fsum(scores) / n
    if n == 1:
        return Estimate(mean, 0.0)
    variance = math.fsum((score - mean) ** 2 for score in scores) / (n - 1)
    return Estimate(mean, math.sqrt(variance / n))


def clustered_standard_error(
    scores: Sequence[float], clusters: Sequence[str], weights: Sequence[float] | None = None
) -> float:
    """Standard error of the mean when items of one cluster (a passage, a domain) succeed and fail together.

    The sandwich estimator of Miller (https://arxiv.org/abs/2411.00640, section 2.2) with the usual correction for few
    clusters, so that clusters of one item give `mean_and_standard_error`. Too small below about 20 clusters.
    """
    weights = weights or [1.0] * len(scores)
    mean = weighted_mean(scores, weights)
    residuals: dict[str, float] = {}
    for score, cluster, weight in zip(scores, clusters, weights, strict=True):
        residuals[cluster] = residuals.get(cluster, 0.0) + weight * (score - mean)
    groups = len(residuals)
    if groups == 1:
        return 0.0
    total = math.fsum(residual**2 for residual in residuals.values())
    return math.sqrt(total * groups / (groups - 1)) / math.fsum(weights)


def weighted_mean(scores: Sequence[float], weights: Sequence[float]) -> float:
    if not scores:
        raise UserError("There are no scores to average. Evaluate at least one item.")
    return math.fsum(w * s for w, s in zip(weights, scores, strict=True)) / math.fsum(weights)


def wilson_interval(successes: float, n: int, confidence: float = CONFIDENCE) -> Interval:
    """Score interval of a proportion (Wilson 1927): holds near 0 and 1, where value ± 2 standard errors does not."""
    if n <= 0:
        raise UserError("An interval needs at least one item.")
    z = normal_quantile((1 + confidence) / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(max(share * (1 - share), 0.0) / n + z * z / (4 * n * n))
    return Interval(min(max(centre - half, 0.0), share), max(min(centre + half, 1.0), share))


@lru_cache(maxsize=4096)
def clopper_pearson_interval(successes: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """Exact interval of a proportion: never covers less than it says. It inverts the two-sided binomial test."""
    tail = (1 - confidence) / 2
    low = 0.0 if successes == 0 else beta_quantile(tail, successes, n - successes + 1)
    high = 1.0 if successes == n else beta_quantile(1 - tail, successes + 1, n - successes)
    return Interval(low, high)


def value_interval(evaluation: Evaluation, confidence: float = CONFIDENCE) -> Interval:
    """Interval of an evaluation's value: Wilson for right-or-wrong scores, Student's t for others and for items in
    clusters, within what the metric can be. For perplexity it is computed on the scale of logarithms."""
    successes = _successes(evaluation)
    if successes is not None:
        return wilson_interval(successes, evaluation.n, confidence)
    t = t_quantile((1 + confidence) / 2, _degrees(evaluation))
    return Interval(_moved(evaluation, -t), _moved(evaluation, t))


def _degrees(evaluation: Evaluation) -> int:
    """Of freedom: independent items, or clusters where items come in clusters, less one."""
    clusters = {sample.cluster or sample.id for sample in evaluation.samples}
    return max((len(clusters) if clusters else evaluation.n) - 1, 1)


def _moved(evaluation: Evaluation, errors: float) -> float:
    """The value that many standard errors further up, within what the metric can be."""
    metric, value, error = evaluation.measure, evaluation.value, evaluation.standard_error
    if metric.counting is Counting.LOG:
        return metric.clipped(metric.of_mean(metric.mean_of(value) + errors * error / max(value, 1e-300)))
    return metric.clipped(value + errors * error)


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p-value that two systems are equally right, from the items that exactly one of them has right."""
    n = only_a + only_b
    term, tail = 1, 1
    for k in range(1, min(only_a, only_b) + 1):
        term = term * (n - k + 1) // k
        tail += term
    return min(1.0, tail / 2 ** (n - 1)) if n else 1.0


def paired_interval(only_a: int, only_b: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """Interval of the difference (B minus A) of two proportions on the same `n` items.

    The smallest interval around two: Bonett and Price's (2012, adjusted Wald), which knows that the number of
    discordant items varies too and stays honest when there are none, and the exact one given that number, which
    excludes zero exactly when `mcnemar` is below 1 - confidence. So interval and test tell the same story.
    """
    z = normal_quantile((1 + confidence) / 2)
    share_a, share_b = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    centre = share_b - share_a
    half = z * math.sqrt((share_a + share_b - centre**2) / (n + 2))
    discordant = only_a + only_b
    exact = clopper_pearson_interval(only_b, discordant, confidence) if discordant else Interval(0.5, 0.5)
    low = min(centre - half, (2 * exact.low - 1) * discordant / n)
    high = max(centre + half, (2 * exact.high - 1) * discordant / n)
    return Interval(max(low, -1.0), min(high, 1.0))


def minimum_detectable(discordance: float, n: int, *, confidence: float = CONFIDENCE, power: float = POWER) -> float:
    """Smallest difference of two proportions that `n` shared items show, at this share of discordant items.

    Solves difference = (z_alpha + z_beta) * sqrt((discordance - difference**2) / n). Never below what the exact test
    can call significant at all, and at most 1.
    """
    z_squared = power_factor(confidence, power) ** 2
    smallest = math.sqrt(z_squared * discordance / (n + z_squared))
    return min(max(smallest, FEWEST_TELLING_PAIRS / n), 1.0)


def items_needed(
    difference: float, discordance: float, *, confidence: float = CONFIDENCE, power: float = POWER
) -> int | None:
    """Shared items after which a true difference this large shows with `power`; None for a difference of zero.

    `discordance` is the share of discordant items, or the mean square of the paired differences when scores are graded.
    """
    if difference == 0:
        return None
    variance = max(discordance - difference**2, 0.0)
    return max(math.ceil(power_factor(confidence, power) ** 2 * variance / difference**2), FEWEST_TELLING_PAIRS)


def minimum_detectable_unpaired(
    value: float, n: int, *, correlation: float = 0.0, confidence: float = CONFIDENCE, power: float = POWER
) -> float:
    """Before anything ran: smallest difference from `value` that `n` items each would show.

    `correlation` is that of the two systems' scores over items; 0 stands for two disjoint sets of items.
    """
    return power_factor(confidence, power) * math.sqrt(2 * value * (1 - value) * (1 - correlation) / n)


def luck_of_best(runs: int, standard_error: float, *, correlation: float = 0.5) -> float:
    """How far the best of `runs` equally good runs is expected to lie above their true value by luck alone."""
    if runs <= 1:
        return 0.0
    return expected_largest_normal(runs) * standard_error * math.sqrt(1 - correlation)


def item_weights(evaluation: Evaluation) -> dict[str, float]:
    """What each item's score is a mean over: words, tokens, bytes; 1 where scores are right or wrong.

    Raises: UserError for a weight below or at 0.
    """
    weights = {sample.id: sample.weight for sample in evaluation.samples}
    for item, weight in weights.items():
        if not isinstance(weight, (int, float)) or not 0 < weight < math.inf:
            raise UserError(
                f"Item {item} of the evaluation of {evaluation.model} has the weight {weight!r}. "
                "Every weight must be a number above 0."
            )
    return weights


def item_scores(evaluation: Evaluation) -> dict[str, float]:
    """Score of each item; several samples of one item are averaged first.

    Raises: UserError for an evaluation without samples or with a score that is not a number.
    """
    gathered: dict[str, list[float]] = {}
    for sample in evaluation.samples:
        if not isinstance(sample.score, (int, float)) or not math.isfinite(sample.score):
            raise UserError(
                f"Item {sample.id} of the evaluation of {evaluation.model} has the score {sample.score!r}. "
                "Every score must be a number."
            )
        gathered.setdefault(sample.id, []).append(float(sample.score))
    if not gathered:
        raise UserError(
            f"The evaluation of {evaluation.model} has no per-item scores (`samples`), and evaluations are compared "
            "item by item. Evaluate again and keep the samples."
        )
    return {item: math.fsum(scores) / len(scores) for item, scores in gathered.items()}


def one_sided_bound(evaluation: Evaluation, confidence: float = CONFIDENCE, *, cautious: bool = True) -> float:
    """Value that the true one beats with `confidence`: Clopper-Pearson for right or wrong, else Student's t. Not
    `cautious`: the value that it does not beat."""
    lower = evaluation.measure.higher_is_better == cautious
    successes = _successes(evaluation)
    if successes is not None:
        interval = clopper_pearson_interval(successes, evaluation.n, 2 * confidence - 1)
        return interval.low if lower else interval.high
    t = t_quantile(confidence, _degrees(evaluation))
    return _moved(evaluation, -t if lower else t)


def _successes(evaluation: Evaluation) -> int | None:
    """How many items are right, or None when scores are graded or do not stand alone."""
    if evaluation.n <= 0:
        raise UserError(f"The evaluation of {evaluation.model} has no items, so its value means nothing.")
    if evaluation.measure.counting is not Counting.RIGHT:
        return None
    if any(sample.cluster for sample in evaluation.samples):
        return None
    if evaluation.samples:
        scores = item_scores(evaluation).values()
        graded = len(scores) != evaluation.n or any(score not in (0.0, 1.0) for score in scores)
        return None if graded else round(sum(scores))
    count = evaluation.value * evaluation.n
    return round(count) if abs(count - round(count)) < 1e-6 * evaluation.n else None


def power_factor(confidence: float, power: float) -> float:
    """Standard errors that a true difference has to span to be told with that confidence and power."""
    return normal_quantile((1 + confidence) / 2) + normal_quantile(power)
