"""How long a training run takes: arithmetic over a GPU's speed, until a probe has measured a step.

The arithmetic is that of Kaplan et al. 2020, arXiv:2001.08361 (2 operations a parameter and token forward, 4
backward), with attention's own part as in Chowdhery et al. 2022, arXiv:2204.02311 (appendix B), halved because it is
causal. It says an order of magnitude: the share of a GPU's published speed that training reaches is assumed, and
differs by a factor of two.

Not covered: waiting for a machine, downloading models over a slow line, evaluation during training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runners.hardware.gpus import Gpu
from runners.hardware.shape import ModelShape
from runners.hardware.training import Training

REACHED = 0.35
"""Of the published speed. PaLM reached 0.46 (arXiv:2204.02311, table 3) with what one job's trainer does not have."""
REACHED_BANDWIDTH = 0.5
"""Of the memory's bandwidth, while answers are generated token by token."""
CORE_FLOPS = 2.5e10
"""A second, of one processor core in float32: an assumption of the right order, measured nowhere."""
STEP_SECONDS = 0.012
"""Of the trainer itself, for each step."""
LAYER_SECONDS = 0.002
"""Of launching one layer's operations, forward and backward."""
START_SECONDS = 25.0
"""Importing the libraries, reading rows and writing the model, beside the weights themselves."""
BYTES_PER_SECOND = 5e8
"""Of reading and of writing weights."""


@dataclass(frozen=True, slots=True)
class TimeEstimate:
    """How long the training job takes, in seconds."""

    steps: int
    """Optimizer steps."""
    seconds_per_step: float
    start_seconds: float
    """Before the first step and after the last."""
    measured: bool = False
    """True: the seconds of a step were measured by a probe."""

    @property
    def seconds(self) -> float:
        return self.start_seconds + self.steps * self.seconds_per_step


@dataclass(frozen=True, slots=True)
class Probe:
    """What a few steps on the machine itself have shown: `out/timing.json` of the shipped script's `--timing_probe`."""

    steps: int
    seconds_per_step: float
    peak_memory_gib: float | None = None
    """None where the script could not tell."""

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Probe | None:
        """The probe in a timing.json, None when it holds none that can be used."""
        steps, seconds, peak = (data.get(key) for key in ("steps", "seconds_per_step", "peak_memory_gib"))
        if not isinstance(steps, int) or not _positive(seconds) or steps < 1:
            return None
        return cls(steps, float(seconds), float(peak) if _positive(peak) else None)  # type: ignore[arg-type]


def _positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def steps_of(training: Training, rows: int, *, tokens_per_row: float, devices: int = 1) -> int:
    """Optimizer steps that `rows` rows of the training set make; packing fills each sequence with as many as fit."""
    if training.max_steps > 0:
        return training.max_steps
    if training.packed and training.batch:
        length = training.length / training.batch
        rows = math.ceil(rows * min(tokens_per_row, length) / length)
    each = math.ceil(rows / (training.device_rows * devices))
    return max(1, math.ceil(each * training.epochs))


def operations_per_token(shape: ModelShape, training: Training) -> float:
    """Floating-point operations for one token of one sequence, forward and backward."""
    seen = sum(layer.count * min(training.length, layer.window or training.length) / 2 for layer in shape.layers)
    forward = 2.0 * shape.active_parameters + 4.0 * shape.heads * shape.head_dim * seen
    # Frozen weights need no gradient of their own; checkpointing goes forward twice; a reference forward once.
    times = (
        (3 if training.lora is None else 2) + training.checkpointing + (training.reference or training.method == "dpo")
    )
    return forward * times


def time_of(
    shape: ModelShape, training: Training, *, rows: int, tokens_per_row: float, gpu: Gpu | None = None,
    devices: int = 1, cores: float = 1.0, probe: Probe | None = None,
) -> TimeEstimate:  # fmt: skip
    """The time of a training job. Without a `gpu` it is that of `cores` processor cores."""
    steps = steps_of(training, rows, tokens_per_row=tokens_per_row, devices=devices)
    start = START_SECONDS + 2 * shape.parameters * training.weight_bytes / BYTES_PER_SECOND
    if probe is not None:
        return TimeEstimate(steps, probe.seconds_per_step, start, measured=True)
    length = training.length if training.packed else min(training.length, tokens_per_row + training.generated)
    tokens = training.rows * length * training.accumulation
    speed = gpu.teraflops * 1e12 * REACHED if gpu is not None else CORE_FLOPS * max(1.0, cores)
    seconds = tokens * operations_per_token(shape, training) / speed
    seconds += STEP_SECONDS + LAYER_SECONDS * shape.depth * training.accumulation
    return TimeEstimate(steps, seconds + _generation(shape, training, gpu, speed), start)


def _generation(shape: ModelShape, training: Training, gpu: Gpu | None, speed: float) -> float:
    """Seconds of a step in which answers grow: each token of all of them reads the weights once."""
    if not training.generated:
        return 0.0
    products = 2.0 * shape.active_parameters * training.generated_rows / speed
    read = shape.parameters * 2.0 / (gpu.gigabytes_per_second * 1e9 * REACHED_BANDWIDTH) if gpu is not None else 0.0
    return training.generated * (max(products, read) + LAYER_SECONDS * shape.depth / 3)
