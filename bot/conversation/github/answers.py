"""What GitHub's answers mean: wait, give up, or the place is gone. https://docs.github.com/en/rest/using-the-rest-api"""

from __future__ import annotations

import datetime
import email.utils
import math
from typing import Any

import httpx

from bot.conversation.github.errors import Gone, Refused, StaleHead
from bot.errors import TransientError

LONGEST_WAIT_SECONDS = 3600.0
"""Primary limits are counted by the hour, so nobody is told to wait longer than that."""


def read_json(response: httpx.Response) -> Any:
    """The answer's JSON. Raises: TransientError for what is none."""
    try:
        return response.json()
    except ValueError as error:
        # A proxy's own page, or an answer that was cut off.
        raise TransientError("GitHub's answer could not be read") from error


def read_list(response: httpx.Response, within: str | None = None) -> list[Any]:
    """The rows of a list, or of the list under the key `within`. Raises: TransientError where there is none."""
    answer = read_json(response)
    rows = answer.get(within) if within is not None and isinstance(answer, dict) else answer
    if not isinstance(rows, list):
        raise TransientError("GitHub's answer is not the list that was asked for")
    return rows


def message_of(response: httpx.Response) -> str:
    """GitHub's own words, with the reasons that a 422 lists; never longer than 500 characters."""
    try:
        body = response.json()
    except ValueError:
        return "(no message)"
    if not isinstance(body, dict):
        return "(no message)"
    listed = body.get("errors")
    details = "; ".join(
        str(item.get("message", item) if isinstance(item, dict) else item)
        for item in (listed if isinstance(listed, list) else [])
    )
    return f"{body.get('message', '(no message)')}{': ' + details if details else ''}"[:500]


def is_limit(response: httpx.Response) -> bool:
    """Whether a refusal is about the rate and not about the request.

    https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api#exceeding-the-rate-limit
    """
    if response.status_code == 429:
        return True
    if response.status_code != 403:
        return False
    words = message_of(response).lower()
    return "retry-after" in response.headers or "rate limit" in words or "abuse detection" in words


def is_primary(response: httpx.Response) -> bool:
    """Whether the hourly limit is used up, rather than one of the secondary limits."""
    return response.headers.get("x-ratelimit-remaining") == "0" and "secondary" not in message_of(response).lower()


def asked_wait(response: httpx.Response, github_time: float) -> float | None:
    """Seconds that the answer asks to wait, between 1 and an hour; None where it names none.

    `github_time` is GitHub's clock (seconds since 1970): the reset is a moment on it, not on ours.
    """
    stated = response.headers.get("retry-after", "")
    seconds = _seconds(stated)
    if seconds is None and stated:
        moment = _http_date(stated)
        seconds = None if moment is None else moment - github_time
    if seconds is None and is_primary(response):
        reset = _seconds(response.headers.get("x-ratelimit-reset", ""))
        seconds = None if reset is None else reset - github_time + 1.0
    return None if seconds is None else min(max(seconds, 1.0), LONGEST_WAIT_SECONDS)


def refusal(response: httpx.Response) -> Refused:
    """The exception for an answer of 4xx that is no rate limit."""
    status, message = response.status_code, message_of(response)
    words = message.lower()
    if status == 451 or (status == 403 and any(word in words for word in ("suspended", "archived", "access blocked"))):
        return Gone(status, message)
    if status == 403 and "not accessible by integration" in words:
        return Refused(status, f"{message}. The App lacks a permission for this, or was taken from the repository")
    return Refused(status, message)


def github_date(response: httpx.Response) -> float | None:
    """The answer's Date header in seconds since 1970; None for an answer out of somebody's cache."""
    return None if "age" in response.headers else _http_date(response.headers.get("date", ""))


def moment(text: object) -> float | None:
    """One of GitHub's ISO timestamps in seconds since 1970."""
    try:
        found = datetime.datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return (found if found.tzinfo else found.replace(tzinfo=datetime.UTC)).timestamp()


def graphql_error(errors: Any) -> Exception:
    """The exception for the `errors` of a GraphQL answer, which come with status 200."""
    listed = [each for each in errors if isinstance(each, dict)] if isinstance(errors, list) else []
    text = "; ".join(str(each.get("message", "(no message)")) for each in listed) or "(no message)"
    kinds = {str(each.get("type", "")) for each in listed}
    if "STALE_DATA" in kinds or "expected branch" in text.lower():
        return StaleHead(text)
    if "RATE_LIMITED" in kinds or "rate limit" in text.lower():
        return TransientError(f"GitHub's rate limit: {text}", retry_after_seconds=60.0)
    if "something went wrong while executing" in text.lower():
        # What GraphQL says for its own time-outs and failures, with status 200.
        return TransientError(f"GitHub answered: {text}")
    return Refused(422, text)


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) else None


def _http_date(text: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
