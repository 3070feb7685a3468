"""Repositories themselves, and forks of them."""

from __future__ import annotations

from .. import forks
from ..model import Role
from ..permissions import can_see
from ..replies import ApiError, Reply, not_found
from ..routing import Call, Routes
from ..shapes import repositories as shapes

routes = Routes()


@routes.get("/user/repos")
def list_own_repositories(call: Call) -> Reply:
    if call.actor.user is None or call.actor.is_installation:
        raise ApiError(401, "Requires authentication")
    user = call.actor.user
    mine = [r for r in call.forge.repositories.values() if r.owner is user or user.id in r.collaborators]
    return Reply(body=[shapes.repository(call.forge, each, call.actor) for each in call.page(mine)])


@routes.get("/users/{login}/repos")
def list_repositories_of(call: Call) -> Reply:
    user = call.forge.find_user(call.params["login"])
    if user is None:
        raise not_found()
    theirs = [r for r in call.forge.repositories.values() if r.owner is user and can_see(call.actor, r)]
    return Reply(body=[shapes.repository(call.forge, each, call.actor) for each in call.page(theirs)])


@routes.get("/repos/{owner}/{repo}", needs=("metadata:read",))
def get_repository(call: Call) -> Reply:
    return Reply(body=shapes.full_repository(call.forge, call.repository, call.actor))


@routes.post("/repos/{owner}/{repo}/forks", needs=("administration:write",), role=Role.READ)
def create_fork(call: Call) -> Reply:
    fork = forks.create(call.forge, call.actor.account, call.repository)
    return Reply(202, shapes.full_repository(call.forge, fork, call.actor))
