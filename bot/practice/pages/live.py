"""Tells cheaply whether a page may have changed, so that an open page can ask every second."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# Changes made by calling the Forge in Python pass no request; a page finds them after this long.
LONGEST_BLIND_SECONDS = 4.0


class Generation:
    """Counts the requests that may have changed something."""

    def __init__(self) -> None:
        self.changes = 0

    def now(self) -> str:
        return f"{self.changes}.{int(time.monotonic() / LONGEST_BLIND_SECONDS)}"


class CountChanges:
    """ASGI middleware that counts every answered request other than GET, HEAD and OPTIONS (a git push is a POST)."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], generation: Generation) -> None:
        self.app = app
        self.generation = generation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.app(scope, receive, send)
        finally:
            if scope["type"] == "http" and scope["method"] not in ("GET", "HEAD", "OPTIONS"):
                self.generation.changes += 1


def tag(generation: str, person: str | None, html: str) -> str:
    """An ETag that says at which generation this person saw which page."""
    return f'W/"{generation}.{_short(person or "")}.{_short(html)}"'


def still_current(previous: str | None, generation: str, person: str | None) -> bool:
    """Whether a page with this ETag cannot have changed since."""
    return previous is not None and previous.startswith(f'W/"{generation}.{_short(person or "")}.')


def same_page(previous: str | None, current: str) -> bool:
    """Whether two ETags name the same text, whatever happened elsewhere in between."""
    return previous is not None and previous.rsplit(".", 2)[1:] == current.rsplit(".", 2)[1:]


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
