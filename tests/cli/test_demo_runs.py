"""`postdoc demo` as a person runs it: a process, real jobs, an exit code, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def demo(words: Sequence[str], environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "bot", "demo", *words], cwd=ROOT, env=os.environ | (environment or {}), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=as_from_a_terminal,
    )  # fmt: skip


def as_from_a_terminal() -> None:
    """A shell gives its background commands an ignored SIGINT, and these tests may run in one."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def processes_in(folder: Path) -> list[int]:
    """Processes that work in the folder, or were started with it in their environment or words."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            told = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
            if str(folder).encode() in told or (entry / "cwd").resolve().is_relative_to(folder):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def gone(folder: Path) -> bool:
    """True once no process is left there; a process that was just ended may take a moment to vanish."""
    deadline = time.monotonic() + 60
    while processes_in(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not processes_in(folder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_demo_ends_everything_it_started_and_says_where_its_things_lie(
    number: signal.Signals, tmp_path: Path
) -> None:
    # An empty cache, so that the base model is being built when the signal comes.
    process = demo(["--folder", str(tmp_path / "demo")], {"XDG_CACHE_HOME": str(tmp_path / "cache")})
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if " base: " in line:
            break
    process.send_signal(number)
    said, complaint = process.communicate(timeout=60)
    assert process.returncode == 130, said + complaint
    assert complaint == f"postdoc: interrupted; everything so far lies in {tmp_path / 'demo'}\n"
    assert any("/acme/tiny-speller/issues/1" in line for line in lines)
    assert any("/acme/tiny-speller/pulls" in line for line in lines)
    assert (tmp_path / "demo" / "git" / "acme" / "tiny-speller.git" / "HEAD").is_file()
    assert gone(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1500)  # the first of them builds the base model
@pytest.mark.parametrize(
    ("goal", "symptom", "key", "first_value"),
    [(1, "plateau", "learning_rate", (0.0, 0.1)), (2, "duplicates", "data_deduplicate", (0.3, 0.88))],
)
def test_demo_reaches_its_target_by_diagnosis(
    goal: int, symptom: str, key: str, first_value: tuple[float, float], tmp_path: Path
) -> None:
    folder, result = tmp_path / "demo", tmp_path / "demo.json"
    process = demo(["--goal", str(goal), "--folder", str(folder), "--json", str(result), "--require", "met"])
    said, complaint = process.communicate(timeout=1400)
    assert process.returncode == 0, said + complaint
    found = json.loads(result.read_text())
    assert (found["state"], found["target"]) == ("met", 0.9)
    assert found["seconds"] > 0
    runs = found["runs"]
    assert [run["n"] for run in runs] == list(range(1, len(runs) + 1))
    assert 2 <= len(runs) <= 4
    assert all(run["method"] == "sft" and run["n_items"] == 200 for run in runs)
    assert first_value[0] <= runs[0]["value"] <= first_value[1]
    assert symptom in runs[0]["symptoms"]
    assert key in runs[1]["changed"]
    assert runs[-1]["value"] >= 0.9
    assert runs[-1]["verdict"] == "better"
    assert 0 < runs[-1]["standard_error"] < 0.03 or runs[-1]["value"] == 1.0
    log = subprocess.run(
        ["git", "-C", found["repository"], "log", "--format=%an %s %b", "--all"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "postdoc[bot]" in log
    assert key in log
    shown = said.splitlines()
    for label in ("contract", "plan", "baseline", "proposed", "run 1", "diagnosis", "commit", "run 2", "sealed", "met"):
        assert any(f"  {label}: " in line for line in shown), f"{label} was not shown"
    assert f"git -C {found['repository']} log --oneline --all --graph" in said
    assert gone(tmp_path)


def bots_of(folder: Path) -> list[int]:
    """Process ids of the bot that serves this demo."""
    found = []
    for pid in processes_in(folder):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[1:4] == [b"-m", b"bot", b"serve"]:
            found.append(pid)
    return found


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_same_seed_gives_the_same_numbers_also_when_the_bot_is_killed_under_way(tmp_path: Path) -> None:
    found = []
    for name, lines_to_kill_at in (("quiet", ()), ("killed", (" run 1: sft", " diagnosis: ", " run 2: sft"))):
        folder, result = tmp_path / name, tmp_path / f"{name}.json"
        process = demo(["--folder", str(folder), "--json", str(result), "--require", "met"])
        assert process.stdout is not None
        left = list(lines_to_kill_at)
        for line in process.stdout:
            if left and left[0] in line:
                left.pop(0)
                for pid in bots_of(folder):
                    os.kill(pid, signal.SIGKILL)
        _, complaint = process.communicate(timeout=60)
        assert process.returncode == 0, complaint
        assert left == []
        found.append(json.loads(result.read_text()))
    quiet, killed = found
    for told in ("n", "value", "n_items", "standard_error", "verdict", "symptoms", "changed"):
        assert [run[told] for run in killed["runs"]] == [run[told] for run in quiet["runs"]], told
    commits = ["git", "-C", killed["repository"], "rev-list", "--count", "--all"]
    assert subprocess.run(commits, capture_output=True, text=True, check=True).stdout.strip() == "4"
    assert len(list((tmp_path / "killed" / "bot" / "jobs").glob("*-train-*"))) == 2


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_evaluate_writes_the_published_form(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "bot.practice.tiny_base", "--quiet"], cwd=ROOT, check=True)
    result = tmp_path / "evaluation.json"
    words = ["evaluate", "--model", "postdoc/tiny-qwen3", "--benchmark", "practice/reverse", "--json", str(result)]
    done = subprocess.run([sys.executable, "-m", "bot", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(result.read_text())
    assert (found["benchmark"], found["model"], found["split"]) == ("practice/reverse", "postdoc/tiny-qwen3", "dev")
    assert (found["n"], len(found["samples"])) == (200, 200)
    assert found["value"] < 0.1
    assert f"n = {found['n']}" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_pursue_of_a_goal_file_brings_its_branch_back(tmp_path: Path) -> None:
    repository = tmp_path / "project"
    repository.mkdir()
    git = ["git", "-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "init", "--quiet", "-b", "main"], cwd=repository, check=True)
    (repository / "goal.yaml").write_text(
        "base_model: postdoc/tiny-qwen3\nbenchmark: practice/last\ntarget: 0.8\nbudget: {runs: 1, gpu_hours: 0.3}\n"
    )
    subprocess.run([*git, "add", "-A"], cwd=repository, check=True)
    subprocess.run([*git, "commit", "--quiet", "-m", "start"], cwd=repository, check=True)
    words = ["pursue", "goal.yaml", "--folder", str(tmp_path / "world"), "--json", "-", "--require", "met"]
    done = subprocess.run(
        [sys.executable, "-m", "bot", *words], cwd=repository, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["state"], len(found["runs"])) == ("met", 1)
    # Nobody granted anything in this repository: the caller's own consent is on the record.
    assert "command: @you: /postdoc run" in done.stderr
    files = subprocess.run(
        ["git", "ls-tree", "-r", "--name-only", "postdoc/1-last"],
        cwd=repository, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    assert {"goal.yaml", "experiments/0001-last/recipe.yaml", "experiments/0001-last/runs/01/run.json"} <= set(files)
    assert gone(tmp_path)
