"""Edits of a model's folder that a person or a broken download could have made; no torch is needed for any."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

Json = dict[str, Any]
WEIGHTS = "model.safetensors"
TEMPLATE = "chat_template.jinja"


def damage_weight(folder: Path) -> None:
    """One weight of the second layer is not a number."""
    header, data = _read(folder / WEIGHTS)
    entry = header["model.layers.1.mlp.down_proj.weight"]
    first = entry["data_offsets"][0]
    data[first + 400 : first + 404] = struct.pack("<f", float("nan"))
    _write(folder / WEIGHTS, header, data)


def with_token(text: str, *, resized: bool) -> Callable[[Path], None]:
    """A token more in the tokenizer; `resized`: and an empty row for it in the embedding."""

    def edit(folder: Path) -> None:
        tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        configuration = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        number = configuration["vocab_size"]
        plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
        tokenizer["added_tokens"].append({"id": number, "content": text, **plain})
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
        if not resized:
            return
        configuration["vocab_size"] = number + 1
        (folder / "config.json").write_text(json.dumps(configuration, indent=1), encoding="utf-8")
        header, data = _read(folder / WEIGHTS)
        _append_rows(header, data, "model.embed_tokens.weight", 1)
        _write(folder / WEIGHTS, header, data)

    return edit


def other_vocabulary(share: float, seed: int) -> Callable[[Path], None]:
    """The tokenizer of another model of the same size: some of its letters and signs have each other's numbers."""

    def edit(folder: Path) -> None:
        tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        vocabulary: dict[str, int] = tokenizer["model"]["vocab"]
        rng = random.Random(f"vocabulary/{seed}")
        letters = sorted(key for key in vocabulary if len(key) == 1 and key.isascii() and key.isalnum())
        chosen = rng.sample(letters, max(2, round(share * len(letters))))
        numbers = [vocabulary[key] for key in chosen]
        for key, number in zip(chosen, numbers[1:] + numbers[:1], strict=True):
            vocabulary[key] = number
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")

    return edit


def template_is(text: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        (folder / TEMPLATE).write_text(text, encoding="utf-8")

    return edit


def served_with_bases_template(model: Path, base: Path) -> None:
    """Whoever serves the model takes the tokenizer of the base model."""
    for name in (TEMPLATE, "tokenizer_config.json", "tokenizer.json"):
        (model / name).write_bytes((base / name).read_bytes())


def _read(path: Path) -> tuple[Json, bytearray]:
    raw = path.read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + size]), bytearray(raw[8 + size :])


def _write(path: Path, header: Json, data: bytearray) -> None:
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.unlink()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(data))


def _append_rows(header: Json, data: bytearray, name: str, rows: int) -> None:
    """Rows of zeros at the end of a matrix; the tensors behind it move."""
    entry = header[name]
    count, width = entry["shape"]
    first, end = entry["data_offsets"]
    more = rows * (end - first) // count
    data[end:end] = bytes(more)
    entry["shape"] = [count + rows, width]
    for other in header.values():
        if "data_offsets" in other and other["data_offsets"][0] >= end:
            other["data_offsets"] = [offset + more for offset in other["data_offsets"]]
    entry["data_offsets"] = [first, end + more]
