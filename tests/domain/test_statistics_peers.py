"""The same numbers from scipy and statsmodels, computed here: skipped only where they are not installed."""

from __future__ import annotations

import random

import pytest

from bot.domain import statistics as s
from bot.domain.comparison import compare_seeds
from bot.domain.distributions import t_quantile, t_two_sided
from bot.domain.evaluation import Evaluation, Sample
from bot.domain.sequential import holm_levels

PAIRS = [(0, 0), (0, 6), (3, 9), (13, 27), (35, 55), (120, 90), (400, 460)]


pytestmark = pytest.mark.slow  # statsmodels takes seconds to import


@pytest.mark.parametrize(("only_a", "only_b"), PAIRS)
def test_mcnemar_is_scipys_binomial_test_and_statsmodels_exact_one(only_a: int, only_b: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    if only_a + only_b:
        assert s.mcnemar(only_a, only_b) == pytest.approx(stats.binomtest(only_a, only_a + only_b).pvalue, rel=1e-9)
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    if only_a + only_b:
        found = tables.mcnemar([[5, only_a], [only_b, 5]], exact=True).pvalue
        assert s.mcnemar(only_a, only_b) == pytest.approx(found, rel=1e-9)


def test_intervals_of_shares_are_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    for right, n in ((0, 30), (1, 30), (17, 57), (448, 448), (134, 448)):
        found = stats.binomtest(right, n)
        for ours, method in ((s.wilson_interval, "wilson"), (s.clopper_pearson_interval, "exact")):
            theirs = found.proportion_ci(method=method)
            assert ours(right, n) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_students_t_is_scipys() -> None:
    t = pytest.importorskip("scipy.stats").t
    for degrees in (1, 2.5, 7, 200):
        for value in (0.0, 0.3, 1.9, 6.0):
            assert t_two_sided(value, degrees) == pytest.approx(2 * t.sf(value, degrees), rel=1e-8)
        assert t_quantile(0.975, degrees) == pytest.approx(t.ppf(0.975, degrees), rel=1e-8)


def test_clustered_error_is_statsmodels_but_for_its_extra_correction() -> None:
    api = pytest.importorskip("statsmodels.api")
    rng = random.Random(2)
    groups = [i // 4 for i in range(120)]
    effect = [rng.gauss(0, 1) for _ in range(30)]
    scores = [effect[group] + rng.gauss(0, 1) for group in groups]
    found = api.OLS(scores, [1.0] * 120).fit(cov_type="cluster", cov_kwds={"groups": groups})
    # statsmodels multiplies by (n - 1) / (n - k) too, which is 1 for a mean.
    assert s.clustered_standard_error(scores, [str(g) for g in groups]) == pytest.approx(float(found.bse[0]), rel=1e-9)


def test_holm_is_statsmodels() -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    rng = random.Random(3)
    for _ in range(50):
        p_values = [rng.random() ** 4 for _ in range(6)]
        theirs = list(multitest.multipletests(p_values, alpha=0.05, method="holm")[0])
        assert [p < level for p, level in zip(p_values, holm_levels(p_values), strict=True)] == theirs


def test_pooled_seeds_on_endless_items_are_welchs_test() -> None:
    """Where every item of a seed has the same score, no variance is left but the seeds'."""
    stats = pytest.importorskip("scipy.stats")
    a, b = [0.50, 0.55, 0.47, 0.52], [0.60, 0.71, 0.66]

    def side(values: list[float]) -> list[Evaluation]:
        samples = {value: tuple(Sample(f"i{n}", value) for n in range(40)) for value in values}
        return [Evaluation("b", "d", "m", "f1", value, 0.0, 40, "dev", samples=samples[value]) for value in values]

    found = compare_seeds(side(a), side(b))
    theirs = stats.ttest_ind(b, a, equal_var=False)
    assert found.p_value == pytest.approx(theirs.pvalue, rel=1e-6)
    assert found.difference == pytest.approx(sum(b) / 3 - sum(a) / 4)
    low, high = theirs.confidence_interval(0.95)
    assert (found.ci_low, found.ci_high) == pytest.approx((low, high), rel=1e-6)
