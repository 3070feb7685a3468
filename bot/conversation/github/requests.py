"""One request to GitHub: through its installation's gate, under fresh credentials, and read for what it teaches."""

from __future__ import annotations

import asyncio
import base64
import os
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self
from weakref import WeakKeyDictionary

import httpx
from githubkit import GitHub, Response, UnauthAuthStrategy
from githubkit.exception import RequestError, RequestFailed, RequestTimeout

from bot.conversation.github.answers import graphql_error, read_json, read_list, refusal
from bot.conversation.github.connections import Connections, KeptOpen, proxy_for
from bot.conversation.github.credentials import Credentials
from bot.conversation.github.errors import Gone, Refused
from bot.conversation.github.etags import ETags, confirmed
from bot.conversation.github.limits import Gate, Pacing, Urgency
from bot.conversation.github.servers import server_at
from bot.domain.redaction import redact, redacted_bytes
from bot.errors import TransientError

OnAnswer = Callable[[str, int, Mapping[str, str]], None]
"""Called with method, status and headers of each answer; with status 0 and no headers where none came."""
OnWrite = Callable[[str], Awaitable[None]]
"""Called with `METHOD path` after each request that changed something."""

ANSWER_SECONDS = 20.0
MOST_REDIRECTS = 3
MOST_PAGES = 100
API_VERSION = "2022-11-28"
ACCEPT = "application/vnd.github+json"
_WRITES = {"POST", "PUT", "PATCH", "DELETE"}
_MOVED = {301, 302, 307, 308}
_AS_APP = 0
"""The gate of what the App asks under its own name."""


class _Client(GitHub[Any]):
    """githubkit without its own reading of limits, which is for whole seconds only; the gate reads every form."""

    def _check_rate_limit(self, response: Response[Any, Any]) -> None:
        return None


class Requests:
    """What every call goes through. Threads and event loops may share it.

    `base_url` is what `server_at` understands; `pacing` is the process's share of each installation's limits.
    Raises: SettingsError for an address or a key that cannot be one.
    """

    def __init__(
        self,
        *,
        app_id: str = "",
        private_key: str = "",
        credentials: Credentials | None = None,
        base_url: str = "https://api.github.com",
        on_write: OnWrite | None = None,
        on_answer: OnAnswer | None = None,
        pacing: Pacing | None = None,
        known_secrets: Sequence[str] = (),
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.time,
        tick: Callable[[], float] = time.monotonic,
    ) -> None:
        self.server = server_at(base_url)
        self.counts: Counter[str] = Counter()
        """`2xx` to `5xx`, `304`, `unanswered`, `writes`, `dropped`, `limited`, `waited_milliseconds`."""
        self._credentials = credentials or Credentials(app_id, private_key, clock=clock)
        self._known_secrets = tuple(known_secrets)
        self._etags = ETags()
        self._pacing, self._tick = pacing or Pacing(), tick
        self._gates: dict[int, Gate] = {}
        self._mints: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[int, asyncio.Lock]] = WeakKeyDictionary()
        self._lock = threading.Lock()
        self._on_write, self._on_answer = on_write, on_answer
        self.may_write: Callable[[], None] | None = None
        """Called right before every write of an installation; what it raises prevents the write."""
        self._transport = transport or Connections(proxy_for(self.server.rest, os.environ))
        # githubkit sends; what it would decide by itself (tokens by the machine's clock, waiting for each call alone,
        # following redirects anywhere, typed models of about 190 MiB) is decided here instead.
        self._github = _Client(
            UnauthAuthStrategy(),
            base_url=self.server.rest,
            user_agent="postdoc",
            async_transport=KeptOpen(self._transport),
            timeout=httpx.Timeout(ANSWER_SECONDS),
            follow_redirects=False,
            trust_env=False,
            http_cache=False,
            auto_retry=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections of the event loop that this runs on. The App can be used again."""
        await self._transport.aclose()

    async def call(
        self, installation_id: int, method: str, path: str, *, json: Any = None,
        params: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None,
        urgency: Urgency = Urgency.WORK, conditional: bool = False, write: bool | None = None,
    ) -> httpx.Response:  # fmt: skip
        """One REST request as an installation. `conditional` asks whether an answer we have still holds; `write` False
        says that nobody will see it (an object of git that no ref names yet), so that it is not paced as a write.

        Raises: TransientError for what may pass (network, 5xx, rate limits), with the time to wait; Gone when the
            installation or the repository is out of reach for good; Refused for every other refusal; Dropped for a
            cosmetic write that was left out.
        """
        request = self._request(method, self._url(path), json=json, params=params, headers=headers)
        response = await self._send(installation_id, request, urgency=urgency, conditional=conditional, write=write)
        await self._wrote(method, path)
        return response

    async def location(self, installation_id: int, path: str) -> str:
        """Where GitHub sends whoever asks for what it keeps elsewhere, such as an artifact: an address that needs no
        token, and gets none. Raises: as `call`."""
        request = self._request("GET", self._url(path))
        response = await self._send(installation_id, request, follow=False)
        address = response.request.url.join(response.headers.get("location", ""))
        if response.status_code not in _MOVED or (address.scheme == "http" and not self.server.owns(address)):
            raise Refused(response.status_code, "it named no place to download this from")
        return str(address)

    async def download(self, address: str, path: Path, limit_bytes: int) -> None:
        """Write what lies at an address of `location` to `path`, without any credentials.

        Raises: TransientError when it does not come whole; Refused for a refusal, or more than `limit_bytes`.
        """
        client = httpx.AsyncClient(
            transport=KeptOpen(self._transport), timeout=ANSWER_SECONDS, headers={"User-Agent": "postdoc"}
        )
        try:
            async with client, client.stream("GET", address) as response:
                if response.status_code != 200:
                    raise Refused(response.status_code, "the download was refused")
                with await asyncio.to_thread(open, path, "wb") as file:
                    async for chunk in response.aiter_bytes(1 << 20):
                        await asyncio.to_thread(file.write, chunk)
                        if file.tell() > limit_bytes:
                            raise Refused(413, f"what is downloaded has more than {limit_bytes:,} bytes")
        except httpx.HTTPError as error:
            raise TransientError(f"the download broke off: {str(error) or type(error).__name__}") from error

    async def call_as_app(
        self, method: str, path: str, *, json: Any = None, params: Mapping[str, Any] | None = None
    ) -> httpx.Response:
        """One REST request under the App's own name. Raises: TransientError, Refused."""
        request = self._request(method, self._url(path), json=json, params=params)
        response = await self._send(None, request)
        await self._wrote(method, path)
        return response

    async def graphql(
        self, installation_id: int, query: str, variables: dict[str, Any], *, urgency: Urgency = Urgency.WORK
    ) -> dict[str, Any]:
        """The `data` of a GraphQL answer.

        Raises: as `call`, and StaleHead when a commit expected another head.
        """
        body = {"query": query, "variables": variables}
        request = self._request("POST", self.server.graphql, json=body)
        changes = query.lstrip().startswith("mutation")
        response = await self._send(installation_id, request, resource="graphql", urgency=urgency, write=changes)
        answer = read_json(response)
        if errors := answer.get("errors"):
            raise graphql_error(errors)
        if changes:
            await self._wrote("POST", "/graphql")
        return dict(answer.get("data") or {})

    async def pages(
        self, installation_id: int, path: str, *, params: Mapping[str, Any] | None = None,
        within: str | None = None, conditional: bool = False,
    ) -> list[Any]:  # fmt: skip
        """Every row of a list, over all of its pages; `within` is the key it lies under, where it is not bare."""
        rows = self._rows(installation_id, path, params=params, within=within, conditional=conditional)
        return [row async for row in rows]

    async def _rows(
        self, installation_id: int | None, path: str, *, params: Mapping[str, Any] | None = None,
        within: str | None = None, conditional: bool = False,
    ) -> AsyncIterator[Any]:  # fmt: skip
        url: httpx.URL | None = httpx.URL(self._url(path), params={"per_page": "100", **(params or {})})
        for _ in range(MOST_PAGES):
            request = self._request("GET", url or "")
            response = await self._send(installation_id, request, conditional=conditional)
            for row in read_list(response, within):
                yield row
            url = self._next_page(response)
            if url is None:
                return

    def _next_page(self, response: httpx.Response) -> httpx.URL | None:
        """Where the Link header goes on. Raises: Refused when it leads to another server, which gets no token."""
        link = response.links.get("next", {}).get("url")
        if link is None:
            return None
        url = response.request.url.join(link)
        if not self.server.owns(url):
            raise Refused(response.status_code, f"its next page lies on another server, {url.host}, and was not read")
        return url

    def _url(self, path: str) -> str:
        return self.server.rest + path

    def _gate(self, installation_id: int | None) -> Gate:
        with self._lock:
            key = _AS_APP if installation_id is None else installation_id
            if key not in self._gates:
                self._gates[key] = Gate(self._pacing, tick=self._tick, counts=self.counts)
            return self._gates[key]

    async def _send(
        self, installation_id: int | None, request: httpx.Request, *, resource: str = "core",
        urgency: Urgency = Urgency.WORK, conditional: bool = False, write: bool | None = None, follow: bool = True,
    ) -> httpx.Response:  # fmt: skip
        """Let the request through its gate and read what comes of it, with fresh credentials once where they failed."""
        gate = self._gate(installation_id)
        changes = request.method in _WRITES if write is None else write
        for attempt in (1, 2):
            async with gate.passage(write=changes, urgency=urgency, resource=resource):
                if changes and self.may_write is not None:
                    self.may_write()
                credential, skew = await self._credential(installation_id), self._credentials.skew_seconds
                request.headers["Authorization"] = f"Bearer {credential}"
                response = await self._exchange(gate, request, conditional, follow)
            if response.status_code != 401 or attempt == 2:
                break
            if installation_id is not None:
                # Revoked, or expired by a clock that is off: nothing was done, so asking again is safe.
                self._credentials.forget(installation_id, credential)
            elif self._credentials.skew_seconds == skew:
                break  # the answer's Date shows no clock that is off: the same JWT would be refused again
        if response.is_error:
            raise self._explained(installation_id, response)
        return response

    async def _credential(self, installation_id: int | None) -> str:
        if installation_id is None:
            return self._credentials.app_jwt()
        token = self._credentials.token(installation_id)
        if token is not None:
            return token
        async with self._minting(installation_id):
            return self._credentials.token(installation_id) or await self._new_token(installation_id)

    def _minting(self, installation_id: int) -> asyncio.Lock:
        """Held by whoever asks for the installation's token: the others wait for it instead of asking too."""
        with self._lock:
            locks = self._mints.setdefault(asyncio.get_running_loop(), {})
            return locks.setdefault(installation_id, asyncio.Lock())

    async def _new_token(self, installation_id: int) -> str:
        path = f"/app/installations/{installation_id}/access_tokens"
        try:
            response = await self._send(None, self._request("POST", self._url(path)), write=False)
            return self._credentials.keep(installation_id, read_json(response))
        except Refused as refused:
            if refused.status == 404:
                raise Gone(404, f"the App is not installed any more (installation {installation_id})") from refused
            raise
        except KeyError as error:
            raise TransientError("GitHub's answer held no token") from error

    async def _exchange(
        self, gate: Gate, request: httpx.Request, conditional: bool, follow: bool = True
    ) -> httpx.Response:
        """Send the request, follow it where GitHub has moved it, and learn from the answer. Raises: TransientError."""
        for _ in range(MOST_REDIRECTS + 1):
            request.headers.pop("cookie", None)  # one installation's answers leave nothing behind for another's
            kept = self._etags.ask(request) if conditional else None
            started = self._tick()
            try:
                response = await self._sent(request)
            except RequestTimeout as error:
                self._answered(request, 0, {})
                raise gate.unreachable("GitHub did not answer in time") from error
            except RequestError as error:
                self._answered(request, 0, {})
                why = str(error.exc) or type(error.exc).__name__
                raise gate.unreachable(f"GitHub could not be reached: {why}") from error
            self._credentials.observe(response)
            status = response.status_code
            self._answered(request, status, response.headers)
            failed = gate.heard(response, started=started, github_time=self._credentials.github_time())
            if failed is not None:
                raise failed
            if status == 304 and kept is not None:
                return confirmed(kept, response)
            if conditional:
                self._etags.keep(request, response)
            if status not in _MOVED or "location" not in response.headers or not follow:
                return response
            request = self._moved(request, response)
        raise Refused(response.status_code, "it sends requests in a circle")

    def _request(
        self, method: str, url: str | httpx.URL, *, json: Any = None, params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Request:  # fmt: skip
        """A request whose every text has passed `redaction`: the one door that all of them leave by."""
        given = {"Accept": ACCEPT, "X-GitHub-Api-Version": API_VERSION, **(headers or {})}
        return httpx.Request(method, url, json=_clean(json, self._known_secrets), params=params, headers=given)

    async def _sent(self, request: httpx.Request) -> httpx.Response:
        try:
            answer = await self._github.arequest(
                request.method, request.url, content=request.content or None, headers=request.headers
            )
        except RequestFailed as failed:
            answer = failed.response
        return answer.raw_response

    def _answered(self, request: httpx.Request, status: int, headers: Mapping[str, str]) -> None:
        name = "unanswered" if not status else "304" if status == 304 else f"{status // 100}xx"
        self.counts[name] += 1
        if self._on_answer is not None:
            self._on_answer(request.method, status, headers)

    def _moved(self, request: httpx.Request, response: httpx.Response) -> httpx.Request:
        """The same request at its new place (a renamed repository). GitHub has it repeated verbatim, writes too:
        https://docs.github.com/en/rest/using-the-rest-api/best-practices-for-using-the-rest-api#follow-redirects"""
        url = request.url.join(response.headers["location"])
        if not self.server.owns(url):
            raise Refused(response.status_code, f"it redirects to another server, {url.host}, which was not followed")
        headers = {name: value for name, value in request.headers.items() if name not in ("host", "if-none-match")}
        return httpx.Request(
            request.method, url, headers=headers, content=request.content, extensions=request.extensions
        )

    def _explained(self, installation_id: int | None, response: httpx.Response) -> Refused:
        if response.status_code != 401:
            return refusal(response)
        if installation_id is None:
            why = "it does not accept the App's id and private key together"
        else:
            why = f"it does not accept installation {installation_id}'s token, not even a new one"
        return Refused(401, f"{why} ({refusal(response)})")

    async def _wrote(self, method: str, path: str) -> None:
        if method not in _WRITES:
            return
        self.counts["writes"] += 1
        if self._on_write is not None:
            await self._on_write(f"{method} {path}")


def _clean(value: Any, known: Sequence[str], name: str = "") -> Any:
    """A copy of what is about to be sent without secrets; `contents` is a file of a commit, in base64."""
    if isinstance(value, str):
        if name == "contents":
            return base64.b64encode(redacted_bytes(base64.b64decode(value), known)).decode()
        return redact(value, known)
    if isinstance(value, Mapping):
        return {key: _clean(content, known, key) for key, content in value.items()}
    return [_clean(content, known) for content in value] if isinstance(value, (list, tuple)) else value
