"""The figures that the recipe table's rows for the tiny base rest on, measured again: before, after, two seeds each.

pytest -m slow tests/templates/test_methods_learn.py -s        # prints them
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest

from bot.practice.tiny_base import pretraining_rows
from bot.practice.warm import Warm
from tests.templates.conftest import Job, chat_rows, evaluation, pair_rows, table_row

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
SEEDS = (0, 1)
# Exact scores differ between machines (another instruction set rounds otherwise), so bars stand below what we measured.


@pytest.fixture
def learner(tmp_path: Path, base: Path, warm: Warm) -> Job:
    return Job(tmp_path / "job", base, warm)


# A first stage that leaves the later ones something to do.
BRIEFLY = {"max_steps": 20, "learning_rate": 1e-3, "lr_scheduler_type": "constant_with_warmup"}


def told(what: str, seconds: float, **values: float) -> None:
    print(f"\n{what}: {', '.join(f'{name} {value:.3f}' for name, value in values.items())} in {seconds:.1f} CPU s")


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("method", "task", "peft", "bar"),
    [
        ("dpo", "last", False, 0.95),
        ("dpo", "upper", False, 0.93),
        ("dpo", "upper", True, 0.93),
        ("grpo", "last", False, 0.93),
        ("grpo", "upper", False, 0.87),
        ("grpo", "last", True, 0.93),
    ],
)
def test_row_of_the_table_teaches_what_the_base_hides(
    learner: Job, warm: Warm, method: str, task: str, peft: bool, bar: float, seed: int
) -> None:
    before = evaluation(warm, learner.base, task, learner.path / "before")["value"]
    learner.data(chat_rows(1500, task, seed))
    learner.data(chat_rows(50, task, seed + 100), "validation")
    done = learner.run(method=method, **(table_row(method, peft) | {"seed": seed}))
    after = evaluation(warm, learner.out / "model", task, learner.path / "after")
    told(f"{method} {task}{' LoRA' if peft else ''} seed {seed}", done.seconds, before=before, after=after["value"])
    assert before <= 0.05 and after["value"] >= bar and after["termination_rate"] >= 0.97
    probes = [row["probe/exact_match"] for row in learner.metrics if "probe/exact_match" in row]
    assert len(probes) == 5 and probes[0] < probes[-1], "what the probe saw while it trained"


@pytest.mark.parametrize("seed", SEEDS)
def test_reward_model_prefers_right_answers_that_it_never_saw(learner: Job, seed: int) -> None:
    """Rejected is the right answer of another row, so that no form gives it away."""

    def pairs(n: int, seed: int) -> list[dict[str, Any]]:
        rows = pair_rows(n, "upper", seed)
        wrong = [row["chosen"] for row in rows]
        return [
            row | {"rejected": other}
            for row, other in zip(rows, wrong[1:] + wrong[:1], strict=True)
            if other != row["chosen"]
        ]

    learner.data(pairs(1500, seed))
    learner.data(pairs(200, seed + 100), "validation")
    done = learner.run(
        method="reward", **(table_row("reward") | {"seed": seed, "eval_steps": 0.1, "eval_on_start": True})
    )
    accuracies = [row["eval_accuracy"] for row in learner.metrics if "eval_accuracy" in row]
    told(f"reward upper seed {seed}", done.seconds, before=accuracies[0], after=accuracies[-1])
    assert 0.3 < accuracies[0] < 0.7 and accuracies[-1] >= 0.8


@pytest.mark.parametrize("seed", SEEDS)
def test_pretraining_from_random_weights_learns_the_documents(learner: Job, seed: int) -> None:
    documents = (prompt + answer for prompt, answer in pretraining_rows(seed + 10) if "<|" not in prompt)
    rows = [{"text": text} for text in itertools.islice(documents, 8000)]
    learner.data(rows[:7600])
    learner.data(rows[7600:], "validation")
    done = learner.run(method="pretrain", **(table_row("pretrain") | {"seed": seed, "eval_on_start": True}))
    losses = [row["eval_loss"] for row in learner.metrics if "eval_loss" in row]
    told(f"pretrain seed {seed}", done.seconds, before=math.exp(losses[0]), after=math.exp(losses[-1]))
    assert losses[0] == pytest.approx(math.log(260), abs=0.2), "nothing is known yet"
    assert math.exp(losses[-1]) < 32


def test_three_methods_one_after_the_other_each_from_the_last_ones_model(
    base: Path, warm: Warm, tmp_path: Path
) -> None:
    """SFT on one task, then GRPO on a second, then DPO with LoRA on a third. Each gains on its own task; what the
    others learned fades, as it does without replay."""
    passes: list[tuple[str, str, dict[str, Any]]] = [
        ("sft", "last", table_row("sft") | BRIEFLY),
        ("grpo", "upper", table_row("grpo")),
        ("dpo", "max", table_row("dpo", peft=True)),
    ]
    start, gains = base, {}
    for method, task, recipe in passes:
        job = Job(tmp_path / method, start, warm)
        job.data(chat_rows(1200, task))
        job.run(method=method, **recipe)
        assert job.json("summary.json")["init_from"] == str(start)
        before, after = (
            evaluation(warm, model, task, tmp_path / f"{method}-{name}")["value"]
            for name, model in (("before", start), ("after", job.out / "model"))
        )
        told(f"chain, {method} on {task}", 0.0, before=before, after=after)
        start, gains[method] = job.out / "model", after - before
    assert gains["sft"] >= 0.85 and gains["grpo"] >= 0.4 and gains["dpo"] >= 0.2
