"""Healthy runs over varied configurations: what a person may choose without doing anything wrong.

Whether one is healthy is decided by its score and not here: `bot.zoo.judging` drops those below their level.
"""

from __future__ import annotations

import json
import random

from bot.zoo.faults.data import SYSTEM_TEMPLATE, TEMPLATE_FILE, as_messages
from bot.zoo.faults.optimization import with_replay
from bot.zoo.specimen import DPO, GRPO, LORA, LORA_RATES, SFT, STEPS, Specimen, plain

METHODS = ((SFT, False, 0.4), (SFT, True, 0.22), (DPO, False, 0.12), (DPO, True, 0.05), (GRPO, False, 0.16),
           (GRPO, True, 0.05))  # fmt: skip
SCHEDULES = ("constant", "constant_with_warmup", "linear", "cosine", "cosine_with_min_lr", "warmup_stable_decay")
RATES = {SFT: (1.5e-3, 6e-3), DPO: (3e-4, 8e-4), GRPO: (6e-4, 1.5e-3)}
"""Learning rates between which the practice base learns its tasks in the usual number of steps."""


def healthy_method(index: int) -> str:
    return _method(random.Random(f"healthy/{index}"))[0]


def _method(rng: random.Random) -> tuple[str, bool]:
    method, lora, _ = rng.choices(METHODS, weights=[weight for *_, weight in METHODS])[0]
    return method, lora


def healthy_specimen(index: int) -> Specimen:
    """The healthy run of that number."""
    rng = random.Random(f"healthy/{index}")
    method, lora = _method(rng)
    task = rng.choice(sorted(STEPS[method]))
    made = plain(method, task, 100 + index, lora=lora, steps=_steps(rng, method, task, lora))
    recipe = made.recipe
    low, high = RATES[method]
    factor = LORA_RATES[method] / plain(method, task, 0).recipe["learning_rate"] if lora else 1.0
    recipe["learning_rate"] = float(f"{factor * low * (high / low) ** rng.random():.2g}")
    _schedule(rng, made)
    _batch(rng, made)
    if lora:
        rank = rng.choice((4, 8, 16, 32))
        recipe |= LORA | {"lora_r": rank, "lora_alpha": rng.choice((1, 2)) * rank}
        recipe["lora_dropout"] = rng.choice((0.0, 0.0, 0.05))
    recipe["weight_decay"] = rng.choice((0.0, 0.0, 0.01, 0.1))
    recipe["max_grad_norm"] = rng.choice((1.0, 1.0, 0.5, 2.0))
    recipe["data_validation_rows"] = rng.choice((0, 50, 100, 100, 200))
    made.rows = made.rows[: rng.choice((len(made.rows), len(made.rows), 2 * len(made.rows) // 3))]
    if method == SFT:
        _rows_of_its_own(rng, made)
    elif method == DPO:
        recipe["beta"] = rng.choice((0.05, 0.1, 0.1, 0.3))
    else:
        recipe["beta"] = rng.choice((0.0, 0.0, 0.01, 0.04))
        recipe["temperature"] = rng.choice((0.9, 1.0, 1.0))
        recipe["max_completion_length"] = rng.choice((16, 20, 24, 32))
    return made


def _steps(rng: random.Random, method: str, task: str, lora: bool) -> int:
    """From the usual number to three times that; one run in ten is 400 steps long, and slow starters need it."""
    usual = STEPS[method][task] * (3 if lora else 2) // 2
    if rng.random() < 0.1 and method != GRPO:
        return 400
    return round(usual * rng.choice((1.0, 1.0, 1.25, 1.5, 2.0)))


def _schedule(rng: random.Random, made: Specimen) -> None:
    recipe, steps = made.recipe, made.steps
    schedule = rng.choice(SCHEDULES)
    recipe["lr_scheduler_type"] = schedule
    recipe["warmup_steps"] = 0 if schedule == "constant" else rng.choice((5, 10, round(0.1 * steps), steps // 4))
    if schedule == "cosine_with_min_lr":
        recipe["lr_scheduler_kwargs"] = json.dumps({"min_lr_rate": 0.1})
    elif schedule == "warmup_stable_decay":
        decay = steps // 5
        recipe["lr_scheduler_kwargs"] = json.dumps(
            {"num_decay_steps": decay, "num_stable_steps": steps - decay - recipe["warmup_steps"]}
        )


def _batch(rng: random.Random, made: Specimen) -> None:
    recipe = made.recipe
    if made.method == GRPO:
        recipe["num_generations"] = rng.choice((8, 8, 16))
        return
    whole = recipe["per_device_train_batch_size"]
    accumulation = rng.choice((1, 1, 1, 2, 4))
    recipe["per_device_train_batch_size"] = rng.choice((whole // 2, whole, whole, 2 * whole)) // accumulation
    if accumulation > 1:
        recipe["gradient_accumulation_steps"] = accumulation


def _rows_of_its_own(rng: random.Random, made: Specimen) -> None:
    """A few runs use what else the script can do, rightly: conversations, a system turn, packing, a chain."""
    kind = rng.random()
    if kind < 0.06:
        as_messages(made)
    elif kind < 0.10:
        made.recipe["chat_template_path"] = TEMPLATE_FILE
        made.companions[TEMPLATE_FILE] = SYSTEM_TEMPLATE
    elif kind < 0.18 and made.task != "reverse":
        seed, made.seed = made.seed, made.seed % 5
        with_replay(made)
        made.seed = seed
    elif kind < 0.24:
        made.recipe["data_deduplicate"] = False  # and nothing is there twice
    elif kind < 0.30:
        made.recipe["max_length"] = rng.choice((256, 512))
