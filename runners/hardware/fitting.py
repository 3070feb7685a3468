"""Which machine a run fits on, what it costs there, and which keys of the recipe would make it fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from runners.hardware.estimate import MemoryEstimate, memory_of
from runners.hardware.gpus import gpu_named
from runners.hardware.shape import ModelShape
from runners.hardware.time import Probe, TimeEstimate, time_of
from runners.hardware.training import training_of
from runners.job import Flavor
from runners.launching import launch_plan

USABLE = 0.97
"""Of a GPU's memory: the driver and the display keep the rest."""
TIGHT = 0.9
"""Above this share of the memory, an error of the estimate decides whether it fits."""
Settings = dict[str, Any]
Recipe = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rows:
    """The training set, as far as hardware depends on it."""

    count: int
    longest_tokens: int | None = None
    """At most; None: not known, so the recipe's limit counts."""
    mean_tokens: float | None = None
    """None: not known, so every row counts as long as the longest."""


@dataclass(frozen=True, slots=True)
class Fit:
    """One recipe on one kind of machine."""

    flavor: Flavor
    memory: MemoryEstimate
    """Of one device that holds all of it."""
    device_gib: float
    """What one device holds where several share it (`runners.launching`); the whole of `memory` on a single one."""
    available_gib: float | None
    """Of one device; None: the backend does not say how much there is."""
    time: TimeEstimate
    usd: float | None
    """Of the training job; None: nobody has named a price."""

    @property
    def fits(self) -> bool:
        return self.available_gib is None or self.device_gib <= self.available_gib

    @property
    def tight(self) -> bool:
        return self.fits and self.available_gib is not None and self.device_gib > TIGHT * self.available_gib


def fit_on(
    flavor: Flavor, shape: ModelShape, recipe: Recipe, rows: Rows, *,
    memory_cap_gib: float | None = None, cores: float | None = None, usd_per_hour: float | None = None,
    probe: Probe | None = None, gpus: int = 1, nodes: int = 1,
) -> Fit:  # fmt: skip
    """How the recipe fits on `flavor`, on `gpus` GPUs of each of `nodes` such machines.

    `memory_cap_gib` and `cores` bound a job on processor cores below what the machine has; `usd_per_hour` counts where
    the flavor has no price; a `probe` replaces what is estimated.

    Raises: UserError when a key of the recipe that decides memory or time is no number.
    """
    gpu = flavor.gpus > 0
    model = gpu_named(flavor.gpu_model or flavor.name) if gpu else None
    training = training_of(recipe, gpu=gpu, longest=rows.longest_tokens)
    if model is not None and not model.bfloat16 and "bf16" not in recipe and "fp16" not in recipe:
        training = replace(training, mixed=False)  # the shipped scripts leave it off there
    memory = memory_of(shape, training, gpu=gpu, device_gib=flavor.gpu_memory_gib)
    if probe is not None and probe.peak_memory_gib is not None:
        memory = _as_measured(memory, probe.peak_memory_gib)
    devices = max(1, min(gpus, flavor.gpus)) * nodes
    device_gib = memory.total_gib
    if devices > 1 and gpu:
        device_gib = launch_plan(memory, min(gpus, flavor.gpus), _gpu_memory(flavor), nodes).gpu_gib
    longest = training.length / (training.batch if training.packed else 1)
    time = time_of(
        shape, training, rows=rows.count, tokens_per_row=rows.mean_tokens or longest, gpu=model, probe=probe,
        cores=cores if cores is not None else flavor.cpus, devices=devices,
    )  # fmt: skip
    price = flavor.usd_per_hour if flavor.usd_per_hour is not None else usd_per_hour
    usd = None if price is None else price * nodes * time.seconds / 3600
    return Fit(flavor, memory, device_gib, _available(flavor, memory_cap_gib), time, usd)


def cheapest(fits: Sequence[Fit]) -> Fit | None:
    """The one that fits for the least money, then in the least time; those without a price come last."""
    fitting = [fit for fit in fits if fit.fits and fit.available_gib is not None]
    return min(fitting, key=lambda fit: (fit.usd is None, fit.usd or 0.0, fit.time.seconds), default=None)


def changes_that_fit(
    recipe: Recipe, needed_gib: Callable[[Recipe], float], available_gib: float, *, gpu: bool
) -> Settings | None:
    """The mildest settings under which `needed_gib(recipe)` is at most `available_gib`; None when none of these do.

    In the order of what they cost: first what only takes time, then what changes how much is trained, at last what
    changes what is read. One change alone is preferred to several together.
    """
    for kind in _KINDS:
        for change in kind(recipe, gpu):
            if needed_gib({**recipe, **change}) <= available_gib:
                return change
    together: Settings = {}
    for kind in _KINDS:
        for change in kind({**recipe, **together}, gpu):
            together |= change
            if needed_gib({**recipe, **together}) <= available_gib:
                return together
    return None


def _checkpointing(recipe: Recipe, gpu: bool) -> Iterator[Settings]:
    if not training_of(recipe, gpu=gpu).checkpointing:
        yield {"gradient_checkpointing": True}


def _smaller_batches(recipe: Recipe, gpu: bool) -> Iterator[Settings]:
    """Halved, with twice the accumulation, so that a step still sees as many rows."""
    now = training_of(recipe, gpu=gpu)
    size, accumulation = now.batch, now.accumulation
    while size > 1 and size % 2 == 0:
        size, accumulation = size // 2, accumulation * 2
        yield {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation}


def _adapter(recipe: Recipe, gpu: bool) -> Iterator[Settings]:
    if not recipe.get("use_peft") and recipe.get("method") not in ("pretrain", "classify"):
        yield {"use_peft": True, "lora_target_modules": "all-linear"}


def _sixteen_bits(recipe: Recipe, gpu: bool) -> Iterator[Settings]:
    if gpu and training_of(recipe, gpu=gpu).weight_bytes > 2:
        yield {"dtype": "bfloat16"}


def _four_bits(recipe: Recipe, gpu: bool) -> Iterator[Settings]:
    if gpu and recipe.get("use_peft") and not recipe.get("load_in_4bit"):
        yield {"load_in_4bit": True}


def _shorter(recipe: Recipe, gpu: bool) -> Iterator[Settings]:
    now = training_of(recipe, gpu=gpu)
    limit = now.length // (now.batch if now.packed else 1)
    while limit > 256 and not now.generated:
        limit //= 2
        yield {"max_length": limit}


_KINDS = (_checkpointing, _smaller_batches, _adapter, _sixteen_bits, _four_bits, _shorter)


def _gpu_memory(flavor: Flavor) -> float:
    """Of one GPU in GiB; 0 where neither the backend nor its name says it."""
    gpu = gpu_named(flavor.gpu_model or flavor.name)
    return flavor.gpu_memory_gib or (gpu.memory_gib if gpu is not None else 0.0)


def _available(flavor: Flavor, cap_gib: float | None) -> float | None:
    if flavor.gpus > 0:
        memory = _gpu_memory(flavor)
        return memory * USABLE if memory else None
    if not flavor.memory_gib:
        return None  # a cap alone says nothing of a machine that is not described
    return flavor.memory_gib if cap_gib is None else min(flavor.memory_gib, cap_gib)


def _as_measured(memory: MemoryEstimate, peak_gib: float) -> MemoryEstimate:
    """The same parts with a total that was measured: the difference is put where nothing can be counted."""
    overhead = peak_gib - (memory.total_gib - memory.overhead_gib)
    if overhead >= 0:
        return replace(memory, overhead_gib=overhead)
    return replace(memory, overhead_gib=0.0, overlap_gib=memory.overlap_gib - overhead)
