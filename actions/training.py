"""Mode `train` without a server: data, a smoke test, a look before anything is spent, and training under a monitor."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from actions import checking, checkout, evaluating
from actions.checking import Checked
from actions.models import Measured
from actions.recipes import RECIPE, ROWS, Recipe, base_model, monitoring, read_recipe, source_files
from actions.request import Request
from actions.result import Result, Score, cost, score_of
from actions.workflow_commands import annotate, group, others_words
from bot.diagnosis import diagnose
from bot.diagnosis.preflight import preflight
from bot.diagnosis.watching import Quiet, watched
from bot.domain.comparison import compare
from bot.domain.curves import sparkline
from bot.domain.diagnosis import Diagnosis, DiagnosisReport, Severity
from bot.domain.evaluation import Comparison
from bot.domain.redaction import redact
from bot.domain.scripts import PREPARE, TRAIN
from bot.errors import UserError
from runners.job import Caps, FailureKind, JobId, JobSpec, JobState, JobStatus
from runners.local import LocalRunner
from runners.outputs import read_output
from runners.tier import Tier

SMOKE_MINUTES = 15.0
DATA_MINUTES = 30.0
LOOK_SECONDS = 0.5
SAID_SECONDS = 15.0
LOG_LINES = 200
_KEPT_OUTPUTS = ("setup.json", "data_audit.json", "metrics.jsonl", "trainer_state.json", "summary.json")
Watch = Callable[[list[dict[str, Any]], Quiet], bool]
"""Asked whenever something was logged, and while nothing is for long: whether the run is to be ended."""


def train(request: Request) -> Result:
    """Raises: UserError, PlatformError."""
    recipe = read_recipe(request)
    return Training(request, recipe, runner_for(request, recipe)).run()


def runner_for(request: Request, recipe: Recipe) -> LocalRunner:
    """Raises: UserError when the checkout's own scripts would run without a sandbox that nobody waived."""
    runner = LocalRunner(jobs_folder(request))
    if runner.tier is Tier.PLAIN and not recipe.trusted and not request.unsandboxed:
        raise UserError(
            "this experiment brings scripts of its own and this machine has no sandbox. Install bubblewrap, or write "
            "`unsandboxed: true` where the machine is made for this one job and holds nothing else."
        )
    return runner


def jobs_folder(request: Request) -> Path:
    return request.folder / "jobs"


class Training:
    """One call of the mode."""

    def __init__(self, request: Request, recipe: Recipe, runner: LocalRunner) -> None:
        self._request, self._recipe, self._runner = request, recipe, runner
        self._deadline = time.monotonic() + request.timeout_minutes * 60
        self._seconds = 0.0
        self._notes: list[str] = []
        self._inputs = request.folder / "inputs"
        self._trace = request.folder / "trace"

    def run(self) -> Result:
        for folder in (self._inputs, self._trace, self._request.artifact):
            folder.mkdir(parents=True, exist_ok=True)
        (self._inputs / RECIPE).write_text(self._recipe.text, encoding="utf-8")
        (self._trace / RECIPE).write_text(self._recipe.text, encoding="utf-8")
        model = base_model(self._request, self._recipe)
        checking.own_items_refused(self._request, self._recipe)
        ended = self._data()
        if ended.state is not JobState.SUCCEEDED:
            return self._failed("The data could not be built", ended)
        if problem := self._noted(checking.data_checked(self._request, self._recipe, self._all_rows(), model)):
            return self._result("failed", 1, f"Not trained: {problem}")
        ended = self._job("smoke", model, ("--smoke",), SMOKE_MINUTES)
        if ended.state is not JobState.SUCCEEDED:
            return self._failed("The smoke test of two steps failed", ended)
        report = self._preflight()
        if any(found.severity is Severity.FATAL for found in report.diagnoses):
            headline = "Not trained: what is known before the first step says that it cannot work."
            return self._result("failed", 1, headline, diagnoses=self._placed(report.diagnoses))
        baseline = self._evaluated("base", str(model))
        fatal: list[Diagnosis] = []
        ended = self._job("train", model, (), math.inf, fatal)
        self._keep_trace(ended)
        self._keep_outputs()
        if ended.state is not JobState.SUCCEEDED:
            doom = f"Ended by the monitor: {fatal[0].cause}" if fatal else "Training failed"
            return self._failed(doom, ended, tuple(fatal))
        return self._trained(model, baseline)

    # the jobs

    def _data(self) -> JobStatus:
        built = self._recipe.folder / ROWS
        if not self._recipe.sources and built.is_file():
            return JobStatus(JobId("data"), JobState.SUCCEEDED)
        if not self._recipe.sources:
            raise UserError(
                f"{self._recipe.file}: data_sources is missing; name files of the repository with the rows."
            )
        files = {RECIPE: str(self._inputs / RECIPE)}
        files |= {path: str(file) for path, file in self._recipe.building.items()}
        files |= source_files(self._request, self._recipe)
        argv = ("{python}", PREPARE, "--config", RECIPE, "--inputs", "inputs", "--output", "data")
        return self._ended(JobSpec(JobId("data"), argv, files=files), min(2.0, self._request.memory_gib), DATA_MINUTES)

    def _job(
        self, name: str, model: Path, extra: tuple[str, ...], minutes: float, fatal: list[Diagnosis] | None = None
    ) -> JobStatus:
        argv = ["{python}", TRAIN, "--config", RECIPE, "--init_from", "{mount:init}", "--train_file", ROWS]
        argv += ["--output_dir", "out"]
        files = {RECIPE: str(self._inputs / RECIPE), ROWS: self._rows("train.jsonl")}
        files |= {path: str(file) for path, file in self._recipe.training.items()}
        if self._rows("validation.jsonl"):
            files["data/validation.jsonl"] = self._rows("validation.jsonl")
            argv += ["--validation_file", "data/validation.jsonl"]
        spec = JobSpec(JobId(name), (*argv, *extra), files=files, mounts={"init": str(model)})
        return self._ended(spec, self._request.memory_gib, minutes, fatal)

    def _rows(self, name: str) -> str:
        """A file of rows as a plain file of ours, "" where there is none: what a job left may be a link elsewhere."""
        kept = self._inputs / name
        if not kept.exists():
            folder = self._recipe.folder / "data"
            content = b""
            if self._recipe.sources:
                with contextlib.suppress(FileNotFoundError):
                    content = read_output(self._runner.folder(JobId("data")), f"data/{name}", 8 << 30)
            elif (folder / name).is_file():
                content = checkout.inside(self._request, "experiment", str(folder / name)).read_bytes()
            kept.write_bytes(content)
        return str(kept) if kept.stat().st_size else ""

    def _all_rows(self) -> dict[str, Path]:
        """Those that are there. Raises: UserError without a row to train on."""
        found = {name: Path(path) for name in ("train.jsonl", "validation.jsonl") if (path := self._rows(name))}
        if "train.jsonl" not in found:
            raise UserError(f"{self._recipe.file}: no row came out in {ROWS}; look at data_sources and {PREPARE}.")
        return found

    def _noted(self, found: Checked) -> str:
        """Why nothing goes on; what was found is in the report either way."""
        self._notes += found.notes
        return found.problem

    def _ended(
        self, spec: JobSpec, memory_gib: float, minutes: float, fatal: list[Diagnosis] | None = None
    ) -> JobStatus:
        """Run the job to its end under its caps, telling how it goes. Raises: UserError, PlatformError."""
        left = min(self._deadline - time.monotonic(), minutes * 60)
        if left <= 1:
            raise UserError(f"timeout-minutes: {self._request.timeout_minutes:g} were not enough; write more.")
        trusted = self._recipe.trusted or self._request.unsandboxed
        caps = Caps(memory_gib=memory_gib, timeout_seconds=left, pids=512)
        spec = replace(spec, caps=caps, trusted=trusted)
        with group(f"job {spec.job_id}"):
            self._runner.launch(spec)
            try:
                status = self._follow(spec.job_id, self._watch(spec.job_id, fatal))
            except KeyboardInterrupt:
                self._runner.cancel(spec.job_id)
                raise
            with others_words():
                print(self._log_tail(spec.job_id, 40))
            print(f"{spec.job_id}: {status.state} after {status.seconds or 0:.1f} s on tier {status.tier}", flush=True)
        self._seconds += status.seconds or 0.0
        return status

    def _follow(self, job_id: JobId, watch: Watch) -> JobStatus:
        said, seen = time.monotonic(), 0
        while True:
            status = self._runner.status(job_id)
            assert status is not None
            if status.state.ended:
                return status
            rows = self._runner.metrics(job_id)
            quiet = Quiet(status.seconds_since_output or 0.0, status.cpu_share)
            if (len(rows) > seen or quiet.worth_saying) and watch(rows, quiet):
                ended = self._runner.cancel(job_id)
                assert ended is not None
                return replace(ended, state=JobState.FAILED, failure=FailureKind.SCRIPT_ERROR)
            if len(rows) > seen and time.monotonic() - said > SAID_SECONDS:
                losses = [number(row.get("loss")) for row in rows if "loss" in row]
                print(f"step {rows[-1]['step']:,}  loss {sparkline(losses)} {losses[-1] if losses else ''}", flush=True)
                said = time.monotonic()
            seen = len(rows)
            time.sleep(LOOK_SECONDS)

    def _watch(self, job_id: JobId, fatal: list[Diagnosis] | None) -> Watch:
        """What a run is ended for goes to `fatal`."""
        how = monitoring(self._request)
        said: set[str] = set()
        advised = time.monotonic()

        def watch(rows: list[dict[str, Any]], quiet: Quiet) -> bool:
            nonlocal advised
            if fatal is None or how == "off":
                return False
            advise = time.monotonic() - advised > SAID_SECONDS
            advised = time.monotonic() if advise else advised
            setup, audit = (self._object(job_id, name) for name in ("setup.json", "data_audit.json"))
            found = watched(self._recipe.text, rows, setup=setup, audit=audit, advise=advise, quiet=quiet)
            if found is None:
                return False
            if found.tier.ends and how == "abort":
                if found.worth_saving:
                    self._checkpoint_first(job_id)
                fatal.extend(self._placed(found.diagnoses))
                annotate("notice", f"Ending the run: {found.diagnoses[0].cause}", title="Postdoc's monitor")
                return True
            for each in found.diagnoses:
                if each.symptom not in said:
                    annotate("notice", f"Step {found.step:,}: {each.cause}", title="Postdoc's monitor")
            said.update(each.symptom for each in found.diagnoses)
            return False

        return watch

    def _object(self, job_id: JobId, name: str) -> dict[str, Any]:
        """A JSON object that the running script wrote; empty while it has not."""
        try:
            found = json.loads(self._output(str(job_id), f"out/{name}") or b"{}")
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def _checkpoint_first(self, job_id: JobId) -> None:
        """A run that is about to be ended may still save what it has."""
        until = time.monotonic() + self._runner.checkpoint_first(job_id)
        while not self._runner.checkpoint_is_made(job_id) and time.monotonic() < until:
            status = self._runner.status(job_id)
            if status is None or status.state.ended:
                return
            time.sleep(LOOK_SECONDS)

    # what is found

    def _preflight(self) -> DiagnosisReport:
        audit = self._output("smoke", "out/data_audit.json")
        if audit:
            (self._trace / "data_audit.json").write_bytes(audit)
        (self._trace / "train.jsonl").write_bytes(Path(self._rows("train.jsonl")).read_bytes())
        return preflight(self._trace)

    def _keep_trace(self, status: JobStatus) -> None:
        """The folder that `diagnose` reads."""
        (self._trace / "job.json").write_text(json.dumps(status.as_dict()), encoding="utf-8")
        log = self._log_tail(status.job_id, 2000)
        (self._trace / "log.txt").write_text(log, encoding="utf-8")
        for name in _KEPT_OUTPUTS:
            if content := self._output(status.job_id, f"out/{name}"):
                (self._trace / name).write_bytes(content)

    def _keep_outputs(self) -> None:
        """Whatever training left goes into the artifact, after a failure too."""
        target = self._request.artifact
        for name in (RECIPE, "log.txt", "job.json", *_KEPT_OUTPUTS):
            if (self._trace / name).is_file():
                (target / name).write_bytes((self._trace / name).read_bytes())
        model = self._runner.folder(JobId("train")) / "out" / "model"
        if model.is_dir() and not model.is_symlink():
            # The supervisor has taken out links that lead elsewhere; a rename costs no second copy of the weights.
            model.rename(target / "model")

    def _log_tail(self, job_id: JobId, lines: int) -> str:
        return redact(self._runner.log_tail(job_id, lines))

    def _output(self, job: str, path: str) -> bytes:
        try:
            return read_output(self._runner.folder(JobId(job)), path)
        except (OSError, UserError):
            return b""

    def _placed(self, found: tuple[Diagnosis, ...]) -> tuple[Diagnosis, ...]:
        """With paths of the repository instead of names. A shipped script is not in it: its lines are the recipe's."""
        return tuple(self._in_repository(each) for each in found)

    def _in_repository(self, found: Diagnosis) -> Diagnosis:
        own = self._recipe.folder / found.file
        if found.file == RECIPE:
            return replace(found, file=self._recipe.file)
        if own.is_file():
            return replace(found, file=checkout.relative(self._request, own))
        return replace(found, file=self._recipe.file, line=None)

    def _evaluated(self, name: str, model: str) -> evaluating.Evaluated | None:
        if not self._request.benchmark:
            return None
        found = evaluating.evaluated(self._request, name, Measured(name, model))
        self._seconds += found.seconds
        return found

    def _trained(self, base: Path, baseline: evaluating.Evaluated | None) -> Result:
        model = self._request.artifact / "model"
        if not (model / "config.json").is_file():
            return self._result("failed", 1, "Training ended without a model in out/model.")
        left = self._runner.folder(JobId("train"))
        adapter = left / "out" / "adapter"
        problem = self._noted(checking.lineage_checked(self._request, self._recipe, model, base, adapter))
        if problem := self._noted(checking.generated_checked(self._request, left)) or problem:
            return self._result("failed", 1, problem)
        trained = self._evaluated("trained", str(model))
        found = tuple(each for each in (baseline, trained) if each is not None)
        comparison = compare(found[0].evaluation, found[1].evaluation) if len(found) == 2 else None
        for each in found:
            name = "baseline.json" if each is baseline else "evaluation.json"
            (self._trace / name).write_text(json.dumps(each.evaluation.as_dict()), encoding="utf-8")
        diagnoses = self._placed(diagnose(self._trace).diagnoses)
        scores = tuple(score_of(each.name, each.evaluation) for each in found)
        headline = evaluating.told(comparison, "The trained model", "base") if comparison is not None else "Trained."
        return self._result(
            "succeeded", 0, headline,
            diagnoses=diagnoses, scores=scores, comparison=comparison, model=str(model),
        )  # fmt: skip

    def _failed(self, what: str, status: JobStatus, known: tuple[Diagnosis, ...] = ()) -> Result:
        self._keep_trace(status)
        self._keep_outputs()
        why = f" ({status.failure})" if status.failure and not known else ""
        diagnoses = self._placed(diagnose(self._trace).diagnoses) or known
        state = str(status.state)
        return self._result(
            state, 1, f"{what}{why}.".replace("..", "."), diagnoses=diagnoses,
            log_tail=self._log_tail(status.job_id, 30),
        )  # fmt: skip

    def _result(
        self,
        state: str,
        exit_code: int,
        headline: str,
        *,
        diagnoses: tuple[Diagnosis, ...] = (),
        scores: tuple[Score, ...] = (),
        comparison: Comparison | None = None,
        model: str = "",
        log_tail: str = "",
    ) -> Result:
        return Result(
            "train", state, exit_code, headline, scores, comparison, diagnoses, self._curves(), self._seconds,
            cost(self._seconds, self._request.usd_per_hour), model, tuple(self._notes), log_tail,
        )  # fmt: skip

    def _curves(self) -> dict[str, list[tuple[int, float | None]]]:
        rows = self._runner.metrics(JobId("train")) if "train" in self._runner.jobs() else []
        return curves_of(rows)


def curves_of(rows: list[dict[str, Any]]) -> dict[str, list[tuple[int, float | None]]]:
    """(step, value) of what is shown: None where a value is not a number."""
    found = {}
    for name in ("loss", "eval_loss", "reward"):
        if points := [(int(row["step"]), number(row[name])) for row in rows if name in row]:
            found[name] = points
    return found


def number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
