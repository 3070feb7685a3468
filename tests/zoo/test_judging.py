"""Which runs stay: harm against the control, levels of healthy runs."""

from __future__ import annotations

import pytest

from bot.zoo.faults import FAULTS
from bot.zoo.judging import verdict
from bot.zoo.plan import HEALTHY, Case, fault_case
from bot.zoo.running import Outcome


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
