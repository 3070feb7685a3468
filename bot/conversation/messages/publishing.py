"""What is said of a model that was put on the Hub, or that could not be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bot.conversation.messages.keys import message
from bot.domain.goal import GoalId
from bot.domain.inert import code, fenced, unmentioned

PUBLISH = "publish"


def published_row(data: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """The sticky comment's row, none where nothing lies on the Hub."""
    if not data or "problem" in data:
        return []
    return [("Published", f"run {data['run']}: {_link(data)}, {_seen(data)}")]


def reply_published(data: Mapping[str, Any]) -> str:
    """Where it lies, who can see it, the one line that loads it."""
    if data["private"]:
        who = f"It is private: {code(str(data['repo']).partition('/')[0], 60)} and whom it lets in can see it."
    else:
        who = "Everybody can see it."
    line = f'AutoModelForCausalLM.from_pretrained("{data["repo"]}", revision="{data["sha"]}")'
    return f"Run {data['run']} is published as {_link(data)}. {who}\n\n{fenced(line, 'python')}"


def published_on_merge(goal_id: GoalId, data: Mapping[str, Any]) -> str:
    """The comment after a merge that the policy follows with publishing."""
    if "problem" in data:
        why = unmentioned(" ".join(str(data["problem"]).split()))
        said = f"**The model was not published.** {why}\n\n`/postdoc publish` tries again."
        return message(goal_id, PUBLISH, said)
    return message(goal_id, PUBLISH, reply_published(data))


def _link(data: Mapping[str, Any]) -> str:
    return f"[{code(data['repo'], 100)}]({data['url']})"


def _seen(data: Mapping[str, Any]) -> str:
    return "private" if data["private"] else "everybody can see it"
