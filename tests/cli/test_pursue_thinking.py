"""`postdoc pursue` with a language model: real training of the tiny model on the data and scripts that it wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bot.evaluation.tasks import training_rows
from tests.fakes.language_models import Answer, ChatApi, Json, MessagesApi, Script, calls

ROOT = Path(__file__).resolve().parents[2]
KEY = "sk-ant-api03-of-a-test-0123456789"
POLICY = """\
consent:
  auto_approve:
    runs: 8
    gpu_hours: 2
    recipe_keys: [learning_rate, data_sources, max_steps]
    scripts: [data/prepare.py, train.py]
"""
# The rate of a 7B model's card, as the demo's first goal has it: far too low for a model of 0.3 million parameters.
GOAL = """\
base_model: postdoc/tiny-qwen3
benchmark: practice/reverse
target: 0.9
budget: {runs: 4, gpu_hours: 0.5}
recipe: |
  learning_rate: 2.0e-05
  lr_scheduler_type: cosine
  warmup_steps: 5
  num_train_epochs: 1
  per_device_train_batch_size: 16
  max_length: 256
"""
PREPARE = '''\
# /// script
# requires-python = ">=3.11"
# dependencies = []
# ///
"""Rows of data/asked.jsonl as prompt and completion."""

import argparse
import json
from pathlib import Path

parser = argparse.ArgumentParser()
for name in ("config", "inputs", "output"):
    parser.add_argument(f"--{name}", type=Path)
args = parser.parse_args()
rows = [json.loads(line) for line in (args.inputs / "data" / "asked.jsonl").read_text().splitlines()]


def message(role, text):
    return [{"role": role, "content": text}]


made = [{"prompt": message("user", r["asked"]), "completion": message("assistant", r["said"])} for r in rows]
args.output.mkdir(parents=True, exist_ok=True)
for name, part in (("train", made[64:]), ("validation", made[:64])):
    (args.output / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in part))
build = {"sources": [{"path": "data/asked.jsonl", "rows": len(rows)}], "rows": len(made) - 64, "validation_rows": 64,
         "dropped": {}, "columns": {"prompt": "asked", "completion": "said"}}
(args.output / "build.json").write_text(json.dumps(build))
'''
ANCHOR = "def smoke_rows("


def repository(folder: Path) -> Path:
    rows = training_rows("reverse", 2000, 0)
    asked = "".join(json.dumps({"asked": r["prompt"], "said": r["completion"]}) + "\n" for r in rows)
    for path, text in {".github/postdoc.yml": POLICY, "goal.yaml": GOAL, "data/asked.jsonl": asked,
                       "data/README.md": "---\nlicense: cc-by-4.0\n---\n# Asked and said\n"}.items():  # fmt: skip
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    git = ["git", "-c", "user.name=A", "-c", "user.email=a@example.org"]
    for words in (["init", "--quiet", "-b", "main"], ["add", "-A"], ["commit", "--quiet", "-m", "start"]):
        subprocess.run([*git, *words], cwd=folder, check=True)
    return folder


def mind() -> list[Script]:
    """Plan: other data, with a script for it. Run 1: a patch that crashes, mended. Run 2: the rate."""

    def patch(line: str) -> Answer:
        edits = [{"old": ANCHOR, "new": f"{line}\n\n\n{ANCHOR}"}]
        files = [{"path": "train.py", "edits": edits}]
        return calls(("propose", {"kind": "patch", "reason": "A note in the script.", "files": files}))

    def mended(body: Json) -> Answer:
        assert "ZeroDivisionError" in json.dumps(body["messages"][-1]), json.dumps(body["messages"][-1])[:1500]
        return patch("NOTE = 1 / 1")

    data = {"kind": "data", "reason": "The repository has rows of this very task.", "dataset": "data/asked.jsonl",
            "files": [{"path": "data/prepare.py", "content": PREPARE}]}  # fmt: skip
    rate = {"kind": "recipe", "reason": "The loss is flat.", "label": "plateau", "settings": {"learning_rate": 3e-3}}
    look: Callable[[str], Answer] = lambda path: calls(("read_file", {"path": path, "lines": 60}))  # noqa: E731
    return [look("data/prepare.py"), calls(("propose", data)), patch("NOTE = 1 / 0"), mended, calls(("propose", rate))]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("chat", [False, True], ids=["messages", "completions"])
def test_a_goal_is_met_by_real_training_of_what_the_model_wrote(tmp_path: Path, chat: bool) -> None:
    place, told = repository(tmp_path / "project"), tmp_path / "goal.json"
    api: Any = ChatApi(KEY) if chat else MessagesApi(KEY)
    with api.serve():
        api.say(*mind())
        settings = {"POSTDOC_BRAIN": "openai:qwen3" if chat else "anthropic:claude-opus-4-6", "POSTDOC_BRAIN_KEY": KEY,
                    "POSTDOC_BRAIN_URL": api.url.rstrip("/"), "POSTDOC_BRAIN_PRICE": "0/0",
                    "POSTDOC_JOB_PYTHON": sys.executable}  # fmt: skip
        command = [sys.executable, "-m", "bot", "pursue", "goal.yaml", "--json", str(told), "--require", "met",
                   "--folder", str(tmp_path / "place")]  # fmt: skip
        environment = os.environ | settings | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    assert not api.script and KEY not in done.stdout + told.read_text()
    branch = subprocess.run(
        ["git", "for-each-ref", "--format=%(refname:short)", "refs/heads/postdoc"], cwd=place, capture_output=True,
        text=True, check=True,
    ).stdout.strip()  # fmt: skip

    def file(path: str) -> str:
        shown = subprocess.run(["git", "show", f"{branch}:experiments/0001-reverse/{path}"], cwd=place,
                               capture_output=True, text=True, check=True)  # fmt: skip
        return shown.stdout

    assert file("data/prepare.py") == PREPARE and "NOTE = 1 / 1" in file("train.py")
    recipe = file("recipe.yaml")
    assert "data_sources: data/asked.jsonl" in recipe and "learning_rate: 0.003" in recipe
    trace = next((tmp_path / "place").rglob("traces/thought-1.jsonl")).read_text()
    assert json.loads(trace.splitlines()[0])["type"] == "user" and KEY not in trace
