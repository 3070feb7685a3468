"""Issues, comments, labels, reactions and timeline events as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ..model import Issue, IssueComment, Label, Reaction, Repository, TimelineEvent
from .accounts import app_or_none, stamp, stamp_or_none, user, user_or_none
from .repositories import api, page

if TYPE_CHECKING:
    from ..forge import Forge

Json = dict[str, Any]
REACTIONS = ("+1", "-1", "laugh", "hooray", "confused", "heart", "rocket", "eyes")


def label(forge: Forge, repository: Repository, stored: Label) -> Json:
    return {
        "id": stored.id,
        "node_id": stored.node_id,
        "url": f"{api(forge, repository)}/labels/{quote(stored.name)}",
        "name": stored.name,
        "color": stored.color,
        "default": stored.default,
        "description": stored.description,
    }


def reaction(forge: Forge, stored: Reaction) -> Json:
    return {
        "id": stored.id,
        "node_id": stored.node_id,
        "user": user(forge, stored.user),
        "content": stored.content,
        "created_at": stamp(stored.created_at),
    }


def reaction_rollup(reactions: list[Reaction], url: str) -> Json:
    counts = {content: sum(r.content == content for r in reactions) for content in REACTIONS}
    return {"url": f"{url}/reactions", "total_count": len(reactions), **counts}


def html_url(forge: Forge, stored: Issue) -> str:
    return f"{page(forge, stored.repository)}/{'pull' if stored.pull else 'issues'}/{stored.number}"


def issue(forge: Forge, stored: Issue) -> Json:
    repository = stored.repository
    url = f"{api(forge, repository)}/issues/{stored.number}"
    shape: Json = {
        "id": stored.id,
        "node_id": stored.node_id,
        "url": url,
        "repository_url": api(forge, repository),
        "labels_url": f"{url}/labels{{/name}}",
        "comments_url": f"{url}/comments",
        "events_url": f"{url}/events",
        "timeline_url": f"{url}/timeline",
        "html_url": html_url(forge, stored),
        "number": stored.number,
        "state": stored.state,
        "state_reason": stored.state_reason,
        "title": stored.title,
        "body": stored.body,
        "user": user(forge, stored.user),
        "labels": [label(forge, repository, each) for each in stored.labels],
        "assignee": user_or_none(forge, stored.assignees[0] if stored.assignees else None),
        "assignees": [user(forge, each) for each in stored.assignees],
        "milestone": None,
        "locked": stored.locked,
        "active_lock_reason": None,
        "comments": len(stored.comments),
        "closed_at": stamp_or_none(stored.closed_at),
        "closed_by": user_or_none(forge, stored.closed_by),
        "created_at": stamp(stored.created_at),
        "updated_at": stamp(stored.updated_at),
        "author_association": forge.association(repository, stored.user),
        "reactions": reaction_rollup(stored.reactions, url),
        "performed_via_github_app": app_or_none(forge, stored.app),
    }
    if stored.pull is not None:
        pull_url = f"{api(forge, repository)}/pulls/{stored.number}"
        html = html_url(forge, stored)
        shape["draft"] = stored.pull.draft
        shape["pull_request"] = {
            "url": pull_url,
            "html_url": html,
            "diff_url": f"{html}.diff",
            "patch_url": f"{html}.patch",
            "merged_at": stamp_or_none(stored.pull.merged_at),
        }
    return shape


def comment(forge: Forge, stored: IssueComment) -> Json:
    repository = stored.issue.repository
    url = f"{api(forge, repository)}/issues/comments/{stored.id}"
    return {
        "id": stored.id,
        "node_id": stored.node_id,
        "url": url,
        "html_url": f"{html_url(forge, stored.issue)}#issuecomment-{stored.id}",
        "issue_url": f"{api(forge, repository)}/issues/{stored.issue.number}",
        "user": user(forge, stored.user),
        "body": stored.body,
        "created_at": stamp(stored.created_at),
        "updated_at": stamp(stored.updated_at),
        "author_association": forge.association(repository, stored.user),
        "reactions": reaction_rollup(stored.reactions, url),
        "performed_via_github_app": app_or_none(forge, stored.app),
    }


def timeline_event(forge: Forge, repository: Repository, stored: TimelineEvent) -> Json:
    return {
        "id": stored.id,
        "node_id": stored.node_id,
        "url": f"{api(forge, repository)}/issues/events/{stored.id}",
        "actor": user(forge, stored.actor),
        "event": stored.event,
        "commit_id": None,
        "commit_url": None,
        "created_at": stamp(stored.created_at),
        "performed_via_github_app": None,
        **stored.detail,
    }
