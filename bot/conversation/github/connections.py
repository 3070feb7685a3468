"""Connections to GitHub: one pool for each event loop, through the proxy that the environment names."""

from __future__ import annotations

import asyncio
import ssl
import urllib.request
from collections.abc import Mapping
from functools import cached_property
from weakref import WeakKeyDictionary

import certifi
import httpx

KEPT_ALIVE_SECONDS = 30.0
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For plain http on this machine: reading the certificates takes 20 ms. It trusts nobody."""


class Connections(httpx.AsyncBaseTransport):
    """One pool of connections for each event loop: DBOS runs the workflows that it recovers on a loop of its own,
    where the connections of the server's loop cannot be used."""

    def __init__(self, proxy: str | None = None) -> None:
        self._proxy = proxy
        self._pools: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncHTTPTransport] = WeakKeyDictionary()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        loop = asyncio.get_running_loop()
        if loop not in self._pools:
            self._pools[loop] = httpx.AsyncHTTPTransport(
                verify=self._tls if request.url.scheme == "https" else NO_TLS,
                trust_env=False,
                proxy=self._proxy,
                limits=httpx.Limits(max_keepalive_connections=20, keepalive_expiry=KEPT_ALIVE_SECONDS),
                retries=1,  # of the connecting alone: nothing has been sent by then
            )
        return await self._pools[loop].handle_async_request(request)

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """The machine's certificates, so that a company's own authority is known, beside the usual ones."""
        context = ssl.create_default_context()
        context.load_verify_locations(certifi.where())
        return context

    async def aclose(self) -> None:
        """Close the connections of the loop that this runs on; another loop's end with it."""
        pool = self._pools.pop(asyncio.get_running_loop(), None)
        if pool is not None:
            await pool.aclose()


class KeptOpen(httpx.AsyncBaseTransport):
    """Passes requests on, and stays open when the client is closed: githubkit makes one for each call."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._transport.handle_async_request(request)


def proxy_for(url: str, environment: Mapping[str, str]) -> str | None:
    """The proxy that `https_proxy` and `no_proxy` choose for an https server, as every other tool reads them."""
    parts = httpx.URL(url)
    named = environment.get("https_proxy") or environment.get("HTTPS_PROXY")
    if parts.scheme != "https" or not named:
        return None
    exempt = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    if urllib.request.proxy_bypass_environment(parts.host, {"no": exempt}):  # type: ignore[attr-defined]
        return None
    return named if "://" in named else f"http://{named}"
