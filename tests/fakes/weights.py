"""Small models as files: safetensors written here, so that what reads them is not judged by itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, Any]
"""Name -> array."""
HIDDEN, WORDS, LAYERS = 24, 40, 3


def random_model(seed: int, scale: float = 0.1) -> Arrays:
    """A language model's tensors: matrices drawn from a seed, norms of ones as in every model."""
    rng = np.random.default_rng(seed)
    found: Arrays = {"model.embed_tokens.weight": rng.normal(0, scale, (WORDS, HIDDEN))}
    for layer in range(LAYERS):
        place = f"model.layers.{layer}"
        for name in ("q_proj", "v_proj", "o_proj"):
            found[f"{place}.self_attn.{name}.weight"] = rng.normal(0, scale, (HIDDEN, HIDDEN))
        found[f"{place}.mlp.up_proj.weight"] = rng.normal(0, scale, (2 * HIDDEN, HIDDEN))
        found[f"{place}.input_layernorm.weight"] = np.ones(HIDDEN)
    found["model.norm.weight"] = np.ones(HIDDEN)
    return {name: array.astype(np.float32) for name, array in found.items()}


def trained(weights: Arrays, seed: int, amount: float = 0.1) -> Arrays:
    """As after a training: every tensor moved by `amount` of its size, in a direction of the seed's own."""
    rng = np.random.default_rng(seed)
    moved = {}
    for name, array in weights.items():
        step = rng.normal(0, 1, array.shape)
        size = np.linalg.norm(array) / np.linalg.norm(step)
        moved[name] = (array + amount * size * step).astype(np.float32)
    return moved


def write_weights(file: Path, weights: Mapping[str, Any], dtype: str = "F32") -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    content, place = b"", 0
    for name, array in weights.items():
        data = encoded(np.asarray(array), dtype)
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [place, place + len(data)]}
        content, place = content + data, place + len(data)
    head = json.dumps(header).encode()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(len(head).to_bytes(8, "little") + head + content)


def encoded(array: Any, dtype: str) -> bytes:
    if dtype == "BF16":
        bits = array.astype(np.float32).view(np.uint32).astype(np.uint64)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return bytes(rounded.astype("<u2").tobytes())
    return bytes(array.astype({"F32": "<f4", "F16": "<f2", "F64": "<f8", "I64": "<i8"}[dtype]).tobytes())


TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
CONFIG = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "hidden_size": HIDDEN, "vocab_size": WORDS,
          "num_hidden_layers": LAYERS, "num_attention_heads": 2, "tie_word_embeddings": True}  # fmt: skip
TOKENIZER = {
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []},
    "added_tokens": [{"id": 2, "content": "</s>"}],
}


def write_model(
    folder: Path, weights: Mapping[str, Any], *, dtype: str = "F32", files: Mapping[str, Any] | None = None,
    template: str | None = TEMPLATE,
) -> Path:  # fmt: skip
    """A whole model; `files` are added, or replaced, as JSON or as text."""
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(folder / "model.safetensors", weights, dtype)
    described: dict[str, Any] = {
        "config.json": CONFIG,
        "generation_config.json": {"eos_token_id": 2},
        "tokenizer.json": TOKENIZER,
        "tokenizer_config.json": {"eos_token": "</s>"},
        "README.md": "---\nlicense: apache-2.0\n---\n# A model\n",
    }
    if template is not None:
        described["chat_template.jinja"] = template
    for name, value in (described | dict(files or {})).items():
        (folder / name).write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return folder


def write_adapter(folder: Path, modules: Mapping[str, tuple[Any, Any]], *, alpha: float, **configuration: Any) -> Path:
    """A LoRA adapter as PEFT saves it: `modules` is name -> (A, B)."""
    rank = next(iter(modules.values()))[0].shape[0]
    weights = {}
    for module, (a, b) in modules.items():
        weights[f"base_model.model.{module}.lora_A.weight"] = a
        weights[f"base_model.model.{module}.lora_B.weight"] = b
    write_weights(folder / "adapter_model.safetensors", weights)
    about = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha} | configuration
    (folder / "adapter_config.json").write_text(json.dumps(about))
    return folder
