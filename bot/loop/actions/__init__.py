"""The side effects, one function for each kind of action. Each may be repeated: it finds what it has already done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from bot.domain.experiment import Experiment, NewEvent
from bot.loop.action import Action, ActionKind
from bot.loop.actions.ablation import open_ablation, report_ablation
from bot.loop.actions.commands import answer_command
from bot.loop.actions.consent import ask_consent, consent_by_policy
from bot.loop.actions.contract import read_contract
from bot.loop.actions.diagnosing import diagnose_run
from bot.loop.actions.edits import read_edit
from bot.loop.actions.ending import close_issue, conclude, confirm
from bot.loop.actions.heads import read_head
from bot.loop.actions.planning import check_data, propose, record_baseline
from bot.loop.actions.preflight import launch
from bot.loop.actions.proposals import settle_proposal
from bot.loop.actions.publish import publish_merged
from bot.loop.actions.reproduction import check_rebuilt, report_reproduction
from bot.loop.actions.revising import revise
from bot.loop.actions.runs import review, start_run
from bot.loop.actions.scoring import judge_answers
from bot.loop.actions.thinking import think
from bot.loop.engine import Perform
from bot.loop.world import World

_ACTIONS: dict[ActionKind, Callable[[World, Experiment, Action], Awaitable[list[NewEvent]]]] = {
    ActionKind.READ_CONTRACT: read_contract,
    ActionKind.READ_EDIT: read_edit,
    ActionKind.ANSWER_COMMAND: answer_command,
    ActionKind.READ_HEAD: read_head,
    ActionKind.LAUNCH: launch,
    ActionKind.JUDGE: judge_answers,
    ActionKind.RECORD_BASELINE: record_baseline,
    ActionKind.CHECK_DATA: check_data,
    ActionKind.THINK: think,
    ActionKind.SETTLE_PROPOSAL: settle_proposal,
    ActionKind.PROPOSE: propose,
    ActionKind.CONSENT_BY_POLICY: consent_by_policy,
    ActionKind.ASK_CONSENT: ask_consent,
    ActionKind.START_RUN: start_run,
    ActionKind.DIAGNOSE: diagnose_run,
    ActionKind.REVIEW: review,
    ActionKind.REVISE: revise,
    ActionKind.CONFIRM: confirm,
    ActionKind.OPEN_ABLATION: open_ablation,
    ActionKind.REPORT_ABLATION: report_ablation,
    ActionKind.CHECK_REBUILT: check_rebuilt,
    ActionKind.REPORT_REPRODUCTION: report_reproduction,
    ActionKind.CONCLUDE: conclude,
    ActionKind.PUBLISH: publish_merged,
    ActionKind.CLOSE_ISSUE: close_issue,
}


def performer(world: World) -> Perform:
    """The function that the engine calls for every action."""

    async def perform(experiment: Experiment, action: Action) -> list[NewEvent]:
        return await _ACTIONS[action.kind](world, experiment, action)

    return perform
