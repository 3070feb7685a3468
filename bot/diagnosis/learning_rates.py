"""Which learning rates usually work for a model and method, and the step to take from one that did not."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from bot.diagnosis.readings import finite
from bot.domain.diagnosis import Symptom

# TRL 1.x SFTConfig: https://huggingface.co/docs/trl/sft_trainer#trl.SFTConfig
DEFAULT_LEARNING_RATE = 2e-5

# What holds where a recipe says nothing, by the configuration that the method's script fills: DPOConfig, GRPOConfig,
# RewardConfig and DistillationConfig of TRL 1.x, transformers' TrainingArguments, and SFTConfig for the rest.
DEFAULT_RATES = {"dpo": 1e-6, "grpo": 1e-6, "distill": 1e-6, "reward": 1e-4, "classify": 5e-5, "vision": 5e-5,
                 "speech": 5e-5}  # fmt: skip

# Parameters from which the published bands for language models hold. Below it (and for models whose size nobody tells)
# usable rates reach into the percents: measured on a 0.3 M parameter Qwen3, 3e-3 is best and 1e-2 still trains.
LARGE_MODEL = 4e8
_SIZE = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)\s*([bm])(?![a-z])|[-_](\d+(?:\.\d+)?)([bm])(?![a-z])", re.IGNORECASE)
_TINY = re.compile(r"(?:^|[/_-])tiny[_-]", re.IGNORECASE)
# Models whose names do not say their size: parameters as their cards on the Hub (and the papers they name) count them.
_SIZES: tuple[tuple[re.Pattern[str], float], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), size)
    for pattern, size in (
        (r"whisper-tiny", 3.9e7), (r"whisper-base", 7.4e7), (r"whisper-small", 2.44e8), (r"whisper-medium", 7.69e8),
        (r"whisper-large", 1.55e9),
        (r"gpt2-medium", 3.55e8), (r"gpt2-large", 7.74e8), (r"gpt2-xl", 1.5e9), (r"distilgpt2", 8.2e7),
        (r"(?:^|/)gpt2$", 1.24e8),
        (r"distil\w*bert", 6.6e7), (r"albert", 1.2e7), (r"xlm-roberta-base", 2.78e8), (r"xlm-roberta-large", 5.6e8),
        (r"deberta-v3-base", 1.84e8), (r"deberta-v3-large", 4.35e8),
        (r"bert[\w-]*-large|electra-large", 3.35e8), (r"bert[\w-]*-base|electra-base", 1.1e8),
        (r"mt5-small", 3e8), (r"mt5-base", 5.8e8), (r"mt5-large", 1.2e9),
        (r"t5[\w.-]*-small", 6e7), (r"t5[\w.-]*-base", 2.2e8), (r"t5[\w.-]*-large", 7.7e8),
        (r"bart-base", 1.4e8), (r"bart-large", 4.06e8),
        (r"vit-base|deit-base", 8.6e7), (r"vit-large", 3.04e8), (r"resnet-?50", 2.56e7),
        (r"wav2vec2-base|hubert-base", 9.5e7), (r"wav2vec2-(?:large|xls-r)|hubert-large", 3.17e8),
        (r"tinyllama", 1.1e9), (r"(?:^|/)phi-2", 2.7e9), (r"phi-3-mini|phi-3\.5-mini", 3.8e9),
    )
)  # fmt: skip


FAR = 30.0
"""† Times below the lowest rate that usually moves a model, from which on a rate moves nothing."""


class Band(NamedTuple):
    """Learning rates between which a method usually works."""

    low: float
    high: float
    ceiling: float
    """No remedy raises the rate above this."""


# Full fine-tuning 1e-5 to 5e-5 and LoRA 1e-4 to 3e-4: Axolotl's training_stability guide; a LoRA rate about ten times
# the full one: https://thinkingmachines.ai/blog/lora/. Ceilings are two to three times the upper ends.
_LARGE_FULL = Band(1e-5, 5e-5, 1e-4)
_LARGE_LORA = Band(1e-4, 3e-4, 1e-3)
# Measured on the tiny model (see LARGE_MODEL): 1e-4 is still too slow for a hundred steps, 5e-2 collapses.
_SMALL = Band(1e-4, 1e-2, 1e-2)
# Its adapters (r 8, all linear layers): 1e-4 does not move them in a hundred steps, 5e-3 and 1e-2 train them.
_SMALL_LORA = Band(5e-4, 1.5e-2, 2e-2)
# Other methods than imitation, as (full, LoRA) for models of LARGE_MODEL and above.
# DPO: TRL's default 1e-6, about 1e-5 with LoRA (https://huggingface.co/docs/trl/dpo_trainer); zephyr-7b took 5e-7
# (https://huggingface.co/HuggingFaceH4/zephyr-7b-beta). GRPO: TRL's default 1e-6 (docs/trl/grpo_trainer), LoRA 1e-5
# and above. Reward models: 1e-5, 1e-4 with LoRA (docs/trl/reward_trainer).
_LARGE: dict[str, tuple[Band, Band]] = {
    "dpo": (Band(3e-7, 5e-6, 1e-5), Band(3e-6, 5e-5, 1e-4)),
    "grpo": (Band(5e-7, 5e-6, 1e-5), Band(5e-6, 1e-4, 2e-4)),
    "reward": (Band(3e-6, 3e-5, 1e-4), Band(5e-5, 3e-4, 1e-3)),
    # GPT-3's table 2.1 (arXiv 2005.14165): 6e-4 at 125 M down to 0.6e-4 at 175 B parameters.
    "pretrain": (Band(6e-5, 6e-4, 1e-3), Band(1e-4, 1e-3, 2e-3)),
}
# The same for models between TINY_MODEL and LARGE_MODEL. Classification: BERT's 2e-5 to 5e-5 (arXiv 1810.04805,
# appendix A.3). Images: fine-tuning a pretrained network 1e-5 to 1e-3. Speech: 1e-5 for whisper-small
# (https://huggingface.co/blog/fine-tune-whisper). Pretraining: GPT-2 small's size takes 6e-4, see above. Imitation:
# 6.25e-5 for the first GPT (Radford et al. 2018, section 4.1), 1e-3 for T5 (arXiv 1910.10683, section 3.1.2).
_MIDDLE: dict[str, tuple[Band, Band]] = {
    "sft": (Band(2e-5, 1e-3, 2e-3), Band(1e-4, 3e-3, 1e-2)),
    "classify": (Band(1e-5, 1e-4, 3e-4), Band(1e-4, 1e-3, 2e-3)),
    "vision": (Band(1e-5, 3e-3, 1e-2), Band(1e-4, 1e-2, 1e-2)),
    "speech": (Band(3e-6, 1e-4, 3e-4), Band(1e-4, 1e-3, 2e-3)),
    "pretrain": (Band(1e-4, 1e-3, 3e-3), Band(1e-4, 3e-3, 1e-2)),
}
# The tiny model's bands where they are not those of imitation, measured with its DPO (5e-4 healthy, 1.5e-3 displaces
# within 80 steps) and its GRPO (1e-3 healthy, 8e-3 reaches the reward and loses it again, 5e-2 never gets there).
_SMALL_BY_METHOD: dict[str, Band] = {"dpo": Band(3e-5, 1e-3, 2e-3), "grpo": Band(1e-5, 3e-3, 5e-3)}
TINY_MODEL = 2e7

# On the tiny model 2e-2 still trains after a warm-up, 3e-2 collapses without one and 5e-2 always; larger want less.
IMPLAUSIBLE = 3e-2


@dataclass(frozen=True, slots=True)
class Rate:
    """The learning rate of a recipe beside the band of its model and method."""

    current: float
    band: Band
    size_known: bool
    """False: nothing tells the model's size, and the band is the wide one of small models."""
    floor: float = 0.0
    """A thirtieth of the lowest rate that usually moves any model that this may be: no remedy goes below it.†"""
    tiny: bool = False
    """The model is known to be one of those that the bands of tiny models were measured on."""

    @property
    def implausible(self) -> bool:
        """Higher than anything that is known to train a model of this size by this method."""
        if self.band in (_SMALL, _SMALL_LORA, *_SMALL_BY_METHOD.values()):
            return self.current >= IMPLAUSIBLE
        return self.current >= 10 * self.band.ceiling

    @property
    def far_below(self) -> bool:
        """At most a thirtieth of the lowest rate that usually moves such a model.†"""
        return self.current <= self.band.low / FAR

    @property
    def middle(self) -> float:
        """Of the band, on the logarithm: where a run that learned nothing has been given its chance."""
        return tidy(math.sqrt(self.band.low * self.band.high))

    def leaves_band(self, rate: float) -> bool:
        """Whether going to `rate` is the wrong direction: up from the ceiling, or down from far below the band.

        A third of the lower end is still a rate that careful recipes take.† Where the size is not known, the band of
        small models says nothing about the lower side, and the floor is that of large ones.
        """
        if rate < self.current:
            return rate < self.floor or (self.size_known and self.current <= self.band.low / 3)
        return rate > max(self.current, self.band.ceiling)

    @property
    def below_band(self) -> bool:
        """Lower than what usually moves a model of this size, which is known."""
        return self.size_known and self.current < self.band.low

    def raised(self, factor: float = 10.0) -> float | None:
        """The rate times `factor`, at most the band's ceiling; one below its band comes up to its middle at least. None
        when it is at the ceiling already."""
        if self.current <= 0:
            return self.band.low
        raised = min(self.current * factor, self.band.ceiling)
        if self.below_band:
            raised = max(raised, self.middle)
        return tidy(raised) if raised > self.current * 1.05 else None

    def lowered(self, factor: float = 10.0) -> float:
        """The rate divided by `factor`; one far above its band comes down into the band's upper half: at its very end
        a run may still be lost."""
        if self.size_known and self.current > self.band.high * factor:
            return tidy(math.sqrt(self.middle * self.band.high))
        return tidy(self.current / factor)

    def probes(self, symptom: Symptom) -> tuple[float, ...]:
        """Rates for a range probe, two to a decade, from the present one towards where the symptom points."""
        if symptom is Symptom.DIVERGENCE:
            lower = (self.current / 10 ** (k / 2) for k in range(1, 7))
            return tuple(tidy(rate) for rate in lower if rate >= self.band.low / 30)
        start = math.log10(max(self.current, 1e-7))
        rates = [10 ** (start + k / 2) for k in range(1, 13)]
        return tuple(tidy(rate) for rate in rates if rate <= self.band.ceiling * 1.01) or (self.band.ceiling,)


def default_rate(recipe: Mapping[str, Any], method: str | None = None) -> float:
    """The rate of a recipe that names none."""
    method = method or str(recipe.get("method", "sft"))
    if method == "distill" and recipe.get("on_policy") is False:
        return DEFAULT_LEARNING_RATE  # a teacher's outputs are imitated by SFTConfig
    return DEFAULT_RATES.get(method, DEFAULT_LEARNING_RATE)


def rate_of(recipe: Mapping[str, Any], parameters: float | None = None, method: str | None = None) -> Rate:
    """The recipe's rate; `parameters` is the measured size of the model, guessed from its name when None, and `method`
    the recipe's own when None."""
    value = finite(recipe["learning_rate"]) if recipe.get("learning_rate") is not None else None
    size = parameters if parameters is not None else parameters_of(recipe)
    method = method or str(recipe.get("method", "sft"))
    adapter = recipe.get("use_peft") is True
    band = _band(method, size, adapter=adapter)
    floor = (band if size is not None else _band(method, LARGE_MODEL, adapter=adapter)).low / FAR
    if str(recipe.get("optim", "")).startswith("sgd"):
        # Plain gradients are not divided by their size: usual rates are about a hundred times those of Adam (ResNet's
        # .1, arXiv 1512.03385, against 1e-3). Above 1 a step overshoots what it aims at.
        band, floor = Band(*(min(1.0, 100 * rate) for rate in band)), 100 * floor
    tiny = size is not None and size < TINY_MODEL
    current = default_rate(recipe, method) if value is None else value
    return Rate(current, band, size is not None, floor, tiny)


def _band(method: str, size: float | None, *, adapter: bool) -> Band:
    if size is None or size < TINY_MODEL:
        return _SMALL_BY_METHOD.get(method, _SMALL_LORA if adapter else _SMALL)
    if size < LARGE_MODEL:
        return _MIDDLE[method][adapter] if method in _MIDDLE else _SMALL_LORA if adapter else _SMALL
    return _LARGE.get(method, (_LARGE_FULL, _LARGE_LORA))[adapter]


def parameters_of(recipe: Mapping[str, Any]) -> float | None:
    """Parameters of the model to start from, as far as its name says (`Qwen/Qwen3-1.7B`); None when it does not."""
    name = str(recipe.get("init_from") or recipe.get("model_name_or_path") or "")
    match = _SIZE.search(name)
    if match is None:
        known = (size for pattern, size in _SIZES if pattern.search(name))
        return 1e6 if _TINY.search(name) and "whisper" not in name.lower() else next(known, None)
    size, unit = (match[1], match[2]) if match[1] else (match[3], match[4])
    return float(size) * (1e9 if unit.lower() == "b" else 1e6)


def tidy(value: float) -> float:
    """Two significant digits: a suggestion is read by people."""
    return float(f"{value:.2g}")
