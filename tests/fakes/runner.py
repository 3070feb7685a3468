"""A runner whose jobs end at once with scripted outcomes. It keeps its state in files, so it survives its process.

What a job leaves behind has the real shape: evaluations carry the very items the job was given, curves are curves that
the diagnosis engine really reads. A job that no outcome was scripted for fails, loudly.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bot.evaluation.benchmarks import bundle_digest
from bot.loop.models import weights_digest
from runners.checkpoints import CHECKPOINT_SECONDS, ask_for_checkpoint, checkpoint_is_made
from runners.job import FailureKind, Flavor, JobId, JobSpec, JobState, JobStatus, Swept, read_json
from runners.metrics import metric_rows

ENVIRONMENT = {"python": "3.11.7", "threads": 1, "libraries": {"torch": "2.13.0", "trl": "1.16.0"}}
"""What every scripted training says it saw."""


class ScriptedRunner:
    """Reads `script.json` in its root: {"train-01": {...}, "evaluate-01": {...}, ...}, by role and run;
    "train-01-2" is for that job's second attempt.

    Outcome keys: `value` (share of items answered right), `holdout` (that of the holdout; `value` by default), `curve`
    (`good`, `flat`, `diverged`, or `unseen`: no metrics), `fail` (log text of a failed job), `state` (of a failed job),
    `suggested` (a probe's rate), `environment` (what training saw differently), `weights` (digest that an evaluation
    names), `model` (a folder that training leaves a copy of), `checkpoint` (the step of one that training left), `hold`
    (true: runs until `release(name)`), `log` (of a job that succeeds), `saves` (true: it can be asked for a
    checkpoint), `watched` and `judged` (what its wrapper says of itself), `files` (path in the job's folder -> text,
    written last).
    """

    name = "scripted"
    isolates = True

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def script(self, outcomes: dict[str, dict[str, Any]]) -> None:
        (self.root / "script.json").write_text(json.dumps(outcomes), encoding="utf-8")

    def launches(self) -> list[str]:
        """Every job that was really started, in order; a job id twice would be a job run twice."""
        path = self.root / "launches.txt"
        return path.read_text(encoding="utf-8").split() if path.is_file() else []

    def release(self, name: str) -> None:
        (self.root / f"released-{name}").touch()

    # The Runner protocol

    def launch(self, spec: JobSpec) -> JobStatus:
        status = self.status(spec.job_id)
        if status is not None:
            return status
        outcome = self._outcome(spec.job_id)
        work = self.folder(spec.job_id)
        shutil.rmtree(work, ignore_errors=True)  # a launch that a kill cut off
        work.mkdir(parents=True)
        for target, source in spec.files.items():
            if Path(source).is_file():
                (work / target).parent.mkdir(parents=True, exist_ok=True)
                (work / target).write_bytes(Path(source).read_bytes())
        (work.parent / "spec.json").write_text(json.dumps(spec.as_dict()), encoding="utf-8")
        with (self.root / "launches.txt").open("a", encoding="utf-8") as file:
            file.write(f"{spec.job_id}\n")
        _produce(work, _name(spec.job_id), outcome, spec)
        for name, text in outcome.get("files", {}).items():
            (work / name).write_text(text, encoding="utf-8")
        started = time.time()
        state = (
            JobState(outcome.get("state", "failed")) if "fail" in outcome or "state" in outcome else JobState.SUCCEEDED
        )
        failure = FailureKind.SCRIPT_ERROR if state is JobState.FAILED else None
        status = JobStatus(
            spec.job_id,
            state,
            started,
            started + 1.0,
            0 if state is JobState.SUCCEEDED else 1,
            failure,
            tier="scripted",
            watched=bool(outcome.get("watched")),
            judged=outcome.get("judged"),
        )
        self._write(status)
        return self.status(spec.job_id) or status

    def status(self, job_id: JobId) -> JobStatus | None:
        data = read_json(self.root / job_id / "status.json")
        if data is None:
            return None
        status = JobStatus.from_dict(data)
        held = self._outcome(job_id).get("hold") and not (self.root / f"released-{_name(job_id)}").exists()
        if held and status.state is not JobState.CANCELLED:
            return JobStatus(job_id, JobState.RUNNING, status.started_at, tier="scripted", watched=status.watched)
        return status

    def cancel(self, job_id: JobId) -> JobStatus | None:
        status = self.status(job_id)
        if status is None or status.state.ended:
            return status
        self._write(JobStatus(job_id, JobState.CANCELLED, status.started_at, time.time(), 137, tier="scripted"))
        return self.status(job_id)

    def folder(self, job_id: JobId) -> Path:
        return self.root / job_id / "work"

    def checkpoint_first(self, job_id: JobId) -> float:
        """Where the outcome says `saves`; whoever plays the script takes the request away."""
        asked = self._outcome(job_id).get("saves") and ask_for_checkpoint(self.folder(job_id))
        return CHECKPOINT_SECONDS if asked else 0.0

    def checkpoint_is_made(self, job_id: JobId) -> bool:
        return checkpoint_is_made(self.folder(job_id))

    def log_tail(self, job_id: JobId, lines: int = 200) -> str:
        path = self.root / job_id / "log.txt"
        text = path.read_text(encoding="utf-8") if path.is_file() else self._log(job_id)
        return "\n".join(text.splitlines()[-lines:])

    def _log(self, job_id: JobId) -> str:
        outcome = self._outcome(job_id)
        return str(outcome.get("fail") or outcome.get("log", ""))

    def metrics(self, job_id: JobId, after: int = 0) -> list[dict[str, Any]]:
        return metric_rows(self.folder(job_id))[after:]

    def sweep(self) -> Swept:
        return Swept()

    def flavors(self) -> Sequence[Flavor]:
        """Those of `flavors.json`, where a test has put one."""
        offered = read_json(self.root / "flavors.json") or {}
        return tuple(Flavor(**each) for each in offered.get("flavors", ())) or (Flavor("scripted"),)

    def refresh(self, job_id: JobId | None = None) -> None:
        """Nothing is remembered between two calls."""

    def jobs(self) -> Sequence[JobId]:
        return [JobId(path.parent.name) for path in self.root.glob("*/status.json")]

    def _outcome(self, job_id: JobId) -> dict[str, Any]:
        outcomes = read_json(self.root / "script.json") or {}
        missing = {"fail": f"no outcome is scripted for {_name(job_id)}"}
        attempt = f"{_name(job_id)}-{job_id.rpartition('-')[2]}"
        found: dict[str, Any] = outcomes.get(attempt) or outcomes.get(
            _name(job_id), {} if "data" in job_id or "rebuild" in job_id else missing
        )
        return found

    def _write(self, status: JobStatus) -> None:
        path = self.root / status.job_id / "status.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(status.as_dict()), encoding="utf-8")
        partial.replace(path)


def _name(job_id: str) -> str:
    """`<role>-<run>` of `<repository>-<issue>-<digest>-<role>-<run>-<attempt>`."""
    role, run, _attempt = job_id.split("-")[-3:]
    return f"{role}-{run}"


def _produce(work: Path, name: str, outcome: dict[str, Any], spec: JobSpec) -> None:
    out = work / "out"
    out.mkdir(exist_ok=True)
    role = name.split("-")[0]
    if "fail" in outcome:
        return
    if role in ("data", "rebuild"):
        rows = outcome.get("rows") or [_row(f"speak {i} backwards please", f"word{i}") for i in range(200)]
        _jsonl(work / "data" / "train.jsonl", rows)
        _jsonl(work / "data" / "validation.jsonl", outcome.get("validation") or [_row("a validation prompt", "x")])
        digest = hashlib.sha256((work / "data" / "train.jsonl").read_bytes()).hexdigest()
        build = {"sources": _sources(work / "inputs"), "rows": len(rows), "validation_rows": 1, "dropped": {},
                 "columns": {}, "sha256": digest}  # fmt: skip
        (work / "data" / "build.json").write_text(json.dumps(build))
    elif role in ("train", "ablate", "retrain", "smoke"):
        if outcome.get("curve") != "unseen":
            _jsonl(out / "metrics.jsonl", _curve(outcome.get("curve", "good")))
        (out / "setup.json").write_text(json.dumps({"max_steps": 100}))
        (out / "summary.json").write_text(json.dumps({"steps": 100}))
        (out / "environment.json").write_text(json.dumps(ENVIRONMENT | outcome.get("environment", {})))
        if source := outcome.get("model"):
            shutil.copytree(source, out / "model")
        else:
            (out / "model").mkdir()
        if step := outcome.get("checkpoint"):
            (out / f"checkpoint-{step}").mkdir()
            (out / "latest").write_text(f"checkpoint-{step}")
    elif role == "audit":
        assert not spec.mounts and not spec.hardware.gpus, "an audit needs neither weights nor a GPU"
    elif role == "probe":
        trials = [{"learning_rate": r, "loss_first": 6.0, "loss_last": 1.0, "grad_norm_last": 1.0, "diverged": False}
                  for r in (1e-3, 3e-3)]  # fmt: skip
        probe = {"steps": 20, "trials": trials, "suggested": outcome.get("suggested"), "reason": "lowest loss"}
        (out / "probe.json").write_text(json.dumps(probe))
    else:
        outcome = outcome | {
            "weights": outcome.get("weights") or weights_digest(Path(spec.mounts["model"])) or "f" * 64
        }
        _evaluation(work, out, outcome, "sealed" if role == "confirm" else "dev")


def _sources(inputs: Path) -> list[dict[str, Any]]:
    """As data/prepare.py tells what it has read."""
    files = sorted(path for path in inputs.rglob("*") if path.is_file())
    return [
        {"path": str(path.relative_to(inputs)), "rows": 1, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in files
    ]


def _evaluation(work: Path, out: Path, outcome: dict[str, Any], split: str) -> None:
    rows = [json.loads(line) for line in (work / "items.jsonl").read_text(encoding="utf-8").splitlines()]
    value, weights = float(outcome["value"]), str(outcome["weights"])
    own = _result([row for row in rows if "set" not in row], value, split, weights)
    (out / "evaluation.json").write_text(json.dumps(own))
    if held := [row for row in rows if row.get("set") == "holdout"]:
        found = _result(held, float(outcome.get("holdout", value)), "holdout", weights)
        (out / "holdout.json").write_text(json.dumps(found))


def _result(items: list[dict[str, Any]], value: float, split: str, weights: str) -> dict[str, Any]:
    lost = math.isnan(value)  # a model whose weights are no numbers
    right = 0 if lost else round(value * len(items))
    if any("rubric" in item for item in items):
        return _unjudged(items, right, split, weights)
    samples = [
        {"id": item["id"], "prompt": item["prompt"], "response": "r", "reference": item["reference"],
         "score": math.nan if lost else float(i < right), "finish": "stop"}
        for i, item in enumerate(items)
    ]  # fmt: skip
    value = math.nan if lost else right / len(items)
    return {
        "benchmark": "practice/reverse", "harness_digest": "d" * 64, "model": "m", "metric": "exact_match",
        "value": value, "standard_error": math.sqrt(value * (1 - value) / len(items)), "n": len(items), "split": split,
        "strict": value, "lenient": value, "samples": samples, "weights": weights,
        "harness": {"bundle": bundle_digest(), "benchmark": "b" * 64, "versions": {}},
    }  # fmt: skip


def _unjudged(items: list[dict[str, Any]], right: int, split: str, weights: str) -> dict[str, Any]:
    """As the evaluator leaves answers that a rubric scores; so many of them are good ones."""
    samples = [
        {"id": item["id"], "prompt": item["prompt"], "response": "a good answer" if i < right else "a poor answer",
         "reference": "", "score": 0.0, "finish": "stop"}
        for i, item in enumerate(items)
    ]  # fmt: skip
    return {
        "benchmark": "judged", "harness_digest": "d" * 64, "model": "m", "metric": "rubric_score", "value": 0.0,
        "standard_error": 0.0, "n": len(items), "split": split, "strict": 0.0, "lenient": 0.0, "judged": False,
        "samples": samples, "weights": weights,
        "harness": {"bundle": bundle_digest(), "benchmark": "b" * 64, "versions": {}},
    }  # fmt: skip


def _curve(kind: str) -> list[dict[str, Any]]:
    shapes: dict[str, Callable[[int], float]] = {
        "good": lambda i: 6.0 * math.exp(-i / 12) + 0.004,
        "flat": lambda i: 6.3 - 0.004 * i,
        "diverged": lambda i: 6.0 if i < 10 else 12.0,
    }
    losses = shapes[kind]
    return [
        {"step": i + 1, "loss": losses(i), "grad_norm": 2.0 * losses(i) / 6.0, "learning_rate": 2e-5}
        for i in range(100)
    ]


def _row(prompt: str, completion: str) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": prompt}],
        "completion": [{"role": "assistant", "content": completion}],
    }


def _jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
