"""What an evaluation found: a value with its n and uncertainty, and a score for every item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from bot.domain.goal import digest_of
from bot.domain.metrics import DEFAULT, Counting, Metric, metric_named


class Split(StrEnum):
    DEV = "dev"
    """Iterated on."""
    HOLDOUT = "holdout"
    """Asked through the Ladder alone: whether a run that reached the target on dev did so by luck."""
    SEALED = "sealed"
    """Opened once, to confirm."""


class Verdict(StrEnum):
    BETTER = "better"
    WORSE = "worse"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True, slots=True)
class Sample:
    """One item's result. `id` is a hash; the committed form of an evaluation keeps only `id`, `score` and `finish`."""

    id: str
    score: float
    finish: str = "stop"
    """`stop` when the model ended by itself, `length` when the token cap cut it."""
    prompt: str | None = None
    response: str | None = None
    reference: str | None = None
    weight: float = 1.0
    """Words, tokens or bytes that a graded score is a mean over; 1 for what is right or wrong."""
    cluster: str = ""
    """A hash of the passage or domain that it shares with other items; empty where items stand alone."""

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Sample:
        """What else an evaluator wrote about an item is left out."""
        return cls(**{key: data[key] for key in cls.__dataclass_fields__ if key in data})


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One model on one split of one benchmark. Shares are fractions of 1; `metrics` says which values are none."""

    benchmark: str
    harness_digest: str
    """Digest of bundle, configuration and library versions; two evaluations with different digests never compare."""
    model: str
    metric: str
    value: float
    standard_error: float
    n: int
    split: str
    strict: float | None = None
    lenient: float | None = None
    """The same answers scored after lenient extraction: strict far below lenient means the format is wrong."""
    samples: tuple[Sample, ...] = field(default=())

    @property
    def measure(self) -> Metric:
        return metric_named(self.metric)

    @property
    def termination_rate(self) -> float | None:
        """Share of responses that the model ended by itself; None without samples, or where it answers nothing."""
        if not self.samples or not self.measure.of_answers:
            return None
        return sum(sample.finish == "stop" for sample in self.samples) / len(self.samples)

    def scores(self) -> dict[str, float]:
        return {sample.id: sample.score for sample in self.samples}

    @property
    def results_digest(self) -> str:
        """Over the value and every item's score: whoever edits one of them changes it."""
        return digest_of([self.value, [[sample.id, sample.score, sample.weight] for sample in self.samples]])[:16]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"samples": [asdict(sample) for sample in self.samples]}

    def public(self) -> dict[str, Any]:
        """The form that may be committed: no benchmark text, only item hashes, scores and finish reasons."""
        samples = [
            {"id": s.id, "score": s.score, "finish": s.finish}
            | ({} if s.weight == 1 else {"weight": s.weight})
            | ({"cluster": s.cluster} if s.cluster else {})
            for s in self.samples
        ]
        return self.as_dict() | {"samples": samples}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Evaluation:
        fields = {key: data[key] for key in cls.__dataclass_fields__ if key in data}
        fields["samples"] = tuple(Sample.from_dict(sample) for sample in data.get("samples", ()))
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class Comparison:
    """B against A on the same items (paired). Field names are those of `postdoc compare --json`."""

    difference: float
    ci_low: float
    ci_high: float
    p_value: float
    n: int
    discordant: tuple[int, int]
    """(items only A has right, items only B has right)."""
    verdict: Verdict
    minimum_detectable: float
    """Smallest difference this n would have shown with power 0.8 at this discordance."""
    n_needed: int | None
    """Items needed to tell the observed difference; None when the verdict is clear, or no difference was observed."""
    metric: str = DEFAULT
    """Differences are in its unit, B minus A; for some metrics a negative one is better."""
    seeds: tuple[int, int] = (1, 1)
    """Of A and of B, that were pooled."""

    def as_dict(self) -> dict[str, Any]:
        """The metric is named where the numbers read differently without it, and so are several seeds."""
        data = asdict(self) | {"discordant": list(self.discordant), "verdict": str(self.verdict)}
        if self.seeds == (1, 1):
            del data["seeds"]
        else:
            data["seeds"] = list(self.seeds)
        if metric_named(self.metric).counting is Counting.RIGHT:
            del data["metric"]
        return data


@dataclass(frozen=True, slots=True)
class Rung:
    """What the Ladder says: the last value that was told, and of which run."""

    run: int
    value: float
    standard_error: float
    n: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Rung:
        return cls(**{key: data[key] for key in cls.__dataclass_fields__})


def best_of(evaluations: Sequence[Evaluation]) -> Evaluation | None:
    """The best value; the earliest among equals, because a later tie is more often luck."""
    return max(evaluations, key=lambda evaluation: evaluation.measure.rank(evaluation.value), default=None)
