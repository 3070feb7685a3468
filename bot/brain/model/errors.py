"""What a provider of language models may answer instead of a reply. Each says in one sentence what a person can do.

    ModelError
    ├── ModelRefused   asking again changes nothing: a key, credit, a model's name, a request that it does not take
    ├── ModelBusy      it did not answer within our patience; later it may (`retry_after_seconds` where it said)
    └── ContextFull    the conversation is longer than the model takes

The goal goes on with the playbook after any of them; none of them is an error of the goal.
"""

from __future__ import annotations

from bot.brain.model.talk import Usage
from bot.errors import PostdocError


class ModelError(PostdocError):
    """Root of the tree. `wasted` are the tokens that were paid for nothing, `usd` their price."""

    def __init__(self, message: str, *, wasted: Usage | None = None, usd: float = 0.0) -> None:
        super().__init__(message)
        self.wasted = wasted or Usage()
        self.usd = usd


class ModelRefused(ModelError):
    """The same request would be refused again."""


class ModelBusy(ModelError):
    """Worth asking again later."""

    def __init__(
        self, message: str, *, retry_after_seconds: float | None = None, wasted: Usage | None = None, usd: float = 0.0
    ) -> None:
        super().__init__(message, wasted=wasted, usd=usd)
        self.retry_after_seconds = retry_after_seconds


class ContextFull(ModelError):
    """The conversation does not fit; a shorter one does."""
