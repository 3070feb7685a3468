"""What can go wrong between us and a research API, one class for each thing a caller does differently.

PostdocError
└── ResearchError     one clear sentence; the work goes on without this answer
    ├── NotFound      there is no such thing
    ├── Busy          worth asking again later (also a TransientError); nobody has slept
    ├── Refused       not asked at all, or the API will not answer this
    └── Malformed     the answer is not what this API says
"""

from __future__ import annotations

from bot.errors import PostdocError, TransientError


class ResearchError(PostdocError):
    """`status` is the answer's HTTP status and `code` its X-Error-Code, where there was an answer."""

    def __init__(self, message: str, *, status: int | None = None, code: str = "") -> None:
        super().__init__(message)
        self.status, self.code = status, code


class NotFound(ResearchError):
    """There is no such paper, data set, page or file."""


class Busy(ResearchError, TransientError):
    """Rate limits, 5xx, time-outs, no network. `retry_after_seconds` is what the other side asked for, if it did."""

    def __init__(
        self, message: str, *, retry_after_seconds: float | None = None, status: int | None = None, code: str = ""
    ) -> None:
        super().__init__(message, status=status, code=code)
        self.retry_after_seconds = retry_after_seconds


class Refused(ResearchError):
    """A host that is not allowed, words that may not leave, a redirect elsewhere, or a refusal of the API itself."""


class Malformed(ResearchError):
    """The answer is not what this API says."""
