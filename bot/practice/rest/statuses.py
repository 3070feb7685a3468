"""Commit statuses, single and combined."""

from __future__ import annotations

from ..model import CommitStatus
from ..replies import ApiError, Reply, invalid
from ..routing import Call, Routes
from ..shapes import checks as shapes
from ..shapes import repositories as repository_shapes
from ..shapes.accounts import stamp
from .checks import resolved_sha

routes = Routes()
STATES = ("error", "failure", "pending", "success")
MAX_DESCRIPTION = 140
MAX_PER_CONTEXT = 1_000


@routes.post("/repos/{owner}/{repo}/statuses/{sha}", needs=("statuses:write",))
def create_status(call: Call) -> Reply:
    sha, state = call.params["sha"], call.required_text("state")
    context, description = call.text("context", "default") or "default", call.text("description")
    if call.repository.git.type_of(sha) != "commit":
        raise ApiError(422, f"No commit found for SHA: {sha}")
    if state not in STATES:
        raise invalid("Status", "state", "invalid", value=state)
    if description is not None and len(description) > MAX_DESCRIPTION:
        raise invalid("Status", "description", "custom", "description is too long (maximum is 140 characters)")
    mine = [each for each in call.repository.statuses if each.sha == sha and each.context == context]
    if len(mine) >= MAX_PER_CONTEXT:
        raise ApiError(422, "This SHA and context has reached the maximum number of statuses.")
    status = CommitStatus(
        call.forge.next_id("check"),
        sha,
        state,
        context,
        description,
        call.text("target_url"),
        call.actor.account,
        call.forge.clock(),
    )
    call.repository.statuses.append(status)
    payload = {
        "id": status.id,
        "sha": sha,
        "name": call.repository.full_name,
        "target_url": status.target_url,
        "avatar_url": f"{call.forge.base_url}/avatars/{status.creator.id}",
        "context": context,
        "description": description,
        "state": state,
        "commit": repository_shapes.commit(call.forge, call.repository, call.repository.git.commit(sha)),
        "branches": [],
        "created_at": stamp(status.created_at),
        "updated_at": stamp(status.created_at),
    }
    call.forge.emit(call.repository, "status", None, call.actor.account, lambda: payload)
    return Reply(201, shapes.commit_status(call.forge, call.repository, status))


@routes.get("/repos/{owner}/{repo}/commits/{ref:path}/statuses", needs=("statuses:read",))
def list_statuses(call: Call) -> Reply:
    sha = resolved_sha(call)
    found = [each for each in reversed(call.repository.statuses) if each.sha == sha]
    return Reply(body=[shapes.commit_status(call.forge, call.repository, each) for each in call.page(found)])


@routes.get("/repos/{owner}/{repo}/commits/{ref:path}/status", needs=("statuses:read",))
def combined_status(call: Call) -> Reply:
    sha = resolved_sha(call)
    latest = {each.context: each for each in call.repository.statuses if each.sha == sha}
    states = {each.state for each in latest.values()}
    state = "failure" if states & {"error", "failure"} else "success" if states == {"success"} else "pending"
    url = f"{repository_shapes.api(call.forge, call.repository)}/commits/{sha}"
    body = {
        "state": state,
        "sha": sha,
        "total_count": len(latest),
        "statuses": [shapes.commit_status(call.forge, call.repository, each) for each in call.page(latest.values())],
        "repository": repository_shapes.repository(call.forge, call.repository),
        "commit_url": url,
        "url": f"{url}/status",
    }
    return Reply(body=body)
