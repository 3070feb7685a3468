"""Users, Apps and installations as JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ..model import AccountType, App, Delivery, Installation, User

if TYPE_CHECKING:
    from ..forge import Forge

Json = dict[str, Any]


def stamp(moment: datetime) -> str:
    """GitHub's timestamps: UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def stamp_or_none(moment: datetime | None) -> str | None:
    return None if moment is None else stamp(moment)


def user(forge: Forge, account: User) -> Json:
    url = f"{forge.api_url}/users/{quote(account.login)}"
    page = f"apps/{account.login.removesuffix('[bot]')}" if account.type is AccountType.BOT else account.login
    return {
        "login": account.login,
        "id": account.id,
        "node_id": account.node_id,
        "avatar_url": f"{forge.base_url}/avatars/{account.id}",
        "gravatar_id": "",
        "url": url,
        "html_url": f"{forge.base_url}/{page}",
        "followers_url": f"{url}/followers",
        "following_url": f"{url}/following{{/other_user}}",
        "gists_url": f"{url}/gists{{/gist_id}}",
        "starred_url": f"{url}/starred{{/owner}}{{/repo}}",
        "subscriptions_url": f"{url}/subscriptions",
        "organizations_url": f"{url}/orgs",
        "repos_url": f"{url}/repos",
        "events_url": f"{url}/events{{/privacy}}",
        "received_events_url": f"{url}/received_events",
        "type": str(account.type),
        "user_view_type": "public",
        "site_admin": False,
    }


def user_or_none(forge: Forge, account: User | None) -> Json | None:
    return None if account is None else user(forge, account)


def organization(forge: Forge, account: User) -> Json:
    """The form inside webhooks."""
    url = f"{forge.api_url}/orgs/{account.login}"
    return {
        "login": account.login,
        "id": account.id,
        "node_id": account.node_id,
        "url": url,
        "repos_url": f"{url}/repos",
        "events_url": f"{url}/events",
        "hooks_url": f"{url}/hooks",
        "issues_url": f"{url}/issues",
        "members_url": f"{url}/members{{/member}}",
        "public_members_url": f"{url}/public_members{{/member}}",
        "avatar_url": f"{forge.base_url}/avatars/{account.id}",
        "description": None,
    }


def public_user(forge: Forge, account: User) -> Json:
    return user(forge, account) | {
        "name": account.name,
        "company": None,
        "blog": "",
        "location": None,
        "email": account.email,
        "hireable": None,
        "bio": None,
        "twitter_username": None,
        "public_repos": sum(not r.private for r in forge.repositories.values() if r.owner is account),
        "public_gists": 0,
        "followers": 0,
        "following": 0,
        "created_at": stamp(account.created_at),
        "updated_at": stamp(account.created_at),
    }


def private_user(forge: Forge, account: User) -> Json:
    private = sum(r.private for r in forge.repositories.values() if r.owner is account)
    return public_user(forge, account) | {
        "user_view_type": "private",
        "private_gists": 0,
        "total_private_repos": private,
        "owned_private_repos": private,
        "disk_usage": 0,
        "collaborators": 0,
        "two_factor_authentication": True,
    }


def app(forge: Forge, registered: App) -> Json:
    return {
        "id": registered.id,
        "client_id": registered.client_id,
        "slug": registered.slug,
        "node_id": registered.node_id,
        "owner": user(forge, registered.owner),
        "name": registered.name,
        "description": "",
        "external_url": f"{forge.base_url}/apps/{registered.slug}",
        "html_url": f"{forge.base_url}/apps/{registered.slug}",
        "created_at": stamp(registered.created_at),
        "updated_at": stamp(registered.created_at),
        "permissions": dict(registered.permissions),
        "events": sorted(registered.events),
    }


def app_or_none(forge: Forge, registered: App | None) -> Json | None:
    return None if registered is None else app(forge, registered)


def installation(forge: Forge, installed: Installation) -> Json:
    url = f"{forge.api_url}/app/installations/{installed.id}"
    return {
        "id": installed.id,
        "client_id": installed.app.client_id,
        "account": user(forge, installed.account),
        "repository_selection": "selected",
        "access_tokens_url": f"{url}/access_tokens",
        "repositories_url": f"{forge.api_url}/installation/repositories",
        "html_url": f"{forge.base_url}/settings/installations/{installed.id}",
        "app_id": installed.app.id,
        "app_slug": installed.app.slug,
        "target_id": installed.account.id,
        "target_type": str(installed.account.type),
        "permissions": dict(installed.permissions),
        "events": sorted(installed.app.events),
        "created_at": stamp(installed.created_at),
        "updated_at": stamp(installed.updated_at),
        "single_file_name": None,
        "has_multiple_single_files": False,
        "single_file_paths": [],
        "suspended_by": user(forge, installed.account) if installed.suspended_at else None,
        "suspended_at": stamp_or_none(installed.suspended_at),
    }


def delivery_item(delivery: Delivery) -> Json:
    return {
        "id": delivery.id,
        "guid": delivery.guid,
        "delivered_at": delivery.delivered_at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "redelivery": delivery.redelivery,
        "duration": round(delivery.duration, 3),
        "status": delivery.status,
        "status_code": delivery.status_code,
        "event": delivery.event,
        "action": delivery.action,
        "installation_id": delivery.installation_id,
        "repository_id": delivery.repository_id,
        "throttled_at": None,
    }
