"""Repositories, commits, refs, trees, files and comparisons as JSON."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ..auth import Actor
from ..diffs import FileDiff
from ..git_store import Commit, Identity, TreeEntry
from ..model import AccountType, Repository, Role
from ..permissions import grants, role_of
from .accounts import stamp, user, user_or_none

if TYPE_CHECKING:
    from ..forge import Forge

Json = dict[str, Any]
_TEMPLATES = {
    "archive_url": "/{archive_format}{/ref}",
    "assignees_url": "/assignees{/user}",
    "blobs_url": "/git/blobs{/sha}",
    "branches_url": "/branches{/branch}",
    "collaborators_url": "/collaborators{/collaborator}",
    "comments_url": "/comments{/number}",
    "commits_url": "/commits{/sha}",
    "compare_url": "/compare/{base}...{head}",
    "contents_url": "/contents/{+path}",
    "contributors_url": "/contributors",
    "deployments_url": "/deployments",
    "downloads_url": "/downloads",
    "events_url": "/events",
    "forks_url": "/forks",
    "git_commits_url": "/git/commits{/sha}",
    "git_refs_url": "/git/refs{/sha}",
    "git_tags_url": "/git/tags{/sha}",
    "hooks_url": "/hooks",
    "issue_comment_url": "/issues/comments{/number}",
    "issue_events_url": "/issues/events{/number}",
    "issues_url": "/issues{/number}",
    "keys_url": "/keys{/key_id}",
    "labels_url": "/labels{/name}",
    "languages_url": "/languages",
    "merges_url": "/merges",
    "milestones_url": "/milestones{/number}",
    "notifications_url": "/notifications{?since,all,participating}",
    "pulls_url": "/pulls{/number}",
    "releases_url": "/releases{/id}",
    "stargazers_url": "/stargazers",
    "statuses_url": "/statuses/{sha}",
    "subscribers_url": "/subscribers",
    "subscription_url": "/subscription",
    "tags_url": "/tags",
    "teams_url": "/teams",
    "trees_url": "/git/trees{/sha}",
}


def api(forge: Forge, repository: Repository) -> str:
    return f"{forge.api_url}/repos/{repository.full_name}"


def page(forge: Forge, repository: Repository) -> str:
    return f"{forge.base_url}/{repository.full_name}"


def repository(forge: Forge, stored: Repository, actor: Actor | None = None) -> Json:
    url, html = api(forge, stored), page(forge, stored)
    open_issues = sum(issue.state == "open" for issue in stored.issues.values())
    shape: Json = {
        "id": stored.id,
        "node_id": stored.node_id,
        "name": stored.name,
        "full_name": stored.full_name,
        "private": stored.private,
        "owner": user(forge, stored.owner),
        "html_url": html,
        "description": stored.description,
        "fork": stored.fork_of is not None,
        "url": url,
        "created_at": stamp(stored.created_at),
        "updated_at": stamp(stored.updated_at),
        "pushed_at": stamp(stored.pushed_at),
        "git_url": f"{html.replace('http://', 'git://', 1)}.git",
        "ssh_url": f"git@localhost:{stored.full_name}.git",
        "clone_url": f"{html}.git",
        "svn_url": html,
        "mirror_url": None,
        "homepage": None,
        "language": None,
        "license": None,
        "size": 0,
        "stargazers_count": 0,
        "watchers_count": 0,
        "watchers": 0,
        "forks_count": 0,
        "forks": 0,
        "open_issues_count": open_issues,
        "open_issues": open_issues,
        "has_issues": True,
        "has_projects": False,
        "has_downloads": False,
        "has_wiki": False,
        "has_pages": False,
        "has_discussions": False,
        "has_pull_requests": True,
        "pull_request_creation_policy": "all",
        "archived": stored.archived,
        "disabled": False,
        "allow_forking": True,
        "is_template": False,
        "web_commit_signoff_required": False,
        "topics": [],
        "visibility": "private" if stored.private else "public",
        "default_branch": stored.default_branch,
        "custom_properties": {},
    }
    shape |= {name: url + template for name, template in _TEMPLATES.items()}
    if actor is not None:
        shape["permissions"] = _permissions(stored, actor)
    return shape


def full_repository(forge: Forge, stored: Repository, actor: Actor) -> Json:
    shape = repository(forge, stored, actor) | {
        "temp_clone_token": None,
        "allow_squash_merge": True,
        "allow_merge_commit": True,
        "allow_rebase_merge": False,
        "allow_auto_merge": False,
        "delete_branch_on_merge": False,
        "allow_update_branch": False,
        "network_count": 0,
        "subscribers_count": 0,
    }
    if stored.owner.type is AccountType.ORGANIZATION:
        shape["organization"] = user(forge, stored.owner)
    if stored.fork_of is not None:
        shape["parent"] = shape["source"] = repository(forge, stored.fork_of)
    return shape


def _permissions(stored: Repository, actor: Actor) -> dict[str, bool]:
    if actor.is_installation:
        push = grants(actor, stored, ("contents:write",))
        return {"admin": False, "maintain": False, "push": push, "triage": push, "pull": True}
    role = role_of(stored, actor.user)
    steps = {"admin": Role.ADMIN, "maintain": Role.MAINTAIN, "push": Role.WRITE, "triage": Role.TRIAGE}
    return {name: role.includes(step) for name, step in steps.items()} | {"pull": role.includes(Role.READ)}


def verification(stored: Repository, oid: str) -> Json:
    verified = oid in stored.verified_commits
    return {
        "verified": verified,
        "reason": "valid" if verified else "unsigned",
        "signature": None,
        "payload": None,
        "verified_at": None,
    }


def git_person(person: Identity) -> Json:
    return {"name": person.name, "email": person.email, "date": stamp(person.when)}


def git_commit(forge: Forge, stored: Repository, commit: Commit) -> Json:
    url, html = api(forge, stored), page(forge, stored)
    return {
        "sha": commit.oid,
        "node_id": f"C_{commit.oid}",
        "url": f"{url}/git/commits/{commit.oid}",
        "html_url": f"{html}/commit/{commit.oid}",
        "author": git_person(commit.author),
        "committer": git_person(commit.committer),
        "tree": {"sha": commit.tree, "url": f"{url}/git/trees/{commit.tree}"},
        "message": commit.message,
        "parents": _parents(forge, stored, commit, "/git/commits/"),
        "verification": verification(stored, commit.oid),
    }


def commit(forge: Forge, stored: Repository, found: Commit, with_files: bool = False) -> Json:
    url, html = api(forge, stored), page(forge, stored)
    shape: Json = {
        "sha": found.oid,
        "node_id": f"C_{found.oid}",
        "url": f"{url}/commits/{found.oid}",
        "html_url": f"{html}/commit/{found.oid}",
        "comments_url": f"{url}/commits/{found.oid}/comments",
        "commit": {
            "author": git_person(found.author),
            "committer": git_person(found.committer),
            "message": found.message,
            "tree": {"sha": found.tree, "url": f"{url}/git/trees/{found.tree}"},
            "url": f"{url}/git/commits/{found.oid}",
            "comment_count": 0,
            "verification": verification(stored, found.oid),
        },
        "author": user_or_none(forge, forge.user_by_email(found.author.email)),
        "committer": user_or_none(forge, forge.user_by_email(found.committer.email)),
        "parents": _parents(forge, stored, found, "/commits/"),
    }
    if with_files:
        files = forge.commit_diff(stored, found)
        added, removed = sum(f.additions for f in files), sum(f.deletions for f in files)
        shape["stats"] = {"additions": added, "deletions": removed, "total": added + removed}
        shape["files"] = [diff_entry(forge, stored, file, found.oid) for file in files]
    return shape


def _parents(forge: Forge, stored: Repository, found: Commit, folder: str) -> list[Json]:
    url, html = api(forge, stored), page(forge, stored)
    return [{"sha": oid, "url": f"{url}{folder}{oid}", "html_url": f"{html}/commit/{oid}"} for oid in found.parents]


def simple_commit(found: Commit) -> Json:
    """The form inside check suites."""
    return {
        "id": found.oid,
        "tree_id": found.tree,
        "message": found.message,
        "timestamp": stamp(found.committer.when),
        "author": {"name": found.author.name, "email": found.author.email},
        "committer": {"name": found.committer.name, "email": found.committer.email},
    }


def diff_entry(forge: Forge, stored: Repository, file: FileDiff, commit_id: str) -> Json:
    path, html = quote(file.path, safe=""), page(forge, stored)
    shape: Json = {
        "sha": file.old_oid if file.status == "removed" else file.new_oid,
        "filename": file.path,
        "status": file.status,
        "additions": file.additions,
        "deletions": file.deletions,
        "changes": file.additions + file.deletions,
        "blob_url": f"{html}/blob/{commit_id}/{path}",
        "raw_url": f"{html}/raw/{commit_id}/{path}",
        "contents_url": f"{api(forge, stored)}/contents/{path}?ref={commit_id}",
    }
    if file.patch is not None:
        shape["patch"] = file.patch
    if file.previous_path is not None:
        shape["previous_filename"] = file.previous_path
    return shape


def git_ref(forge: Forge, stored: Repository, name: str, oid: str) -> Json:
    kind = stored.git.type_of(oid) or "commit"
    return {
        "ref": name,
        "node_id": f"REF_{base64.urlsafe_b64encode(name.encode()).decode()}",
        "url": f"{api(forge, stored)}/git/{quote(name)}",
        "object": {"sha": oid, "type": kind, "url": f"{api(forge, stored)}/git/{kind}s/{oid}"},
    }


def git_tree(forge: Forge, stored: Repository, oid: str, entries: list[tuple[str, TreeEntry]]) -> Json:
    listed = []
    for path, entry in entries:
        item: Json = {"path": path, "mode": entry.mode, "type": entry.type, "sha": entry.oid}
        if entry.type == "blob":
            item["size"] = stored.git.size_of(entry.oid)
        if entry.type != "commit":
            item["url"] = f"{api(forge, stored)}/git/{entry.type}s/{entry.oid}"
        listed.append(item)
    return {"sha": oid, "url": f"{api(forge, stored)}/git/trees/{oid}", "tree": listed, "truncated": False}


def content(forge: Forge, stored: Repository, path: str, entry: TreeEntry, ref: str, with_data: bool) -> Json:
    """One entry of the contents API; the file's data only where one file was asked for."""
    quoted, kind = quote(path), {"tree": "dir", "commit": "submodule"}.get(entry.type, "file")
    if entry.mode == "120000" and not with_data:
        kind = "symlink"  # only a folder's listing says so; asked by itself, it is followed
    self_url = f"{api(forge, stored)}/contents/{quoted}?ref={quote(ref)}"
    git_url = f"{api(forge, stored)}/git/{'trees' if kind == 'dir' else 'blobs'}/{entry.oid}"
    html = f"{page(forge, stored)}/{'tree' if kind == 'dir' else 'blob'}/{quote(ref)}/{quoted}"
    shape: Json = {
        "name": path.rpartition("/")[2],
        "path": path,
        "sha": entry.oid,
        "size": stored.git.size_of(entry.oid) if kind == "file" else 0,
        "url": self_url,
        "html_url": html,
        "git_url": git_url,
        "download_url": f"{page(forge, stored)}/raw/{quote(ref)}/{quoted}" if kind == "file" else None,
        "type": kind,
        "_links": {"self": self_url, "git": git_url, "html": html},
    }
    if with_data:
        shape["content"] = base64.encodebytes(stored.git.blob(entry.oid) or b"").decode()
        shape["encoding"] = "base64"
    return shape


def branch(forge: Forge, stored: Repository, name: str, oid: str) -> Json:
    url = f"{api(forge, stored)}/branches/{quote(name)}"
    return {
        "name": name,
        "commit": commit(forge, stored, stored.git.commit(oid)),
        "_links": {"self": url, "html": f"{page(forge, stored)}/tree/{quote(name)}"},
        "protected": False,
        "protection": {
            "enabled": False,
            "required_status_checks": {"enforcement_level": "off", "contexts": [], "checks": []},
        },
        "protection_url": f"{url}/protection",
    }
