"""The search space of a method: which keys may be tried, between which values, and Optuna's proposals within it.

The space follows from the method, the model's family and size, and the recipe that the search starts from; never from
what the goal is called. A study lives in memory and is put together anew from the runs each time it is asked, so that
the same journal gives the same proposal wherever and however often it is read.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from bot.diagnosis.learning_rates import rate_of, tidy
from bot.diagnosis.remedies import DEFAULT_BATCH_SIZE, duration_key, scaled_duration
from bot.domain.goal import digest_of
from bot.domain.methods import METHODS
from bot.domain.recipe import normalised_value

STARTUP_TRIALS = 3
"""† Runs before TPE's model counts. Optuna's own 10 would make it random search within the budget of most goals."""
ATTEMPTS = 50
"""Proposals that are drawn before a space counts as used up."""
LONGEST = 4.0
"""† Times the starting recipe's length that a run may take."""


@dataclass(frozen=True, slots=True)
class Dimension:
    """One key: a range, or the values of `choices`."""

    key: str
    default: Any
    """What holds where the recipe does not say."""
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False
    choices: tuple[Any, ...] = ()
    core: bool = False
    """Among the few that a settled recipe is searched over."""

    def holds(self, value: Any) -> bool:
        """Whether `value` lies in this dimension."""
        if self.choices:
            return value in self.choices
        return isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high

    def drawn(self, draw: random.Random) -> Any:
        """A value, each as likely as the next (on the logarithm where `log`)."""
        if self.choices:
            return draw.choice(self.choices)
        if self.whole:
            return self.rounded(draw.uniform(self.low, self.high))
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        found = draw.uniform(low, high)
        return self.rounded(math.exp(found) if self.log else found)

    def rounded(self, value: Any) -> Any:
        """As a recipe's line has it: two significant digits."""
        if self.choices:
            return value
        if not self.whole:
            return min(max(tidy(float(value)), self.low), self.high)
        return max(1, round(float(f"{value:.2g}")))


class Trial(NamedTuple):
    """A run as the search sees it."""

    values: Mapping[str, Any]
    """Of its recipe, normalised."""
    value: float | None
    """Higher is better; None where it was never evaluated."""


def space_of(method: str, start: Mapping[str, Any], parameters: float | None) -> tuple[Dimension, ...]:
    """The dimensions around the recipe `start`, which itself lies inside. `parameters` is a count, None if unknown."""
    return tuple(_dimensions(method, start, parameters))


def _dimensions(method: str, start: Mapping[str, Any], parameters: float | None) -> Iterator[Dimension]:
    found = rate_of(start, parameters, method)
    rate, band = found.current, found.band
    low, high = min(band.low, rate or band.low), max(band.ceiling, rate)
    yield Dimension("learning_rate", rate, low, high, log=True, core=True)
    key, length = duration_key(start), float(scaled_duration(start, 1.0))
    whole = key == "max_steps"
    shortest = max(1.0, length / 2) if whole else length / 2
    yield Dimension(key, length, shortest, length * LONGEST, log=not whole, whole=whole, core=True)
    generates = METHODS[method].generates if method in METHODS else False
    batch = _whole(start.get("per_device_train_batch_size"), DEFAULT_BATCH_SIZE)
    if not generates:  # there the batch has to hold whole groups of samples
        sizes = tuple(sorted({max(1, batch // 2), batch, 2 * batch}))
        yield Dimension("per_device_train_batch_size", batch, choices=sizes)
    # A value below 1 is a share of all steps (TRL 1.16). 3 %: alignment-handbook's recipes; 10 %: Zephyr's.
    yield _choice("warmup_steps", start, 0, (0, 0.03, 0.1))
    yield _choice("lr_scheduler_type", start, "linear", ("linear", "cosine", "constant_with_warmup"))
    yield _choice("weight_decay", start, 0, (0, 0.01, 0.1))
    if start.get("use_peft") is True:
        yield _choice("lora_r", start, 16, (8, 16, 32, 64))
    if method == "dpo":  # 0.1 is the paper's (2305.18290), 0.01 to 0.5 is what Zephyr's ablation covers
        yield _range("beta", start, 0.1, 0.01, 0.5)
    if method == "grpo":  # 0: DAPO and TRL; 0.04: the DeepSeekMath paper (2402.03300)
        yield _choice("beta", start, 0, (0, 0.01, 0.04))
        yield _range("temperature", start, 1.0, 0.7, 1.2)
    if method in ("rft", "synthetic", "distill"):
        yield _range("temperature", start, 1.0, 0.7, 1.2, core=False)


def _choice(key: str, start: Mapping[str, Any], default: Any, choices: tuple[Any, ...]) -> Dimension:
    value = normalised_value(start.get(key, default))
    return Dimension(key, value, choices=choices if value in choices or value is None else (*choices, value))


def _range(
    key: str, start: Mapping[str, Any], default: float, low: float, high: float, *, core: bool = True
) -> Dimension:
    value = normalised_value(start.get(key, default))
    value = float(value) if isinstance(value, int | float) and value > 0 else default
    return Dimension(key, value, min(low, value), max(high, value), log=True, core=core)


def _whole(value: Any, default: int) -> int:
    value = normalised_value(value)
    return int(value) if isinstance(value, int | float) and value >= 1 else default


def point_of(space: Sequence[Dimension], values: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's place in the space; keys whose value lies outside are left out."""
    found = {d.key: normalised_value(values.get(d.key, d.default)) for d in space}
    return {d.key: found[d.key] for d in space if d.holds(found[d.key])}


def seed_of(*parts: Any) -> int:
    """A seed that the same parts always give."""
    return int(digest_of(list(parts))[:8], 16)


def random_edits(space: Sequence[Dimension], values: Mapping[str, Any], seed: int) -> Iterator[tuple[str, Any]]:
    """One key with another value than it has, again and again."""
    draw = random.Random(seed)
    for _ in range(ATTEMPTS if space else 0):
        dimension = draw.choice(list(space))
        value = dimension.drawn(draw)
        if normalised_value(values.get(dimension.key, dimension.default)) != value:
            yield dimension.key, value


def tpe_proposals(space: Sequence[Dimension], trials: Sequence[Trial], seed: int) -> Iterator[dict[str, Any]]:
    """What Optuna's tree-structured Parzen estimator (https://papers.nips.cc/paper/4443) proposes after these runs.

    A run that was never evaluated counts as the worst that there was, so that its surroundings are left.
    """
    import optuna  # 0.3 s, which a server without a search never needs

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    distributions = {d.key: _distribution(d) for d in space}
    known = [trial.value for trial in trials if trial.value is not None]
    worst = min(known, default=0.0)
    for attempt in range(ATTEMPTS):
        sampler = optuna.samplers.TPESampler(seed=seed + attempt, n_startup_trials=STARTUP_TRIALS)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        for trial in trials:
            point = point_of(space, trial.values)
            study.add_trial(
                optuna.trial.create_trial(
                    params=point,
                    distributions={key: distributions[key] for key in point},
                    value=worst if trial.value is None else trial.value,
                )
            )
        asked = study.ask(distributions)
        yield {d.key: d.rounded(asked.params[d.key]) for d in space}


def _distribution(dimension: Dimension) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if dimension.choices:
        return CategoricalDistribution(dimension.choices)
    if dimension.whole:
        return IntDistribution(int(dimension.low), int(dimension.high))
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)
