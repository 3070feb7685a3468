"""Statistics against scipy's and statsmodels' numbers, the published table, and what must hold for any scores."""

from __future__ import annotations

import math
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.domain import statistics as s
from bot.domain.comparison import compare
from bot.domain.distributions import beta_quantile, incomplete_beta, t_quantile
from bot.domain.evaluation import Evaluation, Sample, Verdict
from bot.errors import UserError


def evaluation(scores, *, model="a", digest="d", benchmark="b", split="dev", metric="exact_match", first=0):
    mean, error = s.mean_and_standard_error(scores)
    samples = tuple(Sample(f"item{first + i}", score) for i, score in enumerate(scores))
    return Evaluation(benchmark, digest, model, metric, mean, error, len(scores), split, samples=samples)


def binary_pair(both, only_a, only_b, neither):
    a = [1.0] * both + [1.0] * only_a + [0.0] * only_b + [0.0] * neither
    b = [1.0] * both + [0.0] * only_a + [1.0] * only_b + [0.0] * neither
    return evaluation(a), evaluation(b)


# scipy.stats.binomtest(min(b, c), b + c).pvalue; statsmodels' mcnemar(exact=True) gives the same.
@pytest.mark.parametrize(
    ("only_a", "only_b", "p_value"),
    [
        (0, 0, 1.0),
        (5, 5, 1.0),
        (0, 5, 0.0625),
        (0, 6, 0.03125),
        (13, 27, 0.03847730828420026),
        (35, 55, 0.04459752462791592),
        (1000, 1200, 2.1817026407914194e-05),
    ],
)
def test_mcnemar_equals_scipy(only_a, only_b, p_value):
    assert s.mcnemar(only_a, only_b) == pytest.approx(p_value, rel=1e-9)
    assert s.mcnemar(only_b, only_a) == s.mcnemar(only_a, only_b)


def test_proportion_intervals_equal_scipy():
    # binomtest(17, 57).proportion_ci(method="wilson") and (method="exact")
    assert s.wilson_interval(17, 57) == pytest.approx((0.19532550074818092, 0.42664280103460006))
    assert s.clopper_pearson_interval(17, 57) == pytest.approx((0.1842881268157867, 0.43402641357756727))
    assert s.wilson_interval(0, 100) == pytest.approx((0.0, 0.0369934982))
    assert s.clopper_pearson_interval(100, 100) == pytest.approx((0.963783, 1.0), abs=1e-6)


def test_distributions_equal_scipy():
    assert incomplete_beta(3, 5, 0.2) == pytest.approx(0.14803200000000005, rel=1e-12)
    assert incomplete_beta(1500, 3000, 0.33) == pytest.approx(0.3186065638116649, rel=1e-9)
    assert beta_quantile(0.025, 17, 41) == pytest.approx(0.1842881268157867, rel=1e-10)
    # scipy.stats.t.ppf
    assert t_quantile(0.975, 9) == pytest.approx(2.262157162798205, rel=1e-9)
    assert t_quantile(0.95, 199) == pytest.approx(1.6525467461665633, rel=1e-9)
    assert t_quantile(0.025, 1) == pytest.approx(-12.706204736174694, rel=1e-9)


def test_standard_errors_of_simple_scores():
    assert s.mean_and_standard_error([0, 1, 1, 0.5]) == pytest.approx((0.625, 0.23935677693908453))  # scipy.stats.sem
    assert s.proportion_standard_error(0.3, 448) == pytest.approx(0.0217, abs=5e-5)
    assert s.mean_and_standard_error([0.7]) == (0.7, 0.0)


def test_clustered_error_of_single_items_equals_plain_error():
    scores = [0.0, 1.0, 1.0, 0.0, 1.0, 0.25]
    alone = s.clustered_standard_error(scores, [str(i) for i in range(6)])
    assert alone == pytest.approx(s.mean_and_standard_error(scores).standard_error)


def test_clustered_error_of_copies_is_that_of_the_clusters():
    scores = [0.0, 1.0, 1.0, 0.0, 1.0]
    repeated = [score for score in scores for _ in range(10)]
    clusters = [str(i) for i in range(5) for _ in range(10)]
    clustered = s.clustered_standard_error(repeated, clusters)
    assert clustered == pytest.approx(s.mean_and_standard_error(scores).standard_error)
    assert clustered > 3 * s.mean_and_standard_error(repeated).standard_error


# Published arithmetic for GPQA: main has 448 items, diamond 198.
@pytest.mark.parametrize(
    ("n", "paired", "unpaired", "correlated", "luck"),
    [(448, [4.1, 5.9, 7.2], 8.6, 6.1, [2.4, 2.9]), (198, [6.2, 8.7, 10.7], 12.9, 9.1, [3.5, 4.3])],
)
def test_detectable_differences_equal_the_published_table(n, paired, unpaired, correlated, luck):
    assert [round(100 * s.minimum_detectable(share, n), 1) for share in (0.1, 0.2, 0.3)] == paired
    assert round(100 * s.minimum_detectable_unpaired(0.3, n), 1) == unpaired
    assert round(100 * s.minimum_detectable_unpaired(0.3, n, correlation=0.5), 1) == correlated
    error = s.proportion_standard_error(0.3, n)
    assert [round(100 * s.luck_of_best(runs, error), 1) for runs in (10, 20)] == luck


def test_items_needed_for_three_points_equals_the_published_number():
    # rho = .5 at p = .3: the paired differences have variance 2 * .3 * .7 * .5.
    discordance = 0.21 + 0.03**2
    assert s.items_needed(0.03, discordance) == pytest.approx(1830, abs=5)
    assert s.items_needed(0.0, 0.2) is None
    needed = s.items_needed(0.05, 0.2)
    assert needed is not None
    assert s.minimum_detectable(0.2, needed) == pytest.approx(0.05, abs=1e-4)


@pytest.mark.parametrize(("only_a", "only_b", "n"), [(35, 55, 448), (13, 27, 198)])
def test_fewest_wins_of_the_published_table_are_better_and_one_less_is_not(only_a, only_b, n):
    a, b = binary_pair(50, only_a, only_b, n - 50 - only_a - only_b)
    assert compare(a, b).verdict is Verdict.BETTER
    a, b = binary_pair(50, only_a + 1, only_b - 1, n - 50 - only_a - only_b)
    assert compare(a, b).verdict is Verdict.CANNOT_TELL


def test_compare_says_what_it_cannot_tell():
    a, b = binary_pair(60, 10, 16, 114)
    found = compare(a, b)
    assert (found.difference, found.n, found.discordant) == (pytest.approx(0.03), 200, (10, 16))
    assert found.verdict is Verdict.CANNOT_TELL
    assert found.minimum_detectable == pytest.approx(s.minimum_detectable(26 / 200, 200))
    assert found.n_needed == s.items_needed(0.03, 26 / 200) > 1000
    assert found.as_dict()["verdict"] == "cannot tell"


def test_compare_of_a_model_with_itself_claims_nothing():
    a, b = binary_pair(40, 0, 0, 60)
    found = compare(a, b)
    assert (found.difference, found.p_value, found.n_needed) == (0.0, 1.0, None)
    assert found.verdict is Verdict.CANNOT_TELL
    assert found.ci_low < 0 < found.ci_high
    assert found.minimum_detectable == pytest.approx(0.06)


def test_verdict_and_interval_and_p_value_never_disagree():
    for n in (6, 13, 40, 198):
        for discordant in range(min(n, 30) + 1):
            for only_a in range(discordant + 1):
                interval = s.paired_interval(only_a, discordant - only_a, n)
                excluded = interval.low > 0 or interval.high < 0
                assert excluded == (s.mcnemar(only_a, discordant - only_a) < 0.05)


scores_of = {
    "binary": st.sampled_from([0.0, 1.0]),
    "graded": st.floats(0, 1, allow_nan=False).map(lambda x: round(x, 3)),
}


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(["binary", "graded"]))
def test_compare_properties(data, kind):
    score = scores_of[kind]
    n = data.draw(st.integers(1, 40))
    pairs = data.draw(st.lists(st.tuples(score, score), min_size=n, max_size=n))
    a, b = evaluation([p[0] for p in pairs]), evaluation([p[1] for p in pairs])
    clusters = None
    if data.draw(st.booleans()):
        clusters = {f"item{i}": str(data.draw(st.integers(0, 6))) for i in range(n)}
    there, back = compare(a, b, clusters=clusters), compare(b, a, clusters=clusters)
    assert 0 <= there.p_value <= 1
    assert -1 <= there.ci_low <= there.difference <= there.ci_high <= 1
    assert 0 <= there.minimum_detectable <= 1
    assert back.difference == pytest.approx(-there.difference)
    assert (back.ci_low, back.ci_high) == pytest.approx((-there.ci_high, -there.ci_low))
    assert back.p_value == pytest.approx(there.p_value)
    assert back.discordant == there.discordant[::-1]
    mirrored = {Verdict.BETTER: Verdict.WORSE, Verdict.WORSE: Verdict.BETTER}
    assert back.verdict is mirrored.get(there.verdict, there.verdict)
    assert (there.verdict is Verdict.CANNOT_TELL) == (there.p_value >= 0.05)
    assert compare(a, b, clusters=clusters) == there


@settings(max_examples=100)
@given(st.integers(1, 3000), st.data())
def test_intervals_of_a_proportion_contain_it(n, data):
    successes = data.draw(st.integers(0, n))
    for interval in (s.wilson_interval(successes, n), s.clopper_pearson_interval(successes, n)):
        assert 0 <= interval.low <= successes / n <= interval.high <= 1


def simulated(rng, n, discordance, difference):
    """A pair of evaluations whose true difference and discordance are known."""
    only_b = (discordance + difference) / 2
    a, b = [], []
    for _ in range(n):
        draw = rng.random()
        if draw < discordance:
            a.append(float(draw >= only_b))
            b.append(float(draw < only_b))
        else:
            both = float(rng.random() < 0.4)
            a.append(both)
            b.append(both)
    return evaluation(a), evaluation(b)


def test_power_at_five_points_equals_the_published_one():
    rng = random.Random(7)
    for discordance, power in ((0.1, 0.91), (0.2, 0.62), (0.3, 0.46)):
        told = 0
        for _ in range(1500):
            draws = [rng.random() for _ in range(448)]
            only_b = sum(draw < (discordance + 0.05) / 2 for draw in draws)
            told += s.mcnemar(sum(draw < discordance for draw in draws) - only_b, only_b) < 0.05
        assert told / 1500 == pytest.approx(power, abs=0.04)


def test_equal_models_are_rarely_called_different():
    rng = random.Random(3)
    told = sum(compare(*simulated(rng, 100, 0.3, 0.0)).verdict is not Verdict.CANNOT_TELL for _ in range(400))
    assert told / 400 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 400)


def test_interval_covers_the_true_difference():
    rng = random.Random(11)
    found = [compare(*simulated(rng, 120, 0.25, 0.1)) for _ in range(400)]
    covered = sum(comparison.ci_low <= 0.1 <= comparison.ci_high for comparison in found)
    assert covered / 400 >= 0.95 - 2 * math.sqrt(0.05 * 0.95 / 400)


def test_graded_interval_of_ten_items_keeps_its_level():
    # A percentile bootstrap covers about 90 % here.
    rng, covered = random.Random(5), 0
    for _ in range(300):
        a, b = [0.5] * 10, [min(max(0.6 + rng.gauss(0, 0.1), 0), 1) for _ in range(10)]
        found = compare(evaluation(a), evaluation(b))
        covered += found.ci_low <= 0.1 <= found.ci_high
    assert covered / 300 >= 0.95 - 2 * math.sqrt(0.05 * 0.95 / 300)


def test_graded_comparison_equals_the_normal_one_for_many_items():
    rng = random.Random(2)
    a = [rng.random() for _ in range(1000)]
    b = [min(max(x + rng.gauss(0.02, 0.2), 0), 1) for x in a]
    found = compare(evaluation(a), evaluation(b))
    mean, error = s.mean_and_standard_error([y - x for x, y in zip(a, b, strict=True)])
    assert found.difference == pytest.approx(mean)
    assert (found.ci_low, found.ci_high) == pytest.approx((mean - 1.96 * error, mean + 1.96 * error), abs=0.1 * error)
    assert found.minimum_detectable == pytest.approx(2.8016 * error, rel=1e-3)


def test_graded_comparison_of_two_thousand_items_is_quick():
    rng = random.Random(0)
    a, b = ([rng.random() for _ in range(2000)] for _ in range(2))
    started = time.process_time()
    compare(evaluation(a), evaluation(b))
    assert time.process_time() - started < 3  # About 0.3 s on one core of 2020.


def test_clusters_that_move_together_widen_the_interval():
    a = evaluation([0.0] * 60)
    b = evaluation([1.0] * 20 + [0.0] * 40)
    clusters = {f"item{i}": str(i // 10) for i in range(60)}
    assert compare(a, b).verdict is Verdict.BETTER
    assert compare(a, b, clusters=clusters).verdict is Verdict.CANNOT_TELL


def test_compare_uses_the_items_that_both_have():
    a, b = evaluation([1.0, 0.0, 1.0]), evaluation([1.0, 1.0, 0.0], first=1)
    found = compare(a, b)
    assert (found.n, found.discordant) == (2, (0, 1))


def test_several_samples_of_an_item_are_averaged_first():
    twice = Evaluation("b", "d", "m", "exact_match", 0.5, 0.1, 1, "dev", samples=(Sample("x", 0.0), Sample("x", 1.0)))
    assert s.item_scores(twice) == {"x": 0.5}


@pytest.mark.parametrize(
    ("other", "word"),
    [
        ({"digest": "e"}, "harness digests"),
        ({"benchmark": "c"}, "benchmarks"),
        ({"split": "sealed"}, "splits"),
        ({"metric": "f1"}, "metrics"),
        ({"first": 50}, "no item in common"),
    ],
)
def test_compare_refuses_what_does_not_compare(other, word):
    with pytest.raises(UserError, match=word):
        compare(evaluation([1.0, 0.0]), evaluation([1.0, 0.0], **other))


def test_compare_refuses_scores_that_are_missing_or_not_numbers():
    bare = Evaluation("b", "d", "m", "exact_match", 0.5, 0.1, 2, "dev")
    with pytest.raises(UserError, match="no per-item scores"):
        compare(bare, bare)
    with pytest.raises(UserError, match="must be a number"):
        compare(
            evaluation([1.0]),
            Evaluation("b", "d", "m", "exact_match", 1, 0, 1, "dev", samples=(Sample("item0", math.nan),)),
        )


def test_one_sided_bound_is_the_exact_lower_bound():
    # scipy.stats.beta.ppf(0.05, 80, 21)
    assert s.one_sided_bound(evaluation([1.0] * 80 + [0.0] * 20)) == pytest.approx(0.722799, abs=1e-5)
    without_samples = Evaluation("b", "d", "m", "exact_match", 0.8, 0.04, 100, "sealed")
    assert s.one_sided_bound(without_samples) == pytest.approx(0.722799, abs=1e-5)
    # 0.5 - t.ppf(0.95, 9) * 0.1
    graded = Evaluation("b", "d", "m", "f1", 0.5, 0.1, 10, "sealed")
    assert s.one_sided_bound(graded, 0.95) >= 0.2


def test_one_sided_bound_of_graded_scores_uses_students_t():
    scores = [0.15, 0.35, 0.55, 0.45, 0.65, 0.75, 0.25, 0.85, 0.4, 0.6]
    mean, error = s.mean_and_standard_error(scores)
    assert s.one_sided_bound(evaluation(scores)) == pytest.approx(mean - 1.8331129326536335 * error)


def test_value_interval_is_wilsons_for_right_or_wrong_scores():
    assert s.value_interval(evaluation([1.0] * 17 + [0.0] * 40)) == s.wilson_interval(17, 57)
    low, high = s.value_interval(evaluation([0.1, 0.5, 0.3]))
    assert 0 <= low < 0.3 < high <= 1


def test_nothing_to_average_is_said_in_words():
    with pytest.raises(UserError, match="no scores"):
        s.mean_and_standard_error([])
    with pytest.raises(UserError, match="no items"):
        s.one_sided_bound(Evaluation("b", "d", "m", "exact_match", 0, 0, 0, "dev"))
