"""Pull requests, reviews and review comments as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ..model import PullRequest, Repository, Review, ReviewComment, User
from .accounts import stamp, stamp_or_none, user, user_or_none
from .conversations import html_url, label, reaction_rollup
from .repositories import api, page, repository

if TYPE_CHECKING:
    from ..forge import Forge

Json = dict[str, Any]


def _end(forge: Forge, stored: Repository, ref: str, sha: str) -> Json:
    """One side of a pull request: its head or its base."""
    return {
        "label": f"{stored.owner.login}:{ref}",
        "ref": ref,
        "sha": sha,
        "user": user(forge, stored.owner),
        "repo": repository(forge, stored),
    }


def pull_simple(forge: Forge, stored: PullRequest) -> Json:
    """The form in lists."""
    issue, base = stored.issue, stored.repository
    url, issue_url = f"{api(forge, base)}/pulls/{stored.number}", f"{api(forge, base)}/issues/{stored.number}"
    html = html_url(forge, issue)
    links = {
        "self": url,
        "html": html,
        "issue": issue_url,
        "comments": f"{issue_url}/comments",
        "review_comments": f"{url}/comments",
        "review_comment": f"{api(forge, base)}/pulls/comments{{/number}}",
        "commits": f"{url}/commits",
        "statuses": f"{api(forge, base)}/statuses/{stored.head_sha}",
    }
    return {
        "id": stored.id,
        "node_id": stored.node_id,
        "url": url,
        "html_url": html,
        "diff_url": f"{html}.diff",
        "patch_url": f"{html}.patch",
        "issue_url": issue_url,
        "commits_url": links["commits"],
        "review_comments_url": links["review_comments"],
        "review_comment_url": links["review_comment"],
        "comments_url": links["comments"],
        "statuses_url": links["statuses"],
        "number": stored.number,
        "state": issue.state,
        "locked": issue.locked,
        "active_lock_reason": None,
        "title": issue.title,
        "body": issue.body,
        "user": user(forge, issue.user),
        "labels": [label(forge, base, each) | {"description": each.description or ""} for each in issue.labels],
        "milestone": None,
        "assignee": user_or_none(forge, issue.assignees[0] if issue.assignees else None),
        "assignees": [user(forge, each) for each in issue.assignees],
        "requested_reviewers": [user(forge, each) for each in stored.requested_reviewers],
        "requested_teams": [],
        "created_at": stamp(issue.created_at),
        "updated_at": stamp(issue.updated_at),
        "closed_at": stamp_or_none(issue.closed_at),
        "merged_at": stamp_or_none(stored.merged_at),
        "merge_commit_sha": stored.merge_commit_sha,
        "draft": stored.draft,
        "head": _end(forge, stored.head_repository, stored.head_ref, stored.head_sha),
        "base": _end(forge, base, stored.base_ref, stored.base_sha),
        "_links": {name: {"href": href} for name, href in links.items()},
        "author_association": forge.association(base, issue.user),
        "auto_merge": None,
    }


def pull(forge: Forge, stored: PullRequest) -> Json:
    files, commits = forge.pull_files(stored), forge.pull_commits(stored)
    mergeable = forge.mergeable(stored)
    state = "draft" if stored.draft else {True: "clean", False: "dirty", None: "unknown"}[mergeable]
    return pull_simple(forge, stored) | {
        "merged": stored.merged_at is not None,
        "mergeable": mergeable,
        "rebaseable": mergeable,
        "mergeable_state": state,
        "merged_by": user_or_none(forge, stored.merged_by),
        "comments": len(stored.issue.comments),
        "review_comments": len(stored.review_comments),
        "maintainer_can_modify": stored.maintainer_can_modify,
        "commits": len(commits),
        "additions": sum(file.additions for file in files),
        "deletions": sum(file.deletions for file in files),
        "changed_files": len(files),
    }


def pull_minimal(forge: Forge, stored: PullRequest) -> Json:
    """The form inside check runs and suites."""
    ends = (
        ("head", stored.head_repository, stored.head_ref, stored.head_sha),
        ("base", stored.repository, stored.base_ref, stored.base_sha),
    )
    return {
        "id": stored.id,
        "number": stored.number,
        "url": f"{api(forge, stored.repository)}/pulls/{stored.number}",
        **{
            name: {"ref": ref, "sha": sha, "repo": {"id": repo.id, "url": api(forge, repo), "name": repo.name}}
            for name, repo, ref, sha in ends
        },
    }


def review(forge: Forge, stored: Review) -> Json:
    issue = stored.pull.issue
    html = f"{html_url(forge, issue)}#pullrequestreview-{stored.id}"
    pull_url = f"{api(forge, stored.pull.repository)}/pulls/{stored.pull.number}"
    shape: Json = {
        "id": stored.id,
        "node_id": stored.node_id,
        "user": user(forge, stored.user),
        "body": stored.body,
        "state": stored.state,
        "html_url": html,
        "pull_request_url": pull_url,
        "author_association": forge.association(stored.pull.repository, stored.user),
        "_links": {"html": {"href": html}, "pull_request": {"href": pull_url}},
        "commit_id": stored.commit_id,
    }
    if stored.submitted_at is not None:
        shape["submitted_at"] = stamp(stored.submitted_at)
    return shape


def review_comment(forge: Forge, stored: ReviewComment) -> Json:
    """GitHub's description does not allow null for an outdated comment's `line` and `position`: they are left out."""
    shape = review_comment_with_nulls(forge, stored)
    for name in ("line", "original_line", "side", "position", "original_position"):
        if shape[name] is None:
            del shape[name]
    return shape


def review_comment_with_nulls(forge: Forge, stored: ReviewComment) -> Json:
    """The form in webhooks."""
    base = stored.pull.repository
    url = f"{api(forge, base)}/pulls/comments/{stored.id}"
    html = f"{html_url(forge, stored.pull.issue)}#discussion_r{stored.id}"
    pull_url = f"{api(forge, base)}/pulls/{stored.pull.number}"
    shape: Json = {
        "id": stored.id,
        "node_id": stored.node_id,
        "url": url,
        "html_url": html,
        "pull_request_url": pull_url,
        "pull_request_review_id": stored.review.id,
        "diff_hunk": stored.diff_hunk,
        "path": stored.path,
        "commit_id": stored.commit_id,
        "original_commit_id": stored.original_commit_id,
        "user": user(forge, stored.user),
        "body": stored.body,
        "created_at": stamp(stored.created_at),
        "updated_at": stamp(stored.updated_at),
        "author_association": forge.association(base, stored.user),
        "_links": {"self": {"href": url}, "html": {"href": html}, "pull_request": {"href": pull_url}},
        "reactions": reaction_rollup(stored.reactions, url),
        "line": stored.line,
        "original_line": stored.original_line,
        "side": stored.side,
        "start_line": stored.start_line,
        "original_start_line": stored.original_start_line,
        "start_side": stored.start_side,
        "position": stored.position,
        "original_position": stored.original_position,
        "subject_type": stored.subject_type,
    }
    if stored.in_reply_to is not None:
        shape["in_reply_to_id"] = stored.in_reply_to.id
    return shape


def collaborator(forge: Forge, account: User, permissions: dict[str, bool], role_name: str) -> Json:
    return user(forge, account) | {"permissions": permissions, "role_name": role_name}


def blob_page(forge: Forge, stored: Repository, commit_id: str, path: str) -> str:
    return f"{page(forge, stored)}/blob/{commit_id}/{quote(path)}"
