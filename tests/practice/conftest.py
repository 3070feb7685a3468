"""A forge with one team's repository, served on loopback, whose every answer GitHub's own description has to accept."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from bot.practice.auth import AppRegistration, new_key_pair
from bot.practice.forge import Forge
from bot.practice.server import serve
from tests import graphql_schema, openapi

SECRET = "a secret for the tests"
PERMISSIONS = dict.fromkeys(("contents", "issues", "pull_requests", "checks", "statuses", "actions"), "write")
EVENTS = (
    "issues",
    "issue_comment",
    "pull_request",
    "pull_request_review",
    "pull_request_review_comment",
    "check_run",
    "check_suite",
    "push",
    "create",
    "delete",
    "status",
    "workflow_run",
    "workflow_job",
)
REPOSITORY = "acme/lab"
RECIPE = "learning_rate: 2e-5\nmax_length: 1024\nnum_train_epochs: 1\nseed: 0\nwarmup_steps: 10\n"
COMMIT = "mutation($input: CreateCommitOnBranchInput!) { createCommitOnBranch(input: $input) { commit { oid url } } }"


NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Given to every client, because making one of its own takes each of them 20 ms."""


class Clock:
    """The forge's clock, which a test may put forward."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def advance(self, **duration: float) -> None:
        self.ahead += timedelta(**duration)


@dataclass(frozen=True)
class Received:
    """One webhook as it arrived."""

    headers: dict[str, str]
    raw: bytes

    @property
    def event(self) -> str:
        return self.headers["x-github-event"]

    @property
    def payload(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(self.raw)
        return loaded

    @property
    def name(self) -> str:
        action = self.payload.get("action")
        return f"{self.event}.{action}" if action else self.event


class Inbox:
    """A webhook receiver; `answer` is the status it gives."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.answer = 202
        inbox = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["content-length"]))
                inbox.received.append(Received({name.lower(): value for name, value in self.headers.items()}, raw))
                self.send_response(inbox.answer)
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/webhook"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@cache
def app_key() -> str:
    """One key for all tests: making one takes 100 ms."""
    return new_key_pair()[0]


@cache
def signing_key(pem: str) -> RSAPrivateKey:
    """Reading and checking a key takes longer than signing with it."""
    key = load_pem_private_key(pem.encode(), password=None)
    assert isinstance(key, RSAPrivateKey)
    return key


@dataclass
class World:
    forge: Forge
    url: str
    app: AppRegistration
    installation_id: int
    inbox: Inbox
    clock: Clock
    recorder: openapi.Recorder
    clients: list[httpx.Client] = field(default_factory=list)

    @property
    def api(self) -> str:
        return f"{self.url}/api/v3"

    def client(self, token: str | None = None) -> httpx.Client:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        client = httpx.Client(base_url=self.api, headers=headers, trust_env=False, verify=NO_TLS)
        self.clients.append(client)
        return client

    def as_user(self, login: str) -> httpx.Client:
        return self.client(self.forge.user_token(login))

    def app_token(self, **claims: Any) -> str:
        now = int(self.clock().timestamp())
        body = {"iss": str(self.app.app_id), "iat": now - 60, "exp": now + 500} | claims
        return jwt.encode(body, signing_key(self.app.private_key_pem), algorithm="RS256")

    def as_app(self) -> httpx.Client:
        return self.client(self.app_token())

    def bot_token(self, **narrowing: Any) -> str:
        answer = self.as_app().post(f"/app/installations/{self.installation_id}/access_tokens", json=narrowing)
        assert answer.status_code == 201, answer.text
        token: str = answer.json()["token"]
        return token

    def as_bot(self, **narrowing: Any) -> httpx.Client:
        return self.client(self.bot_token(**narrowing))

    def repo(self, path: str = "") -> str:
        return f"/repos/{REPOSITORY}{path}"

    def graphql(self, client: httpx.Client, document: str, **variables: Any) -> dict[str, Any]:
        """Sends a document that GitHub's schema accepts, and returns the answer."""
        if graphql_schema.available():
            assert graphql_schema.problems(document) == []
        answer = client.post(f"{self.url}/api/graphql", json={"query": document, "variables": variables})
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    def tip(self, branch: str = "main") -> str:
        oid = self.forge.repository(REPOSITORY).git.branch(branch)
        assert oid is not None
        return oid

    def commit(self, client: httpx.Client, files: dict[str, str], branch: str = "work", base: str = "main") -> str:
        """Writes files on a branch (made from `base` when it is new) with createCommitOnBranch; returns the commit."""
        if self.forge.repository(REPOSITORY).git.branch(branch) is None:
            made = client.post(self.repo("/git/refs"), json={"ref": f"refs/heads/{branch}", "sha": self.tip(base)})
            assert made.status_code == 201, made.text
        additions = [{"path": p, "contents": base64.b64encode(t.encode()).decode()} for p, t in files.items()]
        answer = self.graphql(
            client,
            COMMIT,
            input={
                "branch": {"repositoryNameWithOwner": REPOSITORY, "branchName": branch},
                "expectedHeadOid": self.tip(branch),
                "message": {"headline": "Write files"},
                "fileChanges": {"additions": additions},
            },
        )
        assert "errors" not in answer, answer
        oid: str = answer["data"]["createCommitOnBranch"]["commit"]["oid"]
        return oid

    def pull(self, client: httpx.Client, files: dict[str, str] | None = None, **fields: Any) -> dict[str, Any]:
        """Opens a pull request from branch `work` that adds experiments/1/recipe.yaml."""
        self.commit(client, files or {"experiments/1/recipe.yaml": RECIPE})
        body = {"title": "Experiment", "head": "work", "base": "main"} | fields
        answer = client.post(self.repo("/pulls"), json=body)
        assert answer.status_code == 201, answer.text
        shape: dict[str, Any] = answer.json()
        return shape

    def events(self) -> list[Received]:
        """Every webhook so far, in order of arrival."""
        assert self.forge.settle()
        return list(self.inbox.received)

    def names(self, *prefixes: str) -> list[str]:
        return [each.name for each in self.events() if not prefixes or each.event in prefixes]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    inbox = Inbox()
    yield inbox
    inbox.close()


@pytest.fixture
def forge(tmp_path: Path, clock: Clock) -> Iterator[Forge]:
    """People: ada may write, carl is triage, dora is admin, eve is a stranger. acme/secret is private."""
    forge = Forge(tmp_path / "git", clock)
    for login in ("ada", "carl", "dora", "eve"):
        forge.add_user(login, name=login.title())
    forge.add_repository("acme", "lab", {"README.md": "# Lab\n", "data/rows.jsonl": '{"a": 1}\n{"a": 2}\n'})
    forge.add_repository("acme", "secret", {"README.md": "hush\n"}, private=True)
    for login, permission in (("ada", "write"), ("carl", "triage"), ("dora", "admin")):
        forge.add_collaborator("acme/lab", login, permission)
    yield forge
    forge.close()


@pytest.fixture
def world(forge: Forge, inbox: Inbox, clock: Clock) -> Iterator[World]:
    app = forge.register_app(
        slug="postdoc",
        name="Postdoc",
        permissions=PERMISSIONS,
        events=EVENTS,
        webhook_url=inbox.url,
        webhook_secret=SECRET,
        private_key_pem=app_key(),
    )
    installation_id = forge.install_app(app.app_id, REPOSITORY)
    recorder = openapi.Recorder()
    with serve(forge, wrap=recorder.wrap) as url:
        world = World(forge, url, app, installation_id, inbox, clock, recorder)
        yield world
        for client in world.clients:
            client.close()
        forge.settle()
    if openapi.available():
        assert recorder.violations() == []
        assert [
            problem for each in inbox.received for problem in openapi.webhook_problems(each.event, each.payload)
        ] == []


@pytest.fixture
def bot(world: World) -> httpx.Client:
    """The App's installation, with everything that was granted."""
    return world.as_bot()


@pytest.fixture
def ada(world: World) -> httpx.Client:
    """A person with write permission."""
    return world.as_user("ada")


@pytest.fixture
def eve(world: World) -> httpx.Client:
    """A stranger."""
    return world.as_user("eve")
