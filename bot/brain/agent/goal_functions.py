"""The functions that tell of the goal itself: its training rows, and what its runs have come to.

Not covered, on purpose: the holdout and the sealed items, of which nothing is told; an item of the benchmark that a
scan has found in a row, for asking row after row would tell what the items are.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from bot.brain.agent.functions import Answer, Function, Kind, Parameter
from bot.brain.evidence import Curves, evidence_of
from bot.data.audit import audit_file
from bot.data.detectors import ItemLike
from bot.data.rows import data_files, read_rows
from bot.data.scan import scan
from bot.domain.curves import thinned
from bot.domain.evaluation import Evaluation, Sample
from bot.domain.experiment import Experiment, Run
from bot.domain.metrics import Counting
from bot.errors import UserError

MOST_BYTES = 64 << 20
"""Of a file that is audited or scanned; a larger one takes longer than a call may."""
MOST_TEXT = 4000
"""Characters of one value of a row, and of one text of an answer."""
MOST_ROWS, MOST_FAILURES, MOST_POINTS = 100, 50, 400
DEV = "dev"
_HEAVY = ThreadPoolExecutor(1, "goal-data")
_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class Material:
    """What there is to tell of."""

    experiment: Experiment
    curves: Curves = field(default_factory=dict)
    train_files: Mapping[str, Path] = field(default_factory=dict)
    """Name -> a file or folder of rows: `train` as the latest run was trained on it, a source as it was fetched."""
    items: Callable[[], Sequence[ItemLike]] = tuple
    """The benchmark's items, read when a scan is asked for."""
    evaluation: Callable[[int], Mapping[str, Any] | None] = lambda _run: None
    """Run number (0: the base model) -> its evaluation.json on the dev split, samples with texts included."""


def goal_functions(material: Material) -> dict[str, Function]:
    """`data.*` and `runs.*` over it."""
    told = _Told(material)
    names = ", ".join(material.train_files) or "none yet"
    file = Parameter(Kind.TEXT, choices=tuple(material.train_files) or ("none",), characters=200)
    run = Parameter(Kind.WHOLE, least=0, most=10_000)
    return {
        "data.files": Function(f"The training files ({names}): [{{name, files, bytes}}].", told.files),
        "data.rows": Function(
            "Rows of a training file: [row].",
            told.rows,
            {"file": file, "start": Parameter(Kind.WHOLE, default=0, least=0, most=1e9),
             "count": Parameter(Kind.WHOLE, default=10, least=1, most=MOST_ROWS)},
        ),
        "data.audit": Function(
            "Counts over a training file: empty and repeated rows, lengths, classes, languages, secrets; `verdicts` in "
            "words.", told.audit, {"file": file},
        ),
        "data.scan": Function(
            "Whether a training file holds the benchmark's items: {verdict, summary, rows: flagged row numbers}.",
            told.scan, {"file": file},
        ),
        "runs.ledger": Function("What was tried and what came of it: [{run, changed, value, ...}].", told.ledger),
        "runs.recipe": Function("recipe.yaml of a run, as text.", told.recipe, {"run": run}),
        "runs.diagnoses": Function("What was found wrong with a run, with its evidence.", told.diagnoses, {"run": run}),
        "runs.metrics": Function("The names of a run's curves: {name: points}.", told.metrics, {"run": run}),
        "runs.curve": Function(
            "One curve: {points: [[step, value]], not_a_number_at: [step]}.",
            told.curve,
            {"run": run, "metric": Parameter(Kind.TEXT, characters=100),
             "points": Parameter(Kind.WHOLE, default=60, least=3, most=MOST_POINTS)},
        ),
        "runs.failures": Function(
            "Items of the dev split that a run (0: the base model) got wrong, the worst first: [{id, score, prompt, "
            "response, reference, finish}]. They are the benchmark's: never train on them.",
            told.failures,
            {"run": run, "count": Parameter(Kind.WHOLE, default=10, least=1, most=MOST_FAILURES),
             "start": Parameter(Kind.WHOLE, default=0, least=0, most=1e6)},
        ),
        "runs.evidence": Function("All of it as one text.", told.evidence),
    }  # fmt: skip


class _Told:
    """Each method is one function; blocking ones work in a thread."""

    def __init__(self, material: Material) -> None:
        self._m = material

    async def files(self) -> Answer:
        found = await asyncio.to_thread(lambda: [self._listed(name) for name in self._m.train_files])
        return Answer(found, "this goal's training files")

    async def rows(self, file: str, start: int, count: int) -> Answer:
        path = self._path(file)

        def read() -> list[Any]:
            return [shortened(row) for row in itertools.islice(read_rows(path), start, start + count)]

        return Answer(await asyncio.to_thread(read), f"{file}, rows {start} to {start + count - 1}")

    async def audit(self, file: str) -> Answer:
        path = await asyncio.to_thread(self._small, file)
        found = await _heavy(audit_file, path)
        return Answer(
            found.as_dict() | {"verdicts": [verdict.as_dict() for verdict in found.verdicts()]}, f"an audit of {file}"
        )

    async def scan(self, file: str) -> Answer:
        path = await asyncio.to_thread(self._small, file)
        report = await _heavy(lambda path: scan(read_rows(path), self._m.items()), path)
        # Neither the words nor the items' ids: which row to leave out is all that helps.
        rows = sorted(report.flagged_rows)
        told = {"verdict": report.verdict, "summary": report.summary(), "flagged": len(rows), "rows": rows[:1000]}
        return Answer(told, f"a scan of {file} for this goal's benchmark")

    async def ledger(self) -> Answer:
        return Answer([_run_told(run) for run in self._m.experiment.runs], "this goal's journal")

    async def recipe(self, run: int) -> Answer:
        return Answer(self._run(run).recipe, f"recipe.yaml of run {run}")

    async def diagnoses(self, run: int) -> Answer:
        return Answer(self._run(run).report.as_dict(), f"the diagnosis of run {run}")

    async def metrics(self, run: int) -> Answer:
        self._run(run)
        curves = self._m.curves.get(run, {})
        return Answer({name: len(points) for name, points in curves.items()}, f"the log of run {run}")

    async def curve(self, run: int, metric: str, points: int) -> Answer:
        self._run(run)
        curves = self._m.curves.get(run, {})
        if metric not in curves:
            raise UserError(f"Run {run} has no curve {metric[:60]!r}. It has {', '.join(curves) or 'none'}.")
        finite = [(step, value) for step, value in curves[metric] if value is not None and math.isfinite(value)]
        lost = [step for step, value in curves[metric] if _finite(value) is None]
        told = {"points": thinned(finite, points), "not_a_number_at": lost[:MOST_POINTS]}
        return Answer(told, f"{metric} of run {run}")

    async def failures(self, run: int, count: int, start: int) -> Answer:
        if run:
            self._run(run)
        raw = await asyncio.to_thread(self._m.evaluation, run)
        if raw is None:
            raise UserError(f"Run {run} has no evaluation with its items' texts here.")
        evaluation = Evaluation.from_dict(raw)
        if evaluation.split != DEV:
            raise UserError(f"Run {run} was evaluated on {evaluation.split}; only the dev split's items are told.")
        failed = sorted(_failed(evaluation), key=lambda sample: evaluation.measure.rank(sample.score))
        told = [_sample(sample) for sample in failed[start : start + count]]
        of = f"{len(failed)} of {evaluation.n} items of the dev split"
        return Answer({"failures": told, "of": of}, f"the evaluation of run {run} on dev")

    async def evidence(self) -> Answer:
        return Answer(evidence_of(self._m.experiment, self._m.curves), "this goal's journal")

    def _run(self, n: int) -> Run:
        runs = self._m.experiment.runs
        if not 1 <= n <= len(runs):
            raise UserError(f"There is no run {n}. There {'is run 1' if len(runs) == 1 else f'are {len(runs)} runs'}.")
        return runs[n - 1]

    def _path(self, name: str) -> Path:
        path = self._m.train_files.get(name)
        if path is None:
            raise UserError(f"There is no training file {name[:60]!r}; the data have not been built yet.")
        return path

    def _small(self, name: str) -> Path:
        path = self._path(name)
        if (size := _bytes(path)) > MOST_BYTES:
            raise UserError(f"{name} holds {size:,} bytes, and at most {MOST_BYTES:,} are looked through here.")
        return path

    def _listed(self, name: str) -> dict[str, Any]:
        path = self._m.train_files[name]
        return {"name": name, "files": len(data_files(path)), "bytes": _bytes(path)}


async def _heavy(work: Callable[[Path], _Found], path: Path) -> _Found:
    """In the one thread that there is for such work: code in the sandbox may ask and ask, and not wait."""
    return await asyncio.get_running_loop().run_in_executor(_HEAVY, work, path)


def shortened(value: Any, depth: int = 0) -> Any:
    """A row as JSON, long texts and bytes cut: what a person would look at."""
    match value:
        case str():
            return value if len(value) <= MOST_TEXT else f"{value[:MOST_TEXT]}… ({len(value):,} characters)"
        case bytes():
            return f"{len(value):,} bytes"
        case Mapping() if depth < 12:
            return {str(key)[:200]: shortened(inner, depth + 1) for key, inner in value.items()}
        case list() | tuple() if depth < 12:
            return [shortened(inner, depth + 1) for inner in value[:200]]
        case bool() | int() | None:
            return value
        case float():
            return _finite(value)
    return str(value)[:MOST_TEXT]


def _run_told(run: Run) -> dict[str, Any]:
    score = run.score
    told: dict[str, Any] = {
        "run": run.n,
        "method": run.method,
        "changed": {key: list(values) for key, values in run.changed.items()},
        "changed_by": run.changed_by,
        "value": score.value if score else None,
        "interval": [score.ci_low, score.ci_high] if score else None,
        "n": score.n if score else None,
        "verdict": run.verdict,
        "against_best": run.against_best,
        "failure": run.failure,
        "symptoms": run.symptoms,
        "forgets": run.forgets,
        "remedy": run.remedy,
        "stuck": run.stuck,
    }
    plain: dict[str, Any] = json.loads(json.dumps(told, default=str))
    return plain


def _failed(evaluation: Evaluation) -> list[Sample]:
    """Wrong items; of graded scores those that are worse than the mean."""
    measure = evaluation.measure
    texts = [sample for sample in evaluation.samples if sample.prompt is not None]
    if measure.counting is Counting.RIGHT:
        return [sample for sample in texts if sample.score < 1]
    mean = sum(sample.score for sample in texts) / max(1, len(texts))
    return [sample for sample in texts if measure.better(mean, sample.score)]


def _sample(sample: Sample) -> dict[str, Any]:
    texts = {name: shortened(getattr(sample, name)) for name in ("prompt", "response", "reference")}
    return {"id": sample.id, "score": sample.score, **texts, "finish": sample.finish}


def _bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in data_files(path))


def _finite(value: Any) -> float | None:
    return value if isinstance(value, int | float) and math.isfinite(value) else None
