"""The store of a far job behind the server: for the job's own token alone, whole or not at all, however the line is."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from bot.config import Settings
from bot.errors import PlatformError, UserError
from bot.practice.auth import new_key_pair
from bot.server import job_store, uploads
from bot.server.job_store import JobStores, routes_of
from bot.server.run_tokens import RunTokens
from runners.github_actions.backend import STORE
from runners.job import Caps, JobId, JobSpec, JobState, JobStatus
from runners.layout import SPEC, STATUS, write_json
from runners.remote.http_store import HttpStore
from runners.remote.store import StoreClosed, open_store

KEY = new_key_pair()[0]


def tokens_with(**values: Any) -> RunTokens:
    given = {"app_id": "1", "private_key": KEY, "webhook_secret": "a-secret-for-tests"} | values
    return RunTokens(Settings.model_validate(given))


class Place:
    """A root with one job under way, and the endpoints over it."""

    def __init__(self, root: Path) -> None:
        self.root, self.tokens = root, tokens_with()
        self.now = 0.0
        self.stores = JobStores(root, self.tokens, clock=lambda: self.now)
        self.app = FastAPI()
        self.app.include_router(routes_of(self.stores))
        (root / "job" / STORE).mkdir(parents=True)
        write_json(root / "job" / SPEC, JobSpec(JobId("job"), ("true",), caps=Caps(disk_gib=0.001)).as_dict())

    @property
    def folder(self) -> Path:
        return self.root / "job" / STORE

    def end(self) -> None:
        write_json(self.root / "job" / STATUS, JobStatus(JobId("job"), JobState.LOST).as_dict())

    def client(self, job: str = "job", **options: Any) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {self.tokens.of(job)}"}
        transport = httpx.ASGITransport(self.app)
        return httpx.AsyncClient(transport=transport, base_url="http://bot.test", **({"headers": headers} | options))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "jobs")


@pytest.fixture
async def http(place: Place) -> AsyncIterator[httpx.AsyncClient]:
    async with place.client() as client:
        yield client


def digest(content: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:"


def piece(content: bytes, start: int, end: int) -> dict[str, str]:
    return {"Repr-Digest": digest(content), "Content-Range": f"bytes {start}-{end - 1}/{len(content)}"}


# --- who, what and when


@pytest.mark.parametrize("path", ["status.json", "inputs.tar", ""])
@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_only_the_jobs_own_token_opens_its_store(place: Place, method: str, path: str) -> None:
    if method == "PUT" and not path:
        return  # there is no such endpoint
    url = f"/runs/job/store/{path}".rstrip("/")
    for authorization in ("", "Bearer ", f"Bearer {place.tokens.of('another')}", place.tokens.of("job"), "Bearer é"):
        async with place.client(headers={"Authorization": authorization.encode("latin-1")}) as client:
            answer = await client.request(method, url)
        assert (answer.status_code, answer.json()["error"]) == (401, "a bearer token made for this job is needed")


async def test_tokens_outlive_a_restart_and_a_change_of_keys(place: Place) -> None:
    token = tokens_with().of("job")
    assert tokens_with(webhook_secret="another secret").of("job") == token
    assert tokens_with().of("job-2") != token
    old = place.root / "old.pem"
    old.write_text(KEY)
    changed = tokens_with(private_key=new_key_pair()[0], retired_key_paths=(old,))
    assert changed.of("job") != token
    assert changed.accepts("job", f"Bearer {token}")
    assert not changed.accepts("job-2", f"Bearer {token}")


async def test_job_that_is_unknown_or_has_ended_takes_nothing(place: Place, http: httpx.AsyncClient) -> None:
    async with place.client("gone") as client:
        answer = await client.get("/runs/gone/store/inputs.tar")
    assert (answer.status_code, answer.json()["closed"]) == (404, True)
    assert (await http.put("/runs/job/store/status.json", content=b"{}")).status_code == 201
    place.end()
    for method in ("GET", "PUT"):
        answer = await http.request(method, "/runs/job/store/status.json")
        assert (answer.status_code, answer.json()) == (410, {"error": "the job has ended: lost", "closed": True})


@pytest.mark.parametrize(
    ("key", "status"),
    [
        ("inputs.tar", 403), ("cancel", 403), ("seal.key", 403), ("other", 403), ("metrics/x.jsonl", 403),
        ("checkpoints/latest.tar", 403), ("checkpoints/1.tar.part", 403), ("log/00000001.jsonl", 403),
        ("metrics/99999999.jsonl", 413), ("..", 404), ("%2e%2e/spec.json", 400), ("metrics/%2e%2e", 400),
        ("a/b/c", 400), ("/etc/passwd", 400), (".hidden", 400), ("STATUS.json", 400), ("x%00y", 400),
        ("%2Fetc%2Fpasswd", 400), ("..%2fspec.json", 400), ("é", 400),
    ],
)  # fmt: skip
async def test_job_writes_what_is_its_own_to_say(place: Place, http: httpx.AsyncClient, key: str, status: int) -> None:
    before = sorted(place.root.rglob("*"))
    answer = await http.put(f"/runs/job/store/{key}", content=b"x")
    # What a client resolves by itself is another address, at which there is nothing.
    assert answer.status_code == status or (answer.status_code == 404 and ".." in httpx.URL(key).path), answer.text
    assert sorted(place.root.rglob("*")) == before


@pytest.mark.parametrize("key", ["outputs.tar", "log/00000001.txt", "other", "%2e%2e/spec.json", "..%2fspec.json"])
async def test_job_reads_what_it_is_given_and_no_more(place: Place, http: httpx.AsyncClient, key: str) -> None:
    (place.folder / "outputs.tar").write_bytes(b"mine")
    assert (await http.get(f"/runs/job/store/{key}")).status_code in (403, 404)
    (place.folder / "inputs.tar").write_bytes(b"given")
    assert (await http.get("/runs/job/store/inputs.tar")).content == b"given"
    rest = await http.get("/runs/job/store/inputs.tar", headers={"Range": "bytes=2-"})
    assert (rest.status_code, rest.content) == (206, b"ven")
    absent = await http.get("/runs/job/store/cancel")
    assert (absent.status_code, absent.json()["missing"]) == (404, True)


async def test_names_are_listed_by_prefix(place: Place, http: httpx.AsyncClient) -> None:
    for n in (2, 1):
        await http.put(f"/runs/job/store/metrics/{n:08d}.jsonl", content=b"{}\n")
    answer = await http.get("/runs/job/store", params={"prefix": "metrics/"})
    assert answer.json() == {"names": ["metrics/00000001.jsonl", "metrics/00000002.jsonl"]}
    for prefix in ("", "..", "../", "/", "inputs"):
        assert (await http.get("/runs/job/store", params={"prefix": prefix})).status_code == 400


async def test_sizes_have_an_end(place: Place, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await http.put("/runs/job/store/status.json", content=b"x" * (256 << 10))).status_code == 201
    assert (await http.put("/runs/job/store/status.json", content=b"y" * ((256 << 10) + 1))).status_code == 413
    assert (place.folder / "status.json").read_bytes()[:1] == b"x"
    limit = int(0.001 * 1.05 * 2**30) + (1 << 20)
    assert (await http.put("/runs/job/store/outputs.tar", content=b"x" * (limit + 1))).status_code == 413
    headers = {"Repr-Digest": digest(b""), "Content-Range": f"bytes */{limit + 1}"}
    assert (await http.put("/runs/job/store/outputs.tar", headers=headers)).status_code == 413
    monkeypatch.setattr(uploads, "KEPT_FREE_BYTES", 1 << 60)
    full = await http.put("/runs/job/store/outputs.tar", content=b"x")
    assert (full.status_code, full.headers["Retry-After"]) == (507, "1")
    assert [path.name for path in place.folder.iterdir()] == ["status.json"]


async def test_hurry_is_slowed_down(place: Place, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_store, "BURST", 60.0)

    async def ask() -> int:
        return (await http.get("/runs/job/store/cancel")).status_code

    codes = [await ask() for _ in range(int(job_store.BURST) + 5)]
    assert codes.count(429) == 5
    assert (await http.get("/runs/job/store/cancel")).headers["Retry-After"] == "1"
    place.now += 1
    assert [await ask() for _ in range(60)].count(429) == 10


# --- pieces


CONTENT = os.urandom(1_500_000)


async def test_pieces_make_a_whole_and_nothing_before(place: Place, http: httpx.AsyncClient) -> None:
    url = "/runs/job/store/outputs.tar"
    for start, end in ((0, 400_000), (400_000, 1_000_000)):
        answer = await http.put(url, content=CONTENT[start:end], headers=piece(CONTENT, start, end))
        assert (answer.status_code, answer.json()) == (202, {"received": end})
        assert not (place.folder / "outputs.tar").exists()
    asked = {"Repr-Digest": digest(CONTENT), "Content-Range": f"bytes */{len(CONTENT)}"}
    assert (await http.put(url, headers=asked)).json() == {"received": 1_000_000}
    # Another server, or the same after its restart, goes on with what lies on the disk.
    again = JobStores(place.root, place.tokens)
    app = FastAPI()
    app.include_router(routes_of(again))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://b.test", headers=http.headers
    ) as other:
        skipped = await other.put(url, content=b"x", headers=piece(CONTENT, 1_200_000, 1_200_001))
        assert (skipped.status_code, skipped.json()["received"]) == (416, 1_000_000)
        last = await other.put(url, content=CONTENT[1_000_000:], headers=piece(CONTENT, 1_000_000, len(CONTENT)))
    assert last.status_code == 201
    assert (place.folder / "outputs.tar").read_bytes() == CONTENT
    assert [path.name for path in place.folder.iterdir()] == ["outputs.tar"]


async def test_pieces_of_two_files_are_not_mixed(place: Place, http: httpx.AsyncClient) -> None:
    url, other = "/runs/job/store/outputs.tar", CONTENT[::-1]
    await http.put(url, content=CONTENT[:1000], headers=piece(CONTENT, 0, 1000))
    answer = await http.put(url, content=other[1000:], headers=piece(other, 1000, len(other)))
    assert (answer.status_code, answer.json()["received"]) == (416, 0)


async def test_whole_that_is_not_what_its_digest_says_is_begun_anew(place: Place, http: httpx.AsyncClient) -> None:
    url = "/runs/job/store/outputs.tar"
    wrong = b"x" * len(CONTENT)
    answer = await http.put(url, content=wrong, headers=piece(CONTENT, 0, len(CONTENT)))
    assert (answer.status_code, answer.json()["received"]) == (422, 0)
    assert list(place.folder.iterdir()) == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Range": "bytes 0-9/10"},
        {"Content-Range": "bytes 0-9/10", "Repr-Digest": "sha-256=:short:"},
        {"Content-Range": "bytes 9-0/10", "Repr-Digest": digest(b"")},
        {"Content-Range": "bytes 0-10/10", "Repr-Digest": digest(b"")},
        {"Content-Range": "items 0-9/10", "Repr-Digest": digest(b"")},
        {"Content-Range": "bytes 0-4/10", "Repr-Digest": digest(b"")},
    ],
)
async def test_piece_that_makes_no_sense_is_refused(
    place: Place, http: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    answer = await http.put("/runs/job/store/outputs.tar", content=b"0123456789", headers=headers)
    assert answer.status_code == 400, answer.text
    assert not (place.folder / "outputs.tar").exists()


async def test_old_checkpoints_make_room_for_new_ones(place: Place, http: httpx.AsyncClient) -> None:
    for step in (20, 100, 60):
        await http.put(f"/runs/job/store/checkpoints/{step}.tar", content=b"c")
    await http.put("/runs/job/store/checkpoints/40.tar", content=b"c" * 5, headers=piece(b"c" * 10, 0, 5))
    await http.put("/runs/job/store/checkpoints/120.tar", content=b"c")
    assert sorted(path.name for path in (place.folder / "checkpoints").iterdir()) == ["100.tar", "120.tar"]


# --- the other side of it


@contextmanager
def served(app: Any) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as door:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", access_log=False))
        thread = threading.Thread(target=server.run, args=([door],), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{door.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)


@contextmanager
def breaking(target: str, carries: int) -> Iterator[tuple[str, list[int]]]:
    """A line to `target` of which each connection carries so many bytes either way, and its connections so far."""
    port, connections = int(target.rpartition(":")[2]), list[int]()

    def carry(one: socket.socket, other: socket.socket) -> None:
        left = carries
        with contextlib.suppress(OSError):
            while left > 0 and (data := one.recv(min(65536, left))):
                other.sendall(data)
                left -= len(data)
        for each in (one, other):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def connect(near: socket.socket) -> None:
        with near, socket.create_connection(("127.0.0.1", port)) as far:
            back = threading.Thread(target=carry, args=(far, near), daemon=True)
            back.start()
            carry(near, far)
            back.join()

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                near = door.accept()[0]
                connections.append(1)
                threads.append(threading.Thread(target=connect, args=(near,), daemon=True))
                threads[-1].start()

    threads: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0)) as door:
        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        yield f"http://127.0.0.1:{door.getsockname()[1]}", connections
        door.shutdown(socket.SHUT_RDWR)
        for thread in (accepting, *threads):
            thread.join(10)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runners.remote.http_store.time.sleep", lambda _: None)


@pytest.mark.usefixtures("quick")
def test_broken_line_costs_time_and_nothing_else(place: Place, tmp_path: Path) -> None:
    """2 MB in either direction over connections that break after 300 kB."""
    large, back = tmp_path / "large", tmp_path / "back"
    large.write_bytes(os.urandom(2_000_000))
    with served(place.app) as url, breaking(url, 300_000) as (line, connections):
        store = HttpStore(f"{line}/runs/job/store", place.tokens.of("job"), piece_bytes=500_000)
        store.push(large, "outputs.tar")
        assert (place.folder / "outputs.tar").read_bytes() == large.read_bytes()
        os.replace(place.folder / "outputs.tar", place.folder / "inputs.tar")
        assert store.fetch("inputs.tar", back)
        assert back.read_bytes() == large.read_bytes()
        assert len(connections) > 12


@pytest.mark.usefixtures("quick")
def test_dead_line_is_given_up(place: Place, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * 1000)
    (place.folder / "inputs.tar").write_bytes(b"x" * 1000)
    with served(place.app) as url, breaking(url, 100) as (line, _):
        store = HttpStore(f"{line}/runs/job/store", place.tokens.of("job"), piece_bytes=500)
        for act in (
            lambda: store.push(tmp_path / "large", "outputs.tar"),
            lambda: store.fetch("inputs.tar", tmp_path / "b"),
        ):
            with pytest.raises((PlatformError, OSError)):
                act()


def test_store_says_the_same_over_http_as_in_a_folder(place: Place, tmp_path: Path) -> None:
    with served(place.app) as url:
        store = open_store(f"{url}/runs/job/store", place.tokens.of("job"))
        assert store.read("status.json") is None
        store.write("status.json", b'{"state": "running"}')
        assert store.read("status.json") == b'{"state": "running"}'
        assert store.names("log/") == []
        store.write("log/00000001.txt", "gr\u00fc\u00dfe".encode())
        assert store.names("log/") == ["log/00000001.txt"]
        assert store.fetch("inputs.tar", tmp_path / "i") is False
        (tmp_path / "empty").touch()
        store.push(tmp_path / "empty", "outputs.tar")
        assert (place.folder / "outputs.tar").read_bytes() == b""
        place.end()
        for act in (lambda: store.read("cancel"), lambda: store.write("status.json", b"{}"),
                    lambda: store.names("log/"), lambda: store.fetch("inputs.tar", tmp_path / "i")):  # fmt: skip
            with pytest.raises(StoreClosed, match="the job has ended: lost"):
                act()


@contextmanager
def answering(status: int, body: bytes, headers: dict[str, str]) -> Iterator[tuple[str, list[str]]]:
    """A server that says one thing, and what it was asked with."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization", ""))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", seen
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "body"),
    [(404, b"<h1>nginx</h1>"), (410, b"gone"), (404, b'{"detail": "Not Found"}'), (502, b"[]"), (200, b"no json")],
)
def test_page_of_a_proxy_is_no_word_of_ours(status: int, body: bytes) -> None:
    """A job must not end because of a proxy's error page during an upgrade."""
    with answering(status, body, {}) as (url, _), pytest.raises(PlatformError) as raised:
        HttpStore(f"{url}/runs/job/store", "token").names("log/")
    assert not isinstance(raised.value, StoreClosed)


def test_token_follows_no_redirect() -> None:
    with contextlib.ExitStack() as stack:
        elsewhere, seen = stack.enter_context(answering(200, json.dumps({"names": []}).encode(), {}))
        url, _ = stack.enter_context(answering(307, b"", {"Location": f"{elsewhere}/x"}))
        with pytest.raises(PlatformError):
            HttpStore(f"{url}/runs/job/store", "token").names("log/")
    assert seen == []


@pytest.mark.parametrize(
    "address", ["http://postdoc.example.org/runs/j/store", "ftp://127.0.0.1/x", "http://10.0.0.5/"]
)
def test_store_that_could_be_read_on_the_way_is_refused(address: str) -> None:
    with pytest.raises(UserError, match="use https"):
        open_store(address, "token")


def test_store_behind_an_address_needs_a_token() -> None:
    with pytest.raises(UserError, match="needs the job's token"):
        open_store("https://postdoc.example.org/runs/j/store")
