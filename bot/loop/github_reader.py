"""Reads GitHub for research through the App: its installation's token, its gate, and the checks of the way out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bot.conversation.github.errors import Refused as GitHubRefused
from bot.conversation.github.requests import Requests
from bot.errors import TransientError
from bot.research.code import HOST
from bot.research.errors import Busy, Malformed, NotFound, Refused
from bot.research.web import Web


class AppReader:
    """`bot.research.code.Reader` as one installation of the App."""

    def __init__(self, web: Web, app: Requests, installation_id: int) -> None:
        self._web, self._app, self._installation_id = web, app, installation_id

    async def read(self, path: str, params: Mapping[str, str], accept: str) -> Any:
        await self._web.admit(f"https://{HOST}{path}", params)
        try:
            response = await self._app.call(
                self._installation_id, "GET", path, params=params, headers={"Accept": accept}
            )
        except TransientError as error:
            if error.retry_after_seconds is not None:
                self._web.leave_alone(HOST, error.retry_after_seconds)
            raise Busy(f"GitHub cannot be asked now: {error}", retry_after_seconds=error.retry_after_seconds) from error
        except GitHubRefused as error:
            if error.status == 404:
                raise NotFound(f"GitHub has nothing at {path[:120]}.", status=404) from error
            raise Refused(str(error), status=error.status) from error
        try:
            return response.json()
        except ValueError:
            raise Malformed("GitHub answered with something that is no JSON.") from None
