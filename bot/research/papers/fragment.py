"""A paper's stage as the keys of our training scripts, each with its source: what the planner starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bot.errors import UserError
from bot.research.papers.findings import Value
from bot.research.papers.recipe import PaperRecipe, Sourced, Stage

# Methods of papers -> the method of ours that trains them, and what that method must be told besides.
_OURS: Mapping[str, tuple[str, Mapping[str, Value]]] = {
    "sft": ("sft", {}),
    "dpo": ("dpo", {}),
    "ipo": ("dpo", {"loss_type": "ipo"}),
    "grpo": ("grpo", {}),
    "dr_grpo": ("grpo", {"loss_type": "dr_grpo"}),
    "dapo": ("grpo", {"loss_type": "dapo"}),
    "reward": ("reward", {}),
    "rft": ("rft", {}),
    "distill": ("distill", {}),
    "pretrain": ("pretrain", {}),
    "midtrain": ("pretrain", {}),
}
_EVERY = frozenset(
    [
        "learning_rate",
        "lr_scheduler_type",
        "warmup_steps",
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "num_train_epochs",
        "max_steps",
        "weight_decay",
        "adam_beta1",
        "adam_beta2",
        "adam_epsilon",
        "max_grad_norm",
        "lora_r",
        "lora_alpha",
        "lora_dropout",
        "lora_target_modules",
        "seed",
        "optim",
        "bf16",
        "gradient_checkpointing",
        "label_smoothing_factor",
        "neftune_noise_alpha",
        "use_peft",
    ]
)
_LENGTH = frozenset({"max_length"})
_SAMPLING = frozenset({"num_generations", "max_completion_length", "temperature", "top_p", "top_k"})
_KEYS: Mapping[str, frozenset[str]] = {
    "sft": _EVERY | _LENGTH | {"packing"},
    "dpo": _EVERY | _LENGTH | {"beta", "loss_type"},
    "reward": _EVERY | _LENGTH,
    "pretrain": _EVERY | _LENGTH | {"packing"},
    "distill": _EVERY | _LENGTH | {"temperature", "max_completion_length"},
    "rft": _EVERY | _LENGTH | {"temperature", "top_p"},
    "grpo": _EVERY | _SAMPLING | {"beta", "epsilon", "epsilon_high", "num_iterations", "loss_type"},
}
_OPTIMIZERS = {
    "adamw": "adamw_torch",
    "adamw_8bit": "adamw_bnb_8bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
    "paged_adamw": "paged_adamw_32bit",
    "adafactor": "adafactor",
    "sgd": "sgd",
    "rmsprop": "rmsprop",
}


@dataclass(frozen=True, slots=True)
class Source:
    value: Value
    quote: str
    section: str
    url: str
    approximate: bool = False


@dataclass(frozen=True, slots=True)
class Fragment:
    method: str
    values: Mapping[str, Source]
    """By the keys of recipe.yaml."""
    beside: Mapping[str, Source]
    """What the paper says and no key of the script holds: the global batch size, say, which hangs on the machine."""
    open: tuple[str, ...]
    """Keys that the paper contradicts itself on."""


def to_recipe(recipe: PaperRecipe, stage: str, *, variant: str = "") -> Fragment:
    """The keys of our script for one stage, and for one of the models where the paper trains several.

    Raises: UserError where the paper has no such stage, or no script of ours trains it.
    """
    found = recipe.stage(stage)
    if found is None:
        known = ", ".join(each.method for each in recipe.stages) or "none"
        raise UserError(f"The paper tells no stage `{stage}`. It tells {known}.")
    if stage not in _OURS:
        raise UserError(f"No script of ours trains `{stage}`. There are {', '.join(sorted(set(_OURS)))}.")
    method, more = _OURS[stage]
    values: dict[str, Source] = {}
    beside: dict[str, Source] = {}
    for each in _chosen(found, variant):
        source = Source(each.value, each.quote, each.evidence[0].section, each.evidence[0].url, each.approximate)
        key, value = _key_and_value(each, found)
        if key in _KEYS[method] and value is not None:
            values[key] = Source(value, source.quote, source.section, source.url, source.approximate)
        else:
            beside[each.key] = source
    if values:
        first = next(iter(values.values()))
        values |= {key: Source(value, f"the stage is {stage}", first.section, first.url) for key, value in more.items()}
    if any(key.startswith("lora_") for key in values):
        rank = next(values[key] for key in values if key.startswith("lora_"))
        values["use_peft"] = Source(True, rank.quote, rank.section, rank.url)
    return Fragment(method, values, beside, tuple(sorted({each.key for each in found.conflicts})))


def _chosen(stage: Stage, variant: str) -> list[Sourced]:
    """Values of the stage as a whole; where a model is named, or the stage is told for one alone, its own win."""
    models = {each.variant for each in stage.values} - {""}
    variant = variant or (next(iter(models)) if len(models) == 1 else "")
    own = {each.key for each in stage.values if variant and each.variant == variant}
    return [each for each in stage.values if each.variant == variant or (not each.variant and each.key not in own)]


def _key_and_value(each: Sourced, stage: Stage) -> tuple[str, Value | None]:
    match each.key:
        case "warmup_ratio":
            # TRL 1.16 reads a warm-up below 1 as a share of all steps.
            return "warmup_steps", each.value
        case "precision":
            return "bf16", True if each.value == "bf16" else None
        case "optim":
            return "optim", _OPTIMIZERS.get(str(each.value))
        case "lr_scheduler_type":
            warm = stage.value("warmup_ratio") or stage.value("warmup_steps")
            return each.key, "constant_with_warmup" if each.value == "constant" and warm else each.value
        case "label_smoothing":
            return "label_smoothing_factor", each.value
        case _:
            return each.trl or "", each.value
