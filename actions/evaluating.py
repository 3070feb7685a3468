"""Modes `evaluate` and `gate`: models measured by `postdoc evaluate` on the same items, and what the numbers show."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import yaml

from actions import checkout
from actions.child import expect_success, postdoc
from actions.models import Measured, measured
from actions.request import Request
from actions.result import Result, cost, score_of
from actions.workflow_commands import group
from bot.domain.comparison import compare
from bot.domain.evaluation import Comparison, Evaluation, Verdict
from bot.domain.metrics import metric_named
from bot.errors import UserError


@dataclass(frozen=True, slots=True)
class Evaluated:
    name: str
    evaluation: Evaluation
    seconds: float
    """0 for an evaluation that was brought along."""


def evaluate(request: Request) -> Result:
    """Raises: UserError, PlatformError."""
    found = evaluated(request, "model", measured(request, "model", request.model))
    score = score_of(found.name, found.evaluation)
    measure = found.evaluation.measure
    margin = measure.bare_interval(score.low, score.high)
    return Result(
        "evaluate", "succeeded", 0,
        f"{measure.said(score.value)} ({margin}, n = {score.n}) on {score.benchmark}.",
        (score,), seconds=found.seconds, cost_usd=cost(found.seconds, request.usd_per_hour), model=request.model,
        notes=_benchmark_note(request),
    )  # fmt: skip


def gate(request: Request) -> Result:
    """Head against base on the same items. Only `worse` fails. Raises: UserError, PlatformError."""
    try:
        base, head = _both(request)
    finally:
        checkout.remove_base_folder(request)
    found = compare(base.evaluation, head.evaluation)
    state = {Verdict.WORSE: "failed", Verdict.BETTER: "passed", Verdict.CANNOT_TELL: "neutral"}[found.verdict]
    seconds = base.seconds + head.seconds
    return Result(
        "gate", state, 1 if found.verdict is Verdict.WORSE else 0, told(found, "The head", "base"),
        (score_of("base", base.evaluation), score_of("head", head.evaluation)), found, seconds=seconds,
        cost_usd=cost(seconds, request.usd_per_hour), model=request.model, notes=_benchmark_note(request),
    )  # fmt: skip


def _both(request: Request) -> tuple[Evaluated, Evaluated]:
    """Base and head, the base first: where it cannot be had, the head is not paid for."""
    commit = checkout.base_commit(request)
    text = request.base_model or (request.model if commit else "")
    if not text or (text == request.model and not commit):
        raise UserError(
            "gate needs something to compare with: write `base-model`, or `base-ref`, or run on a pull request, whose "
            "base commit is taken."
        )
    other = measured(request, "base-model", text, commit)
    if text == request.model and other.address == request.model:
        raise UserError(f"gate would compare {text} with itself: name the model to compare with in `base-model`.")
    base = evaluated(request, "base", other)
    return base, evaluated(request, "head", measured(request, "model", request.model))


def evaluated(request: Request, name: str, model: Measured) -> Evaluated:
    """Measured now, or as it was brought along. The artifact gets the form without the benchmark's texts.

    Raises: UserError, PlatformError.
    """
    seconds = 0.0
    found = model.evaluation
    if found is None:
        path, started = request.folder / f"{name}.json", time.monotonic()
        words = ["evaluate", "--model", model.address, "--benchmark", benchmark(request), "--split", request.split]
        words += ["--seed", str(request.seed), "--memory-gib", f"{request.memory_gib:g}", "--json", str(path)]
        with group(f"evaluate {name}"):
            expect_success(postdoc(words, request.workspace), f"the evaluation of {name}")
        seconds = time.monotonic() - started
        found = Evaluation.from_dict(json.loads(path.read_text(encoding="utf-8")))
    request.artifact.mkdir(parents=True, exist_ok=True)
    target = request.artifact / ("evaluation.json" if name in ("model", "head", "trained") else f"{name}.json")
    target.write_text(json.dumps(found.public(), indent=1) + "\n", encoding="utf-8")
    return Evaluated(name, found, seconds)


def told(found: Comparison, subject: str, other: str) -> str:
    """The comparison in one sentence that stands alone."""
    measure = metric_named(found.metric)
    change = measure.said_change(found.difference, found.ci_low, found.ci_high)
    least = measure.said_size(found.minimum_detectable)
    match found.verdict:
        case Verdict.BETTER:
            return f"{subject} is better than {other}: {change} on the same {found.n:,} items."
        case Verdict.WORSE:
            return f"{subject} is significantly worse than {other}: {change} on the same {found.n:,} items."
        case Verdict.CANNOT_TELL:
            needed = f" To tell a difference of this size takes about {found.n_needed:,}." if found.n_needed else ""
            smallest = f" The smallest difference that they would show is {least}."
            return f"Cannot tell: {change} on the same {found.n:,} items.{needed}{smallest}"


# --- The benchmark --------------------------------------------------------------------------------------------------


def _is_file(name: str) -> bool:
    return name.lower().endswith((".yaml", ".yml"))


def benchmark(request: Request) -> str:
    """What `postdoc evaluate --benchmark` takes: a name, or the path of a copy of the team's own benchmark, which a
    pull request cannot change. Raises: UserError."""
    if not _is_file(request.benchmark):
        return request.benchmark
    commit = checkout.base_commit(request)
    if not commit:
        return str(checkout.inside(request, "benchmark", request.benchmark))
    pure = PurePosixPath(request.benchmark)
    folder = request.folder / "benchmark"
    folder.mkdir(exist_ok=True)
    text = checkout.base_file(request, commit, pure.as_posix())
    (folder / pure.name).write_bytes(text)
    for beside in _files_beside(request.benchmark, text):
        place = folder / beside
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(checkout.base_file(request, commit, (pure.parent / beside).as_posix()))
    return str(folder / pure.name)


def benchmark_files(request: Request) -> list[str]:
    """Paths in the repository of a team's own benchmark and of the files with its items; none of a shipped one.

    Raises: UserError.
    """
    if not request.benchmark or not _is_file(request.benchmark):
        return []
    pure = PurePosixPath(request.benchmark)
    path = Path(benchmark(request))
    if not path.is_file():
        raise UserError(f"benchmark: there is no {request.benchmark} in the checkout; write the path of a file there.")
    return [pure.as_posix(), *((pure.parent / each).as_posix() for each in _files_beside(pure.name, path.read_bytes()))]


def _files_beside(name: str, text: bytes) -> list[str]:
    """The files beside a benchmark's YAML that hold its items, as `bot.evaluation.benchmark_file` has the format.

    Raises: UserError.
    """
    try:
        content = yaml.safe_load(text)
        items, splits = content["items"], content.get("splits") or {}
        named = [] if items.get("hub") else [items.get("file"), *(each.get("file") for each in splits.values())]
        named += (
            []
            if items.get("hub")
            else [(items.get("join") or {}).get("file"), (content.get("shots") or {}).get("file")]
        )
        named += [each for each in content.get("old_tasks") or () if str(each).endswith(".jsonl")]
        found = [str(one) for each in named if each for one in (each if isinstance(each, list) else [each])]
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"benchmark: {name} has no `items` that can be read; look at it with `postdoc evaluate`."
        ) from None
    for each in found:
        if PurePosixPath(each).is_absolute() or ".." in PurePosixPath(each).parts:
            raise UserError(f"benchmark: {name} names items in {each}; they must lie beside it.")
    return list(dict.fromkeys(found))


def _benchmark_note(request: Request) -> tuple[str, ...]:
    if not _is_file(request.benchmark):
        return ()
    commit = checkout.base_commit(request)
    where = f"the base commit {commit[:9]}" if commit else "the checkout"
    return (f"The benchmark and its items were read from {where}.",)
