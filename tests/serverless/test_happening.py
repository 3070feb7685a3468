"""The event's file: what is heard, what is only looked at, what is refused in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bot.errors import UserError
from bot.serverless.happening import read_happening

HERE = "acme/speller"


def read(tmp_path: Path, name: str, payload: Any) -> tuple[Any, str]:
    path = tmp_path / "event.json"
    path.write_text(payload if isinstance(payload, str) else json.dumps(payload))
    return read_happening(name, path, HERE)


def test_comment_is_heard_as_its_webhook_would_tell_it(tmp_path: Path) -> None:
    payload = {"action": "created", "repository": {"full_name": "Acme/Speller"}}
    found, why = read(tmp_path, "issue_comment", payload)
    assert (found.name, found.payload, found.is_new_comment, why) == ("issue_comment", payload, True, "")


@pytest.mark.parametrize("name", ["schedule", "workflow_dispatch"])
def test_timer_only_looks(tmp_path: Path, name: str) -> None:
    found, _ = read(tmp_path, name, {"schedule": "0 * * * *"})
    assert found.name == ""


def test_pull_request_target_is_the_same_event(tmp_path: Path) -> None:
    head = {"ref": "postdoc/1-x", "sha": "0" * 40, "repo": {"full_name": HERE}}
    found, _ = read(tmp_path, "pull_request_target", {"action": "closed", "pull_request": {"head": head}})
    assert found.name == "pull_request"


@pytest.mark.parametrize("repo", [{"full_name": "mallory/speller"}, None])
def test_forks_pull_request_is_left_alone(tmp_path: Path, repo: Any) -> None:
    found, why = read(tmp_path, "pull_request", {"action": "closed", "pull_request": {"head": {"repo": repo}}})
    assert found is None
    assert "fork" in why


@pytest.mark.parametrize(("name", "action"), [("fork", None), ("issues", "pinned"), ("pull_request", "labeled")])
def test_event_that_nobody_acts_on_is_said_to_be_one(tmp_path: Path, name: str, action: str | None) -> None:
    found, why = read(tmp_path, name, {"action": action})
    assert found is None
    assert name in why


@pytest.mark.parametrize(
    ("name", "payload", "words"),
    [
        ("", {}, "GITHUB_EVENT_NAME"),
        ("issues", "{", "no JSON"),
        ("issues", "[" * 100_000, "no JSON"),
        ("issues", "[]", "no event"),
        ("issues", {"repository": {"full_name": "acme/other"}}, "acme/other"),
    ],
)
def test_what_is_no_event_of_this_repository_is_refused(tmp_path: Path, name: str, payload: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        read(tmp_path, name, payload)


def test_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="GITHUB_EVENT_PATH"):
        read_happening("issues", tmp_path / "nothing.json", HERE)
    with pytest.raises(UserError, match="GITHUB_EVENT_PATH"):
        read_happening("issues", None, HERE)
