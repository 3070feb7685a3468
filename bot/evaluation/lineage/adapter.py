"""Whether a trained LoRA adapter is in the weights that are said to hold it.

What changed of a matrix is compared with `scale * B @ A` of the adapter that the job saved beside its model
(https://arxiv.org/abs/2106.09685, section 4.1): merged, it explains all of the change.

Not covered: DoRA, whose merge also rescales, and adapters other than LoRA; they are left unchecked.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bot.errors import UserError
from bot.evaluation.lineage.files import object_in
from bot.evaluation.lineage.weights import ADAPTER_WEIGHTS, FLOATS, PIECE, Tensor, tensors_of

CONFIGURATION = "adapter_config.json"
_PAIR = re.compile(r"^(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight$")
_NOTHING = 1e-12


@dataclass(frozen=True, slots=True)
class AdapterUse:
    tensors: int
    """Matrices that it adapts and that were found."""
    explained: float
    """Share of the change's squares that the adapter accounts for, at most 1; 0 where nothing changed."""
    size: float
    """Norm of what the adapter adds."""

    def as_dict(self) -> dict[str, Any]:
        return {"tensors": self.tensors, "explained": round(self.explained, 4)}


def adapter_use(folder: Path, start: Mapping[str, Tensor], model: Mapping[str, Tensor]) -> AdapterUse | None:
    """How much of what changed from `start` to `model` is the adapter in `folder`; None where that cannot be told.

    Raises: UserError for an adapter that cannot be read.
    """
    configuration = object_in(folder / CONFIGURATION)
    file = folder / ADAPTER_WEIGHTS
    if not file.is_file():
        raise UserError(f"the adapter was saved without {ADAPTER_WEIGHTS}")
    if configuration.get("use_dora") or str(configuration.get("peft_type", "LORA")) != "LORA":
        return None
    pairs = _pairs(tensors_of(file))
    left = added = changed = 0.0
    found = 0
    for module, (a, b) in pairs.items():
        before, after = start.get(f"{module}.weight"), model.get(f"{module}.weight")
        if before is None or after is None or before.shape != after.shape or before.shape != (b.shape[0], a.shape[1]):
            continue
        found += 1
        sums = _sums(before, after, a, b, scale_of(configuration, module, a.shape[0]))
        left, added, changed = left + sums[0], added + sums[1], changed + sums[2]
    if not found:
        return None
    explained = 1 - left / changed if changed > _NOTHING else 0.0
    return AdapterUse(found, max(0.0, explained), math.sqrt(added))


def _pairs(tensors: list[Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    sides: dict[str, dict[str, Tensor]] = {}
    for tensor in tensors:
        if (match := _PAIR.match(tensor.name)) and tensor.dtype in FLOATS and len(tensor.shape) == 2:
            sides.setdefault(match["module"], {})[match["side"]] = tensor
    return {
        module: (each["A"], each["B"])
        for module, each in sides.items()
        if len(each) == 2 and each["A"].shape[0] == each["B"].shape[1]
    }


def scale_of(configuration: Mapping[str, Any], module: str, rank: int) -> float:
    """What `B @ A` is multiplied with: alpha over the rank, or over its root (rsLoRA, https://arxiv.org/abs/2312.03732)."""
    alpha = float(configuration.get("lora_alpha") or rank)
    for pattern, value in (configuration.get("alpha_pattern") or {}).items():
        if module == pattern or module.endswith(f".{pattern}"):
            alpha = float(value)
    return alpha / (math.sqrt(rank) if configuration.get("use_rslora") else rank)


def _sums(before: Tensor, after: Tensor, a: Tensor, b: Tensor, scale: float) -> tuple[float, float, float]:
    """Squares of (what the adapter leaves unexplained, the adapter's part, the change), some rows at a time."""
    rows, columns = before.shape
    right, left_side = a.values().reshape(a.shape), b.values().reshape(b.shape)
    step = max(1, PIECE // columns)
    sums = np.zeros(3)
    for first in range(0, rows, step):
        last = min(first + step, rows)
        part = scale * (left_side[first:last] @ right)
        change = (
            after.values(first * columns, last * columns) - before.values(first * columns, last * columns)
        ).reshape(part.shape)
        sums += [float(np.sum(np.square(each))) for each in (change - part, part, change)]
    unexplained, added, changed = map(float, sums)
    return unexplained, added, changed
