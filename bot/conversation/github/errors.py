"""The port's exceptions, beside TransientError for what may pass."""

from __future__ import annotations

from bot.errors import PostdocError


class StaleHead(PostdocError):
    """The branch has moved since it was read; nothing was committed."""


class Refused(PostdocError):
    """GitHub understood the request and said no (401, 403, 404 on a write, 410, 422). `status` is its code."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"GitHub answered {status}: {message}")
        self.status = status


class Gone(Refused):
    """Nothing can be done in this repository any more: it was deleted, archived, blocked or taken from the App, or the
    App was suspended or uninstalled. A goal that meets this ends; asking again is in vain until a person acts."""


class Dropped(PostdocError):
    """A cosmetic write was left out, because the budget is needed for writes that say something."""
