"""What may be changed about each symptom, in the order in which it is tried once the diagnosis's own value has failed.

Every step is one cause. What would change the scope of a goal (an adapter instead of all weights, shorter sequences,
other data, another reward) is among them too and is never taken: it is shown to a person, see `scope_change`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from bot.diagnosis.learning_rates import rate_of, tidy
from bot.diagnosis.remedies import (
    DEFAULT_BATCH_SIZE,
    DEFAULT_MAX_LENGTH,
    IMITATION,
    duration_key,
    lacks_imitation,
    scaled_duration,
    smaller_batch_size,
)
from bot.domain.diagnosis import Symptom
from bot.domain.goal import DEFAULT_METHOD
from bot.domain.methods import METHODS
from bot.domain.recipe import normalised_value

Values = Mapping[str, Any]


class Change(Protocol):
    """Recipe -> the keys to set, the blamed one first; empty where the step does not apply."""

    def __call__(self, values: Values, parameters: float | None = None, /) -> dict[str, Any]:
        """`parameters` is the base model's size, None where only its name tells."""


class Step(NamedTuple):
    change: Change
    source: str


def _number(values: Values, key: str, default: float | None) -> float | None:
    value = normalised_value(values.get(key, default))
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else default


def scaled(key: str, factor: float, *, default: float | None = None, low: float = 0.0, high: float = 1e9) -> Change:
    """The number times `factor`, between `low` and `high`."""

    def change(values: Values, _: float | None = None, /) -> dict[str, Any]:
        before = _number(values, key, default)
        if before is None or before <= 0:
            return {}
        after = tidy(min(max(before * factor, low), high))
        whole = isinstance(normalised_value(values.get(key, default)), int) and after >= 1
        found = round(after) if whole else after
        return {} if found == before or (after > before) != (factor > 1) else {key: found}

    return change


def rate_times(factor: float) -> Change:
    """The learning rate, or what holds where none is written, times `factor`; never further out of its band."""

    def change(values: Values, parameters: float | None = None, /) -> dict[str, Any]:
        rate = rate_of(values, parameters)
        after = tidy(rate.current * factor)
        return {} if rate.leaves_band(after) else {"learning_rate": after}

    return change


def usual_rate(values: Values, parameters: float | None = None, /) -> dict[str, Any]:
    """The middle of the learning rates that usually work, for a recipe at less than half of it."""
    rate = rate_of(values, parameters)
    return {"learning_rate": rate.middle} if rate.size_known and rate.current < rate.middle / 2 else {}


def to(key: str, value: Any, default: Any = None, **also: Any) -> Change:
    """The value, where the recipe has another."""

    def change(values: Values, _: float | None = None, /) -> dict[str, Any]:
        return {} if normalised_value(values.get(key, default)) == value else {key: value, **also}

    return change


def at_least(key: str, value: float, default: float) -> Change:
    def change(values: Values, _: float | None = None, /) -> dict[str, Any]:
        before = _number(values, key, default)
        return {key: value} if before is not None and before < value else {}

    return change


def at_most(key: str, value: float, default: float) -> Change:
    def change(values: Values, _: float | None = None, /) -> dict[str, Any]:
        before = _number(values, key, default)
        return {key: value} if before is not None and (before > value or before == 0) else {}

    return change


def sampling(change: Change) -> Change:
    """The change, for a method that samples answers while it trains; another's script does not know the key."""

    def of_sampling(values: Values, parameters: float | None = None, /) -> dict[str, Any]:
        method = METHODS.get(str(values.get("method", DEFAULT_METHOD)))
        return change(values, parameters) if method is not None and method.generates else {}

    return of_sampling


def only_grpo(change: Change) -> Change:
    """The change, where the script's settings are GRPO's."""
    return lambda values, parameters=None, /: change(values, parameters) if values.get("method") == "grpo" else {}


def classifying(change: Change) -> Change:
    """The change, for a method that answers with one of a few labels."""

    def of_labels(values: Values, parameters: float | None = None, /) -> dict[str, Any]:
        return change(values, parameters) if values.get("method") in ("classify", "vision") else {}

    return of_labels


def unset(key: str, value: Any = None) -> Change:
    """`value` where the recipe sets the key at all."""

    def change(values: Values, _: float | None = None, /) -> dict[str, Any]:
        return {key: value} if key in values and values[key] != value else {}

    return change


def longer(factor: float) -> Change:
    def change(values: Values, _: float | None = None, /) -> dict[str, Any]:
        key = duration_key(values)
        after = scaled_duration(values, factor)
        return {} if after == normalised_value(values.get(key)) else {key: after}

    return change


def smaller_batch(values: Values, _: float | None = None, /) -> dict[str, Any]:
    """A part of the batch, so many times as often accumulated: the update sees the same rows."""
    batch = int(_number(values, "per_device_train_batch_size", DEFAULT_BATCH_SIZE) or DEFAULT_BATCH_SIZE)
    accumulated = int(_number(values, "gradient_accumulation_steps", 1) or 1)
    if batch <= 1:
        return {}
    smaller = next(size for size in range(smaller_batch_size(batch), 0, -1) if batch % size == 0)
    return {
        "per_device_train_batch_size": smaller,
        "gradient_accumulation_steps": accumulated * (batch // smaller),
    }


def with_imitation(values: Values, _: float | None = None, /) -> dict[str, Any]:
    """A term that holds the chosen answers up, beside a DPO loss that only sets them apart from the rejected ones."""
    alone = values.get("method") == "dpo" and lacks_imitation(values)
    return dict(IMITATION) if alone else {}


def more_samples(values: Values, _: float | None = None, /) -> dict[str, Any]:
    """Twice the samples of a prompt, where the batch still holds whole groups."""
    group = int(_number(values, "num_generations", 8) or 8)
    batch = int(_number(values, "per_device_train_batch_size", DEFAULT_BATCH_SIZE) or DEFAULT_BATCH_SIZE)
    batch *= int(_number(values, "gradient_accumulation_steps", 1) or 1)
    return {"num_generations": group * 2} if batch % (group * 2) == 0 and group < 32 else {}


def _other_optimizer(values: Values, _: float | None = None, /) -> dict[str, Any]:
    """AdamW where the recipe has another; Adafactor, whose updates are clipped, where it has AdamW."""
    before = str(values.get("optim", "adamw_torch_fused"))
    return {"optim": "adafactor" if before in ("adamw_torch", "adamw_torch_fused") else "adamw_torch"}


def to_adamw(values: Values, _: float | None = None, /) -> dict[str, Any]:
    return to("optim", "adamw_torch")(values) if values.get("optim") not in (None, "adamw_torch_fused") else {}


_AX = "https://github.com/axolotl-ai-cloud/axolotl/blob/main/docs/training_stability.qmd"
_TRL = "https://huggingface.co/docs/trl"
_PEFT = "https://huggingface.co/docs/peft/developer_guides/troubleshooting"
_AUTOTRAINER = "AutoTrainer (ICSE 2021): explode: clip; slow: optimizer, then rate"
_PALM = "PaLM (2204.02311), section 5.1; OPT-175B (2205.01068): a third less learning rate"
_DAPO = "DAPO (2503.14476): clip-higher 0.28"
_RPO = "Iterative RPO (2404.19733): an NLL term on the chosen answers; TRL's loss_type sft"
_OWN = "†"

_S = Symptom
STEPS: dict[Symptom, tuple[Step, ...]] = {
    _S.DIVERGENCE: (
        Step(rate_times(1 / 3), _AX),
        Step(to("warmup_steps", 0.1, 0), _AX),
        Step(at_most("max_grad_norm", 1.0, 1.0), _AX),
        Step(_other_optimizer, _AUTOTRAINER),
    ),
    _S.LOSS_SPIKE: (
        Step(at_most("max_grad_norm", 0.3, 1.0), _AX),
        Step(to("adam_beta2", 0.95, 0.999), "https://arxiv.org/abs/2304.13013: a lower beta2 after spikes"),
        Step(rate_times(1 / 2), _PALM),
    ),
    _S.GRAD_EXPLOSION: (
        Step(at_most("max_grad_norm", 1.0, 1.0), _AX),
        Step(rate_times(1 / 3), _AX),
        Step(scaled("gradient_accumulation_steps", 2, default=1), _AX),
        Step(_other_optimizer, _AUTOTRAINER),
    ),
    _S.NAN_INF: (
        Step(unset("fp16", False), _AX),
        Step(rate_times(1 / 10), _AX),
        Step(at_most("max_grad_norm", 1.0, 1.0), _AX),
        Step(to_adamw, _AUTOTRAINER),
        Step(unset("dtype", "float32"), _AX),
    ),
    _S.PLATEAU: (
        Step(rate_times(3), _AX),
        Step(to_adamw, _AUTOTRAINER),
        Step(scaled("lora_r", 2, high=256), "https://thinkingmachines.ai/blog/lora/: rank limits what is learned"),
        Step(longer(2), _AX),
        Step(to("lr_scheduler_type", "constant_with_warmup", "linear"), _OWN),
    ),
    _S.FROZEN: (
        Step(unset("lora_target_modules", "all-linear"), _PEFT),
        Step(to_adamw, _PEFT),
        Step(rate_times(10), _OWN),
    ),
    _S.OVERFIT: (
        Step(longer(1 / 2), _AX),
        Step(at_least("weight_decay", 0.1, 0.0), _AX),
        Step(scaled("lora_r", 1 / 2, low=8), _AX),
        Step(at_least("lora_dropout", 0.1, 0.0), _AX),
        Step(unset("data_max_rows"), _OWN),
    ),
    _S.FORGETTING: (
        Step(rate_times(1 / 3), "https://arxiv.org/abs/2509.04259"),
        Step(longer(1 / 2), "https://arxiv.org/abs/2509.04259"),
        Step(to("use_peft", True, False), "https://arxiv.org/abs/2405.09673: LoRA forgets less"),
    ),
    _S.MISSING_EOS: (
        Step(unset("eos_token"), "https://github.com/huggingface/trl/issues/3091"),
        Step(to("packing", False, False), _TRL),
    ),
    _S.PAD_EQ_EOS: (Step(unset("pad_token"), "https://github.com/huggingface/trl/issues/3091"),),
    _S.TEMPLATE_MISMATCH: (Step(unset("chat_template_path"), _TRL), Step(unset("eos_token"), _TRL)),
    _S.ASSISTANT_MASK_EMPTY: (
        Step(unset("assistant_only_loss", False), "https://github.com/huggingface/trl/issues/3927"),
    ),
    _S.ALL_LABELS_MASKED: (
        Step(scaled("max_length", 2, default=DEFAULT_MAX_LENGTH), "https://github.com/unslothai/unsloth/issues/2900"),
        Step(unset("assistant_only_loss", False), _TRL),
        Step(unset("completion_only_loss"), _TRL),
    ),
    _S.TRUNCATION: (Step(scaled("max_length", 2, default=DEFAULT_MAX_LENGTH), _TRL),),
    _S.WRONG_COLUMNS: (
        Step(unset("data_prompt_column", "auto"), _TRL),
        Step(unset("data_completion_column", "auto"), _TRL),
    ),
    _S.DUPLICATES: (Step(to("data_deduplicate", True, True), _OWN), Step(longer(1 / 2), _OWN)),
    _S.LABEL_NOISE: (
        Step(usual_rate, "† a loss at chance is blamed on the labels only where the rate could have moved it"),
        Step(classifying(longer(2)), "† a small classifier stays at chance for hundreds of steps before it learns"),
        Step(classifying(longer(4)), "† a small classifier stays at chance for hundreds of steps before it learns"),
        Step(at_least("label_smoothing_factor", 0.1, 0.0), "https://arxiv.org/abs/2003.02819"),
        Step(longer(1 / 2), _OWN),
    ),
    _S.PACKING_LEAK: (Step(unset("packing", False), _TRL),),
    _S.LORA_TARGETS: (Step(to("lora_target_modules", "all-linear"), _PEFT),),
    _S.DTYPE: (
        Step(unset("fp16", False), _PEFT),
        Step(unset("bf16", False), _PEFT),
        Step(unset("dtype", "float32"), _PEFT),
    ),
    _S.DPO_OVERSHOOT: (
        Step(rate_times(1 / 3), "https://github.com/huggingface/trl/issues/1236"),
        Step(with_imitation, _RPO),
        Step(scaled("beta", 3, default=0.1, high=1.0), f"{_TRL}/dpo_trainer"),
        Step(longer(1 / 2), f"{_TRL}/dpo_trainer"),
    ),
    _S.DPO_DISPLACEMENT: (
        Step(with_imitation, _RPO),
        Step(rate_times(1 / 3), f"{_TRL}/dpo_trainer"),
        Step(scaled("beta", 3, default=0.1, high=1.0), f"{_TRL}/dpo_trainer"),
        Step(longer(1 / 2), _OWN),
    ),
    _S.REWARD_ZERO: (Step(at_least("temperature", 1.2, 1.0), _AX), Step(more_samples, _AX)),
    _S.ZERO_STD: (Step(at_least("temperature", 1.0, 1.0), _AX), Step(more_samples, _AX)),
    _S.ENTROPY_COLLAPSE: (
        Step(at_least("epsilon_high", 0.28, 0.2), _DAPO),
        Step(at_least("temperature", 1.0, 1.0), _AX),
        Step(rate_times(1 / 3), _AX),
        Step(at_least("beta", 0.01, 0.0), _AX),
    ),
    _S.KL_BLOWUP: (
        Step(rate_times(1 / 3), _AX),
        Step(at_least("beta", 0.04, 0.0), _AX),
        Step(scaled("beta", 3, high=1.0), _OWN),
        Step(longer(1 / 2), _OWN),
    ),
    _S.LENGTH_HACK: (
        Step(only_grpo(to("loss_type", "dr_grpo")), "Dr. GRPO (2503.20783)"),
        Step(at_least("beta", 0.04, 0.0), _OWN),
    ),
    _S.REWARD_HACK: (
        Step(at_least("beta", 0.04, 0.0), _OWN),
        Step(rate_times(1 / 3), _OWN),
        Step(longer(1 / 2), "Gao et al. (2210.10760): the gold score peaks, then falls"),
    ),
    _S.CLIPPED_COMPLETIONS: (
        Step(usual_rate, "† a model that has hardly learned anything does not end its answers either"),
        Step(sampling(scaled("max_completion_length", 2, default=512)), f"{_TRL}/grpo_trainer"),
        Step(only_grpo(to("mask_truncated_completions", True, False)), _DAPO),
    ),
    _S.ROLLOUT_MISMATCH: (Step(to("vllm_importance_sampling_correction", True, True), f"{_TRL}/grpo_trainer"),),
    _S.OOM: (
        Step(smaller_batch, f"{_TRL}/reducing_memory_usage"),
        Step(to("gradient_checkpointing", True, None), f"{_TRL}/reducing_memory_usage"),
        Step(to("use_liger_kernel", True, False), f"{_TRL}/liger_kernel_integration"),
        Step(scaled("max_length", 1 / 2, default=DEFAULT_MAX_LENGTH, low=64), f"{_TRL}/reducing_memory_usage"),
        Step(to("use_peft", True, False), f"{_TRL}/peft_integration"),
    ),
    _S.NCCL_TIMEOUT: (
        Step(scaled("ddp_timeout", 2, default=1800, high=7200), "https://github.com/huggingface/open-r1/issues/620"),
    ),
    _S.HOST_OOM: (Step(unset("dataloader_num_workers", 0), _AX), Step(smaller_batch, _OWN)),
    _S.DISK_FULL: (Step(to("save_total_limit", 1), _AX), Step(to("save_strategy", "no", "steps"), _AX)),
    _S.STALL: (Step(unset("dataloader_num_workers", 0), _OWN),),
    _S.JOB_TIMEOUT: (Step(longer(1 / 2), _OWN),),
    # Pairs that are told apart with ease teach nothing more, and the answers may still be far from the chosen ones.
    _S.UNKNOWN: (Step(with_imitation, _RPO),),
}
"""What is not here has no line of the recipe that a step could change: a person is told."""

UNPAID = frozenset({_S.REWARD_ZERO, _S.ZERO_STD})
"""Symptoms whose steps change how answers are sampled: of no use where the reward itself cannot tell them apart."""
REWARD_KEYS = ("reward_functions", "reward_funcs")
"""Who is blamed where it is the reward's own fault, which a person decides about."""
_FAMILIES: dict[str, tuple[str, ...]] = {
    "rate": ("learning_rate", "warmup_steps", "warmup_ratio", "lr_scheduler_type"),
    "length of training": ("max_steps", "num_train_epochs"),
    "update": ("max_grad_norm", "optim", "adam_beta1", "adam_beta2", "adam_epsilon", "weight_decay"),
    "precision": ("fp16", "bf16", "dtype", "tf32", "load_in_4bit", "load_in_8bit"),
    "memory": (
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "gradient_checkpointing",
        "use_liger_kernel",
    ),
    "adapter": ("use_peft", "lora_r", "lora_alpha", "lora_dropout", "lora_target_modules"),
    "tokens": (
        "eos_token",
        "pad_token",
        "chat_template_path",
        "assistant_only_loss",
        "completion_only_loss",
        "packing",
    ),
    "sequence length": ("max_length", "max_prompt_length", "max_completion_length", "mask_truncated_completions"),
    "preference": ("beta", "loss_type", "loss_weights", "epsilon", "epsilon_high"),
    "sampling": ("temperature", "top_p", "num_generations"),
    "reward": ("reward_funcs", "reward_functions", "reward_weights"),
}
_FAMILY = {key: family for family, keys in _FAMILIES.items() for key in keys}


def family_of(key: str) -> str:
    """The kind of change that setting `key` is; changes of one kind that fail three times are not tried again."""
    return _FAMILY.get(key, "data" if key.startswith("data_") else key)


def is_shorter(before: Values, settings: Values) -> bool:
    """Whether the change is a shorter training and nothing else."""
    (key, *others), length = settings, duration_key(before)
    value, old = _number(settings, key, None), scaled_duration(before, 1.0)
    return not others and key == length and value is not None and value < old


def scope_change(before: Values, after: Values) -> str | None:
    """Why going from one recipe to the other is more than another value of a hyperparameter, so that a person decides;
    None when it is not."""
    old, new = normalised_value(dict(before)), normalised_value(dict(after))
    for key, words in _SCOPE_KEYS.items():
        if key in new and old.get(key) != new.get(key) and (old.get(key) or new.get(key)):
            return f"setting `{key}` {words}"
    for key in ("max_length", "max_prompt_length", "max_completion_length"):
        a, b = old.get(key), new.get(key)
        if isinstance(b, int | float) and (not isinstance(a, int | float) or b < a) and key in new and a != b:
            if key == "max_length" and a is None and key not in old and b >= DEFAULT_MAX_LENGTH:
                continue  # said for the first time, and not below what held unsaid
            return f"a `{key}` of {b:g} cuts what is trained on shorter"
    rows, kept = new.get("data_max_rows"), old.get("data_max_rows")
    if isinstance(rows, int | float) and (not isinstance(kept, int | float) or rows < kept):
        return f"a `data_max_rows` of {rows:g} trains on fewer rows"
    held, before_held = new.get("data_validation_rows"), old.get("data_validation_rows")
    if isinstance(held, int | float) and held > (before_held if isinstance(before_held, int | float) else 0):
        return f"a `data_validation_rows` of {held:g} trains on fewer rows"
    return None


_SCOPE_KEYS = {
    "use_peft": "changes whether an adapter or all weights are trained",
    "load_in_4bit": "changes the weights' precision",
    "load_in_8bit": "changes the weights' precision",
    "data_sources": "trains on other data",
    "reward_funcs": "changes what is rewarded",
    "reward_functions": "changes what is rewarded",
    "reward_weights": "changes what is rewarded",
    "method": "trains by another method",
    "init_from": "starts from another model",
    "from_scratch": "starts from other weights",
    "teacher": "learns from another model",
}
