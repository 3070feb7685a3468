"""The server's application without a network: deliveries go in at its door, and what they mean is read in journals."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from bot.config import Settings
from bot.conversation.github import Refused
from bot.domain.experiment import Event
from bot.domain.goal import GoalId
from bot.practice.auth import new_key_pair
from bot.server.app import Bot, create_app
from tests.fakes.runner import ScriptedRunner

SECRET = "a-secret-for-webhooks"
LOGIN = "postdoc[bot]"
ADA, BOB = {"id": 1, "login": "ada", "type": "User"}, {"id": 2, "login": "bob", "type": "User"}
US = {"id": 9, "login": LOGIN, "type": "Bot"}
GOAL = GoalId("acme/speller#1")
_KEY = ""


def make_bot(folder: Path, **changes: object) -> Bot:
    global _KEY
    _KEY = _KEY or new_key_pair()[0]
    values = {"app_id": "1", "private_key": _KEY, "webhook_secret": SECRET, "data_folder": folder}
    return Bot(Settings.model_validate(values | changes), runner=ScriptedRunner(folder / "runner"))


def signed(body: bytes, *, event: str = "issues", delivery: str = "d-1", secret: str = SECRET) -> dict[str, str]:
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {"X-Hub-Signature-256": f"sha256={signature}", "X-GitHub-Event": event, "X-GitHub-Delivery": delivery}


@asynccontextmanager
async def client_of(bot: Bot) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=create_app(bot))
    async with httpx.AsyncClient(transport=transport, base_url="http://bot.test") as found:
        yield found


def outcomes(bot: Bot) -> list[str]:
    """What became of the deliveries that brought nothing about."""
    with bot.inbox._engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT error FROM inbox WHERE error IS NOT NULL ORDER BY seq"))
        return [row[0] for row in rows]


@dataclass
class Door:
    """The application's webhook, with its reader running and its engine standing still."""

    bot: Bot
    client: httpx.AsyncClient
    github: FakeGitHub
    _ids: itertools.count[int] = field(default_factory=itertools.count)

    async def send(self, event: str, payload: Any, *, guid: str | None = None) -> None:
        """Deliver under `guid`, or under a new one."""
        body = json.dumps(payload).encode()
        headers = signed(body, event=event, delivery=guid or f"guid-{next(self._ids)}")
        answer = await self.client.post("/webhook", content=body, headers=headers)
        assert answer.status_code == 202, answer.text

    async def settled(self, *, but: int = 0) -> None:
        """Wait until all but so many deliveries have been handled."""
        async with asyncio.timeout(60):
            while self.bot.inbox.backlog()[0] > but:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    def journal(self, goal_id: str = GOAL) -> list[Event]:
        return list(self.bot.journal.read(GoalId(goal_id)))

    def kinds(self, goal_id: str = GOAL) -> list[str]:
        return [str(event.kind) for event in self.journal(goal_id)]


class FakeGitHub:
    """What handlers ask and write."""

    def __init__(self) -> None:
        self.pulls: dict[int, dict[str, Any]] = {}
        self.labelled: dict[int, tuple[int, str, str]] = {}
        self.asked: list[str] = []
        self.reactions: list[tuple[int, str]] = []

    async def pull_request(self, number: int) -> dict[str, Any]:
        self.asked.append(f"pull {number}")
        if number not in self.pulls:
            raise Refused(404, "Not Found")
        return self.pulls[number]

    async def labelled_by(self, number: int, label: str) -> tuple[int, str, str] | None:
        self.asked.append(f"label {number}")
        return self.labelled.get(number)

    async def react_to_comment(self, comment_id: int, content: str, **_: object) -> None:
        self.reactions.append((comment_id, content))


@pytest.fixture
async def door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Door]:
    bot, github = make_bot(tmp_path), FakeGitHub()

    async def login() -> str:
        return LOGIN

    monkeypatch.setattr(bot.app, "login", login)
    monkeypatch.setattr(bot.app, "repository", lambda *_: github)
    monkeypatch.setattr(bot.engine, "turn", lambda _: None)
    monkeypatch.setattr(type(bot), "leading", True)
    monkeypatch.setattr(bot.reader._handlers, "_observe", None)
    reading = asyncio.create_task(bot.reader.run())
    async with client_of(bot) as client:
        yield Door(bot, client, github)
    reading.cancel()
    with suppress(asyncio.CancelledError):
        await reading
    bot.inbox.close()


# Payloads, as small as they may be


def stamp(second: int) -> str:
    return f"2026-01-01T00:{second // 60:02}:{second % 60:02}Z"


def payload(action: str, *, sender: dict[str, Any] = ADA, **more: Any) -> dict[str, Any]:
    repository = {"id": 5, "name": "speller", "full_name": "acme/speller", "default_branch": "main"}
    return {"action": action, "sender": sender, "repository": repository, "installation": {"id": 3}} | more


def issue(number: int = 1, *, at: int = 0, user: dict[str, Any] = ADA, **more: Any) -> dict[str, Any]:
    found = {"number": number, "title": "A goal", "body": "its text", "user": user, "labels": [{"name": "postdoc"}]}
    return found | {"state": "open", "updated_at": stamp(at)} | more


def opened(number: int = 1, **more: Any) -> dict[str, Any]:
    return payload("opened", issue=issue(number, **more))


def edited(before: str, after: str, *, at: int, number: int = 1) -> dict[str, Any]:
    return payload("edited", issue=issue(number, at=at, body=after), changes={"body": {"from": before}})


def commented(text: str, *, number: int = 1, comment_id: int = 77, pull: bool = False, **more: Any) -> dict[str, Any]:
    on = issue(number, labels=[], pull_request={"url": "x"}) if pull else issue(number)
    comment = {"id": comment_id, "body": text, "user": ADA, "updated_at": stamp(0)}
    return payload("created", issue=on, comment=comment) | more


def pull(
    number: int = 2, *, ref: str = "postdoc/1-reverse", user: dict[str, Any] = US, home: str = "acme/speller",
    at: int = 0, **more: Any,
) -> dict[str, Any]:  # fmt: skip
    head = {"ref": ref, "sha": "a" * 40, "repo": {"full_name": home}}
    base = {"ref": "main", "sha": "b" * 40, "repo": {"full_name": "acme/speller"}}
    found = {"number": number, "user": user, "head": head, "base": base, "updated_at": stamp(at), "closed_at": None}
    return found | {"merged": False} | more


def closed(*, at: int, merged: bool = False, **more: Any) -> dict[str, Any]:
    return payload("closed", pull_request=pull(at=at, closed_at=stamp(at), merged=merged, **more))


def reopened(*, at: int) -> dict[str, Any]:
    return payload("reopened", pull_request=pull(at=at))


def pushed(before: str, after: str, *, at: int) -> dict[str, Any]:
    return payload("synchronize", pull_request=pull(at=at), before=before, after=after)
