"""Who works in a repository, and what somebody may do in it right now."""

from __future__ import annotations

from typing import Any

from ..model import AccountType, Role, User
from ..permissions import legacy_permission, role_of
from ..replies import ApiError, Reply, not_found
from ..routing import Call, Routes
from ..shapes import accounts, pulls

routes = Routes()
ROLE_NAMES = {"pull": Role.READ, "push": Role.WRITE}


def _permissions(role: Role) -> dict[str, bool]:
    steps = {
        "admin": Role.ADMIN,
        "maintain": Role.MAINTAIN,
        "push": Role.WRITE,
        "triage": Role.TRIAGE,
        "pull": Role.READ,
    }
    return {name: role.includes(step) for name, step in steps.items()}


def _shape(call: Call, user: User) -> dict[str, Any]:
    role = role_of(call.repository, user)
    return pulls.collaborator(call.forge, user, _permissions(role), str(role))


@routes.get("/repos/{owner}/{repo}/collaborators", needs=("metadata:read",))
def list_collaborators(call: Call) -> Reply:
    if not call.actor.is_installation:
        call.require(Role.WRITE)
    people = [call.forge.users[each] for each in call.repository.collaborators]
    if call.repository.owner.type is AccountType.USER:
        people.insert(0, call.repository.owner)
    return Reply(body=[_shape(call, user) for user in call.page(people)])


@routes.get("/repos/{owner}/{repo}/collaborators/{login}/permission", needs=("metadata:read",))
def get_permission(call: Call) -> Reply:
    """Live: a change of role shows in the next answer. Outsiders read what is public."""
    if call.actor.is_installation:
        assert call.actor.token is not None
        if call.repository not in call.actor.token.repositories:
            raise ApiError(403, "Resource not accessible by integration")
    elif call.actor.user is None or not role_of(call.repository, call.actor.user).includes(Role.WRITE):
        raise ApiError(403, "Must have push access to view collaborator permission.")
    user = call.forge.find_user(call.params["login"])
    if user is None:
        raise ApiError(404, f"{call.params['login']} is not a user")
    role = role_of(call.repository, user)
    return Reply(body={"permission": legacy_permission(role), "user": _shape(call, user), "role_name": str(role)})


@routes.get("/repos/{owner}/{repo}/collaborators/{login}", needs=("metadata:read",))
def is_collaborator(call: Call) -> Reply:
    if not call.actor.is_installation:
        call.require(Role.WRITE)
    user = call.forge.find_user(call.params["login"])
    if user is None or (user.id not in call.repository.collaborators and user is not call.repository.owner):
        raise not_found()
    return Reply(204)


@routes.put("/repos/{owner}/{repo}/collaborators/{login}", needs=("administration:write",), role=Role.ADMIN)
def add_collaborator(call: Call) -> Reply:
    """Joins at once: the practice forge sends no invitations."""
    user, word = call.forge.find_user(call.params["login"]), call.text("permission", "push") or "push"
    role = ROLE_NAMES.get(word) or next((each for each in Role if each == word), None)
    if user is None:
        raise not_found()
    if role is None or role is Role.NONE:
        raise ApiError(422, "Validation Failed", [{"resource": "Repository", "field": "permission", "code": "invalid"}])
    call.repository.collaborators[user.id] = role
    return Reply(204)


@routes.delete("/repos/{owner}/{repo}/collaborators/{login}", needs=("administration:write",), role=Role.ADMIN)
def remove_collaborator(call: Call) -> Reply:
    user = call.forge.find_user(call.params["login"])
    if user is not None:
        call.repository.collaborators.pop(user.id, None)
    return Reply(204)


@routes.get("/repos/{owner}/{repo}/assignees", needs=("issues:read", "metadata:read"))
def list_assignees(call: Call) -> Reply:
    people = [call.forge.users[each] for each in call.repository.collaborators]
    return Reply(body=[accounts.user(call.forge, user) for user in call.page([call.repository.owner, *people])])
