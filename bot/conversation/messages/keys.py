"""Hidden keys: what makes a message recognisable, so that a replayed action edits it instead of posting a second."""

from __future__ import annotations

import re

from bot.domain.goal import GoalId

LONGEST_COMMENT = 65_536
LONGEST_CHECK_TEXT = 65_535
LONGEST_CHECK_TITLE = 255

_KEY_LINE = re.compile(r"<!-- postdoc:([A-Za-z0-9._/#-]{1,300}) -->[ \t]*\r?(?:\n|$)")


def key(goal_id: GoalId, name: str) -> str:
    return f"{goal_id}/{name}"


def hidden_key(goal_id: GoalId, name: str) -> str:
    """The first line of the message `name` of a goal."""
    return f"<!-- postdoc:{key(goal_id, name)} -->"


def key_of(body: str) -> str | None:
    """The key in a message's first line; None when it is not one of ours. Whoever compares keys also checks that the
    author is the App: anybody can type such a line."""
    match = _KEY_LINE.match(body or "")
    return match[1] if match else None


def message(goal_id: GoalId, name: str, *parts: str) -> str:
    """A message from its parts, blank lines between them, within GitHub's limit."""
    body = "\n\n".join(part.strip("\n") for part in parts if part.strip())
    return within_limit(f"{hidden_key(goal_id, name)}\n{body}\n")


def within_limit(text: str, limit: int = LONGEST_COMMENT) -> str:
    """`text`, cut at a line's end when it is too long, with open code blocks and folds closed and the cut admitted."""
    if len(text) <= limit:
        return text
    note = "\n\n*The rest did not fit into GitHub's limit.*\n"
    kept = text[: limit - len(note) - 400]
    kept = kept[: kept.rfind("\n") + 1] or kept
    fence = ""
    for line in kept.split("\n"):
        marks = re.match(r"`{3,}", line)
        if fence and line.rstrip() == fence:
            fence = ""
        elif marks and not fence:
            fence = marks[0][:100]
    folds = min(10, max(0, kept.count("<details>") - kept.count("</details>")))
    return kept + (f"\n{fence}\n" if fence else "") + "\n</details>" * folds + note
