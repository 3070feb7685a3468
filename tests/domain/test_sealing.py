"""The Ladder, the chance that the seal confirms, and what the seal's answer means."""

from __future__ import annotations

import math
import random

import pytest

from bot.domain.evaluation import Evaluation, Rung, Sample
from bot.domain.experiment import Score
from bot.domain.sealing import WISE, chance_of_confirming, climbed, confirmation, wise_to_open


def evaluation(scores: list[float], *, split: str = "sealed", model: str = "m") -> Evaluation:
    n = len(scores)
    mean = sum(scores) / n
    error = math.sqrt(mean * (1 - mean) / max(n - 1, 1))
    samples = tuple(Sample(f"item{i}", score) for i, score in enumerate(scores))
    return Evaluation("b", "d", model, "exact_match", mean, error, n, split, samples=samples)


def right(count: int, n: int = 100, *, split: str = "sealed") -> Evaluation:
    return evaluation([1.0] * count + [0.0] * (n - count), split=split)


def score(value: float, n: int = 200) -> Score:
    return Score(value, math.sqrt(value * (1 - value) / n), n, 0.0, 1.0, "dev", "d")


# --- The seal's answer


@pytest.mark.parametrize(
    ("count", "target", "baseline", "word"),
    [
        (80, 0.8, 0.3, "reaches the target of 80.0 % and lies above the baseline of 30.0 %"),
        (79, 0.8, 0.3, "does not reach the target of 80.0 %: 1.0 points are missing"),
        (79, 0.8, 0.79, "does not reach"),
    ],
)
def test_what_is_plain_needs_the_run_alone(count: int, target: float, baseline: float, word: str) -> None:
    found = confirmation(right(count), target=target, baseline=score(baseline))
    assert found is not None
    assert found.confirmed is (count >= 80)
    assert word in found.reason and "100 sealed items (lower bound" in found.reason


def test_base_model_is_asked_where_its_own_error_could_explain_the_gain() -> None:
    # The run's bound of 72.3 % lies above the baseline's 70 %, which 200 items measured: that may be 77 % in truth.
    assert confirmation(right(80), target=0.8, baseline=score(0.70)) is None


def test_pairing_tells_what_two_intervals_cannot() -> None:
    run, base = right(80), right(70)  # ten gained, none lost
    found = confirmation(run, target=0.8, baseline=score(0.7), base_on_seal=base)
    assert found is not None and found.confirmed
    assert "the base model's 70.0 % on the same items (paired, one-sided 95 %)" in found.reason
    shuffled = evaluation([0.0] * 25 + [1.0] * 75)
    found = confirmation(run, target=0.8, baseline=score(0.7), base_on_seal=shuffled)
    assert found is not None and not found.confirmed
    assert "cannot be told from the base model's 75.0 %" in found.reason


# --- The Ladder


def test_first_answer_is_told_and_a_small_gain_repeats_it() -> None:
    first = climbed(right(70, split="holdout"), 1, None)
    assert (first.run, first.value, first.n) == (1, 0.7, 100)
    rng = random.Random(0)
    scores = [1.0] * 70 + [0.0] * 30
    rng.shuffle(scores)
    a_little_better = evaluation(scores, split="holdout")
    # Other items are right, so the paired standard error is large; two more right ones are no step.
    before = right(70, split="holdout")
    assert climbed(a_little_better, 2, first, before) == first
    assert climbed(right(72, split="holdout"), 2, first) == first  # unpaired: the rung's items are gone


def test_a_step_is_a_standard_error_of_the_paired_difference() -> None:
    first = climbed(right(70, split="holdout"), 1, None)
    before = right(70, split="holdout")
    # Two gained, none lost: difference .02, its standard error sqrt(.02 * .98 / 99) = .0141.
    assert climbed(right(72, split="holdout"), 2, first, before).run == 2
    # Two gained, one lost: .01, and sqrt(.0299 / 99) = .0174.
    mixed = evaluation([0.0] + [1.0] * 71 + [0.0] * 28, split="holdout")
    assert climbed(mixed, 2, first, before) == first
    assert climbed(right(60, split="holdout"), 2, first, before) == first


def test_a_hundred_questions_at_random_are_answered_a_few_times() -> None:
    n, told = 100, 0
    for seed in range(8):
        rng = random.Random(seed)
        asked = [evaluation([float(rng.random() < 0.5) for _ in range(n)], split="holdout") for _ in range(100)]
        rungs = [climbed(asked[0], 0, None)]
        for number, one in enumerate(asked[1:], 1):
            rungs.append(climbed(one, number, rungs[-1], asked[rungs[-1].run]))
        told += len({rung.run for rung in rungs})
    assert 8 <= told <= 8 * 4  # of 800 questions


# --- When


def test_a_hair_above_the_target_is_not_enough_and_a_clear_lead_is() -> None:
    # What happened: 85.5 % on 200 dev items against 85 %, then 83 % on the seal.
    assert not wise_to_open(score(0.855), 3, None, target=0.85, sealed=300)
    assert wise_to_open(score(0.90), 3, None, target=0.85, sealed=300)


def test_the_holdout_can_speak_for_a_run_and_against_it() -> None:
    dev = score(0.875)
    alone = chance_of_confirming(dev, 2, None, target=0.85, sealed=300)
    speaks = chance_of_confirming(dev, 2, Rung(2, 0.88, 0.032, 100), target=0.85, sealed=300)
    against = chance_of_confirming(dev, 2, Rung(1, 0.80, 0.040, 100), target=0.85, sealed=300)
    assert against < alone < speaks
    assert against < 0.5 < WISE < speaks


def test_every_look_makes_the_best_a_little_less_credible() -> None:
    chances = [chance_of_confirming(score(0.88), looks, None, target=0.85, sealed=300) for looks in range(1, 21)]
    assert chances == sorted(chances, reverse=True) and chances[0] > chances[-1] + 0.1


def test_what_cannot_get_better_is_not_waited_for() -> None:
    perfect = Score(1.0, 0.0, 200, 0.98, 1.0, "dev", "d")
    assert wise_to_open(perfect, 5, None, target=1.0, sealed=300)


def test_chance_is_what_a_simulation_finds() -> None:
    """One look: of models whose value is drawn evenly, those with this dev value reach the target on the seal as often
    as the formula says."""
    rng = random.Random(1)
    n, sealed, target, value = 100, 150, 0.7, 73
    passed = found = 0
    while found < 1200:
        truth = rng.uniform(0.5, 0.95)
        if sum(rng.random() < truth for _ in range(n)) != value:
            continue
        found += 1
        passed += sum(rng.random() < truth for _ in range(sealed)) >= target * sealed
    said = chance_of_confirming(score(value / n, n), 1, None, target=target, sealed=sealed)
    assert passed / found == pytest.approx(said, abs=0.07)
