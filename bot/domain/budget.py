"""What a goal may still spend, and what a consent covers. Pure: clocks and prices are arguments."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from bot.domain.goal import Budget

# Sums of many small prices and times differ from the exact value in the last bits.
_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class Spend:
    """An amount of each thing that a budget limits: spent, reserved for jobs under way, or estimated for the next."""

    usd: float = 0.0
    """LLM spend included."""
    gpu_hours: float = 0.0
    """Hours of job time on whatever device trains."""
    runs: int = 0
    wall_hours: float = 0.0
    """Since consent."""

    def __post_init__(self) -> None:
        for item in fields(self):
            amount = getattr(self, item.name)
            if not math.isfinite(amount) or amount < 0:
                raise ValueError(f"{item.name} cannot be {amount}")

    def __add__(self, other: Spend) -> Spend:
        return Spend(
            self.usd + other.usd,
            self.gpu_hours + other.gpu_hours,
            self.runs + other.runs,
            self.wall_hours + other.wall_hours,
        )

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Spend:
        return cls(**{item.name: data[item.name] for item in fields(cls) if item.name in data})


NOTHING = Spend()


def month_of(at: float) -> str:
    """The calendar month (UTC) of a Unix time, `2026-11`."""
    return datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%Y-%m")


def raised(budget: Budget, more: Spend) -> Budget:
    """The same ceilings, each higher by what was added."""
    return Budget(
        usd=budget.usd + more.usd,
        gpu_hours=budget.gpu_hours + more.gpu_hours,
        runs=budget.runs + more.runs,
        wall_hours=budget.wall_hours + more.wall_hours,
    )


def remaining(budget: Budget, spend: Spend, reserved: Spend = NOTHING) -> Spend:
    """What is left of each ceiling once what is reserved is spent too; never below zero."""
    used = spend + reserved
    return Spend(
        usd=max(budget.usd - used.usd, 0.0),
        gpu_hours=max(budget.gpu_hours - used.gpu_hours, 0.0),
        runs=max(budget.runs - used.runs, 0),
        wall_hours=max(budget.wall_hours - used.wall_hours, 0.0),
    )


def exceeded(budget: Budget, spend: Spend, reserved: Spend = NOTHING) -> str | None:
    """A sentence naming the first ceiling that `spend` and `reserved` together pass; None when none is passed."""
    used = spend + reserved
    for name, ceiling, amount in _sides(budget, used):
        if amount > ceiling + _TOLERANCE:
            return f"{_amount(name, amount)} would pass the ceiling of {_amount(name, ceiling)}."
    return None


def used_up(budget: Budget, spend: Spend, reserved: Spend = NOTHING) -> str | None:
    """A sentence that names the first ceiling that leaves no room for another run, or None while there is room.

    A money ceiling of zero is not used up by spending nothing: it says that only machines without a price may be used.
    """
    used = spend + reserved
    for name, ceiling, amount in _sides(budget, used):
        free_of_charge = name == "usd" and amount <= _TOLERANCE
        if amount >= ceiling - _TOLERANCE and not free_of_charge:
            return f"The ceiling of {_amount(name, ceiling)} is used up ({_amount(name, amount)})."
    return None


@dataclass(frozen=True, slots=True)
class Envelope:
    """A consent: for one goal, up to these ceilings, for changes of these recipe keys, until then."""

    goal_hash: str
    """`Goal.hash` at the time of the consent; a changed goal voids it."""
    ceilings: Budget = field(default_factory=Budget)
    """For the whole goal, not for what comes after the consent."""
    keys: frozenset[str] = frozenset()
    """Recipe keys that the bot may change by itself. `*` stands for every key."""
    expires_at: float | None = None
    """Unix seconds; None never expires."""

    def covers(
        self,
        change_keys: Iterable[str],
        estimate: Spend,
        *,
        spent: Spend = NOTHING,
        goal_hash: str | None = None,
        now: float | None = None,
    ) -> str | None:
        """Why this consent does not cover a run that changes these keys and may cost `estimate`; None when it does.

        Of `spent` (what is reserved included), `goal_hash` and `now` (Unix seconds), what is left out is not checked.
        """
        if goal_hash is not None and goal_hash != self.goal_hash:
            return f"The goal has changed since this was agreed (it was {self.goal_hash}, it is {goal_hash})."
        if self.expires_at is not None and now is not None and now >= self.expires_at:
            return f"What was agreed expired {_hours((now - self.expires_at) / 3600)} ago."
        outside = [] if "*" in self.keys else sorted(set(change_keys) - self.keys)
        if outside:
            allowed = ", ".join(f"`{key}`" for key in sorted(self.keys)) or "no key"
            return f"It changes {', '.join(f'`{key}`' for key in outside)}; agreed were changes of {allowed}."
        return exceeded(self.ceilings, spent, estimate)

    def extended(self, more: Spend) -> Envelope:
        """The same consent with higher ceilings."""
        return replace(self, ceilings=raised(self.ceilings, more))

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"keys": sorted(self.keys)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Envelope:
        ceilings = data.get("ceilings", {})
        return cls(
            goal_hash=data["goal_hash"],
            ceilings=Budget(**{key: value for key, value in ceilings.items() if key in Budget.__dataclass_fields__}),
            keys=frozenset(data.get("keys", ())),
            expires_at=data.get("expires_at"),
        )


def _sides(budget: Budget, used: Spend) -> tuple[tuple[str, float, float], ...]:
    return tuple((item.name, getattr(budget, item.name), getattr(used, item.name)) for item in fields(Spend))


def _amount(name: str, amount: float) -> str:
    match name:
        case "usd":
            return f"{amount:.2f} USD"
        case "gpu_hours":
            return f"{_hours(amount)} of job time"
        case "runs":
            return f"{amount:g} training run{'' if amount == 1 else 's'}"
        case _:
            return f"{_hours(amount)} since consent"


def _hours(hours: float) -> str:
    """`1.5 h`, or minutes and seconds where hours would read 0.0."""
    if hours >= 1 or hours == 0:
        return f"{hours:.3g} h"
    return f"{hours * 60:.3g} min" if hours * 60 >= 1 else f"{hours * 3600:.3g} s"
