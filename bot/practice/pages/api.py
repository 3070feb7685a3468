"""Calls the forge's own REST and GraphQL API in the same process, as the person who is signed in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, cast

import httpx

PER_PAGE = 100
# A page of the forge shows at most this many pages of a list (2,000 entries).
MOST_PAGES = 20

Asgi = Callable[
    [
        MutableMapping[str, Any],
        Callable[[], Awaitable[MutableMapping[str, Any]]],
        Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ],
    Awaitable[None],
]


class ApiError(Exception):
    """The API said no; `message` is its sentence, `status` its code."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Api:
    """The API as one person sees it; without a token, as a stranger does."""

    def __init__(self, app: Asgi, base_url: str, token: str | None) -> None:
        headers = {"Accept": "application/vnd.github+json", "User-Agent": "practice-forge-pages"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self._base = base_url.rstrip("/")
        self._headers = headers
        self._transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)

    async def get(self, path: str, /, **query: str | int) -> Any:
        """The JSON at `path`.

        Raises:
            ApiError: when the API answers with anything but success.
        """
        return (await self._request("GET", path, query=query)).json()

    async def find(self, path: str, /, **query: str | int) -> Any | None:
        """The JSON at `path`, or None where the API knows nothing (404, 409 for an empty repository, 410)."""
        try:
            return await self.get(path, **query)
        except ApiError as error:
            if error.status in (404, 409, 410):
                return None
            raise

    async def text(self, path: str, accept: str, /, **query: str | int) -> bytes:
        """The body at `path` in another media type."""
        return (await self._request("GET", path, query=query, accept=accept)).content

    async def all(self, path: str, key: str | None = None, /, **query: str | int) -> list[Any]:
        """Every entry of a list, page after page; `key` where the list stands inside an object."""
        entries: list[Any] = []
        for page in range(1, MOST_PAGES + 1):
            got = await self.get(path, **{**query, "per_page": PER_PAGE, "page": page})
            found = got[key] if key else got
            entries.extend(found)
            if len(found) < PER_PAGE:
                break
        return entries

    async def send(self, method: str, path: str, payload: Mapping[str, Any] | None = None) -> httpx.Response:
        """A change. Raises ApiError when it is refused."""
        return await self._request(method, path, payload=payload)

    async def graphql(self, query: str, **variables: Any) -> Any:
        """The data of a GraphQL document; its first error is raised as an ApiError."""
        reply = await self._request(
            "POST", "/api/graphql", payload={"query": query, "variables": variables}, rooted=True
        )
        answer = reply.json()
        if answer.get("errors"):
            raise ApiError(422, str(answer["errors"][0].get("message", "The request was refused.")))
        return answer["data"]

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        payload: Mapping[str, Any] | None = None,
        accept: str | None = None,
        rooted: bool = False,
    ) -> httpx.Response:
        url = self._base + (path if rooted else "/api/v3" + path)
        headers = {**self._headers, **({"Accept": accept} if accept else {})}
        async with httpx.AsyncClient(transport=self._transport, trust_env=False, timeout=60) as client:
            reply = await client.request(method, url, params=dict(query or {}), json=payload, headers=headers)
        if reply.is_redirect:
            raise ApiError(404, "Not Found")
        if reply.is_error:
            raise ApiError(reply.status_code, _sentence(reply))
        return reply


def _sentence(reply: httpx.Response) -> str:
    try:
        answer = cast(dict[str, Any], reply.json())
        message = str(answer.get("message") or "")
        details = answer.get("errors") or []
        said = [str(item.get("message") or item) if isinstance(item, dict) else str(item) for item in details]
    except (ValueError, AttributeError):
        return "The forge could not answer."
    return ": ".join([message, *said[:3]]) if said else message or "The forge could not answer."
