"""Answers to commands: a few lines each, kept together in the thread's one comment, the latest first and unfolded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bot.conversation.commands import PREFIX, VERBS, Mistake, Verb, help_rows
from bot.conversation.messages.keys import message, within_limit
from bot.conversation.messages.tables import budget_words, comparisons, ledger, sentences, table, value_sentence
from bot.conversation.messages.wording import (
    changes,
    counted,
    goal_of,
    hours,
    listed,
    measure_of,
    short,
    state_sentence,
    usd,
)
from bot.conversation.permissions import Tier
from bot.domain.budget import Spend
from bot.domain.evaluation import Verdict
from bot.domain.experiment import Command, Experiment
from bot.domain.inert import code, inert, unmentioned

ANSWERS = "answers"
"""Name of the comment that holds the answers where there is no sticky comment: an issue, a fork's pull request."""
MOST_ANSWERS = 4
_LONGEST_ANSWER = 12_000

_COVERS = {
    Tier.READ: "read",
    Tier.PLAN: "stop or plan work",
    Tier.TRAIN: "change what is trained",
    Tier.ADMIN: "change what may be spent or published",
}


def answers(experiment: Experiment, number: int) -> str:
    """The comment that holds the answers of thread `number`."""
    return message(experiment.goal_id, ANSWERS, answers_block(experiment, number))


def answers_block(experiment: Experiment, number: int) -> str:
    """The latest answers of thread `number`, "" when nothing was asked there. Authors are named, not notified."""
    given = [c for c in experiment.commands if c.answered and c.answer and c.number == number][-MOST_ANSWERS:]
    if not given:
        return ""
    *earlier, latest = given
    parts = [f"**{_said(latest)}**", within_limit(latest.answer, _LONGEST_ANSWER)]
    for command in reversed(earlier):
        parts.append(
            f"<details><summary>{_said(command, html=True)}</summary>\n\n"
            f"{within_limit(command.answer, _LONGEST_ANSWER)}\n\n</details>"
        )
    return "\n\n".join(parts)


def _said(command: Command, *, html: bool = False) -> str:
    line = " ".join((PREFIX, command.verb, *command.args)).strip()
    if html:
        # Markdown is not read inside a summary, so the text has to be harmless by itself.
        safe = "".join(c if c.isascii() and (c.isalnum() or c in " /=.,+-_()") else "…" for c in line)[:120]
        who = "".join(c for c in command.author if c.isalnum() or c == "-")
        return f"Before: <code>{safe}</code> from <code>{who}</code>"
    return f"{code(line, 200)} from {code(command.author, 60)}"


def reply_help(topic: str | None = None) -> str:
    """All commands, or the one that is asked about."""
    verb = VERBS.get(topic.lower()) if topic else None
    if verb is not None:
        return "\n\n".join(_verb_help(verb))
    rows = [(code(usage), summary, f"`{tier}`") for usage, summary, tier in help_rows()]
    notes = "Write commands at the start of a line; one comment may hold several. Quoted text and code command nothing."
    return f"{table(('Command', 'What it does', 'Tier'), rows)}\n\n{notes}"


def _verb_help(verb: Verb) -> tuple[str, ...]:
    spends = "It may spend, within what the goal's budget allows." if verb.spends else "It spends nothing."
    return (f"`{PREFIX} {verb.usage}`: {verb.summary}", f"Needs the tier `{verb.tier}`. {spends}")


def reply_denied(command: Command, needed: str, granted: str) -> str:
    """The author's role does not reach. `needed` and `granted` are GitHub's roles."""
    verb = VERBS.get(command.verb)
    covers = f" To {_COVERS[verb.tier]} here" if verb is not None else " For this"
    return (
        f"Not carried out.{covers}, the role `{needed}` in this repository is needed; "
        f"{code(command.author, 60)} has {code(granted or 'none', 40)}. Somebody with that role can write the line."
    )


def reply_mistake(mistake: Mistake) -> str:
    return f"Not carried out. {mistake.problem}"


def reply_refused(why: str) -> str:
    """The command makes sense and is permitted, and still cannot be done now; `why` is one sentence of ours."""
    return f"Not carried out. {unmentioned(' '.join(why.split()))}"


def reply_status(experiment: Experiment, *, on_pull_request: bool) -> str:
    """On the pull request, the sticky comment that the answer stands in says the rest."""
    if on_pull_request:
        return "What stands above is as of now."
    where = f" The pull request is #{experiment.pull_request}." if experiment.pull_request is not None else ""
    told = f"**{state_sentence(experiment)}**{where} {value_sentence(experiment)}"
    return "\n\n".join(part for part in (told, ledger(experiment)) if part)


def reply_compared(names: tuple[str, str], found: Mapping[str, Any], scored_runs: int) -> str:
    """The second of two runs against the first: difference, interval, verdict, and how many items it would take."""
    before, after = names
    verdict = str(found["verdict"])
    measure = measure_of(found)
    told = "cannot be told from" if verdict == Verdict.CANNOT_TELL else f"is {verdict} than"
    needed = f"; about {found['n_needed']:,} would tell the observed one" if found.get("n_needed") else ""
    parts = [
        f"**{after[0].upper()}{after[1:]} {told} {before}.**",
        comparisons([(before, found)]),
        f"These {found['n']} items show differences from about {measure.said_size(found['minimum_detectable'])} on "
        f"(power 0.8){needed}.",
    ]
    if scored_runs > 1:
        parts.append(
            f"The verdict is this comparison's own, at 5 %. With {scored_runs} runs there are "
            f"{scored_runs * (scored_runs + 1) // 2} such pairs, and one in twenty looks different by chance alone."
        )
    return "\n\n".join(parts)


def reply_changed(
    experiment: Experiment, what: str, changed: Mapping[str, Sequence[Any]], sha: str, waits: str | None
) -> str:
    """A recipe change was committed. `what` names it at the start of a sentence; `waits` is why the next run asks
    first, None when it does not."""
    if not changed:
        return "The recipe holds this already, so nothing was committed."
    running = any(job.role.value in ("train", "evaluate") for job in experiment.running_jobs)
    now = "The run under way is not touched. " if running else ""
    spends = f"Training it waits for consent: {unmentioned(waits)}." if waits else "The next run uses it."
    return f"{what} as {short(sha)}: {changes(changed)}. {now}{spends}"


def reply_run(experiment: Experiment, sha: str, left: Spend) -> str:
    """Consent was given: to which commit, and up to how much from now on."""
    return (
        f"Agreed: the recipe at {short(sha)} and what Postdoc makes of it, for at most {spend_words(left)} more. "
        "A push by a person, or a changed goal, ends this."
    )


def reply_stale(sha: str, head_sha: str) -> str:
    """Consent named, or its author saw, a commit that is not the head any more."""
    return (
        f"Not carried out: {code(short(sha))} is not what stands here now. To agree to the present recipe, write:\n\n"
        f"```\n{PREFIX} run {head_sha[:12]}\n```"
    )


def reply_second_person(experiment: Experiment, ceiling_usd: float) -> str:
    """The goal's author cannot be the only one who agrees to this much."""
    return (
        f"Not carried out: {code(experiment.author, 60)} opened this goal, and above {usd(ceiling_usd)} somebody else "
        "has to agree as well. Anybody else with the same role can write the line."
    )


def reply_stop(experiment: Experiment) -> str:
    ending = "the running job is ended" if experiment.running_jobs else "no job was running"
    return f"Stopping: {ending}, and nothing more is trained. `{PREFIX} resume` goes on later."


def reply_resume(left: Spend) -> str:
    return f"Going on, with {spend_words(left)} left."


def reply_budget(experiment: Experiment, more: Spend, *, resumed: bool) -> str:
    """Ceilings were raised; `experiment` has them already."""
    on = " Going on." if resumed else ""
    return f"Raised by {spend_words(more)}. The goal may now take {budget_words(experiment.ceilings)}.{on}"


def reply_adopted(experiment: Experiment) -> str:
    """The goal that the edited issue states is the contract now; `experiment` has it already."""
    goal = goal_of(experiment)
    return (
        f"Adopted: the goal `{goal.hash}`, to {goal.measure.aim.lower()} {code(goal.base_model, 120)} to "
        f"{goal.said_target} on {code(goal.benchmark, 120)}, committed as {short(experiment.head_sha)}. Training it is "
        "asked about anew."
    )


def reply_halt(halted: int) -> str:
    jobs = f"{counted(halted, 'running job')} in this repository will be ended" if halted else "nothing was running"
    return (
        f"**Halted.** No job is started in this repository any more, and {jobs}. `{PREFIX} halt off` allows spending "
        f"again; each goal then goes on with `{PREFIX} resume`."
    )


def reply_unhalted(was_halted: bool) -> str:
    if not was_halted:
        return "Spending was not halted here."
    return f"Spending is allowed again. Goals that were stopped go on with `{PREFIX} resume`."


def reply_vouched(branch: str, sha: str, url: str) -> str:
    return (
        f"Copied {short(sha)} to the branch {code(branch, 200)}. Nothing is trained by that. To use it, open a pull "
        f"request from it into the branch that it is meant for: {url}\n\n"
        "What a person merges there is read as a push by that person."
    )


def spend_words(spend: Spend) -> str:
    """`2 runs, 1.5 hours of job time and no money`."""
    money = usd(round(spend.usd, 2)) if spend.usd else "no money"
    parts = [counted(spend.runs, "run")] if spend.runs else []
    parts += [hours(round(spend.gpu_hours, 2))] if spend.gpu_hours else []
    return listed([*parts, money])


def head_without_effect(experiment: Experiment, sha: str, files: Sequence[str]) -> str:
    """A push changed files that say how, or on what, the goal is measured: they are named, and count nowhere."""
    return message(
        experiment.goal_id,
        f"head/{sha[:12]}/measured",
        f"**{short(sha)} changes what measures this goal, and that has no effect.**",
        "\n".join(f"- {line}" for line in files),
        "The evaluator is not in this pull request either: it is a bundle of Postdoc's, named by its digest.",
    )


def head_refused(experiment: Experiment, sha: str, problems: Sequence[str]) -> str:
    """A person's push holds a recipe that cannot be trained; what stood there before still holds."""
    return message(
        experiment.goal_id,
        f"head/{sha[:12]}",
        f"**The recipe at {short(sha)} cannot be trained**, so I go on with the one before. To correct:",
        sentences(problems),
        "Push again and I will read it again.",
    )


def reply_no_diagnosis(labels: Sequence[str]) -> str:
    """`accept` names a label that does not exist, or one without a suggestion."""
    known = f" There are {', '.join(labels[:20])}." if labels else " There is none yet."
    return f"There is no diagnosis with a suggested value by that label.{known}"


def reply_asked(answer: str, model: str, cost: float, wrong: str, *, failed: bool) -> str:
    """A language model's answer, with what it is worth and what it cost. `wrong` is what it names and nobody has."""
    price = f", {usd(cost)}" if cost > 0 else ""
    if failed:
        return f"{inert(answer)}{f' ({code(model, 120)}{price})' if price else ''}"
    doubt = f" **It names {wrong}, which the record does not have.**" if wrong else ""
    return (
        f"{inert(answer)}\n\n_By {code(model, 120)} from this goal's record{price}; a language model can be wrong, the "
        f"tables above are measured._{doubt}"
    )
