"""Metrics: which way is better, what a value can be, and that everything which compares values asks."""

from __future__ import annotations

import json
import math
import random

import pytest

from bot.domain.comparison import compare
from bot.domain.evaluation import Evaluation, Sample, Verdict, best_of
from bot.domain.experiment import Experiment, Run, Score
from bot.domain.goal import Goal, GoalId
from bot.domain.metrics import METRICS, metric_named
from bot.domain.sealing import confirmation
from bot.domain.statistics import one_sided_bound, value_interval
from bot.errors import UserError


def evaluation(metric: str, scores: list[float], weights: list[float] | None = None) -> Evaluation:
    measure, weights = METRICS[metric], weights or [1.0] * len(scores)
    total = sum(weights)
    mean = sum(w * s for w, s in zip(weights, scores, strict=True)) / total
    squares = sum((w * (s - mean)) ** 2 for w, s in zip(weights, scores, strict=True))
    error = math.sqrt(squares * len(scores) / (len(scores) - 1)) / total
    value = measure.of_mean(mean)
    samples = tuple(Sample(str(n), s, weight=w) for n, (s, w) in enumerate(zip(scores, weights, strict=True)))
    error = error * value if metric.endswith("perplexity") else error
    return Evaluation("b", "d", "m", metric, value, error, len(scores), "dev", samples=samples)


def test_direction_and_range_of_every_metric() -> None:
    assert {name for name, metric in METRICS.items() if metric.higher_is_better} == {
        "exact_match", "accuracy", "macro_f1", "pairwise_accuracy",
    }  # fmt: skip
    for metric in METRICS.values():
        better, worse = (0.9, 0.1) if metric.higher_is_better else (1.5, 3.0)
        assert metric.better(better, than=worse) and not metric.better(worse, than=better)
        assert metric.rank(better) > metric.rank(worse) and metric.gain(worse, better) > 0
        assert metric.reached(better, worse) and metric.reached(worse, worse) and not metric.reached(worse, better)
    assert not METRICS["perplexity"].has(0.5) and METRICS["wer"].has(1.4) and not METRICS["accuracy"].has(1.4)
    assert metric_named("something_of_ours").higher_is_better


def score(of: Evaluation) -> Score:
    low, high = value_interval(of)
    return Score(of.value, of.standard_error, of.n, low, high, of.split, of.harness_digest, metric=of.metric)


@pytest.mark.parametrize("metric", ["wer", "perplexity", "bits_per_byte"])
def test_lower_values_are_better_in_every_comparison(metric: str) -> None:
    rng = random.Random(0)
    weights = [float(rng.randint(3, 30)) for _ in range(120)]
    worse = evaluation(metric, [rng.uniform(0.8, 1.6) for _ in weights], weights)
    shift = [s.score - 0.2 + rng.uniform(-0.1, 0.1) for s in worse.samples]
    better = evaluation(metric, shift, weights)
    found = compare(worse, better)
    assert found.verdict is Verdict.BETTER and found.difference < 0 and found.ci_high < 0
    assert found.difference == pytest.approx(better.value - worse.value)
    assert found.ci_low < found.difference < found.ci_high
    assert compare(better, worse).verdict is Verdict.WORSE
    assert best_of([worse, better]) is better
    low, high = value_interval(worse)
    assert low < worse.value < high
    assert one_sided_bound(better) > better.value
    told = confirmation(better, target=better.value, baseline=score(worse), base_on_seal=worse)
    assert told is not None and told.confirmed and "(upper bound" in told.reason
    told = confirmation(worse, target=better.value, baseline=score(worse))
    assert told is not None and not told.confirmed and "are missing" in told.reason
    told = confirmation(better, target=better.value, baseline=score(better), base_on_seal=better)
    assert told is not None and not told.confirmed and "cannot be told" in told.reason


def test_one_word_items_are_counted_like_any_right_or_wrong_and_turned() -> None:
    wrong, right = evaluation("wer", [1.0] * 20 + [0.0] * 20), evaluation("wer", [0.0] * 40)
    found = compare(wrong, right)
    assert (found.verdict, found.difference, found.discordant) == (Verdict.BETTER, -0.5, (0, 20))
    assert json.loads(json.dumps(found.as_dict()))["metric"] == "wer"


def test_perplexities_over_other_tokens_do_not_compare() -> None:
    a, b = evaluation("perplexity", [1.0, 2.0], [10.0, 20.0]), evaluation("perplexity", [1.0, 2.0], [12.0, 20.0])
    with pytest.raises(UserError, match="Use the metric word_perplexity or bits_per_byte"):
        compare(a, b)


def test_goal_and_experiment_ask_the_metric() -> None:
    goal = Goal("t", "m", "b", 25.0, metric="perplexity")
    assert goal.reached(24.0) and not goal.reached(26.0) and goal.said_target == "25" and goal.measure.aim == "Lower"
    scores = [Score(value, 1.0, 50, value - 1, value + 1, "dev", "d", metric="perplexity") for value in (40, 30, 35)]
    runs = [Run(n, "", "", "", score=score) for n, score in enumerate(scores, start=1)]
    x = Experiment(GoalId("o/r#1"), runs=runs)
    assert x.best_run is not None and x.best_run.n == 2


def test_scores_of_a_journal_from_before_are_shares() -> None:
    kept = {"value": 0.3, "standard_error": 0.01, "n": 9, "ci_low": 0.2, "ci_high": 0.4, "split": "dev"}
    score = Score.from_dict(kept | {"harness_digest": "d"})
    assert score.measure.said(score.value) == "30.0 %" and score.measure.higher_is_better
