"""`postdoc doctor --github` against the practice forge: what it finds, what it advises, and how it ends."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bot import cli
from bot.conversation.github.registration import EVENTS, PERMISSIONS
from bot.practice.auth import new_key_pair
from bot.practice.forge import Forge
from bot.practice.server import serve
from tests.openapi import Recorder, available

SECRET = "a-webhook-secret-of-tests"


class Receiver:
    """Stands where the bot would be, and answers as it is told."""

    def __init__(self) -> None:
        self.answer = 202
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                self.send_response(receiver.answer)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/webhook"

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


class Scene:
    def __init__(self, forge: Forge, url: str, app_id: int, installation: int, receiver: Receiver) -> None:
        self.forge, self.url, self.app_id, self.installation, self.receiver = forge, url, app_id, installation, receiver

    @property
    def app(self) -> Any:
        return self.forge.apps[self.app_id]


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    forge, receiver, recorder = Forge(tmp_path), Receiver(), Recorder()
    forge.add_user("ada")
    forge.add_repository("acme", "lab", {".github/postdoc.yml": "budget:\n  runs: 4\n"})
    registration = forge.register_app(
        slug="postdoc", permissions=PERMISSIONS, events=EVENTS, webhook_url=receiver.url, webhook_secret=SECRET,
        private_key_pem=key(),
    )  # fmt: skip
    installation = forge.install_app(registration.app_id, "acme/lab")
    try:
        with serve(forge, wrap=recorder.wrap if available() else None) as url:
            settings = {
                "APP_ID": str(registration.app_id), "PRIVATE_KEY": key(), "WEBHOOK_SECRET": SECRET, "GITHUB_URL": url,
            }  # fmt: skip
            for name, value in settings.items():
                monkeypatch.setenv(f"POSTDOC_{name}", value)
            yield Scene(forge, url, registration.app_id, installation, receiver)
            forge.settle()
    finally:
        forge.close()
        receiver.close()
    if available():
        assert recorder.violations() == []


_key: list[str] = []


def key() -> str:
    if not _key:
        _key.append(new_key_pair()[0])
    return _key[0]


def examine(capsys: pytest.CaptureFixture[str], *options: str, code: int) -> dict[str, dict[str, Any]]:
    """The findings by name, after the command ended with `code`; every fault says what to do."""
    assert cli.run(["doctor", "--github", "--json", "-", *options]) == code
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    for secret in (SECRET, "PRIVATE KEY", "ghs_"):
        assert secret not in captured.out + captured.err
    found = json.loads(captured.out)
    assert found["ok"] is (code == 0)
    assert all(finding["ok"] or finding["advice"] for finding in found["findings"])
    return {finding["name"]: finding for finding in found["findings"]}


def test_app_that_is_set_up_well(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.forge.ping_app(scene.app_id)
    scene.forge.settle()
    found = examine(capsys, code=0)
    assert found["App"]["detail"].startswith(f"postdoc at {scene.url}/api/v3")
    assert found["webhook"]["detail"] == f"{scene.receiver.url}, signed"
    assert "× 202; the last one, ping, 0 min ago: OK" in found["deliveries"]["detail"]
    assert "1 repository; " in found["installed on acme"]["detail"]
    assert "of 5,000 requests left" in found["installed on acme"]["detail"]
    assert all(found[name]["ok"] for name in ("clock", "permissions", "events", "policy of acme/lab"))
    assert cli.run(["doctor", "--github"]) == 0
    assert "Nothing is missing." in capsys.readouterr().out


def test_permissions_and_events_that_are_missing_or_too_many(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.app.permissions = {"contents": "read", "issues": "write", "workflows": "write", "statuses": "read",
                             "administration": "read"}  # fmt: skip
    scene.app.events = frozenset({"issues", "status"})
    assert cli.run(["doctor", "--github"]) == 1
    said = capsys.readouterr().out
    assert "missing: contents: write, pull_requests: write, checks: write, actions: write, metadata: read" in said
    assert "✗ permissions         not needed: workflows: write" in said
    assert "· permissions         not needed: statuses: read" in said
    assert "missing: issue_comment, pull_request" in said
    assert "administration" not in said
    scene.app.permissions["administration"] = "write"
    assert cli.run(["doctor", "--github"]) == 1
    assert "not needed: workflows: write, administration: write" in capsys.readouterr().out


def test_installation_that_was_not_granted_what_the_app_asks(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.forge.installations[scene.installation].permissions = {"metadata": "read", "issues": "write"}
    assert cli.run(["doctor", "--github"]) == 1
    assert "not granted: contents: write, pull_requests: write, checks: write" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("url", "secret", "says"),
    [
        (None, SECRET, "no address"),
        ("https://bot.acme.org/webhook", None, "no secret"),
        ("https://bot.acme.org/", SECRET, "https://bot.acme.org/"),
    ],
)
def test_webhook_that_cannot_work(
    scene: Scene, capsys: pytest.CaptureFixture[str], url: str | None, secret: str | None, says: str
) -> None:
    scene.app.webhook_url, scene.app.webhook_secret = url, secret
    assert examine(capsys, code=1)["webhook"]["detail"] == says


@pytest.mark.parametrize(
    ("answer", "says"), [(401, "POSTDOC_WEBHOOK_SECRET"), (404, "/webhook"), (500, "postdoc serve --pull")]
)
def test_deliveries_that_are_refused(scene: Scene, capsys: pytest.CaptureFixture[str], answer: int, says: str) -> None:
    scene.receiver.answer = answer
    scene.forge.ping_app(scene.app_id)
    scene.forge.settle()
    assert says in examine(capsys, code=1)["deliveries"]["advice"]


def test_delivery_is_sent_again_when_asked_for(
    scene: Scene, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.doctor.github.LOOK_SECONDS", 0.05)
    found = examine(capsys, "--redeliver", code=0)
    assert "installation sent again, answered 202" in found["test delivery"]["detail"]
    scene.receiver.answer = 401
    found = examine(capsys, "--redeliver", code=1)
    assert "POSTDOC_WEBHOOK_SECRET" in found["test delivery"]["advice"]
    with pytest.raises(AssertionError):
        examine(capsys, code=0)  # the last delivery was refused, and that is seen without asking for another


def test_suspended_uninstalled_and_policies(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.forge.add_repository("acme", "bare", {"README.md": "x"})
    scene.forge.add_repository("acme", "wrong", {".github/postdoc.yml": "budget:\n  runs: many\n"})
    scene.forge.install_app(scene.app_id, "acme/bare", "acme/wrong")
    found = examine(capsys, code=1)
    assert found["policy of acme/bare"]["advice"].startswith("optional")
    assert ".github/postdoc.yml:2:3 " in found["policy of acme/wrong"]["advice"]
    scene.forge.suspend_app(scene.installation)
    assert examine(capsys, code=1)["installed on acme"]["detail"] == "suspended"
    scene.forge.uninstall_app(scene.installation)
    assert "/installations/new" in examine(capsys, code=1)["installations"]["advice"]


def test_clock_that_is_off(scene: Scene, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import datetime

    scene.forge.clock = lambda: datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=2)
    scene.forge.tokens._clock = scene.forge.clock
    found = examine(capsys, code=1)
    assert "7,2" in found["clock"]["detail"]
    assert "behind GitHub's" in found["clock"]["detail"]
    assert found["installed on acme"]["ok"]  # everything else works all the same


@pytest.mark.parametrize(
    ("changes", "code", "says"),
    [
        ({"APP_ID": "999"}, 1, "POSTDOC_APP_ID"),
        ({"PRIVATE_KEY": "other"}, 1, "new private key"),
        ({"GITHUB_URL": "http://127.0.0.1:9"}, 1, "POSTDOC_GITHUB_URL, the network"),
        ({"GITHUB_URL": "http://git.acme.org"}, 2, "Write https://"),
        ({"GITHUB_URL": "nonsense"}, 2, "POSTDOC_GITHUB_URL"),
        ({"PRIVATE_KEY": "-----BEGIN RSA PRIVATE KEY-----"}, 2, "private key cannot be read"),
        ({"WEBHOOK_SECRET": ""}, 2, "POSTDOC_WEBHOOK_SECRET"),
    ],
)
def test_what_cannot_work_is_one_clear_finding(
    scene: Scene, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, str], code: int, says: str,
) -> None:  # fmt: skip
    for name, value in changes.items():
        monkeypatch.setenv(f"POSTDOC_{name}", new_key_pair()[0] if value == "other" else value)
    assert cli.run(["doctor", "--github"]) == code
    captured = capsys.readouterr()
    assert says in captured.out + captured.err
    assert "Traceback" not in captured.err
    assert len(captured.err.splitlines()) == (code == 2)


def test_server_that_is_no_github(
    scene: Scene, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTDOC_GITHUB_URL", scene.receiver.url.removesuffix("/webhook"))
    assert cli.run(["doctor", "--github"]) == 1
    assert "POSTDOC_GITHUB_URL" in capsys.readouterr().out


def test_server_that_breaks_off_or_lacks_an_endpoint(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.forge.faults.server_error(5, status=502, matches=lambda _, path: "deliveries" in path)
    found = examine(capsys, code=1)
    assert "502" in found["GitHub"]["detail"]
    assert found["installed on acme"]["ok"]


def test_hook_settings_that_an_older_server_does_not_show(
    scene: Scene, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def missing(_: Any) -> dict[str, Any]:
        from bot.conversation.github import Refused

        raise Refused(404, "Not Found")

    monkeypatch.setattr("bot.conversation.github.GitHubApp.hook_config", missing)
    assert examine(capsys, code=0)["webhook"]["advice"].startswith("optional")


def test_redeliver_alone_is_a_wrong_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["doctor", "--redeliver"]) == 2
    assert "doctor --github --redeliver" in capsys.readouterr().err
