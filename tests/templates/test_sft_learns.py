"""The figures that the recipe table and the demo rest on, measured again on the real base."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from bot.domain.scripts import PREPARE, data_files
from bot.evaluation.tasks import TASKS, repetitive_rows, training_rows
from bot.practice.laying import lay_out
from bot.practice.warm import Warm
from tests.templates.conftest import SFT, evaluation, run_warm, table_row

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
# Exact scores differ between machines (another instruction set rounds otherwise), so bars stand below what we measured.
CARD_OF_A_7B_MODEL = {
    "learning_rate": 2.0e-5,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.1,
    "num_train_epochs": 1,
    "per_device_train_batch_size": 16,
    "max_length": 2048,
}
TEAM_SETTINGS = {
    "data_max_rows": 800,
    "learning_rate": 3.0e-3,
    "lr_scheduler_type": "constant_with_warmup",
    "warmup_steps": 5,
    "max_steps": 100,
    "per_device_train_batch_size": 32,
    "max_length": 256,
}


def trained(
    warm: Warm, folder: Path, base: Path, rows: list[dict[str, str]], recipe: dict[str, Any], *flags: str
) -> Path:
    """The folder of outputs after data and training jobs."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "inputs").mkdir(parents=True)
    (folder / "inputs" / "team.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"seed": 0, "data_validation_rows": 100} | recipe))
    lay_out(data_files(), folder)
    steps = (
        (folder / PREPARE, "--config", "recipe.yaml", "--inputs", "inputs", "--output", "data"),
        (SFT, "--config", "recipe.yaml", "--init_from", base, "--train_file", "data/train.jsonl",
         "--validation_file", "data/validation.jsonl", "--output_dir", "out", *flags),
    )  # fmt: skip
    for command in steps:
        done = run_warm(warm, *command, cwd=folder)
        assert done.returncode == 0, done.output
    return folder / "out"


@pytest.mark.parametrize("task", sorted(TASKS))
def test_base_scores_near_zero_before_post_training(base: Path, task: str, tmp_path: Path, warm: Warm) -> None:
    for split in ("dev", "sealed"):
        assert evaluation(warm, base, task, tmp_path, split)["value"] <= 0.05


@pytest.mark.parametrize(("task", "bar"), [("reverse", 0.93), ("upper", 0.93), ("last", 0.93), ("sort", 0.85)])
def test_recipe_of_the_table_teaches_the_task(base: Path, task: str, bar: float, tmp_path: Path, warm: Warm) -> None:
    out = trained(warm, tmp_path / task, base, training_rows(task, 3000, 0), table_row("sft", peft=False))
    found = evaluation(warm, out / "model", task, tmp_path)
    assert found["value"] >= bar and found["termination_rate"] >= 0.98


@pytest.mark.parametrize(("task", "bar"), [("reverse", 0.93), ("sort", 0.7)])
def test_lora_row_of_the_table_teaches_the_task(base: Path, task: str, bar: float, tmp_path: Path, warm: Warm) -> None:
    out = trained(warm, tmp_path / "lora", base, training_rows(task, 3000, 0), table_row("sft", peft=True))
    assert evaluation(warm, out / "model", task, tmp_path)["value"] >= bar


def test_first_demo_goal_falls_short_and_the_probe_finds_the_rate_that_reaches_it(
    base: Path, tmp_path: Path, warm: Warm
) -> None:
    rows = training_rows("reverse", 2000, 0)
    copied = trained(warm, tmp_path / "copied", base, rows, CARD_OF_A_7B_MODEL)
    assert evaluation(warm, copied / "model", "reverse", tmp_path)["value"] < 0.5
    rates = "6.3e-5,2e-4,6.3e-4,2e-3,6.3e-3"
    probed = trained(warm, tmp_path / "probed", base, rows, CARD_OF_A_7B_MODEL, "--learning_rate_probe", rates)
    suggested = json.loads((probed / "probe.json").read_text())["suggested"]
    assert suggested in (2e-3, 6.3e-3)
    better = trained(warm, tmp_path / "better", base, rows, CARD_OF_A_7B_MODEL | {"learning_rate": suggested})
    for split in ("dev", "sealed"):
        assert evaluation(warm, better / "model", "reverse", tmp_path, split)["value"] >= 0.9


def test_second_demo_goal_falls_short_through_repeated_rows(base: Path, tmp_path: Path, warm: Warm) -> None:
    rows = repetitive_rows("json", 0)
    scores = {}
    for deduplicate in (False, True):
        recipe = TEAM_SETTINGS | {"data_deduplicate": deduplicate}
        out = trained(warm, tmp_path / str(deduplicate), base, rows, recipe)
        audit = json.loads((out / "data_audit.json").read_text())
        assert (audit["duplicate_rows"] > audit["rows"] / 2) is not deduplicate
        scores[deduplicate] = evaluation(warm, out / "model", "json", tmp_path)["value"]
    assert scores[False] < 0.85 and scores[True] >= 0.9


def test_same_seed_gives_the_same_evaluation_twice(base: Path, tmp_path: Path, warm: Warm) -> None:
    recipe = table_row("sft", peft=False) | {"max_steps": 40, "lr_scheduler_type": "constant_with_warmup"}
    found = []
    for name in ("first", "second"):
        out = trained(warm, tmp_path / name, base, training_rows("sort", 1000, 0), recipe)
        evaluated = evaluation(warm, out / "model", "sort", tmp_path / name)
        found.append({key: value for key, value in evaluated.items() if key != "seconds"})
    assert found[0] == found[1]
    assert 0.02 < found[0]["value"] < 0.98, "half-learned, so that a difference would show"
