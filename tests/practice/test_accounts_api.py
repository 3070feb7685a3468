"""Users, the root endpoints, repositories and forks."""

from __future__ import annotations

import httpx

from .conftest import World


def test_users_are_found_by_login_and_id(world: World, ada: httpx.Client, bot: httpx.Client):
    me = ada.get("/user").json()
    assert me["login"] == "ada"
    assert bot.get(f"/user/{me['id']}").json()["login"] == "ada"
    assert bot.get("/users/ADA").json()["id"] == me["id"]
    shown = bot.get("/users/postdoc[bot]").json()
    assert (shown["type"], shown["html_url"]) == ("Bot", f"{world.url}/apps/postdoc")
    assert bot.get("/users/nobody").status_code == 404
    assert bot.get("/user/1").status_code == 404
    assert bot.get("/user").status_code == 403
    assert world.client().get("/user").status_code == 401


def test_root_endpoints(world: World, ada: httpx.Client):
    assert ada.get("/meta").status_code == 200
    assert ada.get("/apps/postdoc").json()["id"] == world.app.app_id
    assert ada.get("/apps/nothing").status_code == 404
    answer = ada.get("/no/such/path")
    assert (answer.status_code, answer.json()["message"]) == (404, "Not Found")


def test_repository_says_who_may_do_what(world: World, ada: httpx.Client, eve: httpx.Client):
    shown = ada.get("/repos/ACME/lab").json()
    assert (shown["full_name"], shown["visibility"], shown["default_branch"]) == ("acme/lab", "public", "main")
    assert shown["permissions"] == {"admin": False, "maintain": False, "push": True, "triage": True, "pull": True}
    assert eve.get(world.repo()).json()["permissions"]["push"] is False
    assert shown["organization"]["login"] == "acme"


def test_repositories_of_a_person(world: World, ada: httpx.Client, eve: httpx.Client):
    assert [each["full_name"] for each in ada.get("/user/repos").json()] == ["acme/lab"]
    eve.post(world.repo("/forks"))
    assert [each["full_name"] for each in ada.get("/users/eve/repos").json()] == ["eve/lab"]
    assert [each["full_name"] for each in ada.get("/users/acme/repos").json()] == ["acme/lab"]
