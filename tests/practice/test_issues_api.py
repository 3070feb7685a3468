"""Issues, comments, labels and reactions."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from .conftest import World


def open_issue(client: httpx.Client, world: World, **fields: object) -> dict[str, Any]:
    answer = client.post(world.repo("/issues"), json={"title": "Raise it", "body": "to 90 %"} | fields)
    assert answer.status_code == 201, answer.text
    shape: dict[str, Any] = answer.json()
    return shape


def test_issue_lifecycle(world: World, eve: httpx.Client, bot: httpx.Client):
    issue = open_issue(eve, world)
    assert (issue["number"], issue["state"], issue["user"]["login"]) == (1, "open", "eve")
    assert "pull_request" not in issue
    path = world.repo("/issues/1")
    edited = bot.patch(path, json={"title": "Raise it well", "body": "to 91 %"}).json()
    assert (edited["title"], edited["body"]) == ("Raise it well", "to 91 %")
    closed = bot.patch(path, json={"state": "closed", "state_reason": "not_planned"}).json()
    assert (closed["state"], closed["state_reason"], closed["closed_by"]["login"]) == (
        "closed",
        "not_planned",
        "postdoc[bot]",
    )
    assert bot.patch(path, json={"state": "open"}).json()["state_reason"] == "reopened"
    assert world.names("issues") == ["issues.opened", "issues.edited", "issues.closed", "issues.reopened"]
    assert world.events()[2].payload["changes"] == {"title": {"from": "Raise it"}, "body": {"from": "to 90 %"}}
    assert [each["event"] for each in bot.get(f"{path}/events").json()] == ["renamed", "closed", "reopened"]
    assert bot.get(f"{path}/timeline").status_code == 200


def test_issue_by_the_app_says_which_app(world: World, bot: httpx.Client):
    issue = open_issue(bot, world)
    assert (issue["user"]["login"], issue["user"]["type"]) == ("postdoc[bot]", "Bot")
    assert issue["performed_via_github_app"]["slug"] == "postdoc"


def test_issues_are_listed_by_state_label_creator_and_page(world: World, ada: httpx.Client, eve: httpx.Client):
    for number in range(5):
        open_issue(ada, world, title=f"n{number}", labels=["postdoc"] if number % 2 else [])
    open_issue(eve, world, title="from eve")
    ada.patch(world.repo("/issues/1"), json={"state": "closed"})

    def get(**query: Any) -> list[int]:
        return [each["number"] for each in ada.get(world.repo("/issues"), params=query).json()]

    assert get() == [6, 5, 4, 3, 2]
    assert get(state="all", direction="asc") == [1, 2, 3, 4, 5, 6]
    assert get(labels="POSTDOC") == [4, 2]
    assert get(creator="eve") == [6]
    first = ada.get(world.repo("/issues"), params={"per_page": 2})
    assert len(first.json()) == 2
    assert set(first.links) == {"next", "last"}
    last = ada.get(first.links["last"]["url"])
    assert [each["number"] for each in last.json()] == [2]
    assert set(last.links) == {"prev", "first"}


def test_closed_by_label_and_author_of_issue_without_rights(world: World, eve: httpx.Client):
    open_issue(eve, world, labels=["postdoc"], assignees=["ada"])
    shown = eve.get(world.repo("/issues/1")).json()
    assert (shown["labels"], shown["assignees"]) == ([], [])
    assert eve.patch(world.repo("/issues/1"), json={"state": "closed"}).status_code == 200
    stranger = world.as_user("carl")
    assert stranger.patch(world.repo("/issues/1"), json={"state": "open"}).status_code == 200
    assert eve.post(world.repo("/issues/1/labels"), json={"labels": ["x"]}).status_code == 403


@pytest.mark.parametrize(
    ("fields", "status"),
    [({}, 422), ({"title": ""}, 422), ({"title": 7}, 422), ({"title": "x", "body": "y" * 65_537}, 422)],
)
def test_issue_with_bad_fields_is_refused(world: World, ada: httpx.Client, fields: dict[str, Any], status: int):
    assert ada.post(world.repo("/issues"), json=fields).status_code == status
    assert world.names("issues") == []


def test_malformed_bodies_are_refused(world: World, ada: httpx.Client):
    for content, message in ((b"{", "Problems parsing JSON"), (b'"x"', "Body should be a JSON object")):
        answer = ada.post(world.repo("/issues"), content=content)
        assert (answer.status_code, answer.json()["message"]) == (400, message)


def test_anonymous_reads_and_cannot_write(world: World, ada: httpx.Client):
    open_issue(ada, world)
    nobody = world.client()
    assert nobody.get(world.repo("/issues/1")).status_code == 200
    assert nobody.post(world.repo("/issues"), json={"title": "x"}).status_code == 401


def test_comment_lifecycle(world: World, eve: httpx.Client, bot: httpx.Client):
    open_issue(eve, world)
    made = bot.post(world.repo("/issues/1/comments"), json={"body": "working on it"})
    assert made.status_code == 201
    comment = made.json()
    assert comment["id"] > 2**31  # larger than 32 bits, as GitHub's are
    assert comment["html_url"].endswith(f"/acme/lab/issues/1#issuecomment-{comment['id']}")
    path = world.repo(f"/issues/comments/{comment['id']}")
    assert bot.patch(path, json={"body": "done"}).json()["body"] == "done"
    assert eve.patch(path, json={"body": "mine now"}).status_code == 403
    assert eve.get(path).json()["body"] == "done"
    assert eve.get(world.repo("/issues/1")).json()["comments"] == 1
    assert bot.delete(path).status_code == 204
    assert bot.get(path).status_code == 404
    assert world.names("issue_comment") == ["issue_comment.created", "issue_comment.edited", "issue_comment.deleted"]
    edited = world.events()[-2].payload
    assert edited["changes"] == {"body": {"from": "working on it"}}
    assert (edited["sender"]["login"], edited["sender"]["type"]) == ("postdoc[bot]", "Bot")


def test_comments_are_paged_and_filtered_by_time(world: World, ada: httpx.Client):
    open_issue(ada, world)
    for number in range(3):
        ada.post(world.repo("/issues/1/comments"), json={"body": f"c{number}"})
    world.clock.advance(hours=1)
    ada.post(world.repo("/issues/1/comments"), json={"body": "late"})
    listed = ada.get(world.repo("/issues/1/comments"), params={"per_page": 3})
    assert [each["body"] for each in listed.json()] == ["c0", "c1", "c2"]
    assert "page=2" in listed.links["next"]["url"]
    since = listed.json()[0]["created_at"].replace("Z", "+00:00")
    later = ada.get(world.repo("/issues/1/comments"), params={"since": world.clock().isoformat(timespec="seconds")})
    assert [each["body"] for each in later.json()] == ["late"]
    assert len(ada.get(world.repo("/issues/comments"), params={"since": since}).json()) == 4
    assert ada.get(world.repo("/issues/comments"), params={"since": "yesterday"}).status_code == 422


@pytest.mark.parametrize("body", [None, "", "   ", "x" * 65_537])
def test_comment_that_github_would_not_take_is_refused(world: World, ada: httpx.Client, body: str | None):
    open_issue(ada, world)
    assert ada.post(world.repo("/issues/1/comments"), json={"body": body}).status_code == 422
    assert ada.get(world.repo("/issues/1/comments")).json() == []


def test_comment_of_65536_characters_is_taken(world: World, ada: httpx.Client):
    open_issue(ada, world)
    assert ada.post(world.repo("/issues/1/comments"), json={"body": "ü" * 65_536}).status_code == 201


def test_comment_on_a_pull_request_carries_its_link(world: World, bot: httpx.Client, ada: httpx.Client):
    number = world.pull(bot)["number"]
    ada.post(world.repo(f"/issues/{number}/comments"), json={"body": "/postdoc status"})
    issue = world.events()[-1].payload["issue"]
    assert issue["pull_request"]["html_url"].endswith(f"/acme/lab/pull/{number}")
    assert "pull_request" in ada.get(world.repo(f"/issues/{number}")).json()


def test_labels_are_made_added_and_removed(world: World, ada: httpx.Client):
    open_issue(ada, world)
    made = ada.post(world.repo("/labels"), json={"name": "post doc/x", "color": "ff0000", "description": "goals"})
    assert made.status_code == 201
    assert ada.post(world.repo("/labels"), json={"name": "POST doc/x"}).status_code == 422
    assert ada.get(world.repo("/labels/post%20doc%2Fx")).json()["color"] == "ff0000"
    added = ada.post(world.repo("/issues/1/labels"), json={"labels": ["post doc/x", "new"]}).json()
    assert [each["name"] for each in added] == ["post doc/x", "new"]
    assert ada.post(world.repo("/issues/1/labels"), json=["bare"]).status_code == 200
    assert ada.delete(world.repo("/issues/1/labels/post%20doc%2Fx")).status_code == 200
    assert ada.delete(world.repo("/issues/1/labels/post%20doc%2Fx")).status_code == 404
    replaced = ada.put(world.repo("/issues/1/labels"), json={"labels": ["bare"]}).json()
    assert [each["name"] for each in replaced] == ["bare"]
    assert {each["name"] for each in ada.get(world.repo("/labels")).json()} == {"post doc/x", "new", "bare"}
    changed = ada.patch(world.repo("/labels/bare"), json={"new_name": "naked"})
    assert changed.json()["name"] == "naked"
    assert ada.get(world.repo("/issues/1/labels")).json()[0]["name"] == "naked"
    assert ada.delete(world.repo("/labels/naked")).status_code == 204
    assert ada.get(world.repo("/issues/1")).json()["labels"] == []
    assert world.names("issues")[1:] == ["issues.labeled"] * 3 + ["issues.unlabeled"] * 2
    assert world.events()[2].payload["label"]["name"] == "post doc/x"


def test_label_on_a_pull_request_is_a_pull_request_event(world: World, bot: httpx.Client, ada: httpx.Client):
    number = world.pull(bot)["number"]
    ada.post(world.repo(f"/issues/{number}/labels"), json={"labels": ["ready"]})
    assert world.names("issues", "pull_request") == ["pull_request.opened", "pull_request.labeled"]


def test_reaction_is_made_once_and_counted(world: World, ada: httpx.Client, bot: httpx.Client):
    open_issue(ada, world)
    path = world.repo("/issues/1/reactions")
    first, second = (bot.post(path, json={"content": "eyes"}) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json()["id"] == second.json()["id"]
    assert ada.post(path, json={"content": "eyes"}).status_code == 201
    rollup = ada.get(world.repo("/issues/1")).json()["reactions"]
    assert (rollup["eyes"], rollup["total_count"]) == (2, 2)
    assert bot.post(path, json={"content": "thumbs"}).status_code == 422
    assert ada.delete(f"{path}/{first.json()['id']}").status_code == 403
    assert bot.delete(f"{path}/{first.json()['id']}").status_code == 204
    assert [each["user"]["login"] for each in ada.get(path).json()] == ["ada"]


def test_reactions_on_comments(world: World, ada: httpx.Client, bot: httpx.Client):
    open_issue(ada, world)
    comment = ada.post(world.repo("/issues/1/comments"), json={"body": "x"}).json()
    path = world.repo(f"/issues/comments/{comment['id']}/reactions")
    reaction = bot.post(path, json={"content": "rocket"})
    assert reaction.status_code == 201
    assert len(ada.get(path, params={"content": "rocket"}).json()) == 1
    assert ada.get(path, params={"content": "heart"}).json() == []
    assert bot.delete(f"{path}/{reaction.json()['id']}").status_code == 204


def test_assignees(world: World, ada: httpx.Client):
    open_issue(ada, world)
    assert ada.post(world.repo("/issues/1/assignees"), json={"assignees": ["dora"]}).status_code == 201
    assert ada.post(world.repo("/issues/1/assignees"), json={"assignees": ["nobody"]}).status_code == 422
    removed = ada.request("DELETE", world.repo("/issues/1/assignees"), json={"assignees": ["dora"]})
    assert removed.json()["assignees"] == []
    assert "dora" in {each["login"] for each in ada.get(world.repo("/assignees")).json()}


def test_search_finds_by_qualifier(world: World, ada: httpx.Client, bot: httpx.Client):
    open_issue(ada, world, title="Raise the reverse benchmark", labels=["postdoc"])
    world.pull(bot)
    found = ada.get("/search/issues", params={"q": "repo:acme/lab is:issue state:open label:postdoc reverse"}).json()
    assert [each["number"] for each in found["items"]] == [1]
    pulls = ada.get("/search/issues", params={"q": "repo:acme/lab is:pr author:app/postdoc"}).json()
    assert pulls["total_count"] == 1
    assert ada.get("/search/issues").status_code == 422
