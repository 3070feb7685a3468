"""Every exception Postdoc raises on purpose, one class for each thing a caller does differently.

    PostdocError
    ├── UserError        the text is posted to the person verbatim; it says what to write instead
    │   └── SettingsError    the same, for the person who starts the server: one line, exit code 2
    ├── TransientError   the durable step tries again (network, rate limit, a busy database)
    ├── PlatformError    the backend broke; the job is relaunched and the recipe is not blamed
    └── LeaseLost        another process has taken this over; stop, and leave it alone

Anything else that escapes is a bug: it is logged, the goal it belongs to stops with an apology, and no other goal
notices. Expected outcomes (a failed training, a denied permission, a spent budget) are values, not exceptions.
"""


class PostdocError(Exception):
    """Root of the tree; never raised itself."""


class UserError(PostdocError):
    """Somebody's words cannot be acted on. `str(error)` is the comment: what is wrong and what to write instead."""


class SettingsError(UserError):
    """The server's or the command line's settings are wrong. Printed as one line; the process exits with code 2."""


class TransientError(PostdocError):
    """Worth trying again unchanged. `retry_after_seconds` is what the other side asked for, if it did."""

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class PlatformError(PostdocError):
    """The machine or the backend failed, not the recipe."""


class LeaseLost(PostdocError):
    """Another process has taken over what this one was doing: nothing more may be written."""
