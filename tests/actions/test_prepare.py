"""The step that finds or makes an environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from actions import prepare
from tests.actions.conftest import ROOT

EMPTY = '[project]\nname = "postdoc"\nversion = "0"\ndependencies = []\n'


@pytest.fixture
def action(tmp_path: Path) -> Path:
    """The action with nothing to install."""
    folder = tmp_path / "action"
    (folder / "actions").mkdir(parents=True)
    shutil.copyfile(ROOT / "actions" / "prepare.py", folder / "actions" / "prepare.py")
    (folder / "pyproject.toml").write_text(EMPTY)
    return folder


def prepared(action: Path, **environment: str) -> tuple[int, str, dict[str, str]]:
    output = action.parent / "output"
    output.write_text("")
    given = {
        "PATH": os.environ["PATH"], "HOME": str(action.parent), "RUNNER_TEMP": str(action.parent),
        "RUNNER_TOOL_CACHE": str(action.parent / "tools"), "GITHUB_OUTPUT": str(output), "PYTHONSAFEPATH": "1",
        "PIP_NO_INDEX": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(action / "actions" / "prepare.py")],
        env=given | environment,
        capture_output=True,
        text=True,
    )
    told = dict(line.split("=", 1) for line in output.read_text().splitlines())
    return done.returncode, done.stdout + done.stderr, told


def test_environment_is_made_once_and_found_again(action: Path) -> None:
    code, said, told = prepared(action, INPUT_MODE="gate")
    assert code == 0, said
    assert Path(told["python"]).is_relative_to(action.parent / "tools" / "postdoc")
    assert subprocess.run([told["python"], "-c", "import sys"], check=False).returncode == 0
    assert Path(told["folder"]).is_dir()
    code, said, again = prepared(action, INPUT_MODE="gate")
    assert "there already" in said
    assert again["python"] == told["python"]
    assert again["folder"] != told["folder"]


def test_machine_without_a_network_is_told_what_is_missing(action: Path) -> None:
    (action / "pyproject.toml").write_text(EMPTY.replace("[]", '["no-such-thing-as-this>=3"]'))
    code, said, told = prepared(action, INPUT_MODE="gate")
    assert code == 2
    assert told == {}
    [line] = [line for line in said.splitlines() if line.startswith("::error")]
    assert "no-such-thing-as-this" in line
    assert "name that environment's interpreter in `python`" in line
    assert "Traceback" not in said
    # What was half made is no environment the next time either.
    assert prepared(action, INPUT_MODE="gate")[0] == 2


def test_named_python_is_used_as_it_is_or_refused_by_what_it_lacks(action: Path) -> None:
    code, said, told = prepared(action, INPUT_MODE="gate", INPUT_PYTHON=sys.executable)
    assert (code, told["python"]) == (0, sys.executable), said
    bare = subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(action.parent / "bare")], check=True)
    assert bare.returncode == 0
    python = str(action.parent / "bare" / "bin" / "python")
    given = {"INPUT_MODE": "train", "INPUT_PYTHON": python, "PATH": os.environ["PATH"]}
    done = subprocess.run([python, str(action / "actions" / "prepare.py")], env=given, capture_output=True, text=True)
    assert done.returncode == 2
    assert "lacks yaml, torch, trl" in done.stdout


@pytest.mark.parametrize("mode", ["", "traine", "$(id)"])
def test_unknown_mode_is_refused_with_those_that_there_are(action: Path, mode: str) -> None:
    code, said, _ = prepared(action, INPUT_MODE=mode)
    assert code == 2
    assert "write one of train, evaluate, gate, pursue, respond" in said


def test_requirements_are_those_of_the_project() -> None:
    small, full = prepare.requirements(False), prepare.requirements(True)
    assert any(each.startswith("PyGithub") for each in small)
    assert not any(each.startswith("torch") for each in small)
    assert any(each.startswith("torch") for each in full)


def test_bot_whose_jobs_run_elsewhere_needs_no_training_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POSTDOC_RUNNER", raising=False)
    assert prepare.wants_training("respond")
    monkeypatch.setenv("POSTDOC_RUNNER", "hf_jobs")
    assert not prepare.wants_training("respond")
    assert prepare.wants_training("train")


def test_older_python_is_told_so_before_anything_else() -> None:
    """The file must be readable for the Pythons that it refuses: no syntax newer than 3.8's."""
    import ast

    ast.parse((ROOT / "actions" / "prepare.py").read_text(), feature_version=(3, 8))
