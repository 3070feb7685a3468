"""How far a model's weights are from another's, tensor by tensor and in bounded pieces.

What is measured of each pair: the difference's norm beside the base's, and the cosine between the two. The direction of
a model's weights hardly moves in any further training and is unrelated between models pretrained apart (HuRef, Zeng et
al. 2023, https://arxiv.org/abs/2312.04828; Zhu et al. 2025, https://arxiv.org/abs/2502.12292, test independence so).

Not covered: weights whose neurons were put in another order, or rotated, so that they compute the same and look
unrelated; they are named `not this base`, which is the safe side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bot.evaluation.lineage.weights import FLOATS, PIECE, Tensor, rounded_to

_PRECISION = {"F64": 3, "F32": 2, "F16": 1, "BF16": 1, "F8_E4M3": 0, "F8_E5M2": 0}


@dataclass(frozen=True, slots=True)
class TensorDistance:
    """Of one tensor of the base and its counterpart."""

    name: str
    """In the model."""
    compared: int
    """Values; fewer than the base has where the vocabulary grew or shrank."""
    identical: bool
    """But for a change of precision."""
    base_squares: float
    model_squares: float
    difference_squares: float
    dot: float
    is_matrix: bool
    broken: int = 0
    """Values of the model that are not finite."""

    @property
    def relative(self) -> float:
        return math.sqrt(self.difference_squares / self.base_squares) if self.base_squares else math.inf

    @property
    def cosine(self) -> float | None:
        norms = math.sqrt(self.base_squares * self.model_squares)
        return self.dot / norms if norms and math.isfinite(norms) else None


@dataclass(frozen=True, slots=True)
class Counterparts:
    pairs: tuple[tuple[Tensor, Tensor], ...]
    """(of the base, of the model)."""
    added: tuple[str, ...]
    missing: tuple[str, ...]
    matched: float
    """Share of the base's parameters."""


def counterparts(all_of_base: Mapping[str, Tensor], all_of_model: Mapping[str, Tensor]) -> Counterparts:
    """Which tensors of two models belong together: by name, by name below one prefix (`bert.`) where a head was put on
    or taken off, and by shape but for the number of rows. Counters and packed weights are left aside."""
    base, model = _floats(all_of_base), _floats(all_of_model)
    prefix = _prefix(base, model)
    pairs, taken = [], set()
    for name, tensor in base.items():
        for candidate in (name, f"{prefix}{name}", name.removeprefix(prefix) if prefix else name):
            other = model.get(candidate)
            if other is not None and candidate not in taken and _comparable(tensor, other):
                pairs.append((tensor, other))
                taken.add(candidate)
                break
    found = {pair[0].name for pair in pairs}
    total = sum(tensor.size for tensor in base.values())
    matched = sum(min(left.size, right.size) for left, right in pairs)
    return Counterparts(
        tuple(pairs),
        tuple(name for name in model if name not in taken),
        tuple(name for name in base if name not in found),
        matched / total if total else 0.0,
    )


def _floats(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: each for name, each in tensors.items() if each.dtype in FLOATS}


def _prefix(base: Mapping[str, Tensor], model: Mapping[str, Tensor]) -> str:
    """What stands before the names of one side alone; empty where names agree or do not."""
    best, most = "", sum(name in model for name in base)
    firsts = {name.split(".")[0] + "." for name in (*base, *model) if "." in name}
    for prefix in sorted(firsts):
        count = sum(f"{prefix}{name}" in model for name in base)
        count = max(count, sum(name.removeprefix(prefix) in model for name in base if name.startswith(prefix)))
        if count > most:
            best, most = prefix, count
    return best


def _comparable(left: Tensor, right: Tensor) -> bool:
    """Embeddings may have grown by rows; everything else has one shape."""
    if not left.size or not right.size:
        return False
    return left.shape == right.shape or (
        len(left.shape) == len(right.shape) == 2
        and left.shape[1:] == right.shape[1:]
        and min(left.shape[0], right.shape[0]) > 16
    )


def distance(base: Tensor, model: Tensor) -> TensorDistance:
    """Between two tensors, of which at most `PIECE` values each are in memory at once."""
    count = min(base.size, model.size)
    narrower = min((base.dtype, model.dtype), key=lambda dtype: _PRECISION[dtype])
    identical = base.shape == model.shape
    sums, broken = np.zeros(4), 0
    for start in range(0, count, PIECE):
        stop = min(start + PIECE, count)
        left, right = base.values(start, stop), model.values(start, stop)
        identical = identical and bool(
            np.array_equal(rounded_to(left, narrower), rounded_to(right, narrower), equal_nan=True)
        )
        finite = np.isfinite(left) & np.isfinite(right)
        if not finite.all():
            broken += int((~np.isfinite(right)).sum())
            left, right = np.where(finite, left, 0), np.where(finite, right, 0)
        difference = right - left
        sums += [np.dot(left, left), np.dot(right, right), np.dot(difference, difference), np.dot(left, right)]
    squares, others, differences, dot = map(float, sums)
    return TensorDistance(model.name, count, identical, squares, others, differences, dot, base.is_matrix, broken)


@dataclass(frozen=True, slots=True)
class ModelDistance:
    """Over all counterparts."""

    tensors: tuple[TensorDistance, ...]

    @property
    def changed(self) -> int:
        return sum(not each.identical for each in self.tensors)

    @property
    def broken(self) -> int:
        return sum(each.broken for each in self.tensors)

    @property
    def relative(self) -> float:
        base = sum(each.base_squares for each in self.tensors)
        return math.sqrt(sum(each.difference_squares for each in self.tensors) / base) if base else math.inf

    @property
    def cosines(self) -> list[float]:
        """Of the matrices, lowest first."""
        found = [each.cosine for each in self.tensors if each.is_matrix]
        return sorted(cosine for cosine in found if cosine is not None)


def measured(pairs: Counterparts) -> ModelDistance:
    return ModelDistance(tuple(distance(left, right) for left, right in pairs.pairs))
