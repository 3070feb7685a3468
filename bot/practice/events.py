"""What happened, as the payloads that Apps receive, and which Apps receive them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .model import AccountType, App, Installation, Repository, User
from .node_ids import node_id
from .shapes import accounts, repositories
from .webhooks import Event

if TYPE_CHECKING:
    from .forge import Forge

_PERMISSIONS = {
    "issues": ("issues",),
    "issue_comment": ("issues", "pull_requests"),
    "pull_request": ("pull_requests",),
    "pull_request_review": ("pull_requests",),
    "pull_request_review_comment": ("pull_requests",),
    "check_run": ("checks",),
    "check_suite": ("checks",),
    "push": ("contents",),
    "create": ("contents",),
    "delete": ("contents",),
    "status": ("statuses",),
    "workflow_run": ("actions",),
    "workflow_job": ("actions",),
}


def require_permissions(subscribed: Iterable[str], granted: Mapping[str, str]) -> None:
    """An App may subscribe to an event only with read access to what it is about.

    Raises: ValueError for an event without its permission, or one that the forge never sends.
    """
    for event in subscribed:
        needed = _PERMISSIONS.get(event)
        if needed is None:
            raise ValueError(f"the practice forge sends no {event!r} events: use {', '.join(sorted(_PERMISSIONS))}")
        if not any(name in granted for name in needed):
            raise ValueError(f"to subscribe to {event!r} an App needs the permission {' or '.join(needed)}")


def emit(
    forge: Forge,
    repository: Repository,
    event: str,
    action: str | None,
    sender: User,
    payload: Callable[[], Mapping[str, Any]],
    only: App | None = None,
) -> None:
    """Delivers an event to every App that is installed here and subscribed to it, or to `only` one App.

    The payload is built at once, so that it shows things as they were, and only when somebody will receive it.
    """
    shared: dict[str, Any] | None = None
    for each in forge.installations.values():
        app = each.app
        if repository not in each.repositories or app.webhook_url is None:
            continue
        if (app is not only) if only else (event not in app.events):
            continue
        shared = shared or _shared(forge, repository, action, sender, payload)
        body = shared | {"installation": {"id": each.id, "node_id": node_id("IN", each.id)}}
        encoded = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode(errors="replace")
        forge.webhooks.send(app, Event(event, action, encoded, each.id, repository.id))


def _shared(
    forge: Forge,
    repository: Repository,
    action: str | None,
    sender: User,
    payload: Callable[[], Mapping[str, Any]],
) -> dict[str, Any]:
    shared: dict[str, Any] = {} if action is None else {"action": action}
    shared |= payload()
    shared.setdefault("repository", repositories.repository(forge, repository))
    if repository.owner.type is AccountType.ORGANIZATION:
        shared["organization"] = accounts.organization(forge, repository.owner)
    return shared | {"sender": accounts.user(forge, sender)}


def installation(
    forge: Forge, changed: Installation, event: str, action: str, listed: Mapping[str, list[Repository]]
) -> None:
    """`installation` and `installation_repositories`, which every App receives about itself."""
    body: dict[str, Any] = {"action": action, "installation": accounts.installation(forge, changed)}
    for name, found in listed.items():
        body[name] = [
            {"id": r.id, "node_id": r.node_id, "name": r.name, "full_name": r.full_name, "private": r.private}
            for r in found
        ]
    if event == "installation_repositories":
        body["repository_selection"] = "selected"
    body |= {"requester": None, "sender": accounts.user(forge, changed.account)}
    forge.webhooks.send(changed.app, Event(event, action, json.dumps(body).encode(), changed.id))


def ping(forge: Forge, app: App) -> None:
    hook = {
        "type": "App",
        "id": app.hook_id,
        "name": "web",
        "active": True,
        "events": sorted(app.events),
        "config": {"content_type": "json", "insecure_ssl": "0", "url": app.webhook_url or ""},
        "app_id": app.id,
        "created_at": accounts.stamp(app.created_at),
        "updated_at": accounts.stamp(app.created_at),
        "deliveries_url": f"{forge.api_url}/app/hook/deliveries",
    }
    payload = {"zen": "Practice makes progress.", "hook_id": app.hook_id, "hook": hook}
    forge.webhooks.send(app, Event("ping", None, json.dumps(payload).encode()))
