"""B against A on the same items: the difference, its interval, a verdict, and what it would take to tell.

Right-or-wrong scores on the same items are compared by the exact McNemar test. Other scores, and items that come in
clusters, are compared by random subsampling (Hartigan 1969, https://doi.org/10.1080/01621459.1969.10501069): the means
of 10,000 random subsets of the paired differences, whole clusters in or out. It is a paired bootstrap whose weights are
0 or 1: its tails give the sign-flip permutation test and its quantiles the interval that inverts it, so the two never
disagree; unlike a percentile bootstrap it keeps its level at ten items, and a subset is one random integer, which makes
2,000 items take a fifth of a second without numpy.

Several seeds of each side are pooled with the variance between seeds (`compare_seeds`): one seed says nothing about a
method (https://arxiv.org/abs/2504.07086). The luck of having looked several times is `bot.domain.sequential`'s.

A metric whose values are better when they are lower is compared as it is read: differences are B minus A in its unit,
and the verdict is what knows the direction (`bot.domain.metrics`). Weighted scores (errors per word) are compared
as ratios of sums; perplexities on the scale of their logarithms, and said as perplexities.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from bot.domain.distributions import t_quantile, t_two_sided
from bot.domain.evaluation import Comparison, Evaluation, Verdict
from bot.domain.metrics import DEFAULT, Counting, Metric, metric_named
from bot.domain.statistics import (
    CONFIDENCE,
    POWER,
    Interval,
    clustered_standard_error,
    item_scores,
    item_weights,
    items_needed,
    mcnemar,
    minimum_detectable,
    paired_interval,
    power_factor,
    weighted_mean,
)
from bot.errors import UserError

RESAMPLES = 10_000
# Every subset is visited instead of a sample of them up to this many items (8,191 subsets).
EXHAUSTIVE_ITEMS = 13
# Sums of the same scores in another order differ in the last bits; a mean this small is zero.
_ZERO = 1e-12


class Looks(NamedTuple):
    """How sure an interval and a verdict are to be."""

    confidence: float = CONFIDENCE
    """Of the interval."""
    level: float = 1 - CONFIDENCE
    """A p-value below it is a verdict; smaller than 1 - confidence where somebody looks several times."""


def compare(
    a: Evaluation,
    b: Evaluation,
    *,
    clusters: Mapping[str, str] | None = None,
    confidence: float = CONFIDENCE,
    level: float | None = None,
    seed: int = 0,
) -> Comparison:
    """B against A on the items both have; `better` and `worse` are said only when the interval excludes zero.

    `clusters` maps item ids to the passage or domain that they share; by default the samples themselves say it. `level`
    (1 - confidence by default) is what the p-value has to stay below for a verdict. The answer is the same for the same
    `seed`, and exactly mirrored when A and B are exchanged.

    Raises: UserError when the two do not measure the same thing the same way, or share no item.
    """
    require_comparable(a, b)
    looks = Looks(confidence, 1 - confidence if level is None else level)
    clusters = clusters or _clusters(a, b)
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
        found = _compare_binary(pairs, looks)
    else:
        groups = [clusters.get(item, item) if clusters else item for item in common]
        found = _compare_graded(pairs, weights, groups, binary=binary, looks=looks, seed=seed)
    return _in_its_unit(found, metric, weighted_mean([scores_a[item] for item in common], weights))


def told_alone(found: Mapping[str, Any]) -> Verdict:
    """What a `Comparison.as_dict()` says by itself, at its interval's confidence: enough to choose what to build on,
    too little to claim anything after several looks."""
    metric = metric_named(str(found.get("metric", DEFAULT)))
    if found["ci_low"] <= 0 <= found["ci_high"] or found["p_value"] >= 1 - CONFIDENCE:
        return Verdict.CANNOT_TELL
    return Verdict.BETTER if metric.gain(0.0, found["difference"]) > 0 else Verdict.WORSE


def _clusters(a: Evaluation, b: Evaluation) -> dict[str, str] | None:
    """Item -> its cluster, where the benchmark has clusters."""
    found = {sample.id: sample.cluster for one in (a, b) for sample in one.samples if sample.cluster}
    return found or None


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


def require_comparable(a: Evaluation, b: Evaluation) -> None:
    """Raises: UserError, one message that says what to do, unless the two measure the same thing the same way."""
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


# --- Several seeds ----------------------------------------------------------------------------------------------------


def compare_seeds(
    a: Sequence[Evaluation], b: Sequence[Evaluation], *, confidence: float = CONFIDENCE, level: float | None = None
) -> Comparison:
    """Recipe B against recipe A, each trained with several seeds and evaluated on the same items.

    Each item's scores are averaged over the seeds first. The variance of the difference is that of the items (paired,
    clustered where there are clusters) and that of training, s_A^2 / S_A + s_B^2 / S_B with s the standard deviation
    between seeds' means; a side with one seed borrows the other's s. Student's t with Welch and Satterthwaite's degrees
    of freedom (https://doi.org/10.2307/3002019). With one seed each it is `compare`.

    Raises: UserError.
    """
    if not a or not b:
        raise UserError("Nothing is there to compare: each side needs at least one evaluation.")
    for one in (*a[1:], *b):
        require_comparable(a[0], one)
    if len(a) == len(b) == 1:
        return compare(a[0], b[0], confidence=confidence, level=level)
    metric = a[0].measure
    items = compare(_averaged(a), _averaged(b), confidence=confidence, level=level)
    rank_a, rank_b = ([metric.rank(metric.mean_of(one.value)) for one in side] for side in (a, b))
    spread_a, spread_b = _between(rank_a), _between(rank_b)
    parts = [(_items_variance(a, b), items.n - 1)]
    for spread, others, side in ((spread_a, spread_b, a), (spread_b, spread_a, b)):
        known = spread if spread is not None else others
        assert known is not None, "one of the sides has several seeds"
        parts.append((known / len(side), max(len(side), 2) - 1))
    variance = math.fsum(part for part, _ in parts)
    difference = math.fsum(rank_b) / len(rank_b) - math.fsum(rank_a) / len(rank_a)
    weighed = math.fsum(part**2 / max(freedom, 1) for part, freedom in parts)
    degrees = variance**2 / weighed if weighed > 0 else 1.0
    error = math.sqrt(variance)
    looks = Looks(confidence, 1 - confidence if level is None else level)
    p_value = t_two_sided(difference / error, degrees) if error > 0 else float(difference == 0)
    half = t_quantile((1 + confidence) / 2, degrees) * error
    found = _comparison(
        difference, Interval(difference - half, difference + half), p_value, items.n, items.discordant,
        variance * items.n + difference**2, looks, binary=False,
    )  # fmt: skip
    mean_a = math.fsum(metric.rank(rank) for rank in rank_a) / len(rank_a)
    return replace(_in_its_unit(found, metric, mean_a), seeds=(len(a), len(b)))


def _averaged(side: Sequence[Evaluation]) -> Evaluation:
    """One evaluation whose items have the mean of the seeds' scores; only items that every seed has."""
    scores = [item_scores(one) for one in side]
    common = set(scores[0]).intersection(*scores[1:])
    samples = tuple(
        replace(sample, score=math.fsum(each[sample.id] for each in scores) / len(scores))
        for sample in {sample.id: sample for sample in side[0].samples}.values()
        if sample.id in common
    )
    return replace(side[0], samples=samples)


def _between(means: Sequence[float]) -> float | None:
    """Variance between seeds; None for a single one."""
    if len(means) < 2:
        return None
    middle = math.fsum(means) / len(means)
    return math.fsum((mean - middle) ** 2 for mean in means) / (len(means) - 1)


def _items_variance(a: Sequence[Evaluation], b: Sequence[Evaluation]) -> float:
    """Of the mean paired difference over items, seeds averaged."""
    side_a, side_b = _averaged(a), _averaged(b)
    scores_a, scores_b, weights = item_scores(side_a), item_scores(side_b), item_weights(side_a)
    clusters = _clusters(side_a, side_b) or {}
    common = sorted(scores_a.keys() & scores_b.keys())
    differences = [scores_b[item] - scores_a[item] for item in common]
    groups = [clusters.get(item, item) for item in common]
    return clustered_standard_error(differences, groups, [weights[item] for item in common]) ** 2


def _compare_binary(pairs: Sequence[tuple[float, float]], looks: Looks) -> Comparison:
    n = len(pairs)
    only_a = sum(score_a > score_b for score_a, score_b in pairs)
    only_b = sum(score_b > score_a for score_a, score_b in pairs)
    interval = paired_interval(only_a, only_b, n, looks.confidence)
    p_value = mcnemar(only_a, only_b)
    return _comparison(
        (only_b - only_a) / n, interval, p_value, n, (only_a, only_b), (only_a + only_b) / n, looks, binary=True
    )


def _compare_graded(
    pairs: Sequence[tuple[float, float]],
    weights: Sequence[float],
    groups: Sequence[str],
    *,
    binary: bool,
    looks: Looks,
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
    interval = _central(values, looks.confidence, most)
    mean = weighted_mean(differences, weights)
    # A cluster of k items that move together is worth fewer than k; the square of the clustered error says how many.
    error = clustered_standard_error(differences, groups, weights) if len(sums) > 1 else 1.0
    spread = error**2 * n + mean**2
    discordant = (sum(d < 0 for d in differences), sum(d > 0 for d in differences))
    low, high = min(interval.low, mean), max(interval.high, mean)
    return _comparison(mean, Interval(low, high), _two_sided(values), n, discordant, spread, looks, binary=binary)


def _comparison(
    difference: float,
    interval: Interval,
    p_value: float,
    n: int,
    discordant: tuple[int, int],
    spread: float,
    looks: Looks,
    *,
    binary: bool,
) -> Comparison:
    verdict = Verdict.CANNOT_TELL
    if p_value < looks.level:
        verdict = Verdict.BETTER if interval.low > 0 else Verdict.WORSE if interval.high < 0 else Verdict.CANNOT_TELL
    sure = 1 - looks.level
    needed = items_needed(difference, spread, confidence=sure) if verdict is Verdict.CANNOT_TELL else None
    if binary or spread == 0:
        detectable = minimum_detectable(spread, n, confidence=sure)
    else:
        detectable = power_factor(sure, POWER) * math.sqrt(max(spread - difference**2, 0.0) / n)
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
