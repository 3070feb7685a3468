"""The memory that a training run needs at its peak, part by part.

Where gradients appear while activations go, both stand here in full and `overlap_gib` says how much of them never
lies in memory at once, so that a plan for several devices can divide each part by its own rule.

Not covered: images and other inputs than text, models whose code is not in transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from runners.hardware.activations import kept_bytes, widths_of
from runners.hardware.shape import ModelShape
from runners.hardware.training import Lora, Training

GIB = 2**30


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Peak memory of one device that holds all of it (no sharding), in GiB."""

    weights_gib: float
    """Parameters as they are loaded, a reference model's and an adapter's included."""
    gradients_gib: float
    optimizer_gib: float
    """The optimizer's own states."""
    activations_gib: float
    """What the forward pass keeps for the backward pass."""
    logits_gib: float
    """What the output layer and its loss take beside their weights."""
    kv_cache_gib: float
    """Keys and values of the answers while they are generated; 0 for methods that generate none."""
    overhead_gib: float
    """The process itself: libraries, the GPU's context and its workspaces, fragmentation."""
    overlap_gib: float = 0.0
    """Of the parts above, what is never there at the same time; taken off the total."""

    @property
    def total_gib(self) -> float:
        return float(sum(getattr(self, name) for name in PARTS)) - self.overlap_gib

    def explain(self) -> list[str]:
        """One line for each part that takes anything, the largest first, and their sum."""
        parts = sorted(((getattr(self, name), words) for name, words in PARTS.items()), reverse=True)
        lines = [f"{gib:.2f} GiB {words}" for gib, words in parts if gib >= 0.005]
        if self.overlap_gib >= 0.005:
            lines.append(f"{self.overlap_gib:.2f} GiB less, because not all of that is there at once")
        return [*lines, f"{self.total_gib:.2f} GiB in all"]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"total_gib": self.total_gib}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> MemoryEstimate:
        return cls(**{key: data[key] for key in cls.__dataclass_fields__ if key in data})


PARTS = {
    "weights_gib": "weights",
    "gradients_gib": "gradients",
    "optimizer_gib": "optimizer states",
    "activations_gib": "activations",
    "logits_gib": "logits and loss",
    "kv_cache_gib": "keys and values of generated answers",
    "overhead_gib": "process, libraries and workspaces",
}
"""Field -> what it is, in words."""

TILE_TOKENS, TILE_WORDS = 4096, 32_768
"""TRL computes the loss in tiles of this size and never holds all scores, whatever the model's vocabulary:
https://github.com/huggingface/trl/blob/main/trl/kernels/chunked_logprob.py."""
TORCH_TILES = 8.25
"""Tiles in float32 that stand at once where the fused kernel's arithmetic is done by torch, on processor cores."""
CUDA_GIB = 0.9
"""A context with torch's kernels loaded (0.3 to 0.6 GiB by driver and GPU) and cuBLAS's workspaces."""
GPU_FRAGMENTATION = 0.06
"""Of what comes and goes, what the caching allocator cannot use again."""
PROCESS_GIB = 0.5
"""torch, transformers, datasets and TRL, imported, on processor cores."""
RUN_GIB = 0.1
"""What they take beside tensors once they run, measured with tests/bench/hardware.py: libraries loaded on first use,
the rows, the buffers of matrix products."""
HEAP_GROWTH = 0.30
"""Of activations, what the C library keeps beside them on processor cores: blocks below 32 MiB come from a heap that
has holes and does not shrink. Without such a heap (`MALLOC_MMAP_THRESHOLD_=262144`) a run took what is counted here to
one per cent; with it, runs took 5 to 50 % of their activations more."""


def memory_of(
    shape: ModelShape, training: Training, *, gpu: bool, device_gib: float = 0.0, process_gib: float = PROCESS_GIB
) -> MemoryEstimate:
    """The peak memory of training this model this way, on one GPU or on processor cores.

    `device_gib` is the GPU's memory, which only a share set for vLLM depends on; `process_gib` what the libraries take
    on processor cores before anything is loaded.
    """
    static = _Static.of(shape, training)
    gradients = static.gradients
    head, head_gradient = _head_bytes(shape, training, gpu=gpu)
    kept = kept_bytes(shape, training, gpu=gpu)
    in_layer = _layer_gradients(shape, training, gpu=gpu)
    cache = _cache_bytes(shape, training, static.weights, device_gib)
    accumulated = gradients if training.accumulation > 1 else 0.0
    phases = (
        kept + max(head, head_gradient + in_layer) + accumulated,
        gradients + _embedding_gradient(shape, training),
        gradients + _step_bytes(training, gradients, gpu=gpu),
        cache if training.colocated_share == 0 else 0.0,
    )
    colocated = cache if training.colocated_share else 0.0
    peak = max(phases)
    process = CUDA_GIB * GIB + GPU_FRAGMENTATION * peak if gpu else (process_gib + RUN_GIB) * GIB + HEAP_GROWTH * kept
    parts = gradients + kept + head + (0.0 if colocated else cache)
    return MemoryEstimate(
        weights_gib=static.weights / GIB,
        gradients_gib=gradients / GIB,
        optimizer_gib=static.optimizer / GIB,
        activations_gib=kept / GIB,
        logits_gib=head / GIB,
        kv_cache_gib=cache / GIB,
        overhead_gib=(process + max(0.0, peak - parts)) / GIB,
        overlap_gib=max(0.0, parts - peak) / GIB,
    )


@dataclass(frozen=True, slots=True)
class _Static:
    """Bytes that stand through all of the training, and those of the gradients."""

    weights: float
    gradients: float
    optimizer: float

    @classmethod
    def of(cls, shape: ModelShape, training: Training) -> _Static:
        base = _base_bytes(shape, training)
        weights = base * (2 if training.reference else 1)
        if training.lora is None:
            trained, width = float(_parameters(shape, training)), training.weight_bytes
        else:
            # PEFT keeps adapters in float32 over a 16-bit base; TRL casts those over a quantised one to bfloat16.
            width = 2.0 if training.quantised_bits else 4.0
            trained = float(adapter_parameters(shape, training.lora))
            weights += trained * width
        return cls(weights, trained * width, trained * _state_bytes(training.optimizer, width))


def adapter_parameters(shape: ModelShape, lora: Lora) -> int:
    """Trainable parameters of a LoRA adapter, modules that are trained whole included."""
    total = 0
    for linear, count in shape.adapted(lora.targets):
        each = lora.rank * (linear.inputs + linear.outputs) + (linear.outputs if lora.magnitudes else 0)
        total += count * each
    words = shape.vocabulary * shape.hidden
    return total + sum(words for name in lora.whole if name.endswith(("embed_tokens", "lm_head", "wte", "embed_in")))


def _parameters(shape: ModelShape, training: Training) -> int:
    """A reward model has one output in place of the vocabulary."""
    without_head = training.method in ("reward", "classify")
    return shape.parameters - (shape.head_parameters if without_head else 0)


def _base_bytes(shape: ModelShape, training: Training) -> float:
    parameters = _parameters(shape, training)
    if training.quantised_bits is None:
        return parameters * training.weight_bytes
    # Dettmers et al. 2023, arXiv:2305.14314: 4 bits and one float32 for each block of 64; what is no matrix stays.
    each = 0.5 + 4 / 64 if training.quantised_bits == 4 else 1.0
    return shape.linear_parameters * each + (parameters - shape.linear_parameters) * training.weight_bytes


def _state_bytes(optimizer: str, width: float) -> float:
    """Bytes that an optimizer keeps for each trained parameter (https://huggingface.co/docs/transformers/optimizers)."""
    name = optimizer.lower()
    states = 1 if any(word in name for word in ("lion", "rmsprop", "adagrad")) else 2
    if "8bit" in name:
        return states * (1 + 4 / 256)  # one float32 for each block of 256, Dettmers et al. 2021, arXiv:2110.02861
    if name == "sgd":
        return 0.0
    if "adafactor" in name:
        return 0.05  # a row and a column for each matrix, Shazeer and Stern 2018, arXiv:1804.04235
    return states * width


def _head_bytes(shape: ModelShape, training: Training, *, gpu: bool) -> tuple[float, float]:
    """(bytes that the output layer and its loss take at their peak, of which its weights' gradient)."""
    if training.method in ("reward", "classify"):
        return 0.0, 0.0
    tokens = training.rows * training.length
    words, widths = shape.vocabulary, widths_of(training, gpu=gpu)
    gradient = words * shape.hidden * 4.0 if training.lora is None else 0.0
    states = tokens * shape.hidden * (4.0 + widths.product)
    if training.full_logits:
        return gradient + states + tokens * words * (
            12.0 if widths.product == 4 else 2 * widths.product + 12.0
        ), gradient
    if gpu:
        tile = min(tokens, TILE_TOKENS) * TILE_WORDS * widths.product + TILE_WORDS * shape.hidden * widths.product
        gradient += words * shape.hidden * training.weight_bytes if gradient and training.weight_bytes < 4 else 0.0
    else:
        tile = TORCH_TILES * min(tokens, TILE_TOKENS) * min(words, TILE_WORDS) * 4.0
    return gradient + states + tile, gradient


def _layer_gradients(shape: ModelShape, training: Training, *, gpu: bool) -> float:
    """Gradients of the widest layer's own results, which stand while everything that was kept still does."""
    widths = widths_of(training, gpu=gpu)
    inner = max(
        layer.inner or (layer.experts.inner * layer.experts.chosen if layer.experts else 0) for layer in shape.layers
    )
    return training.rows * training.length * (3 * inner * widths.product + 2 * shape.hidden * widths.stream)


def _embedding_gradient(shape: ModelShape, training: Training) -> float:
    """A tied embedding is given a second gradient, which is added to the output layer's."""
    return shape.vocabulary * shape.hidden * training.weight_bytes if training.lora is None and shape.tied else 0.0


def _step_bytes(training: Training, gradients: float, *, gpu: bool) -> float:
    """What the optimizer's step takes for itself: torch's unfused AdamW one more tensor for each on a GPU."""
    return gradients if gpu and training.optimizer in ("adamw_torch", "adamw_hf") else 0.0


def _cache_bytes(shape: ModelShape, training: Training, weights: float, device_gib: float) -> float:
    """Keys and values of all answers that are generated at once, or the share of the GPU that vLLM is given."""
    if not training.generated:
        return 0.0
    if training.colocated_share:
        return training.colocated_share * device_gib * GIB
    width = 2.0 if training.mixed else training.weight_bytes
    each = 2 * shape.kv_heads * shape.head_dim * width
    return training.generated_rows * sum(
        layer.count * each * min(training.length, layer.window or training.length) for layer in shape.layers
    )
