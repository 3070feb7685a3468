"""The one call that a thought ends with, as the model is shown it, and what it is answered."""

from __future__ import annotations

from typing import NamedTuple

from bot.brain.model.talk import Tool
from bot.brain.proposals.schema import SCHEMA

PROPOSE = "propose"
PROPOSE_TOOL = Tool(
    PROPOSE,
    "Say what should change next, or that nothing should. A file of it is a draft of yours by its path alone, or comes "
    "with `content` or `edits`. It is checked against the rules at once, and then by building the rows and training "
    "two steps of it; a refusal comes back with its reason.",
    SCHEMA,
)


class Verdict(NamedTuple):
    """What became of a proposal within the conversation."""

    text: str
    """For the model."""
    accepted: bool
    """It goes on to be checked by building and training, and the model waits for that."""
    taken: str = ""
    """What the conversation ends with for now: the proposal itself, as JSON."""
