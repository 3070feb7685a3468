"""The judge of REST answers must itself be able to say no."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import graphql_schema, openapi

from .conftest import World

pytestmark = pytest.mark.skipif(not openapi.available(), reason="npm packages of tests/node are not installed")


@pytest.fixture
def issue(world: World, ada: httpx.Client) -> dict[str, Any]:
    made: dict[str, Any] = ada.post(world.repo("/issues"), json={"title": "x", "labels": ["y"]}).json()
    return made


def judged(body: Any, path: str = "/repos/acme/lab/issues/1", method: str = "GET", status: int = 200) -> list[str]:
    return openapi.validate(method, path, status, json.dumps(body).encode())


def test_good_answer_passes(issue: dict[str, Any]):
    assert judged(issue) == []


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"number": "1"}, "$.number"),
        ({"title": None}, "$.title"),
        ({"user": {"login": "ada"}}, "$.user"),
        ({"created_at": "yesterday"}, "$.created_at"),
        ({"html_url": "not a url"}, "$.html_url"),
        ({"state_reason": "bored"}, "$.state_reason"),
        ({"author_association": "FRIEND"}, "$.author_association"),
    ],
)
def test_wrong_field_is_named(issue: dict[str, Any], change: dict[str, Any], where: str):
    problems = judged(issue | change)
    assert problems
    assert all(where in problem for problem in problems)


@pytest.mark.parametrize("missing", ["id", "user", "labels", "comments", "closed_at"])
def test_missing_field_is_noticed(issue: dict[str, Any], missing: str):
    del issue[missing]
    assert missing in judged(issue)[0]


def test_null_is_allowed_where_github_allows_it(issue: dict[str, Any]):
    assert judged(issue | {"body": None, "closed_at": None, "milestone": None, "state_reason": None}) == []


def test_unknown_endpoint_and_status_are_noticed(issue: dict[str, Any]):
    assert "no such endpoint" in judged(issue, "/repos/acme/lab/goals/1")[0]
    assert "no such status" in judged(issue, status=201)[0]
    assert judged({"message": 5}, status=404) != []
    assert judged({"message": "Not Found", "documentation_url": "x"}, status=404) == []


def test_list_elements_are_judged(issue: dict[str, Any]):
    assert judged([issue, issue], "/repos/acme/lab/issues") == []
    assert judged([issue, {}], "/repos/acme/lab/issues") != []


def test_templates_are_told_apart():
    cases = {
        "/repos/a/b/issues/comments": "/repos/{owner}/{repo}/issues/comments",
        "/repos/a/b/issues/7": "/repos/{owner}/{repo}/issues/{issue_number}",
        "/repos/a/b/contents/x/y z.md": "/repos/{owner}/{repo}/contents/{path}",
        "/repos/a/b/commits/topic/one/check-runs": "/repos/{owner}/{repo}/commits/{ref}/check-runs",
        "/repos/a/b/git/ref/heads/topic/one": "/repos/{owner}/{repo}/git/ref/{ref}",
    }
    assert {path: openapi.template_of("GET", path) for path in cases} == cases


def test_recorder_keeps_each_different_answer_once(world: World, ada: httpx.Client):
    for _ in range(3):
        ada.get("/meta")
    ada.get(world.repo())
    kept = [each.path for each in world.recorder.exchanges]
    assert kept.count("/meta") == 1
    assert world.repo() in kept


def test_webhook_payloads_are_judged(world: World, issue: dict[str, Any]):
    payload = world.events()[-1].payload
    assert openapi.webhook_problems("issues", payload) == []
    del payload["sender"]
    assert "sender" in openapi.webhook_problems("issues", payload)[0]
    assert openapi.webhook_problems("issues", {"action": "exploded"}) != []


def test_missing_description_is_a_skip_here_and_an_error_in_ci(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(openapi, "DESCRIPTION", tmp_path / "none.json")
    monkeypatch.setattr(graphql_schema, "SCHEMA", tmp_path / "none.graphql")
    monkeypatch.delenv("CI", raising=False)
    assert (openapi.available(), graphql_schema.available()) == (False, False)
    monkeypatch.setenv("CI", "true")
    for judge in (openapi, graphql_schema):
        with pytest.raises(RuntimeError, match="npm ci"):
            judge.available()
