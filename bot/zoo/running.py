"""Carries out one specimen: builds its rows, trains with the shipped script, asks the real evaluator.

Every step is a process forked from one that has its imports behind it (`bot.practice.warm`), in a folder of its own.
What is left is the folder of a job as a runner would leave it, and an `Outcome`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bot.domain.goal import digest_of
from bot.domain.scripts import SCRIPTS
from bot.errors import PlatformError
from bot.evaluation.benchmarks import BUNDLE, SHIPPED
from bot.practice.tiny_base import cached_path
from bot.practice.warm import EVALUATION_IMPORTS, IMPORTS, Ended, Warm, WarmJob
from bot.zoo.hub import HubStub
from bot.zoo.job_folder import write_inputs, write_lines
from bot.zoo.specimen import OLD_ITEMS, Json, Specimen, dev_items, fresh_items
from runners.launching import CONFIG_FILE, SCRIPT_FILE, Sharding, accelerate_config
from runners.outcome import Ending, outcome

MOST_SECONDS = 600.0
"""No run of the zoo takes half as long on one core; one that hangs is given up and counted."""
LOOK_SECONDS = 0.1
LAST_SECONDS = 30.0
"""For a process that was asked to end."""


@dataclass(slots=True)
class Outcome:
    """What the world outside the trace knows of a run."""

    exit_code: int
    """Of the script, or of data/prepare.py when that refused."""
    state: str
    failure: str | None
    evidence: list[str] = field(default_factory=list)
    steps: int = 0
    """That were done."""
    planned: int = 0
    value: float | None = None
    n: int = 0
    fresh: float | None = None
    old_before: float | None = None
    old_after: float | None = None
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    timeout_seconds: float | None = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Outcome:
        return cls(**{key: data[key] for key in cls.__dataclass_fields__ if key in data})

    def as_dict(self) -> Json:
        return asdict(self)


def methods_here() -> set[str]:
    """The methods whose script ships, among those that the zoo knows."""
    return {name for name in ("sft", "dpo", "grpo") if (SCRIPTS / f"{name}.py").is_file()}


class Keeper:
    """Runs specimens; baselines and earlier runs are kept in `cache` and done once."""

    def __init__(self, cache: Path, base: Path | None = None) -> None:
        self.cache, self.base = cache, (base or cached_path()).resolve()
        self._warm: Warm | None = None
        self._once = threading.RLock()
        self._spent = threading.local()
        self._launched: set[subprocess.Popen[bytes]] = set()
        self._closed = False

    def __enter__(self) -> Keeper:
        environment = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
        self._warm = Warm((*IMPORTS, *EVALUATION_IMPORTS), environment=environment)
        self._warm.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._closed = True
        for process in list(self._launched):
            process.terminate()  # the launcher ends what it has started
        if self._warm is not None:
            self._warm.__exit__(*raised)

    @property
    def cpu_seconds(self) -> float:
        """Taken by all that this thread has run."""
        return float(getattr(self._spent, "seconds", 0.0))

    # --- One specimen -----------------------------------------------------------------------------------------------

    def run(self, specimen: Specimen, folder: Path) -> Outcome:
        """Everything from the rows to the score, in `folder`, which must not exist."""
        folder.mkdir(parents=True)
        base = self._base_for(specimen, folder)
        write_inputs(specimen, folder)
        began = time.monotonic()
        found = self._trained(specimen, folder, base)
        found.seconds = round(time.monotonic() - began, 2)
        setup = _json(folder / "out" / "setup.json")
        found.planned = int(setup.get("max_steps") or specimen.recipe.get("max_steps") or 0)
        found.steps = _steps_done(folder / "out" / "metrics.jsonl")
        if found.state == "succeeded":
            self._evaluated(specimen, folder, base, found)
        return found

    def _base_for(self, specimen: Specimen, folder: Path) -> Path:
        """The model to start from, as `base` in the job's folder: the practice base, an earlier run, an edited copy."""
        source = self.base if specimen.earlier is None else self._earlier(specimen.earlier)
        base = folder / "base"
        if not specimen.base_edits:
            base.symlink_to(source)
            return base
        shutil.copytree(source, base)
        for edit in specimen.base_edits:
            edit(base)
        return base

    def _earlier(self, specimen: Specimen) -> Path:
        """The model of a run that went before, trained once."""
        key = digest_of([specimen.method, specimen.task, specimen.seed, specimen.recipe])[:12]
        kept = self.cache / f"model-{key}"
        with self._once:
            if not kept.is_dir():
                place = self.cache / f".earlier-{key}"
                shutil.rmtree(place, ignore_errors=True)
                found = self.run(specimen, place)
                if found.state != "succeeded":
                    raise PlatformError(f"the run before ended as {found.state}: {_tail(place / 'log.txt')}")
                (place / "out" / "model").rename(kept)
                shutil.rmtree(place)
        return kept.resolve()

    def _trained(self, specimen: Specimen, folder: Path, base: Path) -> Outcome:
        log = folder / "log.txt"
        prepared = self._prepared(specimen, folder, log)
        if prepared is not None and prepared.exit_code != 0:
            return _ended_as(prepared, log)
        words = ["train.py", "--config", "recipe.yaml", "--train_file", "data/train.jsonl", "--output_dir", "out"]
        if (folder / "data" / "validation.jsonl").exists():
            words += ["--validation_file", "data/validation.jsonl"]
        if specimen.hub is not None:
            return self._trained_from_hub(specimen, words, folder, log)
        words += ["--init_from", "base"]
        if specimen.processes > 1:
            return self._trained_side_by_side(specimen, words, folder, log)
        limits = {"address_space_gib": specimen.address_space_gib, "file_size_mib": specimen.file_size_mib}
        job = self._start(words, folder, log, environment=specimen.environment, **limits)
        stopped = self._stopped_at(specimen, job, folder / "out" / "metrics.jsonl")
        return _ended_as(self._waited(job), log, timed_out_after=stopped)

    def _prepared(self, specimen: Specimen, folder: Path, log: Path) -> Ended | None:
        """How data/prepare.py ended; None where the rows are there already."""
        if specimen.train_rows is not None:
            return None
        words = ["data/prepare.py", "--config", "recipe.yaml", "--inputs", "inputs", "--output", "data"]
        return self._waited(self._start(words, folder, log))

    def _stopped_at(self, specimen: Specimen, job: WarmJob, metrics: Path) -> float | None:
        """Kills a job whose time limit strikes; by the step and not by the clock, or no two makings were alike."""
        if specimen.stop_at_share is None:
            return None
        last, began = max(1, int(specimen.steps * specimen.stop_at_share)), time.monotonic()
        while job.wait(LOOK_SECONDS) is None:
            if _steps_done(metrics) >= last:
                job.kill()
                _cut_after(metrics, last)
                return round(time.monotonic() - began, 1)
        return None

    def _trained_from_hub(self, specimen: Specimen, words: list[str], folder: Path, log: Path) -> Outcome:
        """In a process of its own: the libraries read the Hub's address when they are imported."""
        with HubStub(str(specimen.hub)) as hub:
            place = {"HF_ENDPOINT": hub.address, "HF_HOME": str(folder / "hub")}
            return self._started_anew(words, folder, log, place | specimen.environment)

    def _trained_side_by_side(self, specimen: Specimen, words: list[str], folder: Path, log: Path) -> Outcome:
        """In several processes, by the launcher and with the settings that a runner gives its jobs."""
        config = accelerate_config(Sharding.REPLICATED, specimen.processes, cpu=True)
        (folder / CONFIG_FILE).write_text(config, encoding="utf-8")
        shutil.copyfile(SCRIPTS.parent / SCRIPT_FILE, folder / SCRIPT_FILE)
        words = [SCRIPT_FILE, "--config_file", CONFIG_FILE, *words]
        # Torch's launcher keeps its own logs in TMPDIR, and leaves them there.
        settings = {"HF_HUB_OFFLINE": "1", "TMPDIR": str(folder)}
        return self._started_anew(words, folder, log, settings | specimen.environment)

    def _started_anew(self, words: list[str], folder: Path, log: Path, variables: Mapping[str, str]) -> Outcome:
        """By a Python of its own, which has to import everything first."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        environment |= {"OMP_NUM_THREADS": "1", **variables}
        began = time.monotonic()
        with log.open("ab") as out:
            process = subprocess.Popen([sys.executable, *words], cwd=folder, stdout=out, stderr=out, env=environment)
            self._launched.add(process)
            try:
                code = process.wait(MOST_SECONDS)
            except subprocess.TimeoutExpired:
                process.terminate()  # the launcher ends what it has started
                try:
                    process.wait(LAST_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                raise PlatformError(f"a run did not end within {MOST_SECONDS:.0f} s") from None
            finally:
                self._launched.discard(process)
        if self._closed:
            raise PlatformError("the making was interrupted")
        seconds = time.monotonic() - began
        return _ended_as(Ended(code, seconds, seconds, 0.0), log)

    def probe(self, specimen: Specimen, folder: Path, rates: Sequence[float]) -> Json:
        """What a learning-rate range test over these rates says; empty when it failed."""
        folder.mkdir(parents=True)
        self._base_for(specimen, folder)
        write_inputs(specimen, folder)
        log = folder / "log.txt"
        prepared = self._prepared(specimen, folder, log)
        if prepared is not None and prepared.exit_code != 0:
            return {}
        words = ["train.py", "--config", "recipe.yaml", "--init_from", "base", "--output_dir", "out",
                 "--learning_rate_probe", ",".join(map(str, rates))]  # fmt: skip
        self._waited(self._start(words, folder, log))
        return _json(folder / "out" / "probe.json")

    # --- The evaluator ----------------------------------------------------------------------------------------------

    def _evaluated(self, specimen: Specimen, folder: Path, base: Path, found: Outcome) -> None:
        model = folder / "out" / "model"
        for edit in specimen.served_edits:
            edit(model, base)
        asked = base if specimen.evaluates_base else model
        items = [*dev_items(specimen.task), *fresh_items(specimen.task, specimen.seed)]
        whole = self.evaluation(specimen, asked, items, folder / "evaluation")
        n = len(dev_items(specimen.task))
        dev, fresh = _part(whole, 0, n), _part(whole, n, len(items))
        found.value, found.n, found.fresh = dev["value"], dev["n"], fresh["value"]
        dev["fresh"] = {"value": fresh["value"], "n": fresh["n"]}
        if specimen.old_task is not None:
            self._ask_old_task(specimen, asked, base, folder, found)
            dev["old_tasks"] = [{"name": f"practice/{specimen.old_task}", "before": found.old_before,
                                 "after": found.old_after, "n": OLD_ITEMS}]  # fmt: skip
        _write(folder / "evaluation.json", dev)
        _write(folder / "baseline.json", self._baseline(specimen, base, folder))

    def _ask_old_task(self, specimen: Specimen, asked: Path, base: Path, folder: Path, found: Outcome) -> None:
        old = Specimen(specimen.method, str(specimen.old_task), 0, {}, [])
        items = dev_items(old.task)[:OLD_ITEMS]
        found.old_after = self.evaluation(old, asked, items, folder / "old")["value"]
        found.old_before = self.evaluation(old, base, items, folder / "old-before")["value"]

    def _baseline(self, specimen: Specimen, base: Path, folder: Path) -> Json:
        """The model to start from, on the same items; the practice base answers each benchmark once."""
        plain = not (specimen.base_edits or specimen.earlier or specimen.benchmark_edits or specimen.reference_prefix)
        kept = self.cache / f"baseline-{specimen.task}.json"
        if not plain:
            return self.evaluation(specimen, base, dev_items(specimen.task), folder / "baseline")
        with self._once:
            if not kept.exists():
                _write(kept, self.evaluation(specimen, base, dev_items(specimen.task), folder / "baseline"))
        return _json(kept)

    def evaluation(self, specimen: Specimen, model: Path, items: list[tuple[str, str]], folder: Path) -> Json:
        """What the evaluator says of a model. Raises: PlatformError when it fails, which is no fault of a run's."""
        folder.mkdir(parents=True, exist_ok=True)
        benchmark = yaml.safe_load((SHIPPED / "practice" / f"{specimen.task}.yaml").read_text(encoding="utf-8"))
        for edit in specimen.benchmark_edits:
            edit(benchmark)
        (folder / "benchmark.yaml").write_text(yaml.safe_dump(benchmark, sort_keys=False), encoding="utf-8")
        rows = [
            {"id": digest_of([specimen.task, prompt])[:16], "prompt": prompt,
             "reference": specimen.reference_prefix + reference}
            for prompt, reference in items
        ]  # fmt: skip
        write_lines(folder / "items.jsonl", rows)
        words = [str(BUNDLE / "evaluate.py"), "--model", str(model), "--benchmark", "benchmark.yaml", "--items",
                 "items.jsonl", "--split", "dev", "--output", "out.json", "--model_name", "model"]  # fmt: skip
        log = folder / "log.txt"
        ended = self._waited(self._start(words, folder, log))
        if ended.exit_code != 0:
            raise PlatformError(f"the evaluator ended with {ended.exit_code}: {_tail(log)}")
        return _json(folder / "out.json")

    # --- Processes --------------------------------------------------------------------------------------------------

    def _start(self, words: list[str], folder: Path, log: Path, **others: Any) -> WarmJob:
        assert self._warm is not None
        return self._warm.start(words, cwd=folder, log=log, **others)

    def _waited(self, job: WarmJob) -> Ended:
        ended = job.wait(MOST_SECONDS)
        if ended is None:
            job.kill(signal.SIGKILL)
            raise PlatformError(f"a run did not end within {MOST_SECONDS:.0f} s")
        if ended.exit_code == -signal.SIGKILL and not ended.seconds:
            # And this run with it, for no fault of its own.
            raise PlatformError("the process for practice jobs has ended")
        self._spent.seconds = self.cpu_seconds + ended.cpu_seconds
        return ended


# --- What it left ---------------------------------------------------------------------------------------------------


def _ended_as(ended: Ended, log: Path, *, timed_out_after: float | None = None) -> Outcome:
    """Classified by the same evidence as any runner's job."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    state, failure, code, evidence = outcome(
        Ending(ended.exit_code, sandboxed=False, timed_out_after_seconds=timed_out_after, log_tail=text[-8000:])
    )
    return Outcome(
        exit_code=code if code is not None else ended.exit_code, state=str(state),
        failure=str(failure) if failure else None, evidence=list(evidence), cpu_seconds=ended.cpu_seconds,
        timeout_seconds=timed_out_after,
    )  # fmt: skip


def _part(whole: Json, first: int, last: int) -> Json:
    """The evaluation over some of its samples, as the evaluator would have written it for them alone."""
    samples = whole["samples"][first:last]
    scores = [sample["score"] for sample in samples]
    n, value = len(samples), sum(scores) / len(samples)
    spread = sum((score - value) ** 2 for score in scores) / max(1, n - 1)
    return whole | {
        "value": value, "strict": value, "n": n, "standard_error": (spread / n) ** 0.5, "samples": samples,
        "lenient": sum(sample["lenient_score"] for sample in samples) / n,
        "termination_rate": sum(sample["finish"] == "stop" for sample in samples) / n,
    }  # fmt: skip


def _steps_done(metrics: Path) -> int:
    try:
        lines = metrics.read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    for line in reversed(lines):
        try:
            return int(json.loads(line)["step"])
        except (ValueError, KeyError):
            continue
    return 0


def _cut_after(metrics: Path, last: int) -> None:
    """What was logged between the look and the kill goes, so that a second making leaves the same trace."""
    rows = metrics.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [row for row in rows if row.endswith("}\n") and json.loads(row)["step"] <= last]
    metrics.write_text("".join(kept), encoding="utf-8")


def _json(path: Path) -> Json:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(path: Path, value: Json) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False) + "\n", encoding="utf-8")


def _tail(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines() if path.exists() else []
    return lines[-1] if lines else "it wrote nothing"
