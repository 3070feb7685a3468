"""The event that started the workflow, as GitHub Actions hands it over: a name, and the webhook's payload in a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bot.conversation.events import acts_on
from bot.errors import UserError

LOOKS_ONLY = frozenset({"schedule", "workflow_dispatch", "repository_dispatch", "workflow_run", "push"})
"""Events that tell nothing of a goal: whatever happened is found by looking."""
_SAME = {"pull_request_target": "pull_request"}
"""Nothing of the pull request is ever checked out here, so both mean the same."""


@dataclass(frozen=True, slots=True)
class Happening:
    """What is heard; `name` is empty where there is nothing to hear, and only to look."""

    name: str
    payload: Mapping[str, Any]

    @property
    def is_new_comment(self) -> bool:
        return self.name in ("issue_comment", "pull_request_review", "pull_request_review_comment") and (
            self.payload.get("action") != "edited"
        )


def read_happening(name: str, path: Path | None, repository: str) -> tuple[Happening | None, str]:
    """(the event, ""), or (None, why nothing is to be done about it).

    Raises: UserError when there is no such event, or it is about another repository.
    """
    if not name:
        raise UserError("Name the event with --event-name, or in GITHUB_EVENT_NAME.")
    payload = _payload(path)
    told = payload.get("repository")
    about = str(told.get("full_name", repository)) if isinstance(told, dict) else repository
    if about.lower() != repository.lower():
        raise UserError(f"The event is about {about}, and this runs in {repository}: give it its own event.")
    name = _SAME.get(name, name)
    if name in LOOKS_ONLY:
        return Happening("", payload), ""
    if not acts_on(name, payload.get("action") if isinstance(payload.get("action"), str) else None):
        return None, f"nobody acts on {name} {payload.get('action', '')}".strip()
    if _is_forks(payload, repository):
        return None, "it is about a pull request from a fork, for which a workflow's token may write nothing"
    return Happening(name, payload), ""


def _payload(path: Path | None) -> Mapping[str, Any]:
    if path is None:
        raise UserError('Name the event\'s file: `postdoc respond --event "$GITHUB_EVENT_PATH"`.')
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"--event {path}: {error.strerror}. Name the file in GITHUB_EVENT_PATH.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"--event {path}: this is no JSON. Name the file in GITHUB_EVENT_PATH.") from error
    if not isinstance(found, dict):
        raise UserError(
            f"--event {path}: this is no event, which is a JSON object. Name the file in GITHUB_EVENT_PATH."
        )
    return found


def _is_forks(payload: Mapping[str, Any], repository: str) -> bool:
    """Events on a fork's pull request start with a token that only reads; comments on one do not."""
    pull = payload.get("pull_request")
    head = pull.get("head") if isinstance(pull, dict) else None
    if not isinstance(head, dict):
        return False
    repo = head.get("repo")
    return not isinstance(repo, dict) or str(repo.get("full_name", "")).lower() != repository.lower()
