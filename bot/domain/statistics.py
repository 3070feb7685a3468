"""Is B better than A? Intervals, paired tests and what a number of items can and cannot show. Standard library only.

Right-or-wrong scores on the same items are compared by the exact McNemar test. Other scores, and items that come in
clusters, are compared by random subsampling (Hartigan 1969, https://doi.org/10.1080/01621459.1969.10501069): the means
of 10,000 random subsets of the paired differences. Their tails give the sign-flip permutation test and their quantiles
the interval that inverts it, so the two never disagree; unlike a percentile bootstrap it keeps its level at ten items,
and a subset is one random integer, which makes 2,000 items take a fifth of a second without numpy.

A metric whose values are better when they are lower is compared as it is read: differences are B minus A in its unit,
and the verdict is what knows the direction (`bot.domain.metrics`). Weighted scores (errors per word) are compared
as ratios of sums; perplexities on the scale of their logarithms, and said as perplexities.

Not covered: variation between training seeds (one seed says nothing about a method), and the luck of having looked
several times (`luck_of_best` says how large that is).
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from bot.domain.distributions import beta_quantile, expected_largest_normal, normal_quantile, t_quantile
from bot.domain.evaluation import Comparison, Evaluation, Verdict
from bot.domain.metrics import Counting, Metric
from bot.errors import UserError

CONFIDENCE = 0.95
POWER = 0.8
RESAMPLES = 10_000
# Every subset is visited instead of a sample of them up to this many items (8,191 subsets).
EXHAUSTIVE_ITEMS = 13
# Six discordant pairs, all in one favour, are the fewest that the exact test calls significant: 2 * 0.5**6 = 0.031.
FEWEST_TELLING_PAIRS = 6
# Sums of the same scores in another order differ in the last bits; a mean this small is zero.
_ZERO = 1e-12


class Interval(NamedTuple):
    low: float
    high: float


class Estimate(NamedTuple):
    mean: float
    standard_error: float


class Confirmation(NamedTuple):
    """What the sealed split said, once."""

    confirmed: bool
    lower_bound: float
    """One-sided: the true value is better than it with the stated confidence."""
    reason: str
    """One sentence with the numbers in it."""


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


def clopper_pearson_interval(successes: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """Exact interval of a proportion: never covers less than it says. It inverts the two-sided binomial test."""
    tail = (1 - confidence) / 2
    low = 0.0 if successes == 0 else beta_quantile(tail, successes, n - successes + 1)
    high = 1.0 if successes == n else beta_quantile(1 - tail, successes + 1, n - successes)
    return Interval(low, high)


def value_interval(evaluation: Evaluation, confidence: float = CONFIDENCE) -> Interval:
    """Interval of an evaluation's value: Wilson for right-or-wrong scores, Student's t otherwise, within what the
    metric can be. For perplexity it is computed on the scale of logarithms."""
    successes = _successes(evaluation)
    if successes is not None:
        return wilson_interval(successes, evaluation.n, confidence)
    t = t_quantile((1 + confidence) / 2, max(evaluation.n - 1, 1))
    return Interval(_moved(evaluation, -t), _moved(evaluation, t))


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
    z_squared = _z_sum(confidence, power) ** 2
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
    return max(math.ceil(_z_sum(confidence, power) ** 2 * variance / difference**2), FEWEST_TELLING_PAIRS)


def minimum_detectable_unpaired(
    value: float, n: int, *, correlation: float = 0.0, confidence: float = CONFIDENCE, power: float = POWER
) -> float:
    """Before anything ran: smallest difference from `value` that `n` items each would show.

    `correlation` is that of the two systems' scores over items; 0 stands for two disjoint sets of items.
    """
    return _z_sum(confidence, power) * math.sqrt(2 * value * (1 - value) * (1 - correlation) / n)


def luck_of_best(runs: int, standard_error: float, *, correlation: float = 0.5) -> float:
    """How far the best of `runs` equally good runs is expected to lie above their true value by luck alone."""
    if runs <= 1:
        return 0.0
    return expected_largest_normal(runs) * standard_error * math.sqrt(1 - correlation)


def compare(
    a: Evaluation,
    b: Evaluation,
    *,
    clusters: Mapping[str, str] | None = None,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Comparison:
    """B against A on the items both have; `better` and `worse` are said only when the interval excludes zero.

    `clusters` maps item ids to the passage or domain that they share. The answer is the same for the same `seed`, and
    exactly mirrored when A and B are exchanged.

    Raises: UserError when the two do not measure the same thing the same way, or share no item.
    """
    _require_comparable(a, b)
    scores_a, scores_b = item_scores(a), item_scores(b)
    weights_a, weights_b = item_weights(a), item_weights(b)
    common = sorted(scores_a.keys() & scores_b.keys())
    if not common:
        raise UserError(
            f"The two evaluations of {a.benchmark} have no item in common, so nothing is paired. "
            "Evaluate both models on the same items and compare again."
        )
    if any(weights_a[item] != weights_b[item] for item in common):
        raise UserError(
            f"The two evaluations of {a.benchmark} weigh their items differently: the models read other tokens in the "
            "same texts, and a value per token does not compare. Use the metric word_perplexity or bits_per_byte."
        )
    metric = a.measure
    weights = [weights_a[item] for item in common]
    # Turned so that higher is better: then all below is one arithmetic.
    pairs = [(metric.rank(scores_a[item]), metric.rank(scores_b[item])) for item in common]
    unweighted = all(weight == 1 for weight in weights)
    binary = unweighted and all(abs(score) in (0.0, 1.0) for pair in pairs for score in pair)
    if binary and clusters is None:
        found = _compare_binary(pairs, confidence)
    else:
        groups = [clusters.get(item, item) if clusters else item for item in common]
        found = _compare_graded(pairs, weights, groups, binary=binary, confidence=confidence, seed=seed)
    return _in_its_unit(found, metric, weighted_mean([scores_a[item] for item in common], weights))


def _in_its_unit(found: Comparison, metric: Metric, mean_a: float) -> Comparison:
    """A comparison of item scores turned so that higher is better, as B minus A of the metric's values."""
    low, high = sorted((metric.rank(found.ci_low), metric.rank(found.ci_high)))
    difference, detectable = metric.rank(found.difference), found.minimum_detectable
    if metric.counting is Counting.LOG:
        value = metric.of_mean(mean_a)
        difference, low, high = (metric.of_mean(mean_a + one) - value for one in (difference, low, high))
        detectable = value - metric.of_mean(mean_a - detectable)
    span = metric.high - metric.low
    return replace(
        found,
        difference=difference,
        ci_low=max(low, -span),
        ci_high=min(high, span),
        minimum_detectable=min(detectable, span),
        metric=metric.name,
    )


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


def one_sided_bound(evaluation: Evaluation, confidence: float = CONFIDENCE) -> float:
    """Value that the true one beats with `confidence`: Clopper-Pearson for right or wrong, else Student's t."""
    successes = _successes(evaluation)
    if successes is not None:
        return clopper_pearson_interval(successes, evaluation.n, 2 * confidence - 1).low
    t = t_quantile(confidence, max(evaluation.n - 1, 1))
    return _moved(evaluation, -t if evaluation.measure.higher_is_better else t)


def confirmation(
    evaluation: Evaluation, *, target: float, baseline: float, confidence: float = CONFIDENCE
) -> Confirmation:
    """Whether the sealed split confirms: the value reaches the target and its bound is better than the baseline."""
    metric = evaluation.measure
    bound = one_sided_bound(evaluation, confidence)
    side, lies = ("lower", "above") if metric.higher_is_better else ("upper", "below")
    found = f"{metric.said(evaluation.value)} on {evaluation.n} sealed items ({side} bound {metric.said(bound)})"
    if not metric.reached(evaluation.value, target):
        return Confirmation(False, bound, f"{found} does not reach the target of {metric.said(target)}.")
    if not metric.better(bound, than=baseline):
        return Confirmation(False, bound, f"{found} cannot be told from the baseline of {metric.said(baseline)}.")
    reason = f"{found} reaches the target of {metric.said(target)} and lies {lies} the baseline of "
    return Confirmation(True, bound, f"{reason}{metric.said(baseline)}.")


def _compare_binary(pairs: Sequence[tuple[float, float]], confidence: float) -> Comparison:
    n = len(pairs)
    only_a = sum(score_a > score_b for score_a, score_b in pairs)
    only_b = sum(score_b > score_a for score_a, score_b in pairs)
    interval = paired_interval(only_a, only_b, n, confidence)
    p_value = mcnemar(only_a, only_b)
    return _comparison(
        (only_b - only_a) / n, interval, p_value, n, (only_a, only_b), (only_a + only_b) / n, confidence, binary=True
    )


def _compare_graded(
    pairs: Sequence[tuple[float, float]],
    weights: Sequence[float],
    groups: Sequence[str],
    *,
    binary: bool,
    confidence: float,
    seed: int,
) -> Comparison:
    n = len(pairs)
    differences = [score_b - score_a for score_a, score_b in pairs]
    sums: dict[str, float] = {}
    sizes: dict[str, float] = {}
    for group, difference, weight in zip(groups, differences, weights, strict=True):
        sums[group] = sums.get(group, 0.0) + weight * difference
        sizes[group] = sizes.get(group, 0.0) + weight
    values = sorted(subset_means(list(sums.values()), list(sizes.values()), random.Random(seed)))
    # Where too few items say anything: a share's whole scale, else twice the largest difference that was seen.
    most = max([1.0, *(2 * abs(difference) for difference in differences)])
    interval = _central(values, confidence, most)
    mean = weighted_mean(differences, weights)
    # A cluster of k items that move together is worth fewer than k; the square of the clustered error says how many.
    error = clustered_standard_error(differences, groups, weights) if len(sums) > 1 else 1.0
    spread = error**2 * n + mean**2
    discordant = (sum(d < 0 for d in differences), sum(d > 0 for d in differences))
    low, high = min(interval.low, mean), max(interval.high, mean)
    return _comparison(mean, Interval(low, high), _two_sided(values), n, discordant, spread, confidence, binary=binary)


def _comparison(
    difference: float,
    interval: Interval,
    p_value: float,
    n: int,
    discordant: tuple[int, int],
    spread: float,
    confidence: float,
    *,
    binary: bool,
) -> Comparison:
    verdict = Verdict.CANNOT_TELL
    if p_value < 1 - confidence:
        verdict = Verdict.BETTER if interval.low > 0 else Verdict.WORSE if interval.high < 0 else Verdict.CANNOT_TELL
    needed = items_needed(difference, spread, confidence=confidence) if verdict is Verdict.CANNOT_TELL else None
    if binary or spread == 0:
        detectable = minimum_detectable(spread, n, confidence=confidence)
    else:
        detectable = _z_sum(confidence, POWER) * math.sqrt(max(spread - difference**2, 0.0) / n)
    return Comparison(
        difference=difference,
        ci_low=interval.low,
        ci_high=interval.high,
        p_value=p_value,
        n=n,
        discordant=discordant,
        verdict=verdict,
        minimum_detectable=detectable,
        n_needed=None if needed is None else max(needed, n + 1),
    )


def subset_means(sums: Sequence[float], sizes: Sequence[float], rng: random.Random) -> list[float]:
    """Mean difference of random non-empty subsets of the groups, each group in or out with equal chance.

    Groups are taken eight at a time from tables of all 256 partial sums, so that a subset costs n/8 additions.
    """
    n = len(sums)
    tables = [_partial_sums(sums[start : start + 8]) for start in range(0, n, 8)]
    size_tables = (
        None
        if all(size == 1 for size in sizes)
        else [_partial_sums([float(size) for size in sizes[start : start + 8]]) for start in range(0, n, 8)]
    )
    masks: Iterable[int] = range(1, 2**n)
    if n > EXHAUSTIVE_ITEMS:
        masks = (rng.getrandbits(n) or 1 for _ in range(RESAMPLES))
    means = []
    for mask in masks:
        chosen = mask.to_bytes(len(tables), "little")
        total = sum(map(list.__getitem__, tables, chosen))
        count = mask.bit_count() if size_tables is None else sum(map(list.__getitem__, size_tables, chosen))
        means.append(total / count)
    return means


def _partial_sums(values: Sequence[float]) -> list[float]:
    table = [0.0]
    for value in values:
        table += [partial + value for partial in table]
    return table


def _two_sided(values: Sequence[float]) -> float:
    below, above = sum(value <= _ZERO for value in values), sum(value >= -_ZERO for value in values)
    return min(1.0, 2 * (min(below, above) + 1) / (len(values) + 1))


def _central(values: Sequence[float], confidence: float, most: float) -> Interval:
    """Interval between the order statistics that leave (1 - confidence) / 2 on each side; up to `most` if none do."""
    # Floating point makes 0.05 / 2 * 10,000 either 250.0000000002 or 249.99999999: the addition settles it.
    rank = math.floor((1 - confidence) / 2 * (len(values) + 1) + 1e-9)
    if rank < 1:
        return Interval(-most, most)
    return Interval(values[rank - 1], values[-rank])


def _require_comparable(a: Evaluation, b: Evaluation) -> None:
    for name, left, right, remedy in (
        ("benchmarks", a.benchmark, b.benchmark, "Compare two evaluations of one benchmark."),
        ("splits", a.split, b.split, "Evaluate both models on one split."),
        ("metrics", a.metric, b.metric, "Evaluate both models with one metric."),
        (
            "harness digests",
            a.harness_digest,
            b.harness_digest,
            "The harness alone moves scores: evaluate one of the models again with the other's harness.",
        ),
    ):
        if left != right:
            raise UserError(
                f"These evaluations have different {name} ({left} and {right}) and do not compare. {remedy}"
            )


def _successes(evaluation: Evaluation) -> int | None:
    """How many items are right, or None when scores are graded."""
    if evaluation.n <= 0:
        raise UserError(f"The evaluation of {evaluation.model} has no items, so its value means nothing.")
    if evaluation.measure.counting is not Counting.RIGHT:
        return None
    if evaluation.samples:
        scores = item_scores(evaluation).values()
        graded = len(scores) != evaluation.n or any(score not in (0.0, 1.0) for score in scores)
        return None if graded else round(sum(scores))
    count = evaluation.value * evaluation.n
    return round(count) if abs(count - round(count)) < 1e-6 * evaluation.n else None


def _z_sum(confidence: float, power: float) -> float:
    return normal_quantile((1 + confidence) / 2) + normal_quantile(power)
