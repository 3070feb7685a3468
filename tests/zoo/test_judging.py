"""Which runs stay: harm against the control, levels of healthy runs."""

from __future__ import annotations

import json

import pytest

from bot.zoo.faults import FAULTS
from bot.zoo.judging import verdict
from bot.zoo.making import truth_of
from bot.zoo.plan import HEALTHY, Case, fault_case
from bot.zoo.running import Outcome
from bot.zoo.specimen import CONTROL_SCORES, LEAST_LEVEL, MOST_LEVEL, STEPS, TARGETS, level_of
from bot.zoo.traces import GOAL, told_goal


def outcome(value: float | None, *, state: str = "succeeded", **others: float) -> Outcome:
    return Outcome(0 if state == "succeeded" else 1, state, None, value=value, n=200, **others)  # type: ignore[arg-type]


RATE = fault_case(FAULTS[1], "gross", 0)
GOOD = outcome(0.97)


@pytest.mark.parametrize(
    ("value", "kept", "doomed"), [(0.0, True, True), (0.6, True, False), (0.95, False, False), (0.93, False, False)]
)
def test_injection_counts_when_it_costs_more_than_noise(value: float, kept: bool, doomed: bool) -> None:
    found = verdict(RATE, outcome(value), GOOD)
    assert (found.kept, found.doomed) == (kept, doomed)
    assert kept or found.why == "it did no harm"


def test_injection_is_dropped_with_its_control() -> None:
    assert not verdict(RATE, outcome(0.0), outcome(0.4)).kept
    assert not verdict(RATE, outcome(0.0), None).kept


def test_error_counts_only_where_the_fault_is_one() -> None:
    failed = outcome(None, state="failed")
    assert verdict(fault_case(FAULTS[41], "gross", 0), failed, GOOD).kept
    assert not verdict(RATE, failed, GOOD).kept


def test_forgetting_is_harm_although_the_score_is_not_lower() -> None:
    case = fault_case(FAULTS[10], "gross", 0)
    assert verdict(case, outcome(1.0, old_before=1.0, old_after=0.2), outcome(1.0)).kept
    assert not verdict(case, outcome(1.0, old_before=1.0, old_after=0.97), outcome(1.0)).kept


def test_contamination_is_harm_when_fresh_items_score_lower() -> None:
    case = fault_case(FAULTS[21], "gross", 0)
    assert verdict(case, outcome(0.9, fresh=0.1), outcome(0.2, fresh=0.2)).kept
    assert not verdict(case, outcome(0.9, fresh=0.88), outcome(0.2, fresh=0.2)).kept


def test_control_that_is_weak_on_purpose_is_no_healthy_run() -> None:
    control = fault_case(FAULTS[21], "gross", 0).control()
    assert not verdict(control, outcome(0.4), None).kept


def test_healthy_run_below_its_level_is_none() -> None:
    case = Case(HEALTHY, seed=0)
    assert verdict(case, outcome(1.0), None).kept
    assert not verdict(case, outcome(0.3), None).kept
    assert not verdict(case, outcome(None, state="failed"), None).kept
    assert not verdict(case, outcome(1.0, old_before=1.0, old_after=0.5), None).kept


@pytest.mark.parametrize(
    ("scores", "level"),
    [
        ((0.99, 1.0), 0.9),
        ((0.96, 0.935), 0.85),
        ((0.85, 0.955, 0.9), 0.8),
        ((0.6, 0.73), LEAST_LEVEL),
        ((), MOST_LEVEL),
    ],
)
def test_level_of_a_task_lies_below_its_lowest_control(scores: tuple[float, ...], level: float) -> None:
    assert level_of(scores) == level


def test_every_task_has_a_level_that_its_controls_reach_or_are_dropped_for() -> None:
    assert {(m, task) for m, of in TARGETS.items() for task in of} == {(m, t) for m, of in STEPS.items() for t in of}
    for method, of in CONTROL_SCORES.items():
        for task, scores in of.items():
            assert all(score >= TARGETS[method][task] for score in scores) or min(scores) < LEAST_LEVEL + 0.05


def test_goal_of_a_run_names_the_level_of_today() -> None:
    told = [told_goal(Case(HEALTHY, seed=number).specimen()) for number in range(12)]
    assert any(not goal for goal in told), "a quarter of all people name no target"
    for number, goal in enumerate(told):
        specimen = Case(HEALTHY, seed=number).specimen()
        level = TARGETS[specimen.method][specimen.task]
        assert not goal or json.loads(goal[GOAL])["target"] >= level


def test_healthy_run_that_missed_a_target_above_its_level_lacks_nothing_but_steps() -> None:
    told = ((case, told_goal(case.specimen())) for case in (Case(HEALTHY, seed=n) for n in range(40)))
    case, target = next(
        (case, target)
        for case, goal in told
        if goal and (target := json.loads(goal[GOAL])["target"]) > TARGETS[case.specimen().method][case.specimen().task]
    )
    missed, met = (truth_of(case, outcome(value), None, doomed=False) for value in (target - 0.01, target))
    assert (
        missed.healthy
        and missed.labels == ("plateau", "unknown")
        and set(missed.line_keys) == {"max_steps", "num_train_epochs"}
    )
    assert met.healthy and not met.labels
