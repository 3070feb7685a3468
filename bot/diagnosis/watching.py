"""A running job as whoever stands beside it sees it: its curves, and how long it has said nothing.

A job that hangs logs no step to judge, so its silence is a sign of its own. SageMaker Debugger's StalledTrainingRule
calls a run stalled after 1800 s without output; that alone is advice, because an evaluation may take as long. A job
ends for it when it has been silent for twice as long and, which is the second sign, its processes have done nothing
meanwhile. A collective operation that waits spins on a whole core and is left to its own time-out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from bot.diagnosis.engine import RULES, diagnosis_of
from bot.diagnosis.folder import observations_of
from bot.diagnosis.monitor import Judgement, Tier, judged
from bot.diagnosis.rules.machine import STALL_SECONDS
from bot.diagnosis.signals import Rows, in_order, last_step
from bot.domain.diagnosis import Diagnosis, Evidence, Symptom

LASTING = 2
"""† Times the silence that is worth saying, after which it counts as lasting."""
IDLE = 0.02
"""† Share of one core up to which processes do nothing: a heartbeat and a poll."""
_STALL_RULES = tuple(rule for rule in RULES if rule.symptom is Symptom.STALL)


@dataclass(frozen=True, slots=True)
class Quiet:
    """How a running job is silent."""

    seconds: float
    """Since its last line of log or logged step."""
    cpu_share: float | None = None
    """Of one core since then; None where nobody has measured it."""

    @property
    def worth_saying(self) -> bool:
        return self.seconds >= STALL_SECONDS

    @property
    def dead(self) -> bool:
        idle = self.cpu_share is not None and self.cpu_share <= IDLE
        return idle and self.seconds >= LASTING * STALL_SECONDS


def watched(
    recipe_text: str,
    rows: Rows,
    *,
    setup: Mapping[str, Any] | None = None,
    audit: Mapping[str, Any] | None = None,
    advise: bool = True,
    quiet: Quiet | None = None,
) -> Judgement | None:
    """As `judged`, and what a long silence means. Raises: UserError for the recipe."""
    found = judged(recipe_text, rows, setup=setup, audit=audit, advise=advise)
    if quiet is None or not quiet.worth_saying or (found is not None and found.tier.ends):
        return found
    stall = _stall(recipe_text, rows, quiet)
    if stall is None:
        return found
    step = last_step(in_order(rows))
    if quiet.dead:
        signals = (
            Evidence("seconds_since_output", step, round(quiet.seconds)),
            Evidence("cpu_share", step, quiet.cpu_share),
        )
        return Judgement(Tier.SOFT, (stall,), step, signals)
    return Judgement(Tier.ADVICE, (stall, *(found.diagnoses if found is not None else ())), step)


def _stall(recipe_text: str, rows: Rows, quiet: Quiet) -> Diagnosis | None:
    job = {"state": "running", "seconds_since_output": quiet.seconds}
    seen = replace(observations_of(recipe_text, rows, job=job), running=False, memo={})
    return next(iter(diagnosis_of(seen, _STALL_RULES).diagnoses), None)


@dataclass(slots=True)
class Pace:
    """How fast a run's steps come, from the first one that was seen: a job begins with seconds of imports."""

    began: float
    """When the job began, by the same clock as every `now`."""
    first: tuple[float, int] | None = None
    """(when the first logged step was seen, that step)"""

    def see(self, step: int, now: float) -> None:
        if self.first is None and step > 0:
            self.first = (now, step)

    def left_seconds(self, step: int, total: int | None, now: float) -> float | None:
        """What the steps that are left would take; None where no pace is known."""
        if total is None or step <= 0:
            return None
        since, first = self.first or (now, step)
        a_step = (now - since) / (step - first) if step > first else (now - self.began) / step
        return max(0.0, a_step) * max(0, total - step)


def verdict(found: Judgement, setup: Mapping[str, Any], left_seconds: float | None) -> dict[str, Any]:
    """What a run is ended for, as plain data that can be stored, sent and shown."""
    return {
        "tier": str(found.tier),
        "step": found.step,
        "worth_saving": found.worth_saving,
        "total_steps": total_steps(setup),
        "diagnoses": [each.as_dict() for each in found.diagnoses],
        "signals": [asdict(each) for each in found.signals],
        "saved_seconds": round(left_seconds, 1) if left_seconds is not None else None,
        "device": "GPU" if setup.get("gpus") else "machine",
    }


def total_steps(setup: Mapping[str, Any]) -> int | None:
    """As the script counted them before the first one."""
    total = setup.get("max_steps")
    return int(total) if isinstance(total, int | float) and total > 0 else None
