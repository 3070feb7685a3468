"""The App itself: what GitHub says of it, where it is installed, and which of its webhook's deliveries arrived."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bot.conversation.github.answers import read_json, read_list
from bot.conversation.github.errors import Gone, Refused
from bot.conversation.github.limits import Quota
from bot.conversation.github.reading import quoted
from bot.conversation.github.repository import Repository
from bot.conversation.github.requests import OnWrite, Requests

__all__ = ["GitHubApp", "Installation", "OnWrite"]


@dataclass(frozen=True, slots=True)
class Installation:
    """One account that the App is installed on."""

    id: int
    account: str
    account_id: int
    suspended: bool
    all_repositories: bool
    permissions: Mapping[str, str] = field(default_factory=dict)
    events: tuple[str, ...] = ()


class GitHubApp(Requests):
    """The App on one GitHub server, as `Requests` reaches it."""

    _app: dict[str, Any] | None = None

    @property
    def writes(self) -> int:
        return self.counts["writes"]

    @property
    def skew_seconds(self) -> float:
        """How far GitHub's clock is ahead of this machine's, by its last answer."""
        return self._credentials.skew_seconds

    def github_time(self) -> float:
        """GitHub's clock, seconds since 1970."""
        return self._credentials.github_time()

    def quotas(self, installation_id: int) -> dict[str, Quota]:
        """What GitHub last said of the installation's hourly limits, by resource."""
        return dict(self._gate(installation_id).quotas)

    def least_remaining(self) -> int | None:
        """The smallest number of requests that some installation has left this hour; None before the first answer."""
        with self._lock:
            gates = list(self._gates.values())
        known = [quota.remaining for gate in gates for quota in gate.quotas.values()]
        return min(known, default=None)

    async def about(self) -> dict[str, Any]:
        """The App's own description, asked for once."""
        if self._app is None:
            self._app = dict(read_json(await self.call_as_app("GET", "/app")))
        return self._app

    async def login(self) -> str:
        """The App's own account name, `<slug>[bot]`."""
        return f"{(await self.about())['slug']}[bot]"

    async def installations(self) -> list[Installation]:
        """Every account that the App is installed on, the suspended ones too."""
        rows = await self.installation_rows()
        return [
            Installation(
                id=int(row["id"]),
                account=str((row.get("account") or {}).get("login") or (row.get("account") or {}).get("slug")),
                account_id=int((row.get("account") or {}).get("id") or row["target_id"]),
                suspended=row.get("suspended_at") is not None,
                all_repositories=row.get("repository_selection") == "all",
                permissions=dict(row.get("permissions") or {}),
                events=tuple(row.get("events") or ()),
            )
            for row in rows
        ]

    async def installation_rows(self) -> list[dict[str, Any]]:
        """The same as GitHub's own JSON."""
        return [row async for row in self._rows(None, "/app/installations")]

    async def installation_row(self, installation_id: int) -> dict[str, Any] | None:
        """One of them; None once it is uninstalled. Raises: TransientError, Refused."""
        try:
            return dict(read_json(await self.call_as_app("GET", f"/app/installations/{installation_id}")))
        except Refused as refused:
            if refused.status == 404:
                return None
            raise

    async def installation_of(self, owner: str, name: str) -> int:
        """The installation that sees the repository. Raises: Gone when there is none."""
        try:
            found = read_json(await self.call_as_app("GET", f"/repos/{quoted(owner)}/{quoted(name)}/installation"))
        except Refused as refused:
            if refused.status == 404:
                raise Gone(404, f"the App is not installed on {owner}/{name}") from refused
            raise
        return int(found["id"])

    async def installation_repositories(self, installation_id: int) -> list[dict[str, Any]]:
        """The repositories that the installation may see, as GitHub describes them."""
        return [row async for row in self._rows(installation_id, "/installation/repositories", within="repositories")]

    async def rate_limit(self, installation_id: int) -> dict[str, Any]:
        """What is left of each hourly limit; asking costs nothing of it."""
        return dict(read_json(await self.call(installation_id, "GET", "/rate_limit"))["resources"])

    def repository(self, installation_id: int, owner: str, name: str) -> Repository:
        return Repository(self, installation_id, owner, name)

    # The webhook's deliveries

    async def hook_config(self) -> dict[str, Any]:
        """`url`, `content_type`, `insecure_ssl` and, where one is set, `secret` (stars)."""
        return dict(read_json(await self.call_as_app("GET", "/app/hook/config")))

    async def deliveries(
        self, *, cursor: str | None = None, status: str | None = None
    ) -> tuple[list[dict[str, Any]], str | None]:
        """(at most 100 deliveries, newest first; the cursor of the older ones, None when there are none).

        `status` is `success` or `failure`. GitHub keeps them for three days:
        https://docs.github.com/en/rest/apps/webhooks#list-deliveries-for-an-app-webhook
        """
        given = {"per_page": "100", "cursor": cursor, "status": status}
        params = {name: value for name, value in given.items() if value is not None}
        response = await self.call_as_app("GET", "/app/hook/deliveries", params=params)
        url = self._next_page(response)
        following = None if url is None else url.params.get("cursor")
        rows = read_list(response)
        return rows, following if rows else None

    async def delivery(self, delivery_id: int) -> dict[str, Any]:
        """One delivery with its request (headers, payload) and response."""
        return dict(read_json(await self.call_as_app("GET", f"/app/hook/deliveries/{delivery_id}")))

    async def redeliver(self, delivery_id: int) -> None:
        """Have GitHub send a delivery once more: the same GUID under a new id."""
        await self.call_as_app("POST", f"/app/hook/deliveries/{delivery_id}/attempts")
