"""Runs that Postdoc did not make: another trainer's files, keys and printed records, and nothing more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bot.diagnosis import diagnose, read_folder
from bot.domain.diagnosis import Severity, Symptom

AXOLOTL = """\
base_model: NousResearch/Meta-Llama-3-8B
datasets:
  - path: tatsu-lab/alpaca
    type: alpaca
adapter: lora
lora_r: 32
micro_batch_size: 2
gradient_accumulation_steps: 4
num_epochs: 3
sequence_len: 2048
learning_rate: 0.05
lr_scheduler: cosine
"""


def state(folder: Path, recipe: str, history: list[dict[str, Any]]) -> Path:
    (folder / "recipe.yaml").write_text(recipe)
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": len(history), "log_history": history}))
    return folder


def test_axolotl_run_is_blamed_on_its_own_keys(tmp_path: Path, build: Any) -> None:
    losses = build.decay(1.4, 1.1, 30) + [7.5] * 60
    (found, *_) = diagnose(state(tmp_path, AXOLOTL, build.curve(losses, peak=0.05))).diagnoses
    assert (found.symptom, found.key, found.line) == (Symptom.DIVERGENCE, "learning_rate", 11)


def test_axolotl_run_out_of_memory_halves_its_micro_batch(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(AXOLOTL)
    (tmp_path / "log.txt").write_text(
        'Traceback (most recent call last):\n  File "/a/train.py", line 3, in f\n    loss.backward()\n'
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.00 GiB.\n"
    )
    (found,) = diagnose(tmp_path).diagnoses
    assert (found.symptom, found.key, found.line, found.suggested) == (Symptom.OOM, "micro_batch_size", 7, 1)


def test_records_that_were_only_printed_are_read(tmp_path: Path) -> None:
    lines = [
        f"{{'loss': {2.0 - 0.01 * i}, 'grad_norm': 1.0, 'learning_rate': 1e-05, 'epoch': {i / 100}}}" for i in range(40)
    ]
    lines += ["{'loss': 0.0, 'grad_norm': nan, 'learning_rate': 1e-05, 'epoch': 0.5}"] * 10
    (tmp_path / "recipe.yaml").write_text("model_name_or_path: gpt2\nfp16: true\nlogging_steps: 10\n")
    (tmp_path / "log.txt").write_text("100%|###| 5/5\n".join(line + "\n" for line in lines))
    assert read_folder(tmp_path).last_step == 500
    (found,) = diagnose(tmp_path).diagnoses
    assert (found.symptom, found.key, found.line, found.evidence[0].step) == (Symptom.NAN_INF, "fp16", 2, 410)


def test_keys_with_a_trackers_prefix_are_the_same_keys(tmp_path: Path, build: Any) -> None:
    rows = [{"step": r["step"], "train/loss": r["loss"], "train/grad_norm": "NaN"} for r in build.curve([1.0] * 20)]
    rows += [{"step": 20, "eval/loss": 1.1}]
    (tmp_path / "recipe.yaml").write_text("learning_rate: 1.0e-4\n")
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = read_folder(tmp_path)
    assert len(run.steps) == 20 and run.evals[0]["eval_loss"] == 1.1
    assert diagnose(tmp_path).diagnoses[0].symptom is Symptom.NAN_INF


def test_method_is_told_by_the_metrics(tmp_path: Path) -> None:
    for name, row in {
        "dpo": {"loss": 0.6, "rewards/margins": 0.1},
        "grpo": {"loss": 0.0, "reward": 0.1},
        "reward": {"loss": 0.6, "min_reward": -1.0, "max_reward": 1.0},
        "sft": {"loss": 2.0, "mean_token_accuracy": 0.5},
    }.items():
        assert read_folder(state(tmp_path, "learning_rate: 1.0e-5\n", [{"step": 1} | row])).method == name


def test_recipe_alone_is_a_folder_and_healthy(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("learning_rate: 2.0e-5\n")
    report = diagnose(tmp_path)
    assert report.healthy and all(d.severity is Severity.ADVICE for d in report.diagnoses)


OUT_OF_MEMORY = (
    'Traceback (most recent call last):\n  File "/a/run.py", line 3, in f\n    loss.backward()\n'
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.00 GiB.\n"
)


def test_batch_that_nobody_tells_is_not_made_up(tmp_path: Path) -> None:
    """Eight is transformers' default, and nothing says that transformers trained here."""
    (tmp_path / "log.txt").write_text(OUT_OF_MEMORY)
    for recipe in (None, "learning_rate: 1.0e-4\n", "base_model: my/model\nnum_train_epochs: 3\n"):
        if recipe is not None:
            (tmp_path / "recipe.yaml").write_text(recipe)
        (found,) = diagnose(tmp_path).diagnoses
        assert (found.symptom, found.key, found.suggested) == (Symptom.OOM, "per_device_train_batch_size", None)
        assert "per_device_train_batch_size" in found.cause and "sequences per device" not in found.cause
        assert "per_device_train_batch_size" not in {evidence.key for evidence in found.evidence}


def test_default_batch_is_said_where_its_trainer_is_known(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text(OUT_OF_MEMORY)
    for recipe in ("init_from: my/model\n", "model_name_or_path: my/model\nnum_train_epochs: 3\n"):
        (tmp_path / "recipe.yaml").write_text(recipe)
        (found,) = diagnose(tmp_path).diagnoses
        assert "8 sequences per device" in found.cause and found.suggested == 4


def factory_log(folder: Path, losses: list[float], *, old: bool = False, total: int | None = None) -> None:
    """As LLaMA-Factory writes it: older versions with null for what a record lacks."""
    every = {"eval_loss": None, "predict_loss": None, "reward": None, "accuracy": None} if old else {}
    rate = "learning_rate" if old else "lr"
    steps = total or 10 * len(losses)
    with (folder / "trainer_log.jsonl").open("a") as file:
        for i, loss in enumerate(losses, start=1):
            row = {"current_steps": 10 * i, "total_steps": steps, "loss": loss, **every, rate: 1e-3, "epoch": i / 9,
                   "percentage": 1.0, "elapsed_time": "0:00:10", "remaining_time": "0:00:10"}  # fmt: skip
            file.write(json.dumps(row) + "\n")


def closing(folder: Path, steps: int) -> None:
    with (folder / "trainer_log.jsonl").open("a") as file:
        file.write(json.dumps({"current_steps": 0, "total_steps": 0, "eval_loss": 1.1, "epoch": 3.0}) + "\n")
        file.write(json.dumps({"current_steps": steps, "total_steps": steps, "epoch": 3.0, "percentage": 100.0}) + "\n")


def test_trainer_log_is_read_in_place_of_a_trainer_state(tmp_path: Path, build: Any) -> None:
    for old in (False, True):
        factory_log(tmp_path, build.decay(1.4, 1.1, 30) + [7.5] * 60, old=old)
        closing(tmp_path, 900)
        run = read_folder(tmp_path)
        assert len(run.steps) == 90 and run.last_step == run.planned_steps == 900 and run.closed
        assert set(run.steps[0]) == {"step", "loss", "learning_rate", "epoch"} and run.rate.current == 1e-3
        assert [(r["step"], r["eval_loss"]) for r in run.evals] == [(900.0, 1.1)]
        found = diagnose(tmp_path).diagnoses[0]
        assert (found.symptom, found.key) == (Symptom.DIVERGENCE, "learning_rate")
        (tmp_path / "trainer_log.jsonl").unlink()


def test_trainer_log_of_several_starts_is_one_run(tmp_path: Path, build: Any) -> None:
    factory_log(tmp_path, [9.0] * 50)
    factory_log(tmp_path, build.decay(1.4, 1.1, 20), total=200)
    run = read_folder(tmp_path)
    assert run.last_step == run.planned_steps == 200 and max(r["loss"] for r in run.steps) < 2
    assert not run.closed and diagnose(tmp_path).healthy


def test_trainer_log_beside_a_trainer_state_is_not_needed(tmp_path: Path, build: Any) -> None:
    factory_log(tmp_path, [float("nan")] * 50)
    run = read_folder(state(tmp_path, "init_from: my/model\n", build.curve([2.0] * 30)))
    assert run.last_step == 30 and diagnose(tmp_path).healthy


def test_factorys_own_names_are_known(tmp_path: Path) -> None:
    recipe = "model_name_or_path: my/model\nstage: sft\nfinetuning_type: lora\ncutoff_len: 2048\n"
    run = read_folder(state(tmp_path, recipe, [{"step": 1, "loss": 2.0, "learning_rate": 3e-4}]))
    assert run.recipe["max_length"] == 2048 and run.recipe["use_peft"] is True
    assert run.rate.current == 3e-4 and not run.defaults_hold


def test_factorys_stage_is_the_method_that_a_bare_loss_cannot_tell(tmp_path: Path) -> None:
    for stage, method in {"pt": "pretrain", "rm": "reward", "dpo": "dpo", "sft": "sft"}.items():
        recipe = f"model_name_or_path: my/model\nstage: {stage}\n"
        assert read_folder(state(tmp_path, recipe, [{"step": 1, "loss": 0.69}])).method == method
