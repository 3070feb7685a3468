"""What a runner costs beside the bare command: the same training by `python train.py` and through each backend that
this machine can run, one after the other in every round.

The training is the shipped script on the practice forge's tiny base. Wall time is taken from the request to the moment
at which the caller sees the end; a far backend's includes packing, transfer and polling. A backend appears here by its
module in `tests/runners/harnesses`.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bot.evaluation.tasks import training_rows
from bot.practice.tiny_base import cached_path, is_built
from runners.job import Caps, JobId, JobSpec, JobState
from runners.metrics import metric_rows
from tests.bench.printing import figure
from tests.runners import harnesses

BAR_LOCAL = 1.03
STEPS, LEAST_SECONDS = 200, 10.0
_SCRIPT = Path(__file__).resolve().parents[2] / "templates/scripts/sft.py"
_RECIPE = (
    "method: sft\nlearning_rate: 1.0e-3\nper_device_train_batch_size: 16\nmax_length: 64\nsave_strategy: 'no'\n"
    "seed: 0\nmax_steps: {steps}\n"
)
_LOOK_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Taken:
    seconds: float
    first_metric_seconds: float
    training_seconds: float


def measure(repeat: int, names: Sequence[str] = ()) -> tuple[list[str], list[dict[str, Any]]]:
    """Lines to print, and what they were made of. `names` are the backends to try, all of them when empty."""
    if not is_built(cached_path()):
        subprocess.run([sys.executable, "-m", "bot.practice.tiny_base", "--quiet"], check=True)
    lines, results = [f"Runners beside the bare command, {STEPS} steps of sft.py on the tiny base, interleaved"], []
    with tempfile.TemporaryDirectory(prefix="postdoc-bench-") as place:
        folder = Path(place)
        files = inputs(folder)
        backends, missing = started(folder, names)
        try:
            bare(folder / "warm", files, steps=2)
            for number in range(repeat):
                round_: dict[str, Taken] = {"bare": bare(folder / f"bare-{number}", files)}
                for name, harness in backends.items():
                    # A container has what its image has, and most tests need one that is quick to make.
                    runner = getattr(harness, "training_runner", harness.runner)()
                    round_[name] = through(runner, JobId(f"bench-{number}"), files)
                results.append(round_)
        finally:
            for harness in backends.values():
                harness.close()
    lines += report(results)
    lines += [f"  {name:<10} not tried: {why}" for name, why in missing.items()]
    shown = [{name: dict(zip(taken.__slots__, _values(taken), strict=True)) for name, taken in each.items()}
             for each in results]  # fmt: skip
    return lines, shown


def _values(taken: Taken) -> tuple[float, ...]:
    return taken.seconds, taken.first_metric_seconds, taken.training_seconds


def inputs(folder: Path) -> dict[str, Path]:
    rows = training_rows("reverse", 2000, 0)
    files = {"train.py": _SCRIPT, "recipe.yaml": folder / "recipe.yaml", "data/train.jsonl": folder / "train.jsonl"}
    files["recipe.yaml"].write_text(_RECIPE.format(steps=STEPS))
    files["data/train.jsonl"].write_text("".join(json.dumps(row) + "\n" for row in rows))
    return files


def started(folder: Path, names: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Backends that can be tried, and why the others cannot."""
    found: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for name in sorted(module.name for module in pkgutil.iter_modules(harnesses.__path__)):
        if names and name not in names:
            continue
        kind = importlib.import_module(f"{harnesses.__name__}.{name}").Harness
        if why := kind.missing():
            missing[name] = why
            continue
        (folder / name).mkdir()
        found[name] = kind(folder / name)
    return found, missing


def command(python: str, base: str, *more: str) -> list[str]:
    words = [python, "train.py", "--config", "recipe.yaml", "--init_from", base, "--output_dir", "out"]
    return [*words, "--train_file", "data/train.jsonl", *more]


def bare(work: Path, files: dict[str, Path], steps: int = STEPS) -> Taken:
    for target, source in files.items():
        (work / target).parent.mkdir(parents=True, exist_ok=True)
        (work / target).write_bytes(source.read_bytes())
    environment = {"PATH": os.environ["PATH"], "HOME": str(work), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
                   "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}  # fmt: skip
    begun = time.monotonic()
    with open(work / "log.txt", "wb") as log:
        process = subprocess.Popen(
            command(sys.executable, str(cached_path()), "--max_steps", str(steps)), cwd=work, env=environment,
            stdout=log, stderr=log,
            # As a job is: on a busy machine the scheduler divides the processor among sessions first.
            start_new_session=True,
        )  # fmt: skip
        taken = followed(begun, lambda: bool(metric_rows(work)), lambda: process.poll() is not None)
    if process.returncode != 0:
        raise SystemExit(f"the bare training failed:\n{(work / 'log.txt').read_text()[-2000:]}")
    return trained(taken, work)


def through(runner: Any, job_id: JobId, files: dict[str, Path]) -> Taken:
    spec = JobSpec(
        job_id,
        tuple(command("{python}", "{mount:init}")),
        files={target: str(source) for target, source in files.items()},
        mounts={"init": str(cached_path())},
        caps=Caps(memory_gib=4, timeout_seconds=900),
        trusted=True,
    )
    begun = time.monotonic()
    runner.launch(spec)
    taken = followed(begun, lambda: bool(runner.metrics(job_id)), lambda: runner.status(job_id).state.ended)
    status = runner.status(job_id)
    if status.state is not JobState.SUCCEEDED:
        raise SystemExit(f"{runner.name}: {status.state} {status.evidence}\n{runner.log_tail(job_id, 20)}")
    return trained(taken, runner.folder(job_id))


def followed(begun: float, has_metric: Callable[[], bool], has_ended: Callable[[], bool]) -> tuple[float, float]:
    """Seconds to the end and to the first metric."""
    first = None
    while not has_ended():
        if first is None and has_metric():
            first = time.monotonic() - begun
        time.sleep(_LOOK_SECONDS)
    seconds = time.monotonic() - begun
    return seconds, first if first is not None else seconds


def trained(taken: tuple[float, float], work: Path) -> Taken:
    summary = json.loads((work / "out/summary.json").read_text())
    return Taken(*taken, float(summary["train_seconds"]))


def report(results: list[dict[str, Taken]]) -> list[str]:
    bare_seconds = statistics.median(each["bare"].seconds for each in results)
    training = statistics.median(each["bare"].training_seconds for each in results)
    first = statistics.median(each["bare"].first_metric_seconds for each in results)
    short = "" if training >= LEAST_SECONDS else f", too short for a ratio ({LEAST_SECONDS:g} s are wanted)"
    lines = [f"  bare {bare_seconds:.2f} s, {training:.2f} s of it training{short}; first metric after {first:.2f} s"]
    for name in results[0]:
        if name == "bare":
            continue
        ratios = [each[name].seconds / each["bare"].seconds for each in results]
        later = [each[name].first_metric_seconds - each["bare"].first_metric_seconds for each in results]
        bar = BAR_LOCAL if name == "local" else 0.0
        shown = figure(f"{name} ÷ bare", ratios, bar) if bar else (
            f"  {name + ' ÷ bare':<18} {statistics.median(ratios):8.3g}  ({min(ratios):.3g} to {max(ratios):.3g})"
        )  # fmt: skip
        lines.append(f"{shown}; first metric {statistics.median(later):+.2f} s")
    return lines
