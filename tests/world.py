"""A practice world for tests: a forge with a repository and people, and the bot's server as a process beside it.

The bot sees the forge over HTTP alone. Its runner is scripted (tests/fakes/runner.py), so a pursuit takes a second.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx

from bot.conversation.github.registration import EVENTS, PERMISSIONS
from bot.evaluation.benchmarks import items, load_benchmark
from bot.practice.auth import new_key_pair
from bot.practice.forge import Forge
from bot.practice.server import serve
from bot.practice.world import free_port
from tests.fakes.runner import ScriptedRunner
from tests.front import front
from tests.openapi import Recorder, available
from tests.preloaded import Process, start

ROOT = Path(__file__).resolve().parent.parent
REPOSITORY = "acme/speller"
SECRET = "a-webhook-secret-for-tests"
POLICY = """\
consent:
  auto_approve:
    runs: 6
    gpu_hours: 2
    usd: 0
"""
RECIPE = "learning_rate: 2.0e-05\nnum_train_epochs: 1\nper_device_train_batch_size: 32\nmax_length: 128\n"
GOOD: dict[str, dict[str, Any]] = {
    "baseline-00": {"value": 0.0},
    "train-01": {"curve": "flat"},
    "evaluate-01": {"value": 0.02},
    "probe-01": {"suggested": 3e-3},
    "train-02": {"curve": "good"},
    "evaluate-02": {"value": 0.97},
    "confirm-02": {"value": 0.96},
}
"""A pursuit that falls short once through its learning rate and then reaches and confirms 90 %."""
_private_key = ""


def goal_body(**fields: str) -> str:
    """The Markdown that GitHub makes of the goal form; a field of "" is left out."""
    values = {
        "Base model": "postdoc/tiny-test",
        "Benchmark": "practice/reverse",
        "Target": "90 %",
        "Training data": "data/train.jsonl",
        "Starting recipe": f"```yaml\n{RECIPE}```",
    } | {key.replace("_", " "): value for key, value in fields.items()}
    return "\n\n".join(f"### {label}\n\n{value}" for label, value in values.items() if value)


@dataclass
class World:
    """The forge, its people's tokens and the bot's process."""

    forge: Forge
    url: str
    folder: Path
    runner: ScriptedRunner
    app_id: int
    port: int
    tokens: dict[str, str]
    environment: dict[str, str]
    process: Process | None = None
    read: set[int] = field(default_factory=set)
    http: httpx.Client = field(default_factory=lambda: httpx.Client(trust_env=False))
    """One for all requests: making one reads the system's certificates, 30 ms for a poll of 1."""
    peers: list[World] = field(default_factory=list)
    """More processes on the same database, each as a world of its own."""
    name: str = "bot"
    recorder: Recorder = field(default_factory=Recorder)
    """Every exchange of the forge, where GitHub's description is installed to judge it."""
    root: Path = ROOT
    """Where the code of the bot's process lies."""

    # The bot's process

    def lose_database(self) -> None:
        """Delete everything that the stopped bot's database held."""
        for path in (self.folder / "data").glob("postdoc.sqlite*"):
            path.unlink()

    def start(self) -> None:
        with (self.folder / f"{self.name}.log").open("ab") as log:
            if self.root == ROOT:
                self.process = start("tests.serving", [], environment=self.environment, folder=ROOT, output=log)
            else:
                command = [sys.executable, "-m", "tests.serving"]
                self.process = subprocess.Popen(command, cwd=self.root, env=self.environment, stdout=log, stderr=log)

    def wait_ready(self, timeout_seconds: float = 90.0) -> bool:
        """True once it serves; False when its process ended first."""
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            assert self.process is not None
            if self.process.poll() is not None:
                return False
            with contextlib.suppress(httpx.HTTPError):
                if self.http.get(f"{self.bot_url}/readyz", timeout=2).status_code == 200:
                    return True
            time.sleep(0.02)
        raise AssertionError(f"the bot did not start:\n{self.log()}")

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def log(self) -> str:
        texts = [(self.folder / f"{each.name}.log") for each in (self, *self.peers)]
        return "\n".join(path.read_text(errors="replace")[-8000:] for path in texts if path.exists())

    @property
    def bot_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # What people do

    def api(self, login: str, method: str, path: str, **options: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.tokens[login]}"}
        response = self.http.request(method, f"{self.url}/api/v3{path}", headers=headers, timeout=20, **options)
        assert response.status_code < 400, f"{method} {path}: {response.status_code} {response.text}"
        return response.json() if response.content else None

    def open_goal(self, body: str | None = None, *, title: str = "Raise exact match", login: str = "ada") -> int:
        payload = {"title": title, "body": goal_body() if body is None else body, "labels": ["postdoc"]}
        return int(self.api(login, "POST", f"/repos/{REPOSITORY}/issues", json=payload)["number"])

    def comment(self, number: int, body: str, *, login: str = "ada") -> int:
        return int(self.api(login, "POST", f"/repos/{REPOSITORY}/issues/{number}/comments", json={"body": body})["id"])

    # What people see

    def comments(self, number: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.api(
            "ada", "GET", f"/repos/{REPOSITORY}/issues/{number}/comments?per_page=100"
        )
        return found

    def bot_comments(self, number: int) -> list[str]:
        return [c["body"] for c in self.comments(number) if c["user"]["login"] == "postdoc[bot]"]

    def reviews(self, number: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.api("ada", "GET", f"/repos/{REPOSITORY}/pulls/{number}/reviews?per_page=100")
        return found

    def review_comments(self, number: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.api(
            "ada", "GET", f"/repos/{REPOSITORY}/pulls/{number}/comments?per_page=100"
        )
        return found

    def pulls(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.api("ada", "GET", f"/repos/{REPOSITORY}/pulls?state=all&per_page=100")
        return found

    def branch_log(self, branch: str) -> list[str]:
        git = subprocess.run(
            ["git", "log", "--format=%an: %s", f"main..{branch}"],
            cwd=self.forge.repository(REPOSITORY).git.path, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return git.stdout.splitlines()

    def file(self, ref: str, path: str) -> str:
        headers = {"Authorization": f"Bearer {self.tokens['ada']}", "Accept": "application/vnd.github.raw+json"}
        url = f"{self.url}/api/v3/repos/{REPOSITORY}/contents/{path}"
        return self.http.get(url, params={"ref": ref}, headers=headers, timeout=20).raise_for_status().text

    def commit(self, path: str, text: str, *, branch: str = "main", login: str = "ada") -> str:
        """Put a file as a person; returns the commit."""
        place = f"/repos/{REPOSITORY}/contents/{path}"
        payload = {"message": f"Edit {path}", "content": base64.b64encode(text.encode()).decode(), "branch": branch}
        with contextlib.suppress(AssertionError):
            payload["sha"] = self.api(login, "GET", f"{place}?ref={branch}")["sha"]
        return str(self.api(login, "PUT", place, json=payload)["commit"]["sha"])

    def dev_item(self, benchmark: str) -> tuple[str, str]:
        item = items(load_benchmark(benchmark), "dev", 0)[0]
        return item.prompt, item.reference

    # What the bot knows

    def events(self, issue: int) -> list[dict[str, Any]]:
        for each in (self, *self.peers):
            with contextlib.suppress(httpx.HTTPError):
                found = self.http.get(f"{each.bot_url}/api/goals/{REPOSITORY}/{issue}/events", timeout=10)
                if found.status_code == 200:
                    return list(found.json()["events"])
        return []

    def first(self, issue: int, kind: str) -> dict[str, Any]:
        """The data of the first event of this kind."""
        return dict(next(event["data"] for event in self.events(issue) if event["kind"] == kind))

    def state(self, issue: int) -> str | None:
        with contextlib.suppress(httpx.HTTPError):
            for goal in self.http.get(f"{self.bot_url}/api/goals", timeout=10).json():
                if goal["goal_id"] == f"{REPOSITORY}#{issue}":
                    return str(goal["state"])
        return None

    def until(
        self, condition: Callable[[], object], what: str, timeout_seconds: float = 90.0, *, pause_seconds: float = 0.03
    ) -> None:
        deadline = time.monotonic() + timeout_seconds
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"{what} did not come about:\n{self.story()}\n{self.log()}")
            time.sleep(pause_seconds)

    def story(self) -> str:
        """What the journals hold and which jobs were started: what a reader of a failed test needs first."""
        goals = []
        with contextlib.suppress(httpx.HTTPError):
            goals = self.http.get(f"{self.bot_url}/api/goals", timeout=10).json()
        lines = [f"jobs: {' '.join(self.runner.launches())}"]
        for goal in goals:
            events = self.events(int(str(goal["goal_id"]).rpartition("#")[2]))
            lines.append(f"{goal['goal_id']} {goal['state']}: {' '.join(str(event['kind']) for event in events)}")
            lines += [str(event["data"]) for event in events if event["kind"] in ("crashed", "ended")]
        return "\n".join(lines)

    def until_job(self, name: str) -> None:
        """Wait until a job with this in its id was launched: to its end, so that a kill does not cut the launch."""
        self.until(lambda: any(name in job for job in self.runner.jobs()), f"a job {name}")

    def until_ended(self, issue: int, timeout_seconds: float = 90.0) -> str:
        """Wait for the goal's ending; returns its state."""

        def ended() -> bool:
            return any(event["kind"] == "ended" for event in self.events(issue))

        # A whole journal is read each time, which takes long enough to slow down what is waited for.
        self.until(ended, f"the end of goal {issue}", timeout_seconds, pause_seconds=0.2)
        return str([event for event in self.events(issue) if event["kind"] == "ended"][-1]["data"]["state"])

    def until_event(self, issue: int, kind: str, count: int = 1) -> dict[str, Any]:
        def found() -> list[dict[str, Any]]:
            return [event for event in self.events(issue) if event["kind"] == kind]

        self.until(lambda: len(found()) >= count, f"event {kind} of goal {issue}", pause_seconds=0.1)
        return found()[-1]


def tiny_model(folder: Path) -> None:
    """Files that describe a small model; nobody loads it in a scripted world."""
    model = folder / "postdoc" / "tiny-test"
    model.mkdir(parents=True)
    (model / "config.json").write_text(json.dumps({"model_type": "qwen3"}))
    header = json.dumps({"w": {"dtype": "F32", "shape": [600, 500], "data_offsets": [0, 0]}}).encode()
    (model / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    (model / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A tiny model\n")


@contextlib.contextmanager
def practice_world(
    folder: Path,
    *,
    policy: str | None = POLICY,
    deaths: Path | None = None,
    processes: int = 1,
    settings: Mapping[str, str] | None = None,
) -> Iterator[World]:
    """A running world; the bot is not started yet.

    With more than one process the others are `world.peers`, and a front passes deliveries to whichever takes them.
    """
    global _private_key
    _private_key = _private_key or new_key_pair()[0]
    forge = Forge(folder / "forge")
    for login in ("ada", "bob", "mallory"):
        forge.add_user(login)
    rows = "".join(json.dumps({"prompt": f"speak {i}", "completion": str(i)}) + "\n" for i in range(50))
    files = {
        "README.md": "# Speller\n",
        "data/train.jsonl": rows,
        "data/README.md": "---\nlicense: cc-by-4.0\n---\n# Rows\n",
    }
    if policy is not None:
        files[".github/postdoc.yml"] = policy
    owner, name = REPOSITORY.split("/")
    forge.add_repository(owner, name, files)
    for login, permission in (("ada", "admin"), ("bob", "write"), ("mallory", "read")):
        forge.add_collaborator(REPOSITORY, login, permission)
    ports = [free_port() for _ in range(processes)]
    stack = contextlib.ExitStack()
    address = f"http://127.0.0.1:{ports[0]}" if processes == 1 else stack.enter_context(front(ports))
    registration = forge.register_app(
        slug="postdoc", permissions=PERMISSIONS, events=EVENTS, private_key_pem=_private_key,
        webhook_url=f"{address}/webhook", webhook_secret=SECRET,
    )  # fmt: skip
    forge.install_app(registration.app_id, REPOSITORY)
    tiny_model(folder / "models")
    runner = ScriptedRunner(folder / "runner")
    runner.script(GOOD)
    recorder = Recorder()
    with stack, serve(forge, wrap=recorder.wrap if available() else None) as url:
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("POSTDOC_")},
            "POSTDOC_APP_ID": str(registration.app_id), "POSTDOC_PRIVATE_KEY": registration.private_key_pem,
            "POSTDOC_WEBHOOK_SECRET": SECRET, "POSTDOC_GITHUB_URL": f"{url}/api/v3", "POSTDOC_PORT": str(ports[0]),
            "POSTDOC_DATA_FOLDER": str(folder / "data"), "POSTDOC_MODEL_FOLDERS": str(folder / "models"),
            "POSTDOC_TEST_RUNNER": str(runner.root), "POSTDOC_CHECK_UPDATE_SECONDS": "0.2",
            "POSTDOC_WRITE_PAUSE_SECONDS": "0", "POSTDOC_WRITES_PER_HOUR": "0", "POSTDOC_DRAIN_SECONDS": "5",
            "HF_HUB_OFFLINE": "1", "POSTDOC_ONBOARDING": "false", **(settings or {}),
        }  # fmt: skip
        if deaths is not None:
            environment["POSTDOC_TEST_DEATHS"] = str(deaths)
        tokens = {login: forge.user_token(login) for login in ("ada", "bob", "mallory")}
        world = World(
            forge, url, folder, runner, registration.app_id, ports[0], tokens, environment, recorder=recorder
        )  # fmt: skip
        for n, port in enumerate(ports[1:], start=2):
            own = environment | {"POSTDOC_PORT": str(port)}
            world.peers.append(replace(world, port=port, environment=own, peers=[], name=f"bot-{n}"))
        try:
            yield world
        finally:
            for each in (world, *world.peers):
                each.stop()
                each.http.close()
            forge.close()
    if available():
        # Whatever the test was about: everything the forge said was GitHub's own shape.
        found = recorder.violations()
        assert found == [], found
