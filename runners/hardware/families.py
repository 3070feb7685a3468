"""How each family of transformers models is built, as far as its parameters and what it keeps in memory depend on it.

Read from the modelling code of transformers 5.23, https://github.com/huggingface/transformers/tree/main/src/transformers/models,
and compared with it on the meta device (tests/runners/test_hardware_shape.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

QkNorm = Literal["none", "head", "whole"]


@dataclass(frozen=True, slots=True)
class Family:
    """What a model type is when its configuration does not say otherwise."""

    gated: bool = True
    """The feed-forward part has a gate beside its first projection, as SwiGLU has."""
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    head_bias: bool = False
    norms: int = 2
    """Norms over the hidden size in a layer."""
    norm_bias: bool = False
    final_norm: bool = True
    qk_norm: QkNorm = "none"
    """Norms of queries and keys: one for a head's size, or one over all heads."""
    tied: bool = False
    """The output layer is the embedding."""
    head_dim: int | None = None
    """When the configuration has none; None: hidden size over heads."""
    positions: int = 0
    """1: learned positions. Further rows that its table has beyond the longest sequence are `position_offset`."""
    position_offset: int = 0
    fused_qkv: str = ""
    """Name of the one layer that makes queries, keys and values; empty: q_proj, k_proj, v_proj."""
    fused_gate: bool = False
    names: tuple[str, ...] = ("o_proj", "gate_proj", "up_proj", "down_proj")
    """Of the attention's output layer and of the feed-forward layers, in order."""
    lora: tuple[str, ...] = ()
    """Layers that PEFT adapts when the recipe names none; empty: PEFT wants them named."""
    dropout: bool = False
    """What a layer adds goes through dropout unless the configuration says otherwise."""
    attention_dropout: bool = False
    """The same of attention scores."""
    shared_expert: bool = False
    activation: str = "silu"
    """Of the feed-forward part."""
    wide_norms: bool = False
    """Norms scale in float32 before they go back to the stream's width."""
    answer_copied: bool = False
    """Queries are laid out so that the attention's answer has to be copied for the matrix after it."""
    parallel: bool = False
    """Attention and the feed-forward part read the same input."""


_CLASSIC = Family(gated=False, qkv_bias=True, output_bias=True, mlp_bias=True, norm_bias=True)
_GEMMA = Family(tied=True, head_dim=256, wide_norms=True, lora=("q_proj", "v_proj"))
_QV = ("q_proj", "v_proj")

FAMILIES: dict[str, Family] = {
    "llama": Family(lora=_QV),
    "mistral": Family(lora=_QV),
    "qwen2": Family(qkv_bias=True, lora=_QV),
    "qwen3": Family(qk_norm="head", head_dim=128, lora=_QV),
    "smollm3": Family(tied=True),
    "granite": Family(),
    "gemma": _GEMMA,
    "gemma2": Family(tied=True, head_dim=256, norms=4, wide_norms=True, lora=_QV),
    "gemma3_text": Family(tied=True, head_dim=256, norms=4, wide_norms=True, qk_norm="head", lora=_QV),
    "olmo2": Family(qk_norm="whole", wide_norms=True),
    "stablelm": Family(norm_bias=True, answer_copied=True, lora=_QV),
    "phi3": Family(
        fused_qkv="qkv_proj", fused_gate=True, answer_copied=True, names=("o_proj", "", "gate_up_proj", "down_proj"),
    ),
    "phi": replace(
        _CLASSIC, activation="gelu_new", head_bias=True, norms=1, answer_copied=True, parallel=True,
        names=("dense", "", "fc1", "fc2"), lora=("q_proj", "v_proj", "fc1", "fc2"),
    ),
    "starcoder2": replace(
        _CLASSIC, activation="gelu_pytorch_tanh", tied=True,
        names=("o_proj", "", "c_fc", "c_proj"),
    ),
    "gpt2": replace(
        _CLASSIC, activation="gelu_new", tied=True, positions=1, fused_qkv="c_attn", dropout=True,
        attention_dropout=True, names=("c_proj", "", "c_fc", "c_proj"), lora=("c_attn",),
    ),
    "gpt_neox": replace(
        _CLASSIC, activation="gelu", fused_qkv="query_key_value", answer_copied=True, parallel=True,
        names=("dense", "", "dense_h_to_4h", "dense_4h_to_h"), lora=("query_key_value",),
    ),
    "opt": replace(
        _CLASSIC, activation="relu", tied=True, positions=1, position_offset=2, dropout=True, answer_copied=True,
        names=("out_proj", "", "fc1", "fc2"), lora=_QV,
    ),
    "mixtral": Family(lora=_QV),
    "qwen2_moe": Family(qkv_bias=True, shared_expert=True),
    "qwen3_moe": Family(qk_norm="head"),
}  # fmt: skip
"""model_type -> how it is built."""

UNKNOWN = Family(lora=_QV)
"""A model type that is not listed is taken for what most are, and said to be a guess."""
