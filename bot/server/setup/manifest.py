"""What is asked of GitHub: the App's manifest, where it is sent, and the exchange of GitHub's code for the App's keys.

https://docs.github.com/en/apps/sharing-github-apps/registering-a-github-app-from-a-manifest
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from bot.conversation.github.registration import EVENTS, PERMISSIONS
from bot.errors import TransientError, UserError

NOWHERE = "https://postdoc.invalid"
"""For a server without a public address: a name that can never exist (RFC 2606), so what is sent there reaches nobody,
and GitHub keeps the deliveries for `postdoc serve --pull`."""
LONGEST_NAME = 34
"""Of an App, on GitHub."""
_ORGANISATION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,37}[A-Za-z0-9])?")
_CODE = re.compile(r"[A-Za-z0-9_-]{1,200}")
TIMEOUT_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class NewApp:
    """What GitHub hands out once: all that a server has to know."""

    app_id: str
    name: str
    page: str
    """The App's page on GitHub."""
    private_key: str
    webhook_secret: str

    @property
    def install_address(self) -> str:
        return f"{self.page}/installations/new"

    def kept(self) -> dict[str, str]:
        return {"app_id": self.app_id, "private_key": self.private_key, "webhook_secret": self.webhook_secret}


def app_manifest(*, name: str, seen_at: str, reached_at: str) -> dict[str, Any]:
    """The manifest. `seen_at` is this server as the person's browser sees it, `reached_at` as GitHub reaches it."""
    return {
        "name": name,
        "url": reached_at if reached_at != NOWHERE else seen_at,
        "description": "Post-trains language models through pull requests.",
        "hook_attributes": {"url": f"{reached_at}/webhook", "active": True},
        "redirect_url": f"{seen_at}/setup/callback",
        # Said, not left out: an App that anybody can install is one whose bill anybody can raise.
        "public": False,
        "default_permissions": dict(PERMISSIONS),
        "default_events": list(EVENTS),
        "request_oauth_on_install": False,
        "setup_on_update": False,
    }


def web_root(github_url: str) -> str:
    """Where people see the GitHub whose REST root this is: `https://api.github.com` -> `https://github.com`."""
    parts = urlsplit(github_url)
    host = parts.netloc
    if parts.path.rstrip("/") in ("", "/") and host.startswith("api."):
        host = host.removeprefix("api.")
    return f"{parts.scheme}://{host}"


def new_app_address(github_url: str, organisation: str, state: str) -> str:
    """The page on GitHub that takes the manifest."""
    owner = f"organizations/{quote(organisation, safe='')}/" if organisation else ""
    return f"{web_root(github_url)}/{owner}settings/apps/new?state={quote(state, safe='')}"


def checked_name(text: str) -> str:
    """Raises: UserError."""
    name = " ".join(text.split())
    if not name or len(name) > LONGEST_NAME:
        raise UserError(
            f"The App's name has 1 to {LONGEST_NAME} characters; GitHub shows it as the author of comments."
        )
    return name


def checked_organisation(text: str) -> str:
    """Raises: UserError."""
    name = text.strip()
    if name and not _ORGANISATION.fullmatch(name):
        raise UserError("The organisation is its name as it stands in its address on GitHub, acme for example.")
    return name


def checked_address(text: str) -> str:
    """The address at which GitHub reaches this server; empty text: it cannot. Raises: UserError."""
    address = text.strip().rstrip("/")
    if not address:
        return NOWHERE
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise UserError("Write the address with https://, for example https://postdoc.example.org, or leave it empty.")
    return address.removesuffix("/webhook")


async def exchange(github_url: str, code: str, *, transport: httpx.AsyncBaseTransport | None = None) -> NewApp:
    """The App that GitHub has registered, for the code that it sent the browser back with. A code works once.

    Raises: TransientError when GitHub did not answer, and the code may still be good; UserError for everything else.
    """
    root = web_root(github_url)
    again = f"Delete the App at {root}/settings/apps if it is there, and start again."
    if not _CODE.fullmatch(code):
        raise UserError("GitHub sent no code. Start again.")
    try:
        async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS, trust_env=False, transport=transport) as client:
            answer = await client.post(
                f"{github_url}/app-manifests/{code}/conversions",
                headers={"Accept": "application/vnd.github+json", "User-Agent": "postdoc"},
            )
    except httpx.HTTPError as error:
        raise TransientError(f"GitHub could not be reached at {github_url} ({type(error).__name__}).") from error
    if answer.status_code >= 500 or answer.status_code in (403, 429):
        raise TransientError(f"GitHub answered {answer.status_code}.")
    if answer.status_code == 404:
        raise UserError(f"GitHub does not know this code any more: it works once, and for an hour. {again}")
    if answer.status_code != 201:
        raise UserError(f"GitHub answered {answer.status_code} where it should have handed out the App's key. {again}")
    try:
        body = answer.json()
        page, key, secret = str(body["html_url"]), str(body["pem"]), str(body["webhook_secret"] or "")
        new = NewApp(str(int(body["id"])), str(body["name"]), page, key, secret)
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"GitHub's answer is not an App's. {again}") from error
    if "PRIVATE KEY-----" not in key or len(secret) < 8 or not page.startswith(f"{root}/"):
        raise UserError(f"GitHub's answer lacks the App's key, its webhook secret or its page. {again}")
    return new
