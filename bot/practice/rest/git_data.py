"""The Git database: refs, blobs, trees and commits."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import Any

from ..commits import move_ref, valid_path
from ..git_process import GitError
from ..git_store import EMPTY_TREE, Identity, RefConflict, TreeEntry, valid_ref_name
from ..permissions import require_workflows
from ..replies import ApiError, Reply, not_found
from ..routing import Call, Routes
from ..shapes import repositories as shapes

routes = Routes()
READ = ("contents:read",)
WRITE = ("contents:write",)
_GIT = "/repos/{owner}/{repo}/git"
MODES = {"100644": "blob", "100755": "blob", "040000": "tree", "160000": "commit", "120000": "blob"}


@routes.get(_GIT + "/ref/{ref:path}", needs=READ)
def get_ref(call: Call) -> Reply:
    name = f"refs/{call.params['ref']}"
    oid = call.repository.git.ref(name)
    if oid is None:
        raise not_found()
    return Reply(body=shapes.git_ref(call.forge, call.repository, name, oid))


@routes.get(_GIT + "/matching-refs/{ref:path}", needs=READ)
def matching_refs(call: Call) -> Reply:
    refs = call.repository.git.refs(f"refs/{call.params['ref']}")
    # All at once: GitHub describes no pages for this list.
    return Reply(body=[shapes.git_ref(call.forge, call.repository, name, oid) for name, oid in refs.items()])


def _object(call: Call, name: str) -> str:
    sha = call.required_text(name)
    if call.repository.git.type_of(sha) is None:
        raise ApiError(422, "Object does not exist")
    return sha


@routes.post(_GIT + "/refs", needs=WRITE)
def create_ref(call: Call) -> Reply:
    name, git = call.required_text("ref"), call.repository.git
    if not name.startswith("refs/") or name.count("/") < 2 or not valid_ref_name(name):
        raise ApiError(422, f"Reference name must start with 'refs/' and be valid: {name}")
    if name.startswith("refs/pull/"):
        raise ApiError(422, "Reference update failed")
    sha = _object(call, "sha")
    if git.ref(name) is not None:
        raise ApiError(422, "Reference already exists")
    _refuse_workflow_changes(call, git.branch(call.repository.default_branch), sha)
    _move(call, name, sha, None)
    return Reply(201, shapes.git_ref(call.forge, call.repository, name, sha))


def _existing(call: Call) -> tuple[str, str]:
    name = f"refs/{call.params['ref']}"
    old = call.repository.git.ref(name)
    if old is None or name.startswith("refs/pull/"):
        raise ApiError(422, "Reference does not exist")
    return name, old


@routes.patch(_GIT + "/refs/{ref:path}", needs=WRITE)
def update_ref(call: Call) -> Reply:
    name, old = _existing(call)
    sha = _object(call, "sha")
    git = call.repository.git
    if name.startswith("refs/heads/") and git.type_of(sha) != "commit":
        raise ApiError(422, "Object is not a commit")
    if not call.value("force", bool, False) and not git.is_ancestor(old, sha):
        raise ApiError(422, "Update is not a fast forward")
    _refuse_workflow_changes(call, old, sha)
    if sha != old:
        _move(call, name, sha, old)
    return Reply(body=shapes.git_ref(call.forge, call.repository, name, sha))


@routes.delete(_GIT + "/refs/{ref:path}", needs=WRITE)
def delete_ref(call: Call) -> Reply:
    name, old = _existing(call)
    if name == f"refs/heads/{call.repository.default_branch}":
        raise ApiError(422, "Cannot delete the default branch")
    _move(call, name, None, old)
    return Reply(204)


def _move(call: Call, name: str, new: str | None, old: str | None) -> None:
    try:
        move_ref(call.forge, call.actor, call.repository, name, new, old)
    except RefConflict:
        raise ApiError(422, "Reference update failed") from None


def _refuse_workflow_changes(call: Call, old: str | None, new: str) -> None:
    git = call.repository.git
    if call.actor.is_installation and git.type_of(new) == "commit":
        changed = [path for file in git.diff(old or EMPTY_TREE, new) for path in (file.path, file.previous_path or "")]
        require_workflows(call.actor, call.repository, changed)


@routes.post(_GIT + "/blobs", needs=WRITE)
def create_blob(call: Call) -> Reply:
    content, encoding = call.required_text("content"), call.text("encoding", "utf-8")
    try:
        data = base64.b64decode(content, validate=False) if encoding == "base64" else content.encode()
    except (binascii.Error, ValueError):
        raise ApiError(422, "content is not valid Base64") from None
    sha = call.repository.git.write_blob(data)
    return Reply(201, {"sha": sha, "url": f"{shapes.api(call.forge, call.repository)}/git/blobs/{sha}"})


@routes.get(_GIT + "/blobs/{sha}", needs=READ)
def get_blob(call: Call) -> Reply:
    sha = call.params["sha"]
    data = call.repository.git.blob(sha)
    if data is None:
        raise not_found()
    if "raw" in call.accept:
        return Reply(body=data, media_type="application/vnd.github.raw; charset=utf-8")
    return Reply(
        body={
            "sha": sha,
            "node_id": f"B_{sha}",
            "size": len(data),
            "url": f"{shapes.api(call.forge, call.repository)}/git/blobs/{sha}",
            "content": base64.encodebytes(data).decode(),
            "encoding": "base64",
        }
    )


@routes.get(_GIT + "/trees/{sha:path}", needs=READ)
def get_tree(call: Call) -> Reply:
    git, asked = call.repository.git, call.params["sha"]
    oid = asked if git.type_of(asked) == "tree" else None
    if oid is None and (commit := git.resolve(asked)):
        oid = git.commit(commit).tree
    if oid is None:
        raise not_found()
    entries = git.walk(oid) if call.query.get("recursive") else list(git.tree(oid).items())
    return Reply(body=shapes.git_tree(call.forge, call.repository, oid, entries))


@routes.post(_GIT + "/trees", needs=WRITE)
def create_tree(call: Call) -> Reply:
    git, base = call.repository.git, call.text("base_tree")
    if base is not None:
        kind = git.type_of(base)
        base = git.commit(base).tree if kind == "commit" else base if kind == "tree" else None
        if base is None:
            raise ApiError(422, "base_tree is not a valid tree oid")
    changes = dict(_tree_change(call, each) for each in call.value("tree", list) or [])
    if not changes:
        raise ApiError(422, "Invalid tree info")
    oid = git.edit_tree(base or EMPTY_TREE, changes)
    return Reply(201, shapes.git_tree(call.forge, call.repository, oid, list(git.tree(oid).items())))


def _tree_change(call: Call, given: Any) -> tuple[str, TreeEntry | None]:
    if not isinstance(given, dict) or not isinstance(given.get("path"), str) or not valid_path(given["path"]):
        raise ApiError(422, "tree.path contains a malformed path component")
    git, path, mode = call.repository.git, given["path"], given.get("mode", "100644")
    if "sha" in given and given["sha"] is None:
        return path, None
    if mode not in MODES:
        raise ApiError(422, f"Must supply a valid tree.mode: {mode}")
    kind = MODES[mode]
    if isinstance(given.get("content"), str):
        return path, TreeEntry(mode, kind, git.write_blob(given["content"].encode()))
    sha = str(given.get("sha"))
    if kind != "commit" and git.type_of(sha) != kind:
        raise ApiError(422, f"tree.sha {sha} is not a valid {kind}")
    return path, TreeEntry(mode, kind, sha)


@routes.post(_GIT + "/commits", needs=WRITE)
def create_commit(call: Call) -> Reply:
    git, tree, parents = call.repository.git, call.required_text("tree"), call.texts("parents") or []
    if git.type_of(tree) != "tree":
        raise ApiError(422, "Tree SHA does not exist")
    if any(git.type_of(parent) != "commit" for parent in parents):
        raise ApiError(422, "Parent SHA does not exist or is not a commit object")
    author = _identity(call, "author") or call.forge.identity(call.actor.account)
    committer = _identity(call, "committer")
    custom = "author" in call.body or committer is not None
    try:
        oid = git.write_commit(tree, parents, call.required_text("message"), author, committer or author)
    except GitError:
        raise ApiError(422, "The commit is not valid") from None
    if not custom and call.actor.is_installation:
        call.repository.verified_commits.add(oid)  # GitHub signs what a bot commits under its own name
    return Reply(201, shapes.git_commit(call.forge, call.repository, git.commit(oid)))


def _identity(call: Call, name: str) -> Identity | None:
    given = call.value(name, dict)
    if given is None:
        return None
    if not given.get("name") or not given.get("email"):
        raise ApiError(422, f'Invalid request.\n\n"{name}.name" and "{name}.email" are needed.')
    try:
        when = datetime.fromisoformat(given["date"].replace("Z", "+00:00")) if given.get("date") else call.forge.clock()
    except (ValueError, AttributeError):
        raise ApiError(422, f"Invalid request.\n\n{name}.date is not a valid date-time.") from None
    return Identity(str(given["name"]), str(given["email"]), when)


@routes.get(_GIT + "/commits/{sha}", needs=READ)
def get_commit(call: Call) -> Reply:
    git, sha = call.repository.git, call.params["sha"]
    if git.type_of(sha) != "commit":
        raise not_found()
    return Reply(body=shapes.git_commit(call.forge, call.repository, git.commit(sha)))
