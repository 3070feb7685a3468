"""Repositories, git objects and conversations as GraphQL objects: dictionaries whose functions run when asked for."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any

from ..commits import valid_path
from ..git_store import Commit, Identity
from ..model import (
    AccountType,
    Issue,
    IssueComment,
    PullRequest,
    Repository,
    Review,
    ReviewComment,
    Role,
    User,
)
from ..node_ids import node_id
from ..permissions import can_see, require, role_of
from ..replies import ApiError
from ..routing import Call
from ..shapes import conversations, repositories
from ..shapes.accounts import stamp

Fields = dict[str, Any]


def not_resolved(kind: str, what: str) -> ApiError:
    return ApiError(404, f"Could not resolve to {kind} with the {what}.")


class Root:
    """Builds objects for one caller; every way in checks what that caller may see."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.forge = call.forge
        self.actor = call.actor

    def fields(self) -> Fields:
        return {
            "viewer": lambda _: self.account(self.actor.account) | {"__typename": "User"},
            "repository": self._repository,
            "node": lambda _, id: self.node(id),
            "rateLimit": lambda _, dryRun=None: self._rate_limit(),
        }

    def _rate_limit(self) -> Fields:
        from datetime import UTC, datetime

        window = self.forge.limits.window(self.actor.rate_key, "graphql", self.forge.clock().timestamp())
        reset = stamp(datetime.fromtimestamp(window.reset, UTC))
        remaining = max(window.limit - window.used, 0)
        shape = {"limit": window.limit, "used": window.used, "remaining": remaining, "resetAt": reset}
        return shape | {"cost": 1, "nodeCount": 0}

    def _repository(self, _: Any, owner: str, name: str, followRenames: bool | None = None) -> Fields:
        return self.repository(self.find_repository(f"{owner}/{name}"))

    def find_repository(self, full_name: str) -> Repository:
        """Raises: ApiError 404."""
        found = self.forge.repositories.get(full_name.lower())
        if found is None or not can_see(self.actor, found):
            raise not_resolved("a Repository", f"name '{full_name}'")
        return found

    def find_node(self, identifier: str) -> Any:
        """The stored object with that global id, if the caller may see its repository. Raises: ApiError 404."""
        found = self.forge.nodes.get(identifier)
        repository = repository_of(found)
        if found is None or (repository is not None and not can_see(self.actor, repository)):
            raise not_resolved("a node", f"global id of '{identifier}'")
        return found

    def node(self, identifier: str) -> Fields:
        match self.find_node(identifier):
            case Repository() as repository:
                return self.repository(repository)
            case PullRequest() as pull:
                return self.pull(pull)
            case Issue() as issue:
                return self.issue(issue)
            case IssueComment() as comment:
                return self.issue_comment(comment)
            case ReviewComment() as comment:
                return self.review_comment(comment)
            case Review() as review:
                return self.review(review)
            case User() as user:
                return self.account(user)
            case _:
                raise not_resolved("a node", f"global id of '{identifier}'")

    def account(self, user: User) -> Fields:
        kind = {AccountType.BOT: "Bot", AccountType.ORGANIZATION: "Organization"}.get(user.type, "User")
        login = user.login.removesuffix("[bot]") if kind == "Bot" else user.login
        return {
            "__typename": kind,
            "id": user.node_id,
            "databaseId": user.id,
            "login": login,
            "name": user.name,
            "email": user.email or "",
            "url": f"{self.forge.base_url}/{'apps/' if kind == 'Bot' else ''}{login}",
            "avatarUrl": f"{self.forge.base_url}/avatars/{user.id}",
        }

    def repository(self, stored: Repository) -> Fields:
        pulls = stored.pulls
        return {
            "__typename": "Repository",
            "id": stored.node_id,
            "databaseId": stored.id,
            "name": stored.name,
            "nameWithOwner": stored.full_name,
            "description": stored.description,
            "isPrivate": stored.private,
            "isFork": stored.fork_of is not None,
            "url": repositories.page(self.forge, stored),
            "owner": self.account(stored.owner),
            "viewerPermission": lambda _: self._viewer_permission(stored),
            "defaultBranchRef": lambda _: self.ref(stored, f"refs/heads/{stored.default_branch}"),
            "ref": lambda _, qualifiedName: self._ref(stored, qualifiedName),
            "object": lambda _, expression=None, oid=None: self._object(stored, expression, oid),
            "issue": lambda _, number: self._issue(stored, number),
            "pullRequest": lambda _, number: self._pull(stored, number),
            "pullRequests": lambda _, **asked: self._pulls(pulls, **asked),
        }

    def _viewer_permission(self, stored: Repository) -> str | None:
        if self.actor.is_installation:
            return "WRITE" if self.actor.token and stored in self.actor.token.repositories else "READ"
        role = role_of(stored, self.actor.user)
        return None if role is Role.NONE else role.upper()

    def _issue(self, stored: Repository, number: int) -> Fields:
        found = stored.issues.get(number)
        if found is None or found.pull is not None:
            raise not_resolved("an Issue", f"number of {number}")
        require(self.actor, stored, Role.READ, ("issues:read",))
        return self.issue(found)

    def _pull(self, stored: Repository, number: int) -> Fields:
        found = stored.issues.get(number)
        if found is None or found.pull is None:
            raise not_resolved("a PullRequest", f"number of {number}")
        require(self.actor, stored, Role.READ, ("pull_requests:read",))
        return self.pull(found.pull)

    def _pulls(
        self,
        pulls: list[PullRequest],
        states: list[str] | None = None,
        headRefName: str | None = None,
        baseRefName: str | None = None,
        **page: Any,
    ) -> Fields:
        found = [
            pull
            for pull in pulls
            if (states is None or pull_state(pull) in states)
            and headRefName in (None, pull.head_ref)
            and baseRefName in (None, pull.base_ref)
        ]
        return connection(found, self.pull, **page)

    # Git

    def _ref(self, stored: Repository, name: str) -> Fields | None:
        names = [name] if name.startswith("refs/") else [f"refs/heads/{name}", f"refs/tags/{name}"]
        return next((found for each in names if (found := self.ref(stored, each))), None)

    def ref(self, stored: Repository, name: str) -> Fields | None:
        oid = stored.git.ref(name)
        if oid is None:
            return None
        prefix, _, short = name.removeprefix("refs/").partition("/")
        return {
            "__typename": "Ref",
            "id": f"REF_{base64.urlsafe_b64encode(name.encode()).decode()}",
            "name": short,
            "prefix": f"refs/{prefix}/",
            "repository": lambda _: self.repository(stored),
            "target": lambda _: self.git_object(stored, oid),
        }

    def _object(self, stored: Repository, expression: str | None, oid: str | None) -> Fields | None:
        if oid is not None:
            return self.git_object(stored, oid)
        revision, colon, path = (expression or "").partition(":")
        commit = stored.git.resolve(revision)
        if commit is None:
            return None
        if not colon:
            return self.git_object(stored, commit)
        entry = stored.git.entry_at(stored.git.commit(commit).tree, path) if not path or valid_path(path) else None
        return None if entry is None else self.git_object(stored, entry.oid)

    def git_object(self, stored: Repository, oid: str) -> Fields | None:
        require(self.actor, stored, Role.READ, ("contents:read",))
        match stored.git.type_of(oid):
            case "commit":
                return self.commit(stored, stored.git.commit(oid))
            case "tree":
                return self._tree(stored, oid)
            case "blob":
                return self._blob(stored, oid)
            case _:
                return None

    def _git_object(self, stored: Repository, kind: str, oid: str) -> Fields:
        return {
            "__typename": kind,
            "id": f"{kind[0]}_{oid}",
            "oid": oid,
            "abbreviatedOid": oid[:7],
            "commitUrl": f"{repositories.page(self.forge, stored)}/commit/{oid}",
            "repository": lambda _: self.repository(stored),
        }

    def _tree(self, stored: Repository, oid: str) -> Fields:
        def entries(_: Any) -> list[Fields]:
            return [self._entry(stored, name, name, *each) for name, each in stored.git.tree(oid).items()]

        return self._git_object(stored, "Tree", oid) | {"entries": entries}

    def _entry(self, stored: Repository, name: str, path: str, mode: str, kind: str, oid: str) -> Fields:
        shape: Fields = {"__typename": "TreeEntry", "name": name, "path": path, "mode": int(mode, 8)}
        return shape | {"type": kind, "oid": oid, "object": lambda _: self.git_object(stored, oid)}

    def _blob(self, stored: Repository, oid: str) -> Fields:
        content = stored.git.blob(oid) or b""
        binary = b"\0" in content[:8000]
        return self._git_object(stored, "Blob", oid) | {
            "byteSize": len(content),
            "isBinary": binary,
            "isTruncated": False,
            "text": None if binary else content.decode(errors="replace"),
        }

    def commit(self, stored: Repository, found: Commit) -> Fields:
        headline, _, body = found.message.partition("\n")
        url = f"{repositories.page(self.forge, stored)}/commit/{found.oid}"
        files: Callable[[], Any] = lambda: self.forge.commit_diff(stored, found)  # noqa: E731
        verified = found.oid in stored.verified_commits
        signature = {"__typename": "GpgSignature", "email": found.committer.email, "isValid": True, "state": "VALID"}
        return self._git_object(stored, "Commit", found.oid) | {
            "message": found.message,
            "messageHeadline": headline,
            "messageBody": body.strip("\n"),
            "url": url,
            "committedDate": stamp(found.committer.when),
            "author": self._git_actor(found.author),
            "committer": self._git_actor(found.committer),
            "additions": lambda _: sum(file.additions for file in files()),
            "deletions": lambda _: sum(file.deletions for file in files()),
            "changedFilesIfAvailable": lambda _: len(files()),
            "signature": signature | {"wasSignedByGitHub": True} if verified else None,
            "tree": lambda _: self._tree(stored, found.tree),
            "file": lambda _, path: self._file(stored, found, path),
        }

    def _file(self, stored: Repository, found: Commit, path: str) -> Fields | None:
        entry = stored.git.entry_at(found.tree, path) if valid_path(path) else None
        return None if entry is None else self._entry(stored, path.rpartition("/")[2], path, *entry)

    def _git_actor(self, person: Identity) -> Fields:
        user = self.forge.user_by_email(person.email)
        shown = self.account(user) if user is not None and user.type is AccountType.USER else None
        return {"name": person.name, "email": person.email, "date": stamp(person.when), "user": shown}

    # Conversations

    def _conversation(self, stored: Issue) -> Fields:
        return {
            "databaseId": stored.pull.id if stored.pull else stored.id,
            "number": stored.number,
            "title": stored.title,
            "body": stored.body or "",
            "closed": stored.state == "closed",
            "createdAt": stamp(stored.created_at),
            "url": conversations.html_url(self.forge, stored),
            "author": self.account(stored.user),
            "repository": lambda _: self.repository(stored.repository),
            "comments": lambda _, **page: connection(stored.comments, self.issue_comment, **page),
        }

    def issue(self, stored: Issue) -> Fields:
        return self._conversation(stored) | {
            "__typename": "Issue",
            "id": stored.node_id,
            "state": stored.state.upper(),
        }

    def pull(self, stored: PullRequest) -> Fields:
        files: Callable[[], Any] = lambda: self.forge.pull_files(stored)  # noqa: E731
        mergeable = {True: "MERGEABLE", False: "CONFLICTING", None: "UNKNOWN"}
        threads = [comment for comment in stored.review_comments if comment.in_reply_to is None]
        return self._conversation(stored.issue) | {
            "__typename": "PullRequest",
            "id": stored.node_id,
            "state": pull_state(stored),
            "isDraft": stored.draft,
            "merged": stored.merged_at is not None,
            "mergeable": lambda _: mergeable[self.forge.mergeable(stored)],
            "headRefName": stored.head_ref,
            "headRefOid": stored.head_sha,
            "headRepository": lambda _: self.repository(stored.head_repository),
            "baseRefName": stored.base_ref,
            "baseRefOid": stored.base_sha,
            "additions": lambda _: sum(file.additions for file in files()),
            "deletions": lambda _: sum(file.deletions for file in files()),
            "changedFiles": lambda _: len(files()),
            "reviews": lambda _, **page: connection(stored.reviews, self.review, **page),
            "reviewThreads": lambda _, **page: connection(threads, self.thread, **page),
        }

    def issue_comment(self, stored: IssueComment) -> Fields:
        return self._minimizable(stored) | {
            "__typename": "IssueComment",
            "body": stored.body,
            "createdAt": stamp(stored.created_at),
            "updatedAt": stamp(stored.updated_at),
            "url": f"{conversations.html_url(self.forge, stored.issue)}#issuecomment-{stored.id}",
        }

    def review_comment(self, stored: ReviewComment) -> Fields:
        return self._minimizable(stored) | {
            "__typename": "PullRequestReviewComment",
            "body": stored.body,
            "path": stored.path,
            "line": stored.line,
            "outdated": stored.outdated,
            "url": f"{conversations.html_url(self.forge, stored.pull.issue)}#discussion_r{stored.id}",
        }

    def review(self, stored: Review) -> Fields:
        return self._minimizable(stored) | {
            "__typename": "PullRequestReview",
            "body": stored.body,
            "state": stored.state,
            "submittedAt": stamp(stored.submitted_at) if stored.submitted_at else None,
            "url": f"{conversations.html_url(self.forge, stored.pull.issue)}#pullrequestreview-{stored.id}",
        }

    def _minimizable(self, stored: IssueComment | ReviewComment | Review) -> Fields:
        return {
            "id": stored.node_id,
            # GraphQL's Int has 32 bits: GitHub answers null for the larger ids, which have a field of their own.
            "databaseId": stored.id if stored.id < 2**31 else None,
            "author": self.account(stored.user),
            "isMinimized": stored.minimized_reason is not None,
            "minimizedReason": stored.minimized_reason,
            "viewerCanMinimize": True,
            "userContentEdits": lambda _, **page: self._edits(stored, **page),
        }

    def _edits(self, stored: IssueComment | ReviewComment | Review, **page: Any) -> Fields | None:
        """Null for a text that never changed; else the writing of it stands first among the edits, as on GitHub."""
        editors = [] if isinstance(stored, Review) else stored.editors
        if not editors or isinstance(stored, Review):
            return None
        edits = [(n, editor) for n, editor in enumerate([stored.user, *editors])]

        def shape(edit: tuple[int, User]) -> Fields:
            n, editor = edit
            at = stored.updated_at if n else stored.created_at
            return {
                "__typename": "UserContentEdit",
                "id": f"UCE_{stored.id}_{n}",
                "editedAt": stamp(at),
                "editor": self.account(editor),
            }

        return connection(edits, shape, **page)

    def thread(self, top: ReviewComment) -> Fields:
        replies = [comment for comment in top.pull.review_comments if comment.in_reply_to is top]
        return {
            "__typename": "PullRequestReviewThread",
            "id": thread_id(top),
            "path": top.path,
            "line": top.line,
            "startLine": top.start_line,
            "diffSide": top.side,
            "isResolved": top.resolved,
            "isOutdated": top.outdated,
            "viewerCanResolve": not top.resolved,
            "comments": lambda _, **page: connection([top, *replies], self.review_comment, **page),
        }


def thread_id(top: ReviewComment) -> str:
    return node_id("PRRT", top.id)


def pull_state(pull: PullRequest) -> str:
    return "MERGED" if pull.merged_at else pull.issue.state.upper()


def repository_of(stored: Any) -> Repository | None:
    """The repository that an object with a global id belongs to; None for accounts."""
    match stored:
        case Repository():
            return stored
        case Issue() | PullRequest():
            return stored.repository
        case IssueComment():
            return stored.issue.repository
        case ReviewComment() | Review():
            return stored.pull.repository
        case _:
            return None


def connection(
    items: Sequence[Any],
    shape: Callable[[Any], Fields],
    first: int | None = None,
    last: int | None = None,
    after: str | None = None,
    before: str | None = None,
) -> Fields:
    """One page of a list, with cursors. Raises: ApiError 422 without `first` or `last`, as GitHub demands."""
    if first is None and last is None:
        raise ApiError(422, "You must provide a `first` or `last` value to properly paginate the connection.")
    if not 1 <= (first or last or 0) <= 100:
        raise ApiError(422, "`first` and `last` must lie between 1 and 100.")
    start, end = (_index(after) + 1 if after else 0), (_index(before) if before else len(items))
    if first is not None:
        end = min(end, start + first)
    else:
        start = max(start, end - (last or 0))
    shown = items[start:end]
    info = {
        "hasNextPage": end < len(items),
        "hasPreviousPage": start > 0,
        "startCursor": _cursor(start) if shown else None,
        "endCursor": _cursor(end - 1) if shown else None,
    }
    return {"totalCount": len(items), "nodes": [shape(each) for each in shown], "pageInfo": info}


def _cursor(index: int) -> str:
    return base64.b64encode(f"cursor:{index}".encode()).decode()


def _index(cursor: str) -> int:
    try:
        return int(base64.b64decode(cursor).decode().removeprefix("cursor:"))
    except ValueError:
        raise ApiError(422, f"`{cursor}` does not appear to be a valid cursor.") from None
