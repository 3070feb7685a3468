"""`postdoc reproduce` for real: a goal is pursued with real training, and its run comes out the same to the bit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GOAL = """\
base_model: postdoc/tiny-qwen3
benchmark: practice/last
target: 0.95
budget: {runs: 1, gpu_hours: 1}
recipe: |
  learning_rate: 1.0e-03
  max_steps: 30
  per_device_train_batch_size: 32
  max_length: 64
"""


def postdoc(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bot", *words], cwd=cwd, capture_output=True, text=True, check=False, timeout=1500
    )


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_run_on_the_processor_is_reproduced_bitwise(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "bot.practice.tiny_base", "--quiet"], cwd=ROOT, check=True)
    project = tmp_path / "project"
    project.mkdir()
    git = ["git", "-c", "user.name=A", "-c", "user.email=a@example.org"]
    (project / "goal.yaml").write_text(GOAL)
    for words in (["init", "--quiet", "-b", "main"], ["add", "-A"], ["commit", "--quiet", "-m", "start"]):
        subprocess.run([*git, *words], cwd=project, check=True)
    done = postdoc("pursue", "goal.yaml", "--folder", str(tmp_path / "place"), cwd=project)
    assert done.returncode == 0, done.stderr
    [branch] = subprocess.run(
        ["git", "branch", "--list", "postdoc/*", "--format=%(refname:short)"],
        cwd=project, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    subprocess.run(["git", "checkout", "--quiet", branch], cwd=project, check=True)
    run = f"experiments/{branch.removeprefix('postdoc/').replace('1-', '0001-', 1)}/runs/01"
    result = tmp_path / "again.json"
    again = postdoc("reproduce", run, "--json", str(result), "--require", "bitwise", cwd=project)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "no difference between the surroundings then and here is known" in again.stdout
    report = json.loads(result.read_text())
    assert (report["verdict"], report["items_differing"]) == ("bitwise", 0)
    assert report["curve"]["first_step"] is None and report["curve"]["steps"] == 30
    recorded = json.loads((project / run / "run.json").read_text())
    assert report["weights"] == [recorded["weights"]] * 2
    assert {"torch", "trl", "transformers"} <= recorded["environment"]["libraries"].keys()
    assert recorded["environment"]["threads"] == 1
