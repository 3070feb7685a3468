"""The webhook's door: what it stores, what it refuses, and that nothing in a body can break it."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bot.config import Settings
from bot.errors import SettingsError
from bot.practice.auth import new_key_pair
from bot.server.app import Bot, create_app
from tests.fakes.runner import ScriptedRunner

SECRET = "a-secret-for-webhooks"


def make_bot(folder: Path, **changes: object) -> Bot:
    values = {"app_id": "1", "private_key": new_key_pair()[0], "webhook_secret": SECRET, "data_folder": folder}
    return Bot(Settings.model_validate(values | changes), runner=ScriptedRunner(folder / "runner"))


@pytest.fixture
async def bot(tmp_path: Path) -> Bot:
    return make_bot(tmp_path)


@pytest.fixture
async def client(bot: Bot) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=create_app(bot))
    async with httpx.AsyncClient(transport=transport, base_url="http://bot.test") as found:
        yield found


def signed(body: bytes, *, event: str = "issues", delivery: str = "d-1", secret: str = SECRET) -> dict[str, str]:
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {"X-Hub-Signature-256": f"sha256={signature}", "X-GitHub-Event": event, "X-GitHub-Delivery": delivery}


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


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.one_of(
        st.binary(max_size=300),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=20),
            lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(
                ["action", "issue", "comment", "repository", "sender", "installation", "number", "body", "user", "id"]
            ), inner, max_size=6),
            max_leaves=12,
        ).map(lambda value: json.dumps(value).encode()),
    ),
    event=st.sampled_from(["issues", "issue_comment", "pull_request", "check_run", "push", "ping", "star", ""]),
)  # fmt: skip
def test_no_body_breaks_the_door(tmp_path: Path, body: bytes, event: str) -> None:
    async def deliver() -> int:
        transport = httpx.ASGITransport(app=create_app(FUZZED.setdefault("bot", make_bot(tmp_path))))
        async with httpx.AsyncClient(transport=transport, base_url="http://bot.test") as client:
            headers = signed(body, event=event, delivery=hashlib.sha256(body).hexdigest())
            return (await client.post("/webhook", content=body, headers=headers)).status_code

    assert asyncio.run(deliver()) == (202 if event else 400)


FUZZED: dict[str, Bot] = {}


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
