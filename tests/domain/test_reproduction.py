"""The verdict on a run that was made again, and what is said to differ first."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from bot.domain.evaluation import Evaluation, Sample
from bot.domain.reproduction import (
    CurveDistance,
    Outcome,
    Trial,
    curve_distance,
    environment_differences,
    judged,
    missing_libraries,
)
from bot.errors import UserError

N = 200


def evaluation(right: int, weights: str = "a", *, first: int = 0, **others: Any) -> Evaluation:
    """`right` items right, from item `first` on."""
    samples = tuple(Sample(f"{i:03d}", float(first <= i < first + right)) for i in range(N))
    value = right / N
    fields = {"benchmark": "b", "harness_digest": "h", "model": "m", "metric": "exact_match", "split": "dev"} | others
    return Evaluation(
        value=value, standard_error=math.sqrt(value * (1 - value) / N), n=N, samples=samples, weights=weights, **fields
    )


def falling(steps: int = 100, noise: float = 0.05, seed: int = 0, floor: float = 0.3) -> dict[int, float]:
    """A loss as training has it: it falls, and each batch moves it."""
    rng = random.Random(seed)
    return {step: floor + 5 * math.exp(-step / 15) + rng.gauss(0, noise) for step in range(1, steps + 1)}


def distance(then: dict[int, float], now: dict[int, float]) -> CurveDistance:
    found = curve_distance(then, now)
    assert found is not None
    return found


def test_bitwise_takes_the_weights_and_every_item() -> None:
    assert judged(Trial(evaluation(90), falling()), Trial(evaluation(90), falling())).verdict is Outcome.BITWISE
    other = judged(Trial(evaluation(90)), Trial(evaluation(90, "b")))
    assert (other.verdict, other.first) == (Outcome.WITHIN_NOISE, "the weights")
    unknown = judged(Trial(evaluation(90, "")), Trial(evaluation(90, "")))
    assert unknown.verdict is Outcome.WITHIN_NOISE


def test_same_weights_with_another_score_or_curve_mean_that_the_record_is_wrong() -> None:
    scores = judged(Trial(evaluation(91)), Trial(evaluation(90)))
    assert scores.verdict is Outcome.NOT_REPRODUCED and "1 items have other scores" in scores.first
    changed = falling() | {40: 9.0}
    curve = judged(Trial(evaluation(90), changed), Trial(evaluation(90), falling()))
    assert curve.verdict is Outcome.NOT_REPRODUCED and "from step 40 on" in curve.first


def test_seeds_that_differ_in_their_batches_are_within_noise_and_another_floor_is_not() -> None:
    then = Trial(evaluation(90), falling(seed=0))
    apart = 0
    for seed in range(1, 41):
        found = judged(then, Trial(evaluation(92, "b", first=3), falling(seed=seed)))
        apart += found.verdict is not Outcome.WITHIN_NOISE
    assert apart == 0
    worse = judged(then, Trial(evaluation(92, "b", first=3), falling(seed=1, floor=1.2)))
    assert worse.verdict is Outcome.NOT_REPRODUCED
    assert worse.first == "the loss, from step 1 on" or "the loss ends elsewhere" in worse.first


def test_value_beyond_chance_is_not_reproduced_and_the_library_comes_before_the_loss() -> None:
    differences = environment_differences(
        {"libraries": {"six": "1", "torch": "2.12"}, "threads": 1},
        {"libraries": {"six": "2", "torch": "2.13"}, "threads": 2},
    )
    found = judged(Trial(evaluation(150), falling()), Trial(evaluation(60, "b"), falling(seed=2)), differences)
    assert found.verdict is Outcome.NOT_REPRODUCED
    assert found.first == "torch: 2.12 then, 2.13 now"
    assert [each.what for each in found.differences] == ["torch", "threads", "six"]


def test_another_evaluator_gives_no_comparison_and_equal_weights_still_count() -> None:
    other = judged(Trial(evaluation(90)), Trial(evaluation(90, "b", harness_digest="x")))
    assert (other.verdict, other.comparison) == (Outcome.NOT_REPRODUCED, None)
    assert "results of two evaluators never compare" in other.first
    assert judged(Trial(evaluation(90)), Trial(evaluation(90, harness_digest="x"))).verdict is Outcome.BITWISE


def test_another_benchmark_is_refused() -> None:
    with pytest.raises(UserError, match="different benchmarks"):
        judged(Trial(evaluation(90)), Trial(evaluation(90, benchmark="other")))


def test_curve_distance_sees_steps_that_are_missing_or_too_many() -> None:
    whole = falling()
    short = {step: loss for step, loss in whole.items() if step <= 60}
    assert distance(whole, whole).first_step is None
    assert distance(whole, short).first_step == 61
    assert distance(short, whole).first_step == 61
    assert distance(short, {200: 1.0}).apart
    assert curve_distance({}, whole) is None
    thinned = {step: loss for step, loss in whole.items() if step % 2 == 0}
    assert distance(thinned, whole).first_step is None


def test_what_one_side_does_not_tell_is_no_difference() -> None:
    assert environment_differences({"gpus": ["A"], "libraries": {"torch": "1"}}, {"threads": 2}) == ()
    lock = {"libraries": {"torch": "1", "trl": "2", "six": "3"}}
    assert missing_libraries(lock, {"libraries": {"torch": "1"}}, ["torch", "trl", "other"]) == ["trl==2"]
