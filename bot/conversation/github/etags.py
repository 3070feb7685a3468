"""Answers that GitHub may confirm instead of repeating: a 304 costs nothing of the hourly limit.

https://docs.github.com/en/rest/using-the-rest-api/best-practices-for-using-the-rest-api#use-conditional-requests-if-appropriate
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict

import httpx

MOST_ENTRIES = 1000
MOST_BYTES = 16 * 2**20
LARGEST_BODY_BYTES = 2**20


class ETags:
    """The newest answers with an ETag, each kept for the very credential that it was given to.

    A token that GitHub has replaced starts with nothing: what an installation may see can change between two tokens.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, ...], httpx.Response] = OrderedDict()
        self._bytes = 0

    def ask(self, request: httpx.Request) -> httpx.Response | None:
        """Make the request conditional; returns the answer that a 304 would confirm."""
        request.headers.pop("If-None-Match", None)  # of an earlier attempt under another credential
        with self._lock:
            key = _key(request)
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
                request.headers["If-None-Match"] = kept.headers["etag"]
            return kept

    def keep(self, request: httpx.Request, response: httpx.Response) -> None:
        """Remember a 200 with an ETag; what is too large, or says not to, is not kept."""
        if response.status_code != 200 or "etag" not in response.headers:
            return
        if "no-store" in response.headers.get("cache-control", "") or len(response.content) > LARGEST_BODY_BYTES:
            return
        with self._lock:
            key = _key(request)
            if key in self._kept:
                self._bytes -= len(self._kept.pop(key).content)
            self._kept[key] = response
            self._bytes += len(response.content)
            while len(self._kept) > MOST_ENTRIES or self._bytes > MOST_BYTES:
                self._bytes -= len(self._kept.popitem(last=False)[1].content)


def confirmed(kept: httpx.Response, answer: httpx.Response) -> httpx.Response:
    """The kept answer as if it had come again: its body, with the headers of the 304 that confirms it."""
    headers = kept.headers.copy()
    headers.update(answer.headers)
    for name in ("content-encoding", "content-length"):
        headers.pop(name, None)  # the kept body is unpacked
    return httpx.Response(200, headers=headers, content=kept.content, request=answer.request)


def _key(request: httpx.Request) -> tuple[str, ...]:
    who = hashlib.sha256(request.headers.get("authorization", "").encode()).hexdigest()
    return who, str(request.url), request.headers.get("accept", "")
