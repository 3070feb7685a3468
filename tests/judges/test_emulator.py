"""The bot's real server against npm `emulate`, a GitHub that we have not written.

Judged by it: App authentication (it verifies the JWT's signature), installation tokens with the permissions of the
App, an issue and its signed webhook, the contract as a comment, permission of a collaborator, branches and git data,
a pull request, reviews with inline comments, check runs and their ends, and events of the bot's own doing, which come
back from `postdoc[bot]` and must start nothing.

Not judged by it, because it lacks or fakes them (tests/node/emulator.mjs says what is ours in between): GraphQL,
reactions, redelivery, whether `line` lies in the diff, limits of lengths, a draft that becomes ready, ETags. Nor is
it a judge of security: an unknown token may do everything there, and every member of an organisation is an admin. It
has comments on pull requests look like comments on issues.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bot.conversation.github.registration import EVENTS, PERMISSIONS
from bot.practice.auth import new_key_pair
from tests.fakes.runner import ScriptedRunner
from tests.judges.mermaid import NODE, node_has
from tests.world import GOOD, POLICY, ROOT, SECRET, goal_body, tiny_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not node_has("emulate"), reason="emulate of tests/node is not installed"),
]
REPOSITORY = "acme/speller"
APP_ID = 4242
ROWS = "".join(json.dumps({"prompt": f"speak {i}", "completion": str(i)}) + "\n" for i in range(50))


class Emulated:
    """The emulator and the bot, each a process."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port, self.bot_port = folder, _free_pair(), _free_pair()
        self.url = f"http://127.0.0.1:{self.port}/api/v3"
        self.processes: list[subprocess.Popen[Any]] = []
        self.key = new_key_pair()[0]

    def start(self) -> None:
        seed = {
            "tokens": {"tok-ada": {"login": "ada", "scopes": ["repo", "user", "admin:org", "admin:repo_hook"]}},
            "github": {
                "users": [{"login": "ada", "name": "Ada", "email": "ada@example.test"}],
                "orgs": [{"login": "acme", "name": "Acme", "members": [{"login": "ada", "role": "admin"}]}],
                "repos": [{"owner": "acme", "name": "speller", "auto_init": True, "default_branch": "main"}],
                "apps": [{
                    "app_id": APP_ID, "slug": "postdoc", "name": "Postdoc", "private_key": self.key,
                    "webhook_url": f"http://127.0.0.1:{self.bot_port}/webhook", "webhook_secret": SECRET,
                    "events": list(EVENTS), "permissions": PERMISSIONS | {"members": "read"},
                    "installations": [{"installation_id": 100, "account": "acme", "repository_selection": "all"}],
                }],
            },
        }  # fmt: skip
        (self.folder / "seed.json").write_text(json.dumps(seed))
        log = (self.folder / "emulator.log").open("w")
        node = subprocess.Popen(
            ["node", "emulator.mjs", str(self.folder / "seed.json"), str(self.port)], cwd=NODE,
            stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
        log.close()
        self.processes.append(node)
        assert node.stdout is not None
        assert node.stdout.readline().strip() == "ready", (self.folder / "emulator.log").read_text()
        for path, text in (("data/train.jsonl", ROWS), ("data/README.md", "---\nlicense: cc-by-4.0\n---\n# Rows\n"),
                           (".github/postdoc.yml", POLICY)):  # fmt: skip
            self.put(path, text)
        tiny_model(self.folder / "models")
        ScriptedRunner(self.folder / "runner").script(GOOD)
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("POSTDOC_")},
            "POSTDOC_APP_ID": str(APP_ID), "POSTDOC_PRIVATE_KEY": self.key, "POSTDOC_WEBHOOK_SECRET": SECRET,
            "POSTDOC_GITHUB_URL": self.url, "POSTDOC_PORT": str(self.bot_port), "HF_HUB_OFFLINE": "1",
            "POSTDOC_DATA_FOLDER": str(self.folder / "data"), "POSTDOC_MODEL_FOLDERS": str(self.folder / "models"),
            "POSTDOC_TEST_RUNNER": str(self.folder / "runner"), "POSTDOC_CHECK_UPDATE_SECONDS": "0.2",
        }  # fmt: skip
        with (self.folder / "bot.log").open("ab") as file:
            self.processes.append(subprocess.Popen(
                [sys.executable, "-m", "tests.serving"], cwd=ROOT, env=environment, stdout=file, stderr=file
            ))  # fmt: skip
        self.until(self._ready, "the bot's start", 60)

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.terminate()
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()

    def _ready(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"http://127.0.0.1:{self.bot_port}/readyz", timeout=2).status_code == 200
        return False

    def api(self, method: str, path: str, **options: Any) -> Any:
        headers = {"Authorization": "Bearer tok-ada"}
        answer = httpx.request(method, f"{self.url}/repos/{REPOSITORY}{path}", headers=headers, timeout=20, **options)
        assert answer.status_code < 400, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def put(self, path: str, text: str) -> None:
        import base64

        self.api("PUT", f"/contents/{path}",
                 json={"message": f"Add {path}", "content": base64.b64encode(text.encode()).decode()})  # fmt: skip

    def events(self, issue: int) -> list[dict[str, Any]]:
        found = httpx.get(f"http://127.0.0.1:{self.bot_port}/api/goals/{REPOSITORY}/{issue}/events", timeout=10)
        return list(found.json()["events"])

    def until(self, condition: Any, what: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"{what} did not come about:\n{(self.folder / 'bot.log').read_text()[-6000:]}")
            time.sleep(0.05)


def _free_pair() -> int:
    """A port that is free, and so is the next one."""
    for _ in range(50):
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                second.bind(("127.0.0.1", port + 1))
                return port
    raise AssertionError("no two neighbouring ports are free")


@pytest.fixture(scope="module")
def pursued(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Emulated, int]]:
    """A goal opened by a person, pursued to its end."""
    world = Emulated(tmp_path_factory.mktemp("emulated"))
    try:
        world.start()
        payload = {"title": "Raise exact match", "body": goal_body(), "labels": ["postdoc"]}
        issue = int(world.api("POST", "/issues", json=payload)["number"])
        world.until(lambda: any(e["kind"] == "ended" for e in world.events(issue)), "the end of the goal", 90)
        yield world, issue
    finally:
        world.stop()


def test_goal_is_met_and_confirmed(pursued: tuple[Emulated, int]) -> None:
    world, issue = pursued
    ended = [event["data"] for event in world.events(issue) if event["kind"] == "ended"]
    assert [each["state"] for each in ended] == ["met"], ended


def test_contract_is_one_comment_of_the_app(pursued: tuple[Emulated, int]) -> None:
    world, issue = pursued
    comments = world.api("GET", f"/issues/{issue}/comments")
    assert [comment["user"]["login"] for comment in comments] == ["postdoc[bot]"]
    assert "This is the goal as I understood it" in comments[0]["body"]


def test_pull_request_holds_the_experiment_and_its_reviews(pursued: tuple[Emulated, int]) -> None:
    world, _ = pursued
    [pull] = world.api("GET", "/pulls?state=all")
    assert pull["user"]["login"] == "postdoc[bot]"
    reviews = world.api("GET", f"/pulls/{pull['number']}/reviews")
    assert len(reviews) == 2
    assert {review["state"] for review in reviews} == {"COMMENTED"}
    inline = world.api("GET", f"/pulls/{pull['number']}/comments")
    assert any("```suggestion\nlearning_rate: 0.003\n```" in comment["body"] for comment in inline)
    names = [name.partition(" -->")[0].rpartition("/")[2] for name in
             (c["body"] for c in world.api("GET", f"/issues/{pull['number']}/comments"))]  # fmt: skip
    assert names[0] == "sticky"
    assert len(names) == 2


def test_commits_build_on_each_other_and_each_run_has_a_check(pursued: tuple[Emulated, int]) -> None:
    world, issue = pursued
    events = world.events(issue)
    started = [event["data"]["head_sha"] for event in events if event["kind"] == "run_started"]
    proposed = next(event["data"]["head_sha"] for event in events if event["kind"] == "proposed")
    assert started[0] == proposed
    commit = world.api("GET", f"/git/commits/{started[1]}")
    assert [parent["sha"] for parent in commit["parents"]] == [started[0]]
    assert "Postdoc-Run: 1/01" in commit["message"].splitlines()
    conclusions = [check["conclusion"] for sha in started
                   for check in world.api("GET", f"/commits/{sha}/check-runs")["check_runs"]]  # fmt: skip
    assert conclusions == ["neutral", "success"]


def test_what_the_bot_did_came_back_and_started_nothing(pursued: tuple[Emulated, int]) -> None:
    """The emulator sends every App event; comments of `postdoc[bot]` are no commands and its pull request no goal."""
    world, issue = pursued
    goals = httpx.get(f"http://127.0.0.1:{world.bot_port}/api/goals", timeout=10).json()
    assert [goal["goal_id"] for goal in goals] == [f"{REPOSITORY}#{issue}"]
    kinds = {event["kind"] for event in world.events(issue)}
    assert not kinds & {"command", "head_moved", "goal_edited", "pull_request_closed"}


def test_wrong_signature_is_refused_by_the_same_server(pursued: tuple[Emulated, int]) -> None:
    world, _ = pursued
    headers = {"X-GitHub-Event": "issues", "X-GitHub-Delivery": "x", "X-Hub-Signature-256": "sha256=" + "0" * 64}
    answer = httpx.post(f"http://127.0.0.1:{world.bot_port}/webhook", content=b"{}", headers=headers, timeout=10)
    assert answer.status_code == 401
