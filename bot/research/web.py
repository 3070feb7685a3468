"""The one way out of research: GET, to a short list of hosts, paced, bounded, cached and recorded.

Every request is checked before it leaves: its host and path (`hosts`), its words (`queries`), and again at every
redirect, which may not lead to another host. A token goes to the host it belongs to. Nothing waits for a rate limit:
`Busy` says when to come back.

Not covered: a host on the list that is itself hostile to us. Its answers are data, and bounded.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import threading
import time
import urllib.request
import zlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urljoin, urlsplit

import httpx

from bot.research.cache import Cache, Kept
from bot.research.errors import Busy, Malformed, NotFound, Refused
from bot.research.hosts import HOSTS, Host
from bot.research.pace import Pace
from bot.research.queries import Private, check_query

DAY_SECONDS = 86_400.0
MOST_REDIRECTS = 3
TOTAL_SECONDS = 60.0
_TIMEOUT = httpx.Timeout(20.0, connect=10.0)
_LATER = frozenset({408, 425, 429})
_GONE = frozenset({404, 410})
_MOVED = frozenset({301, 302, 303, 307, 308})
Params = Mapping[str, str | Sequence[str]]
"""A value that is a list is sent as its key several times."""


@dataclass(frozen=True, slots=True)
class Page:
    url: str
    """Where the answer came from in the end."""
    status: int
    content_type: str
    body: bytes
    fetched_at: float
    """Seconds since the epoch; of a cached answer, when it was asked for."""
    cached: bool

    def text(self) -> str:
        """Bytes that are no text become U+FFFD. Raises: Malformed."""
        charset = self.content_type.lower().partition("charset=")[2].split(";")[0].strip("\"' ") or "utf-8"
        try:
            return self.body.decode(charset, errors="replace")
        except LookupError:
            raise Malformed(f"{self.url} is written in `{charset[:40]}`, which is no known encoding.") from None

    def json(self) -> Any:
        """Raises: Malformed."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise Malformed(f"{self.url} answered with something that is no JSON.") from None


_paces: dict[str, Pace] = {}
_paces_lock = threading.Lock()


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    """The machine's certificates. Reading them takes 20 ms."""
    return httpx.create_ssl_context()


class Web:
    """`addresses` maps a host to the base URL asked in its place; `tokens` a host to the bearer token that is sent
    there and nowhere else. `record` is a file that gets one line of JSON for each request before it leaves;
    `secrets` are exact values that may stand in no request, and `private` knows the goal's own data.

    Raises: ValueError for an address without TLS that is not on this machine, or a token for a host not on the list.
    """

    def __init__(
        self,
        cache: Path,
        *,
        hosts: Mapping[str, Host] = HOSTS,
        addresses: Mapping[str, str] | None = None,
        tokens: Mapping[str, str] | None = None,
        secrets: Sequence[str] = (),
        private: Private | None = None,
        record: Path | None = None,
        clock: Callable[[], float] = time.time,
        tick: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cache = Cache(cache)
        self._hosts, self._tokens = dict(hosts), {host: token for host, token in (tokens or {}).items() if token}
        self._addresses = {host: _base(base) for host, base in (addresses or {}).items()}
        if foreign := sorted({*self._tokens, *self._addresses} - set(self._hosts)):
            raise ValueError(f"{foreign[0]} is not a host that research asks")
        self._secrets, self._private = [*secrets, *self._tokens.values()], private
        self._record, self._clock, self._tick = record, clock, tick
        self._paces: dict[str, Pace] = {}

    async def get(
        self,
        url: str,
        *,
        params: Params | None = None,
        max_age_seconds: float = DAY_SECONDS,
        most_bytes: int = 16 << 20,
    ) -> Page:
        """The answer at `url`, from the cache when it is not older than `max_age_seconds`.

        Raises: NotFound, Busy, Refused; Malformed for an answer that is too long or of another kind.
        """
        url = self._checked(url, params or {})
        host = urlsplit(url).hostname or ""
        # What a token may see is kept apart from what everybody may see.
        key = f"{sha256(self._tokens[host].encode()).hexdigest()[:16]} {url}" if host in self._tokens else url
        kept = await asyncio.to_thread(self._cache.find, key)
        if kept is not None and 0 <= self._clock() - kept.fetched_at <= max_age_seconds:
            if len(kept.body) > most_bytes:
                raise _too_long(host, most_bytes)
            return Page(kept.url, 200, kept.content_type, kept.body, kept.fetched_at, cached=True)
        page = await self._fetched(url, most_bytes)
        await asyncio.to_thread(self._cache.keep, key, Kept(page.url, page.content_type, page.fetched_at, page.body))
        return page

    async def admit(self, url: str, params: Params | None = None) -> None:
        """Check, pace and record a request that another client sends. Raises: Refused, Busy."""
        parts = urlsplit(self._checked(url, params or {}))
        await self._turn(parts.hostname or "")
        await asyncio.to_thread(self._recorded, parts)

    def leave_alone(self, host: str, seconds: float | None) -> None:
        """Another client was told by `host` to come back later: nobody asks it before."""
        self._pace(host).close(seconds)

    def base(self, host: str) -> str:
        """The address that is asked for `host`, without a slash at its end."""
        return self._addresses.get(host, f"https://{host}")

    def _checked(self, url: str, params: Params) -> str:
        """`url` with `params`, in the one form that is sent and kept. Raises: Refused."""
        parts = urlsplit(url)
        host = self._host(url)
        if not host.paths.fullmatch(parts.path) or {".", ".."} & set(unquote(parts.path).split("/")):
            raise Refused(f"`{parts.hostname}{parts.path[:80]}` is no address that research reads.")
        pairs = parse_qsl(parts.query, keep_blank_values=True)
        for name, value in params.items():
            pairs += [(name, each) for each in ([value] if isinstance(value, str) else value)]
        if not all(name.replace("[]", "").replace("_", "").replace(".", "").isalnum() for name, _ in pairs):
            raise Refused(f"The request to {parts.hostname} has a parameter that is no name.")
        path = parts.path if host.free_parts is None else host.free_parts.sub("", parts.path)
        if any(secret in unquote(parts.path) for secret in self._secrets):
            raise Refused("This address is not asked, because it holds a secret.")
        words = [unquote(path), *(text for pair in pairs for text in pair)]
        check_query(words, secrets=self._secrets, private=self._private)
        query = urlencode(sorted(pairs, key=lambda pair: pair[0]), quote_via=quote)
        return f"https://{parts.hostname}{parts.path}" + (f"?{query}" if query else "")

    def _host(self, url: str) -> Host:
        parts = urlsplit(url)
        host = self._hosts.get(parts.netloc)
        if parts.scheme != "https" or host is None:
            known = ", ".join(sorted(self._hosts))
            raise Refused(f"`{url[:80]}` is not asked: research reads from {known} alone, by https.")
        return host

    async def _fetched(self, url: str, most_bytes: int) -> Page:
        host = urlsplit(url).hostname or ""
        try:
            async with asyncio.timeout(TOTAL_SECONDS):
                return await self._followed(url, most_bytes)
        except TimeoutError:
            raise Busy(f"{host} did not answer within {TOTAL_SECONDS:.0f} seconds.") from None
        except (httpx.HTTPError, OSError) as error:
            raise Busy(f"{host} could not be reached ({type(error).__name__}).") from error

    async def _followed(self, url: str, most_bytes: int) -> Page:
        asked = url
        for _ in range(MOST_REDIRECTS + 1):
            async with self._answer(asked) as response:
                if response.status_code not in _MOVED:
                    return await self._read(asked, response, most_bytes)
                target = urljoin(asked, self._named(response.headers.get("location", "")))
            if urlsplit(target).netloc != urlsplit(url).netloc:
                raise Refused(f"{urlsplit(url).hostname} leads to another host, {urlsplit(target).netloc[:80]}.")
            asked = self._checked(target, {})
        raise Refused(f"{urlsplit(url).hostname} redirects more than {MOST_REDIRECTS} times.")

    def _named(self, location: str) -> str:
        """A redirect of what stands in a host's place, under the host's name."""
        for host, base in self._addresses.items():
            if location == base or location.startswith(f"{base}/"):
                return f"https://{host}{location.removeprefix(base)}"
        return location

    @asynccontextmanager
    async def _answer(self, url: str) -> AsyncIterator[httpx.Response]:
        """The beginning of the answer to one request, in the host's turn."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        base = self.base(host)
        await self._turn(host)
        await asyncio.to_thread(self._recorded, parts)
        headers = {"User-Agent": "postdoc", "Accept-Encoding": "gzip"}
        if host in self._tokens:
            headers["Authorization"] = f"Bearer {self._tokens[host]}"
        # None of the environment's settings but its proxy: a .netrc would send its own passwords along.
        proxy = _proxy_for(base)
        async with (
            httpx.AsyncClient(verify=_tls(), trust_env=False, proxy=proxy, timeout=_TIMEOUT) as client,
            client.stream("GET", base + url.removeprefix(f"https://{host}"), headers=headers) as response,
        ):
            yield response

    async def _turn(self, host: str) -> None:
        wait, later = self._pace(host).turn()
        if later:
            raise Busy(f"{host} is asked again in {later:.0f} s at the earliest.", retry_after_seconds=later)
        if wait:
            await asyncio.sleep(wait)

    def _pace(self, host: str) -> Pace:
        """Shared by everybody in this process; what stands in a host's place has its own."""
        with _paces_lock:
            paces = self._paces if host in self._addresses else _paces
            if host not in paces:
                paces[host] = Pace(self._hosts[host].pause_seconds, self._tick)
            return paces[host]

    def _recorded(self, parts: SplitResult) -> None:
        if self._record is None:
            return
        sent = {"at": self._clock(), "host": parts.hostname, "path": unquote(parts.path), "query": unquote(parts.query)}
        self._record.parent.mkdir(parents=True, exist_ok=True)
        with self._record.open("a", encoding="utf-8") as file:
            file.write(json.dumps(sent) + "\n")

    async def _read(self, url: str, response: httpx.Response, most_bytes: int) -> Page:
        host = urlsplit(url).hostname or ""
        if response.status_code != 200:
            raise self._failure(host, url, response)
        self._pace(host).answered()
        content_type = response.headers.get("content-type", "")
        if not content_type.lower().startswith(self._hosts[host].content_types):
            raise Malformed(f"{host} answered with `{content_type[:60]}`, which is not read.")
        body = await _body(host, response, most_bytes)
        return Page(url, 200, content_type, body, self._clock(), cached=False)

    def _failure(self, host: str, url: str, response: httpx.Response) -> Exception:
        status, code = response.status_code, response.headers.get("x-error-code", "")[:80]
        if status in _GONE:
            return NotFound(f"{host} has nothing at {urlsplit(url).path[:120]}.", status=status, code=code)
        if status in _LATER or (status >= 500 and status != 501):
            asked = response.headers.get("retry-after", "")
            wait: float | None = float(asked) if asked.isdigit() else None
            # A single answer that is not ready says nothing about the host.
            if status == 429 or (status == 503 and wait is not None):
                wait = self._pace(host).close(wait)
            return Busy(f"{host} answered {status}.", retry_after_seconds=wait, status=status, code=code)
        return Refused(f"{host} refuses this request ({status}).", status=status, code=code)


async def _body(host: str, response: httpx.Response, most_bytes: int) -> bytes:
    """The answer's bytes, unpacked here because what a small answer unfolds to has to be bounded. Raises: Malformed."""
    encoding = response.headers.get("content-encoding", "identity").lower()
    if encoding not in ("identity", "", "gzip", "x-gzip"):
        raise Malformed(f"{host} answered in the encoding `{encoding[:40]}`, which was not asked for.")
    unpacking = zlib.decompressobj(wbits=31) if "gzip" in encoding else None
    parts, size = [], 0
    async for block in response.aiter_raw():
        try:
            data = block if unpacking is None else unpacking.decompress(block, most_bytes + 1 - size)
        except zlib.error:
            raise Malformed(f"{host} answered with broken compression.") from None
        parts.append(data)
        size += len(data)
        if size > most_bytes or (unpacking is not None and unpacking.unconsumed_tail):
            raise _too_long(host, most_bytes)
    if unpacking is not None and not unpacking.eof:
        raise Busy(f"{host} sent an answer that breaks off.")
    return b"".join(parts)


def _proxy_for(base: str) -> str | None:
    parts = urlsplit(base)
    if parts.scheme == "http" or urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    return os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy")


def _too_long(host: str, most_bytes: int) -> Malformed:
    return Malformed(f"{host} answered with more than {most_bytes:,} bytes, the most that is read.")


def _base(address: str) -> str:
    parts = urlsplit(address)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1")):
        raise ValueError(f"{address} is neither https nor on this machine")
    return address.rstrip("/")
