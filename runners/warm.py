"""Practice jobs in a process that has its imports behind it: the gym's. No sandbox stands around them.

The runner writes each job's folder as `runners.local` does and names it on a Unix socket; whoever listens there (the
gym, `bot.gym.host`) forks the script, holds its time-out, writes `status.json` and, for the gym's accounts,
`usage.json`. A practice run then costs what it trains, and not five seconds of imports more.

Only scripts that ship with Postdoc run here: any other job is refused. Not covered: walls of any kind, a cap on
processes or disk, GPUs, several machines.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bot.errors import PlatformError, UserError
from runners import intake, joblog, slots
from runners.checkpoints import CHECKPOINT_SECONDS, ask_for_checkpoint, checkpoint_is_made
from runners.job import FailureKind, Flavor, JobId, JobSpec, JobState, JobStatus, Swept
from runners.layout import LAUNCH_LOCK, LOG, SPEC, STATUS, WORK, read_status, write_json
from runners.local import locked
from runners.metrics import metric_rows

HOST_LOCK = "host.lock"
"""Beside the socket; held for as long as its owner lives."""
USAGE = "usage.json"
"""In a job's folder: {"seconds", "cpu_seconds", "peak_mib"} of the script."""
_ANSWER_SECONDS = 30.0


class WarmRunner:
    """The Runner protocol over one process that forks."""

    name = "warm"
    isolates = False

    def __init__(self, root: Path, door: Path, *, redact: Callable[[str], str] | None = None) -> None:
        """`door` is the socket. `redact` takes the bot's own secrets out of what it reads."""
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.root = root.resolve()
        self._door = door
        self._redact = redact or str

    def launch(self, spec: JobSpec) -> JobStatus:
        """Start the job, or return the status of the one that already has this id.

        Raises: UserError for a specification that is wrong or not for here; PlatformError when nobody listens.
        """
        intake.check_job_id(spec.job_id)
        folder = self.root / spec.job_id
        if not (folder / SPEC).exists():
            intake.check(spec, self.root)
            check_permitted(spec)
        folder.mkdir(exist_ok=True, mode=0o700)
        with locked(folder / LAUNCH_LOCK):
            if not (folder / SPEC).exists():
                self._prepare(spec, folder)
            if read_status(folder) is None:
                self._ask({"run": str(folder)})
        status = self.status(spec.job_id)
        assert status is not None
        return status

    def status(self, job_id: JobId) -> JobStatus | None:
        folder = self._existing(job_id)
        if folder is None:
            return None
        status = read_status(folder) or JobStatus(job_id, JobState.QUEUED, tier=self.name)
        if not status.state.ended and not slots.is_held(self._door.parent / HOST_LOCK):
            # It may have ended, process and all, between the two looks.
            status = read_status(folder) or status
            if not status.state.ended:
                status = self._lost(folder, status)
        return replace(status, evidence=tuple(self._redact(words) for words in status.evidence))

    def cancel(self, job_id: JobId) -> JobStatus | None:
        status, folder = self.status(job_id), self._existing(job_id)
        if status is None or folder is None or status.state.ended:
            return status
        self._ask({"cancel": str(folder)})
        return self.status(job_id)

    def folder(self, job_id: JobId) -> Path:
        intake.check_job_id(job_id)
        return self.root / job_id / WORK

    def metrics(self, job_id: JobId, after: int = 0) -> list[dict[str, Any]]:
        return metric_rows(self.folder(job_id))[after:]

    def checkpoint_first(self, job_id: JobId) -> float:
        return CHECKPOINT_SECONDS if ask_for_checkpoint(self.folder(job_id)) else 0.0

    def checkpoint_is_made(self, job_id: JobId) -> bool:
        return checkpoint_is_made(self.folder(job_id))

    def log_tail(self, job_id: JobId, lines: int = 200) -> str:
        folder = self._existing(job_id)
        return "" if folder is None else self._redact(joblog.tail(folder / LOG, lines))

    def jobs(self) -> Sequence[JobId]:
        specs = sorted(self.root.glob(f"*/{SPEC}"), key=lambda path: (path.stat().st_mtime_ns, path))
        return [JobId(path.parent.name) for path in specs]

    def sweep(self) -> Swept:
        started: list[JobId] = []
        lost: list[JobId] = []
        running: list[JobId] = []
        for job_id in self.jobs():
            before = read_status(self.root / job_id)
            if before is None:
                self._ask({"run": str(self.root / job_id)})
                started.append(job_id)
                continue
            status = self.status(job_id)
            if status is None or before.state.ended:
                continue
            (lost if status.state is JobState.LOST else running).append(job_id)
        return Swept(tuple(started), tuple(lost), tuple(running))

    def flavors(self) -> Sequence[Flavor]:
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
        return (Flavor("warm", memory_gib=round(pages * size / 2**30, 1), cpus=float(os.cpu_count() or 1)),)

    def refresh(self, job_id: JobId | None = None) -> None:
        """Nothing here is remembered between two calls."""

    def _existing(self, job_id: JobId) -> Path | None:
        intake.check_job_id(job_id)
        folder = self.root / job_id
        return folder if (folder / SPEC).is_file() else None

    def _prepare(self, spec: JobSpec, folder: Path) -> None:
        """Write everything that the job needs; `spec.json` comes last and makes it a job."""
        shutil.rmtree(folder / WORK, ignore_errors=True)
        try:
            intake.copy_in(spec.files, folder / WORK)
            write_json(folder / SPEC, spec.as_dict(), durable=False)
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError):
                raise PlatformError(f"job {spec.job_id} could not be prepared: {error}") from error
            raise

    def _lost(self, folder: Path, status: JobStatus) -> JobStatus:
        evidence = ("the process that ran practice jobs has gone",)
        lost = replace(
            status, state=JobState.LOST, failure=FailureKind.PLATFORM, ended_at=time.time(), evidence=evidence
        )
        write_json(folder / STATUS, lost.as_dict(), durable=False)
        return lost

    def _ask(self, request: dict[str, str]) -> None:
        """One line to the host, answered when it has been done. Raises: UserError, PlatformError."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
                line.settimeout(_ANSWER_SECONDS)
                line.connect(str(self._door))
                line.sendall(json.dumps(request).encode() + b"\n")
                with line.makefile("rb") as answers:
                    answer = json.loads(answers.readline() or b"{}")
        except (OSError, ValueError) as error:
            raise PlatformError(f"the process for practice jobs does not answer at {self._door}: {error}") from error
        if "refused" in answer:
            raise UserError(answer["refused"])


def check_permitted(spec: JobSpec) -> None:
    """Raises: UserError for a job that must not, or cannot, run without walls."""
    if not spec.trusted:
        raise UserError(
            f"job {spec.job_id} runs code that did not ship with Postdoc, and the warm runner has no sandbox. "
            "Set POSTDOC_RUNNER to local or docker for it"
        )
    if spec.hardware.gpus or spec.hardware.nodes > 1:
        raise UserError(f"job {spec.job_id} asks for GPUs or several machines, and the warm runner has one processor")
    if spec.argv[0] != "{python}" or len(spec.argv) < 2 or spec.argv[1].startswith("-"):
        raise UserError(f"job {spec.job_id}: the warm runner starts Python scripts alone; write {{python}} SCRIPT ...")


def script_words(spec: JobSpec, work: Path) -> list[str]:
    """The script and its words, with every placeholder replaced."""
    mounts = {name: str(Path(source).resolve()) for name, source in spec.mounts.items()}
    return intake.substitute(spec.argv, "", str(work), mounts)[1:]
