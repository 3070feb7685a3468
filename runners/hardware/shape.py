"""A model's shape, from its config.json alone: layers, widths and parameter counts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bot.errors import UserError
from runners.hardware.families import FAMILIES, UNKNOWN, Family

_OTHER_NAMES = {
    "hidden_size": ("n_embd", "d_model", "dim"),
    "num_hidden_layers": ("n_layer", "num_layers", "n_layers"),
    "num_attention_heads": ("n_head", "n_heads", "num_heads"),
    "intermediate_size": ("n_inner", "ffn_dim", "hidden_dim"),
    "max_position_embeddings": ("n_positions",),
    "hidden_act": ("hidden_activation", "activation_function"),
}
"""Names that older configurations use for the same thing."""


@dataclass(frozen=True, slots=True)
class Linear:
    """One weight matrix of a layer, by the name that LoRA's target modules use."""

    name: str
    inputs: int
    outputs: int
    bias: bool = False
    source: str = ""
    """What it reads; matrices with the same source read the same tensor."""

    @property
    def parameters(self) -> int:
        return self.inputs * self.outputs + (self.outputs if self.bias else 0)

    def is_named(self, targets: tuple[str, ...]) -> bool:
        """True when LoRA's `targets` mean it, as PEFT matches names; `all-linear` means every matrix."""
        ends = any(target == self.name or target.endswith(f".{self.name}") for target in targets)
        return ends or "all-linear" in targets


@dataclass(frozen=True, slots=True)
class Experts:
    """The feed-forward part of a mixture-of-experts layer."""

    count: int
    chosen: int
    """For each token."""
    inner: int
    shared_inner: int = 0
    """Width of the expert that every token goes through; 0: there is none."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One kind of layer, and how many there are of it."""

    count: int
    linears: tuple[Linear, ...]
    inner: int
    """Width of the dense feed-forward part; 0 where experts take its place."""
    experts: Experts | None = None
    window: int | None = None
    """Tokens that attention looks back at; None: all."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What memory and time depend on."""

    model_type: str
    family: Family
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    positions: int
    tied: bool
    layers: tuple[Layer, ...]
    softcapped: bool = False
    """Attention scores are squashed, which fused attention kernels refuse."""
    dropout: bool = False
    """What a layer adds goes through dropout."""
    attention_dropout: bool = False
    activation: str = "silu"
    """Of the feed-forward part."""
    measured: int | None = None
    """Parameters as the weight files' headers have them, where they are known."""
    exact: bool = True
    """False: the model type is not among those whose parameters are counted, and this is a guess."""

    @property
    def depth(self) -> int:
        return sum(layer.count for layer in self.layers)

    @property
    def norm_width(self) -> int:
        return self.hidden * (2 if self.family.norm_bias else 1)

    @property
    def embedding_parameters(self) -> int:
        return (self.vocabulary + self.positions) * self.hidden

    @property
    def head_parameters(self) -> int:
        """Of the output layer beyond the embedding."""
        bias = self.vocabulary if self.family.head_bias else 0
        return bias if self.tied else self.vocabulary * self.hidden + bias

    @property
    def linear_parameters(self) -> int:
        """In the matrices that quantisation and `all-linear` reach: experts are no modules of their own."""
        return sum(layer.count * sum(linear.parameters for linear in layer.linears) for layer in self.layers)

    @property
    def counted(self) -> int:
        """All parameters, counted from the configuration."""
        total = self.embedding_parameters + self.head_parameters + self.linear_parameters
        total += self.norm_width if self.family.final_norm else 0
        for layer in self.layers:
            total += layer.count * (self.family.norms * self.norm_width + self._query_key_norms)
            total += layer.count * self.expert_parameters(layer)
        return total

    @property
    def parameters(self) -> int:
        return self.measured if self.measured is not None and not self.exact else self.counted

    @property
    def active_parameters(self) -> int:
        """What one token is multiplied with: all but the embedding's rows and the experts that it is not sent to."""
        idle = self.embedding_parameters if not self.tied else self.positions * self.hidden
        for layer in self.layers:
            if layer.experts is not None:
                experts = layer.experts
                idle += layer.count * 3 * self.hidden * experts.inner * (experts.count - experts.chosen)
        return self.parameters - idle

    @property
    def _query_key_norms(self) -> int:
        match self.family.qk_norm:
            case "none":
                return 0
            case "head":
                return 2 * self.head_dim
            case "whole":
                return (self.heads + self.kv_heads) * self.head_dim

    def expert_parameters(self, layer: Layer) -> int:
        """Of one such layer: matrices, the router, and what lets a shared expert through."""
        if layer.experts is None:
            return 0
        routed = layer.experts.count * self.hidden * (3 * layer.experts.inner + 1)
        return routed + (self.hidden if layer.experts.shared_inner else 0)

    def adapted(self, targets: tuple[str, ...]) -> Iterator[tuple[Linear, int]]:
        """The matrices that LoRA adapts and how many layers have each; PEFT's own choice where none are named."""
        for layer in self.layers:
            for linear in layer.linears:
                if linear.is_named(targets or self.family.lora):
                    yield linear, layer.count


def shape_of(config: Mapping[str, Any], *, measured: int | None = None) -> ModelShape:
    """The shape that a config.json describes. `measured` is the weight files' parameter count, where it is known.

    Raises: UserError when the configuration is not one of a causal language model.
    """
    values = dict(config)
    inner_config = values.get("text_config")
    nested = isinstance(inner_config, Mapping)
    if isinstance(inner_config, Mapping):
        values = dict(inner_config) | {"tie_word_embeddings": config.get("tie_word_embeddings", True)}
    model_type = str(values.get("model_type", config.get("model_type", "unknown")))
    family = FAMILIES.get(model_type, UNKNOWN)
    hidden, depth, heads = (
        _number(values, name) for name in ("hidden_size", "num_hidden_layers", "num_attention_heads")
    )
    vocabulary = _number(values, "vocab_size")
    family = _as_configured(family, values)
    head_dim = int(values.get("head_dim") or family.head_dim or hidden // heads)
    kv_heads = (
        heads
        if family.fused_qkv in ("c_attn", "query_key_value")
        else int(_value(values, "num_key_value_heads") or heads)
    )
    shape = ModelShape(
        model_type=model_type, family=family, hidden=hidden, heads=heads, kv_heads=kv_heads, head_dim=head_dim,
        vocabulary=vocabulary, tied=bool(values.get("tie_word_embeddings", family.tied)), layers=(),
        positions=_number(values, "max_position_embeddings") + family.position_offset if family.positions else 0,
        softcapped=values.get("attn_logit_softcapping") is not None,
        dropout=_drops(values, ("resid_pdrop", "dropout"), otherwise=family.dropout),
        attention_dropout=_drops(values, ("attn_pdrop", "attention_dropout"), otherwise=family.attention_dropout),
        activation=str(_value(values, "hidden_act") or family.activation),
        measured=measured, exact=model_type in FAMILIES and not nested,
    )  # fmt: skip
    return replace(shape, layers=tuple(_layers(shape, values, depth)))


def shape_in(folder: Path) -> ModelShape:
    """The shape of the model that lies in `folder`, with the count of its weight files.

    Raises: UserError when config.json is missing or describes no causal language model.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} has no config.json that can be read, so what it needs cannot be told") from error
    if not isinstance(config, dict):
        raise UserError(f"{folder}/config.json is not a JSON object")
    return shape_of(config, measured=_weights_in(folder))


def _weights_in(folder: Path) -> int | None:
    """Parameters in the safetensors files, read from their headers alone (https://github.com/huggingface/safetensors#format)."""
    total = 0
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if size > 100_000_000:  # the format's own bound
                return None
            try:
                header = json.loads(file.read(size))
            except ValueError:
                return None
        for name, tensor in header.items():
            if name != "__metadata__":
                count = 1
                for dimension in tensor["shape"]:
                    count *= dimension
                total += count
    return total or None


def _layers(shape: ModelShape, values: Mapping[str, Any], depth: int) -> Iterator[Layer]:
    """The kinds of layers, each with its number, told apart by their experts and by their attention's window."""
    kinds: dict[tuple[bool, int | None], int] = {}
    for index in range(depth):
        kind = _has_experts(values, index), _window(values, index)
        kinds[kind] = kinds.get(kind, 0) + 1
    attention = tuple(_attention(shape))
    for (sparse, window), count in kinds.items():
        if sparse:
            experts = _experts(shape.family, values)
            shared = tuple(_gated(shape.hidden, experts.shared_inner)) if experts.shared_inner else ()
            yield Layer(count, attention + shared, 0, experts, window)
        else:
            inner = int(_value(values, "intermediate_size") or 4 * shape.hidden)
            yield Layer(count, attention + tuple(_feed_forward(shape, inner)), inner, None, window)


def _attention(shape: ModelShape) -> Iterator[Linear]:
    family, hidden = shape.family, shape.hidden
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    if family.fused_qkv:
        yield Linear(family.fused_qkv, hidden, queries + 2 * keys, family.qkv_bias, "layer")
    else:
        yield Linear("q_proj", hidden, queries, family.qkv_bias, "layer")
        yield Linear("k_proj", hidden, keys, family.qkv_bias, "layer")
        yield Linear("v_proj", hidden, keys, family.qkv_bias, "layer")
    yield Linear(family.names[0], queries, hidden, family.output_bias, "attention")


def _feed_forward(shape: ModelShape, inner: int) -> Iterator[Linear]:
    family, hidden = shape.family, shape.hidden
    _, gate, first, second = family.names
    if family.gated and not family.fused_gate:
        yield Linear(gate, hidden, inner, family.mlp_bias, "middle")
    yield Linear(first, hidden, inner * (2 if family.fused_gate else 1), family.mlp_bias, "middle")
    yield Linear(second, inner, hidden, family.mlp_bias, "inner")


def _gated(hidden: int, inner: int) -> Iterator[Linear]:
    yield Linear("gate_proj", hidden, inner, source="middle")
    yield Linear("up_proj", hidden, inner, source="middle")
    yield Linear("down_proj", inner, hidden, source="inner")


def _experts(family: Family, values: Mapping[str, Any]) -> Experts:
    inner = values.get("moe_intermediate_size") or _value(values, "intermediate_size")
    return Experts(
        int(values.get("num_experts") or values.get("num_local_experts") or 1),
        int(values.get("num_experts_per_tok") or 2),
        int(inner or 0),
        int(values.get("shared_expert_intermediate_size") or 0) if family.shared_expert else 0,
    )


def _has_experts(values: Mapping[str, Any], index: int) -> bool:
    if not (values.get("num_experts") or values.get("num_local_experts")):
        return False
    step = int(values.get("decoder_sparse_step") or 1)
    return index not in (values.get("mlp_only_layers") or ()) and (index + 1) % step == 0


def _window(values: Mapping[str, Any], index: int) -> int | None:
    kinds = values.get("layer_types")
    window = values.get("sliding_window")
    if not window or values.get("use_sliding_window") is False:
        return None
    if isinstance(kinds, list) and index < len(kinds):
        return int(window) if kinds[index] == "sliding_attention" else None
    return int(window) if values.get("model_type") == "mistral" else None


def _drops(values: Mapping[str, Any], keys: tuple[str, ...], *, otherwise: bool) -> bool:
    rates = [values[key] for key in keys if values.get(key) is not None]
    return any(float(rate) > 0 for rate in rates) if rates else otherwise


def _as_configured(family: Family, values: Mapping[str, Any]) -> Family:
    """The family with what the configuration says itself."""
    changes: dict[str, Any] = {}
    if values.get("attention_bias") is not None:
        changes |= {"qkv_bias": bool(values["attention_bias"]), "output_bias": bool(values["attention_bias"])}
    if values.get("mlp_bias") is not None:
        changes["mlp_bias"] = bool(values["mlp_bias"])
    if values.get("use_bias") is not None:  # starcoder2
        changes |= dict.fromkeys(("qkv_bias", "output_bias", "mlp_bias"), bool(values["use_bias"]))
    if values.get("use_qkv_bias") is not None:  # stablelm
        changes["qkv_bias"] = bool(values["use_qkv_bias"])
    if values.get("use_parallel_residual") is True and values.get("model_type") == "stablelm":
        changes["norms"] = 1
    return replace(family, **changes)


def _value(values: Mapping[str, Any], name: str) -> Any:
    for each in (name, *_OTHER_NAMES.get(name, ())):
        if values.get(each) is not None:
            return values[each]
    return None


def _number(values: Mapping[str, Any], name: str) -> int:
    value = _value(values, name)
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise UserError(
            f"the model's config.json has no {name}, so it is no causal language model that can be measured"
        )
    return value
