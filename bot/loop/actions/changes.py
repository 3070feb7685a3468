"""Commands that change what is trained: lines of the recipe, a diagnosis's remedy, a proposal, the goal itself."""

from __future__ import annotations

from bot.brain.playbook import Kind, Remedy
from bot.conversation import messages
from bot.conversation.commands import ParsedCommand, recipe_settings
from bot.diagnosis.remedies import null_is_the_remedy
from bot.domain.experiment import RESUMABLE_STATES, Command, EventKind, Experiment, NewEvent
from bot.domain.fold import foreseen
from bot.errors import UserError
from bot.loop.actions.adoption import adopt_goal, adoption_problem
from bot.loop.actions.answers import Answer, refused
from bot.loop.actions.revising import commit_change, commit_remedy
from bot.loop.actions.specs import earlier_run_problems
from bot.loop.spending import consent_missing
from bot.loop.world import World


async def set_keys(world: World, x: Experiment, command: Command, parsed: ParsedCommand) -> Answer:
    """Lines of the recipe, as one commit."""
    if (why := immovable(x)) is not None:
        return refused(why)
    settings = recipe_settings(parsed.args)
    if problems := earlier_run_problems(x, settings):
        return refused(" ".join(problems))
    events = await commit_change(world, x, settings, why=f"{command.author} set it", by=command.author)
    return _changed(world, x, events, "Committed")


async def accept(world: World, x: Experiment, command: Command, label: str) -> Answer:
    """What a diagnosis or a proposal suggests, as a commit of whoever accepts it."""
    if label.startswith("P"):
        return await _accept_proposal(world, x, command, label)
    named = messages.diagnosis_named(x, label)
    if named is None:
        return Answer(messages.reply_no_diagnosis(list(messages.diagnosis_labels(x))), [], "confused")
    run, diagnosis = named
    settings = {diagnosis.key: diagnosis.suggested} if diagnosis.key else {}
    remedy = None
    if run.remedy is not None and run.remedy["symptom"] == diagnosis.symptom:
        remedy = Remedy.from_dict(run.remedy)
        settings = remedy.settings
    if not settings or (None in settings.values() and not null_is_the_remedy(diagnosis)):
        return refused(f"{label} suggests no single change; use `/postdoc set key=value`.")
    if (why := immovable(x)) is not None:
        return refused(why)
    why = f"{command.author} accepted {label}"
    if remedy is not None and remedy.kind is not Kind.ABLATION:
        events = await commit_remedy(world, x, remedy, why=why, by=command.author)
    else:
        events = await commit_change(world, x, settings, why=why, by=command.author)
    return _changed(world, x, events, f"{label} committed")


async def _accept_proposal(world: World, x: Experiment, command: Command, label: str) -> Answer:
    """What the language model proposed for the latest run, as a commit of whoever accepts it."""
    run = x.run
    if run is None or run.remedy is None or run.remedy.get("label") != label:
        return refused(f"{label} is not what stands to be accepted now; the latest review says what is.")
    if (why := immovable(x)) is not None:
        return refused(why)
    remedy = Remedy.from_dict(run.remedy)
    events = await commit_remedy(world, x, remedy, why=f"{command.author} accepted {label}", by=command.author)
    return _changed(world, x, events, f"{label} committed", rewritten=bool(remedy.scripts))


async def adopt(world: World, x: Experiment, command: Command, wanted: str | None) -> Answer:
    """Take over the goal that the edited issue states. What was agreed was agreed for another goal, so it ends."""
    if (why := adoption_problem(x, wanted)) is not None:
        return refused(why)
    try:
        events = await adopt_goal(world, x, by=command.author)
    except UserError as error:
        return refused(str(error))
    if events[0].kind is EventKind.HEAD_MOVED:
        return Answer(messages.reply_refused("Somebody pushed at the same moment; write it again."), events, "-1")
    return Answer(messages.reply_adopted(foreseen(x, events, world.clock())), events)


def immovable(x: Experiment) -> str | None:
    """Why nothing can be changed now; None where something can."""
    if x.pull_request is None or x.closed:
        return "There is no open pull request to change yet."
    if x.unread_head is not None:
        return "Somebody has pushed to the branch just now; look at it and write the command again."
    if x.state.ended and x.state not in RESUMABLE_STATES:
        return f"This goal has ended: {x.reason}."
    return None


def _changed(world: World, x: Experiment, events: list[NewEvent], what: str, *, rewritten: bool = False) -> Answer:
    if events[0].kind is EventKind.HEAD_MOVED:
        return Answer(
            messages.reply_refused("Somebody pushed at the same moment; look at it and write it again."), events, "-1"
        )
    head, changed = str(events[0].data["head_sha"]), dict(events[0].data["changed"])
    after = foreseen(x, events, world.clock())
    waits = consent_missing(after, keys=tuple(after.changed)) if changed or rewritten else None
    return Answer(messages.reply_changed(x, what, changed, head, waits), events)
