"""Commits made through the API, and what any moved branch sets off: push events, pull request heads, check suites."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from . import checks, pulls
from .auth import Actor
from .git_store import ZERO, Commit, Identity, RefConflict, TreeEntry
from .model import Repository
from .permissions import require_workflows
from .replies import ApiError
from .shapes import checks as check_shapes
from .shapes import repositories as shapes
from .shapes.accounts import stamp

if TYPE_CHECKING:
    from .forge import Forge

MAX_PUSH_COMMITS = 2048


class StaleBranch(Exception):
    """The branch is not where the caller expected it."""


def valid_path(path: str) -> bool:
    parts = path.split("/")
    return bool(path) and "\0" not in path and not any(part in ("", ".", "..", ".git") for part in parts)


def commit_files(
    forge: Forge,
    actor: Actor,
    repository: Repository,
    branch: str,
    expected: str,
    changes: Mapping[str, bytes | None],
    message: str,
    author: Identity | None = None,
    committer: Identity | None = None,
) -> Commit:
    """One commit on `branch`, which must be at `expected`; None deletes a file. The forge signs what it commits itself.

    Raises: StaleBranch; ApiError 403 for workflow files, 422 for paths that git cannot hold.
    """
    require_workflows(actor, repository, list(changes))
    if bad := next((path for path in changes if not valid_path(path)), None):
        raise ApiError(422, f"path contains a malformed path component: {bad!r}")
    git = repository.git
    base = git.commit(expected)
    written = {path: content for path, content in changes.items() if content is not None}
    entries: dict[str, TreeEntry | None] = dict.fromkeys(changes)
    for path, oid in zip(written, git.write_blobs(list(written.values())), strict=True):
        old = git.entry_at(base.tree, path)
        entries[path] = TreeEntry(old.mode if old is not None and old.type == "blob" else "100644", "blob", oid)
    tree = git.edit_tree(base.tree, entries)
    person = author or forge.identity(actor.account)
    oid = git.write_commit(tree, [expected], message, person, committer or forge.committer())
    try:
        move_ref(forge, actor, repository, f"refs/heads/{branch}", oid, expected)
    except RefConflict:
        raise StaleBranch(branch) from None
    if committer is None:
        repository.verified_commits.add(oid)
    return git.commit(oid)


def move_ref(forge: Forge, actor: Actor, repository: Repository, name: str, new: str | None, old: str | None) -> None:
    """Moves, creates or deletes a ref and announces it. Raises: RefConflict."""
    repository.git.update_ref(name, new, old)
    announce(forge, actor, repository, name, new or ZERO, old or ZERO)


def announce(forge: Forge, actor: Actor, repository: Repository, name: str, new: str, old: str) -> None:
    """Everything that follows from a ref having moved, by the API or by a git push alike."""
    if not name.startswith(("refs/heads/", "refs/tags/")) or new == old:
        return
    repository.pushed_at = repository.updated_at = forge.clock()
    forge.emit(repository, "push", None, actor.account, lambda: push_payload(forge, actor, repository, name, new, old))
    if ZERO in (new, old):
        _announce_creation(forge, actor, repository, name, "create" if old == ZERO else "delete")
    if not name.startswith("refs/heads/"):
        return
    branch = name.removeprefix("refs/heads/")
    pulls.follow_branch(forge, actor, repository, branch, new, old)
    if new != ZERO:
        request_suites(forge, actor, repository, new, branch)


def push_payload(forge: Forge, actor: Actor, repository: Repository, name: str, new: str, old: str) -> dict[str, Any]:
    git, page = repository.git, shapes.page(forge, repository)
    start = old if old != ZERO else git.branch(repository.default_branch)
    pushed = [] if new == ZERO or git.type_of(new) != "commit" else list(git.commits_between(start, new))
    listed = [push_commit(forge, repository, git.commit(oid)) for oid in pushed[:MAX_PUSH_COMMITS]]
    head = listed[-1] if listed else None
    if head is None and new != ZERO and git.type_of(new) == "commit":
        head = push_commit(forge, repository, git.commit(new))
    forced = ZERO not in (new, old) and not git.is_ancestor(old, new)
    span = f"{page}/compare/{old[:12]}...{new[:12]}" if ZERO not in (new, old) else f"{page}/commit/{new[:12]}"
    return {
        "ref": name,
        "before": old,
        "after": new,
        "base_ref": None,
        "created": old == ZERO,
        "deleted": new == ZERO,
        "forced": forced,
        "compare": span,
        "commits": listed,
        "head_commit": head,
        "pusher": {"name": actor.account.login, "email": actor.account.commit_email},
        "repository": _push_repository(forge, repository),
    }


def _push_repository(forge: Forge, repository: Repository) -> dict[str, Any]:
    """The push event still has its repository in an older form: times as numbers, the owner's name, `master_branch`."""
    shape = shapes.repository(forge, repository)
    owner = shape["owner"] | {"name": repository.owner.login, "email": repository.owner.email}
    return shape | {
        "owner": owner,
        "created_at": int(repository.created_at.timestamp()),
        "pushed_at": int(repository.pushed_at.timestamp()),
        "stargazers": 0,
        "master_branch": repository.default_branch,
    }


def push_commit(forge: Forge, repository: Repository, commit: Commit) -> dict[str, Any]:
    """A commit as the push event lists it, with the names of the files it touched."""
    files = forge.commit_diff(repository, commit)
    added = [file.path for file in files if file.status in ("added", "renamed", "copied")]
    removed = [file.path for file in files if file.status == "removed"]
    removed += [file.previous_path for file in files if file.status == "renamed" and file.previous_path]
    return {
        "id": commit.oid,
        "tree_id": commit.tree,
        "distinct": True,
        "message": commit.message,
        "timestamp": stamp(commit.committer.when),
        "url": f"{shapes.page(forge, repository)}/commit/{commit.oid}",
        "author": _push_person(forge, commit.author),
        "committer": _push_person(forge, commit.committer),
        "added": added,
        "removed": removed,
        "modified": [file.path for file in files if file.status in ("modified", "changed")],
    }


def request_suites(forge: Forge, actor: Actor, repository: Repository, sha: str, branch: str | None) -> None:
    """GitHub makes a check suite for each pushed head and each installed App that may write checks."""
    for installation in forge.installations.values():
        app = installation.app
        if repository not in installation.repositories or installation.permissions.get("checks") != "write":
            continue
        suite, new = checks.suite_for(forge, repository, app, sha, branch)
        if new and "check_suite" in app.events:
            payload = {"check_suite": check_shapes.check_suite(forge, suite)}
            forge.emit(repository, "check_suite", "requested", actor.account, payload.copy, only=app)


def _announce_creation(forge: Forge, actor: Actor, repository: Repository, name: str, event: str) -> None:
    kind = "branch" if name.startswith("refs/heads/") else "tag"
    payload: dict[str, Any] = {"ref": name.split("/", 2)[2], "ref_type": kind, "pusher_type": "user"}
    if event == "create":
        payload |= {"master_branch": repository.default_branch, "description": repository.description}
    forge.emit(repository, event, None, actor.account, lambda: payload)


def _push_person(forge: Forge, person: Identity) -> dict[str, Any]:
    user = forge.user_by_email(person.email)
    shape: dict[str, Any] = {"name": person.name, "email": person.email, "date": stamp(person.when)}
    return shape | ({"username": user.login} if user else {})
