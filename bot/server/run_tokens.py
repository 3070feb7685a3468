"""The bearer tokens of jobs on other machines: each opens what belongs to one job, and nothing else.

Derived from secrets that the server has anyway, so that nothing has to be kept; from the App's key first, because a
server that reads its deliveries from GitHub has a new webhook secret after each start.
"""

from __future__ import annotations

import hashlib
import hmac

from bot.config import Settings


def run_token(secret: str, job_id: str) -> str:
    """The token of one job, worthless for any other."""
    return hmac.new(secret.encode(), f"progress of {job_id}".encode(), hashlib.sha256).hexdigest()


class RunTokens:
    """Gives tokens, and knows those that it, or the server before a change of its keys, has given."""

    def __init__(self, settings: Settings) -> None:
        pems = (settings.key(), *settings.retired_keys())
        derived = [hashlib.sha256(b"postdoc run tokens\0" + pem.strip().encode()).hexdigest() for pem in pems]
        self._secrets = (*derived, settings.webhook_secret.get_secret_value())

    def of(self, job_id: str) -> str:
        return run_token(self._secrets[0], job_id)

    def accepts(self, job_id: str, authorization: str) -> bool:
        """Whether an `Authorization` header carries the job's token."""
        given = authorization.encode("utf-8", "replace")
        known = [f"Bearer {run_token(secret, job_id)}".encode() for secret in self._secrets]
        return any(hmac.compare_digest(each, given) for each in known)
