"""Who may do what: people by their role in a repository, installations by the permissions granted to the App."""

from __future__ import annotations

from .auth import Actor
from .model import AccountType, Repository, Role, User
from .replies import ApiError, forbidden_to_app, not_found

WORKFLOW_FOLDER = ".github/workflows/"


def role_of(repository: Repository, user: User | None) -> Role:
    """A person's role now. Outsiders may read what is public; bots have no role of their own."""
    if user is not None and user is repository.owner:
        return Role.ADMIN
    if user is not None and user.id in repository.collaborators:
        return repository.collaborators[user.id]
    if repository.private or (user is not None and user.type is AccountType.BOT):
        return Role.NONE
    return Role.READ


def legacy_permission(role: Role) -> str:
    """GitHub's `permission` field knows four words: maintain reads as write, triage as read."""
    return {Role.MAINTAIN: "write", Role.TRIAGE: "read"}.get(role, role).__str__()


def can_see(actor: Actor, repository: Repository) -> bool:
    if not repository.private:
        return True
    if actor.token is not None:
        return repository in actor.token.repositories
    return role_of(repository, actor.user).includes(Role.READ)


def grants(actor: Actor, repository: Repository, needs: tuple[str, ...]) -> bool:
    """Whether an installation token carries one of `needs` ("issues:write") for this repository."""
    if actor.token is None or repository not in actor.token.repositories:
        return False
    for need in needs:
        name, _, level = need.partition(":")
        granted = actor.token.permissions.get(name)
        if granted is not None and (level == "read" or granted in ("write", "admin")):
            return True
    return False


def require(actor: Actor, repository: Repository, role: Role, needs: tuple[str, ...]) -> None:
    """Lets the call through or raises what GitHub answers.

    Public repositories can be read by anybody, an installation without the permission included.
    Raises: ApiError 401, 403 or 404.
    """
    if not can_see(actor, repository):
        raise not_found()
    reading = role is Role.READ and all(need.endswith(":read") for need in needs)
    if actor.is_installation:
        if not grants(actor, repository, needs) and not (reading and not repository.private):
            raise forbidden_to_app()
        return
    if actor.is_app:
        raise ApiError(401, "A JSON web token could not be decoded")
    if reading:
        return
    if actor.user is None:
        raise ApiError(401, "Requires authentication")
    if not role_of(repository, actor.user).includes(role):
        word = {Role.WRITE: "push", Role.TRIAGE: "triage"}.get(role, str(role))
        raise ApiError(403, f"Must have {word} access to this repository.")


def require_workflows(actor: Actor, repository: Repository, paths: list[str]) -> None:
    """Apps may not create or change workflow files without the `workflows` permission. Raises: ApiError 403."""
    touched = next((path for path in paths if path.startswith(WORKFLOW_FOLDER)), None)
    if touched and actor.is_installation and not grants(actor, repository, ("workflows:write",)):
        raise ApiError(403, workflow_refusal(touched))


def workflow_refusal(path: str) -> str:
    return f"refusing to allow a GitHub App to create or update workflow `{path}` without `workflows` permission"
