"""Builds diagnosis folders from values, and curves at the scale of real models."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

RECIPE = """\
init_from: Qwen/Qwen3-1.7B
learning_rate: 2.0e-5
num_train_epochs: 3
max_length: 1024
per_device_train_batch_size: 8
"""

FolderWriter = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path) -> FolderWriter:
    """Writes a diagnosis folder: `folder(recipe=..., metrics=[...], evaluation={...}, train=[...])`."""

    def write(recipe: str = RECIPE, **parts: Any) -> Path:
        (tmp_path / "recipe.yaml").write_text(recipe)
        for name in ("metrics", "train", "eval", "completions"):
            if name in parts:
                lines = (json.dumps(row) for row in parts.pop(name))
                (tmp_path / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines))
        if "log" in parts:
            (tmp_path / "log.txt").write_text(parts.pop("log"))
        if "audit" in parts:
            parts["data_audit"] = parts.pop("audit")
        for name, value in parts.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(value))
        return tmp_path

    return write


def curve(
    losses: Iterable[float], *, peak: float = 2e-5, schedule: str = "constant", **columns: Any
) -> list[dict[str, Any]]:
    """One logged record per loss. Extra columns are constants, or functions of (step, loss)."""
    values = list(losses)
    records = []
    for step, loss in enumerate(values, start=1):
        alive = {
            "constant": 1.0,
            "linear": 1 - step / len(values),
            "cosine": (1 + math.cos(math.pi * step / len(values))) / 2,
        }
        record = {"step": step, "loss": loss, "grad_norm": 1.0, "learning_rate": peak * alive[schedule]}
        record |= {key: value(step, loss) if callable(value) else value for key, value in columns.items()}
        records.append(record)
    return records


def noisy(losses: Iterable[float], *, noise: float = 0.03, seed: int = 0) -> list[float]:
    source = random.Random(seed)
    return [loss * math.exp(source.gauss(0, noise)) for loss in losses]


def decay(start: float, end: float, steps: int, *, knee: float = 0.1) -> list[float]:
    """An exponential approach to `end`, `knee` being the share of the run in which it comes two thirds of the way."""
    return [end + (start - end) * math.exp(-i / (knee * steps)) for i in range(steps)]


def evaluation(
    value: float, *, n: int = 200, finish: str = "stop", samples: Sequence[Mapping[str, Any]] = (), **fields: Any
) -> dict[str, Any]:
    """An evaluation.json; without `samples` every item has a score and the given finish."""
    made = samples or [{"id": str(i), "score": float(i < value * n), "finish": finish} for i in range(n)]
    error = math.sqrt(value * (1 - value) / n)
    common = {"benchmark": "b", "harness_digest": "d", "model": "m", "metric": "exact_match", "split": "dev"}
    return (
        common
        | {"value": value, "standard_error": error, "n": n, "strict": value, "lenient": value, "samples": list(made)}
        | fields
    )


def pairs(rows: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    """Rows in TRL's conversational prompt-completion format."""
    return [
        {"prompt": [{"role": "user", "content": p}], "completion": [{"role": "assistant", "content": c}]}
        for p, c in rows
    ]


def words(n: int, seed: int = 0) -> list[str]:
    source = random.Random(seed)
    return ["".join(source.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(source.randint(4, 7))) for _ in range(n)]


def trend(start: float, end: float, steps: int = 60, *, noise: float = 0.02, seed: int = 0) -> list[float]:
    """A straight line with noise of a fixed size, as rewards and margins have it."""
    source = random.Random(seed)
    return [start + (end - start) * i / max(1, steps - 1) + source.gauss(0, noise) for i in range(steps)]


def policy_curve(reward: Sequence[float], **columns: Any) -> list[dict[str, Any]]:
    """Records of a GRPO run, one per reward; columns are constants or sequences of the same length."""
    healthy = {"loss": 0.01, "grad_norm": 0.5, "frac_reward_zero_std": 0.4, "entropy": 0.2, "kl": 0.2,
               "completions/mean_length": 40.0, "completions/clipped_ratio": 0.05}  # fmt: skip
    records = []
    for i, value in enumerate(reward):
        record: dict[str, Any] = {"step": i + 1, "reward": value, "reward_std": 0.3} | healthy
        record |= {key: column if isinstance(column, float) else column[i] for key, column in columns.items()}
        records.append(record)
    return records


AUDIT: dict[str, Any] = {
    "rows": 1000,
    "columns": ["prompt", "completion"],
    "max_length": 1024,
    "truncated_rows": 0,
    "dropped_rows": 0,
    "supervised_eos_rows": 1000,
    "zero_label_rows": 0,
    "token_lengths": {"p50": 200, "p95": 600, "max": 900},
    "answer_token_lengths": {"p50": 100, "p95": 300, "max": 500},
    "pad_token_id": 0,
    "eos_token_ids": [1],
    "duplicate_rows": 0,
    "distinct_prompts": 1000,
}


@pytest.fixture
def build() -> Any:
    """The builders above, as one namespace: tests need no import from a sibling file."""

    class Builders:
        curve = staticmethod(curve)
        noisy = staticmethod(noisy)
        decay = staticmethod(decay)
        evaluation = staticmethod(evaluation)
        pairs = staticmethod(pairs)
        trend = staticmethod(trend)
        policy_curve = staticmethod(policy_curve)
        words = staticmethod(words)
        audit = AUDIT
        recipe = RECIPE

    return Builders
