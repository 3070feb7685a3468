"""What an issue asks for: the goal, its budget, and the hash that a consent is bound to."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NewType

from bot.domain.metrics import Metric, metric_named

GoalId = NewType("GoalId", str)
"""`<owner>/<repository>#<issue>`: names a goal in the journal, in folders (through `slug`) and in hidden keys."""


DEFAULT_METHOD = "sft"
"""What trains where neither the goal nor its recipe names a method."""


_METHOD_LINE = re.compile(r"^method:[ \t]*[\"']?([A-Za-z]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Budget:
    """What a goal may cost at most. The defaults stand where neither the person nor the policy gave a ceiling."""

    usd: float = 0.0
    """Money, LLM spend included. 0 means that only machines without a price may be used."""
    gpu_hours: float = 1.0
    """Hours of job time on whatever device trains; on a machine without a GPU, hours of its CPU jobs."""
    runs: int = 4
    """Training runs, probes not counted."""
    wall_hours: float = 24.0
    """From consent to end."""


_FIRST_FIELDS = frozenset({
    "title", "base_model", "benchmark", "target", "metric", "base_revision", "method", "dataset", "recipe", "script",
    "licences", "budget", "seed",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Goal:
    """The contract, as echoed to the person. Shares are fractions: 30 % is 0.30."""

    title: str
    base_model: str
    """Hub id, or the name of a model in the server's model folder."""
    benchmark: str
    """Name of a benchmark file, `practice/reverse` for example, or the path of the repository's own,
    `benchmarks/ours.yaml`, as it stands on the default branch."""
    target: float
    """The value of `metric` to reach."""
    metric: str = "exact_match"
    base_revision: str = "main"
    method: str | None = None
    """sft, dpo, grpo ..., or several in the order in which they train, `sft, grpo`; None leaves the choice to the
    brain."""
    dataset: str | None = None
    """A `data_source` line: a path on the default branch, a data set of the Hub, an address. None: the benchmark's own
    training split."""
    recipe: str | None = None
    """Text of a starting recipe (YAML, one key per line) that runs first. None: the playbook's row."""
    script: str | None = None
    """Path in the repository of the person's own training script."""
    licences: tuple[str, ...] = ()
    """SPDX identifiers allowed for data and base model. Empty: any licence that is known."""
    budget: Budget = field(default_factory=Budget)
    seed: int = 0
    forgetting: str = "report"
    """What a significant drop on the benchmark's old tasks means: `report` says so, `block` keeps such a run from
    counting as the one that reaches the target."""
    data_licence: str | None = None
    """What the author says the training data is under; counts where the data has no card of its own."""

    @property
    def stages(self) -> tuple[str, ...]:
        """The methods in the order in which they train, at least one; each after the first goes on from a run of the
        one before. Where the goal names none, its own recipe may."""
        named = tuple(part.strip() for part in (self.method or "").split(",") if part.strip())
        if not named and (line := _METHOD_LINE.search(self.recipe or "")) is not None:
            named = (line[1].lower(),)
        return named or (DEFAULT_METHOD,)

    @property
    def measure(self) -> Metric:
        """Which way is better, and how a value is said."""
        return metric_named(self.metric)

    def reached(self, value: float) -> bool:
        """Whether a value of the goal's metric meets its target."""
        return self.measure.reached(value, self.target)

    @property
    def said_target(self) -> str:
        return self.measure.said_target(self.target)

    @property
    def hash(self) -> str:
        """Twelve hex digits over every field; a consent names it, so that a changed goal voids the consent.

        A field that came after the first version counts once it says more than its default, so that a goal that was
        agreed before an upgrade keeps its hash.
        """
        later = {item.name: item.default for item in fields(self) if item.name not in _FIRST_FIELDS}
        said = {k: v for k, v in self.as_dict().items() if k not in later or v != later[k]}
        return digest_of(said)[:12]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"licences": list(self.licences)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Goal:
        """What a newer version wrote beside the fields of this one is left out."""
        known = {key: data[key] for key in cls.__dataclass_fields__ if key in data}
        budget = known.get("budget", {})
        known["budget"] = Budget(**{key: budget[key] for key in Budget.__dataclass_fields__ if key in budget})
        known["licences"] = tuple(known.get("licences", ()))
        return cls(**known)


def digest_of(value: Any) -> str:
    """SHA-256 of a JSON-able value in canonical form: sorted keys, no spaces, 20.0 as 20."""
    text = json.dumps(_canonical(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    # JSON from a webhook may hold half of a surrogate pair, which plain UTF-8 refuses.
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _canonical(value: Any) -> Any:
    """A ceiling of 20 stays the same goal when a form or a YAML file brings it as 20.0."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {key: _canonical(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(inner) for inner in value]
    return value


def slug(text: str, *, limit: int = 40) -> str:
    """Lowercase words joined by hyphens: safe as a folder or branch name whatever the input was."""
    words = "".join(c if c.isascii() and c.isalnum() else " " for c in text.lower()).split()
    return "-".join(words)[:limit].strip("-") or "goal"
