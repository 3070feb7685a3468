"""Files through the contents API: read, write, delete."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from ..commits import StaleBranch, commit_files, valid_path
from ..git_store import Commit, Identity, TreeEntry
from ..replies import ApiError, Reply, not_found
from ..routing import Call, Routes
from ..shapes import repositories as shapes

routes = Routes()
READ = ("contents:read",)
WRITE = ("contents:write",)
_CONTENTS = "/repos/{owner}/{repo}/contents/{path:path}"


@routes.get("/repos/{owner}/{repo}/readme", needs=READ)
def get_readme(call: Call) -> Reply:
    ref, commit = _commit(call)
    for name, entry in call.repository.git.tree(commit.tree).items():
        if name.lower().startswith("readme") and entry.type == "blob":
            return _file(call, name, entry, ref)
    raise not_found()


@routes.get("/repos/{owner}/{repo}/contents", needs=READ)
@routes.get(_CONTENTS, needs=READ)
def get_contents(call: Call) -> Reply:
    path = call.params.get("path", "").strip("/")
    ref, commit = _commit(call)
    entry = call.repository.git.entry_at(commit.tree, path)
    if entry is None:
        raise not_found()
    if entry.type != "tree":
        return _file(call, path, entry, ref)
    prefix = f"{path}/" if path else ""
    listed = [
        shapes.content(call.forge, call.repository, prefix + name, each, ref, with_data=False)
        for name, each in call.repository.git.tree(entry.oid).items()
    ]
    return Reply(body=listed)


def _commit(call: Call) -> tuple[str, Commit]:
    ref = call.query.get("ref") or call.repository.default_branch
    oid = call.repository.git.resolve(ref.removeprefix("refs/heads/"))
    if oid is None:
        if call.query.get("ref"):
            raise ApiError(404, f"No commit found for the ref {ref}")
        raise ApiError(404, "This repository is empty.")
    return ref, call.repository.git.commit(oid)


def _file(call: Call, path: str, entry: TreeEntry, ref: str) -> Reply:
    if ".raw" in call.accept:
        data = call.repository.git.blob(entry.oid) or b""
        return Reply(body=data, media_type="application/vnd.github.raw; charset=utf-8")
    return Reply(body=shapes.content(call.forge, call.repository, path, entry, ref, with_data=True))


def _branch(call: Call) -> tuple[str, str]:
    name = call.text("branch") or call.query.get("branch") or call.repository.default_branch
    tip = call.repository.git.branch(name)
    if tip is None:
        raise ApiError(404, f"Branch {name} not found")
    return name, tip


def _current(call: Call, tip: str) -> tuple[str, TreeEntry | None]:
    path = call.params["path"]
    if not valid_path(path):
        raise ApiError(422, "path contains a malformed path component")
    entry = call.repository.git.entry_at(call.repository.git.commit(tip).tree, path)
    return path, entry


def _expected(call: Call) -> str | None:
    return call.text("sha") or call.query.get("sha")


@routes.put(_CONTENTS, needs=WRITE)
def put_file(call: Call) -> Reply:
    message, content = call.required_text("message"), call.required_text("content")
    try:
        data = base64.b64decode(content, validate=False)
    except (binascii.Error, ValueError):
        raise ApiError(422, "content is not valid Base64") from None
    branch, tip = _branch(call)
    path, entry = _current(call, tip)
    if entry is not None and entry.type == "tree":
        raise ApiError(422, f"{path} is a directory")
    if entry is not None and _expected(call) is None:
        raise ApiError(422, 'Invalid request.\n\n"sha" wasn\'t supplied.')
    if entry is not None and _expected(call) != entry.oid:
        raise ApiError(409, f"{path} does not match {_expected(call)}")
    if entry is None and _expected(call) is not None:
        raise ApiError(409, f"{path} does not match {_expected(call)}")
    commit = _commit_change(call, branch, tip, {path: data}, message)
    written = call.repository.git.entry_at(commit.tree, path)
    assert written is not None
    shape = shapes.content(call.forge, call.repository, path, written, branch, with_data=False)
    body = {"content": shape, "commit": shapes.git_commit(call.forge, call.repository, commit)}
    return Reply(200 if entry is not None else 201, body)


@routes.delete(_CONTENTS, needs=WRITE)
def delete_file(call: Call) -> Reply:
    message = call.text("message") or call.query.get("message")
    if message is None:
        raise ApiError(422, 'Invalid request.\n\n"message" wasn\'t supplied.')
    branch, tip = _branch(call)
    path, entry = _current(call, tip)
    if entry is None:
        raise not_found()
    if _expected(call) is None:
        raise ApiError(422, 'Invalid request.\n\n"sha" wasn\'t supplied.')
    if _expected(call) != entry.oid:
        raise ApiError(409, f"{path} does not match {_expected(call)}")
    commit = _commit_change(call, branch, tip, {path: None}, message)
    return Reply(body={"content": None, "commit": shapes.git_commit(call.forge, call.repository, commit)})


def _commit_change(call: Call, branch: str, tip: str, changes: dict[str, bytes | None], message: str) -> Commit:
    author, committer = _person(call, "author"), _person(call, "committer")
    try:
        return commit_files(
            call.forge, call.actor, call.repository, branch, tip, changes, message, author or committer, committer
        )
    except StaleBranch:
        raise ApiError(409, f"is at {call.repository.git.branch(branch)} but expected {tip}") from None


def _person(call: Call, name: str) -> Identity | None:
    given: dict[str, Any] | None = call.value(name, dict)
    if given is None:
        return None
    if not isinstance(given.get("name"), str) or not isinstance(given.get("email"), str):
        raise ApiError(422, f'Invalid request.\n\n"{name}.name" and "{name}.email" are needed.')
    return Identity(given["name"], given["email"], call.forge.clock())
