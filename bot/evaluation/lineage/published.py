"""Fingerprints of published models, and which of them a model is or was made from.

A fingerprint is a few thousand weights: runs of consecutive values from the middles of a few matrices, chosen by the
names and shapes alone, so that whoever has the model picks the same ones. From the Hub they are read by ranges of
bytes, some hundred KB instead of a whole model. Two models are then compared by how far apart they are there, beside
how far the published one is from the base: 0 is the published model itself, 1 is as far from it as the base is.

Not covered: a model whose neurons were put in another order, and what nobody has taken a fingerprint of.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from bot.errors import UserError
from bot.evaluation.lineage.weights import (
    FLOATS,
    ITEM_BYTES,
    Floats,
    Tensor,
    as_float32,
    parsed_header,
    shards_of,
    weights_in,
)

MATRICES, VALUES = 16, 512
"""Matrices that are looked at, and consecutive values of each."""
FORMAT = 1
# Measured on the models of tests/bench/lineage_models.py; see `python -m tests.bench.lineage`.
SAME = 0.25
"""Apart by less than this share of the published model's own distance from the base: it is that model, stored in
another precision at most, or with next to nothing done to it."""
SAME_DIRECTION = 0.85
"""Cosine between the two differences from the base from which on one is said to have been made from the other."""
_NOTHING = 1e-6


@dataclass(frozen=True, slots=True)
class Probe:
    tensor: str
    start: int
    """Place of the first value in the tensor."""
    values: Floats


@dataclass(frozen=True, slots=True)
class Fingerprint:
    name: str
    revision: str
    probes: tuple[Probe, ...]
    files: Mapping[str, str]
    """File of weights -> its SHA-256, where it is known; the Hub has it for every large file."""

    def as_dict(self) -> dict[str, Any]:
        probes = [
            {"tensor": each.tensor, "start": each.start,
             "values": base64.b64encode(each.values.astype("<f4").tobytes()).decode()}
            for each in self.probes
        ]  # fmt: skip
        return {"name": self.name, "revision": self.revision, "files": dict(self.files), "probes": probes}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Fingerprint:
        probes = tuple(
            Probe(str(each["tensor"]), int(each["start"]),
                  np.frombuffer(base64.b64decode(each["values"]), "<f4").astype(np.float32))
            for each in data["probes"]
        )  # fmt: skip
        return cls(str(data["name"]), str(data["revision"]), probes, dict(data.get("files") or {}))


class Likeness(NamedTuple):
    """Of a model to a published one, beside the base."""

    name: str
    revision: str
    apart: float
    """Their distance over the published model's distance from the base."""
    same_direction: float
    """Cosine between their differences from the base."""
    values: int

    @property
    def is_it(self) -> bool:
        return self.apart < SAME

    @property
    def comes_from_it(self) -> bool:
        return not self.is_it and self.same_direction > SAME_DIRECTION and self.apart < 1

    def as_dict(self) -> dict[str, Any]:
        return {"name": self.name, "revision": self.revision, "apart": round(self.apart, 4),
                "same_direction": round(self.same_direction, 4)}  # fmt: skip


class Chosen(NamedTuple):
    """A run of values to read."""

    tensor: Tensor
    start: int
    length: int


def chosen(tensors: Mapping[str, Tensor]) -> list[Chosen]:
    """Where a fingerprint looks: the middles of `MATRICES` matrices, evenly among their names in order."""
    matrices = [tensors[name] for name in sorted(tensors) if tensors[name].is_matrix and tensors[name].dtype in FLOATS]
    if len(matrices) > MATRICES:
        matrices = [matrices[round(i * (len(matrices) - 1) / (MATRICES - 1))] for i in range(MATRICES)]
    return [Chosen(tensor, max(0, tensor.size // 2 - VALUES // 2), min(VALUES, tensor.size)) for tensor in matrices]


def fingerprint_of(folder: Path, name: str, revision: str = "") -> Fingerprint:
    """Of a model on this machine. Raises: UserError."""
    probes = [
        Probe(each.tensor.name, each.start, each.tensor.values(each.start, each.start + each.length))
        for each in chosen(weights_in(folder))
    ]
    return Fingerprint(name, revision, tuple(probes), {})


ReadRanges = Callable[[Sequence[tuple[str, int, int]]], Sequence[bytes]]
"""[(file, start, stop), ...] -> their bytes."""
FIRST_BYTES = 256 * 1024
"""Read of each file at once: its header, of all but the largest models."""


def remote_fingerprint(
    name: str, revision: str, files: Mapping[str, tuple[int, str]], index: bytes | None, read: ReadRanges
) -> Fingerprint:
    """Of a model that lies elsewhere. `files`: name -> (bytes, SHA-256), `index` the one of a divided model.

    Raises: UserError when there are no safetensors weights.
    """
    shards = shards_of(index) if index is not None else [each for each in files if each.endswith(".safetensors")]
    shards = [each for each in shards if each in files and PurePosixPath(each).name == each]
    if not shards:
        raise UserError(f"`{name}` has no weights as .safetensors files")
    tensors: dict[str, Tensor] = {}
    beginnings = read([(each, 0, min(FIRST_BYTES, files[each][0])) for each in shards])
    for each, beginning in zip(shards, beginnings, strict=True):
        length = int.from_bytes(beginning[:8], "little")
        if length + 8 > files[each][0]:
            raise UserError(f"`{each}` of `{name}` is not a whole safetensors file")
        if 8 + length > len(beginning):
            (beginning,) = read([(each, 0, 8 + length)])
        for tensor in parsed_header(beginning[8 : 8 + length], Path(each), files[each][0]):
            tensors[tensor.name] = tensor
    wanted = chosen(tensors)
    contents = read([_range(each) for each in wanted])
    probes = [
        Probe(each.tensor.name, each.start, as_float32(np.frombuffer(content, np.uint8), each.tensor.dtype))
        for each, content in zip(wanted, contents, strict=True)
    ]
    return Fingerprint(name, revision, tuple(probes), {each: files[each][1] for each in shards if files[each][1]})


def _range(each: Chosen) -> tuple[str, int, int]:
    width = ITEM_BYTES[each.tensor.dtype]
    start = each.tensor.start + each.start * width
    return str(each.tensor.file), start, start + each.length * width


def likeness(published: Fingerprint, base: Mapping[str, Tensor], model: Mapping[str, Tensor]) -> Likeness | None:
    """How near the model is to a published one; None where nothing of them can be compared, and where the published one
    is the base itself."""
    theirs, ours, apart = [], [], []
    for probe in published.probes:
        left, right = base.get(probe.tensor), model.get(probe.tensor)
        stop = probe.start + len(probe.values)
        if left is None or right is None or stop > min(left.size, right.size):
            continue
        if left.dtype not in FLOATS or right.dtype not in FLOATS:
            continue
        start, now = left.values(probe.start, stop), right.values(probe.start, stop)
        theirs.append(probe.values - start)
        ours.append(now - start)
        apart.append(now - probe.values)
    if not theirs:
        return None
    their, our, between = (np.concatenate(each).astype(np.float64) for each in (theirs, ours, apart))
    far, moved = float(np.linalg.norm(their)), float(np.linalg.norm(our))
    if not math.isfinite(far) or not math.isfinite(moved) or far < _NOTHING:
        return None
    cosine = float(np.dot(their, our) / (far * moved)) if moved > _NOTHING else 0.0
    return Likeness(published.name, published.revision, float(np.linalg.norm(between)) / far, cosine, len(their))


def is_copy(published: Fingerprint, files: Sequence[Path]) -> bool:
    """Whether the files of weights are the published ones byte for byte: all that can be asked of a model whose weights
    may not be read, since the Hub tells everybody a large file's SHA-256."""
    wanted = set(published.files.values())
    return bool(wanted) and wanted == {sha256_of(file) for file in files}


def sha256_of(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_table(file: Path) -> list[Fingerprint]:
    """Fingerprints of a file that `postdoc fingerprint --add` wrote. Raises: UserError."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        if data["format"] != FORMAT:
            raise UserError(f"{file}: its format is not {FORMAT}; take the fingerprints anew.")
        return [Fingerprint.from_dict(each) for each in data["models"]]
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}. Name a file that `postdoc fingerprint --add` wrote.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} holds no fingerprints. Name a file that `postdoc fingerprint --add` wrote.") from error


def add_to_table(file: Path, fingerprint: Fingerprint) -> int:
    """Put a fingerprint into a file, in place of the same model's at the same revision; how many there are then."""
    models = read_table(file) if file.exists() else []
    kept = [each for each in models if (each.name, each.revision) != (fingerprint.name, fingerprint.revision)]
    write_table(file, [*kept, fingerprint])
    return len(kept) + 1


def write_table(file: Path, models: Sequence[Fingerprint]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(json.dumps({"format": FORMAT, "models": [each.as_dict() for each in models]}) + "\n")
    partial.replace(file)
