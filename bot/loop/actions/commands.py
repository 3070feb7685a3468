"""Answering `/postdoc` commands: who may, what it does, and one reply."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bot.brain.playbook import Remedy
from bot.conversation import messages
from bot.conversation.commands import (
    Mistake,
    ParsedCommand,
    checked,
    consent_sha,
    diagnosis_label,
    extra_runs,
    recipe_settings,
)
from bot.conversation.policy import Policy
from bot.diagnosis.remedies import null_is_the_remedy
from bot.domain.budget import Envelope
from bot.domain.experiment import RESUMABLE_STATES, Command, EventKind, Experiment, NewEvent
from bot.loop.actions.planning import post_sticky
from bot.loop.actions.runs import commit_change
from bot.loop.policy import Action
from bot.loop.world import World

Answer = tuple[str, list[NewEvent]]
"""The reply's Markdown, and what the command brought about."""


async def answer_command(world: World, x: Experiment, action: Action) -> list[NewEvent]:
    """Check the author's permission now, do what was asked, reply once."""
    command = next(c for c in x.commands if c.seq == action.args["command"])
    repository = world.repository(x)
    done = NewEvent(EventKind.COMMAND_ANSWERED, f"command/{command.seq}/answered", {"command": command.seq})
    parsed = checked(command.verb, command.args)
    events: list[NewEvent] = []
    if isinstance(parsed, Mistake):
        reply = messages.reply_mistake(x, command, parsed)
    else:
        policy = Policy.from_dict(x.policy)
        granted = await repository.permission(command.author, command.author_id)
        if not policy.allows(parsed.spec.tier, granted):
            needed = policy.permissions[parsed.spec.tier]
            reply = messages.reply_denied(x, command, needed=needed, granted=granted)
        else:
            reply, events = await _obey(world, x, command, parsed)
    if command.comment_id:
        await repository.react_to_comment(command.comment_id, "+1" if events else "eyes")
    await repository.upsert_comment(command.number, messages.hidden_key(x.goal_id, f"command/{command.seq}"), reply)
    return [*events, done]


async def _obey(world: World, x: Experiment, command: Command, parsed: ParsedCommand) -> Answer:
    if not parsed.spec.available:
        return messages.reply_not_yet(x, command), []
    match parsed.verb:
        case "help":
            return messages.reply_help(x, command), []
        case "status":
            if x.pull_request is not None:
                await post_sticky(world, x)
            return messages.reply_status(x, command), []
        case "stop":
            return _stop(x, command)
        case "resume":
            return _resume(x, command, extra_runs(parsed.args))
        case "run":
            return _run(x, command, consent_sha(parsed.args))
        case "set":
            return await _set(world, x, command, recipe_settings(parsed.args))
        case "accept":
            return await _accept(world, x, command, diagnosis_label(parsed.args))
    return messages.reply_not_yet(x, command), []


def _stop(x: Experiment, command: Command) -> Answer:
    if x.concluded:
        return messages.reply_refused(x, command, f"This goal has already ended: {x.reason}."), []
    stopped = NewEvent(EventKind.STOPPED, f"stopped/{command.seq}", {"by": command.author})
    return messages.reply_stop(x, command), [stopped]


def _resume(x: Experiment, command: Command, extra: int) -> Answer:
    if x.goal is None or x.closed or x.state not in RESUMABLE_STATES:
        return messages.reply_refused(x, command, f"There is nothing to resume: this goal is in state “{x.state}”."), []
    left = x.goal.budget.runs + x.extra_runs + extra - len(x.runs)
    if left <= 0:
        return messages.reply_refused(
            x, command, "No run of the budget is left. Write `/postdoc resume +2` to add two."
        ), []
    data = {"by": command.author, "extra_runs": extra}
    events = [NewEvent(EventKind.RESUMED, f"resumed/{command.seq}", data)]
    if extra:
        events.append(_consent(x, command, extra))
    return messages.reply_resume(x, command, left), events


def _run(x: Experiment, command: Command, wanted: str | None) -> Answer:
    """Consent to what stands at the head; a commit that is not the head was never what is about to be trained."""
    if x.pull_request is None or x.closed or x.goal is None:
        return messages.reply_refused(x, command, "There is no open pull request to run yet."), []
    if x.unread_head is not None or (wanted and not x.head_sha.startswith(wanted.lower())):
        return messages.reply_stale(x, command, wanted or "the head", x.unread_head or x.head_sha), []
    if x.state.ended and x.state not in RESUMABLE_STATES:
        return messages.reply_refused(x, command, f"This goal has ended: {x.reason}."), []
    events = [_consent(x, command)]
    if x.state in RESUMABLE_STATES:
        data: dict[str, Any] = {"by": command.author, "extra_runs": 0}
        events.insert(0, NewEvent(EventKind.RESUMED, f"resumed/{command.seq}", data))
    return messages.reply_run(x, command, x.head_sha), events


def _consent(x: Experiment, command: Command, extra: int = 0) -> NewEvent:
    """A person's consent: the goal as it stands, up to its own budget, and the recipe keys that policy lets change."""
    assert x.goal is not None
    ceilings = replace(x.goal.budget, runs=x.goal.budget.runs + x.extra_runs + extra)
    keys = frozenset(Policy.from_dict(x.policy).consent.recipe_keys)
    data = {
        "by": command.author,
        "head_sha": x.head_sha,
        "envelope": Envelope(x.goal.hash, ceilings, keys).as_dict(),
    }
    return NewEvent(EventKind.CONSENTED, f"consent/{command.seq}", data)


async def _set(world: World, x: Experiment, command: Command, settings: dict[str, Any]) -> Answer:
    if (why := _immovable(x)) is not None:
        return messages.reply_refused(x, command, why), []
    events = await commit_change(world, x, settings, why=f"{command.author} set it", by=command.author)
    return _changed(x, command, events, None)


async def _accept(world: World, x: Experiment, command: Command, label: str) -> Answer:
    named = messages.diagnosis_named(x, label)
    if named is None:
        return messages.reply_no_diagnosis(x, command, list(messages.diagnosis_labels(x))), []
    run, diagnosis = named
    settings = {diagnosis.key: diagnosis.suggested} if diagnosis.key else {}
    if run.remedy is not None and run.remedy["symptom"] == diagnosis.symptom:
        settings = Remedy.from_dict(run.remedy).settings
    if not settings or (None in settings.values() and not null_is_the_remedy(diagnosis)):
        return messages.reply_refused(
            x, command, f"{label} suggests no single change; use `/postdoc set key=value`."
        ), []
    if (why := _immovable(x)) is not None:
        return messages.reply_refused(x, command, why), []
    events = await commit_change(world, x, settings, why=f"{command.author} accepted {label}", by=command.author)
    return _changed(x, command, events, label)


def _immovable(x: Experiment) -> str | None:
    if x.pull_request is None or x.closed:
        return "There is no open pull request to change yet."
    if x.unread_head is not None:
        return "Somebody has pushed to the branch just now; look at it and write the command again."
    if x.state.ended and x.state not in RESUMABLE_STATES:
        return f"This goal has ended: {x.reason}."
    return None


def _changed(x: Experiment, command: Command, events: list[NewEvent], label: str | None) -> Answer:
    if events[0].kind is EventKind.HEAD_MOVED:
        return messages.reply_refused(
            x, command, "Somebody pushed at the same moment; look at it and write it again."
        ), events
    head, changed = str(events[0].data["head_sha"]), dict(events[0].data["changed"])
    if label is not None:
        return messages.reply_accept(x, command, label, changed, head), events
    return messages.reply_set(x, command, changed, head), events
