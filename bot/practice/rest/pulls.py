"""Pull requests: open, read, list, edit, files, commits, merge."""

from __future__ import annotations

from .. import issues, merges, pulls
from ..model import ACTIONS_SLUG, PullRequest, Role
from ..permissions import role_of
from ..replies import ApiError, Reply, invalid
from ..routing import Call, Routes
from ..shapes import accounts
from ..shapes import pulls as shapes
from ..shapes import repositories as repository_shapes

routes = Routes()
READ = ("pull_requests:read",)
WRITE = ("pull_requests:write",)
MAX_FILES = 3_000
MAX_COMMITS = 250


@routes.get("/repos/{owner}/{repo}/pulls", needs=READ)
def list_pulls(call: Call) -> Reply:
    state, head, base = call.query.get("state", "open"), call.query.get("head"), call.query.get("base")
    found = [
        pull
        for pull in call.repository.pulls
        if state in ("all", pull.issue.state)
        and (base is None or pull.base_ref == base)
        and (not head or head.lower() == f"{pull.head_repository.owner.login}:{pull.head_ref}".lower())
    ]
    if call.query.get("sort") == "updated":
        found.sort(key=lambda pull: pull.issue.updated_at)
    ascending = call.query.get("direction", "desc" if call.query.get("sort", "created") == "created" else "asc")
    if ascending == "desc":
        found.reverse()
    return Reply(body=[shapes.pull_simple(call.forge, each) for each in call.page(found)])


@routes.post("/repos/{owner}/{repo}/pulls", needs=WRITE, role=Role.READ)
def create_pull(call: Call) -> Reply:
    head, base = call.required_text("head"), call.required_text("base")
    pulls.require_head_push(call.actor, call.repository, head)
    app = call.actor.via_app
    if app is not None and app.slug == ACTIONS_SLUG and not call.repository.actions_may_open_pulls:
        raise ApiError(403, "GitHub Actions is not permitted to create or approve pull requests.")
    if call.value("title", str) is None:
        raise ApiError(422, 'Invalid request.\n\n"title" wasn\'t supplied.')
    pull = pulls.open_pull(
        call.forge,
        call.actor,
        call.repository,
        title=call.required_text("title"),
        body=call.text("body"),
        head=head,
        base=base,
        draft=bool(call.value("draft", bool, False)),
        maintainer_can_modify=bool(call.value("maintainer_can_modify", bool, False)),
    )
    shape = shapes.pull(call.forge, pull)
    return Reply(201, shape, headers={"location": shape["url"]})


@routes.get("/repos/{owner}/{repo}/pulls/{number}", needs=READ)
def get_pull(call: Call) -> Reply:
    pull = call.pull()
    for style in ("diff", "patch"):
        if style in call.accept:
            text = call.repository.git.patch_text(call.forge.pull_base(pull), pull.head_sha, style)
            return Reply(body=text, media_type=f"application/vnd.github.{style}; charset=utf-8")
    return Reply(body=shapes.pull(call.forge, pull))


@routes.patch("/repos/{owner}/{repo}/pulls/{number}", needs=WRITE, role=Role.READ)
def update_pull(call: Call) -> Reply:
    """A `draft` here is ignored, as on GitHub: drafts change through GraphQL only."""
    pull = call.pull()
    call.require(Role.READ if call.actor.user is pull.issue.user else Role.WRITE, *WRITE)
    state = call.text("state")
    if state not in (None, "open", "closed"):
        raise invalid("PullRequest", "state", "invalid", value=state)
    issues.edit_issue(call.forge, call.actor, pull.issue, call.value("title", str), call.text("body"))
    if base := call.text("base"):
        _change_base(call, pull, base)
    if state == "closed":
        issues.close_issue(call.forge, call.actor, pull.issue)
    elif state == "open":
        pulls.reopen(call.forge, call.actor, pull)
    return Reply(body=shapes.pull(call.forge, pull))


def _change_base(call: Call, pull: PullRequest, base: str) -> None:
    tip = call.repository.git.branch(base)
    if tip is None:
        raise invalid("PullRequest", "base", "invalid")
    if base == pull.base_ref:
        return
    changes = {"base": {"ref": {"from": pull.base_ref}, "sha": {"from": pull.base_sha}}}
    pull.base_ref, pull.base_sha = base, tip
    issues.emit_pull(call.forge, call.actor, pull, "edited", {"changes": changes})


@routes.get("/repos/{owner}/{repo}/pulls/{number}/files", needs=READ)
def list_files(call: Call) -> Reply:
    pull = call.pull()
    files = call.page(call.forge.pull_files(pull)[:MAX_FILES])
    return Reply(
        body=[repository_shapes.diff_entry(call.forge, call.repository, each, pull.head_sha) for each in files]
    )


@routes.get("/repos/{owner}/{repo}/pulls/{number}/commits", needs=READ)
def list_commits(call: Call) -> Reply:
    commits = call.page(call.forge.pull_commits(call.pull())[:MAX_COMMITS])
    return Reply(body=[repository_shapes.commit(call.forge, call.repository, each) for each in commits])


@routes.get("/repos/{owner}/{repo}/pulls/{number}/merge", needs=READ)
def is_merged(call: Call) -> Reply:
    return Reply(204 if call.pull().merged_at else 404)


@routes.put("/repos/{owner}/{repo}/pulls/{number}/merge", needs=("contents:write",))
def merge_pull(call: Call) -> Reply:
    oid = merges.merge(
        call.forge,
        call.actor,
        call.pull(),
        call.text("merge_method", "merge") or "merge",
        call.text("commit_title"),
        call.text("commit_message"),
        call.text("sha"),
    )
    return Reply(body={"sha": oid, "merged": True, "message": "Pull Request successfully merged"})


@routes.put("/repos/{owner}/{repo}/pulls/{number}/update-branch", needs=WRITE)
def update_branch(call: Call) -> Reply:
    merges.update_branch(call.forge, call.actor, call.pull(), call.text("expected_head_sha"))
    return Reply(202, {"message": "Updating pull request branch.", "url": call.url.removesuffix("/update-branch")})


@routes.post("/repos/{owner}/{repo}/pulls/{number}/requested_reviewers", needs=WRITE)
def request_reviewers(call: Call) -> Reply:
    pull = call.pull()
    for login in call.texts("reviewers") or []:
        user = call.forge.find_user(login)
        if user is None or not role_of(call.repository, user).includes(Role.READ):
            raise ApiError(
                422,
                "Reviews may only be requested from collaborators. One or more of the users or teams "
                "you specified is not a collaborator of the repository.",
            )
        if user is pull.issue.user:
            raise ApiError(422, "Review cannot be requested from pull request author.")
        if user not in pull.requested_reviewers:
            pull.requested_reviewers.append(user)
            reviewer = {"requested_reviewer": accounts.user(call.forge, user)}
            issues.emit_pull(call.forge, call.actor, pull, "review_requested", reviewer)
    return Reply(201, shapes.pull_simple(call.forge, pull))
