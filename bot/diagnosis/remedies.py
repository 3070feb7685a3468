"""The value that a blamed key should have, computed from the evidence; every bound carries its source."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from bot.diagnosis.learning_rates import tidy
from bot.diagnosis.readings import count, finite
from bot.domain.diagnosis import Diagnosis, Symptom

# TRL 1.x SFTConfig defaults, used where the recipe is silent: https://huggingface.co/docs/trl/sft_trainer#trl.SFTConfig
DEFAULT_MAX_LENGTH = 1024
DEFAULT_EPOCHS = 3.0
DEFAULT_BATCH_SIZE = 8
USUAL_BETA = 0.1
"""DPOConfig.beta: https://huggingface.co/docs/trl/dpo_trainer"""
IMITATION: Mapping[str, str] = MappingProxyType({"loss_type": "sigmoid,sft", "loss_weights": "1.0,0.2"})
"""DPO's loss beside an sft term on the chosen answers, of a fifth of its weight: the Llama 3 report (2407.21783),
section 4.1.4."""


def lacks_imitation(recipe: Mapping[str, Any]) -> bool:
    """Whether DPO's loss only sets the chosen answers apart from the rejected ones, and nothing holds them up."""
    return recipe.get("loss_type", "sigmoid") in ("sigmoid", ["sigmoid"])


def wants_range_probe(diagnosis: Diagnosis) -> bool:
    """True when the remedy is a direction, not a value: a short learning-rate range probe would find the value."""
    return diagnosis.key == "learning_rate" and diagnosis.symptom in (Symptom.PLATEAU, Symptom.DIVERGENCE)


def duration_key(recipe: Mapping[str, Any]) -> str:
    """`max_steps` when the recipe sets it above 0 (it then overrides the epochs), else `num_train_epochs`."""
    steps = finite(recipe["max_steps"]) if recipe.get("max_steps") is not None else None
    return "max_steps" if steps is not None and steps > 0 else "num_train_epochs"


def scaled_duration(recipe: Mapping[str, Any], factor: float) -> float | int:
    """The run's length times `factor`, as `duration_key` counts it."""
    if duration_key(recipe) == "max_steps":
        steps = (finite(recipe["max_steps"]) or 1) * factor
        return max(1, round(steps) if steps < 20 else round(steps / 10) * 10)
    epochs = finite(recipe["num_train_epochs"]) if recipe.get("num_train_epochs") is not None else None
    # An iterable dataset has no epochs, and transformers notes the largest integer for them.
    scaled = (DEFAULT_EPOCHS if epochs is None or epochs > 1e6 else epochs) * factor
    return max(1, round(scaled)) if scaled >= 1 else tidy(scaled)


def longer_factor(*, final: float, per_step: float, steps: int) -> float:
    """How much longer a run should be whose loss still fell by `per_step` (of its logarithm) at the end.

    Long enough for the loss to fall to a quarter at that pace (but not below 0.05, where little is left to gain);
    between 1.5 and 4 times, because the pace will not hold for longer.
    """
    goal = max(0.05, final / 4)
    needed = math.log(final / goal) / abs(per_step) if per_step and final > goal else 0.0
    return min(4.0, max(1.5, math.ceil(2 * (1 + needed / max(1, steps))) / 2))


def max_length_for(lengths: Mapping[str, Any], current: int) -> int | None:
    """The smallest power of two that holds the longest row, or the 95th percentile when the longest is an outlier."""
    longest = count(lengths["max"]) if lengths.get("max") is not None else None
    p95 = count(lengths["p95"]) if lengths.get("p95") is not None else None
    if longest is None and p95 is None:
        return None
    needed = longest if longest is not None else p95
    # More than four times the 95th percentile would pay for every batch with a few rows' length.
    if needed is not None and p95 and needed > 4 * power_of_two(p95) and p95 > current:
        needed = p95
    size = power_of_two(needed or 1)
    return size if size > current else None


def power_of_two(value: int) -> int:
    """The smallest power of two that is at least `value`."""
    return 1 << max(0, value - 1).bit_length()


def smaller_memory(recipe: Mapping[str, Any], *, batch: int | None, length: int | None) -> tuple[str, Any]:
    """(key, value) of the first thing to change after running out of memory; no value where the present one, `batch`
    sequences on a device or `length` tokens, is not known.

    A smaller batch is one cause with two keys: `companions_of` tells the second, gradient_accumulation_steps so many
    times as large, which keeps the tokens per update.
    """
    if batch is None:
        return "per_device_train_batch_size", None
    if batch > 1:
        return "per_device_train_batch_size", smaller_batch_size(batch)
    if recipe.get("gradient_checkpointing") is False:
        return "gradient_checkpointing", True
    return "max_length", max(1, length // 2) if length is not None else None


def smaller_batch_size(batch: int) -> int:
    """Half of it; of a batch that keeps a device busy when it is a quarter or an eighth of that, so much.†

    Every try costs the start of a job, and accumulating eight times what fills a device costs hardly any time.
    """
    return max(1, batch // (8 if batch >= 256 else 4 if batch >= 64 else 2))


def memory_remedy(
    recipe: Mapping[str, Any], phase: str, method: str, *, batch: int | None, length: int | None
) -> tuple[str, Any]:
    """(key, value) of the first thing to change, by the part of a step that ran out of memory.

    Loading and the optimizer's states do not depend on the batch, and generation beside training divides the device.
    """
    if phase == "vllm":
        # TRL's guide on memory: a share of 0.3 for vLLM beside the trainer (default 0.9 in vLLM, 0.3 in TRL).
        share = finite(recipe["vllm_gpu_memory_utilization"]) if recipe.get("vllm_gpu_memory_utilization") else 0.9
        return "vllm_gpu_memory_utilization", 0.3 if share is None or share > 0.3 else tidy(share / 2)
    if phase == "step" and "adafactor" not in str(recipe.get("optim", "")):
        return "optim", "adafactor"  # factored second moments, no first: transformers' own, no further package
    if phase == "load":
        return ("dtype", "bfloat16") if "16" not in str(recipe.get("dtype", "")) else ("load_in_4bit", True)
    if phase == "logps" and method == "grpo" and batch is not None:
        generations = count(recipe.get("num_generations", 8)) or 8
        if batch == 1 or (batch * (count(recipe.get("gradient_accumulation_steps", 1)) or 1)) % generations:
            longest = count(recipe.get("max_completion_length", 512) or 512) or 512
            return "max_completion_length", max(1, longest // 2)
    return smaller_memory(recipe, batch=batch, length=length)


def companions_of(diagnosis: Diagnosis, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Keys that must change together with the diagnosis's own for it to stay one cause, with their values."""
    symptom, key, value = diagnosis.symptom, diagnosis.key, diagnosis.suggested
    if symptom is Symptom.OOM and key == "per_device_train_batch_size" and value is not None:
        batch = count(recipe.get("per_device_train_batch_size", DEFAULT_BATCH_SIZE)) or DEFAULT_BATCH_SIZE
        accumulation = count(recipe.get("gradient_accumulation_steps", 1)) or 1
        return {"gradient_accumulation_steps": math.ceil(accumulation * batch / max(1, int(value)))}
    if symptom is Symptom.WRONG_COLUMNS and any(evidence.key == "swapped" for evidence in diagnosis.evidence):
        named = ("data_prompt_column", "data_completion_column")
        return {each: value for each in named if each != key and recipe.get(each) not in (None, "auto")}
    if symptom is Symptom.DPO_FLIPPED and key == "data_chosen_column" and recipe.get("data_rejected_column") == value:
        return {"data_rejected_column": recipe.get(key)}
    if key == "loss_type" and value == IMITATION[key]:
        return {name: each for name, each in IMITATION.items() if name != key}
    if symptom is Symptom.DPO_OVERSHOOT and key == "learning_rate":
        beta = finite(recipe["beta"]) if recipe.get("beta") is not None else None
        return {"beta": USUAL_BETA} if beta is not None and beta < USUAL_BETA / 2 else {}
    if symptom is Symptom.PACKING_LEAK and key == "packing":
        # A length that cut packed rows into blocks would cut each row by itself short.
        lengths = {e.key.rpartition(".")[2]: e.value for e in diagnosis.evidence if e.key.startswith("token_lengths.")}
        needed = max_length_for(lengths, count(recipe.get("max_length", DEFAULT_MAX_LENGTH)) or DEFAULT_MAX_LENGTH)
        return {"max_length": needed} if needed is not None and recipe.get("max_length") is not None else {}
    if symptom is Symptom.OVERFIT and key == "data_max_rows" and duration_key(recipe) == "num_train_epochs":
        # As many steps over more rows, not as many epochs: the run costs what it cost.
        steps = [evidence.step for evidence in diagnosis.evidence if evidence.key == "loss" and evidence.step]
        return {"max_steps": max(steps)} if steps else {}
    return {}


# Names that public instruction sets use for the two sides of an example, the more specific first.
PROMPT_NAMES = ("prompt", "instruction", "question", "query", "input", "problem", "user", "request", "source")
COMPLETION_NAMES = ("completion", "response", "answer", "output", "solution", "assistant", "chosen", "reply", "target")


def column_for(key: str, columns: Sequence[str], current: Any) -> str | None:
    """The column that `key` should name: `auto` where the recipe overrode the detection, else the one that fits."""
    if key.startswith("data_") and current not in (None, "auto"):
        return "auto"
    names: tuple[str, ...] = COMPLETION_NAMES if "completion" in key or "response" in key else PROMPT_NAMES
    if key.endswith("text_field"):
        names = ("text", "content", *names)
    fitting = (column for name in names for column in columns if name in column.lower())
    return next(fitting, columns[0] if len(columns) == 1 else None)


def null_is_the_remedy(diagnosis: Diagnosis) -> bool:
    """True when `suggested` None is a value: a template or token of the recipe's own gives way to the base model's, and
    few rows to all of them."""
    return diagnosis.suggested is None and diagnosis.line is not None and diagnosis.key in _NULLABLE


_NULLABLE = frozenset({"chat_template_path", "data_max_rows", "eos_token", "pad_token"})
