"""Whether a run that was made again came out the same: to the bit, within noise, or not; and what differs first.

Two trainings of one recipe on one machine with one set of libraries give the same weights to the bit where every kernel
is deterministic, as on a processor with a fixed number of threads. On a GPU they need not be (PyTorch's note on
reproducibility, https://pytorch.org/docs/stable/notes/randomness.html), and then the question is whether the two
results can be told apart.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import Any

from bot.domain.comparison import compare
from bot.domain.evaluation import Comparison, Evaluation, Verdict
from bot.domain.statistics import item_scores

LAST_PART = 0.25
"""Share of the logged steps, from the end, over which two loss curves are compared."""
SCATTER_FACTOR = 3.0
"""Curves are apart when they differ by more than so many times the loss's own change from one logged step to the next:
another seed's batches alone make a difference of about 1.4 times that."""
RANGE_SHARE = 0.05
"""... and by more than this share of all that the loss fell, so that a smooth curve near zero is not called apart for
nothing."""
LIBRARIES_THAT_COUNT = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers", "numpy")
"""Differences in them come first; others are listed after them."""


class Outcome(StrEnum):
    BITWISE = "bitwise"
    """The same weights and the same score of every item."""
    WITHIN_NOISE = "within seed noise"
    """Not the same to the bit, but neither the evaluations nor the losses tell the two apart."""
    NOT_REPRODUCED = "not reproduced"


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that was not the same."""

    what: str
    then: str
    now: str

    def sentence(self) -> str:
        return f"{self.what}: {self.then or 'none'} then, {self.now or 'none'} now"


@dataclass(frozen=True, slots=True)
class CurveDistance:
    """How far two loss curves lie from each other, on the steps that both have."""

    steps: int
    first_step: int | None
    """The first logged step with another loss; None when every loss is the same number."""
    mean: float | None
    """Mean absolute difference over the last part of the run; None when no step is in both."""
    scatter: float
    """Median change of the original's loss from one logged step to the next, there."""
    fallen: float
    """Largest minus smallest loss of the original."""

    @property
    def apart(self) -> bool:
        return self.mean is None or self.mean > max(SCATTER_FACTOR * self.scatter, RANGE_SHARE * self.fallen)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"apart": self.apart}


@dataclass(frozen=True, slots=True)
class Trial:
    """What one execution of a run left."""

    evaluation: Evaluation
    losses: Mapping[int, float] = field(default_factory=dict)
    """Step -> loss, as logged."""


@dataclass(frozen=True, slots=True)
class ReproductionReport:
    """The answer, as `postdoc reproduce --json` and the journal have it."""

    verdict: Outcome
    first: str
    """What differs first, one sentence without its full stop; empty when nothing does."""
    differences: tuple[Difference, ...] = ()
    """Of the environment and the inputs, known before anything was trained."""
    weights: tuple[str, str] = ("", "")
    """SHA-256 then and now; empty where it was not recorded."""
    items_differing: int = 0
    comparison: Comparison | None = None
    """The new evaluation against the original's, paired; None where the two do not compare."""
    curve: CurveDistance | None = None

    def as_dict(self) -> dict[str, Any]:
        return {
            "verdict": str(self.verdict),
            "first": self.first,
            "differences": [asdict(each) for each in self.differences],
            "weights": list(self.weights),
            "items_differing": self.items_differing,
            "comparison": self.comparison.as_dict() if self.comparison is not None else None,
            "curve": self.curve.as_dict() if self.curve is not None else None,
        }


def judged(then: Trial, now: Trial, differences: Sequence[Difference] = ()) -> ReproductionReport:
    """Compare the run as it was with the run as it came out again.

    Raises: UserError when the two evaluations are not of one benchmark, split and metric, or an item has no score.
    """
    weights = (then.evaluation.weights, now.evaluation.weights)
    same_weights = bool(weights[0]) and weights[0] == weights[1]
    differing = items_differing(then.evaluation, now.evaluation)
    curve = curve_distance(then.losses, now.losses)
    same_harness = then.evaluation.harness_digest == now.evaluation.harness_digest
    comparison = compare(then.evaluation, now.evaluation) if same_harness else None
    verdict, first = _verdict(same_weights, differing, curve, comparison, differences)
    return ReproductionReport(verdict, first, tuple(differences), weights, differing, comparison, curve)


def not_rebuilt(difference: Difference, differences: Sequence[Difference] = ()) -> ReproductionReport:
    """The answer where already the inputs of training came out otherwise, so that nothing was trained."""
    return ReproductionReport(Outcome.NOT_REPRODUCED, difference.sentence(), (difference, *differences))


def _verdict(
    same_weights: bool,
    differing: int,
    curve: CurveDistance | None,
    comparison: Comparison | None,
    differences: Sequence[Difference],
) -> tuple[Outcome, str]:
    changed = curve is not None and curve.first_step is not None
    if same_weights:
        if differing:
            what = f"the weights are the same to the bit, and {differing} items have other scores: the recorded scores"
            return Outcome.NOT_REPRODUCED, f"{what} are not what these weights get"
        if curve is not None and changed:
            what = f"the weights are the same to the bit, and the loss differs from step {curve.first_step} on"
            return Outcome.NOT_REPRODUCED, f"{what}: the recorded curve is not this run's"
        return Outcome.BITWISE, ""
    first = _first(differing, curve, differences)
    if comparison is None:
        return (
            Outcome.NOT_REPRODUCED,
            f"the evaluator is another one, and results of two evaluators never compare; {first}",
        )
    if comparison.verdict is not Verdict.CANNOT_TELL:
        return Outcome.NOT_REPRODUCED, first
    if curve is not None and curve.apart:
        return Outcome.NOT_REPRODUCED, f"the loss ends elsewhere, though the evaluations cannot be told apart; {first}"
    return Outcome.WITHIN_NOISE, first


def _first(differing: int, curve: CurveDistance | None, differences: Sequence[Difference]) -> str:
    """What comes first on the way from inputs to result."""
    if differences:
        return differences[0].sentence()
    if curve is not None and curve.first_step is not None:
        return f"the loss, from step {curve.first_step} on"
    if differing:
        return f"the scores of {differing} items"
    return "the weights"


def items_differing(then: Evaluation, now: Evaluation) -> int:
    """Items that do not have the very same score in both; one that only one of them has counts."""
    a, b = item_scores(then), item_scores(now)
    return sum(a.get(item) != b.get(item) for item in a.keys() | b.keys())


def curve_distance(then: Mapping[int, float], now: Mapping[int, float]) -> CurveDistance | None:
    """How far `now` lies from `then`; None when one has no losses. A step that `then` logged and `now` did not counts
    as different."""
    if not then or not now:
        return None
    steps = sorted(then)
    first = next((step for step in steps if now.get(step) != then[step]), None)
    if first is None and len(now) > len(then) and max(now) > max(then):
        first = min(step for step in now if step > max(then))
    common = [step for step in steps if step in now]
    last = common[-max(1, math.ceil(LAST_PART * len(common))) :]
    mean = statistics.fmean(abs(now[step] - then[step]) for step in last) if last else None
    around = steps[-max(2, len(last)) :]
    changes = [abs(then[b] - then[a]) for a, b in pairwise(around)]
    scatter = statistics.median(changes) if changes else 0.0
    return CurveDistance(len(common), first, mean, scatter, max(then.values()) - min(then.values()))


# --- The environment --------------------------------------------------------------------------------------------------


def environment_differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[Difference, ...]:
    """Where two `environment`s of run.json differ: the libraries that count, the machine, determinism, other libraries.

    What one of them does not tell is not a difference.
    """
    old, new = dict(then.get("libraries") or {}), dict(now.get("libraries") or {})
    names = sorted(old.keys() | new.keys()) if old and new else []
    count = [name for name in LIBRARIES_THAT_COUNT if name in names]
    found = [_difference(name, old.get(name), new.get(name)) for name in count]
    found += [
        _difference(what, then[what], now[what])
        for what in (
            "python",
            "system",
            "processor",
            "gpus",
            "cuda",
            "cudnn",
            "threads",
            "runner",
            "tier",
            "image",
            "postdoc",
        )
        if what in then and what in now
    ]
    before, after = dict(then.get("determinism") or {}), dict(now.get("determinism") or {})
    found += [_difference(what, before[what], after[what]) for what in before if what in after]
    found += [_difference(name, old.get(name), new.get(name)) for name in names if name not in count]
    return tuple(each for each in found if each is not None)


def missing_libraries(then: Mapping[str, Any], now: Mapping[str, Any], needed: Sequence[str]) -> list[str]:
    """`name==version` of what the run needed and `now` does not have."""
    old, new = then.get("libraries") or {}, now.get("libraries") or {}
    return [f"{name}=={old[name]}" for name in needed if name in old and name not in new]


def _difference(what: str, then: object, now: object) -> Difference | None:
    return None if then == now else Difference(what, _said(then), _said(now))


def _said(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


# --- On a pull request ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Reproduction:
    """A run that somebody asked to be made again: what `/postdoc reproduce 3` opens, ended by one report."""

    n: int
    """Among the goal's reproductions, from 1; its jobs carry this number."""
    run: int
    by: str
    refused: str = ""
    """Why its job may not be started, or who stopped it: one sentence; nothing more is spent on it."""
    rows: tuple[str, str] | None = None
    """SHA-256 of the training set then (empty: not known any more) and as it was built again; None before that."""
    report: dict[str, Any] | None = None
    """`ReproductionReport.as_dict()`, with {"value": [then, now]}; or {"failure": one sentence}."""
    over: bool = False
    """Reported, or dropped because the goal ended."""

    @property
    def rebuilt_otherwise(self) -> Difference | None:
        if self.rows is None or self.rows[0] in ("", self.rows[1]):
            return None
        return Difference("training data (SHA-256)", self.rows[0][:12], self.rows[1][:12])

    @property
    def verdict(self) -> str:
        """Empty when it came to none."""
        return str((self.report or {}).get("verdict") or "")

    def as_dict(self) -> dict[str, Any]:
        return {"n": self.n, "run": self.run, "by": self.by}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Reproduction:
        return cls(data["n"], data["run"], data["by"])
