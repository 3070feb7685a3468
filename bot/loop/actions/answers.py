"""What a command is answered with."""

from __future__ import annotations

from typing import NamedTuple

from bot.conversation import messages
from bot.domain.experiment import NewEvent


class Answer(NamedTuple):
    """The answer's Markdown, what the command brought about, and the reaction its comment gets."""

    text: str
    events: list[NewEvent]
    reaction: str = "+1"


def refused(why: str) -> Answer:
    return Answer(messages.reply_refused(why), [], "-1")
