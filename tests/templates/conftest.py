"""A job's folder for the training script, and a base model with random weights that costs seconds, not minutes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from bot.evaluation.tasks import training_rows

ROOT = Path(__file__).resolve().parents[2]
SFT = ROOT / "templates" / "scripts" / "sft.py"
EVALUATE = ROOT / "bot" / "evaluation" / "bundle" / "evaluate.py"
QUICK = {"learning_rate": "1e-3", "per_device_train_batch_size": 4, "max_length": 64, "save_strategy": "no", "seed": 0}

# The real builder with a configuration of three steps: everything but the quality is the same.
BUILD = """
import sys
from pathlib import Path
from bot.practice.tiny_base import Configuration, build
build(Path(sys.argv[1]), Configuration(steps=3, batch_size=4), lambda step, loss: print(step))
"""


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}


def python(*arguments: object, cwd: Path | None = None, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, env=environment(), input=stdin, capture_output=True, text=True, timeout=600, check=False
    )


@pytest.fixture(scope="session")
def untrained_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "untrained"
    done = python("-c", BUILD, path)
    assert done.returncode == 0, done.stderr
    assert [entry.name for entry in path.parent.iterdir() if entry.is_dir()] == ["untrained"], (
        "nothing half-built stays"
    )
    return path


class Job:
    """A training job's folder."""

    def __init__(self, path: Path, base: Path) -> None:
        self.path, self.base, self.out = path, base, path / "out"
        (path / "data").mkdir(parents=True)

    def data(self, rows: list[dict[str, Any]], name: str = "train") -> None:
        (self.path / "data" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(self, *flags: str, **recipe: Any) -> subprocess.CompletedProcess[str]:
        done = python(*self._command(*flags, **recipe), cwd=self.path)
        assert done.returncode == 0, done.stderr
        return done

    def start(self, *flags: str, **recipe: Any) -> subprocess.Popen[bytes]:
        """The same, and whoever asked waits for it, or kills it."""
        command = [sys.executable, *map(str, self._command(*flags, **recipe))]
        with open(self.path / "log.txt", "wb") as log:
            return subprocess.Popen(command, cwd=self.path, env=environment(), stdout=log, stderr=log)

    def _command(self, *flags: str, **recipe: Any) -> list[object]:
        (self.path / "recipe.yaml").write_text(yaml.safe_dump(QUICK | recipe))
        return [
            SFT, "--config", "recipe.yaml", "--init_from", self.base, "--train_file", "data/train.jsonl",
            "--validation_file", "data/validation.jsonl", "--output_dir", "out", *flags,
        ]  # fmt: skip

    def json(self, name: str) -> dict[str, Any]:
        return json.loads((self.out / name).read_text())

    @property
    def metrics(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.out / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def job(tmp_path: Path, untrained_base: Path) -> Job:
    return Job(tmp_path / "job", untrained_base)


def chat(prompt: str, completion: str) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": prompt}],
        "completion": [{"role": "assistant", "content": completion}],
    }


def chat_rows(n: int, task: str = "reverse", seed: int = 0) -> list[dict[str, Any]]:
    return [chat(row["prompt"], row["completion"]) for row in training_rows(task, n, seed)]
