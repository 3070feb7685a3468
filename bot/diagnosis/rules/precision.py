"""Rules about number formats and attention: what a device cannot compute, and rows that see their neighbours."""

from __future__ import annotations

from typing import Any

from bot.diagnosis.observations import Observations
from bot.diagnosis.readings import finite
from bot.diagnosis.rules.ends import crashed_by
from bot.diagnosis.rules.finding import Answer, Basis, Rule, RuledOut, finding, seen
from bot.domain.diagnosis import Severity, Symptom

# NVIDIA's Ampere; earlier ones have no bfloat16 units (CUDA C++ programming guide, arithmetic throughput).
AMPERE = 8.0
_HALF = {"float16", "fp16", "half", "torch.float16"}
_VARIABLE_LENGTH = ("flash", "flex")


def dtype(observations: Observations) -> Answer:
    """Number formats that contradict each other or the device."""
    if crash := crashed_by(observations, Symptom.DTYPE):
        return _dtype_crash(observations, crash.exception)
    precision, recipe = observations.part("precision"), observations.recipe
    capability = precision.get("device_capability")
    ability = _capability(capability)
    bf16 = precision.get("bf16") is True or recipe.get("bf16") is True
    fp16 = precision.get("fp16") is True or recipe.get("fp16") is True
    form = str(precision.get("dtype") or recipe.get("dtype") or "")
    suggested: Any
    if bf16 and fp16:
        key, suggested, why = "fp16", False, "bf16 and fp16 exclude each other"
    elif bf16 and ability is not None and ability < AMPERE:
        key, suggested, why = "bf16", False, f"compute capability {capability} has no bfloat16 units (8.0 and above do)"
    elif fp16 and form in _HALF:
        key, suggested = "dtype", "float32"
        why = "fp16 mixed precision keeps its weights in float32, and these are float16: gradients cannot be unscaled"
    else:
        return (
            RuledOut(Symptom.DTYPE, f"{form or 'the weights'} on this device is computed as asked")
            if precision
            else None
        )
    return finding(
        observations,
        Symptom.DTYPE,
        Basis.DATA,
        severity=Severity.FATAL if key != "bf16" else Severity.HARMFUL,
        confidence=0.9,
        evidence=[
            seen("bf16", None, str(bf16).lower()),
            seen("fp16", None, str(fp16).lower()),
            seen("dtype", None, form),
            seen("device_capability", None, str(capability)),
        ],
        cause=f"The recipe's number formats (1 of {key}, dtype, bf16, fp16) do not go together here: {why}.",
        key=key,
        suggested=suggested,
        runner_up="a driver that reports another device than the job gets",
        refuted_by="ten steps in this format on that device with finite losses",
    )


def _capability(value: object) -> float | None:
    if isinstance(value, (list, tuple)) and value:
        value = ".".join(str(part) for part in value[:2])
    return finite(value) if value is not None else None


def _dtype_crash(observations: Observations, words: str) -> Answer:
    recipe = observations.recipe
    suggested: Any
    if "unscale" in words:
        key, suggested = "dtype", "float32"
        why = "fp16 mixed precision needs the trained weights in float32"
    elif "bf16" in words.lower() or "bfloat16" in words.lower():
        key, suggested = "bf16", False
        why = "this device does not compute bfloat16"
    elif "Half" in words and recipe.get("fp16") is not True:
        key, suggested = "dtype", "float32"
        why = "this device does not compute float16"
    else:
        key, suggested = observations.first_key("dtype", "bf16", "fp16"), None
        why = "two parts of the model are in different formats"
    return finding(
        observations,
        Symptom.DTYPE,
        Basis.CRASH,
        severity=Severity.FATAL,
        confidence=0.93,
        evidence=[seen("log", observations.last_step or None, words), seen(key, None, str(recipe.get(key)))],
        cause=f"{why[0].upper()}{why[1:]}; it stopped after {observations.last_step} steps with: {words}.",
        key=key,
        suggested=suggested,
        runner_up="deps: a kernel that was built for another format",
        refuted_by="the same failure with everything in float32",
    )


def packing_leak(observations: Observations) -> Answer:
    """Packed rows that attend to each other, because the attention used does not keep them apart."""
    attention = observations.part("attention")
    packed = observations.audit.get("packing") is True or observations.recipe.get("packing") is True
    if not packed or observations.method == "pretrain":
        return None  # texts laid end to end are how language models are pretrained (GPT-3, arXiv 2005.14165, B)
    used = str(attention.get("implementation") or observations.recipe.get("attn_implementation") or "sdpa")
    isolated = attention.get("packing_is_isolated")
    measured = isinstance(isolated, bool)
    if not measured:
        # TRL's packing strategies bfd and bfd_split need position ids that only variable-length kernels honour.
        isolated = any(mark in used for mark in _VARIABLE_LENGTH) or (
            not attention and "attn_implementation" not in observations.recipe
        )
    if isolated:
        return RuledOut(Symptom.PACKING_LEAK, f"packed rows are kept apart by {used} attention")
    strategy = str(observations.recipe.get("packing_strategy", "bfd"))
    lengths = observations.audit.get("token_lengths")
    lengths = lengths if isinstance(lengths, dict) else {}
    return finding(
        observations,
        Symptom.PACKING_LEAK,
        Basis.DATA,
        severity=Severity.HARMFUL,
        confidence=0.93 if measured else 0.65,
        evidence=[
            seen("packing", None, "true"),
            seen("packing_is_isolated", None, str(bool(isolated)).lower()),
            seen("attn_implementation", None, used),
            seen("packing_strategy", None, strategy),
            *(seen(f"token_lengths.{name}", None, lengths[name]) for name in ("p95", "max") if name in lengths),
        ],
        cause=f"Rows are packed ({strategy}) and {used} attention lets each see those before it in its block"
        f"{', as measured on 2 rows' if measured else ''}: the model learns from neighbours that no prompt will have.",
        key="packing",
        suggested=False,
        harm=0.5,
        runner_up="attn_implementation: flash_attention_2 or later keeps packed rows apart",
        refuted_by="the same logits for a packed row, whatever stands before it",
    )


RULES = (
    Rule(
        Symptom.DTYPE, dtype, "peft's guide: unscale FP16 gradients; CUDA guide: bfloat16 from 8.0 on", preflight=True
    ),
    Rule(Symptom.PACKING_LEAK, packing_leak, "TRL on padding-free packing; Axolotl on sample packing", preflight=True),
)
