"""An App about itself: installations, tokens, its webhook and the webhook's deliveries."""

from __future__ import annotations

import json
from typing import Any

from .. import manifests
from ..model import Delivery, Installation, Repository
from ..replies import ApiError, Reply, not_found
from ..routing import Call, Routes
from ..shapes import accounts as shapes
from ..shapes.repositories import repository as repository_shape
from ..tokens import NOT_IN_INSTALLATION
from ..webhooks import Event

routes = Routes()


@routes.get("/app")
def authenticated_app(call: Call) -> Reply:
    app = call.app()
    count = sum(each.app is app for each in call.forge.installations.values())
    return Reply(body=shapes.app(call.forge, app) | {"installations_count": count})


@routes.post("/app-manifests/{code}/conversions")
def convert_manifest(call: Call) -> Reply:
    """The keys of an App that was registered from a manifest, for its code, once and without any other credential."""
    issued = manifests.convert(call.forge, call.params["code"])
    app = call.forge.apps[issued.registration.app_id]
    keys = {"pem": app.private_key_pem, "webhook_secret": issued.webhook_secret, "client_secret": issued.client_secret}
    return Reply(201, shapes.app(call.forge, app) | keys)


@routes.get("/apps/{slug}")
def app_by_slug(call: Call) -> Reply:
    app = call.forge.app_by_slug(call.params["slug"])
    if app is None:
        raise not_found()
    return Reply(body=shapes.app(call.forge, app))


@routes.get("/app/installations")
def list_installations(call: Call) -> Reply:
    app = call.app()
    mine = [each for each in call.forge.installations.values() if each.app is app]
    return Reply(body=[_listed_installation(call, each) for each in call.page(mine)])


def _listed_installation(call: Call, installation: Installation) -> dict[str, Any]:
    """GitHub's description of this list wants an account that is a user and an enterprise at once."""
    shape, account = shapes.installation(call.forge, installation), installation.account
    created = shapes.stamp(account.created_at)
    name = account.name or account.login
    enterprise = {"name": name, "slug": account.login, "created_at": created, "updated_at": created}
    return shape | {"account": shape["account"] | enterprise}


def _installation(call: Call) -> Installation:
    app, found = call.app(), call.forge.installations.get(call.number("id"))
    if found is None or found.app is not app:
        raise not_found()
    return found


@routes.get("/app/installations/{id}")
def get_installation(call: Call) -> Reply:
    return Reply(body=shapes.installation(call.forge, _installation(call)))


@routes.post("/app/installations/{id}/access_tokens")
def create_token(call: Call) -> Reply:
    installation = _installation(call)
    repositories = _asked_repositories(call, installation)
    permissions = call.value("permissions", dict) if "permissions" in call.body else None
    token = call.forge.new_token(installation, repositories, permissions)
    body: dict[str, Any] = {
        "token": token.token,
        "expires_at": shapes.stamp(token.expires_at),
        "permissions": token.permissions,
        "repository_selection": "selected",
    }
    if token.narrowed:
        body["repositories"] = [repository_shape(call.forge, each) for each in token.repositories]
    return Reply(201, body)


def _asked_repositories(call: Call, installation: Installation) -> list[Repository] | None:
    names, ids = call.texts("repositories"), call.value("repository_ids", list)
    if names is None and ids is None:
        return None
    known = call.forge.repositories.values()
    wanted = [r for r in known if r.owner is installation.account and (r.name in (names or []) or r.id in (ids or []))]
    if len(wanted) < len({*(names or [])}) or len(wanted) < len({*(ids or [])}):
        raise ApiError(422, NOT_IN_INSTALLATION)
    return wanted


@routes.delete("/installation/token")
def revoke_token(call: Call) -> Reply:
    if call.actor.token is None:
        raise ApiError(401, "Bad credentials")
    call.forge.tokens.revoke(call.actor.token)
    return Reply(204)


@routes.get("/installation/repositories")
def installation_repositories(call: Call) -> Reply:
    if call.actor.token is None:
        raise ApiError(
            403,
            "You must authenticate with an installation access token in order to list repositories for "
            "an installation.",
        )
    listed = call.actor.token.repositories
    shown = [repository_shape(call.forge, each, call.actor) for each in call.page(listed)]
    return Reply(body={"total_count": len(listed), "repository_selection": "selected", "repositories": shown})


@routes.get("/repos/{owner_name}/{repo_name}/installation")
def repository_installation(call: Call) -> Reply:
    app = call.app()
    found = call.forge.repositories.get(f"{call.params['owner_name']}/{call.params['repo_name']}".lower())
    installation = call.forge.installation_for(app, found) if found else None
    if installation is None:
        raise not_found()
    return Reply(body=shapes.installation(call.forge, installation))


@routes.get("/app/hook/config")
def hook_config(call: Call) -> Reply:
    app = call.app()
    config = {"content_type": "json", "insecure_ssl": "0"} | ({"url": app.webhook_url} if app.webhook_url else {})
    return Reply(body=config | ({"secret": "********"} if app.webhook_secret else {}))


@routes.patch("/app/hook/config")
def edit_hook_config(call: Call) -> Reply:
    app = call.app()
    app.webhook_url = call.text("url", app.webhook_url)
    app.webhook_secret = call.text("secret", app.webhook_secret)
    return hook_config(call)


@routes.get("/app/hook/deliveries")
def list_deliveries(call: Call) -> Reply:
    """Newest first; the Link header's `cursor` continues with the older ones."""
    listed = call.forge.webhooks.deliveries(call.app())
    status = call.query.get("status")
    if status not in (None, "success", "failure"):
        raise ApiError(422, "Invalid request.\n\nstatus must be success or failure.")
    if status is not None:
        listed = [each for each in listed if (200 <= each.status_code < 400) == (status == "success")]
    cursor = call.query.get("cursor", "")
    if cursor:
        if not cursor.startswith("v1_") or not cursor[3:].isdigit():
            raise ApiError(422, "Invalid request.\n\ncursor is not valid.")
        listed = [each for each in listed if each.id <= int(cursor[3:])]
    given = call.query.get("per_page", "30")
    size = min(max(int(given) if given.isdigit() else 30, 1), 100)
    if len(listed) > size:
        query = {"per_page": size, **({"status": status} if status else {}), "cursor": f"v1_{listed[size].id}"}
        call.links["next"] = f"{call.url}?" + "&".join(f"{name}={value}" for name, value in query.items())
    return Reply(body=[shapes.delivery_item(each) for each in listed[:size]])


def _delivery(call: Call) -> Delivery:
    app, number = call.app(), call.number("id")
    for delivery in call.forge.webhooks.deliveries(app):
        if delivery.id == number:
            return delivery
    raise not_found()


@routes.get("/app/hook/deliveries/{id}")
def get_delivery(call: Call) -> Reply:
    delivery = _delivery(call)
    body = shapes.delivery_item(delivery) | {
        "url": delivery.app.webhook_url or "",
        "request": {"headers": delivery.headers, "payload": json.loads(delivery.body)},
        "response": {"headers": delivery.response_headers, "payload": delivery.response_body},
    }
    return Reply(body=body)


@routes.post("/app/hook/deliveries/{id}/attempts")
def redeliver(call: Call) -> Reply:
    """The same event once more, under the same GUID and a new delivery id."""
    old = _delivery(call)
    event = Event(
        old.event, old.action, old.body, old.installation_id, old.repository_id, guid=old.guid, redelivery=True
    )
    call.forge.webhooks.send(old.app, event)
    return Reply(202, {})
