"""One recipe key tried with several values, side by side, on the same training set: what `/postdoc ablate` asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Arm:
    """One of the values."""

    n: int
    """Among all arms of the goal, from 1; its jobs carry this number."""
    value: Any
    recipe: str
    """The recipe's text with this value."""
    recipe_hash: str
    key: str = ""
    """Which key the value is of; empty: the ablation's own."""
    run: int | None = None
    """A run that has trained this very recipe already: its result is taken, and nothing is trained."""


@dataclass(slots=True)
class Ablation:
    """Opened by a command or after a run, ended by one report."""

    n: int
    """Among the goal's ablations, from 1."""
    key: str
    """Of all arms that name none themselves."""
    arms: list[Arm]
    head_sha: str
    digests: dict[str, str]
    """Path in the experiment's folder -> SHA-256, of every script at `head_sha`."""
    data_key: str
    """Names the training set that all arms share."""
    by: str
    for_run: int = 0
    """The run whose remedy it is; 0: a person asked for it."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """For each arm what came of it: {"arm", "value", "score", "against_baseline", "against_best", "failure", "losses",
    "seconds", "run"}. Empty until it is reported."""
    over: bool = False
    """Reported, or dropped because the goal ended."""

    @property
    def trained(self) -> list[Arm]:
        """The arms that take a training of their own."""
        return [arm for arm in self.arms if arm.run is None]

    def key_of(self, arm: Arm) -> str:
        return arm.key or self.key

    def best(self, rank: Callable[[float], float]) -> tuple[Arm, float] | None:
        """The arm whose value ranks highest, and that value; None before one was evaluated."""
        scored = {row["arm"]: float(row["score"]["value"]) for row in self.rows if row.get("score")}
        found = max((arm for arm in self.arms if arm.n in scored), key=lambda arm: rank(scored[arm.n]), default=None)
        return (found, scored[found.n]) if found is not None else None

    def as_dict(self) -> dict[str, Any]:
        arms = [
            {"n": arm.n, "value": arm.value, "recipe": arm.recipe, "recipe_hash": arm.recipe_hash, "run": arm.run}
            | ({"key": arm.key} if arm.key else {})
            for arm in self.arms
        ]
        return {"n": self.n, "key": self.key, "arms": arms, "head_sha": self.head_sha, "digests": dict(self.digests),
                "data_key": self.data_key, "by": self.by, "for_run": self.for_run}  # fmt: skip

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Ablation:
        arms = [Arm(**{key: arm[key] for key in Arm.__dataclass_fields__ if key in arm}) for arm in data["arms"]]
        return cls(
            data["n"], data["key"], arms, data["head_sha"], dict(data["digests"]), data["data_key"], data["by"],
            data.get("for_run", 0),
        )  # fmt: skip
