"""Files at https addresses, against a real server with TLS that redirects, stalls, lies and hangs up."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from bot.conversation.goal_fields import address_problem
from bot.conversation.policy import Policy
from bot.domain.data_source import AddressSource, parse_source
from bot.errors import TransientError, UserError
from bot.loop import address
from bot.loop.address import fetch_address, is_public
from tests.fakes.rows_server import RowsServer

ROWS = b'{"prompt": "a", "completion": "b"}\n' * 40


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RowsServer]:
    with RowsServer(tmp_path_factory.mktemp("tls")).serve() as found:
        yield found


@pytest.fixture(autouse=True)
def trusted(server: RowsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(server.authority))
    server.files = {"/sets/rows.jsonl": ROWS, "/elsewhere/rows.jsonl": ROWS}
    server.asked.clear()


def fetch(server: RowsServer, url: str, folder: Path, *, private: bool = True) -> AddressSource:
    source = parse_source(url)
    assert isinstance(source, AddressSource)
    policy = Policy(data_urls=(server.url("/sets/"),))
    hosts = (server.host,) if private else ()
    return asyncio.run(
        fetch_address(source, folder, allowed=lambda asked: address_problem(asked, policy), private_hosts=hosts)
    )


def test_file_is_kept_under_its_digest_and_named_by_it(server: RowsServer, tmp_path: Path) -> None:
    found = fetch(server, server.url("/sets/rows.jsonl"), tmp_path)

    assert str(found) == f"{server.url('/sets/rows.jsonl')}@sha256:{hashlib.sha256(ROWS).hexdigest()}"
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [(found.sha256, ROWS)]


def test_pinned_file_that_has_changed_is_refused(server: RowsServer, tmp_path: Path) -> None:
    pinned = fetch(server, server.url("/sets/rows.jsonl"), tmp_path)
    server.files["/sets/rows.jsonl"] = ROWS + b"{}\n"

    with pytest.raises(UserError, match="has changed since it was agreed"):
        fetch(server, str(pinned), tmp_path / "again")
    assert list((tmp_path / "again").iterdir()) == []


def test_private_network_is_for_the_servers_owner_to_allow(server: RowsServer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"lies on a private network.*POSTDOC_PRIVATE_DATA_HOSTS"):
        fetch(server, server.url("/sets/rows.jsonl"), tmp_path, private=False)
    assert server.asked == []


def test_redirect_is_followed_inside_of_what_the_policy_allows_alone(server: RowsServer, tmp_path: Path) -> None:
    server.redirects = {
        "/sets/moved.jsonl": "/sets/rows.jsonl",
        "/sets/out.jsonl": "/elsewhere/rows.jsonl",
        "/sets/away.jsonl": "https://169.254.169.254/sets/latest.jsonl",
        "/sets/plain.jsonl": f"http://{server.host}/sets/rows.jsonl",
        "/sets/login.jsonl": "/sets/rows.jsonl?next=1",
        "/sets/file.jsonl": "file:///etc/passwd.jsonl",
        "/sets/loop.jsonl": "/sets/loop.jsonl",
    }

    assert fetch(server, server.url("/sets/moved.jsonl"), tmp_path).sha256 == hashlib.sha256(ROWS).hexdigest()
    for path, words in {
        "out": "lies in none of the places",
        "away": "lies in none of the places",
        "plain": "is redirected to `http://",
        "login": "is redirected to",
        "file": "is redirected to `file:",
        "loop": "redirected more than 3 times",
    }.items():
        with pytest.raises(UserError, match=words):
            fetch(server, server.url(f"/sets/{path}.jsonl"), tmp_path)
    assert "/elsewhere/rows.jsonl" not in server.asked


def test_size_has_an_end_whatever_the_server_says(
    server: RowsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(address, "MOST_BYTES", 1000)

    def endless(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        while True:
            request.wfile.write(ROWS)

    def compressed(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Encoding", "gzip")
        request.end_headers()

    server.answers = {"/sets/endless.jsonl": endless, "/sets/gzip.jsonl": compressed}
    for path, words in {"endless": "holds more than", "rows": "holds more than", "gzip": "sent compressed"}.items():
        with pytest.raises(UserError, match=words):
            fetch(server, server.url(f"/sets/{path}.jsonl"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_time_has_an_end(server: RowsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "TOTAL_SECONDS", 0.5)
    server.slow = {"/sets/rows.jsonl": 0.05}
    try:
        with pytest.raises(UserError, match="was not delivered within"):
            fetch(server, server.url("/sets/rows.jsonl"), tmp_path)
    finally:
        server.slow = {}


def test_what_may_pass_is_told_from_what_does_not(server: RowsServer, tmp_path: Path) -> None:
    def busy(request: BaseHTTPRequestHandler) -> None:
        request.send_response(429)
        request.send_header("Retry-After", "7")
        request.end_headers()

    def cut(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "5000")
        request.end_headers()
        request.wfile.write(b"{}")

    server.answers = {"/sets/busy.jsonl": busy, "/sets/cut.jsonl": cut}
    with pytest.raises(TransientError) as caught:
        fetch(server, server.url("/sets/busy.jsonl"), tmp_path)
    assert caught.value.retry_after_seconds == 7
    with pytest.raises(TransientError):
        fetch(server, server.url("/sets/cut.jsonl"), tmp_path)
    with pytest.raises(UserError, match="answered 404"):
        fetch(server, server.url("/sets/none.jsonl"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_certificate_of_nobody_is_not_believed(
    server: RowsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")

    with pytest.raises(TransientError, match="ConnectError"):
        fetch(server, server.url("/sets/rows.jsonl"), tmp_path)


@pytest.mark.parametrize(
    ("written", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:93.184.216.34", True),
        ("2002:7f00:1::", False),
        ("64:ff9b::a9fe:a9fe", False),
        ("64:ff9b::5db8:d822", True),
    ],
)
def test_public_network_is_told_from_every_other(written: str, public: bool) -> None:
    assert is_public(written) is public
