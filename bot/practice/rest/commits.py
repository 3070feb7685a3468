"""Commits, branches and comparisons."""

from __future__ import annotations

from ..git_store import EMPTY_TREE, Commit
from ..model import Repository
from ..permissions import can_see
from ..replies import ApiError, Reply, not_found
from ..routing import Call, Routes
from ..shapes import pulls as pull_shapes
from ..shapes import repositories as shapes

routes = Routes()
READ = ("contents:read",)
MAX_COMPARED_COMMITS = 250
MAX_COMPARED_FILES = 300


@routes.get("/repos/{owner}/{repo}/branches", needs=READ)
def list_branches(call: Call) -> Reply:
    url = shapes.api(call.forge, call.repository)
    refs = call.page(call.repository.git.refs("refs/heads/").items())
    body = [
        {
            "name": name.removeprefix("refs/heads/"),
            "commit": {"sha": oid, "url": f"{url}/commits/{oid}"},
            "protected": False,
        }
        for name, oid in refs
    ]
    return Reply(body=body)


@routes.get("/repos/{owner}/{repo}/branches/{branch:path}", needs=READ)
def get_branch(call: Call) -> Reply:
    oid = call.repository.git.branch(call.params["branch"])
    if oid is None:
        raise ApiError(404, "Branch not found")
    return Reply(body=shapes.branch(call.forge, call.repository, call.params["branch"], oid))


@routes.get("/repos/{owner}/{repo}/commits", needs=READ)
def list_commits(call: Call) -> Reply:
    git = call.repository.git
    asked = call.query.get("sha") or call.repository.default_branch
    tip = git.resolve(asked)
    if tip is None:
        raise ApiError(409, "Git Repository is empty.") if not git.refs("refs/heads/") else not_found()
    oids = git.first_commits(tip, 10_000, path=call.query.get("path") or None)
    listed = [shapes.commit(call.forge, call.repository, git.commit(oid)) for oid in call.page(oids)]
    return Reply(body=listed)


@routes.get("/repos/{owner}/{repo}/commits/{sha}/pulls", needs=("pull_requests:read",))
def pulls_with_commit(call: Call) -> Reply:
    found = [
        pull
        for pull in call.repository.pulls
        if any(commit.oid == call.params["sha"] for commit in call.forge.pull_commits(pull))
        or pull.merge_commit_sha == call.params["sha"]
    ]
    return Reply(body=[pull_shapes.pull_simple(call.forge, each) for each in call.page(found)])


@routes.get("/repos/{owner}/{repo}/commits/{ref:path}", needs=READ)
def get_commit(call: Call) -> Reply:
    oid = call.repository.git.resolve(call.params["ref"])
    if oid is None:
        raise ApiError(422, f"No commit found for SHA: {call.params['ref']}")
    commit = call.repository.git.commit(oid)
    if "application/vnd.github.sha" in call.accept:
        return Reply(body=oid.encode(), media_type="application/vnd.github.sha; charset=utf-8")
    for style in ("diff", "patch"):
        if f"github.{style}" in call.accept or f"github.v3.{style}" in call.accept:
            parent = commit.parents[0] if commit.parents else EMPTY_TREE
            text = call.repository.git.patch_text(parent, oid, style)
            return Reply(body=text, media_type=f"application/vnd.github.{style}; charset=utf-8")
    return Reply(body=shapes.commit(call.forge, call.repository, commit, with_files=True))


def _compared(call: Call, text: str) -> tuple[Repository, str]:
    owner, _, name = text.rpartition(":")
    repository = call.repository
    if owner and owner.lower() != repository.owner.login.lower():
        forks = [r for r in call.forge.repositories.values() if r.fork_of is repository and can_see(call.actor, r)]
        repository = next((r for r in forks if r.owner.login.lower() == owner.lower()), repository)
    oid = repository.git.resolve(name)
    if oid is None:
        raise not_found()
    return repository, oid


@routes.get("/repos/{owner}/{repo}/compare/{basehead:path}", needs=READ)
def compare(call: Call) -> Reply:
    base_text, dots, head_text = call.params["basehead"].partition("...")
    if not dots:
        raise not_found()
    (_, base), (source, head) = _compared(call, base_text), _compared(call, head_text)
    git = call.repository.git
    if source is not call.repository:
        git.fetch(source.git.path, f"{head}:refs/practice/incoming")
    start = git.merge_base(base, head)
    if start is None:
        raise ApiError(404, f"No common ancestor between {base_text} and {head_text}.")
    for style in ("diff", "patch"):
        if f"github.{style}" in call.accept or f"github.v3.{style}" in call.accept:
            text = git.patch_text(start, head, style)
            return Reply(body=text, media_type=f"application/vnd.github.{style}; charset=utf-8")
    return Reply(body=_comparison(call, git.commit(base), git.commit(start), head))


def _comparison(call: Call, base: Commit, start: Commit, head: str) -> dict[str, object]:
    forge, repository, git = call.forge, call.repository, call.repository.git
    ahead, behind = git.commits_between(start.oid, head), git.commits_between(start.oid, base.oid)
    status = {(True, True): "diverged", (True, False): "ahead", (False, True): "behind"}.get(
        (bool(ahead), bool(behind)), "identical"
    )
    html = f"{shapes.page(forge, repository)}/compare/{call.params['basehead']}"
    files = git.diff(start.oid, head)[:MAX_COMPARED_FILES]
    return {
        "url": f"{shapes.api(forge, repository)}/compare/{call.params['basehead']}",
        "html_url": html,
        "permalink_url": f"{shapes.page(forge, repository)}/compare/{base.oid[:7]}...{head[:7]}",
        "diff_url": f"{html}.diff",
        "patch_url": f"{html}.patch",
        "base_commit": shapes.commit(forge, repository, base),
        "merge_base_commit": shapes.commit(forge, repository, start),
        "status": status,
        "ahead_by": len(ahead),
        "behind_by": len(behind),
        "total_commits": len(ahead),
        "commits": [shapes.commit(forge, repository, git.commit(oid)) for oid in ahead[:MAX_COMPARED_COMMITS]],
        "files": [shapes.diff_entry(forge, repository, file, head) for file in files],
    }
