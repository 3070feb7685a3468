"""Answers to commands: one short comment each, which names the command it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bot.conversation.commands import PREFIX, VERBS, Mistake, Verb, help_rows
from bot.conversation.inert import code, unmentioned
from bot.conversation.messages.keys import message
from bot.conversation.messages.progress import next_step_of
from bot.conversation.messages.tables import ledger, sentences, spent_words, table, value_sentence
from bot.conversation.messages.wording import changes, counted, short, state_sentence
from bot.conversation.permissions import Tier
from bot.domain.experiment import Command, Experiment

_COVERS = {
    Tier.READ: "read",
    Tier.PLAN: "stop or plan work",
    Tier.TRAIN: "change what is trained",
    Tier.ADMIN: "change what may be spent or published",
}


def reply(experiment: Experiment, command: Command, *parts: str) -> str:
    """An answer. It quotes the command, and names its author without notifying them."""
    said = code(" ".join((PREFIX, command.verb, *command.args)).strip(), 200)
    return message(experiment.goal_id, f"command/{command.seq}", f"{said} from {code(command.author, 60)}:", *parts)


def reply_help(experiment: Experiment, command: Command, topic: str | None = None) -> str:
    """All commands, or the one that is asked about."""
    verb = VERBS.get(topic.lower()) if topic else None
    if verb is not None:
        return reply(experiment, command, *_verb_help(verb))
    rows = [(code(usage), summary) for usage, summary, _ in help_rows(available_only=True)]
    planned = ", ".join(f"`{verb.name}`" for verb in VERBS.values() if not verb.available)
    notes = (
        "Write commands at the start of a line; one comment may hold several. Quoted text and code command nothing."
        + (f" Not there yet: {planned}." if planned else "")
    )
    return reply(experiment, command, table(("Command", "What it does"), rows), notes)


def _verb_help(verb: Verb) -> tuple[str, ...]:
    spends = "It may spend, within what the goal's budget allows." if verb.spends else "It spends nothing."
    there = "" if verb.available else "It is not there yet."
    return (f"`{PREFIX} {verb.usage}`: {verb.summary}", f"Needs the tier `{verb.tier}`. {spends} {there}".rstrip())


def reply_status(experiment: Experiment, command: Command, *, spent_usd: float = 0.0, next_step: str = "") -> str:
    return reply(
        experiment,
        command,
        f"**{state_sentence(experiment)}** {value_sentence(experiment)}",
        ledger(experiment),
        f"Spent: {spent_words(experiment, spent_usd)}.",
        f"Next: {next_step or next_step_of(experiment)}",
    )


def reply_denied(experiment: Experiment, command: Command, needed: str, granted: str) -> str:
    """The author's role does not reach. `needed` and `granted` are GitHub's roles."""
    verb = VERBS.get(command.verb)
    covers = f" To {_COVERS[verb.tier]} here" if verb is not None else " For this"
    return reply(
        experiment,
        command,
        f"Not carried out.{covers}, the role `{needed}` in this repository is needed; "
        f"{code(command.author, 60)} has {code(granted or 'none', 40)}. Somebody with that role can write the line.",
    )


def reply_mistake(experiment: Experiment, command: Command, mistake: Mistake) -> str:
    return reply(experiment, command, f"Not carried out. {mistake.problem}")


def reply_not_yet(experiment: Experiment, command: Command) -> str:
    verb = VERBS[command.verb]
    return reply(
        experiment,
        command,
        f"`{verb.name}` is not there yet, so nothing was done. `{PREFIX} help` lists what is.",
    )


def reply_set(experiment: Experiment, command: Command, changed: Mapping[str, Sequence[Any]], sha: str) -> str:
    if not changed:
        return reply(experiment, command, "The recipe holds these values already, so nothing was committed.")
    return reply(experiment, command, f"Committed as {short(sha)}: {changes(changed)}. {_after_change(experiment)}")


def reply_accept(
    experiment: Experiment, command: Command, label: str, changed: Mapping[str, Sequence[Any]], sha: str
) -> str:
    if not changed:
        return reply(experiment, command, f"{label}'s change stands in the recipe already, so nothing was committed.")
    return reply(
        experiment, command, f"{label} committed as {short(sha)}: {changes(changed)}. {_after_change(experiment)}"
    )


def _after_change(experiment: Experiment) -> str:
    running = [job for job in experiment.running_jobs if job.role.value in ("train", "evaluate")]
    if running:
        return "The run under way is not touched; the next one uses it."
    return "The next run uses it, once it may start."


def reply_run(experiment: Experiment, command: Command, sha: str, runs_left: int | None = None) -> str:
    """Consent was given."""
    left = f" {counted(runs_left, 'run')} left in the budget." if runs_left is not None else ""
    return reply(experiment, command, f"Agreed for the recipe at {short(sha)}, within the goal's budget.{left}")


def reply_stale(experiment: Experiment, command: Command, sha: str, head_sha: str) -> str:
    """Consent named a commit that is not the head any more."""
    return reply(
        experiment,
        command,
        f"Not carried out: {code(short(sha))} is not what stands here now. To agree to the present recipe, write:\n\n"
        f"```\n{PREFIX} run {head_sha[:12]}\n```",
    )


def reply_stop(experiment: Experiment, command: Command) -> str:
    ending = "the running job is ended" if experiment.running_jobs else "no job was running"
    return reply(
        experiment, command, f"Stopping: {ending}, and nothing more is trained. `{PREFIX} resume` goes on later."
    )


def reply_resume(experiment: Experiment, command: Command, runs_left: int | None = None) -> str:
    left = f"; {counted(runs_left, 'run')} left in the budget" if runs_left is not None else ""
    return reply(experiment, command, f"Going on{left}.")


def reply_refused(experiment: Experiment, command: Command, why: str) -> str:
    """The command makes sense and is permitted, and still cannot be done now; `why` is one sentence of ours."""
    return reply(experiment, command, f"Not carried out. {unmentioned(' '.join(why.split()))}")


def head_refused(experiment: Experiment, sha: str, problems: Sequence[str]) -> str:
    """A person's push holds a recipe that cannot be trained; what stood there before still holds."""
    return message(
        experiment.goal_id,
        f"head/{sha[:12]}",
        f"**The recipe at {short(sha)} cannot be trained**, so I go on with the one before. To correct:",
        sentences(problems),
        "Push again and I will read it again.",
    )


def reply_no_diagnosis(experiment: Experiment, command: Command, labels: Sequence[str]) -> str:
    """`accept` names a label that does not exist, or one without a suggestion."""
    known = f" There are {', '.join(labels[:20])}." if labels else " There is none yet."
    return reply(experiment, command, f"There is no diagnosis with a suggested value by that label.{known}")
