"""The forge over HTTP: REST at /api/v3, GraphQL at /api/graphql, git at /{owner}/{repo}.git, and the pages."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from . import graphql, machines, rest, smart_http
from .forge import Forge
from .replies import DOCUMENTATION
from .routing import ConnectionDropped, starlette_route

API = "/api/v3"
START_SECONDS = 10.0
STOP_SECONDS = 2.0


def create_app(forge: Forge) -> FastAPI:
    """The whole forge as one application; the pages are mounted where `bot.practice.pages` is installed."""
    app = FastAPI(title="Practice forge", openapi_url=None, docs_url=None, redoc_url=None)
    for endpoint in rest.endpoints():
        resource = "search" if endpoint.path.startswith("/search/") else "core"
        app.router.routes.append(starlette_route(forge, endpoint, API, resource))
    app.router.routes.append(starlette_route(forge, graphql.ENDPOINT, "/api", "graphql"))
    app.router.routes.append(Route(API + "/{rest:path}", _nowhere, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]))

    async def git(request: Request) -> Response:
        return await smart_http.serve(forge, request)

    app.router.routes += machines.routes(forge)
    app.router.routes.append(Route("/{owner}/{repo}.git/{inner:path}", git, methods=["GET", "POST"]))
    if importlib.util.find_spec("bot.practice.pages") is not None:
        importlib.import_module("bot.practice.pages").mount(app, forge)
    app.add_middleware(_DroppedConnections)
    return app


async def _nowhere(request: Request) -> Response:
    return JSONResponse({"message": "Not Found", "documentation_url": DOCUMENTATION, "status": "404"}, 404)


class _DroppedConnections:
    """Turns the fault into one: a response is begun and never finished, so the server hangs up."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except ConnectionDropped:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})


class _Server(uvicorn.Server):
    """uvicorn in a thread: it says when it is up, sleeps while nobody asks, and stops at once.

    uvicorn's own loops wake every 100 ms, and take two more of those to stop.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        self.up.set()

    async def main_loop(self) -> None:
        await self._stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        deadline = time.monotonic() + STOP_SECONDS
        # uvicorn tells nobody when its last connection has closed.
        while (self.server_state.connections or self.server_state.tasks) and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        for task in self.server_state.tasks:
            task.cancel()

    def stop(self) -> None:
        """From any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)


def _listen(host: str, port: int) -> socket.socket:
    # The protocol number must be named: asyncio turns Nagle's algorithm off only for sockets that carry it, and with
    # it on, each answer over a kept connection waits 40 ms for a delayed acknowledgement.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError:
        listening.close()
        raise
    listening.listen(128)
    return listening


@contextmanager
def serve(
    forge: Forge, host: str = "127.0.0.1", port: int = 0, *, wrap: Callable[[ASGIApp], ASGIApp] | None = None
) -> Iterator[str]:
    """Serves until the block ends and yields the base URL. `port` 0 takes a free one.

    `wrap` puts a layer of the caller's around the application, one that watches every exchange for example.

    Raises: ValueError for an address that other machines could reach; OSError when the port is taken.
    """
    if not ipaddress.ip_address("127.0.0.1" if host == "localhost" else host).is_loopback:
        raise ValueError(f"the practice forge serves this machine only: use 127.0.0.1 instead of {host}")
    listening = _listen("127.0.0.1" if host == "localhost" else host, port)
    address, bound = listening.getsockname()[:2]
    forge.base_url = f"http://[{address}]:{bound}" if ":" in address else f"http://{address}:{bound}"
    # asyncio rather than uvloop: git http-backend is started from this thread's loop.
    app: ASGIApp = create_app(forge)
    config = uvicorn.Config(
        wrap(app) if wrap else app,
        loop="asyncio",
        lifespan="off",
        log_level="critical",
        access_log=False,
        ws="none",
        server_header=False,
        date_header=False,
    )
    server = _Server(config)
    thread = threading.Thread(target=server.run, args=([listening],), name="practice-forge", daemon=True)
    thread.start()
    try:
        if not server.up.wait(START_SECONDS):
            raise RuntimeError("the practice forge did not start")
        yield forge.base_url
    finally:
        server.should_exit = True
        server.stop()
        thread.join(timeout=START_SECONDS)
        listening.close()
