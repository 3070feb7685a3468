"""A job's folder for a training script, and a base model with random weights that costs seconds, not minutes.

Scripts run in forks of one process that has its imports behind it (`bot.practice.warm`): starting Python for each would
cost more than what most of these tests train. Where a process of its own is the point, `python` starts one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from bot.evaluation.benchmarks import load_benchmark, write_job_files
from bot.evaluation.tasks import training_rows
from bot.practice.tiny_base import cached_path
from bot.practice.warm import ENVIRONMENT, EVALUATION_IMPORTS, IMPORTS, Warm

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "templates" / "scripts"
SFT = SCRIPTS / "sft.py"
EVALUATE = ROOT / "bot" / "evaluation" / "bundle" / "evaluate.py"
QUICK = {"learning_rate": "1e-3", "per_device_train_batch_size": 4, "max_length": 64, "save_strategy": "no", "seed": 0}
# GRPO has no max_length; 8 answers are one prompt's.
QUICK_GRPO = QUICK | {"per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 8}
QUICK_GRPO.pop("max_length")

# The real builder with a configuration of three steps: everything but the quality is the same.
BUILD = """
import sys
from pathlib import Path
from bot.practice.tiny_base import Configuration, build
build(Path(sys.argv[1]), Configuration(steps=3, batch_size=4), lambda step, loss: print(step))
"""


@dataclass(frozen=True)
class Ran:
    returncode: int
    output: str
    """What it printed; of a warm job, on both streams."""
    stderr: str
    seconds: float
    """Of processor time; 0 for a process of its own."""


def environment(place: Path | None = None) -> dict[str, str]:
    """Of a script's process; the launcher of several leaves its logs in TMPDIR, which is `place`."""
    kept = {"TMPDIR": str(place)} if place is not None else {}
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), **kept}


def python(*arguments: object, cwd: Path | None = None, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, env=environment(), input=stdin, capture_output=True, text=True, timeout=600, check=False
    )


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    with Warm((*IMPORTS, *EVALUATION_IMPORTS), environment=ENVIRONMENT | {"PYTHONPATH": str(ROOT)}) as process:
        yield process


def run_warm(warm: Warm, *words: object, cwd: Path, name: str = "log.txt", timeout: float = 600) -> Ran:
    """A Python script in a fork of the warm process; `name` is the file that gets what it prints."""
    log = cwd / name
    log.unlink(missing_ok=True)
    ended = warm.start(list(map(str, words)), cwd=cwd, log=log).wait(timeout)
    assert ended is not None, f"still running after {timeout} s: {log.read_text()}"
    text = log.read_text()
    return Ran(ended.exit_code, text, text, ended.cpu_seconds)


@pytest.fixture(scope="session")
def untrained_base(tmp_path_factory: pytest.TempPathFactory, warm: Warm) -> Path:
    folder = tmp_path_factory.mktemp("models")
    (folder.parent / "build.py").write_text(BUILD)
    done = run_warm(warm, folder.parent / "build.py", folder / "untrained", cwd=folder.parent, name="build.txt")
    assert done.returncode == 0, done.output
    assert [entry.name for entry in folder.iterdir() if entry.is_dir()] == ["untrained"], "nothing half-built stays"
    return folder / "untrained"


@pytest.fixture(scope="session")
def base() -> Path:
    """The real base, from the user's cache or built now (minutes of one core)."""
    done = python("-m", "bot.practice.tiny_base", "--quiet", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(cached_path())
    return cached_path()


class Job:
    """A training job's folder; without a warm process each run starts Python anew."""

    def __init__(self, path: Path, base: Path, warm: Warm | None = None) -> None:
        self.path, self.base, self.out, self.warm = path, base, path / "out", warm
        (path / "data").mkdir(parents=True)

    def data(self, rows: list[dict[str, Any]], name: str = "train") -> None:
        (self.path / "data" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(self, *flags: str, **recipe: Any) -> Ran:
        done = self.attempt(*flags, **recipe)
        assert done.returncode == 0, done.stderr
        return done

    def refusal(self, *flags: str, **recipe: Any) -> str:
        """The one line with which the script refuses this recipe or its data."""
        done = self.attempt(*flags, **recipe)
        assert done.returncode == 2, done.output
        line = done.stderr.strip().splitlines()[-1]
        assert line.startswith("train.py: ") and "Traceback" not in done.output
        return line

    def attempt(self, *flags: str, **recipe: Any) -> Ran:
        command = self.command(*flags, **recipe)
        if self.warm is not None:
            return run_warm(self.warm, *command, cwd=self.path)
        done = python(*command, cwd=self.path)
        return Ran(done.returncode, done.stdout, done.stderr, 0.0)

    def start(self, *flags: str, **recipe: Any) -> subprocess.Popen[bytes]:
        """The same in a process of its own, and whoever asked waits for it, or kills it."""
        command = [sys.executable, *map(str, self.command(*flags, **recipe))]
        with open(self.path / "log.txt", "wb") as log:
            return subprocess.Popen(command, cwd=self.path, env=environment(), stdout=log, stderr=log)

    def command(self, *flags: str, method: str = "sft", init_from: Path | None = None, **recipe: Any) -> list[object]:
        shutil.copy(SCRIPTS / f"{method}.py", self.path / "train.py")
        if not (self.path / "rewards.py").exists():
            shutil.copy(SCRIPTS / "rewards.py", self.path / "rewards.py")
        quick = QUICK_GRPO if method == "grpo" else QUICK
        (self.path / "recipe.yaml").write_text(yaml.safe_dump(quick | {"method": method} | recipe))
        return [
            "train.py", "--config", "recipe.yaml", "--init_from", init_from or self.base, "--train_file",
            "data/train.jsonl", "--validation_file", "data/validation.jsonl", "--output_dir", "out", *flags,
        ]  # fmt: skip

    def json(self, name: str) -> dict[str, Any]:
        return json.loads((self.out / name).read_text())

    def lines(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.out / name).read_text().splitlines()]

    @property
    def metrics(self) -> list[dict[str, Any]]:
        return self.lines("metrics.jsonl")


@pytest.fixture
def job(tmp_path: Path, untrained_base: Path, warm: Warm) -> Job:
    return Job(tmp_path / "job", untrained_base, warm)


def evaluation(warm: Warm, model: Path, task: str, folder: Path, split: str = "dev") -> dict[str, Any]:
    """What the evaluator says of a model on a practice benchmark."""
    folder.mkdir(parents=True, exist_ok=True)
    files = write_job_files(load_benchmark(f"practice/{task}"), split, folder / "job")
    output = folder / f"{split}.json"
    done = run_warm(
        warm, Path(files["bundle"]) / "evaluate.py", "--model", model, "--benchmark", files["benchmark.yaml"],
        "--items", files["items.jsonl"], "--split", split, "--output", output, cwd=folder, name="evaluation.txt",
    )  # fmt: skip
    assert done.returncode == 0, done.output
    return json.loads(output.read_text())


def table_row(method: str, peft: bool = False) -> dict[str, Any]:
    """The recipe that was measured on the tiny base."""
    rows = yaml.safe_load((ROOT / "bot" / "brain" / "recipes.yaml").read_text())["rows"]
    measured = [row for row in rows if row["source"].startswith("measured") and row["method"] == method]
    return next(row["recipe"] for row in measured if row["peft"] == peft)


def chat(prompt: str, completion: str) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": prompt}],
        "completion": [{"role": "assistant", "content": completion}],
    }


def chat_rows(n: int, task: str = "reverse", seed: int = 0) -> list[dict[str, Any]]:
    return [chat(row["prompt"], row["completion"]) for row in training_rows(task, n, seed)]


def pair_rows(n: int, task: str = "reverse", seed: int = 0) -> list[dict[str, Any]]:
    """Preferences: the right answer over the question said again."""
    return [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "chosen": [{"role": "assistant", "content": row["completion"]}],
            "rejected": [{"role": "assistant", "content": row["prompt"]}],
        }
        for row in training_rows(task, n, seed)
    ]
