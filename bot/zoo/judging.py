"""Which runs stay in the zoo: injections that did harm, healthy runs that reached their level, controls that did.

A run is compared with its control, the same run without the fault. Sampling noise of two scores over n items is
1.96 standard errors of their difference; below that, and below five points, an injection did nothing and is dropped.†
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from bot.zoo.faults import FAULTS
from bot.zoo.plan import CONTROL, HEALTHY, Case
from bot.zoo.running import Outcome
from bot.zoo.specimen import TARGETS

LEAST_HARM = 0.05
FORGOTTEN = 0.1
"""Of an old task's score: what a second epoch or another seed does not explain on the practice base.†"""
CONTAMINATED = 0.1
"""The score on the benchmark's items above the one on fresh items; fault 21 and its control are trained on few rows, so
that their level says nothing."""
DOOMED_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Verdict:
    kept: bool
    why: str
    """Of a dropped run; in words that are counted."""
    doomed: bool = False


def verdict(case: Case, outcome: Outcome, control: Outcome | None) -> Verdict:
    """`control` is None for healthy runs and for controls themselves."""
    if case.kind in (CONTROL, HEALTHY):
        return _of_healthy(case, outcome)
    if control is None or control.value is None:
        return Verdict(False, "its control did not end")
    if 21 not in case.faults and not _reached(case, control):
        return Verdict(False, "its control did not reach its level")
    if outcome.state != "succeeded":
        expected = any(case.severity in FAULTS[number].fails for number in case.faults)
        return Verdict(expected, "" if expected else "it failed in another way than the fault's", doomed=True)
    assert outcome.value is not None
    error = math.sqrt(sum(v * (1 - v) / 200 for v in (outcome.value, control.value)))
    lost = control.value - outcome.value
    doomed = outcome.value < DOOMED_SHARE * control.value
    if lost >= max(LEAST_HARM, 1.96 * error):
        return Verdict(True, "", doomed)
    if outcome.old_before is not None and outcome.old_after is not None:
        kept = outcome.old_before - outcome.old_after >= FORGOTTEN
        return Verdict(kept, "" if kept else "it did no harm")
    if 21 in case.faults and outcome.fresh is not None:
        kept = outcome.value - outcome.fresh >= CONTAMINATED
        return Verdict(kept, "" if kept else "it did no harm")
    return Verdict(False, "it did no harm")


def _of_healthy(case: Case, outcome: Outcome) -> Verdict:
    if outcome.value is None:
        return Verdict(False, "a healthy run failed")
    if not _reached(case, outcome):
        return Verdict(False, "a healthy run below its level")
    forgot = (outcome.old_before or 0) - (outcome.old_after or 0)
    return Verdict(forgot < FORGOTTEN, "" if forgot < FORGOTTEN else "a healthy run that forgot")


def _reached(case: Case, outcome: Outcome) -> bool:
    """The level is the task's target for the method, which is five points below the weakest control."""
    specimen = case.specimen()
    return outcome.value is not None and outcome.value >= TARGETS[specimen.method][specimen.task]
