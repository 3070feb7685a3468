"""What the rewards of a run show together: the one trained on, and those that are only watched."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

from bot.diagnosis.curves import Series, beyond_luck, noise_of_values, observed, relative_noise, smoothed
from bot.diagnosis.observations import Observations
from bot.diagnosis.readings import finite

SOLVED = 0.8
"""Share of the largest reward that can be had."""
WINDOW = 5
BLIND = 0.05
"""† Share of what right answers earn by which wrong ones must earn less."""


@dataclass(frozen=True, slots=True)
class Rewards:
    reward: Series
    """What is trained on: the weighted sum."""
    smooth: Series
    """Running median of it, where it is long enough."""
    parts: dict[str, Series] = field(default_factory=dict)
    """Mean of each reward function, by name."""
    weights: dict[str, float] = field(default_factory=dict)
    shadows: frozenset[str] = frozenset()
    """Names of those with weight 0: logged, and not trained on."""
    shadow: Series | None = None
    """The watched one that stands for the truth: exact_match before any other."""

    @property
    def noise(self) -> float:
        """Standard deviation of one value around its trend."""
        values = self.reward.values
        return relative_noise(values) * abs(fmean(values)) if len(values) >= 4 and min(values) > 0 else 0.0

    @property
    def largest(self) -> float:
        """The most that a single answer can earn, as far as weights tell: functions give at most 1 by convention."""
        total = sum(max(0.0, weight) for weight in self.weights.values())
        return max(total if self.weights else 1.0, max(self.reward.values, default=1.0)) or 1.0

    @property
    def constant(self) -> bool:
        values = self.reward.values
        return len(values) >= WINDOW and max(values) - min(values) < 1e-6

    @property
    def solved(self) -> bool:
        """The reward is near the largest there is, and stays there; when the truth is watched, that is, too."""
        if len(self.reward) < WINDOW:
            return False
        return self.reward.tail(WINDOW) >= SOLVED * self.largest and (self.shadow is None or self.true_solved)

    @property
    def true_solved(self) -> bool:
        return self.shadow is not None and len(self.shadow) >= WINDOW and self.shadow.tail(WINDOW) >= SOLVED

    @property
    def rising(self) -> bool:
        """The last fifth is above the fifth before it."""
        n = len(self.reward) // 5
        values = self.reward.values
        return n >= 2 and fmean(values[-n:]) > fmean(values[-2 * n : -n])

    @property
    def gain(self) -> float:
        """From the first values to the last."""
        return self.reward.tail(WINDOW) - self.reward.head(WINDOW) if len(self.reward) >= 2 * WINDOW else 0.0

    @property
    def lost(self) -> bool:
        """It was earned, and then fell below half of its peak, or below its own early level."""
        if len(self.smooth) < 2 * WINDOW:
            return False
        peak, early, last = max(self.smooth.values), self.smooth.head(WINDOW), self.reward.tail(WINDOW)
        rose = peak > early + max(0.1, 0.2 * abs(early))
        first = self.reward.head(2)
        return (rose and last < early + 0.5 * (peak - early)) or (first >= 0.05 and last < 0.2 * first)

    @property
    def lost_for_sure(self) -> bool:
        """It was lost by more than the noise of a handful of answers a step: the best five steps of a thousand were
        lucky ones."""
        if not self.lost:
            return False
        best, n = max(max(self.smooth.values), self.reward.head(2)), len(self.reward)
        distance, spread = best - self.reward.tail(WINDOW), noise_of_values(self.reward.values)
        return beyond_luck(distance, spread, window=WINDOW, last=WINDOW, n=n)


def rewards_of(observations: Observations) -> Rewards:
    return observations.once("rewards", lambda: _rewards_of(observations))


def _rewards_of(observations: Observations) -> Rewards:
    reward = observed(observations, "reward")
    last = observations.steps[-1] if observations.steps else {}
    names = [
        key[len("rewards/") : -len("/mean")] for key in last if key.startswith("rewards/") and key.endswith("/mean")
    ]
    parts = {name: observed(observations, f"rewards/{name}/mean") for name in sorted(names)}
    parts = {name: series for name, series in parts.items() if len(series)}
    weights = _weights(observations, list(parts))
    shadows = frozenset(name for name in parts if weights.get(name) == 0)
    watched = "exact_match" if "exact_match" in shadows else min(shadows, default=None)
    smooth = smoothed(reward, WINDOW) if len(reward) >= WINDOW else reward
    return Rewards(reward, smooth, parts, weights, shadows, parts[watched] if watched is not None else None)


def _weights(observations: Observations, names: Sequence[str]) -> dict[str, float]:
    """The weight of each logged reward: the recipe's; those that the recipe does not name are watched only."""
    raw = observations.recipe.get("reward_functions", observations.recipe.get("reward_funcs"))
    named = [part.strip() for part in raw.split(",")] if isinstance(raw, str) else raw if isinstance(raw, list) else []
    named = [str(name) for name in named if str(name)]
    listed = observations.recipe.get("reward_weights")
    values = [part.strip() for part in listed.split(",")] if isinstance(listed, str) else listed
    values = values if isinstance(values, list) else [listed] if isinstance(listed, (int, float)) else []
    numbers = [finite(value) if value is not None else None for value in values]
    if not named:
        if len(numbers) == len(names):
            return {name: 1.0 if w is None else w for name, w in zip(names, numbers, strict=True)}
        return {} if len(names) != 2 or "exact_match" not in names else _guessed(observations, names)
    weights = dict.fromkeys(named, 1.0)
    weights |= {name: weight for name, weight in zip(named, numbers, strict=False) if weight is not None}
    return {name: weights.get(name, 0.0) for name in names} if set(named) & set(names) else {}


def _guessed(observations: Observations, names: Sequence[str]) -> dict[str, float]:
    """A weight of 0 for a reward that the sum does not hold: the sum equals the other one, step by step."""
    reward = observed(observations, "reward").values
    other = next(name for name in names if name != "exact_match")
    series = observed(observations, f"rewards/{other}/mean").values
    alone = len(series) == len(reward) and all(
        math.isclose(a, b, abs_tol=1e-6) for a, b in zip(series, reward, strict=True)
    )
    return {other: 1.0, "exact_match": 0.0} if alone else {}


def tried_rewards(observations: Observations) -> tuple[tuple[str, ...], float, float]:
    """(names of the trained rewards that were tried, what they pay the data's own references together, what they pay
    references of other prompts), as the script found before the first step."""
    rewards = rewards_of(observations)
    named = observations.recipe.get("reward_functions", observations.recipe.get("reward_funcs"))
    names, paid, free = [], 0.0, 0.0
    for name, values in observations.part("reward_check").items():
        weight = rewards.weights.get(str(name), 1.0 if str(name) not in rewards.shadows else 0.0)
        reference, wrong = (_tried(values, key) for key in ("reference", "wrong"))
        if reference is None or wrong is None or weight == 0 or (named is not None and str(name) not in str(named)):
            continue
        paid, free = paid + weight * reference, free + weight * wrong
        names.append(str(name))
    return tuple(names), paid, free


def right_reward(observations: Observations) -> str | None:
    """A reward that was tried beside the trained ones and pays the data's own references more than those of other
    prompts: what the recipe's `reward_functions` could name instead. None where no such one is known."""
    if "reward_functions" not in observations.recipe:
        return None  # another trainer's recipe, whose rewards are not found by such names
    named = re.findall(r"\w+", str(observations.recipe["reward_functions"]))
    for name, values in sorted(observations.part("reward_check").items()):
        reference, wrong = (_tried(values, key) for key in ("reference", "wrong"))
        if str(name) not in named and reference is not None and wrong is not None and reference - wrong > BLIND:
            return str(name)
    return None


def pays_alike(observations: Observations) -> bool:
    """References of other prompts earn what the right ones earn, or nearly: being right is not what is paid for."""
    names, paid, free = tried_rewards(observations)
    return bool(names) and paid > 0 and paid - free <= BLIND * paid


def _tried(values: object, key: str) -> float | None:
    raw = values.get(key) if isinstance(values, dict) else None
    return finite(raw) if raw is not None else None


def moves_together(left: Series, right: Series) -> float | None:
    """Correlation of the changes from step to step: two trends alone say nothing about each other."""
    both = dict(zip(right.steps, right.values, strict=True))
    pairs = [(a, both[s]) for s, a in zip(left.steps, left.values, strict=True) if s in both]
    changes = [(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(pairs)]
    return correlation([a for a, _ in changes], [b for _, b in changes])


def correlation(left: Sequence[float], right: Sequence[float]) -> float | None:
    """Pearson's; None with fewer than eight pairs, or when one side does not vary."""
    n = min(len(left), len(right))
    if n < 8:
        return None
    a, b = left[-n:], right[-n:]
    mean_a, mean_b = fmean(a), fmean(b)
    spread_a = math.sqrt(sum((x - mean_a) ** 2 for x in a))
    spread_b = math.sqrt(sum((y - mean_b) ** 2 for y in b))
    if spread_a < 1e-9 or spread_b < 1e-9:
        return None
    return sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True)) / (spread_a * spread_b)
