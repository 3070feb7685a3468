"""`postdoc gym`: its words, its refusals, and (slow) whole pursuits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bot.cli import run
from bot.gym.task_file import SHIPPED, load_task
from bot.gym.trial import try_recipe
from bot.practice.warm import EVALUATION_IMPORTS, IMPORTS, Warm

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--policy", "best"], "There is no policy `best`. Write --policy with one of: playbook, random, tpe, none."),
        (["--only", "nothing"], "--only nothing: there is no such task."),
        (["--tasks", "/nowhere"], "--tasks /nowhere: there is no such folder."),
        (["--json", "/nowhere/x.json"], "there is no folder /nowhere"),
        (["--resume", "/nowhere/x.json"], "/nowhere/x.json cannot be read"),
    ],
)
def test_wrong_words_are_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["gym", *words]) == 2
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1


def test_report_of_another_policy_is_not_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "report.json"
    path.write_text('{"policy": "random", "tasks": [], "summary": {}}')
    assert run(["gym", "--resume", str(path)]) == 2
    assert "Write --policy random" in capsys.readouterr().err


def test_tasks_of_ones_own_are_listed(write: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    folder = write().parent
    assert run(["gym", "--tasks", str(folder), "--list"]) == 0
    assert "words" in capsys.readouterr().out


EASY = '''"""Say the last of two words."""

TARGET = 0.8
ROWS, DEV, SEALED = 1500, 100, 150


def draw(rng):
    first, second = ("".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(3)) for _ in range(2))
    return {"prompt": f"last of {first} {second}", "completion": second}
'''


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_goals_are_pursued_whole_and_taken_up_again_after_a_kill(tmp_path: Path) -> None:
    folder, report = tmp_path / "tasks", tmp_path / "report.json"
    folder.mkdir()
    (folder / "easy.py").write_text(EASY)
    (folder / "slow_rate.py").write_text(EASY + '\nRECIPE = "learning_rate: 1.0e-6\\nmax_steps: 60"\n')
    words = [sys.executable, "-m", "bot", "gym", "--tasks", str(folder), "--json", str(report)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    first = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 400
    while not report.is_file():
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    first.send_signal(signal.SIGTERM)
    assert first.wait(60) == 130
    done = json.loads(report.read_text())
    assert [row["name"] for row in done["tasks"]] == ["easy"]
    assert done["tasks"][0]["reached"] and done["tasks"][0]["seeds"][0]["sealed"] >= 0.8

    again = subprocess.run([*words, "--resume", str(report)], env=environment, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    rows = {row["name"]: row for row in json.loads(report.read_text())["tasks"]}
    assert set(rows) == {"easy", "slow_rate"}
    assert "[1/1]" in again.stdout, "what the report holds is not pursued again"
    runs = rows["slow_rate"]["seeds"][0]["each_run"]
    assert len(runs) > 1, "a rate this low has to be found out"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", sorted(path.stem for path in SHIPPED.glob("*.py")))
def test_target_is_in_reach_of_a_known_recipe_and_not_of_the_base(name: str, tmp_path: Path, warm: Warm) -> None:
    task = load_task(SHIPPED / f"{name}.py")
    found = try_recipe(task, 0, tmp_path, warm)
    assert found.verdict(task) == "in reach", found
    assert found.trainer_seconds < 60


@pytest.fixture(scope="module")
def warm() -> object:
    with Warm((*IMPORTS, *EVALUATION_IMPORTS)) as found:
        yield found
