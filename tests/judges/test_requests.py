"""Every call of the bot is one that GitHub describes. In all tests that run the bot, its requests are judged as a whole
when the forge closes (tests/openapi.py); here the judge shows that it can say no, and finds every GraphQL document."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
from graphql import GraphQLSyntaxError, build_schema, parse, validate

from bot.practice.graphql import SCHEMA_FILE
from tests import graphql_schema, openapi
from tests.openapi import Exchange
from tests.openapi_requests import request_problems

pytestmark = pytest.mark.skipif(
    not (openapi.available() and graphql_schema.available()), reason="npm packages of tests/node are not installed"
)
BOT = Path(__file__).resolve().parent.parent.parent / "bot"
ISSUE = "/repos/acme/lab/issues/1"
CHECK = {"name": "postdoc / run 1", "head_sha": "0" * 40, "status": "in_progress",
         "output": {"title": "t", "summary": "s"}}  # fmt: skip
REVIEW = {"event": "COMMENT", "body": "b", "comments": [{"path": "a", "line": 3, "side": "RIGHT", "body": "c"}]}


def judged(method: str, path: str, body: Any = None, query: str = "", agent: str = "postdoc") -> list[str]:
    request = b"" if body is None else json.dumps(body).encode()
    return request_problems(Exchange(method, path, 200, "application/json", b"", query, request, agent))


@pytest.mark.parametrize(
    ("method", "path", "body", "query"),
    [
        ("POST", f"{ISSUE}/comments", {"body": "hello"}, ""),
        ("GET", f"{ISSUE}/comments", None, "per_page=100&page=2"),
        ("PATCH", ISSUE, {"state": "closed", "state_reason": "not_planned"}, ""),
        ("POST", "/repos/acme/lab/check-runs", CHECK, ""),
        ("POST", "/repos/acme/lab/pulls/2/reviews", REVIEW, ""),
        ("POST", "/app/installations/7/access_tokens", None, ""),
        ("GET", "/repos/acme/lab/contents/a/b.yaml", None, "ref=main"),
    ],
)
def test_right_request_passes(method: str, path: str, body: Any, query: str) -> None:
    assert judged(method, path, body, query) == []


@pytest.mark.parametrize(
    ("method", "path", "body", "query", "says"),
    [
        ("POST", f"{ISSUE}/comments", {}, "", "'body' is a required property"),
        ("POST", f"{ISSUE}/comments", {"body": 5}, "", "is not of type 'string'"),
        ("POST", f"{ISSUE}/comments", {"body": "x", "text": "y"}, "", "$.text is not in GitHub's description"),
        ("POST", f"{ISSUE}/comments", {"body": "x" * 65_537}, "", "GitHub takes 65536"),
        ("POST", f"{ISSUE}/comments", None, "", "needs a body"),
        ("GET", f"{ISSUE}/comments", None, "per_page=101", "at most 100"),
        ("GET", f"{ISSUE}/comments", None, "per_page=all", "no integer"),
        ("GET", f"{ISSUE}/comments", None, "per_pages=10", "no query parameter"),
        ("GET", "/repos/acme/lab/pulls", None, "state=any", "none of"),
        ("PATCH", ISSUE, {"state_reason": "bored"}, "", "is not one of"),
        ("POST", "/repos/acme/lab/check-runs", CHECK | {"output": {"title": "t" * 256, "summary": "s"}}, "", "255"),
        ("POST", "/repos/acme/lab/check-runs", CHECK | {"status": "done"}, "", "done"),
        ("POST", "/repos/acme/lab/check-runs", CHECK | {"output": {"title": "t"}}, "", "summary"),
        ("POST", "/repos/acme/lab/pulls/2/reviews", {"event": "COMMENT", "comments": [{"line": 3}]}, "", "required"),
        ("POST", "/repos/acme/lab/pulls/2/reviews",
         {"comments": [{"path": "a", "line": 3, "body": "c", "lines": 4}]}, "", "$.comments[0].lines"),
        ("POST", "/repos/acme/lab/goals", {"body": "x"}, "", "no such endpoint"),
        ("DELETE", f"{ISSUE}/comments", None, "", "no such endpoint"),
    ],
)  # fmt: skip
def test_wrong_request_is_named(method: str, path: str, body: Any, query: str, says: str) -> None:
    assert any(says in problem for problem in judged(method, path, body, query))


def test_people_are_not_judged() -> None:
    assert judged("POST", f"{ISSUE}/comments", {}, agent="python-httpx/0.28") == []


def test_graphql_variables_are_judged() -> None:
    from bot.conversation.github.repository import COMMIT

    good = {"branch": {"repositoryNameWithOwner": "a/b", "branchName": "c"}, "message": {"headline": "h"},
            "expectedHeadOid": "0" * 40, "fileChanges": {"additions": [{"path": "p", "contents": "eA=="}]}}  # fmt: skip
    assert judged("POST", "/graphql", {"query": COMMIT, "variables": {"input": good}}) == []
    for wrong in (good | {"files": []}, {k: v for k, v in good.items() if k != "expectedHeadOid"}):
        assert judged("POST", "/graphql", {"query": COMMIT, "variables": {"input": wrong}}) != []
    assert judged("POST", "/graphql", {"query": "{ viewer { surname } }"}) != []


# --- GraphQL documents, wherever in the bot they stand

_LOOKS_LIKE = re.compile(r"\s*(?:#[^\n]*\n\s*)*(?:query|mutation|subscription|fragment)\b[^\n]*[{(]|\s*\{\s*\w+\s*[({]")


def documents(source: str) -> tuple[list[str], list[str]]:
    """(every GraphQL document among the string constants of a module, those that are put together at run time)."""
    found, built = [], []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and _LOOKS_LIKE.match(node.value):
            try:
                parse(node.value)
            except GraphQLSyntaxError:
                continue
            found.append(node.value)
        if isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
            beginning = str(node.values[0].value)
            built += [beginning] if re.match(r"\s*(?:query|mutation)\b[^\n]*[{(]", beginning) else []
    return found, built


def _modules() -> list[Path]:
    return [path for path in BOT.rglob("*.py") if "practice" not in path.relative_to(BOT).parts]


def test_documents_are_found_by_their_look() -> None:
    source = 'A = """\nmutation($id: ID!) { x(id: $id) { y } }\n"""\nB = "{ viewer { login } }"\nC = "query the Hub"\n'
    found, built = documents(source + 'D = f"query {{ {A} }}"\n')
    assert len(found) == 2
    assert len(built) == 1


def test_every_document_in_the_bot_is_valid_on_githubs_schema_and_on_the_practice_forge() -> None:
    ours = build_schema(SCHEMA_FILE.read_text())
    seen = 0
    for path in _modules():
        found, built = documents(path.read_text(encoding="utf-8"))
        assert built == [], f"{path}: write a GraphQL document as a constant, with variables, so that it can be judged"
        for document in found:
            seen += 1
            assert graphql_schema.problems(document) == [], path
            assert [error.message for error in validate(ours, parse(document))] == [], path
    assert seen >= 2
