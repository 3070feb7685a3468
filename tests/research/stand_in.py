"""An HTTP server on loopback that answers as a research API does, and a `Web` that asks it in the API's place."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from bot.research.code import HOST
from bot.research.hosts import HOSTS, Host
from bot.research.web import Web


@dataclass
class Answer:
    body: bytes | str | Any = b""
    """Anything but bytes and text is sent as JSON."""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = ""

    def encoded(self) -> tuple[bytes, str]:
        if isinstance(self.body, bytes):
            return self.body, self.content_type or "application/octet-stream"
        if isinstance(self.body, str):
            return self.body.encode(), self.content_type or "text/html; charset=utf-8"
        return json.dumps(self.body).encode(), self.content_type or "application/json"


@dataclass
class Asked:
    path: str
    query: list[tuple[str, str]]
    headers: dict[str, str]
    """Names in lower case."""

    @property
    def params(self) -> dict[str, str]:
        return dict(self.query)


class StandIn:
    """`answers` maps a path to an answer, or to what makes one of the request; anything else is a 404."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer | Callable[[Asked], Answer]] = {}
        self.asked: list[Asked] = []
        self.tunnels: list[str] = []
        """Where it was asked to lead as a proxy, which it refuses."""
        self.url = ""

    @contextmanager
    def serve(self) -> Iterator[StandIn]:
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                return

            def do_GET(self) -> None:
                stand_in._answer(self)

            def do_CONNECT(self) -> None:
                stand_in.tunnels.append(self.path)
                self.send_error(403)

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that hangs up is expected
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(request.path)
        headers = {name.lower(): value for name, value in request.headers.items()}
        # GitHub's client puts this before a path wherever the host is not github.com.
        asked = Asked(
            unquote(parts.path).removeprefix("/api/v3"), parse_qsl(parts.query, keep_blank_values=True), headers
        )
        self.asked.append(asked)
        found = self.answers.get(asked.path, Answer({"error": "Not Found"}, status=404))
        answer = found(asked) if callable(found) else found
        body, content_type = answer.encoded()
        request.send_response(answer.status)
        for name, value in {"Content-Type": content_type, "Content-Length": str(len(body)), **answer.headers}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)


class WebReader:
    """Reads GitHub through `Web` itself, where a server's App would."""

    def __init__(self, web: Web) -> None:
        self._web = web

    async def read(self, path: str, params: Mapping[str, str], accept: str) -> Any:
        page = await self._web.get(f"https://{HOST}{path}", params=params, max_age_seconds=3600.0, most_bytes=4 << 20)
        return page.json()


def unpaced(hosts: dict[str, Host] | None = None) -> dict[str, Host]:
    """The hosts without pauses between requests."""
    return {name: dataclasses.replace(host, pause_seconds=0.0) for name, host in (hosts or dict(HOSTS)).items()}


def web_at(folder: Path, addresses: dict[str, str], **given: Any) -> Web:
    """A `Web` with an empty cache that asks these addresses without pauses, and nobody else: for every other host it
    has an address where nothing listens."""
    nowhere = dict.fromkeys(HOSTS, "http://127.0.0.1:9")
    return Web(folder / "cache", **{"hosts": unpaced(), "addresses": nowhere | addresses, **given})
