"""What the bot says of a card's lines that the data deny."""

from __future__ import annotations

from bot.conversation.messages.keys import message
from bot.conversation.messages.wording import counted, short
from bot.domain.experiment import Experiment
from bot.domain.inert import fenced, inert_line


def card_review_name(sha: str) -> str:
    return f"cards/{sha[:12]}"


def card_review(experiment: Experiment, sha: str, lines: int) -> str:
    """The body of the review that stands on a pushed card."""
    said = (
        f"**{counted(lines, 'line')} of the cards at {short(sha)} say{'s' if lines == 1 else ''} what the data deny.**"
    )
    rest = "Nothing is held up by that."
    return message(experiment.goal_id, card_review_name(sha), said, rest)


def card_comment(
    experiment: Experiment, sha: str, place: str, about: str, found: str, suggested_line: str | None
) -> str:
    """The comment on one line; `suggested_line` is the line as it could be."""
    return message(
        experiment.goal_id,
        f"{card_review_name(sha)}/{place}",
        f"**{about[:1].upper()}{about[1:]}:** {inert_line(found, 400)}",
        fenced(suggested_line.split("\n")[0].rstrip("\r"), "suggestion") if suggested_line is not None else "",
    )
