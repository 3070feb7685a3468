"""Who may do what: every endpoint asked by everybody, and roles that change while tokens live."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from bot.practice import rest
from bot.practice.model import Role

from .conftest import PERMISSIONS, REPOSITORY, World

WRITES: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "issue": ("POST", "/issues", {"title": "x"}, "issues"),
    "comment": ("POST", "/issues/1/comments", {"body": "x"}, "issues"),
    "labels": ("POST", "/issues/1/labels", {"labels": ["x"]}, "issues"),
    "reaction": ("POST", "/issues/1/reactions", {"content": "eyes"}, "issues"),
    "pull comment": ("POST", "/issues/2/comments", {"body": "x"}, "pull_requests"),
    "blob": ("POST", "/git/blobs", {"content": "x"}, "contents"),
    "file": ("PUT", "/contents/x", {"message": "m", "content": "eA=="}, "contents"),
    "ref": ("POST", "/git/refs", {"ref": "refs/heads/x", "sha": "MAIN"}, "contents"),
    "pull": ("POST", "/pulls", {"title": "x", "head": "second", "base": "main"}, "pull_requests"),
    "review": ("POST", "/pulls/2/reviews", {"event": "COMMENT", "body": "x"}, "pull_requests"),
    "merge": ("PUT", "/pulls/2/merge", {}, "contents"),
    "check run": ("POST", "/check-runs", {"name": "x", "head_sha": "MAIN"}, "checks"),
    "status": ("POST", "/statuses/MAIN", {"state": "success"}, "statuses"),
}
PEOPLE = {
    "issue": {"eve", "carl", "ada", "dora"},
    "comment": {"eve", "carl", "ada", "dora"},
    "labels": {"carl", "ada", "dora"},
    "reaction": {"eve", "carl", "ada", "dora"},
    "pull comment": {"eve", "carl", "ada", "dora"},
    "blob": {"ada", "dora"},
    "file": {"ada", "dora"},
    "ref": {"ada", "dora"},
    "pull": {"ada", "dora"},
    "review": {"eve", "carl", "ada", "dora"},
    "merge": {"ada", "dora"},
    "check run": set(),
    "status": {"ada", "dora"},
}


@pytest.fixture
def thread(world: World) -> World:
    """Issue 1, pull request 2, and a branch `second` for another pull request."""
    dora = world.as_user("dora")
    dora.post(world.repo("/issues"), json={"title": "one"})
    world.pull(dora)
    world.commit(dora, {"second.txt": "x"}, branch="second")
    return world


def ask(world: World, client: httpx.Client, name: str) -> int:
    method, path, body, _ = WRITES[name]
    filled = {key: world.tip() if value == "MAIN" else value for key, value in body.items()}
    return client.request(method, world.repo(path.replace("MAIN", world.tip())), json=filled).status_code


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("login", ["eve", "carl", "ada", "dora"])
def test_people_write_by_their_role(thread: World, name: str, login: str):
    status = ask(thread, thread.as_user(login), name)
    assert (status < 300) == (login in PEOPLE[name])
    assert status in (200, 201, 403)


@pytest.mark.parametrize("name", WRITES)
def test_installation_writes_by_its_permission(thread: World, name: str):
    needed = WRITES[name][3]
    read_only = {each: "read" if each == needed else level for each, level in PERMISSIONS.items()}
    if name == "pull comment":
        read_only |= {"issues": "read"}
    without = {each: level for each, level in read_only.items() if level == "write"}
    for permissions in (read_only, without):
        assert ask(thread, thread.as_bot(permissions=permissions), name) == 403
    assert ask(thread, thread.as_bot(permissions={needed: "write"}), name) in (200, 201)


@pytest.mark.parametrize("name", WRITES)
def test_anonymous_and_apps_without_installation_write_nothing(thread: World, name: str):
    assert ask(thread, thread.client(), name) == 401
    assert ask(thread, thread.as_app(), name) in (401, 403)


def test_every_changing_endpoint_of_a_repository_names_its_permission():
    """A new endpoint cannot forget it: without `needs` no installation could call it, or anybody could."""
    for endpoint in rest.endpoints():
        if "{owner}/{repo}" not in endpoint.path:
            continue
        assert endpoint.needs, endpoint
        if endpoint.method != "GET":
            assert all(need.endswith(":write") for need in endpoint.needs), endpoint


def test_issue_needs_issues_and_pull_request_either(thread: World):
    pulls_only = thread.as_bot(permissions={"pull_requests": "write"})
    assert pulls_only.post(thread.repo("/issues/1/comments"), json={"body": "x"}).status_code == 403
    assert pulls_only.post(thread.repo("/issues/2/comments"), json={"body": "x"}).status_code == 201


def test_private_repository_by_permission(world: World):
    world.forge.install_app(world.app.app_id, "acme/secret")
    bot = world.as_bot()
    assert bot.get("/repos/acme/secret/contents/README.md").status_code == 200
    narrow = world.as_bot(permissions={"issues": "read"})
    assert narrow.get("/repos/acme/secret/issues").status_code == 200
    assert narrow.get("/repos/acme/secret/contents/README.md").status_code == 403
    elsewhere = world.as_bot(repositories=["lab"])
    assert elsewhere.get("/repos/acme/secret/issues").status_code == 404


@pytest.mark.parametrize(
    ("role", "permission"),
    [
        ("admin", "admin"),
        ("maintain", "write"),
        ("write", "write"),
        ("triage", "read"),
        ("read", "read"),
    ],
)
def test_permission_is_live_and_in_githubs_words(world: World, bot: httpx.Client, role: str, permission: str):
    world.forge.add_collaborator(REPOSITORY, "eve", role)
    body = bot.get(world.repo("/collaborators/eve/permission")).json()
    assert (body["permission"], body["role_name"]) == (permission, role)
    assert body["user"]["permissions"]["push"] is Role(role).includes(Role.WRITE)


def test_permission_of_outsiders(world: World, bot: httpx.Client, eve: httpx.Client):
    assert bot.get(world.repo("/collaborators/eve/permission")).json()["permission"] == "read"
    assert bot.get(world.repo("/collaborators/nobody/permission")).status_code == 404
    assert eve.get(world.repo("/collaborators/ada/permission")).status_code == 403
    world.forge.install_app(world.app.app_id, "acme/secret")
    assert world.as_bot().get("/repos/acme/secret/collaborators/eve/permission").json()["permission"] == "none"
    assert bot.get(world.repo("/collaborators/postdoc[bot]/permission")).json()["permission"] == "none"


def test_collaborators_come_and_go(world: World, bot: httpx.Client):
    dora = world.as_user("dora")
    assert {each["login"] for each in bot.get(world.repo("/collaborators")).json()} == {"ada", "carl", "dora"}
    assert dora.put(world.repo("/collaborators/eve"), json={"permission": "push"}).status_code == 204
    assert bot.get(world.repo("/collaborators/eve")).status_code == 204
    eve = world.as_user("eve")
    assert eve.post(world.repo("/git/blobs"), json={"content": "x"}).status_code == 201
    assert dora.delete(world.repo("/collaborators/eve")).status_code == 204
    assert eve.post(world.repo("/git/blobs"), json={"content": "x"}).status_code == 403
    assert eve.put(world.repo("/collaborators/eve"), json={"permission": "admin"}).status_code == 403
