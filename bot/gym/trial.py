"""A task's KNOWN_GOOD recipe tried outside of the loop: is the target in reach, and is the base model below it?

The same scripts on the same rows and items as in the loop, without forge and bot: data/prepare.py, the training script,
and the evaluator on dev and sealed. A chain's stages stand in KNOWN_GOOD one after the other, with `---` between them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bot.domain.evaluation import Split
from bot.domain.metrics import Metric, metric_named
from bot.domain.scripts import PREPARE, TRAIN, shipped_files
from bot.errors import PlatformError, UserError
from bot.evaluation.benchmark_file import read_benchmark_file
from bot.evaluation.benchmarks import write_job_files
from bot.gym.bases import base_name, models_of, teacher_name
from bot.gym.place import benchmark_text, clean_rows, jsonl, metric_of
from bot.gym.task_file import Task
from bot.practice.laying import lay_out
from bot.practice.warm import Warm

TRIAL_SECONDS = 600.0
VALIDATION_ROWS = 100
"""As in the playbook's recipes."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of a recipe."""

    base: float
    """The untouched base model on dev."""
    dev: float
    sealed: float
    trainer_seconds: float
    """Of a processor core."""
    metric: Metric

    def verdict(self, task: Task) -> str:
        """`in reach`, or what is wrong with the target."""
        if self.metric.reached(self.base, task.target):
            return "met by the base model"
        short = [value for value in (self.dev, self.sealed) if not self.metric.reached(value, task.target)]
        return "out of reach" if short else "in reach"


def try_recipe(task: Task, seed: int, folder: Path, warm: Warm, recipe: str | None = None) -> Trial:
    """Train by `recipe` (by KNOWN_GOOD when None) in the empty `folder` and evaluate.

    Raises: UserError when there is no recipe, PlatformError when a script fails.
    """
    text = recipe if recipe is not None else task.known_good
    if not text.strip():
        raise UserError(f"{task.path.name}: it has no KNOWN_GOOD. Write a recipe that reaches the target.")
    _write_rows(task, seed, folder)
    models = models_of(task, warm)
    model = models[base_name(task)]
    base = _evaluated(task, model, Split.DEV, seed, folder / "base", warm)
    took = 0.0
    parts = text.split("\n---\n")
    for number, part in enumerate(parts, 1):
        method = task.method.split(", ")[min(number, task.stages) - 1] if task.method else "sft"
        stage = folder / f"stage-{number}"
        words = ["--init_from", str(model)]
        words += ["--teacher", str(models[teacher_name(task)])] if task.teacher is not None else []
        took += _trained(task, method, part, words, seed, folder, stage, warm)
        model = stage / "out" / "model"
    return Trial(
        base,
        _evaluated(task, model, Split.DEV, seed, folder / "dev", warm),
        _evaluated(task, model, Split.SEALED, seed, folder / "sealed", warm),
        round(took, 2),
        metric_named(metric_of(task, task.items(seed)[0])),
    )


def _write_rows(task: Task, seed: int, folder: Path) -> None:
    data, benchmarks = folder / "data" / task.name, folder / "benchmarks"
    for place in (data, benchmarks):
        place.mkdir(parents=True)
    items = task.items(seed)
    (data / "train.jsonl").write_text(jsonl(clean_rows(task, seed)), encoding="utf-8")
    (benchmarks / f"{task.name}.jsonl").write_text(jsonl(items), encoding="utf-8")
    (benchmarks / f"{task.name}.yaml").write_text(benchmark_text(task, items[0]), encoding="utf-8")


def _trained(
    task: Task, method: str, recipe: str, words: Sequence[str], seed: int, folder: Path, stage: Path, warm: Warm
) -> float:
    """Processor seconds of the training script."""
    stage.mkdir()
    shutil.copytree(folder / "data", stage / "inputs" / "data")
    (stage / "recipe.yaml").write_text(
        f"method: {method}\ninit_from: {task.base_model}\ndata_sources: data/{task.name}\n"
        f"data_validation_rows: {VALIDATION_ROWS}\nseed: {seed}\n{recipe}\n",
        encoding="utf-8",
    )
    lay_out(shipped_files(method), stage)
    _run([PREPARE, "--config", "recipe.yaml", "--inputs", "inputs", "--output", "data"], stage, warm)
    argv = [TRAIN, "--config", "recipe.yaml", "--train_file", "data/train.jsonl"]
    argv += ["--output_dir", "out", *words]
    if (stage / "data" / "validation.jsonl").is_file():
        argv += ["--validation_file", "data/validation.jsonl"]
    return _run(argv, stage, warm)


def _evaluated(task: Task, model: Path, split: Split, seed: int, folder: Path, warm: Warm) -> float:
    benchmark = read_benchmark_file(
        f"benchmarks/{task.name}", folder.parent / "benchmarks" / f"{task.name}.yaml"
    )  # fmt: skip
    folder.mkdir()
    for target, source in write_job_files(benchmark, split, folder / "inputs", seed).items():
        if Path(source).is_dir():
            shutil.copytree(source, folder / target)
        else:
            shutil.copyfile(source, folder / target)
    argv = ["bundle/evaluate.py", "--model", str(model), "--benchmark", "benchmark.yaml", "--items", "items.jsonl"]
    _run([*argv, "--split", str(split), "--output", "out/evaluation.json", "--model_name", task.name], folder, warm)
    return float(json.loads((folder / "out" / "evaluation.json").read_text(encoding="utf-8"))["value"])


def _run(argv: Sequence[str], folder: Path, warm: Warm) -> float:
    job = warm.start(argv, cwd=folder, log=folder / "log.txt")
    ended = job.wait(TRIAL_SECONDS)
    if ended is None:
        job.kill()
        raise PlatformError(f"{argv[0]} took longer than {TRIAL_SECONDS:.0f} s")
    if ended.exit_code != 0:
        said = ((folder / "log.txt").read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
        raise PlatformError(f"{argv[0]} failed: {said[:300]}")
    return ended.cpu_seconds
