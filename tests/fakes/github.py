"""A GitHub that says what a test tells it to, on a clock of its own, and keeps what it was asked.

github = FakeGitHub()
github.say("GET", "/repos/acme/lab", status(503), reply({...}))   # one after the other, the last one for ever
"""

from __future__ import annotations

import asyncio
import datetime
import email.utils
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpx
import jwt

from bot.conversation.github import GitHubApp, Pacing
from bot.practice.auth import new_key_pair, public_half
from tests.fakes.clockwork import ticks

Answer = httpx.Response | Exception
Say = Callable[[httpx.Request], Answer]
EPOCH = 1_800_000_000.0
"""What GitHub's clock says when a loop's clock says 0."""
URL = "https://api.github.com"


@cache
def key() -> str:
    return new_key_pair()[0]


def reply(body: Any = None, status: int = 200, **headers: Any) -> Say:
    named = {name.replace("_", "-"): str(value) for name, value in headers.items()}
    return lambda _: httpx.Response(status, json=body if body is not None else {}, headers=named)


def refuse(status: int, message: str = "No", **headers: Any) -> Say:
    return reply({"message": message}, status, **headers)


def fail(error: type[httpx.RequestError]) -> Say:
    return lambda request: error("broken", request=request)


@dataclass(frozen=True)
class Asked:
    """One request that arrived."""

    at: float
    """On the loop's clock."""
    method: str
    path: str
    headers: httpx.Headers
    body: Any

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class FakeGitHub:
    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.tokens: list[str] = []
        self.minted_for: list[int] = []
        self.revoked: set[str] = set()
        self.machine_behind = 0.0
        """Seconds by which the clock of the machine that asks is behind GitHub's."""
        self.token_length = 40
        self.answer_seconds = 0.0
        self.at_a_time = self.most_at_a_time = 0
        self._said: list[tuple[str, re.Pattern[str], list[Say]]] = []

    def say(self, method: str, path: str, *answers: Say) -> None:
        """Answers to requests whose whole path matches the pattern; later words win."""
        self._said.insert(0, (method, re.compile(path), list(answers)))

    def time(self) -> float:
        return EPOCH + ticks()

    def app(self, *, pacing: Pacing | None = None, base_url: str = URL) -> GitHubApp:
        """Must be called where a loop runs."""
        return GitHubApp(
            app_id="7", private_key=key(), base_url=base_url, pacing=pacing or Pacing(0, 0),
            transport=httpx.MockTransport(self._handle), clock=lambda: self.time() - self.machine_behind, tick=ticks,
        )  # fmt: skip

    def paths(self, *methods: str) -> list[str]:
        """What was asked for beside tokens."""
        return [str(a) for a in self.asked if "access_tokens" not in a.path and (not methods or a.method in methods)]

    async def _handle(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content) if request.content else None
        self.asked.append(Asked(ticks(), request.method, request.url.path, request.headers.copy(), body))
        self.at_a_time += 1
        self.most_at_a_time = max(self.most_at_a_time, self.at_a_time)
        try:
            await asyncio.sleep(self.answer_seconds)
            answer = self._answer(request)
        finally:
            self.at_a_time -= 1
        if isinstance(answer, Exception):
            raise answer
        answer.headers.setdefault("date", email.utils.formatdate(self.time(), usegmt=True))
        return answer

    def _answer(self, request: httpx.Request) -> Answer:
        for method, pattern, answers in self._said:
            if method == request.method and pattern.fullmatch(request.url.path):
                return (answers.pop(0) if len(answers) > 1 else answers[0])(request)
        credential = request.headers.get("authorization", "").removeprefix("Bearer ")
        if request.url.path.startswith("/app"):
            return self._as_app(request, credential)
        if credential not in self.tokens or credential in self.revoked:
            return refuse(401, "Bad credentials")(request)
        return reply({"id": 1})(request)

    def _as_app(self, request: httpx.Request, credential: str) -> Answer:
        claims = jwt.decode(
            credential, public_half(key()), algorithms=["RS256"], options={"verify_exp": False, "verify_iat": False}
        )
        now = self.time()
        if not claims["iat"] <= now + 5 or not now < claims["exp"] <= now + 605 or claims["exp"] - claims["iat"] > 600:
            return refuse(401, "'Expiration time' claim ('exp') must be in the future")(request)
        if (found := re.fullmatch(r"/app/installations/(\d+)/access_tokens", request.url.path)) is None:
            return reply({"slug": "postdoc", "id": 7})(request)
        self.minted_for.append(int(found[1]))
        token = f"ghs_{len(self.tokens)}_".ljust(self.token_length, "x")
        self.tokens.append(token)
        ends = datetime.datetime.fromtimestamp(now + 3600, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return reply({"token": token, "expires_at": ends}, 201)(request)
