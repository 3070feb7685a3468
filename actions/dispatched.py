"""Mode `train` as the bot dispatches it: the wrapper runs the job and talks to the job's store; this step watches.

The wrapper is a process of its own session without GitHub's tracking id, and its code a copy outside of the runner's
own folders, so that neither the end of this step nor the next job's clean-up takes it along: training goes on, and the
wrapper tells the store. A cancelled step does end it.

What the job wrote and said goes to the store alone, and to the artifact sealed: everybody can read the log of a public
repository, and an evaluation's texts are nobody's business.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actions.child import clean_environment
from actions.request import Request
from actions.result import Result, cost
from actions.training import curves_of
from actions.workflow_commands import mask, others_words
from bot.domain.redaction import redact
from bot.errors import PlatformError
from runners.intake import check_job_id
from runners.job import JobId, JobState, JobStatus
from runners.local import LocalRunner
from runners.remote.watch import verdict_on

TOKEN_FILE = "POSTDOC_RUN_TOKEN_FILE"
JOBS = "~/.postdoc/jobs"
LOOK_SECONDS = 0.5
SAID_SECONDS = 30.0
CANCEL_SECONDS = 5.0
_CODE = (
    "bot/__init__.py", "bot/errors.py", "bot/domain", "bot/diagnosis", "runners",
    "actions/__init__.py", "actions/wrapping.py",
)  # fmt: skip


def run_token(request: Request) -> str:
    """From the event file, where no log prints it; masked before anything else is said."""
    inputs = request.event.get("inputs")
    token = str((inputs or {}).get("token") or "").strip() if isinstance(inputs, dict) or inputs is None else ""
    if token:
        mask(token)
    return token


def train_dispatched(request: Request) -> Result:
    """Raises: UserError, PlatformError."""
    token = run_token(request)
    check_job_id(request.job)
    jobs = Path(request.data_folder or JOBS).expanduser()
    jobs.mkdir(parents=True, exist_ok=True, mode=0o700)
    request.artifact.mkdir(parents=True, exist_ok=True)
    wrapper = Wrapped.start(request, jobs, token)
    runner = LocalRunner(jobs)
    try:
        _follow(wrapper, runner)
    except KeyboardInterrupt:
        _cancel(wrapper, runner)
        raise
    return _result(request, wrapper, runner)


@dataclass(slots=True)
class Wrapped:
    """The wrapper's process, or that of an earlier step that is still at work on this job."""

    job: JobId
    lock: Path
    log: Path
    process: subprocess.Popen[bytes] | None

    @classmethod
    def start(cls, request: Request, jobs: Path, token: str) -> Wrapped:
        """The lock is held by the wrapper itself, through the descriptor that it inherits, for as long as it lives."""
        place = jobs / ".wrappers"
        place.mkdir(exist_ok=True, mode=0o700)
        lock, log = place / f"{request.job}.lock", place / f"{request.job}.log"
        with _opened(lock) as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"job {request.job} is under way on this machine; following it", flush=True)
                return cls(JobId(request.job), lock, log, None)
            process = _started(request, jobs, token, log, held)
        return cls(JobId(request.job), lock, log, process)

    @property
    def lives(self) -> bool:
        if self.process is not None:
            return self.process.poll() is None
        with _opened(self.lock) as held:
            try:
                fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def last_words(self, lines: int = 20) -> str:
        try:
            return redact("\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]))
        except OSError:
            return ""


def _started(request: Request, jobs: Path, token: str, log: Path, lock: int) -> subprocess.Popen[bytes]:
    code = copied_code(jobs)
    reading, writing = os.pipe()
    try:
        # Through a pipe, the token is never in a file, an environment or a list of processes.
        os.write(writing, token.encode())
        os.close(writing)
        added = {"PYTHONPATH": str(code), "PYTHONSAFEPATH": "1"}
        if token:
            added[TOKEN_FILE] = f"/dev/fd/{reading}"
        environment = {name: value for name, value in clean_environment(added).items() if _is_the_machines(name)}
        words = ["--job", request.job, "--store", request.store, "--jobs", str(jobs)]
        words += ["--artifact", str(request.artifact)] if _knows_artifact(code) else []
        with open(log, "ab") as file:
            return subprocess.Popen(
                [sys.executable, "-m", "actions.wrapping", *words],
                cwd="/", env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                start_new_session=True, pass_fds=(reading, lock),
            )  # fmt: skip
    finally:
        os.close(reading)


def _is_the_machines(name: str) -> bool:
    """Not GitHub's: the runner ends every process that carries its RUNNER_TRACKING_ID when the job ends. Nor the
    language model's key: what only trains asks none."""
    return not name.startswith(("RUNNER_", "GITHUB_", "ACTIONS_", "POSTDOC_BRAIN"))


def _knows_artifact(code: Path) -> bool:
    return '"--artifact"' in (code / "runners" / "remote" / "wrapper.py").read_text(encoding="utf-8")


def copied_code(jobs: Path) -> Path:
    """The wrapper's code outside of the runner's work folder, which is emptied before its next job: once for each
    version."""
    source = Path(__file__).resolve().parent.parent
    files = sorted(
        path
        for part in _CODE
        for path in ([source / part] if (source / part).is_file() else (source / part).rglob("*.py"))
    )
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(source)}\0".encode() + path.read_bytes() + b"\0")
    target = jobs / ".code" / digest.hexdigest()[:16]
    if target.is_dir():
        return target
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    for path in files:
        place = partial / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
    with contextlib.suppress(OSError):  # another step was faster
        partial.rename(target)
    shutil.rmtree(partial, ignore_errors=True)
    return target


def _follow(wrapper: Wrapped, runner: LocalRunner) -> None:
    said, before = 0.0, ""
    while wrapper.lives:
        status = runner.status(wrapper.job)
        now = "fetching the job" if status is None else str(status.state)
        if now != before or time.monotonic() - said > SAID_SECONDS:
            rows = runner.metrics(wrapper.job) if status is not None else []
            step = f", step {rows[-1]['step']:,}" if rows else ""
            print(f"{wrapper.job}: {now}{step}", flush=True)
            before, said = now, time.monotonic()
        time.sleep(LOOK_SECONDS)


def _cancel(wrapper: Wrapped, runner: LocalRunner) -> None:
    """The job ends and the wrapper tells the store so; it may take longer than this step has left."""
    if runner.status(wrapper.job) is not None:
        with contextlib.suppress(PlatformError):
            runner.cancel(wrapper.job)
        until = time.monotonic() + CANCEL_SECONDS
        while wrapper.lives and time.monotonic() < until:
            time.sleep(0.05)
    elif wrapper.process is not None:
        wrapper.process.send_signal(signal.SIGTERM)


def _result(request: Request, wrapper: Wrapped, runner: LocalRunner) -> Result:
    status = runner.status(wrapper.job)
    if status is None:
        with others_words():
            print(wrapper.last_words())
        raise PlatformError(f"job {wrapper.job} could not be started: the log above says why.")
    code = wrapper.process.returncode if wrapper.process is not None else 0
    seconds = status.seconds or 0.0
    delivered = code == 0 or status.state is not JobState.SUCCEEDED
    if not delivered:
        with others_words():
            print(wrapper.last_words())
    verdict = verdict_on(runner.root / wrapper.job)
    good = delivered and code == 0 and status.state is JobState.SUCCEEDED
    return Result(
        "train", str(status.state) if delivered else "failed", 0 if good else 1, _told(status, verdict, delivered),
        curves=curves_of(runner.metrics(wrapper.job)), seconds=seconds, cost_usd=cost(seconds, request.usd_per_hour),
    )  # fmt: skip


def _told(status: JobStatus, verdict: Mapping[str, Any] | None, delivered: bool) -> str:
    if not delivered:
        return "The job succeeded, and its outputs could not be brought home."
    if verdict is not None and status.state is JobState.CANCELLED:
        return f"Job {status.job_id} was ended by the monitor at step {verdict['step']:,}: {_cause(verdict)}"
    why = f" ({status.failure})" if status.failure else ""
    return f"Job {status.job_id} {status.state}{why}."


def _cause(verdict: Mapping[str, Any]) -> str:
    return str(verdict["diagnoses"][0]["cause"])


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
