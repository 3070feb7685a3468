"""The App itself: what GitHub says of it, where it is installed, and which of its webhook's deliveries arrived."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from bot.conversation.github.answers import read_json, read_list
from bot.conversation.github.limits import Quota
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

    @cached_property
    def _asked(self) -> Counter[str]:
        """How often this process asked for a delivery again, by GUID."""
        return Counter()

    @property
    def writes(self) -> int:
        return self.counts["writes"]

    @property
    def skew_seconds(self) -> float:
        """How far GitHub's clock is ahead of this machine's, by its last answer."""
        return self._credentials.skew_seconds

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
        rows = [row async for row in self._rows(None, "/app/installations")]
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

    async def deliveries(self, *, cursor: str | None = None) -> tuple[list[dict[str, Any]], str | None]:
        """(at most 100 deliveries, newest first; the cursor of the next page or None).

        GitHub keeps them for three days: https://docs.github.com/en/rest/apps/webhooks
        """
        params = {"per_page": "100"} | ({"cursor": cursor} if cursor else {})
        response = await self.call_as_app("GET", "/app/hook/deliveries", params=params)
        url = self._next_page(response)
        following = None if url is None else url.params.get("cursor")
        return read_list(response), following

    async def delivery(self, delivery_id: int) -> dict[str, Any]:
        """One delivery with its request (headers, payload) and response."""
        return dict(read_json(await self.call_as_app("GET", f"/app/hook/deliveries/{delivery_id}")))

    async def redeliver(self, delivery_id: int) -> None:
        """Have GitHub send a delivery once more: the same GUID under a new id."""
        await self.call_as_app("POST", f"/app/hook/deliveries/{delivery_id}/attempts")

    async def redeliver_missed(self, *, limit: int = 300) -> int:
        """Ask again for the App's deliveries that never arrived, newest first; returns how many.

        GitHub does not retry by itself and keeps deliveries for three days:
        https://docs.github.com/en/webhooks/using-webhooks/automatically-redelivering-failed-deliveries-for-a-github-app-webhook
        """
        arrived: set[str] = set()
        missed: dict[str, int] = {}
        cursor, seen = None, 0
        while seen < limit:
            rows, cursor = await self.deliveries(cursor=cursor)
            for row in rows:
                seen += 1
                if 200 <= row["status_code"] < 300:
                    arrived.add(row["guid"])
                else:
                    missed.setdefault(row["guid"], row["id"])
            if not rows or cursor is None:
                break
        # At most twice by one process: a delivery that is refused again and again is not a missed one.
        lost = [(guid, each) for guid, each in missed.items() if guid not in arrived and self._asked[guid] < 2]
        for guid, delivery_id in reversed(lost):
            self._asked[guid] += 1
            await self.redeliver(delivery_id)
        return len(lost)
