"""The first answer to an issue: the goal as understood, or what is wrong with it and what is missing."""

from __future__ import annotations

from collections.abc import Sequence

from bot.conversation.inert import fenced
from bot.conversation.messages.keys import message
from bot.conversation.messages.tables import folded, goal_table, sentences
from bot.domain.experiment import Experiment
from bot.domain.goal import Goal

CONTRACT = "contract"


def contract(
    experiment: Experiment,
    goal: Goal,
    *,
    goal_hash: str = "",
    policy_lines: Sequence[str] = (),
    notes: Sequence[str] = (),
    next_step: str = "",
) -> str:
    """The goal echoed as a table with its hash. `notes` are sentences of our own, about a default that was taken."""
    recipe = ""
    if goal.recipe:
        recipe = folded("Starting recipe, which runs first", fenced(goal.recipe, "yaml"))
    upcoming = next_step or "Next: the data is built and checked, then a pull request shows the plan."
    return message(
        experiment.goal_id,
        CONTRACT,
        "**This is the goal as I understood it.** If a line is wrong, edit the issue; I will read it again.",
        goal_table(goal),
        recipe,
        "\n".join(f"- {line}" for line in (*notes, *policy_lines)),
        f"{upcoming} Consent is bound to this goal's hash, `{goal_hash or goal.hash}`.",
    )


def refusal(experiment: Experiment, problems: Sequence[str], questions: Sequence[str] = ()) -> str:
    """One comment that lists everything at once. It has the contract's key: an edited issue edits this comment."""
    parts: list[str] = []
    if problems:
        count = "One thing" if len(problems) == 1 else f"{len(problems)} things"
        parts += [f"**I cannot start on this goal yet.** {count} to correct:", sentences(problems)]
    if questions:
        lead = "Also missing:" if problems else "**I can start as soon as this is answered:**"
        parts += [lead, sentences(questions)]
    parts.append("Edit the issue and I will read it again. Nothing is trained until then.")
    return message(experiment.goal_id, CONTRACT, *parts)


def policy_refusal(experiment: Experiment, problems: Sequence[str], path: str) -> str:
    """The repository's policy cannot be read; `problems` begin with line:column."""
    lead = f"**This repository's policy, `{path}`, cannot be read**, so nothing is started. To correct there:"
    again = "Edit the issue afterwards and I will read both again."
    return message(experiment.goal_id, CONTRACT, lead, sentences(problems), again)
