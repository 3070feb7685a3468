"""What a recipe asks of the hardware: its keys, with the defaults of TRL and of the shipped scripts where it has none.

Defaults are those of TRL 1.16 and transformers 5.23 (https://huggingface.co/docs/trl/main/en/sft_trainer), except that
the shipped scripts load float32 weights, and train in bfloat16 and with gradient checkpointing on a GPU alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bot.domain.recipe import normalised_value
from bot.errors import UserError

PAIRED = frozenset({"dpo", "reward"})
"""Methods whose every row is two sequences."""
GENERATING = frozenset({"grpo", "rloo", "distill", "distillation", "gkd"})
WITH_REFERENCE = frozenset({"dpo", "kto"})
"""Methods that hold a second copy of the model to compare with, unless an adapter or computing ahead saves it."""
_BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}


@dataclass(frozen=True, slots=True)
class Lora:
    """An adapter: its rank and what it is put on."""

    rank: int
    targets: tuple[str, ...]
    """Empty: what PEFT takes for this model type."""
    dropout: float
    magnitudes: bool = False
    """DoRA: one number more for each output."""
    whole: tuple[str, ...] = ()
    """Modules that are trained in full beside it."""


@dataclass(frozen=True, slots=True)
class Training:
    """Everything of a recipe that memory and time depend on."""

    method: str
    weight_bytes: float
    """Of one parameter as loaded."""
    quantised_bits: int | None
    """4 or 8 for the matrices of the frozen base under an adapter."""
    mixed: bool
    """Matrices are multiplied in 16 bits whatever the weights are."""
    rows: int
    """Sequences that go through the model at once on one device."""
    length: int
    """Tokens of the longest of them."""
    accumulation: int
    checkpointing: bool
    attention: str
    """`fused` keeps no scores, `flash` no mask either, `eager` all of both."""
    masked: bool
    """A batch has rows of several lengths, or several rows in one, so that attention takes a mask."""
    packed: bool
    optimizer: str
    lora: Lora | None
    reference: bool
    """A frozen copy of the model is held too."""
    full_logits: bool
    """The loss is not computed in pieces, so that scores of all words for all tokens are there at once."""
    generated: int
    """Tokens of an answer that the method generates; 0: none."""
    generated_rows: int
    """Answers that are generated at once."""
    colocated_share: float
    """Of the GPU's memory, what vLLM takes on the same device."""
    epochs: float
    max_steps: int
    batch: int
    """Rows of the training set in one step of one device, accumulation aside."""

    @property
    def device_rows(self) -> int:
        """Rows of the training set that one device sees in one optimizer step."""
        return self.batch * self.accumulation


def training_of(recipe: Mapping[str, Any], *, gpu: bool, longest: int | None = None) -> Training:
    """What `recipe` asks for on a GPU or on processor cores. `longest` is the longest row in tokens, where known.

    Raises: UserError when a key that decides memory holds what is no number.
    """
    values = {key: normalised_value(value) for key, value in recipe.items()}
    method = str(values.get("method") or "sft")
    batch = _whole(values, "per_device_train_batch_size", 8)
    accumulation = _whole(values, "gradient_accumulation_steps", 1)
    generated = _whole(values, "max_completion_length", 256) if method in GENERATING else 0
    length = _length(values, method, longest, generated)
    packed = bool(values.get("packing")) or bool(values.get("padding_free"))
    rows = batch * (2 if method in PAIRED else 1)
    lora = _lora(values) if values.get("use_peft") else None
    attention = _attention(values)
    sixteen = values.get("bf16", gpu) or values.get("fp16", False)
    dtype = str(values.get("dtype") or "float32")
    return Training(
        method=method,
        weight_bytes=_BYTES.get(dtype, 2.0),
        quantised_bits=_bits(values) if lora is not None else None,
        mixed=bool(sixteen),
        rows=1 if packed else rows,
        length=length * rows if packed else length,
        accumulation=accumulation,
        checkpointing=bool(values.get("gradient_checkpointing", gpu)),
        attention=attention,
        masked=attention != "flash" and (packed or rows > 1),
        packed=packed,
        optimizer=str(values.get("optim") or "adamw_torch_fused"),
        lora=lora,
        reference=_needs_reference(values, method, lora),
        full_logits=method in ("distill", "distillation", "gkd") or bool(values.get("label_smoothing_factor")),
        generated=generated,
        generated_rows=batch * _whole(values, "steps_per_generation", accumulation),
        colocated_share=_colocated(values, gpu),
        epochs=_number(values, "num_train_epochs", 3.0),
        max_steps=_whole(values, "max_steps", -1, smallest=-1),
        batch=batch,
    )  # fmt: skip


def _bits(values: Mapping[str, Any]) -> int | None:
    if values.get("load_in_4bit"):
        return 4
    return 8 if values.get("load_in_8bit") else None


def _length(values: Mapping[str, Any], method: str, longest: int | None, generated: int) -> int:
    """Tokens of the longest sequence: the recipe's limit, or the longest row where that is shorter."""
    if method in GENERATING:
        prompt = _whole(values, "max_prompt_length", 512)
        return (min(prompt, longest) if longest else prompt) + generated
    limit = values.get("max_length", 1024)
    if limit is None:
        return longest or 1024
    limit = _whole(values, "max_length", 1024)
    return min(limit, longest) if longest and not values.get("packing") else limit


def _lora(values: Mapping[str, Any]) -> Lora:
    return Lora(
        rank=_whole(values, "lora_r", 16),
        targets=_names(values.get("lora_target_modules")),
        dropout=_number(values, "lora_dropout", 0.05),
        magnitudes=bool(values.get("use_dora")),
        whole=_names(values.get("lora_modules_to_save")),
    )


def _names(value: Any) -> tuple[str, ...]:
    if not value:
        return ()
    parts = value if isinstance(value, list | tuple) else str(value).replace(",", " ").split()
    return tuple(str(part).strip() for part in parts if str(part).strip())


def _attention(values: Mapping[str, Any]) -> str:
    name = str(values.get("attn_implementation") or "sdpa")
    if "flash" in name:
        return "flash"
    return "eager" if name == "eager" else "fused"


def _needs_reference(values: Mapping[str, Any], method: str, lora: Lora | None) -> bool:
    if lora is not None:
        return False
    if method in WITH_REFERENCE:
        return not values.get("precompute_ref_log_probs")
    return method in ("grpo", "rloo") and _number(values, "beta", 0.0 if method == "grpo" else 0.05) != 0.0


def _colocated(values: Mapping[str, Any], gpu: bool) -> float:
    if not gpu or not values.get("use_vllm") or values.get("vllm_mode", "colocate") != "colocate":
        return 0.0
    return _number(values, "vllm_gpu_memory_utilization", 0.3)


def _number(values: Mapping[str, Any], key: str, default: float) -> float:
    value = values.get(key, default)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{key} needs a number, not {value!r}")
    return float(value)


def _whole(values: Mapping[str, Any], key: str, default: int, *, smallest: int = 1) -> int:
    value = _number(values, key, default)
    if value != int(value) or value < smallest:
        raise UserError(f"{key} needs a whole number of at least {smallest}, not {values.get(key)!r}")
    return int(value)
