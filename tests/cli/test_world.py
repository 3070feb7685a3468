"""The practice world with the real bot in its own process; no job is ever started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from bot.errors import PlatformError, UserError
from bot.practice.goals import WRITER, demo_goals, issue_of, practice_place
from bot.practice.world import PracticeWorld, free_port

ROOT = Path(__file__).resolve().parents[2]
BODY = "base model: postdoc/tiny-qwen3\nbenchmark: practice/nonsense\ntarget: 90 %"


def until(condition: Callable[[], Any], timeout_seconds: float = 30.0) -> Any:
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder that looks like a model until somebody loads it."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "qwen3"}')
    return folder


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.slow
def test_issue_opened_before_the_bot_runs_reaches_it_when_it_does(tmp_path: Path, model: Path) -> None:
    ended: list[Path] = []
    with PracticeWorld(
        tmp_path / "world", practice_place(0), models={"postdoc/tiny-qwen3": model}, end_jobs=ended.append
    ) as world:  # fmt: skip
        issue = world.open_issue(WRITER.login, "Raise it", BODY, ["postdoc"])
        assert world.events(issue) == ([], None)
        assert world.goals() == []
        world.start_bot()
        pid = world.bot_pid
        assert pid is not None

        def kinds() -> list[str]:
            return [event["kind"] for event in world.events(issue)[0]]

        until(lambda: "contract_read" in kinds())
        assert kinds() == ["goal_opened", "contract_read"]
        refusal = world.events(issue)[0][1]["data"]["refusal"]
        assert "practice/nonsense" in refusal
        assert world.events(issue, after=0)[0][0]["seq"] == 1

        # Killed, it comes back to the same journal, and nothing is said twice.
        world.stop_bot(signal_number=signal.SIGKILL)
        assert world.bot_exit_code == -signal.SIGKILL
        world.start_bot()
        assert kinds() == ["goal_opened", "contract_read"]
        pid = world.bot_pid
        assert pid is not None
    assert ended == [tmp_path / "world" / "bot"]
    assert is_gone(pid)
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{world.url}/", trust_env=False)


def test_demo_issue_is_what_the_form_makes_and_carries_its_label(tmp_path: Path) -> None:
    goal = demo_goals(0)[1]
    with PracticeWorld(tmp_path, practice_place(0)) as world:
        body, labels = issue_of(goal.answers)
        number = world.open_issue(WRITER.login, goal.title, body, labels)
        page = httpx.get(world.page(f"issues/{number}"), trust_env=False).text
        assert goal.title in page
        issue = world.forge.repository("acme/tiny-speller").issues[number]
        assert [label.name for label in issue.labels] == ["postdoc"]
        assert issue.user.login == WRITER.login


def test_bot_that_cannot_start_is_told_with_its_last_words(tmp_path: Path) -> None:
    settings = {"POSTDOC_JOB_THREADS": "none at all"}
    with (
        PracticeWorld(tmp_path, practice_place(0), settings=settings) as world,
        pytest.raises(PlatformError, match="POSTDOC_JOB_THREADS"),
    ):
        world.start_bot()


def test_port_that_is_taken_is_the_callers_to_change(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match="--port"), PracticeWorld(tmp_path, practice_place(0), port=port):
            pass


def serving(tmp_path: Path, port: int) -> subprocess.Popen[str]:
    from bot.practice.auth import new_key_pair

    key = tmp_path / "app.pem"
    key.write_text(new_key_pair()[0])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("POSTDOC_")}
    environment |= {
        "POSTDOC_APP_ID": "1",
        "POSTDOC_PRIVATE_KEY_PATH": str(key),
        "POSTDOC_WEBHOOK_SECRET": "a-secret-of-tests",
        "POSTDOC_DATA_FOLDER": str(tmp_path / "data"),
        "POSTDOC_GITHUB_URL": "http://127.0.0.1:9/api/v3",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "bot", "serve", "--port", str(port)],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_serve_answers_and_stops_in_order_on_sigterm(tmp_path: Path) -> None:
    port = free_port()
    process = serving(tmp_path, port)

    def ready() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    try:
        until(ready)
        unsigned = httpx.post(f"http://127.0.0.1:{port}/webhook", content=b"{}", trust_env=False)
        assert unsigned.status_code == 401
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert f"http://127.0.0.1:{port}/webhook" in said
    assert "Traceback" not in said
    assert "a-secret-of-tests" not in said


def test_serve_on_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = serving(tmp_path, taken.getsockname()[1])
        _, said = process.communicate(timeout=30)
    assert process.returncode == 2
    assert said.count("\n") == 1
    assert "--port" in said
