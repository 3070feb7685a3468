"""A run that hangs: said after half an hour, ended after an hour in which nothing was done either."""

from __future__ import annotations

import pytest

from bot.diagnosis.monitor import Judgement, Tier
from bot.diagnosis.watching import Pace, Quiet, total_steps, verdict, watched
from bot.domain.diagnosis import Symptom, verdict_in

RECIPE = "learning_rate: 1.0e-03\nmax_length: 64\ndataloader_num_workers: 4\n"
ROWS = [{"step": n, "loss": 2.0 / n, "grad_norm": 1.0} for n in range(1, 31)]
DEAD = [{"step": n, "loss": 0.0, "grad_norm": 0.0, "reward": 0.0, "frac_reward_zero_std": 1.0} for n in range(1, 31)]


def seen(seconds: float, cpu_share: float | None, advise: bool = False) -> Judgement | None:
    return watched(RECIPE, ROWS, advise=advise, quiet=Quiet(seconds, cpu_share))


@pytest.mark.parametrize("share", [None, 0.0, 1.0])
def test_silence_of_less_than_half_an_hour_says_nothing(share: float | None) -> None:
    assert seen(1799, share) is None


@pytest.mark.parametrize(
    ("seconds", "share", "tier"),
    [
        (1800, 0.0, Tier.ADVICE),  # one sign: an evaluation may take as long
        (3600, None, Tier.ADVICE),  # nobody has measured the other
        (36000, 1.0, Tier.ADVICE),  # it computes, or spins in a collective operation that has a time-out of its own
        (3600, 0.001, Tier.SOFT),
    ],
)
def test_a_stall_is_said_and_ends_a_run_only_with_a_second_sign(
    seconds: float, share: float | None, tier: Tier
) -> None:
    found = seen(seconds, share)
    assert found is not None
    assert (found.tier, found.diagnoses[0].symptom, found.step) == (tier, Symptom.STALL, 30)
    assert found.diagnoses[0].line == 3
    assert {signal.key for signal in found.signals} == (
        {"seconds_since_output", "cpu_share"} if tier is Tier.SOFT else set()
    )


def test_what_ends_a_run_anyway_is_not_hidden_by_its_silence() -> None:
    found = watched(RECIPE, DEAD, advise=False, quiet=Quiet(4000, 0.0))
    assert found is not None
    assert (found.tier, found.diagnoses[0].symptom) == (Tier.HARD, Symptom.REWARD_ZERO)


def test_pace_is_that_of_the_steps_and_not_of_the_start() -> None:
    pace = Pace(began=0.0)
    assert pace.left_seconds(0, 100, 50.0) is None
    pace.see(10, 100.0)
    assert pace.left_seconds(10, 100, 100.0) == pytest.approx(900)
    assert pace.left_seconds(20, 100, 120.0) == pytest.approx(160)
    assert pace.left_seconds(20, None, 120.0) is None


def test_verdict_survives_its_way_through_a_status_and_a_foreign_one_is_still_an_end() -> None:
    found = watched(RECIPE, DEAD, advise=False)
    assert found is not None
    told = verdict(found, {"max_steps": 100, "gpus": 1}, 61.04)
    assert (told["total_steps"], told["saved_seconds"], told["device"]) == (100, 61.0, "GPU")
    assert verdict_in({"judged": told}) == told
    assert verdict_in({"judged": None}) is None
    assert verdict_in({}) is None
    strange = verdict_in({"judged": {"diagnoses": [{"symptom": "of next year"}], "step": "x"}})
    assert strange is not None
    assert (strange["diagnoses"][0]["symptom"], strange["step"]) == ("unknown", 0)
    assert total_steps({"max_steps": -1}) is None
