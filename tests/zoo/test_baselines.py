"""The published rules as their sources state them, and what chance would say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bot.zoo.baselines import AXOLOTL, SAGEMAKER, judges, majority, rules_judge
from bot.zoo.traces import Truth


def trace(folder: Path, rows: list[dict[str, Any]], method: str = "sft") -> Path:
    (folder / "recipe.yaml").write_text(f"method: {method}\nlearning_rate: 1.0e-3\nmax_steps: 40\n")
    (folder / "metrics.jsonl").write_text(
        "".join(json.dumps({"step": n} | row) + "\n" for n, row in enumerate(rows, 1))
    )
    return folder


def falling(n: int = 40, **more: Any) -> list[dict[str, Any]]:
    return [{"loss": 4 * 0.9**k, "grad_norm": 1.0} | more for k in range(n)]


def labels(rules: Any, folder: Path) -> list[str]:
    return [answer.label for answer in rules_judge(rules, aborts=frozenset({"nan_inf"}))(folder).answers]


def test_falling_loss_is_quiet_for_both(tmp_path: Path) -> None:
    folder = trace(tmp_path, falling())
    assert labels(SAGEMAKER, folder) == labels(AXOLOTL, folder) == []


def test_flat_loss_is_not_decreasing(tmp_path: Path) -> None:
    assert labels(SAGEMAKER, trace(tmp_path, [{"loss": 2.0, "grad_norm": 1.0}] * 40)) == ["plateau"]


def test_not_a_number_ends_the_run_where_it_began(tmp_path: Path) -> None:
    rows = [*falling(20), *[{"loss": 0.0, "grad_norm": "NaN"}] * 20]
    found = rules_judge(SAGEMAKER, aborts=frozenset({"nan_inf"}))(trace(tmp_path, rows))
    assert found.answers[0].label == "nan_inf"
    assert found.aborted == 21


def test_loss_above_twice_the_first_is_divergence(tmp_path: Path) -> None:
    rows = [{"loss": 1.0, "grad_norm": 1.0}] * 5 + [{"loss": 2.5, "grad_norm": 1.0}] * 3
    assert labels(AXOLOTL, trace(tmp_path, rows)) == ["divergence"]


@pytest.mark.parametrize(
    ("row", "label"),
    [
        ({"frac_reward_zero_std": 1.0}, "zero_std"),
        ({"kl": 3.0}, "kl_blowup"),
        ({"reward": 0.0}, "reward_zero"),
        ({"entropy": 0.001}, "entropy_collapse"),
        ({"completions/clipped_ratio": 0.95}, "clipped_completions"),
    ],
)
def test_published_thresholds_of_grpo_are_asked_of_grpo_alone(tmp_path: Path, row: dict[str, Any], label: str) -> None:
    assert labels(AXOLOTL, trace(tmp_path, falling(**row), "grpo")) == [label]
    assert labels(AXOLOTL, trace(tmp_path, falling(**row))) == []


def test_flipped_pairs_show_in_their_accuracy(tmp_path: Path) -> None:
    assert labels(AXOLOTL, trace(tmp_path, [row | {"rewards/accuracies": 0.1} for row in falling()], "dpo")) == [
        "dpo_flipped"
    ]


def test_overfit_by_both(tmp_path: Path) -> None:
    rows = falling()
    for n in range(10, 40, 5):
        rows[n]["eval_loss"] = 1.0 + n / 10
    folder = trace(tmp_path, rows)
    assert "overfit" in labels(SAGEMAKER, folder)
    assert labels(AXOLOTL, folder) == ["overfit"]


def test_majority_and_die_answer_without_looking(tmp_path: Path) -> None:
    folder = trace(tmp_path, falling())
    truths = [Truth(False, ("plateau",), ("learning_rate",))] * 2 + [Truth(False, ("oom",), ("max_length",))]
    assert majority(truths)(folder).answers[0].label == "plateau"
    assert majority([])(folder).answers == ()
    die = judges(truths)["random"]
    assert die(folder) == die(folder)
    assert die(folder).answers[0].key in ("method", "learning_rate", "max_steps")
