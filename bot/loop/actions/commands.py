"""Answering `/postdoc` commands: who may, what it does, and the answer in the thread's one comment."""

from __future__ import annotations

import asyncio
from typing import Any

from bot.conversation import messages
from bot.conversation.commands import (
    Mistake,
    ParsedCommand,
    ablation_arms,
    budget_raise,
    checked,
    compared_runs,
    consent_sha,
    diagnosis_label,
    extra_runs,
    help_topic,
    reproduced_number,
    rethought,
)
from bot.conversation.policy import Policy
from bot.domain.budget import Envelope, Spend
from bot.domain.comparison import compare
from bot.domain.experiment import RESUMABLE_STATES, Command, EventKind, Experiment, JobRole, NewEvent, State
from bot.domain.fold import foreseen
from bot.domain.redaction import redact
from bot.errors import UserError
from bot.loop.action import Action
from bot.loop.actions.ablation import ablation_price_problem, ablation_problem, new_ablation
from bot.loop.actions.answers import Answer, refused
from bot.loop.actions.changes import accept, adopt, immovable, set_keys
from bot.loop.actions.consent import above_policy, agreement, close_question, left_of, needs_second_person
from bot.loop.actions.contract import repository_policy
from bot.loop.actions.planning import plan_facts, post_sticky, result_of
from bot.loop.actions.publish import publish_best
from bot.loop.actions.questions import EXPLAIN, answer_question, may_ask
from bot.loop.actions.reproduction import new_reproduction, reproduction_problem
from bot.loop.spending import next_run_hours
from bot.loop.thinking import may_spend
from bot.loop.world import World


async def answer_command(world: World, x: Experiment, action: Action) -> list[NewEvent]:
    """Check the author's permission now, do what was asked, answer once."""
    command = next(c for c in x.commands if c.seq == action.args["command"])
    answer = await _answered(world, x, command)
    text = redact(answer.text, world.known_secrets)
    done = NewEvent(
        EventKind.COMMAND_ANSWERED, f"command/{command.seq}/answered", {"command": command.seq, "reply": text}
    )
    events = [*answer.events, done]
    repository = world.repository(x)
    if command.comment_id and command.place != "review":  # GitHub has no reactions on a review's body
        await repository.react_to_comment(command.comment_id, answer.reaction, place=command.place or "issue")
    # What is shown already knows what the command brought about.
    after = foreseen(x, events, world.clock())
    if command.number == x.pull_request:
        await post_sticky(world, after)
    else:
        key = messages.hidden_key(x.goal_id, messages.ANSWERS)
        await repository.upsert_comment(command.number, key, messages.answers(after, command.number))
    return events


async def _answered(world: World, x: Experiment, command: Command) -> Answer:
    parsed = checked(command.verb, command.args)
    if isinstance(parsed, Mistake):
        return Answer(messages.reply_mistake(parsed), [], "confused")
    repository = world.repository(x)
    policy = Policy.from_dict(x.policy) if x.is_goal else await repository_policy(world, repository)
    granted = await repository.permission(command.author, command.author_id)
    if not policy.allows(parsed.spec.tier, granted):
        needed = policy.permissions[parsed.spec.tier]
        return Answer(messages.reply_denied(command, needed=needed, granted=granted), [], "-1")
    return await _obey(world, x, command, parsed)


async def _obey(world: World, x: Experiment, command: Command, parsed: ParsedCommand) -> Answer:
    match parsed.verb:
        case "help":
            return Answer(messages.reply_help(help_topic(parsed.args)), [])
        case "halt":
            return await _halt(world, x, command, lift=bool(parsed.args) and parsed.args[0].lower() == "off")
        case "vouch":
            return await _vouch(world, x, command, parsed.args[0].lower())
    if not x.is_goal:
        return refused("There is no goal here: that takes an issue from the goal form, or with the goal's label.")
    match parsed.verb:
        case "status":
            return Answer(messages.reply_status(x, on_pull_request=command.number == x.pull_request), [])
        case "plan":
            return await _plan(world, x, command, rethought(parsed.args))
        case "stop":
            return _stop(x, command)
        case "resume":
            return await _resume(world, x, command, extra_runs(parsed.args))
        case "run":
            return await _run(world, x, command, consent_sha(parsed.args))
        case "budget":
            return await _budget(world, x, command, budget_raise(parsed.args))
        case "set":
            return await set_keys(world, x, command, parsed)
        case "accept" if parsed.args[0].lower() == "goal":
            return await adopt(world, x, command, parsed.args[1] if len(parsed.args) > 1 else None)
        case "accept":
            return await accept(world, x, command, diagnosis_label(parsed.args))
        case "ablate":
            return _ablate(x, command, *ablation_arms(parsed.args))
        case "reproduce":
            return _reproduce(x, command, reproduced_number(parsed.args))
        case "publish":
            return await _publish(world, x, command)
        case "compare":
            return await _compare(world, x, *compared_runs(parsed.args))
        case "ask":
            text, events = await answer_question(world, x, command, command.args[0])
            return Answer(text, events) if events else refused(text)
    raise AssertionError(f"nothing carries out {parsed.verb}")


# --- what spends


async def _run(world: World, x: Experiment, command: Command, wanted: str | None) -> Answer:
    """Consent to what stands at the head; a commit that is not the head was never what is about to be trained."""
    if x.pull_request is None or x.closed or x.goal is None:
        return refused("There is no open pull request to run yet.")
    if x.state.ended and x.state not in RESUMABLE_STATES:
        return refused(f"This goal has ended: {x.reason}.")
    # Without a commit in words, the head that stood when the command was written is meant.
    meant = wanted or command.head_sha or x.head_sha
    head = await world.repository(x).branch_head(x.branch)
    if x.unread_head is not None or head != x.head_sha or not x.head_sha.startswith(meant):
        return Answer(messages.reply_stale(meant, x.unread_head or head or x.head_sha), [], "-1")
    if (limit := needs_second_person(x, command)) is not None:
        return Answer(messages.reply_second_person(x, limit), [], "-1")
    events = [agreement(x, command)]
    if x.state in RESUMABLE_STATES:
        events.insert(0, NewEvent(EventKind.RESUMED, f"resumed/{command.seq}", {"by": command.author}))
    await close_question(world, x, command.author, x.ceilings)
    return Answer(messages.reply_run(x, x.head_sha, left_of(x, x.ceilings)), events)


async def _resume(world: World, x: Experiment, command: Command, extra: int) -> Answer:
    if x.goal is None or x.closed or x.state not in RESUMABLE_STATES:
        return refused(f"There is nothing to resume: this goal is in state “{x.state}”.")
    if (halt := await asyncio.to_thread(world.treasury.halted, x.full_name)) is not None:
        return refused(f"{halt.sentence().capitalize()}; `/postdoc halt off` allows it again.")
    more = Spend(runs=extra)
    resumed = NewEvent(EventKind.RESUMED, f"resumed/{command.seq}", {"by": command.author})
    if extra:
        return await _raise(world, x, command, more, [resumed])
    left = left_of(x, x.ceilings)
    if left.runs <= 0:
        return refused("No run of the budget is left. Write `/postdoc resume +2` to add two.")
    return Answer(messages.reply_resume(left), [resumed])


async def _budget(world: World, x: Experiment, command: Command, more: Spend) -> Answer:
    if x.goal is None or x.closed or (x.state.ended and x.state not in RESUMABLE_STATES):
        return refused("There is no goal under way whose budget could be raised.")
    resumed = NewEvent(EventKind.RESUMED, f"resumed/{command.seq}", {"by": command.author})
    return await _raise(world, x, command, more, [resumed] if x.state is State.EXHAUSTED else [])


async def _raise(world: World, x: Experiment, command: Command, more: Spend, also: list[NewEvent]) -> Answer:
    """Higher ceilings; a consent that stands is extended by the same amount."""
    if (why := above_policy(x, more)) is not None:
        return refused(why)
    if (limit := needs_second_person(x, command, more)) is not None:
        return Answer(messages.reply_second_person(x, limit), [], "-1")
    assert x.goal is not None
    data = {"by": command.author, "more": more.as_dict()}
    events = [NewEvent(EventKind.BUDGET_RAISED, f"budget/{command.seq}", data), *also]
    if x.consent is not None:
        envelope = Envelope.from_dict(x.consent["envelope"]).extended(more)
        consent = {
            "by": command.author,
            "by_id": command.author_id,
            "head_sha": x.consent["head_sha"],
            "envelope": envelope.as_dict(),
        }
        events.append(NewEvent(EventKind.CONSENTED, f"consent/{command.seq}", consent))
        await close_question(world, x, command.author, envelope.ceilings)
    return Answer(messages.reply_budget(foreseen(x, events, world.clock()), more, resumed=bool(also)), events)


# --- what looks


async def _compare(world: World, x: Experiment, first: int, second: int) -> Answer:
    """Two runs on the dev items that both were evaluated on."""
    found = []
    for n in (first, second):
        if n > len(x.runs):
            return refused(f"This goal has no run {n}; so far it has {messages.counted(len(x.runs), 'run')}.")
        role = JobRole.EVALUATE if n else JobRole.BASELINE
        job = x.job_for(role, n)
        if job is None or not job.succeeded:
            return refused(f"{_called(n).capitalize()} has not been evaluated, so there is nothing to compare.")
        try:
            found.append(await result_of(world, x, job))
        except UserError as error:
            return refused(f"{str(error).rstrip('.').capitalize()}.")
    try:
        told = compare(found[0], found[1]).as_dict()
    except UserError as error:
        return refused(str(error))
    return Answer(messages.reply_compared((_called(first), _called(second)), told, len(x.scored_runs)), [])


def _called(n: int) -> str:
    return f"run {n}" if n else "the untouched base model"


# --- what saves


def _stop(x: Experiment, command: Command) -> Answer:
    if x.concluded and x.reproduction is None:
        return refused(f"This goal has already ended: {x.reason}.")
    stopped = NewEvent(EventKind.STOPPED, f"stopped/{command.seq}", {"by": command.author})
    if x.concluded and x.reproduction is not None:
        return Answer(messages.reply_reproduction_stopped(x.reproduction), [stopped])
    return Answer(messages.reply_stop(x), [stopped])


async def _halt(world: World, x: Experiment, command: Command, *, lift: bool) -> Answer:
    """The watcher ends what runs; the treasury refuses every job from this moment on."""
    if lift:
        was = await asyncio.to_thread(world.treasury.lift, x.full_name)
        return Answer(messages.reply_unhalted(was), [])
    await asyncio.to_thread(world.treasury.halt, x.full_name, command.author)
    return Answer(messages.reply_halt(await asyncio.to_thread(world.treasury.running, x.full_name)), [])


# --- what changes the recipe


async def _plan(world: World, x: Experiment, command: Command, wish: str | None) -> Answer:
    """The next run with its price, explained where a language model is there to ask; or the first plan once more."""
    if x.goal is None or x.closed or (x.state.ended and x.state not in RESUMABLE_STATES):
        return refused("No run is to come, so there is nothing to price.")
    if wish is not None:
        return _plan_again(world, x, command, wish)
    facts = messages.PlanFacts(**plan_facts(world, x), next_step=f"Next: {messages.next_step_of(x)}")
    plan = messages.plan(x, facts)
    if not may_ask(world, x):
        return Answer(plan, [])
    explained, events = await answer_question(world, x, command, EXPLAIN)
    return Answer(f"{plan}\n\n{explained}", events)


def _plan_again(world: World, x: Experiment, command: Command, wish: str) -> Answer:
    """Nothing is trained for it but two steps of what it proposes, and what changes is a commit."""
    proposer = world.proposer(policy := Policy.from_dict(x.policy))
    if proposer is None:
        why = "is set here that could think it over"
        if world.brain is not None and policy.brain != "propose":
            why = f"may propose changes here: `brain: {policy.brain}` in the repository's policy"
        return refused(f"No language model {why}. Change it with `/postdoc set`, or push.")
    if x.pull_request is None or x.runs or x.unread_head is not None or x.running_jobs:
        return refused("Only a plan that nothing has been trained of yet can be made again.")
    if proposer["priced"] and not may_spend(x):
        return refused("Thinking costs money, and nobody has agreed to this goal's spending yet.")
    thought = x.thought_on(0)
    if thought is not None and not thought.over:
        return refused("The plan is being thought over already.")
    data = {"run": 0, "by": command.author, "wish": wish}
    event = NewEvent(EventKind.RETHINK, f"rethink/{command.seq}", data)
    said = "The plan is thought over. What comes of it is a commit here; at most two steps are trained for it."
    return Answer(said, [event])


def _ablate(x: Experiment, command: Command, key: str, values: list[Any]) -> Answer:
    """Several values of one key, each a run of the budget, under the consent that stands."""
    if (why := immovable(x) or ablation_problem(x)) is not None:
        return refused(why)
    ablation = new_ablation(x, key, values, by=command.author)
    events = [NewEvent(EventKind.ABLATION_OPENED, f"ablation/{command.seq}", ablation.as_dict())]
    if x.state in RESUMABLE_STATES:
        events.insert(0, NewEvent(EventKind.RESUMED, f"resumed/{command.seq}", {"by": command.author}))
    if (why := ablation_price_problem(x, ablation)) is not None:
        return refused(why)
    return Answer(messages.reply_ablate(x, ablation, next_run_hours(x)), events)


def _reproduce(x: Experiment, command: Command, run: int) -> Answer:
    """A run once more, as one run of the budget, under the consent that stands; an ended goal stays ended."""
    if (why := reproduction_problem(x, run)) is not None:
        return refused(why)
    asked = new_reproduction(x, run, by=command.author)
    event = NewEvent(EventKind.REPRODUCTION_OPENED, f"reproduction/{command.seq}", asked.as_dict())
    return Answer(messages.reply_reproduce(x, asked, next_run_hours(x)), [event])


# --- what leaves the house


async def _publish(world: World, x: Experiment, command: Command) -> Answer:
    try:
        events = await publish_best(world, x, command.author)
    except UserError as error:
        return refused(str(error))
    if x.pull_request is not None and command.number != x.pull_request:
        await post_sticky(world, foreseen(x, events, world.clock()))
    return Answer(messages.reply_published(events[0].data), events)


# --- forks


async def _vouch(world: World, x: Experiment, command: Command, wanted: str) -> Answer:
    """Copy the head of a fork's pull request, which its author has looked at, to a branch of ours."""
    repository = world.repository(x)
    pull_request = await repository.pull_request_or_none(command.number)
    if pull_request is None:
        return refused("Only a pull request from a fork can be vouched for; this is an issue.")
    head, base = pull_request["head"], pull_request["base"]
    if head["repo"] is not None and head["repo"]["full_name"] == base["repo"]["full_name"]:
        return refused("This pull request comes from this repository itself, so it needs nobody to vouch for it.")
    if not head["sha"].startswith(wanted):
        return refused(f"`{wanted}` is not what stands here now: that is `{head['sha'][:12]}`. Look at it first.")
    branch = f"postdoc/vouched-{command.number}-{head['sha'][:12]}"
    await repository.create_branch(branch, head["sha"])
    url = f"{base['repo']['html_url']}/compare/{base['ref']}...{branch}?expand=1"
    return Answer(messages.reply_vouched(branch, head["sha"], url), [])
