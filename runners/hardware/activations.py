"""What a forward pass keeps for the backward pass, counted tensor by tensor.

The counting is that of Korthikanti et al. 2022, arXiv:2205.05198 (section 4), done again for today's layers: norms in
float32, rotary positions that keep nothing, gated feed-forward parts, grouped keys and values, attention that keeps no
scores (Dao et al. 2022, arXiv:2205.14135), adapters with dropout, and the copies that automatic mixed precision makes.
tests/runners/test_hardware_activations.py compares it with what autograd really saves.
"""

from __future__ import annotations

from dataclasses import dataclass

from runners.hardware.shape import Layer, ModelShape
from runners.hardware.training import Training


@dataclass(frozen=True, slots=True)
class Widths:
    """Bytes of one number, by where it is."""

    stream: float
    """In what goes from layer to layer."""
    product: float
    """In what matrices are multiplied with."""
    mask: float
    """In a dropout's mask: a byte on a GPU, a whole number of the stream's on processor cores."""
    casts: bool
    """Each product casts its input, and the cast is kept."""


def widths_of(training: Training, *, gpu: bool) -> Widths:
    """With 16-bit weights everything is 16 bits wide but the norms; over float32 weights only products are."""
    product = 2.0 if training.mixed else training.weight_bytes
    stream = training.weight_bytes
    return Widths(stream, product, 1.0 if gpu else stream, training.mixed and training.weight_bytes > 2)


def kept_bytes(shape: ModelShape, training: Training, *, gpu: bool) -> float:
    """Bytes that stand when the forward pass is over, without the output layer."""
    tokens = training.rows * training.length
    widths = widths_of(training, gpu=gpu)
    layers = [(layer.count, layer_bytes(shape, layer, training, widths)) for layer in shape.layers]
    outside = tokens * (2 * shape.hidden * max(widths.stream, 4.0) + shape.hidden * widths.stream)
    if training.checkpointing:
        # Every layer's input stays, and one layer at a time is computed again (Chen et al. 2016, arXiv:1604.06174).
        inputs = shape.depth * tokens * shape.hidden * widths.stream
        return inputs + max(size for _, size in layers) + outside
    return sum(count * size for count, size in layers) + outside


def largest_layer_bytes(shape: ModelShape, training: Training, *, gpu: bool) -> float:
    """Of the layer that keeps most."""
    widths = widths_of(training, gpu=gpu)
    return max(layer_bytes(shape, layer, training, widths) for layer in shape.layers)


def layer_bytes(shape: ModelShape, layer: Layer, training: Training, widths: Widths) -> float:
    """Bytes that one layer keeps for all tokens of a batch."""
    per_token = _norms(shape, training, widths) + _attention(shape, layer, training, widths)
    per_token += _feed_forward(shape, layer, training, widths) + _adapters(shape, layer, training, widths)
    return training.rows * training.length * per_token + _casts(shape, layer, widths)


def _norms(shape: ModelShape, training: Training, widths: Widths) -> float:
    """A root-mean-square norm keeps what came in, in float32, and what it scales; a layer norm only what came in."""
    family, full = shape.family, training.lora is None
    exact = 4.0
    if family.norm_bias:
        read = 1 if family.parallel else family.norms  # both read the same
        return read * shape.hidden * widths.stream + family.norms * 2 * exact
    stream, product = (exact, exact) if family.wide_norms else (widths.stream, widths.product)
    kept = family.norms * (shape.hidden * (exact + (stream if full else 0.0)) + exact)
    if family.qk_norm != "none":
        heads = shape.heads + shape.kv_heads
        kept += heads * (shape.head_dim * (exact + (product if full else 0.0)) + exact)
    return kept


def _attention(shape: ModelShape, layer: Layer, training: Training, widths: Widths) -> float:
    family, product, full = shape.family, widths.product, training.lora is None
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    # What the three projections read (each its own cast of it), the queries, keys and values, and the answer.
    reads = (1 if family.fused_qkv else 3) if widths.casts else 1
    kept = reads * shape.hidden * product if full else 0.0
    scored = _scores(shape, training, widths)
    repeated = training.masked or scored > 0
    kept += (queries + 2 * (queries if repeated else keys)) * product
    if family.fused_qkv and not family.positions and (not repeated or keys == queries) and scored == 0:
        kept += (queries + keys) * product  # the values are a part of one tensor with what was turned
    kept += queries * product + shape.heads * 4.0
    if family.answer_copied and full and scored == 0:
        kept += queries * product
    if training.masked and scored == 0:
        kept += training.length * product
    if shape.dropout:
        kept += shape.hidden * widths.mask
    return kept + scored


def _scores(shape: ModelShape, training: Training, widths: Widths) -> float:
    """Bytes of attention scores for each token, where the kernel keeps them."""
    cpu_dropout = shape.attention_dropout and widths.mask != 1.0  # the fused kernel has it on GPUs alone
    if training.attention != "eager" and not cpu_dropout and not (shape.softcapped and training.attention != "flash"):
        return 0.0
    # The softmax in float32, its 16-bit copy, the squashed scores before it, a dropout's mask and result after it.
    kept = 4.0 + (widths.product if widths.product < 4 else 0.0)
    kept += widths.product if shape.softcapped else 0.0
    kept += widths.mask + widths.product if shape.attention_dropout else 0.0
    return shape.heads * training.length * kept


def _feed_forward(shape: ModelShape, layer: Layer, training: Training, widths: Widths) -> float:
    product, full = widths.product, training.lora is None
    reads = (2 if shape.family.gated and not shape.family.fused_gate else 1) if widths.casts else 1
    inner = 4 if full else 3
    if layer.experts is not None:
        experts = layer.experts
        kept = experts.chosen * (inner * experts.inner + (2 if full else 1) * shape.hidden) * product
        kept += (inner * experts.shared_inner + shape.hidden) * product if experts.shared_inner else 0.0
        return kept + shape.hidden * product
    shared_input = shape.family.norms == 1 and not widths.casts
    kept = reads * shape.hidden * product if full and not shared_input else 0.0
    if shape.family.gated:
        kept += inner * layer.inner * product
    else:
        kept += _ungated_copies(shape.activation, full=full) * layer.inner * product
    if shape.dropout:
        kept += shape.hidden * widths.mask
    return kept


def _ungated_copies(activation: str, *, full: bool) -> int:
    """Times that the inner width is kept: what the activation needs, and its result for the second matrix."""
    if activation == "relu":
        return 1  # its result serves both
    # transformers writes this one out, https://github.com/huggingface/transformers/blob/main/src/transformers/activations.py
    needed = 4 if activation == "gelu_new" else 1
    return needed + (1 if full else 0)


def _adapters(shape: ModelShape, layer: Layer, training: Training, widths: Widths) -> float:
    """Each adapter keeps its input after dropout, the dropout's mask, and the narrow product in its middle."""
    lora = training.lora
    if lora is None:
        return 0.0
    targets = lora.targets or shape.family.lora
    kept, inputs = 0.0, set()
    for linear in layer.linears:
        if not linear.is_named(targets):
            continue
        kept += lora.rank * widths.product
        if lora.dropout:
            kept += linear.inputs * (widths.product + widths.mask)
        elif linear.source not in inputs:
            inputs.add(linear.source)
            kept += linear.inputs * widths.product
    return kept


def _casts(shape: ModelShape, layer: Layer, widths: Widths) -> float:
    """Mixed precision keeps a 16-bit copy of every matrix that it multiplies with."""
    if not widths.casts:
        return 0.0
    return 2.0 * (sum(linear.parameters for linear in layer.linears) + shape.expert_parameters(layer))
