"""The webhook's door: what it stores, what it refuses, and that nothing in a body can break it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from bot.conversation.events import acts_on
from bot.errors import SettingsError
from bot.loop import inbox
from bot.server import webhook
from bot.server.app import Bot, create_app
from bot.server.machine_news import MachineNews
from runners.github_actions.backend import ActionsRunner
from runners.job import JobId
from tests.server.conftest import SECRET, Door, client_of, make_bot, outcomes, signed


@pytest.fixture
async def bot(tmp_path: Path) -> Bot:
    return make_bot(tmp_path)


@pytest.fixture
async def client(bot: Bot) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(bot) as found:
        yield found
    bot.inbox.close()


async def test_signed_delivery_is_stored_before_it_is_acknowledged(bot: Bot, client: httpx.AsyncClient) -> None:
    body = b'{"action": "opened"}'
    answer = await client.post("/webhook", content=body, headers=signed(body))
    assert (answer.status_code, answer.json()) == (202, {"stored": True})
    assert [d.body for d in bot.inbox.unhandled()] == [body]


async def test_same_delivery_twice_is_stored_once(bot: Bot, client: httpx.AsyncClient) -> None:
    body = b"{}"
    for _ in range(3):
        assert (await client.post("/webhook", content=body, headers=signed(body))).status_code == 202
    assert len(bot.inbox.unhandled()) == 1


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Hub-Signature-256": "sha256=" + "0" * 64},
        {"X-Hub-Signature-256": "sha1=abc"},
        {"X-Hub-Signature-256": "ä"},
    ],
)
async def test_unsigned_delivery_is_refused(bot: Bot, client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    raw = [(key.encode(), value.encode()) for key, value in headers.items()]
    answer = await client.post("/webhook", content=b"{}", headers=raw)
    assert answer.status_code == 401
    assert bot.inbox.unhandled() == []


async def test_signature_of_another_secret_or_another_body_is_refused(client: httpx.AsyncClient) -> None:
    assert (await client.post("/webhook", content=b"{}", headers=signed(b"{}", secret="other"))).status_code == 401
    assert (await client.post("/webhook", content=b"{ }", headers=signed(b"{}"))).status_code == 401


async def test_delivery_without_its_id_is_refused(client: httpx.AsyncClient) -> None:
    headers = signed(b"{}")
    del headers["X-GitHub-Delivery"]
    assert (await client.post("/webhook", content=b"{}", headers=headers)).status_code == 400


async def test_body_larger_than_github_sends_is_refused_unread(client: httpx.AsyncClient) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b"x" * 1024 * 1024

    assert (await client.post("/webhook", content=endless(), headers=signed(b""))).status_code == 413


async def test_journals_are_not_shown_on_a_public_address_without_a_token(tmp_path: Path) -> None:
    bot = make_bot(tmp_path, host="0.0.0.0")
    transport = httpx.ASGITransport(app=create_app(bot))
    async with httpx.AsyncClient(transport=transport, base_url="http://bot.test") as client:
        assert (await client.get("/api/goals")).status_code == 403
    bot = make_bot(tmp_path, host="0.0.0.0", api_token="a-token")
    transport = httpx.ASGITransport(app=create_app(bot))
    async with httpx.AsyncClient(transport=transport, base_url="http://bot.test") as client:
        assert (await client.get("/api/goals", headers={"Authorization": "Bearer wrong"})).status_code == 401
        assert (await client.get("/api/goals", headers={"Authorization": "Bearer a-token"})).status_code == 200


async def test_event_nobody_acts_on_is_acknowledged_and_not_stored(bot: Bot, client: httpx.AsyncClient) -> None:
    for event in ("star", "ping", "check_suite", "deployment"):
        answer = await client.post("/webhook", content=b"{}", headers=signed(b"{}", event=event))
        assert (answer.status_code, answer.json()["stored"]) == (202, False)
    assert bot.inbox.unhandled() == []
    assert bot.admission.ignored == {"event": 4}


async def test_news_of_a_run_is_a_hint_to_the_runner_and_no_more(tmp_path: Path) -> None:
    class Told(ActionsRunner):
        def __init__(self) -> None:
            self.about: list[Any] = []

        def refresh(self, job_id: JobId | None = None) -> None:
            self.about.append(job_id)

        def refresh_run(self, repository: str, run_id: int) -> None:
            self.about.append((repository, run_id))

    bot, runner = make_bot(tmp_path), Told()
    bot.machine_news = MachineNews(runner)
    run, job = b'{"workflow_run": {"display_title": "postdoc job"}}', b'{"workflow_job": {"run_id": 7}, '
    odd = [b"{}", b"[]", b"no json", b"[" * 100_000, b'{"workflow_run": 1}', b'{"workflow_job": [{}]}',
           b'{"workflow_run": {"display_title": null}}', b'{"workflow_run": {"display_title": "CI"}}',
           job + b'"repository": []}', job.replace(b"7", b'"7"') + b'"repository": {"full_name": "a/b"}}']  # fmt: skip
    async with client_of(bot) as client:
        unsigned = await client.post("/webhook", content=run, headers=signed(b"", event="workflow_run"))
        assert (unsigned.status_code, runner.about) == (401, [])
        for body in (*odd, run, job + b'"repository": {"full_name": "a/b"}}'):
            for event in ("workflow_run", "workflow_job"):
                answer = await client.post("/webhook", content=body, headers=signed(body, event=event))
                assert (answer.status_code, answer.json()["stored"]) == (202, False)
    assert runner.about == ["job", ("a/b", 7)]
    assert bot.inbox.unhandled() == []
    bot.inbox.close()


@pytest.mark.parametrize(
    ("event", "delivery"), [("", "d"), ("Issues", "d"), ("issues", ""), ("issues", "d d"), ("issues", "d" * 201)]
)
async def test_ids_that_github_never_gives_are_refused(client: httpx.AsyncClient, event: str, delivery: str) -> None:
    answer = await client.post("/webhook", content=b"{}", headers=signed(b"{}", event=event, delivery=delivery))
    assert answer.status_code == 400


async def test_only_the_accounts_on_the_list_are_served(tmp_path: Path) -> None:
    bot = make_bot(tmp_path, allowed_accounts="Acme, solo/one")
    bodies = {
        b'{"repository": {"full_name": "acme/speller"}}': True,
        b'{"repository": {"full_name": "solo/One"}}': True,
        b'{"installation": {"account": {"login": "ACME"}}}': True,
        b'{"repository": {"full_name": "solo/two"}}': False,
        b'{"repository": {"full_name": "acme2/speller"}, "installation": {"account": {"login": "acme"}}}': False,
        b'{"repository": {"full_name": null}}': False,
        b"[]": False,
        b"nonsense": False,
    }
    async with client_of(bot) as client:
        for number, (body, served) in enumerate(bodies.items()):
            answer = await client.post("/webhook", content=body, headers=signed(body, delivery=str(number)))
            assert (answer.status_code, answer.json()["stored"]) == (202, served), body
    assert len(bot.inbox.unhandled()) == 3
    assert bot.admission.ignored == {"account": 5}
    bot.inbox.close()


@pytest.mark.parametrize("name", ["acme/", "a/b/c", "acme speller", "/"])
def test_account_that_is_no_name_is_refused_at_the_start(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValidationError, match="neither an owner nor owner/repo"):
        make_bot(tmp_path, allowed_accounts=name)


async def test_flood_is_answered_with_503_and_when_to_come_again(
    bot: Bot, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "MOST_WAITING", 0)
    answer = await client.post("/webhook", content=b"{}", headers=signed(b"{}"))
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    monkeypatch.setattr(inbox, "MOST_WAITING", 10)
    monkeypatch.setattr(webhook, "MOST_BYTES_ARRIVING", 1)
    assert (await client.post("/webhook", content=b"{}", headers=signed(b"{}"))).status_code == 503
    monkeypatch.setattr(webhook, "MOST_BYTES_ARRIVING", 100)
    assert (await client.post("/webhook", content=b"{}", headers=signed(b"{}"))).status_code == 202


async def test_body_that_never_ends_is_not_waited_for(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "BODY_SECONDS", 0.05)

    async def stalled() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(30)
        yield b"}"

    assert (await client.post("/webhook", content=stalled(), headers=signed(b"{}"))).status_code == 408


EXAMPLES = Path(__file__).parents[1] / "node/node_modules/@octokit/webhooks-examples/api.github.com/index.json"
TWELVE = {
    "issues", "issue_comment", "pull_request", "pull_request_review", "pull_request_review_comment", "check_run",
    "check_suite", "workflow_run", "workflow_job", "installation", "ping", "push",
}  # fmt: skip


@pytest.mark.skipif(not EXAMPLES.exists(), reason="npm's @octokit/webhooks-examples is not installed")
async def test_every_published_example_is_accepted_and_what_is_not_acted_on_is_ignored(door: Door) -> None:
    accepted, ignored = 0, 0
    for event in json.loads(EXAMPLES.read_text()):
        for number, example in enumerate(event["examples"]):
            body = json.dumps(example).encode()
            headers = signed(body, event=event["name"], delivery=f"{event['name']}-{number}")
            answer = await door.client.post("/webhook", content=body, headers=headers)
            assert answer.status_code == 202, (event["name"], answer.text)
            assert answer.json()["stored"] is acts_on(event["name"]), (event["name"], answer.text)
            accepted += event["name"] in TWELVE
            ignored += "ignored" in answer.json()
    assert accepted == 125
    assert ignored > 150
    await door.settled()
    assert [outcome for outcome in outcomes(door.bot) if outcome.startswith(("odd", "error"))] == []


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        ({"POSTDOC_WEBHOOK_SECRET": ""}, "POSTDOC_WEBHOOK_SECRET"),
        ({"POSTDOC_APP_ID": ""}, "POSTDOC_APP_ID"),
        ({"POSTDOC_PRIVATE_KEY": ""}, "POSTDOC_PRIVATE_KEY"),
        ({"POSTDOC_PRIVATE_KEY": "not a key"}, "not a PEM key"),
        ({"POSTDOC_PORT": "many"}, "POSTDOC_PORT"),
    ],
)
def test_wrong_setting_is_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, missing: dict[str, str], says: str
) -> None:
    from bot.config import load_settings

    good = {
        "POSTDOC_APP_ID": "1",
        "POSTDOC_PRIVATE_KEY": "-----BEGIN RSA PRIVATE KEY-----",
        "POSTDOC_WEBHOOK_SECRET": SECRET,
    }
    for name, value in (good | missing).items():
        if value:
            monkeypatch.setenv(name, value)
        else:
            monkeypatch.delenv(name, raising=False)
    with pytest.raises(SettingsError) as error:
        load_settings()
    assert says in str(error.value)
    assert "\n" not in str(error.value)
