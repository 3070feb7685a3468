"""The part of the Hugging Face Hub that a data set is read by, served over HTTP to the real client.

Beside it, models are put there (`tests.fakes.hub_models`) and jobs run (`tests.fakes.hub_jobs`).

Paths and headers as huggingface_hub asks for them: `/api/datasets/<id>/revision/<revision>` and
`/datasets/<id>/resolve/<revision>/<path>` (https://huggingface.co/docs/hub/api).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.fakes.hub_jobs import FakeJobs, Streamed
from tests.fakes.hub_models import FakeModels, body_of


@dataclass
class DataSet:
    files: dict[str, bytes]
    card: dict[str, Any] = field(default_factory=lambda: {"license": "apache-2.0"})
    private: bool = False
    gated: bool = False
    branches: dict[str, str] = field(default_factory=dict)
    """Revision -> commit; `main` is the commit of the files as they are."""
    claims: dict[str, int] = field(default_factory=dict)
    """Path -> size that the listing claims instead of the true one."""

    @property
    def sha(self) -> str:
        return hashlib.sha1(repr(sorted(self.files.items())).encode()).hexdigest()


@dataclass
class Fault:
    """What happens instead of the answer, `times` times, to requests whose path holds `path`."""

    path: str
    times: int = 1
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    truncate: int | None = None
    """Send so many bytes of the body and hang up."""
    seconds: float = 0.0
    method: str = ""
    """Of the requests that are meant; any where none is said."""


class FakeHub:
    def __init__(self) -> None:
        self.sets: dict[str, DataSet] = {}
        self.tokens = {"hf_reader": {"acme/private"}}
        """Token -> private and gated data sets that it may read."""
        self.models = FakeModels()
        self.jobs = FakeJobs()
        self.accounts: dict[str, dict[str, Any]] = {}
        """Token -> what `whoami` says of it."""
        self.faults: list[Fault] = []
        self.asked: list[str] = []
        """`METHOD path` of every request."""
        self.seen_tokens: set[str] = set()
        self.url = ""

    @contextmanager
    def serve(self) -> Iterator[FakeHub]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                return

            def do_GET(self) -> None:
                hub.answer(self)

            def do_HEAD(self) -> None:
                hub.answer(self)

            def do_POST(self) -> None:
                hub.answer(self)

            def do_PUT(self) -> None:
                hub.answer(self)

            def do_DELETE(self) -> None:
                hub.answer(self)

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield self
        finally:
            self.jobs.close()
            server.shutdown()
            server.server_close()
            thread.join()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = unquote(urlsplit(request.path).path)
        self.asked.append(f"{request.command} {path}")
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        self.seen_tokens.add(token)
        body = body_of(request)
        fault = next((
            fault for fault in self.faults
            if fault.path in path and fault.times > 0 and fault.method in ("", request.command)
        ), None)  # fmt: skip
        if fault is not None:
            fault.times -= 1
            time.sleep(fault.seconds)
            if fault.status:
                _send(request, fault.status, b"{}", fault.headers)
                return
        name, rest = self._split(path)
        found = self.sets.get(name)
        if path == "/api/whoami-v2":
            known = self.accounts.get(token)
            _send(request, 200 if known else 401, json.dumps(known or {"error": "Invalid token"}).encode(), {})
            return
        jobs = self.jobs.answer(request.command, request.path, body, token, self.url)
        if isinstance(jobs, Streamed):
            _stream(request, jobs)
            return
        answer = jobs or self.models.answer(request.command, path, body, token, self.url, urlsplit(request.path).query)
        if answer is not None and answer.file is not None:
            status, part = _ranged(request, answer.status, answer.file)
            _send(request, status, part, answer.headers, fault.truncate if fault is not None else None)
        elif answer is not None:
            headers = {"Content-Type": "application/json"} | answer.headers
            _send(request, answer.status, json.dumps(answer.body).encode(), headers)
        elif token and token not in self.tokens:
            _send(request, 401, b'{"error": "Invalid credentials in Authorization header"}', {})
        elif found is None or (found.private and name not in self.tokens.get(token, ())):
            _send(request, 401 if not token else 404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif rest == "/auth-check":
            allowed = not found.gated or name in self.tokens.get(token, ())
            _send(request, 200 if allowed else 403, b"{}", {} if allowed else {"X-Error-Code": "GatedRepo"})
        elif path.startswith("/api/"):
            self._info(request, name, found, rest.removeprefix("/revision/") or "main")
        elif found.gated and name not in self.tokens.get(token, ()):
            _send(request, 403, b"{}", {"X-Error-Code": "GatedRepo"})
        else:
            revision, _, file = rest.removeprefix("/resolve/").partition("/")
            self._file(request, found, revision, file, fault.truncate if fault is not None else None)

    def _split(self, path: str) -> tuple[str, str]:
        parts = path.removeprefix("/api").removeprefix("/datasets/").split("/", 2)
        return "/".join(parts[:2]), f"/{parts[2]}" if len(parts) > 2 else ""

    def _info(self, request: BaseHTTPRequestHandler, name: str, found: DataSet, revision: str) -> None:
        commits = {"main": found.sha, found.sha: found.sha} | found.branches
        if revision not in commits:
            _send(request, 404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return
        siblings = [
            {"rfilename": path, "size": found.claims.get(path, len(data)), "blobId": hashlib.sha1(data).hexdigest()}
            for path, data in found.files.items()
        ]
        info = {
            "id": name, "sha": commits[revision], "private": found.private, "gated": "auto" if found.gated else False,
            "disabled": False, "downloads": 0, "likes": 0, "tags": [], "siblings": siblings, "cardData": found.card,
        }  # fmt: skip
        _send(request, 200, json.dumps(info).encode(), {"Content-Type": "application/json"})

    def _file(
        self, request: BaseHTTPRequestHandler, found: DataSet, revision: str, file: str, truncate: int | None
    ) -> None:
        data = found.files.get(file)
        if data is None or revision not in {found.sha, "main", *found.branches.values()}:
            _send(request, 404, b"{}", {"X-Error-Code": "EntryNotFound"})
            return
        headers = {
            "ETag": f'"{hashlib.sha256(data).hexdigest()}"',
            "X-Repo-Commit": found.sha,
            "Accept-Ranges": "bytes",
        }
        _send(request, 200, data, headers, truncate)


def _ranged(request: BaseHTTPRequestHandler, status: int, file: bytes) -> tuple[int, bytes]:
    """The part of a file that a request wants."""
    asked = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("range", ""))
    if asked is None or request.command != "GET":
        return status, file
    return 206, file[int(asked[1]) : int(asked[2]) + 1]


def _send(
    request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str], truncate: int | None = None
) -> None:
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body if truncate is None else body[:truncate])
    if truncate is not None:
        request.close_connection = True


def _stream(request: BaseHTTPRequestHandler, streamed: Streamed) -> None:
    request.send_response(200)
    request.send_header("Content-Type", "text/event-stream")
    request.send_header("Transfer-Encoding", "chunked")
    request.end_headers()

    def send(text: str) -> None:
        data = text.encode()
        request.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    request.close_connection = True
    with contextlib.suppress(ConnectionError):  # the reader has gone, or shall see a broken connection
        streamed.lines(send)
        request.wfile.write(b"0\r\n\r\n")
