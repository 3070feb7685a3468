"""One thing to do for a goal, as plain data: what the policy decides and the engine performs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from bot.domain.experiment import State


class ActionKind(StrEnum):
    READ_CONTRACT = "read_contract"
    READ_EDIT = "read_edit"
    ANSWER_COMMAND = "answer_command"
    READ_HEAD = "read_head"
    LAUNCH = "launch"
    JUDGE = "judge"
    RECORD_BASELINE = "record_baseline"
    THINK = "think"
    SETTLE_PROPOSAL = "settle_proposal"
    CHECK_DATA = "check_data"
    PROPOSE = "propose"
    CONSENT_BY_POLICY = "consent_by_policy"
    ASK_CONSENT = "ask_consent"
    START_RUN = "start_run"
    DIAGNOSE = "diagnose"
    REVIEW = "review"
    REVISE = "revise"
    CONFIRM = "confirm"
    OPEN_ABLATION = "open_ablation"
    REPORT_ABLATION = "report_ablation"
    CHECK_REBUILT = "check_rebuilt"
    REPORT_REPRODUCTION = "report_reproduction"
    CONCLUDE = "conclude"
    PUBLISH = "publish"
    CLOSE_ISSUE = "close_issue"


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do, as plain data: it is the durable workflow's argument."""

    kind: ActionKind
    args: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {"kind": str(self.kind), "args": dict(self.args)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Action:
        return cls(ActionKind(data["kind"]), dict(data["args"]))


def conclude(state: State, reason: str) -> Action:
    """The goal's end, with the reason as it is told."""
    return Action(ActionKind.CONCLUDE, {"state": str(state), "reason": reason})
