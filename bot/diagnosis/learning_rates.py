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

# Parameters from which the published bands for language models hold. Below it (and for models whose size nobody tells)
# usable rates reach into the percents: measured on a 0.3 M parameter Qwen3, 3e-3 is best and 1e-2 still trains.
LARGE_MODEL = 4e8
_SIZE = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)\s*([bm])(?![a-z])|[-_](\d+(?:\.\d+)?)([bm])(?![a-z])", re.IGNORECASE)
_TINY = re.compile(r"(?:^|[/_-])tiny[_-]", re.IGNORECASE)


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

# On the tiny model 2e-2 still trains after a warm-up, 3e-2 collapses without one and 5e-2 always; larger want less.
IMPLAUSIBLE = 3e-2


@dataclass(frozen=True, slots=True)
class Rate:
    """The learning rate of a recipe beside the band of its model and method."""

    current: float
    band: Band
    size_known: bool
    """False: nothing tells the model's size, and the band is the wide one of small models."""

    @property
    def implausible(self) -> bool:
        """Higher than anything that is known to train a model of this size by this method."""
        return self.current >= (10 * self.band.ceiling if self.size_known and self.band is not _SMALL else IMPLAUSIBLE)

    def raised(self, factor: float = 10.0) -> float | None:
        """The rate times `factor`, at most the band's ceiling; None when it is there already."""
        if self.current <= 0:
            return self.band.low
        raised = min(self.current * factor, self.band.ceiling)
        return tidy(raised) if raised > self.current * 1.05 else None

    def lowered(self, factor: float = 10.0) -> float:
        """The rate divided by `factor`; one far above its band comes down to the band's upper end."""
        if self.size_known and self.current > self.band.high * factor:
            return self.band.high
        return tidy(self.current / factor)

    def probes(self, symptom: Symptom) -> tuple[float, ...]:
        """Rates for a range probe, two to a decade, from the present one towards where the symptom points."""
        if symptom is Symptom.DIVERGENCE:
            return tuple(tidy(self.current / 10 ** (k / 2)) for k in range(1, 7))
        start = math.log10(max(self.current, 1e-7))
        rates = [10 ** (start + k / 2) for k in range(1, 13)]
        return tuple(tidy(rate) for rate in rates if rate <= self.band.ceiling * 1.01) or (self.band.ceiling,)


def rate_of(recipe: Mapping[str, Any], parameters: float | None = None) -> Rate:
    """The recipe's rate; `parameters` is the measured size of the model, guessed from its name when None."""
    value = finite(recipe["learning_rate"]) if recipe.get("learning_rate") is not None else None
    size = parameters if parameters is not None else parameters_of(recipe)
    if size is None or size < LARGE_MODEL:
        band = _SMALL
    else:
        band = _LARGE_LORA if recipe.get("use_peft") is True else _LARGE_FULL
    return Rate(DEFAULT_LEARNING_RATE if value is None else value, band, size is not None)


def parameters_of(recipe: Mapping[str, Any]) -> float | None:
    """Parameters of the model to start from, as far as its name says (`Qwen/Qwen3-1.7B`); None when it does not."""
    name = str(recipe.get("init_from") or recipe.get("model_name_or_path") or "")
    match = _SIZE.search(name)
    if match is None:
        return 1e6 if _TINY.search(name) else None
    size, unit = (match[1], match[2]) if match[1] else (match[3], match[4])
    return float(size) * (1e9 if unit.lower() == "b" else 1e6)


def tidy(value: float) -> float:
    """Two significant digits: a suggestion is read by people."""
    return float(f"{value:.2g}")
