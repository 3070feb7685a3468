"""Switches that make the practice forge misbehave the way the real service does now and then."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Matches = Callable[[str, str], bool]
"""(method, path) of a request, or (event, action) of a webhook."""


@dataclass(slots=True)
class Fault:
    kind: Literal["secondary_limit", "server_error", "drop", "drop_after"]
    count: int
    matches: Matches
    status: int = 502
    retry_after_seconds: int = 1


class Faults:
    """Each switch acts on the next `count` requests (or events) that match, then turns itself off."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: list[Fault] = []
        self._webhooks: list[tuple[Literal["lose", "fail", "repeat"], list[int], Matches]] = []

    def secondary_limit(
        self, count: int = 1, retry_after_seconds: int = 1, matches: Matches | None = None, *, status: int = 403
    ) -> None:
        """403 (or 429) "You have exceeded a secondary rate limit", with retry-after."""
        self._add(Fault("secondary_limit", count, matches or _any, status, retry_after_seconds))

    def server_error(self, count: int = 1, status: int = 502, matches: Matches | None = None) -> None:
        """A 5xx answer; nothing was done."""
        self._add(Fault("server_error", count, matches or _any, status=status))

    def drop_connection(self, count: int = 1, matches: Matches | None = None, *, performed: bool = False) -> None:
        """The connection closes without an answer; with `performed`, after the work was done."""
        self._add(Fault("drop_after" if performed else "drop", count, matches or _any))

    def lose_webhooks(self, count: int = 1, matches: Matches | None = None) -> None:
        """The events happen, but no delivery is made or listed."""
        self._add_webhook("lose", count, matches)

    def fail_webhooks(self, count: int = 1, matches: Matches | None = None) -> None:
        """Deliveries are listed as failed without having reached the App; they can be redelivered."""
        self._add_webhook("fail", count, matches)

    def repeat_webhooks(self, count: int = 1, matches: Matches | None = None) -> None:
        """Deliveries arrive twice, with the same GUID."""
        self._add_webhook("repeat", count, matches)

    def clear(self) -> None:
        with self._lock:
            self._requests.clear()
            self._webhooks.clear()

    def take_request(self, method: str, path: str) -> Fault | None:
        with self._lock:
            for fault in self._requests:
                if fault.matches(method, path):
                    fault.count -= 1
                    self._requests = [other for other in self._requests if other.count > 0]
                    return fault
        return None

    def take_webhook(self, event: str, action: str | None) -> Literal["lose", "fail", "repeat"] | None:
        with self._lock:
            for kind, left, matches in self._webhooks:
                if left[0] > 0 and matches(event, action or ""):
                    left[0] -= 1
                    return kind
        return None

    def _add(self, fault: Fault) -> None:
        with self._lock:
            self._requests.append(fault)

    def _add_webhook(self, kind: Literal["lose", "fail", "repeat"], count: int, matches: Matches | None) -> None:
        with self._lock:
            self._webhooks.append((kind, [count], matches or _any))


def _any(_first: str, _second: str) -> bool:
    return True
