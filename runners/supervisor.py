"""The process that stands around one job: it takes it from the queue, runs it and writes the status file. It outlives
the bot, and when it dies the job dies with it.

    python -m runners.supervisor JOB_FOLDER

It uses the standard library only and starts without site-packages, so a job costs some tens of milliseconds.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from runners import gpus, processes, slots
from runners.activity import seconds_since_output
from runners.events import Events
from runners.execution import Execution
from runners.gpus import GpuPlace, Taken
from runners.job import FailureKind, JobId, JobSpec, JobState, JobStatus, read_json
from runners.layout import CANCEL, LEASE, PLAN, SPEC, STATUS, read_status, write_json
from runners.outcome import Ending, outcome

_QUEUE_LOOK_SECONDS = 0.05
_GPU_LOOK_SECONDS = 2.0
"""Asking what happens on the GPUs costs up to a second of a processor."""
_LOCK_WAIT_SECONDS = 5.0
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Running(Protocol):
    """One run of a job inside its walls, whatever the walls."""

    ending: Ending
    peak_bytes: int

    def run(self) -> None: ...

    def look_now(self) -> None: ...


class Supervisor:
    """One job from its place in the queue to its last word in `status.json`."""

    def __init__(self, folder: Path) -> None:
        spec, plan = read_json(folder / SPEC), read_json(folder / PLAN)
        if spec is None or plan is None:
            raise FileNotFoundError(f"{folder} holds no complete job")
        self._folder = folder
        self._root = folder.parent
        self._spec = JobSpec.from_dict(spec)
        self._plan = plan
        self._status = JobStatus(self._spec.job_id, JobState.QUEUED, tier=plan["tier"])
        self._events = Events()
        self._execution: Running | None = None
        self._stop_signal: int | None = None
        self._queue = slots.GPU_QUEUE if plan.get("gpus") else slots.QUEUE
        self._taken = Taken()
        self._next_gpu_look = 0.0

    def run(self) -> None:
        """Wait for a slot, run the job, write how it ended."""
        self._listen_to_signals()
        ending = self._wait_for_turn()
        slots.leave_queue(self._root, self._spec.job_id)
        peak_bytes = 0
        if ending is None:
            on = "on " + ", ".join(gpu.name for gpu in self._taken.gpus) if self._taken.gpus else ""
            started_at = self._status.started_at or time.time()
            self._write(replace(self._status, state=JobState.RUNNING, started_at=started_at, detail=on))
            self._execution = self._new_execution()
            self._execution.run()
            ending, peak_bytes = self._execution.ending, self._execution.peak_bytes
        result, ended_at = outcome(ending), time.time()
        quiet = None
        if ending.cancelled or ending.timed_out_after_seconds is not None:
            quiet = seconds_since_output(self._folder, self._status.started_at, ended_at)
        self._write(
            replace(
                self._status,
                state=result.state,
                ended_at=ended_at,
                exit_code=result.exit_code,
                failure=result.failure,
                evidence=result.evidence,
                peak_memory_gib=round(peak_bytes / 2**30, 4) if peak_bytes else None,
                seconds_since_output=quiet,
            )
        )

    def _new_execution(self) -> Running:
        return Execution(self._folder, self._spec, self._plan, self._events, self._interruption, self._taken.gpus)

    def announce(self) -> None:
        """From now on the job has had a supervisor, and is never started again."""
        self._write(self._status, durable=False)

    def _write(self, status: JobStatus, *, durable: bool = True) -> None:
        self._status = status
        write_json(self._folder / STATUS, status.as_dict(), durable=durable)

    def _listen_to_signals(self) -> None:
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in _STOP_SIGNALS:
            signal.signal(number, self._on_stop_signal)
        # Sent by `cancel` after it has written the cancel file, so that nobody waits for the next look.
        signal.signal(signal.SIGUSR1, lambda _number, _frame: None)
        self._events.watch(reading, self._on_signal)

    def _on_stop_signal(self, number: int, _frame: object) -> None:
        self._stop_signal = number

    def _on_signal(self, _numbers: bytes) -> None:
        if self._execution is not None:
            self._execution.look_now()

    def _wait_for_turn(self) -> Ending | None:
        """Take a slot and GPUs, held until this process ends; how the job ended if it was ended while it waited."""
        nothing = Ending(return_code=None, sandboxed=False)
        while True:
            ending = self._interruption(nothing)
            if ending.was_cut_short:
                return ending
            # The GPUs first and kept: slots come free every minute, eight GPUs at once do not.
            if slots.is_first(self._root, self._spec.job_id, self._queue) and self._have_gpus():
                slot = slots.take_slot(self._root, int(self._plan["slots"]))
                if slot is not None:
                    return None
            self._events.wait(_QUEUE_LOOK_SECONDS)

    def _have_gpus(self) -> bool:
        wanted = self._plan.get("gpus")
        if not wanted or self._taken.gpus:
            return True
        if time.monotonic() < self._next_gpu_look:
            return False
        self._taken = gpus.take(GpuPlace.from_dict(wanted["place"]), int(wanted["count"]))
        self._next_gpu_look = time.monotonic() + _GPU_LOOK_SECONDS
        if self._taken.waits_for != self._status.detail:
            self._write(replace(self._status, detail=self._taken.waits_for), durable=False)
        return bool(self._taken.gpus)

    def _interruption(self, ending: Ending) -> Ending:
        """Mark the ending when somebody wants the job, or this process, to end. Called at least every second."""
        self._renew_lease()
        if (self._folder / CANCEL).exists():
            return replace(ending, cancelled=True)
        if self._stop_signal is not None:
            return replace(ending, shutdown_signal=self._stop_signal)
        return ending

    def _renew_lease(self) -> None:
        lease = self._folder / LEASE
        try:
            os.utime(lease)
        except FileNotFoundError:
            owner = {"pid": os.getpid(), "start_ticks": processes.start_ticks(os.getpid())}
            write_json(lease, owner, durable=False)


def detach(folder: Path) -> None:
    """Become nobody's child, in a session of its own, with the standard streams away from the caller's."""
    if os.fork() != 0:
        os._exit(0)
    os.setsid()
    os.chdir("/")
    os.umask(0o077)
    null = os.open(os.devnull, os.O_RDWR)
    errors = os.open(folder / "supervisor.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for descriptor, number in ((null, 0), (null, 1), (errors, 2)):
        os.dup2(descriptor, number)


def take_job(folder: Path, *, again: bool = False) -> int | None:
    """The lock on the job, held until this process ends; None when the job has an owner or (but with `again`, as long
    as it has not ended) has had one."""

    def is_free() -> bool:
        status = read_status(folder)
        return status is None or (again and not status.state.ended)

    descriptor = slots.open_lock(folder / slots.LOCK)
    deadline = time.monotonic() + _LOCK_WAIT_SECONDS
    # Somebody who asks whether the lock is held holds it for a moment himself, so one refusal says nothing.
    while not slots.try_lock(descriptor):
        if not is_free() or time.monotonic() > deadline:
            return None
        time.sleep(0.005)
    return descriptor if is_free() else None


def supervise(supervisor: Supervisor, folder: Path) -> None:
    """Run the job in `folder` to its end, whatever happens on the way."""
    try:
        supervisor.run()
    except Exception as error:
        # A bug of ours, or a disk that no longer takes the status: the script is not blamed.
        sys.excepthook(type(error), error, error.__traceback__)
        said = f"the supervisor failed: {type(error).__name__}: {error}"
        failed = replace(
            read_status(folder) or JobStatus(JobId(folder.name), JobState.FAILED),
            state=JobState.FAILED,
            failure=FailureKind.PLATFORM,
            ended_at=time.time(),
            evidence=(said,),
        )
        write_json(folder / STATUS, failed.as_dict())


def main(kind: Callable[[Path], Supervisor] = Supervisor, *, again: bool = False) -> None:
    """`again`: a job whose supervisor has died may be taken over."""
    if len(sys.argv) != 2 or not os.path.isfile(os.path.join(sys.argv[1], SPEC)):
        sys.exit("usage: python -m runners.supervisor JOB_FOLDER (a folder that holds a spec.json)")
    folder = Path(sys.argv[1]).resolve()
    if take_job(folder, again=again) is None:
        return
    supervisor = kind(folder)
    supervisor.announce()
    # The lock passes to the child that goes on, so whoever waited for this process finds the job taken.
    detach(folder)
    supervise(supervisor, folder)


if __name__ == "__main__":
    main()
