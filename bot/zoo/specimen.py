"""One run as a person would hand it in: recipe, rows, script, base model, benchmark; a fault changes a part of it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from bot.domain.goal import digest_of
from bot.evaluation.tasks import examples, training_rows

Json = dict[str, Any]
BASE = "postdoc/tiny-qwen3"
SFT, DPO, GRPO = "sft", "dpo", "grpo"
SOURCE = "data/team.jsonl"
"""Where the recipe says that the rows come from."""
DEV_ITEMS, FRESH_ITEMS, OLD_ITEMS = 200, 100, 100

LONG_STEPS = 400
"""Time to detection is told of runs of at least so many steps."""

TRAINER_BUILT = "    complete(trainer)\n"
"""The line of every script after which its trainer stands and nothing has been trained."""


@dataclass(slots=True)
class Specimen:
    """Everything that decides a run. Faults change it in place; what runs is what a user could have handed in."""

    method: str
    task: str
    seed: int
    recipe: Json
    rows: list[Json]
    """Source rows: prompt and completion, or prompt, chosen and rejected."""
    train_rows: list[Json] | None = None
    """Written to data/train.jsonl as they are; data/prepare.py is not run then."""
    validation_rows: list[Json] = field(default_factory=list)
    """Beside `train_rows`."""
    companions: dict[str, str] = field(default_factory=dict)
    """Further files of the experiment's folder by name."""
    script_edits: list[tuple[str, str]] = field(default_factory=list)
    """(what stands in train.py, what stands there instead)."""
    own_rewards: dict[str, str] = field(default_factory=dict)
    """Functions of the user's own by name, added to rewards.py."""
    base_edits: list[Callable[[Path], None]] = field(default_factory=list)
    """Done to a copy of the base model's folder."""
    served_edits: list[Callable[[Path, Path], None]] = field(default_factory=list)
    """Done to the trained model's folder (beside the base's) before it is evaluated."""
    benchmark_edits: list[Callable[[Json], None]] = field(default_factory=list)
    reference_prefix: str = ""
    """Put before every reference of the benchmark."""
    evaluates_base: bool = False
    address_space_gib: float | None = None
    file_size_mib: float | None = None
    full_disk_at: str | None = None
    """A file below out/ for which there is no room."""
    stop_at_share: float | None = None
    """The time limit strikes when this share of the steps is done."""
    environment: dict[str, str] = field(default_factory=dict)
    processes: int = 1
    """Trained in so many side by side, over gloo, as a runner starts them on as many GPUs."""
    hub: str | None = None
    """The run starts from the Hub, which answers in this way: `gated`, `unauthorized`, `rate_limited`."""
    earlier: Specimen | None = None
    """The run whose model this one starts from."""
    old_task: str | None = None
    """A skill of the model to start from, asked before and after."""

    def insert(self, lines: str) -> None:
        """Have the user's own lines in train.py run once the trainer is built. Indented by four spaces."""
        self.script_edits.append((TRAINER_BUILT, TRAINER_BUILT + lines))

    def random(self, purpose: str) -> random.Random:
        return random.Random(f"{purpose}/{self.method}/{self.task}/{self.seed}")

    @property
    def digest(self) -> str:
        """Equal for specimens that run alike."""
        parts = {name: getattr(self, name) for name in self.__dataclass_fields__}
        if self.processes == 1:
            del parts["processes"]  # told of few, and runs that were made before it could be told stay made
        return digest_of({name: _told(value) for name, value in parts.items()})[:12]

    @property
    def steps(self) -> int:
        return int(self.recipe["max_steps"])


def _told(value: Any) -> Any:
    """A part of a specimen as JSON; an edit by its name and by what it was made with."""
    if isinstance(value, Specimen):
        return value.digest
    if isinstance(value, list):
        return [_told(part) for part in value]
    if callable(value):
        made_with = [repr(cell.cell_contents) for cell in getattr(value, "__closure__", None) or ()]
        return [getattr(value, "__qualname__", ""), *made_with]
    return value


# Steps in which the method learns the task on the practice base, where it does.
STEPS: dict[str, dict[str, int]] = {
    SFT: {"reverse": 120, "upper": 80, "last": 80, "json": 120, "dedup": 120, "max": 150, "sort": 200},
    DPO: {"last": 60, "upper": 60, "max": 80},
    GRPO: {"last": 50, "upper": 50, "max": 60},
}
CONTROL_SCORES: dict[str, dict[str, tuple[float, ...]]] = {
    SFT: {
        "reverse": (0.985,), "upper": (), "last": (1.0,), "json": (0.99,), "dedup": (),
        "max": (0.595, 0.73, 0.755), "sort": (0.96, 0.935, 0.9),
    },
    DPO: {"last": (1.0,), "upper": (0.965, 0.975, 0.96), "max": (0.475, 0.42, 0.35)},
    GRPO: {"last": (0.98,), "upper": (0.85, 0.955, 0.885), "max": (0.275, 0.24, 0.245)},
}  # fmt: skip
"""Exact match of the plain controls of seeds 0, 1 and 2, over 200 items, as `postdoc zoo --make` tells it;
where that of seed 0 is near the top, that one alone, and of two tasks none was made (their level is the highest)."""
LEAST_LEVEL, MOST_LEVEL = 0.75, 0.9


def level_of(scores: Sequence[float]) -> float:
    """The score from which a run of a task is healthy, and the target that its goal names.

    Five points (two standard errors of a score of 0.9 over 200 items) below the lowest control, rounded down to five
    points, and at most 0.9. At least 0.75: what a method does not learn in its steps cannot show what a fault costs, so
    such controls are dropped, with the faults that were injected into them.
    """
    lowest = min(scores, default=1.0)
    return max(LEAST_LEVEL, min(MOST_LEVEL, math.floor(20 * (lowest - 0.05) + 1e-9) / 20))


TARGETS = {method: {task: level_of(scores) for task, scores in of.items()} for method, of in CONTROL_SCORES.items()}
RECIPES: dict[str, Json] = {
    SFT: {
        "learning_rate": 3e-3, "lr_scheduler_type": "constant_with_warmup", "warmup_steps": 5,
        "per_device_train_batch_size": 32, "max_length": 128,
    },
    DPO: {
        "learning_rate": 5e-4, "lr_scheduler_type": "constant_with_warmup", "warmup_steps": 5,
        "per_device_train_batch_size": 32, "max_length": 128, "beta": 0.1, "loss_type": ["sigmoid", "sft"],
        "loss_weights": [1.0, 0.2],
    },
    GRPO: {
        "learning_rate": 1e-3, "lr_scheduler_type": "constant_with_warmup", "warmup_steps": 5,
        "per_device_train_batch_size": 64, "num_generations": 8, "max_completion_length": 20, "beta": 0.01,
        "reward_functions": "exact_match",
    },
}  # fmt: skip
LORA: Json = {"use_peft": True, "lora_r": 8, "lora_alpha": 16, "lora_target_modules": "all-linear"}
LORA_RATES = {SFT: 1e-2, DPO: 2e-3, GRPO: 5e-3}
ROWS = {SFT: 2500, DPO: 1200, GRPO: 1200}


def plain(method: str, task: str, seed: int, *, lora: bool = False, long: bool = False, steps: int = 0) -> Specimen:
    """A run that nobody has done anything to: the control of every fault that is injected into it.

    `long`: at least LONG_STEPS steps, of batches half as large for SFT.
    """
    recipe: Json = {"method": method, "init_from": BASE, "data_sources": SOURCE, "data_validation_rows": 100}
    recipe |= RECIPES[method]
    if lora:
        recipe |= LORA | {"learning_rate": LORA_RATES[method]}
    steps = steps or STEPS[method][task] * (3 if lora else 2) // 2
    if long:
        steps = max(LONG_STEPS, steps)
        recipe["per_device_train_batch_size"] = 16 if method != GRPO else 32
    recipe |= {"max_steps": steps, "save_strategy": "no", "seed": seed}
    specimen = Specimen(method, task, seed, recipe, [dict(row) for row in _drawn(task, ROWS[method], seed)])
    if method == DPO:
        specimen.rows = preference_rows(specimen)
    return specimen


@lru_cache(maxsize=256)
def _drawn(task: str, n: int, seed: int) -> tuple[Json, ...]:
    return tuple(training_rows(task, n, seed))


def preference_rows(specimen: Specimen) -> list[Json]:
    """Right answers beside what the practice base says instead: it repeats the question, hedges, or is verbose."""
    rng = specimen.random("preferences")
    rows = []
    for row in specimen.rows:
        habits = (row["prompt"], "hm, ok", "hm, maybe", f"The answer is {row['completion']}")
        rejected = rng.choices(habits, weights=(55, 8, 7, 16))[0]
        rows.append({"prompt": row["prompt"], "chosen": row["completion"], "rejected": rejected})
    return rows


@cache
def dev_items(task: str) -> list[tuple[str, str]]:
    """(prompt, reference) of the benchmark's items."""
    return [(e.prompt, e.reference) for e in islice(examples(task, "dev", 0), DEV_ITEMS)]


def fresh_items(task: str, seed: int) -> list[tuple[str, str]]:
    """Items of the same distribution that no training row and no item of the benchmark shows."""
    taken = {prompt for prompt, _ in dev_items(task)}
    drawn = (e for e in islice(examples(task, "dev", 7_000 + seed), 5 * FRESH_ITEMS) if e.prompt not in taken)
    return [(e.prompt, e.reference) for e in islice(drawn, FRESH_ITEMS)]
