"""Where the gym's jobs run: one warm process behind a socket, which `runners.warm` of every bot speaks to.

It belongs to the gym's process, so that a bot can be ended and started again without its jobs, and twenty goals share
one import of torch. It dies with the gym, and its jobs with it; the runner then calls them lost.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import queue
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from bot.errors import PostdocError, UserError
from bot.gym.bases import models_of
from bot.gym.task_file import Task
from bot.practice.warm import EVALUATION_IMPORTS, IMPORTS, Ended, Warm, WarmJob
from runners import joblog, slots
from runners.job import JobSpec, JobState, JobStatus, read_json
from runners.layout import LOG, SPEC, STATUS, WORK, write_json
from runners.outcome import Ending, outcome
from runners.warm import HOST_LOCK, USAGE, check_permitted, script_words

DOOR = "warm.sock"
_TAIL_BYTES = 16 << 10


class WarmHost:
    """Listens at `folder`/warm.sock from `with` on, and runs at most `at_once` jobs side by side."""

    def __init__(
        self, folder: Path, at_once: int = 1, modules: Sequence[str] = (*IMPORTS, *EVALUATION_IMPORTS)
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.door = folder / DOOR
        self._warm = Warm(modules)
        self._at_once = at_once
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._jobs: dict[Path, _Job] = {}
        self._guard = threading.Lock()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> WarmHost:
        # A path of a socket holds about a hundred characters (sockaddr_un), and the kernel's own message names none.
        if len(os.fsencode(self.door)) > 100:
            raise UserError(f"{self.door} is too long for a socket. Give a --folder with a shorter name.")
        lock = slots.open_lock(self.door.parent / HOST_LOCK)
        self._stack.callback(os.close, lock)
        fcntl.flock(lock, fcntl.LOCK_EX)
        self.door.unlink(missing_ok=True)
        self._line = self._stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        self._line.bind(str(self.door))
        self.door.chmod(0o600)
        self._line.listen(16)
        self._stack.enter_context(self._warm)
        self._stack.callback(self._end_all)
        for target in (self._listen, *[self._work] * self._at_once):
            threading.Thread(target=target, daemon=True).start()
        return self

    def models_of(self, task: Task) -> dict[str, Path]:
        """The task's base model and teacher, trained in the warm process where the task says so."""
        return models_of(task, self._warm)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        self.door.unlink(missing_ok=True)

    def _listen(self) -> None:
        while True:
            try:
                line, _ = self._line.accept()
            except OSError:
                return  # closed: the gym ends
            threading.Thread(target=self._answer, args=(line,), daemon=True).start()

    def _answer(self, line: socket.socket) -> None:
        with line, contextlib.suppress(OSError, ValueError):
            with line.makefile("rb") as asked:
                request = json.loads(asked.readline() or b"{}")
            try:
                self._obey(request)
                answer: dict[str, object] = {"done": True}
            except PostdocError as error:
                answer = {"refused": str(error)}
            line.sendall(json.dumps(answer).encode() + b"\n")

    def _obey(self, request: dict[str, str]) -> None:
        if "cancel" in request:
            job = self._jobs.get(Path(request["cancel"]))
            if job is not None:
                job.cancel()
            return
        folder = Path(request["run"])
        with self._guard:
            if folder in self._jobs:
                return
            spec = JobSpec.from_dict(read_json(folder / SPEC) or {})
            check_permitted(spec)
            job = self._jobs[folder] = _Job(folder, spec)
        job.write(job.status)
        self._queue.put(job)

    def _work(self) -> None:
        """Jobs in the order of their launch."""
        while (job := self._queue.get()) is not None:
            job.run(self._warm)

    def _end_all(self) -> None:
        for _ in range(self._at_once):
            self._queue.put(None)
        for job in list(self._jobs.values()):
            job.cancel()


class _Job:
    """One job from its place in the queue to its last word in `status.json`."""

    def __init__(self, folder: Path, spec: JobSpec) -> None:
        self._folder, self._spec = folder, spec
        self.status = JobStatus(spec.job_id, JobState.QUEUED, tier="warm")
        self._cancelled = threading.Event()
        self._over = threading.Event()
        self._taken = threading.Lock()
        """Held by whoever ends the job: the one that runs it, or the one that cancels it while it waits."""
        self._forked: WarmJob | None = None

    def write(self, status: JobStatus) -> None:
        self.status = status
        write_json(self._folder / STATUS, status.as_dict(), durable=False)

    def cancel(self) -> None:
        """End it with everything that it started."""
        self._cancelled.set()
        if self._taken.acquire(blocking=False):
            self._end(Ending(return_code=None, sandboxed=False, cancelled=True))
        if self._forked is not None:
            self._forked.kill()
        self._over.wait(15)

    def run(self, warm: Warm) -> None:
        if self._taken.acquire(blocking=False):
            self._end(self._ending(warm))

    def _end(self, ending: Ending) -> None:
        result = outcome(ending)
        self.write(
            replace(
                self.status, state=result.state, ended_at=time.time(), exit_code=result.exit_code,
                failure=result.failure, evidence=result.evidence,
            )
        )  # fmt: skip
        self._over.set()

    def _ending(self, warm: Warm) -> Ending:
        caps, work = self._spec.caps, self._folder / WORK
        try:
            self._forked = warm.start(
                script_words(self._spec, work), cwd=work, log=self._folder / LOG, environment=self._spec.environment,
                address_space_gib=caps.memory_gib, file_size_mib=caps.file_size_gib * 1024,
            )  # fmt: skip
        except PostdocError as error:
            return Ending(return_code=None, sandboxed=False, start_error=str(error))
        self.write(replace(self.status, state=JobState.RUNNING, started_at=time.time()))
        if self._cancelled.is_set():  # asked for while it was being forked
            self._forked.kill()
        ended = self._forked.wait(caps.timeout_seconds)
        timed_out = ended is None
        if ended is None:
            self._forked.kill()
            ended = self._forked.wait() or Ended(-9, 0.0, 0.0, 0.0)
        gone = "" if ended.peak_mib else "the process that forks practice jobs has ended"
        usage = {"seconds": ended.seconds, "cpu_seconds": ended.cpu_seconds, "peak_mib": ended.peak_mib}
        write_json(self._folder / USAGE, usage, durable=False)
        self.status = replace(self.status, peak_memory_gib=round(ended.peak_mib / 1024, 4) or None)
        return Ending(
            return_code=ended.exit_code,
            sandboxed=False,
            cancelled=self._cancelled.is_set(),
            timed_out_after_seconds=caps.timeout_seconds if timed_out else None,
            lost=gone,
            log_tail=joblog.tail_text(self._folder / LOG, _TAIL_BYTES),
        )
