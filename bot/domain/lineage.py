"""Where a model comes from, as measured: the verdict, and the figures and changes that it rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class LineageVerdict(StrEnum):
    DESCENDS = "descends"
    EQUALS_BASE = "equals base"
    """Every weight is the base's: nothing was trained, or what was trained was not saved."""
    NOT_THIS_BASE = "not this base"
    PUBLISHED = "another published model"
    ADAPTER_NOT_USED = "adapter not used"
    """An adapter was trained, and the weights do not hold it."""
    TEMPLATE_SWAPPED = "chat template swapped"
    RUNS_CODE = "needs code of its own"
    """It loads with `trust_remote_code` alone, which stays off."""
    UNREADABLE = "unreadable"
    """No whole safetensors weights."""

    @property
    def counts(self) -> bool:
        """Whether a result that such a model reaches is a result of the goal."""
        return self is LineageVerdict.DESCENDS


@dataclass(frozen=True, slots=True)
class Change:
    """Something beside the weights that is not as in the base."""

    file: str
    key: str
    before: str | None
    """As JSON, shortened; None where there was nothing."""
    after: str | None
    consequence: str = ""
    """What it can do to a score, one phrase; empty where nothing is known of it."""


@dataclass(frozen=True, slots=True)
class Lineage:
    verdict: LineageVerdict
    reason: str
    """One sentence."""
    tensors: int = 0
    """Of the base that have their counterpart in the model."""
    changed_tensors: int = 0
    relative_distance: float | None = None
    """Norm of the difference over the norm of the base, over all counterparts."""
    cosine_median: float | None = None
    """Over weight matrices: 1 where the direction is the base's, about 0 between models trained apart."""
    cosine_lowest: float | None = None
    matched: float | None = None
    """Share of the base's parameters that have their counterpart."""
    added: tuple[str, ...] = ()
    """Tensors without a counterpart in the base, the first few."""
    missing: tuple[str, ...] = ()
    """The base's tensors without one in the model, the first few."""
    adapter: Mapping[str, Any] | None = None
    """{"tensors", "explained"}: how much of what changed is the saved adapter."""
    nearest: Mapping[str, Any] | None = None
    """{"name", "revision", "apart", "same_direction"}: the published model that is nearest, of those known."""
    compared_with: int = 0
    """Published models whose fingerprints were looked at."""
    changes: tuple[Change, ...] = ()
    notes: tuple[str, ...] = field(default=())
    """Sentences on what deserves a look and does not decide."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"verdict": str(self.verdict), "counts": self.verdict.counts}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Lineage:
        """What a newer version wrote beside the fields of this one is left out."""
        known = {name: data[name] for name in cls.__dataclass_fields__ if name in data}
        known["verdict"] = LineageVerdict(data["verdict"])
        known["changes"] = tuple(Change(**change) for change in data.get("changes", ()))
        for name in ("added", "missing", "notes"):
            known[name] = tuple(data.get(name, ()))
        return cls(**known)
