"""Losses that are no cross-entropies in nats, and classifiers of many classes: what may be said from their curves."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from bot.diagnosis import diagnose, read_folder
from bot.diagnosis.units import chance_of, in_nats, loss_unit
from bot.domain.diagnosis import Diagnosis, Severity, Symptom

REGRESSION = {"architectures": ["BertForSequenceClassification"], "problem_type": "regression"}


def state(folder: Path, history: list[dict[str, Any]], **files: dict[str, Any]) -> Path:
    """A Trainer's output folder without a recipe."""
    (folder / "trainer_state.json").write_text(json.dumps({"log_history": history}))
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return folder


def said(path: Path) -> list[Diagnosis]:
    return [d for d in diagnose(path).diagnoses if d.severity is not Severity.ADVICE]


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("norm", [1e-3, 1.0, 800.0])
def test_squared_errors_that_fall_are_healthy_at_any_scale(
    tmp_path: Path, build: Any, scale: float, norm: float
) -> None:
    losses = [scale * loss for loss in build.noisy(build.decay(1.0, 0.3, 120, knee=0.2), noise=0.3)]
    path = state(tmp_path, build.curve(losses, peak=1e-4, grad_norm=norm), config=REGRESSION)
    assert said(path) == []


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_loss_of_a_matched_flow_that_hardly_falls_is_no_plateau(tmp_path: Path, build: Any, scale: float) -> None:
    losses = [scale * loss for loss in build.noisy([1.0] * 200, noise=0.2)]
    path = state(tmp_path, build.curve(losses, peak=1e-6, grad_norm=500.0))
    assert said(path) == []


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_squared_errors_that_run_away_diverge_at_any_scale(tmp_path: Path, build: Any, scale: float) -> None:
    losses = [scale * loss for loss in build.noisy([*build.decay(1.0, 0.2, 60), *[9.0] * 60], noise=0.1)]
    (found, *_) = said(state(tmp_path, build.curve(losses, peak=1e-3), config=REGRESSION))
    assert (found.symptom, found.key) == (Symptom.DIVERGENCE, "learning_rate")


def test_norms_of_a_squared_error_explode_beside_their_own_beginning(tmp_path: Path, build: Any) -> None:
    def grows(step: int, _: float) -> float:
        return 1e-3 * (1 if step < 50 else 60)

    rising = build.curve([1e-4 * (1 + step / 100) for step in range(100)], grad_norm=grows)
    assert Symptom.GRAD_EXPLOSION in {d.symptom for d in said(state(tmp_path, rising))}
    falling = build.curve([1e-4 * (1 - step / 200) for step in range(100)], grad_norm=grows)
    assert said(state(tmp_path, falling)) == []


@pytest.mark.parametrize(
    ("recipe", "record", "known"),
    [
        ("init_from: Qwen/Qwen3-1.7B\n", {"loss": 2.0}, True),
        ("method: sft\n", {"loss": 1e-3}, True),
        ("learning_rate: 1.0e-4\n", {"loss": 2.0}, False),
        ("learning_rate: 1.0e-4\n", {"loss": 2.0, "mean_token_accuracy": 0.5}, True),
        ("init_from: my/policy\n", {"loss": 1e-3}, False),
        ("init_from: my/policy\n", {"loss": 4000.0}, False),
        ("init_from: my/policy\n", {"loss": -3.0}, False),
        ("init_from: my/policy\n", {"loss": 2.0, "mse_loss": 1.0}, False),
        ("init_from: my/policy\nloss_type: huber\n", {"loss": 2.0}, False),
        ("method: dpo\nloss_type: ipo\n", {"loss": 24.0}, False),
        ("method: dpo\nloss_type: sigmoid\n", {"loss": 0.69}, True),
    ],
)
def test_loss_is_in_nats_where_something_says_so(
    folder: Any, recipe: str, record: dict[str, float], known: bool
) -> None:
    run = read_folder(folder(recipe, metrics=[{"step": step} | record for step in range(1, 9)]))
    assert in_nats(run) is known
    assert loss_unit(run) == (1.0 if known else abs(record["loss"]))


@pytest.mark.parametrize(
    ("config", "adapter", "known"),
    [
        ({"architectures": ["LlamaForCausalLM"]}, {}, True),
        ({"architectures": ["ViTForImageClassification"], "id2label": {str(i): "" for i in range(9)}}, {}, True),
        ({"architectures": ["BertForSequenceClassification"]}, {}, True),  # two classes are the default
        ({"architectures": ["BertForSequenceClassification"], "id2label": {"0": "LABEL_0"}}, {}, False),
        (REGRESSION, {}, False),
        ({"architectures": ["PI0Policy"], "_name_or_path": "my/policy"}, {}, False),
        ({"_name_or_path": "my/model"}, {}, True),
        ({}, {"task_type": "CAUSAL_LM"}, True),
        ({}, {"task_type": None}, False),
    ],
)
def test_models_own_files_tell_its_loss(
    tmp_path: Path, build: Any, config: dict[str, Any], adapter: dict[str, Any], known: bool
) -> None:
    run = read_folder(state(tmp_path, build.curve([2.0] * 9), config=config, adapter_config=adapter))
    assert in_nats(run) is known


def test_measured_errors_of_numbers_tell_a_regression(folder: Any, build: Any) -> None:
    metrics = [*build.curve([2.0] * 9), {"step": 9, "eval_loss": 2.0, "eval_rmse": 1.4}]
    assert not in_nats(read_folder(folder("init_from: bert-base-uncased\n", metrics=metrics)))


def of_classes(build: Any, losses: list[float], accuracy: list[float]) -> list[dict[str, Any]]:
    rows = build.curve(losses, peak=1e-3, epoch=lambda step, _: step / 40)
    every = len(losses) // len(accuracy)
    return rows + [
        {"step": (i + 1) * every, "eval_loss": losses[(i + 1) * every - 1], "eval_accuracy": value}
        for i, value in enumerate(accuracy)
    ]


@pytest.mark.parametrize("rate", [1e-3, 1e-6])
def test_thousand_classes_that_are_learned_slowly_are_no_plateau(folder: Any, build: Any, rate: float) -> None:
    losses = build.noisy([math.log(1000) - 0.004 * step for step in range(120)], noise=0.005)
    metrics = of_classes(build, losses, [0.001, 0.0012, 0.0012, 0.0015])
    recipe = f"init_from: google/vit-base-patch16-224-in21k\nmethod: vision\nlearning_rate: {rate}\nmax_steps: 120\n"
    run = folder(recipe, metrics=metrics)
    assert said(run) == [] and chance_of(read_folder(run)) == pytest.approx(math.log(1000), rel=0.01)


def test_thousand_classes_of_which_none_is_learned_are_guessed(folder: Any, build: Any) -> None:
    losses = build.noisy([math.log(1000)] * 120, noise=0.005)
    metrics = of_classes(build, losses, [0.001, 0.001, 0.0011, 0.001])
    recipe = "init_from: google/vit-base-patch16-224-in21k\nmethod: vision\nlearning_rate: 1.0e-6\nmax_steps: 120\n"
    assert {d.symptom for d in said(folder(recipe, metrics=metrics))} == {Symptom.PLATEAU}
