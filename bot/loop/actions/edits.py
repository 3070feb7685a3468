"""An issue that is edited after its pull request stands: read, compared, and offered. It moves nothing by itself."""

from __future__ import annotations

from typing import Any

from bot.conversation import messages
from bot.conversation.permissions import Tier
from bot.domain.experiment import RESUMABLE_STATES, Edit, EventKind, Experiment, NewEvent
from bot.domain.goal import Goal, digest_of
from bot.loop.action import Action
from bot.loop.actions.contract import Reading, edit_denied, ignore_edit, policy_at, read_text, say
from bot.loop.world import World


async def read_edit(world: World, x: Experiment, action: Action) -> list[NewEvent]:
    """Hold the issue's latest text against the agreed goal, and show the difference in the contract comment.

    Of several edits the last one is read. One that changes no field (a title, a space, a comment in the recipe) is not
    mentioned, nor is one by somebody who may not open a goal.
    """
    assert x.goal is not None and x.edit is not None
    version, edit = int(action.args["version"]), x.edit
    repository = world.repository(x)
    _, base_sha = await repository.default_branch()
    policy, problems = await policy_at(world, repository, base_sha)
    if (granted := await edit_denied(repository, policy, edit)) is not None:
        return [await ignore_edit(repository, x, version, edit, granted)]
    found = await read_text(world, repository, base_sha, edit.title, edit.body, policy, problems)
    told, offer, body = "", None, ""
    over = x.state.ended and x.state not in RESUMABLE_STATES
    changes: list[list[str]] = []
    if found.goal is not None and found.complete:
        pins = _kept_pins(x, found)
        changes = messages.goal_changes(x.goal, found.goal, x.pins, pins)
        problems = [] if over or not changes else _untimely(x, found.goal, pins)
        if changes and not over and not problems:
            assert found.policy is not None
            told, offer = f"offer {found.goal.hash}", _offer(x, found, pins, edit, changes)
            body = messages.offer(
                x, found.goal, changes, needs=found.policy.permissions[Tier.TRAIN], by=f"@{edit.by}",
                anew=_anew(x, found.goal, pins),
            )  # fmt: skip
    else:
        problems = found.problems + found.questions
    if over and (changes or problems):
        told, body = "ended", messages.edit_after_end(x)
    elif problems:
        told, body = f"problems {digest_of(problems)[:12]}", messages.edit_unreadable(x, problems, ())
    comment_id = None
    if told != x.edit_told:
        comment_id = await say(repository, x, body or messages.agreed_contract(x))
    data = {"text_version": version, "by": edit.by, "offer": offer, "told": told, "comment_id": comment_id}
    return [NewEvent(EventKind.GOAL_READ, f"read/{version}", data)]


def _kept_pins(x: Experiment, found: Reading) -> dict[str, Any]:
    """Pins of the offered goal: what it names as the agreed one did stands for what it stood for then."""
    assert x.goal is not None and found.goal is not None
    pins = dict(found.plan["pins"])
    for field, names in (("dataset", ["dataset"]), ("benchmark", ["benchmark", "judge"])):
        if getattr(found.goal, field) == getattr(x.goal, field):
            for name in names:
                pins.pop(name, None)
                if name in x.pins:
                    pins[name] = x.pins[name]
    return pins


def _offer(x: Experiment, found: Reading, pins: dict[str, Any], edit: Edit, changes: list[list[str]]) -> dict[str, Any]:
    """What adopting takes, as it is kept in the journal."""
    assert found.goal is not None and found.policy is not None
    plan = {key: found.plan[key] for key in ("recipe", "digests", "shipped_digests")}
    return plan | {
        "goal": found.goal.as_dict(),
        "hash": found.goal.hash,
        "pins": pins,
        "policy": found.policy.as_dict(),
        "changes": [list(row) for row in changes],
        "by": edit.by,
    }


def _untimely(x: Experiment, goal: Goal, pins: dict[str, Any]) -> list[str]:
    """Why a goal that is well written cannot follow on what has been done already."""
    same = _with(x, goal, pins) == x.yardstick
    if same and x.baseline is not None and goal.reached(x.baseline.value):
        side, other = ("above", "higher") if goal.measure.higher_is_better else ("below", "lower")
        return [
            f"The target {goal.said_target} is not {side} what `{goal.base_model}` reaches untouched, "
            f"{goal.measure.said(x.baseline.value)}: write a {other} target."
        ]
    return []


def _with(x: Experiment, goal: Goal, pins: dict[str, Any]) -> str:
    """The yardstick that the experiment would have with this goal."""
    return Experiment(x.goal_id, goal=goal, pins=pins).yardstick


def _anew(x: Experiment, goal: Goal, pins: dict[str, Any]) -> str:
    if _with(x, goal, pins) == x.yardstick:
        return "What has been measured still counts."
    return (
        "The base model is then measured anew, and earlier runs no longer count, because they were measured on another."
    )
