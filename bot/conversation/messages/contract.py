"""The first answer to an issue: the goal as understood, or what is wrong with it and what is missing."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from bot.conversation.messages.keys import message
from bot.conversation.messages.tables import folded, goal_rows, goal_table, sentences, table
from bot.domain.experiment import Experiment
from bot.domain.goal import Goal
from bot.domain.inert import code, fenced, inert_line, unmentioned

CONTRACT = "contract"
EDIT = "edit"


def contract(
    experiment: Experiment,
    goal: Goal,
    *,
    goal_hash: str = "",
    policy_lines: Sequence[str] = (),
    notes: Sequence[str] = (),
    pins: Mapping[str, Any] | None = None,
    next_step: str = "",
) -> str:
    """The goal echoed as a table with its hash and what its names were pinned to (`Experiment.pins`). `notes` are
    sentences of our own."""
    recipe = ""
    if goal.recipe:
        recipe = folded("Starting recipe, which runs first", fenced(goal.recipe, "yaml"))
    upcoming = next_step or "Next: the data is built and checked, then a pull request shows the plan."
    return message(
        experiment.goal_id,
        CONTRACT,
        "**This is the goal as I understood it.** If a line is wrong, edit the issue; I will read it again.",
        goal_table(goal, pins),
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


def agreed_contract(experiment: Experiment, *, edited: Sequence[str] = ()) -> str:
    """The contract comment once the pull request stands. `edited` says what has become of the issue's text since."""
    goal = experiment.goal
    assert goal is not None
    recipe = folded("Starting recipe, which ran first", fenced(goal.recipe, "yaml")) if goal.recipe else ""
    return message(
        experiment.goal_id,
        CONTRACT,
        "**This is the goal that was agreed.**",
        goal_table(goal, experiment.pins),
        recipe,
        f"Consent is bound to this goal's hash, `{goal.hash}`.",
        *edited,
    )


def goal_changes(agreed: Goal, written: Goal, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[list[str]]:
    """[field, as agreed, as now written] in Markdown, of every field whose meaning differs; the title has none."""
    left, right = goal_rows(agreed, before), goal_rows(written, now)
    rows = []
    for (label, old), (_, new) in zip(left, right, strict=True):
        if label == "Starting recipe":
            if _settings(agreed.recipe) != _settings(written.recipe):
                rows.append([label, old, "another, see below" if agreed.recipe and written.recipe else new])
        elif label != "Goal" and old != new:
            rows.append([label, old, new])
    return rows


def _settings(recipe: str | None) -> list[str]:
    """A recipe's lines without comments, spaces and order, which mean nothing."""
    lines = (re.sub(r"(^|\s)#.*", "", line) for line in (recipe or "").splitlines())
    return sorted(" ".join(line.split()) for line in lines if line.strip())


def offer(
    experiment: Experiment, written: Goal, changes: Sequence[Sequence[str]], *, needs: str, by: str, anew: str
) -> str:
    """The contract comment with the difference that an edit of the issue makes, and how to adopt it.

    `needs` is the role that adopting takes, `anew` a sentence on what has to be measured again.
    """
    agreed = experiment.goal
    assert agreed is not None
    recipe = ""
    if _settings(agreed.recipe) != _settings(written.recipe):
        old, new = (agreed.recipe or "").splitlines(), (written.recipe or "").splitlines()
        lines = list(difflib.unified_diff(old, new, "agreed", "now written", lineterm=""))[:400]
        recipe = folded("Starting recipe, agreed and now written", fenced("\n".join(lines), "diff"))
    editor = unmentioned(inert_line(by, 60))
    return agreed_contract(
        experiment,
        edited=(
            f"---\n\n**The issue now says something else.** {editor} edited it; the pull request still pursues what "
            "was agreed.",
            table(("Field", "Agreed", "Now written"), changes),
            recipe,
            f"To adopt it (hash `{written.hash}`), somebody with `{needs}` permission comments `/postdoc accept goal`. "
            f"The consent then ends, because it is bound to the hash above. {anew}".strip(),
            "To keep what was agreed, leave it, or edit the issue back.",
        ),
    )


def edit_unreadable(experiment: Experiment, problems: Sequence[str], questions: Sequence[str]) -> str:
    """The contract comment when the edited issue is no goal that could be offered."""
    lead = "---\n\n**The issue has been edited, and I cannot act on it as it now stands.** What was agreed goes on."
    return agreed_contract(experiment, edited=(lead, sentences([*problems, *questions])))


def edit_after_end(experiment: Experiment) -> str:
    """The contract comment when a goal that is over for good is edited."""
    said = (
        f"---\n\n**The issue has been edited, but this goal has ended** ({experiment.state}), so the edit moves "
        "nothing. Open a new issue for what it now says."
    )
    return agreed_contract(experiment, edited=(said,))


def edit_ignored(experiment: Experiment, by: str, granted: str) -> str:
    """The one comment that answers edits by people whose word does not move a goal."""
    return message(
        experiment.goal_id,
        EDIT,
        f"{unmentioned(inert_line(by, 60))} edited this issue and has {code(granted)} permission here, which is not "
        "enough to change a goal. It stays as it was understood; somebody who may open a goal can edit the issue.",
    )
