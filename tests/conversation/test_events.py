"""GitHub's payloads as values: every published example is read, nothing odd raises."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.conversation import events
from bot.conversation.payloads import Payload

EXAMPLES = Path(__file__).parents[1] / "node/node_modules/@octokit/webhooks-examples/api.github.com/index.json"
ACTED_ON = {
    "issues": 10,
    "issue_comment": 7,
    "pull_request": 9,
    "pull_request_review": 3,
    "pull_request_review_comment": 4,
    "push": 7,
    "check_run": 3,
    "installation": 7,
    "installation_repositories": 3,
}


def account(id: int = 7, login: str = "alice", type: str = "User") -> dict[str, Any]:
    return {"id": id, "login": login, "type": type}


def payload(**more: Any) -> dict[str, Any]:
    repository = {"id": 5, "name": "widgets", "full_name": "acme/widgets", "default_branch": "trunk"}
    return {"sender": account(), "repository": repository, "installation": {"id": 9}} | more


@pytest.mark.skipif(not EXAMPLES.exists(), reason="npm's @octokit/webhooks-examples is not installed")
def test_every_published_example_is_read_or_ignored() -> None:
    acted: dict[str, int] = {}
    for event in json.loads(EXAMPLES.read_text()):
        for example in event["examples"]:
            parsed = events.parse_event(event["name"], example, "guid")
            assert not parsed.reason.startswith("odd"), (event["name"], parsed.reason)
            if parsed.occurrence is not None:
                acted[event["name"]] = acted.get(event["name"], 0) + 1
    assert acted == ACTED_ON


def test_opened_issue_is_read() -> None:
    issue = {
        "number": 42, "title": "T", "body": None, "user": account(8, "bob"), "labels": [{"name": "postdoc"}],
        "state": "closed", "updated_at": "2026-01-02T03:04:05Z",
    }  # fmt: skip

    found, reason = events.parse_event("issues", payload(action="opened", issue=issue), "guid-1")

    assert reason == ""
    assert found == events.IssueOpened(
        where=events.Where("acme", "widgets", 5, 9, "guid-1", "trunk"),
        sender=events.Person(7, "alice", "User"),
        issue=events.IssueText(
            number=42,
            title="T",
            body="",
            author=events.Person(8, "bob", "User"),
            labels=("postdoc",),
            on_pull_request=False,
            is_open=False,
            updated_at=1767323045.0,
        ),
    )


def test_edited_comment_tells_its_earlier_text() -> None:
    said = payload(
        action="edited",
        issue={"number": 43, "pull_request": {"url": "x"}},
        comment={"id": 77, "body": "after", "user": account()},
        changes={"body": {"from": "before"}},
    )

    found = events.parse_event("issue_comment", said).occurrence

    assert isinstance(found, events.CommentEdited)
    assert (found.before, found.body, found.on_pull_request) == ("before", "after", True)
    # An emulator leaves `changes` out: the earlier text is then unknown, not empty.
    del said["changes"]
    found = events.parse_event("issue_comment", said).occurrence
    assert isinstance(found, events.CommentEdited)
    assert found.before is None


def test_review_line_comment_knows_the_commit_its_author_saw() -> None:
    comment = {"id": 3, "body": "/postdoc stop", "user": account(), "commit_id": "abc"}
    pull = {"number": 43, "head": {"ref": "x", "sha": "def"}}

    found = events.parse_event(
        "pull_request_review_comment", payload(action="created", comment=comment, pull_request=pull)
    ).occurrence

    assert isinstance(found, events.CommentCreated)
    assert (found.place, found.head_sha, found.number) == (events.CommentPlace.REVIEW_COMMENT, "abc", 43)


@pytest.mark.parametrize(
    ("head_repository", "fork"),
    [({"full_name": "acme/widgets"}, False), ({"full_name": "mallory/widgets"}, True), (None, True)],
)
def test_pull_request_from_a_fork_is_told_apart(head_repository: Any, fork: bool) -> None:
    pull = {
        "number": 43,
        "merged": True,
        "head": {"ref": "x", "sha": "s", "repo": head_repository},
        "base": {"ref": "main", "sha": "b", "repo": {"full_name": "Acme/widgets"}},
    }

    found = events.parse_event("pull_request", payload(action="closed", pull_request=pull)).occurrence

    assert isinstance(found, events.PullRequestClosed)
    assert (found.merged, found.pull.from_fork) == (True, fork)


@pytest.mark.parametrize(
    ("login", "kind", "bot"),
    [("alice", "User", False), ("postdoc[bot]", "Bot", True), ("x", "Bot", True), ("postdoc[bot]", "User", True)],
)
def test_bots_are_recognised(login: str, kind: str, bot: bool) -> None:
    assert events.Person(1, login, kind).is_bot is bot


@pytest.mark.parametrize(
    ("name", "body", "reason"),
    [
        ("star", {}, "ignored: event star"),
        ("issues", payload(action="pinned"), "ignored: issues pinned"),
        ("issues", [], "odd: the payload is not an object"),
        ("issues", {"action": 3}, "odd: the action is not a word"),
        ("issues", payload(action="opened"), "odd: issues: no issue"),
        ("issues", {"action": "opened", "issue": {"number": 1}}, "odd: issues: no repository or no sender"),
        ("issues", payload(action="opened", issue={"number": "x"}), "odd: issues: issue.number: Input should be"),
        ("push", payload(), "odd: push: no ref or no commit"),
        ("check_run", payload(action="requested_action", check_run={"id": 1}), "odd: check_run: no requested action"),
    ],
)
def test_what_is_not_acted_on_has_a_reason(name: str, body: Any, reason: str) -> None:
    found = events.parse_event(name, body)

    assert found.occurrence is None
    assert found.reason.startswith(reason)


def test_branch_and_tag_pushes_are_told_apart() -> None:
    pushed = {
        ref: events.parse_event("push", payload(ref=ref, after="a")).occurrence
        for ref in ("refs/heads/a/b", "refs/tags/v1")
    }

    branches = [found.branch for found in pushed.values() if isinstance(found, events.Push)]
    assert branches == ["a/b", None]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from([*Payload.model_fields, "unknown"])


@given(
    st.sampled_from([*events._BUILDERS, "star"]),
    st.dictionaries(FIELDS, JSON, max_size=6),
    st.sampled_from(["opened", "edited", "created", "closed", "submitted", "requested_action", "labeled"]),
)
@settings(max_examples=300, deadline=None)
def test_no_payload_raises(name: str, body: dict[str, Any], action: str) -> None:
    assert isinstance(events.parse_event(name, body), events.ParsedEvent)
    assert isinstance(events.parse_event(name, payload(action=action) | body), events.ParsedEvent)
