"""What a run leaves behind: the folder that is diagnosed, and the smaller one that is committed."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from bot.conversation.policy import Policy
from bot.diagnosis.folder import STOPPED
from bot.domain.evaluation import Evaluation
from bot.domain.experiment import BASELINE, Experiment, Job, JobRole, Run
from bot.domain.inert import printable
from bot.domain.redaction import redact
from bot.errors import UserError
from bot.loop.actions.jobs import status_of
from bot.loop.actions.specs import goal_folder
from bot.loop.hardware import estimates_of
from bot.loop.spending import data_key
from bot.loop.world import World
from runners.job import JobId
from runners.metrics import METRICS, metric_rows
from runners.outputs import read_output

CURVE_POINTS = 500
"""Most points of a committed curve."""
LOG_LINES = 200
EVALUATION, HOLDOUT = "out/evaluation.json", "out/holdout.json"
"""Of an evaluation job. The second is read by the Ladder alone: it goes into no trace and no commit."""
ENVIRONMENT = "out/environment.json"
TRAINING_FILES = ("metrics.jsonl", "data_audit.json", "setup.json", "trainer_state.json", "completions.jsonl")
"""Of a training job's folder `out`, as the diagnosis reads them. Sampled answers stay in the bot's own folder."""


def output(folder: Path | None, path: str) -> bytes | None:
    """A file that a job wrote, read without following a link out of its folder; None when it is not there."""
    if folder is None:
        return None
    try:
        return read_output(folder, path)
    except (OSError, UserError):
        return None


def output_json(folder: Path | None, path: str) -> dict[str, Any] | None:
    return _object(output(folder, path))


def built_rows(world: World, x: Experiment, run: Run) -> bytes | None:
    """train.jsonl as the run's data job built it."""
    job_id = x.data.get(data_key(run.recipe, run.digests), {}).get("job_id")
    return output(world.runner.folder(JobId(job_id)), "data/train.jsonl") if job_id is not None else None


def job_path(world: World, x: Experiment, role: JobRole, run: int) -> Path | None:
    job = x.job_for(role, run)
    return world.runner.folder(JobId(job.job_id)) if job is not None else None


def metrics_of(folder: Path | None, path: str = METRICS) -> list[dict[str, Any]]:
    """The logged steps of a training job, oldest first; none for a job that was never started."""
    return metric_rows(folder, path) if folder is not None else []


def number(value: Any) -> float | None:
    """A metric as a finite number; None for the strings that stand for not-a-number."""
    try:
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
    except OverflowError:  # JSON has integers of any length
        return None


def losses_of(world: World, job: Job | None) -> dict[int, float]:
    """Step -> loss of a training job, where it is a number."""
    rows = metrics_of(world.runner.folder(JobId(job.job_id)) if job is not None else None)
    found = ((int(row["step"]), number(row["loss"])) for row in rows if "loss" in row and "step" in row)
    return {step: loss for step, loss in found if loss is not None}


def _data_of(x: Experiment, run: Run) -> dict[str, Any]:
    """What the build says of the training set, and the rows of it that were left out because they hold items."""
    checked = x.data.get(data_key(run.recipe, run.digests), {})
    left_out = {key: checked[key] for key in ("dropped_rows", "dropped_validation_rows") if checked.get(key)}
    return {**checked.get("build", {}), **left_out}


def environment_of(world: World, job: Job | None) -> dict[str, Any]:
    """What a training job saw, as it wrote it down, and what it was launched on, as the journal has it."""
    if job is None:
        return {}
    seen = output_json(world.runner.folder(JobId(job.job_id)), ENVIRONMENT) or {}
    placed = {key: value for key, value in {**job.place, "tier": status_of(job).get("tier")}.items() if value}
    return placed | seen


def collect_trace(world: World, x: Experiment, run: Run) -> Path:
    """Write the folder that `diagnose` reads, from the run's jobs."""
    assert x.goal is not None
    trace = goal_folder(world, x) / "runs" / f"{run.n:02d}" / "trace"
    trace.mkdir(parents=True, exist_ok=True)
    (trace / "recipe.yaml").write_text(run.recipe, encoding="utf-8")
    (trace / "goal.json").write_text(json.dumps(goal_of(x)), encoding="utf-8")
    train = x.job_for(JobRole.TRAIN, run.n)
    checked = x.data.get(data_key(run.recipe, run.digests), {})
    failing = train.job_id if train is not None else checked.get("job_id", "")
    (trace / "log.txt").write_text(world.runner.log_tail(JobId(failing), 2000), encoding="utf-8")
    status = status_of(train) or status_of(x.jobs.get(failing))
    if train is not None and train.stopped is not None:
        status = {**status, "state": STOPPED, "failure": None}
    (trace / "job.json").write_text(json.dumps(dict(status)), encoding="utf-8")
    trained = job_path(world, x, JobRole.TRAIN, run.n)
    evaluated = job_path(world, x, JobRole.EVALUATE, run.n)
    baseline = job_path(world, x, JobRole.BASELINE, BASELINE)
    found = {name: output(trained, f"out/{name}") for name in TRAINING_FILES}
    found |= {
        "evaluation.json": _with_before(output(evaluated, EVALUATION), output_json(baseline, EVALUATION)),
        "baseline.json": output(baseline, EVALUATION),
        "train.jsonl": output(trained, "data/train.jsonl") or built_rows(world, x, run),
        "hardware.json": _hardware(x, run, dict(status)),
    }
    for name, content in found.items():
        target = trace / name
        target.unlink(missing_ok=True)
        if content is not None:
            target.write_bytes(content)
    return trace


def goal_of(x: Experiment) -> dict[str, Any]:
    assert x.goal is not None
    return {"target": x.goal.target, "metric": x.goal.metric, "base_model": x.goal.base_model}


def _with_before(evaluation: bytes | None, baseline: Mapping[str, Any] | None) -> bytes | None:
    """An evaluation whose old tasks carry what the base model scored on them, where both were asked."""
    result = _object(evaluation)
    before = {
        str(task["name"]): task.get("after", task.get("value"))
        for task in (baseline or {}).get("old_tasks") or ()
        if isinstance(task, dict) and "name" in task
    }
    tasks = result.get("old_tasks") if result is not None else None
    if result is None or not isinstance(tasks, list) or not before:
        return evaluation
    for task in tasks:
        if isinstance(task, dict) and before.get(str(task.get("name"))) is not None:
            task["before"] = before[str(task["name"])]
            task.setdefault("after", task.get("value"))
    return json.dumps(result).encode()


def _hardware(x: Experiment, run: Run, status: Mapping[str, Any]) -> bytes | None:
    """What the recipe needs of its machine by estimate, for a run that met its limits; a run that fitted is its own
    proof that it fits."""
    if status.get("failure") != "oom":
        return None
    facts = x.data.get(data_key(run.recipe, run.digests), {}).get("hardware")
    found = estimates_of(facts, yaml.safe_load(run.recipe) or {}, Policy.from_dict(x.policy).usd_per_hour)
    if found is None:
        return None
    here = {"machine": found.here.flavor.name, "needed_gib": found.here.device_gib,
            "available_gib": found.here.available_gib, "largest_part": found.here.memory.explain()[0]}  # fmt: skip
    return json.dumps(here).encode()


def _object(content: bytes | None) -> dict[str, Any] | None:
    try:
        found = json.loads(content or b"null")
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def committed_files(world: World, x: Experiment, run: Run) -> dict[str, bytes]:
    """`runs/NN/...` of one run: provenance, curve, evaluation without texts, diagnosis, the log's tail."""
    root = f"{x.folder}/runs/{run.n:02d}"
    train = x.job_for(JobRole.TRAIN, run.n)
    if train is not None and not train.refused and not world.runner.folder(JobId(train.job_id)).exists():
        return {}  # the jobs' folders are lost: what was committed of them before stands
    log = world.runner.log_tail(JobId(train.job_id), LOG_LINES) if train is not None else ""
    files = {
        f"{root}/curve.json": _json(curve(metrics_of(job_path(world, x, JobRole.TRAIN, run.n)))),
        f"{root}/diagnosis.json": _json(run.report.as_dict()),
        f"{root}/log.txt": printable(redact(log, world.known_secrets)).encode(),
    }
    folder = job_path(world, x, JobRole.EVALUATE, run.n)
    result = output_json(folder, "out/evaluation.json")
    if result is not None:
        files[f"{root}/evaluation.json"] = _json(Evaluation.from_dict(result).public())
    named = {path.rpartition("/")[2]: hashlib.sha256(content).hexdigest() for path, content in files.items()}
    return files | {f"{root}/run.json": _json(provenance(world, x, run) | {"files": named})}


def keep_files(world: World, x: Experiment, run: Run) -> None:
    """The same files in the bot's own folder, where `postdoc reproduce` finds a run without a checkout."""
    folder = goal_folder(world, x) / "runs" / f"{run.n:02d}"
    folder.mkdir(parents=True, exist_ok=True)
    for path, content in committed_files(world, x, run).items():
        (folder / path.rpartition("/")[2]).write_bytes(content)


def provenance(world: World, x: Experiment, run: Run) -> dict[str, Any]:
    """run.json: what was run, on what, for how long, and what came out."""
    assert x.goal is not None
    train = x.job_for(JobRole.TRAIN, run.n)
    folder = job_path(world, x, JobRole.TRAIN, run.n)
    evaluated = output_json(job_path(world, x, JobRole.EVALUATE, run.n), EVALUATION)
    jobs = {
        f"{job.role}": {"seconds": round(job.seconds, 2), "tier": status_of(job).get("tier"),
                        "peak_memory_gib": status_of(job).get("peak_memory_gib"), "state": status_of(job).get("state")}
        for job in x.jobs.values()
        if job.run == run.n and job.role is not JobRole.DATA and job.role.of_run
    }  # fmt: skip
    own = [job for job in x.jobs.values() if job.run == run.n and job.role.of_run]
    hours, usd = sum(job.seconds for job in own) / 3600, sum(x.usd_of(job) for job in own)
    return {
        "goal": x.goal_id,
        "goal_hash": x.goal.hash,
        "run": run.n,
        "commit": run.head_sha,
        "method": run.method,
        "form": 2,
        "folder": x.folder,
        "place": dict(train.place) if train is not None else {},
        "recipe": run.recipe,
        "recipe_hash": run.recipe_hash,
        "scripts": run.digests,
        "base_model": x.goal.base_model,
        "base_revision": x.goal.base_revision,
        "base_weights": (output_json(job_path(world, x, JobRole.BASELINE, BASELINE), EVALUATION) or {}).get("weights"),
        "benchmark": {"name": x.goal.benchmark, "split": "dev", "pin": x.pins.get("benchmark")},
        "evaluator": (evaluated or {}).get("harness"),
        "weights": (evaluated or {}).get("weights"),
        "environment": environment_of(world, train),
        "machine": status_of(train).get("machine"),
        "data": _data_of(x, run),
        "seed": x.goal.seed,
        "changed": run.changed,
        "state": status_of(train).get("state"),
        "failure": run.failure,
        "score": {"value": run.score.value, "standard_error": run.score.standard_error, "n": run.score.n,
                  "ci": [run.score.ci_low, run.score.ci_high], "harness_digest": run.score.harness_digest}
        if run.score else None,
        "verdict": run.verdict,
        "lineage": run.lineage,
        "symptoms": run.symptoms,
        "probe": run.probe,
        "jobs": jobs,
        "training": output_json(folder, "out/summary.json"),
        "reproductions": [{"n": each.n, "by": each.by, **each.report}
                          for each in x.reproductions if each.run == run.n and each.report is not None],
        "cost": {"usd": round(usd, 4), "hours": round(hours, 5)},
    }  # fmt: skip


def curve(metrics: list[dict[str, Any]]) -> dict[str, Any]:
    """At most `CURVE_POINTS` points of each curve, evenly thinned, first and last kept."""
    curves: dict[str, list[list[float | None]]] = {}
    for key in ("loss", "eval_loss", "grad_norm", "learning_rate", "mean_token_accuracy"):
        points = [[row.get("step"), number(row[key])] for row in metrics if key in row]
        if points:
            curves[key] = thinned(points, CURVE_POINTS)
    return curves


def thinned(points: list[Any], most: int) -> list[Any]:
    if len(points) <= most:
        return points
    return [points[round(i * (len(points) - 1) / (most - 1))] for i in range(most)]


def _json(value: dict[str, Any]) -> bytes:
    """One key a line, and one element a line in a list of objects: small in a diff, and still readable in one."""
    parts = []
    for key in sorted(value):
        content = value[key]
        if isinstance(content, list) and content and isinstance(content[0], dict):
            rows = ",\n  ".join(json.dumps(element, sort_keys=True) for element in content)
            parts.append(f" {json.dumps(key)}: [\n  {rows}\n ]")
        else:
            parts.append(f" {json.dumps(key)}: {json.dumps(content, sort_keys=True)}")
    return ("{\n" + ",\n".join(parts) + "\n}\n").encode()
