"""Webhooks: signed, in order, recorded, redelivered on request only."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import openapi

from .conftest import REPOSITORY, SECRET, World, app_key

EXAMPLES = Path(__file__).parent.parent / "node/node_modules/@octokit/webhooks-examples/api.github.com/index.json"


def deliveries(world: World, **query: str) -> list[dict[str, Any]]:
    assert world.forge.settle()
    listed: list[dict[str, Any]] = world.as_app().get("/app/hook/deliveries", params=query).json()
    return listed


def open_issues(world: World, count: int) -> None:
    ada = world.as_user("ada")
    for number in range(count):
        assert ada.post(world.repo("/issues"), json={"title": f"n{number}"}).status_code == 201


def test_delivery_is_signed_over_its_raw_bytes(world: World):
    open_issues(world, 1)
    received = world.events()[-1]
    expected = "sha256=" + hmac.new(SECRET.encode(), received.raw, hashlib.sha256).hexdigest()
    assert received.headers["x-hub-signature-256"] == expected
    assert received.headers["x-github-event"] == "issues"
    assert received.headers["user-agent"].startswith("GitHub-Hookshot/")
    assert received.headers["content-type"] == "application/json"
    assert received.headers["x-github-hook-installation-target-type"] == "integration"
    assert received.headers["x-github-hook-installation-target-id"] == str(world.app.app_id)
    assert received.headers["x-github-hook-id"].isdigit()
    assert received.payload["installation"]["id"] == world.installation_id
    assert (received.payload["sender"]["login"], received.payload["repository"]["full_name"]) == ("ada", REPOSITORY)
    assert received.payload["organization"]["login"] == "acme"


def test_deliveries_arrive_in_order_with_their_own_ids(world: World):
    open_issues(world, 30)
    received = [each for each in world.events() if each.event == "issues"]
    assert [each.payload["issue"]["number"] for each in received] == list(range(1, 31))
    guids = [each.headers["x-github-delivery"] for each in received]
    assert len({uuid.UUID(guid) for guid in guids}) == 30


def test_only_subscribed_events_of_installed_repositories_are_sent(world: World, ada: httpx.Client):
    other = world.forge.register_app(
        slug="other",
        permissions={"issues": "read", "contents": "read"},
        events=["push"],
        webhook_url=world.inbox.url + "/other",
        private_key_pem=app_key(),
    )
    world.forge.install_app(other.app_id, REPOSITORY)
    open_issues(world, 1)
    world.forge.add_collaborator("acme/secret", "ada", "admin")
    ada.post("/repos/acme/secret/issues", json={"title": "unseen"})
    world.commit(ada, {"x": "1"})
    mine = str(world.app.app_id)
    targets = [(each.headers["x-github-hook-installation-target-id"] == mine, each.name) for each in world.events()]
    assert targets.count((True, "issues.opened")) == 1
    assert [name for is_mine, name in targets if not is_mine] == ["installation.created", "push", "push"]


def test_installation_events_tell_what_was_added(world: World):
    world.forge.install_app(world.app.app_id, "acme/secret")
    created, added = world.events()
    assert created.name == "installation.created"
    assert [each["full_name"] for each in created.payload["repositories"]] == [REPOSITORY]
    assert added.name == "installation_repositories.added"
    assert [each["full_name"] for each in added.payload["repositories_added"]] == ["acme/secret"]


def test_ping(world: World):
    world.forge.ping_app(world.app.app_id)
    assert world.events()[-1].event == "ping"
    assert world.events()[-1].payload["hook"]["app_id"] == world.app.app_id


def test_failed_deliveries_are_listed_not_repeated_and_redelivered_on_request(world: World):
    world.events()
    world.inbox.answer = 500
    open_issues(world, 1)
    (failed,) = deliveries(world, status="failure")
    assert (failed["status_code"], failed["event"], failed["action"]) == (500, "issues", "opened")
    assert len([each for each in world.inbox.received if each.event == "issues"]) == 1
    world.inbox.answer = 202
    app = world.as_app()
    assert app.post(f"/app/hook/deliveries/{failed['id']}/attempts").status_code == 202
    again, first = deliveries(world)[:2]
    assert (again["guid"], again["redelivery"], first["redelivery"]) == (first["guid"], True, False)
    assert again["id"] != first["id"]
    twice = [each for each in world.inbox.received if each.event == "issues"]
    assert twice[0].raw == twice[1].raw
    full = app.get(f"/app/hook/deliveries/{again['id']}").json()
    assert full["request"]["payload"]["issue"]["number"] == 1
    assert full["request"]["headers"]["X-GitHub-Delivery"] == first["guid"]
    assert full["response"]["payload"] == "ok"
    assert app.post("/app/hook/deliveries/1/attempts").status_code == 404


def test_deliveries_are_paged_by_cursor(world: World):
    open_issues(world, 5)
    assert world.forge.settle()
    app, seen, url = world.as_app(), [], "/app/hook/deliveries?per_page=2"
    while url:
        answer = app.get(url)
        seen += [each["id"] for each in answer.json()]
        url = answer.links.get("next", {}).get("url", "").removeprefix(world.api)
    assert seen == sorted(seen, reverse=True)
    assert len(seen) == 6  # the installation and five issues
    assert app.get("/app/hook/deliveries", params={"cursor": "x"}).status_code == 422
    assert app.get("/app/hook/deliveries", params={"status": "x"}).status_code == 422


def test_nobody_listening_is_recorded(world: World):
    world.events()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        world.forge.set_webhook(world.app.app_id, f"http://127.0.0.1:{unused.getsockname()[1]}/")
        open_issues(world, 1)
        (failed,) = deliveries(world, status="failure")
    assert (failed["status"], failed["status_code"]) == ("failed to connect to host", 502)


def test_webhook_address_is_read_and_changed_by_the_app(world: World):
    app = world.as_app()
    assert app.get("/app/hook/config").json()["url"] == world.inbox.url
    assert SECRET not in app.get("/app/hook/config").text
    changed = app.patch("/app/hook/config", json={"url": world.inbox.url + "?new", "secret": "another"})
    assert changed.json()["url"].endswith("?new")
    open_issues(world, 1)
    received = world.events()[-1]
    expected = hmac.new(b"another", received.raw, hashlib.sha256).hexdigest()
    assert received.headers["x-hub-signature-256"] == f"sha256={expected}"


def test_lost_failed_and_repeated_webhooks(world: World):
    faults = world.forge.faults
    faults.lose_webhooks(1, lambda event, action: (event, action) == ("issues", "opened"))
    open_issues(world, 1)
    assert world.names("issues") == []
    assert [each["event"] for each in deliveries(world)] == ["installation"]
    faults.fail_webhooks(1)
    open_issues(world, 1)
    assert deliveries(world)[0]["status_code"] == 502
    assert world.names("issues") == []
    faults.repeat_webhooks(1)
    open_issues(world, 1)
    assert world.names("issues") == ["issues.opened", "issues.opened"]
    first, second = (each.headers["x-github-delivery"] for each in world.events()[-2:])
    assert first == second


def keys_missing(example: Any, ours: Any, path: str = "") -> list[str]:
    """Keys of GitHub's example that ours lacks, where both are objects."""
    if isinstance(example, dict) and isinstance(ours, dict):
        return [
            problem
            for key, value in example.items()
            for problem in ([f"{path}.{key}"] if key not in ours else keys_missing(value, ours[key], f"{path}.{key}"))
        ]
    return []


@pytest.mark.skipif(not openapi.available(), reason="npm packages of tests/node are not installed")
def test_payloads_hold_what_githubs_examples_hold(world: World, bot: httpx.Client, ada: httpx.Client):
    """Not judged: fields that GitHub has dropped or that only some repositories have."""
    world.pull(bot, draft=True)
    line = {"path": "experiments/1/recipe.yaml", "line": 1, "side": "RIGHT", "body": "x"}
    bot.post(world.repo("/pulls/1/reviews"), json={"event": "COMMENT", "body": "b", "comments": [line]})
    bot.post(world.repo("/issues/1/comments"), json={"body": "x"})
    run = bot.post(world.repo("/check-runs"), json={"name": "x", "head_sha": world.tip("work")}).json()
    bot.patch(world.repo(f"/check-runs/{run['id']}"), json={"conclusion": "success"})
    ada.post(world.repo("/issues"), json={"title": "x", "labels": ["y"]})
    world.commit(bot, {"experiments/1/x": "y"})
    examples = {group["name"]: group["examples"] for group in json.loads(EXAMPLES.read_text())}
    unlike = (
        ".app.permissions.",
        ".issue.draft",
        ".sponsors",
        "milestone",
        "deployment",
        "license",
        "topics",
        "parent",
        "active_lock",
        "assignee",
        "email",
    )
    seen = set()
    for received in world.events():
        action = received.payload.get("action")
        same = [each for each in examples.get(received.event, []) if each.get("action") == action]
        if not same or received.name in seen or received.event == "installation":
            continue
        seen.add(received.name)
        missing = min((keys_missing(each, received.payload) for each in same), key=len)
        assert [each for each in missing if not any(word in each for word in unlike)] == [], received.name
    assert seen >= {"issues.opened", "pull_request.synchronize", "push", "check_run.completed", "issue_comment.created"}
