"""What a provider of language models may answer instead of a reply. Each says in one sentence what a person can do.

    ModelError
    ├── ModelRefused   asking again changes nothing: a key, credit, a model's name, a request that it does not take
    ├── ModelBusy      it did not answer within our patience; later it may (`retry_after_seconds` where it said)
    └── ContextFull    the conversation is longer than the model takes

The goal goes on with the playbook after any of them; none of them is an error of the goal.
"""

from __future__ import annotations

from collections.abc import Mapping

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


_MOST_WORDS = 300
"""Characters of a provider's own words that a person is shown."""
_NO_CREDIT = ("credit balance", "insufficient_quota", "exceeded your current quota")
_TOO_LONG = (
    "prompt is too long", "context length", "context window", "maximum context", "too many tokens",
)  # fmt: skip


def refusal(status: int, words: str, headers: Mapping[str, str], kind: str = "") -> ModelError:
    """What a provider's answer means for whoever asked. `kind` is the error's type where the provider names one: an
    error inside of a stream has the status 200."""
    words = said(words)
    lowered = words.lower()
    if status == 413 or kind == "request_too_large" or any(each in lowered for each in _TOO_LONG):
        return ContextFull(f"The conversation is too long for this model: {words}.")
    if status == 401 or kind == "authentication_error":
        return ModelRefused(
            "The language model's provider refused the key. Set POSTDOC_BRAIN_KEY to one that is valid."
        )
    if status == 402 or kind == "billing_error" or any(each in lowered for each in _NO_CREDIT):
        return ModelRefused(f"The account behind POSTDOC_BRAIN_KEY has no credit: {words}.")
    if status == 403 or kind == "permission_error":
        return ModelRefused(f"The key may not use this model: {words}.")
    if status == 404 or kind == "not_found_error":
        return ModelRefused(f"The provider does not know this model: {words}. Correct POSTDOC_BRAIN.")
    passing = status in (200, 408, 409, 429, 499) or status >= 500
    if not passing or kind == "invalid_request_error":
        return ModelRefused(f"The provider does not take this request ({kind or status}): {words}.")
    why = f"The language model's provider is busy ({kind or status}): {words}."
    return ModelBusy(why, retry_after_seconds=_seconds(headers.get("retry-after")))


def said(text: str) -> str:
    """A provider's words in one line, cut, without the full stop that our own sentence has."""
    return " ".join(text.split())[:_MOST_WORDS].rstrip(". ") or "no reason given"


def _seconds(text: str | None) -> float | None:
    try:
        return max(0.0, float(text)) if text is not None else None
    except ValueError:
        return None
