"""Reads the weights of a model's folder: safetensors alone, through memory maps, a bounded piece at a time.

The format is 8 bytes of length, a JSON header, and the tensors' bytes one after the other
(https://huggingface.co/docs/safetensors/index#format). It is read here rather than through its own library because that
one has no numpy types for bfloat16 and float8, and loads a tensor whole; and what a job wrote is not trusted: every
offset is held against the file before anything is read.

Not covered: weights packed into integers by quantisation. They are listed and not compared.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bot.errors import UserError

INDEX = "model.safetensors.index.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
PIECE = 1 << 20
"""Values that are held at once, of each of two models: 4 MiB as float32."""
_LARGEST_HEADER = 100_000_000
"""Bytes; what the format's own library reads at most."""
_MOST_FILES = 1000
ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
FLOATS = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Tensor:
    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    """Of its bytes in the file."""

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def is_matrix(self) -> bool:
        """Whether its direction tells models apart: vectors are mostly ones and zeros in every model."""
        return len(self.shape) >= 2 and min(self.shape[:2]) > 1

    def values(self, start: int = 0, stop: int | None = None) -> Floats:
        """Values `start` to `stop`, in the order of memory, as float32."""
        stop = self.size if stop is None else min(stop, self.size)
        width = ITEM_BYTES[self.dtype]
        raw = np.memmap(self.file, np.uint8, "r", self.start + start * width, ((stop - start) * width,))
        return as_float32(raw, self.dtype)

    def pieces(self, stop: int | None = None) -> Iterator[tuple[int, Floats]]:
        """(place, values) of the first `stop` values, `PIECE` at a time."""
        end = self.size if stop is None else stop
        for start in range(0, end, PIECE):
            yield start, self.values(start, min(start + PIECE, end))


def weights_in(folder: Path) -> dict[str, Tensor]:
    """Name -> tensor of a model's folder, in the order of names.

    Raises: UserError when there are no whole safetensors weights.
    """
    found: dict[str, Tensor] = {}
    for file in weight_files(folder):
        for tensor in tensors_of(file):
            found[tensor.name] = tensor
    if not found:
        raise UserError(f"there are no tensors in the safetensors files of {folder.name}")
    return dict(sorted(found.items()))


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers would load. Raises: UserError."""
    index = folder / INDEX
    if (folder / "model.safetensors").is_file():
        names = ["model.safetensors"]
    elif index.is_file():
        names = shards_of(index.read_bytes())
    else:
        names = [path.name for path in sorted(folder.glob("*.safetensors")) if path.name != ADAPTER_WEIGHTS]
    if not names:
        pickles = [path.name for path in sorted(folder.glob("*.bin")) + sorted(folder.glob("*.pt"))]
        instead = f" (there is {pickles[0]}, a pickle, which is never loaded)" if pickles else ""
        raise UserError(f"it was saved without .safetensors files{instead}")
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise UserError(f"its index names {missing[0]}, which is not there")
    return [folder / name for name in names]


def shards_of(index: bytes) -> list[str]:
    """File names of an index. Raises: UserError."""
    try:
        shards = sorted(set(map(str, json.loads(index)["weight_map"].values())))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"its {INDEX} is none") from error
    if len(shards) > _MOST_FILES or any("/" in name or "\\" in name or name.startswith(".") for name in shards):
        raise UserError(f"its {INDEX} names files outside of the model's folder")
    return shards


def tensors_of(file: Path) -> list[Tensor]:
    """What a safetensors file holds. Raises: UserError when it is not a whole one."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(_LARGEST_HEADER, size - 8):
            raise UserError(f"{file.name} is not a whole safetensors file")
        header = stream.read(length)
    return parsed_header(header, file, size)


def parsed_header(header: bytes, file: Path, size: int) -> list[Tensor]:
    """The tensors that a header names. `size` of the file in bytes. Raises: UserError."""
    try:
        named = json.loads(header)
        return [
            _tensor(name, about, file, 8 + len(header), size) for name, about in named.items() if name != "__metadata__"
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{file.name} is not a whole safetensors file") from error


def _tensor(name: str, about: Mapping[str, Any], file: Path, data: int, size: int) -> Tensor:
    shape, dtype = tuple(map(int, about["shape"])), str(about["dtype"])
    start, stop = map(int, about["data_offsets"])
    width = ITEM_BYTES.get(dtype)
    if width is None:
        raise UserError(f"{file.name} holds {name[:80]} as {dtype[:20]}, which is not read here")
    if min(shape, default=0) < 0 or start < 0 or stop - start != math.prod(shape) * width or data + stop > size:
        raise ValueError(f"{name} reaches out of the file")
    return Tensor(name, dtype, shape, file, data + start)


def as_float32(raw: NDArray[np.uint8], dtype: str) -> Floats:
    """Bytes of a tensor as numbers; integers too, which are none of the weights that are compared."""
    match dtype:
        case "BF16":
            # The upper half of a float32.
            return (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        case "F8_E4M3" | "F8_E5M2":
            return _EIGHT_BITS[dtype][raw]
        case "F64":
            with np.errstate(over="ignore"):
                return raw.view(np.float64).astype(np.float32)
        case "F32" | "F16":
            return raw.view({"F32": np.float32, "F16": np.float16}[dtype]).astype(np.float32)
    raise UserError(f"{dtype} is no floating-point type")


def rounded_to(values: Floats, dtype: str) -> Floats:
    """`values` as they are once stored as `dtype`: what a change of precision alone leaves of them."""
    match dtype:
        case "BF16":
            bits = values.view(np.uint32)
            nearest_even = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
            return nearest_even.astype(np.uint32).view(np.float32)
        case "F16":
            with np.errstate(over="ignore"):
                return values.astype(np.float16).astype(np.float32)
    return values


def _eight_bits(exponent_bits: int, mantissa_bits: int, bias: int) -> Floats:
    """The value of each of 256 codes (https://arxiv.org/abs/2209.05433); codes of no number are NaN."""
    table = np.zeros(256, np.float32)
    for code in range(256):
        exponent = (code >> mantissa_bits) & ((1 << exponent_bits) - 1)
        mantissa = (code & ((1 << mantissa_bits) - 1)) / (1 << mantissa_bits)
        value = (1 + mantissa) * 2.0 ** (exponent - bias) if exponent else mantissa * 2.0 ** (1 - bias)
        table[code] = -value if code & 0x80 else value
    if exponent_bits == 4:
        table[[0x7F, 0xFF]] = np.nan
    else:
        table[[0x7C, 0xFC]] = [np.inf, -np.inf]
        table[[0x7D, 0x7E, 0x7F, 0xFD, 0xFE, 0xFF]] = np.nan
    return table


_EIGHT_BITS = {"F8_E4M3": _eight_bits(4, 3, 7), "F8_E5M2": _eight_bits(5, 2, 15)}
