"""What came of an event, for whoever started the process and for the workflow's next steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    HANDLED = "handled"
    IGNORED = "ignored"
    """The event says nothing that anybody acts on."""
    ANSWERED_ELSEWHERE = "answered elsewhere"
    """Another process is at work in this repository, and has looked since this one rang."""
    OUT_OF_TIME = "out of time"
    """What is left goes on with the next event or the schedule."""
    CANCELLED = "cancelled"
    LOST = "lost"
    """Another process took over while this one was at work."""


@dataclass(slots=True)
class Report:
    """What came of it."""

    outcome: Outcome
    why: str = ""
    goals: list[dict[str, Any]] = field(default_factory=list)
    """Goals of which something was written: goal_id, state, pull_request, running (jobs), model (folder or None)."""
    problems: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return {"outcome": str(self.outcome), "why": self.why, "goals": self.goals, "problems": self.problems}
