"""What a language model thought about a plan or a run: how far it came, what it proposed, and what became of that."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """How the thinking ended."""

    ADOPTED = "adopted"
    """What it proposed passed every check, and is the next change (or the first plan)."""
    NOTHING = "nothing"
    """It proposed nothing, and said why."""
    QUESTION = "question"
    """It asks a person; the goal goes on with the playbook meanwhile."""
    REFUSED = "refused"
    """Proposal after proposal failed the checks, or its provider refuses to go on."""
    AWAY = "away"
    """Its provider did not answer within our patience."""
    BUDGET = "budget"
    CIRCLING = "circling"
    UNAVAILABLE = "unavailable"
    """No model is set on this server any more."""


@dataclass(slots=True)
class Thought:
    """One piece of thinking, numbered from 1 within the goal."""

    n: int
    run: int
    """Whose result it is about; 0: the first plan."""
    contract: int = 0
    """The `contract_version` that it belongs to."""
    model: str = ""
    """`provider:model`."""
    sittings: int = 0
    turns: int = 0
    usd: float = 0.0
    """Of all its turns."""
    proposals: int = 0
    """Taken for checking so far."""
    proposal: dict[str, Any] | None = None
    """Being checked, or adopted: `bot.brain.proposals.Proposal.as_dict()`."""
    refusals: list[str] = field(default_factory=list)
    """Why proposals were refused by a check outside of the conversation, in their order."""
    outcome: Outcome | None = None
    """None while it is under way."""
    why: str = ""
    """A sentence; of QUESTION the question itself."""
    wish: str = ""
    """What a person asked for who had it thought over."""
    asked_by: str = ""
    instead_of: dict[str, Any] | None = None
    """The playbook's remedy that it took the place of."""

    @property
    def over(self) -> bool:
        return self.outcome is not None


def text_digest(text: str) -> str:
    """The SHA-256 under which a script that was written by the model is known."""
    return hashlib.sha256(text.encode()).hexdigest()


def scripts_of(proposal: Mapping[str, Any] | None) -> dict[str, str]:
    """Digest -> text of the scripts that a proposal brings."""
    files: Mapping[str, str] = (proposal or {}).get("files") or {}
    return {text_digest(text): text for text in files.values()}
