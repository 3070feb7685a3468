"""How the gym went: one row for each goal and seed, and what they come to together.

A goal is *reached* when its target is met on dev and confirmed on the sealed items. Runs are counted to twelve: a goal
that is not reached counts as twelve, so that the mean is restricted to that horizon and no policy gains by giving up
early. Reached *first* is a goal whose first run (of a chain, the first pass through its stages) got there.
"""

from __future__ import annotations

import json
import random
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from bot.errors import UserError
from bot.gym.task_file import MOST_RUNS

RESAMPLES = 2000
COVERED = 0.95


@dataclass(frozen=True, slots=True)
class RunTaken:
    """One training run of a goal."""

    value: float | None
    """On dev; None where it failed before it was evaluated."""
    changed: Mapping[str, list[Any]]
    """Recipe key -> [before, now], against the run before it."""
    symptoms: tuple[str, ...]
    trainer_seconds: float
    """Of a processor core, in training scripts."""


@dataclass(frozen=True, slots=True)
class Result:
    """One goal pursued with one seed."""

    name: str
    kind: str
    method: str
    """Empty: left to Postdoc."""
    seed: int
    target: float
    stages: int
    state: str
    reached: bool
    runs: tuple[RunTaken, ...]
    baseline: float | None
    value: float | None
    """Of the best run, on dev."""
    sealed: float | None
    seconds: float
    """From the opened issue to the ending, by the clock."""
    reason: str

    @property
    def reached_first(self) -> bool:
        return self.reached and len(self.runs) <= self.stages

    @property
    def counted_runs(self) -> int:
        """Until it was reached, twelve when it never was."""
        return min(len(self.runs), MOST_RUNS) if self.reached else MOST_RUNS

    @property
    def trainer_seconds(self) -> float:
        return round(sum(run.trainer_seconds for run in self.runs), 2)

    def as_dict(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "state": self.state,
            "reached_first": self.reached_first,
            "reached": self.reached,
            "runs": self.counted_runs,
            "runs_made": len(self.runs),
            "stages": self.stages,
            "trainer_seconds": self.trainer_seconds,
            "baseline": self.baseline,
            "value": self.value,
            "sealed": self.sealed,
            "target": self.target,
            "seconds": self.seconds,
            "reason": self.reason,
            "each_run": [asdict(run) for run in self.runs],
        }


def result_from(row: Mapping[str, Any], seed: Mapping[str, Any]) -> Result:
    """The other way: a task's row and one of its seeds, as `as_json` writes them."""
    runs = tuple(RunTaken(**{**run, "symptoms": tuple(run["symptoms"])}) for run in seed["each_run"])
    named = {key: row[key] for key in ("name", "kind", "method", "target")}
    kept = ("seed", "stages", "state", "reached", "baseline", "value", "sealed", "seconds", "reason")
    return Result(runs=runs, **named, **{key: seed[key] for key in kept})


def as_json(policy: str, results: Sequence[Result], against: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The form of `--json`."""
    by_task: dict[str, list[Result]] = {}
    for result in results:
        by_task.setdefault(result.name, []).append(result)
    rows = [_task_row(sorted(of_task, key=lambda r: r.seed)) for of_task in by_task.values()]
    figures = summary(results)
    others = read_results(against) if against is not None else []
    if against is not None and {other.name for other in others} & {result.name for result in results}:
        figures["against"] = compared(results, others, str(against["policy"]))
    return {"policy": policy, "tasks": rows, "summary": figures}


def _task_row(results: Sequence[Result]) -> dict[str, Any]:
    """A task over its seeds: reached when at least half of them did; runs, value and seconds are medians."""
    one = results[0]
    values = [result.value for result in results if result.value is not None]
    return {
        "name": one.name,
        "kind": one.kind,
        "method": one.method,
        "reached_first": 2 * sum(result.reached_first for result in results) >= len(results),
        "reached": 2 * sum(result.reached for result in results) >= len(results),
        "runs": statistics.median(result.counted_runs for result in results),
        "trainer_seconds": round(statistics.median(result.trainer_seconds for result in results), 2),
        "value": statistics.median(values) if values else None,
        "target": one.target,
        "seeds": [result.as_dict() for result in results],
    }


def summary(results: Sequence[Result]) -> dict[str, Any]:
    """Shares and means over all goals and seeds; null where there is none."""
    if not results:
        return {"first": None, "after": None, "median_runs": None, "goals": 0}
    mean, low, high = restricted_mean(results)
    return {
        "first": _share(result.reached_first for result in results),
        "after": _share(result.reached for result in results),
        "median_runs": statistics.median(result.counted_runs for result in results),
        "restricted_mean_runs": {"value": mean, "ci_low": low, "ci_high": high, "horizon": MOST_RUNS},
        "goals": len({result.name for result in results}),
        "seeds": len({result.seed for result in results}),
        "trainer_seconds": round(sum(result.trainer_seconds for result in results), 1),
        "seconds": round(sum(result.seconds for result in results), 1),
    }


class Interval(NamedTuple):
    value: float
    low: float | None
    """None with a single seed, which says nothing of how another would have gone."""
    high: float | None


def restricted_mean(results: Sequence[Result]) -> Interval:
    """Mean runs to the target, counted to twelve, with a bootstrap interval over the seeds of each task."""
    cells = list(_by_task(results).values())
    mean = _mean_of_tasks(cells)
    if max(map(len, cells)) < 2:
        return Interval(round(mean, 3), None, None)
    rng = random.Random("restricted mean")
    drawn = sorted(_mean_of_tasks([rng.choices(cell, k=len(cell)) for cell in cells]) for _ in range(RESAMPLES))
    return Interval(round(mean, 3), *_ends(drawn))


def compared(results: Sequence[Result], others: Sequence[Result], policy: str) -> dict[str, Any]:
    """These runs as a share of another policy's, over the tasks that both pursued.

    Every policy's first run is the playbook's starting recipe, which no policy chose: `further_runs_ratio` leaves it
    out, and counts only what was decided after a result.
    """
    ours, theirs = _by_task(results), _by_task(others)
    both = [name for name in ours if name in theirs]
    if not both:
        raise UserError("--against names a file that holds none of these goals. Write one of the same tasks.")
    a, b = [ours[name] for name in both], [theirs[name] for name in both]
    ratio = _mean_of_tasks(a) / _mean_of_tasks(b)
    further, of_theirs = (_further_runs(each, both) for each in (results, others))
    found = {
        "policy": policy, "tasks": len(both), "runs_ratio": round(ratio, 3), "ci_low": None, "ci_high": None,
        "further_runs_ratio": round(further / of_theirs, 3) if of_theirs else None,
    }  # fmt: skip
    if max(map(len, a)) > 1 and max(map(len, b)) > 1:
        rng = random.Random("compared")
        drawn = sorted(
            _mean_of_tasks([rng.choices(cell, k=len(cell)) for cell in a])
            / _mean_of_tasks([rng.choices(cell, k=len(cell)) for cell in b])
            for _ in range(RESAMPLES)
        )
        found["ci_low"], found["ci_high"] = _ends(drawn)
    return found


def read_results(content: Mapping[str, Any]) -> list[Result]:
    """The goals in what `--json` wrote. Raises: UserError."""
    try:
        return [result_from(row, seed) for row in content["tasks"] for seed in row["seeds"]]
    except (KeyError, TypeError) as error:
        raise UserError(
            f"That file is no report of the gym ({error} is missing). Name one that --json wrote."
        ) from None


def read_report(path: Path) -> dict[str, Any]:
    """A file that `--json` wrote. Raises: UserError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}. Name a file that --json wrote.") from error
    except ValueError:
        raise UserError(f"{path} is not JSON. Name a file that --json wrote.") from None
    if not isinstance(content, dict) or "policy" not in content:
        raise UserError(f"{path} is no report of the gym. Name a file that --json wrote.")
    return content


def _by_task(results: Sequence[Result]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for result in results:
        found.setdefault(result.name, []).append(result.counted_runs)
    return found


def _further_runs(results: Sequence[Result], names: Collection[str]) -> float:
    """Mean runs to the target beyond the first, and beyond a chain's first pass."""
    cells: dict[str, list[int]] = {}
    for result in results:
        if result.name in names:
            cells.setdefault(result.name, []).append(max(0, result.counted_runs - result.stages))
    return _mean_of_tasks(list(cells.values()))


def _mean_of_tasks(cells: Sequence[Sequence[int]]) -> float:
    """Every task weighs the same, however many of its seeds are there."""
    return statistics.fmean(statistics.fmean(cell) for cell in cells)


def _ends(drawn: Sequence[float]) -> tuple[float, float]:
    cut = round((1 - COVERED) / 2 * len(drawn))
    return round(drawn[cut], 3), round(drawn[-cut - 1], 3)


def _share(found: Iterable[bool]) -> float:
    values = list(found)
    return round(sum(values) / len(values), 4)
