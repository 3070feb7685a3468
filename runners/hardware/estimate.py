"""The memory that a training run needs at its peak, part by part.

Where gradients appear while activations go, both stand here in full and `overlap_gib` says how much of them never
lies in memory at once, so that a plan for several devices can divide each part by its own rule.

Not covered: images and other inputs than text, models whose code is not in transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

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
        return sum(getattr(self, name) for name in PARTS) - self.overlap_gib

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
