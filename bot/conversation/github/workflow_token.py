"""GitHub as a workflow sees it: one repository, one token that is given, no App of our own.

`GITHUB_TOKEN` is an installation token of GitHub's own App `github-actions`. It signs no JWT and mints no other token,
creates checks but is told of no press of their buttons, and what it does starts no workflow:
https://docs.github.com/en/actions/concepts/security/github_token
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Sequence
from typing import Any

import httpx

from bot.conversation.github.answers import read_json, refusal
from bot.conversation.github.client import GitHubApp
from bot.conversation.github.credentials import Credentials
from bot.conversation.github.errors import Refused
from bot.conversation.github.limits import Pacing
from bot.conversation.github.requests import OnAnswer, OnWrite

ACTIONS_LOGIN = "github-actions[bot]"
"""Whose account everything done with `GITHUB_TOKEN` carries, that of other workflows too."""


class GivenToken(Credentials):
    """One token for everything, for as long as it lasts: a job's own ends with the job, after 24 hours at most."""

    def __init__(self, value: str, *, clock: Callable[[], float] = time.time) -> None:
        self._value, self._clock = value, clock
        self.skew_seconds = 0.0

    def __repr__(self) -> str:
        return "GivenToken(...)"

    def app_jwt(self) -> str:
        raise Refused(401, "a workflow's token cannot speak for an App")

    def token(self, installation_id: int) -> str:
        return self._value

    def forget(self, installation_id: int, value: str) -> None:
        """There is no other."""


class WorkflowApp(GitHubApp):
    """What stands in for the App: an installation, numbered 0, that holds the workflow's repository alone."""

    def __init__(
        self,
        token: str,
        full_name: str,
        *,
        login: str = ACTIONS_LOGIN,
        base_url: str = "https://api.github.com",
        on_write: OnWrite | None = None,
        on_answer: OnAnswer | None = None,
        pacing: Pacing | None = None,
        known_secrets: Sequence[str] = (),
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`login` is whose token it is. Raises: SettingsError for an address that cannot be one."""
        super().__init__(
            credentials=GivenToken(token), base_url=base_url, on_write=on_write, on_answer=on_answer, pacing=pacing,
            known_secrets=known_secrets, transport=transport,
        )  # fmt: skip
        self.full_name, self._login = full_name, login
        self.began_at = 0.0
        """Since when this repository is looked after, in Unix seconds: earlier labels were not meant for us."""

    async def about(self) -> dict[str, Any]:
        return {"slug": self._login.removesuffix("[bot]"), "permissions": {}, "events": []}

    async def login(self) -> str:
        return self._login

    async def installation_rows(self) -> list[dict[str, Any]]:
        began = datetime.datetime.fromtimestamp(self.began_at, datetime.UTC)
        return [{"id": 0, "suspended_at": None, "created_at": began.isoformat()}]

    async def installation_row(self, installation_id: int) -> dict[str, Any] | None:
        return (await self.installation_rows())[0]

    async def installation_repositories(self, installation_id: int) -> list[dict[str, Any]]:
        return [dict(read_json(await self.call(0, "GET", f"/repos/{self.full_name}", conditional=True)))]

    def _explained(self, installation_id: int | None, response: httpx.Response) -> Refused:
        if response.status_code == 401:
            return Refused(401, f"it does not accept the workflow's token ({refusal(response)})")
        return refusal(response)
