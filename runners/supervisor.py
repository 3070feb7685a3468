"""The process that stands around one job: it starts it inside its walls, holds the caps, keeps the log and writes the
status file. It outlives the bot, and when it dies the job dies with it.

    python -m runners.supervisor JOB_FOLDER

It uses the standard library only and starts without site-packages, so a job costs some tens of milliseconds.
"""

from __future__ import annotations

import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from runners import joblog, kernel, outputs, processes, slots
from runners.cgroup import Cgroup, Hierarchy
from runners.job import FailureKind, JobId, JobSpec, JobState, JobStatus, read_json
from runners.layout import CANCEL, LEASE, LOG, PLAN, SCRATCH, SPEC, STATUS, WORK, read_status, write_json
from runners.outcome import Ending, Outcome, outcome
from runners.tier import Tier, limits

_LOOK_SECONDS = 0.25
"""How often the caps that no kernel counter announces, the cancel file and the lease are looked after."""
_DISK_LOOK_SECONDS = 2.0
_QUEUE_LOOK_SECONDS = 0.05
_LOCK_WAIT_SECONDS = 5.0
_SANDBOX_PROCESSES = 2
"""bubblewrap itself: the one outside that waits, and the first process inside."""
_CLASSIFIED_TAIL_BYTES = 64 << 10
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Supervisor:
    """One job from its place in the queue to its last word in `status.json`."""

    def __init__(self, folder: Path) -> None:
        spec, plan = read_json(folder / SPEC), read_json(folder / PLAN)
        if spec is None or plan is None:
            raise FileNotFoundError(f"{folder} holds no complete job")
        self.folder = folder
        self.root = folder.parent
        self.work = folder / WORK
        self.spec = JobSpec.from_dict(spec)
        self.plan: dict[str, Any] = plan
        self.tier = Tier(plan["tier"])
        self.status = JobStatus(self.spec.job_id, JobState.QUEUED, tier=plan["tier"])
        hierarchy = plan["hierarchy"]
        self.group = Cgroup(Hierarchy.from_dict(hierarchy), plan["group"]) if hierarchy else None
        self.selector = selectors.DefaultSelector()
        self.process: subprocess.Popen[bytes] | None = None
        self.log: joblog.CappedLog | None = None
        self.ending = Ending(return_code=None, sandboxed=self.tier is not Tier.PLAIN)
        self.stop_signal: int | None = None
        self.report = b""
        self.inside: int | None = None
        """Process file descriptor of the first process inside the sandbox: its end is the end of the whole tree."""
        self.peak_bytes = 0
        self.next_look = 0.0
        self.next_disk_look = 0.0

    def run(self) -> None:
        """Wait for a slot, run the job, write how it ended."""
        self._listen_to_signals()
        self.write(self.status, durable=False)
        self._renew_lease()
        slot = self._wait_for_slot()
        if slot is not None:
            slots.leave_queue(self.root, self.spec.job_id)
            self.write(replace(self.status, state=JobState.RUNNING, started_at=time.time()))
            try:
                self._run_job()
            except OSError as error:
                self.ending = replace(self.ending, start_error=f"the job could not be started: {error}")
            self._clear_away()
        slots.leave_queue(self.root, self.spec.job_id)
        self.write(self._ended(outcome(self.ending)))

    def write(self, status: JobStatus, *, durable: bool = True) -> None:
        self.status = status
        write_json(self.folder / STATUS, status.as_dict(), durable=durable)

    def _ended(self, result: Outcome) -> JobStatus:
        return replace(
            self.status,
            state=result.state,
            ended_at=time.time(),
            exit_code=result.exit_code,
            failure=result.failure,
            evidence=result.evidence,
            peak_memory_gib=round(self.peak_bytes / 2**30, 4) if self.peak_bytes else None,
        )

    def _listen_to_signals(self) -> None:
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in _STOP_SIGNALS:
            signal.signal(number, self._on_stop_signal)
        # Sent by `cancel` after it has written the cancel file, so that nobody waits for the next look.
        signal.signal(signal.SIGUSR1, lambda _number, _frame: None)
        self._watch(reading, self._on_woken)

    def _on_woken(self, _data: bytes) -> None:
        self.next_look = 0.0

    def _on_stop_signal(self, number: int, _frame: object) -> None:
        self.stop_signal = number

    # waiting

    def _wait_for_slot(self) -> int | None:
        """The descriptor that holds the slot; None when the job was ended while it waited."""
        while not self._told_to_stop():
            if slots.is_first(self.root, self.spec.job_id):
                slot = slots.take_slot(self.root, int(self.plan["slots"]))
                if slot is not None:
                    return slot
            self._renew_lease()
            self._dispatch(_QUEUE_LOOK_SECONDS)
        return None

    def _told_to_stop(self) -> bool:
        if (self.folder / CANCEL).exists():
            self.ending = replace(self.ending, cancelled=True)
        elif self.stop_signal is not None:
            self.ending = replace(self.ending, shutdown_signal=self.stop_signal)
        return self.ending.cancelled or self.ending.shutdown_signal is not None

    def _renew_lease(self) -> None:
        lease = self.folder / LEASE
        try:
            os.utime(lease)
        except FileNotFoundError:
            owner = {"pid": os.getpid(), "start_ticks": processes.start_ticks(os.getpid())}
            write_json(lease, owner, durable=False)

    def _dispatch(self, timeout_seconds: float) -> bool:
        """Handle what has come in the meantime; False when nothing came."""
        events = self.selector.select(max(0.0, timeout_seconds))
        for key, _ in events:
            still_open: Callable[[], bool] = key.data
            if not still_open():
                self.selector.unregister(key.fileobj)
        return bool(events)

    # running

    def _run_job(self) -> None:
        self.log = joblog.CappedLog(self.folder / LOG, int(self.plan["log_bytes"]))
        if self.group is not None:
            if self.group.exists():
                self.group.kill()
                self.group.remove()
            self.group.create(int(self.spec.caps.memory_gib * 2**30), self.spec.caps.pids + _SANDBOX_PROCESSES)
        elif self.tier is Tier.PLAIN:
            kernel.adopt_orphans()
        deadline = time.monotonic() + self.spec.caps.timeout_seconds
        self._start()
        while self.process is not None and self.process.poll() is None:
            now = time.monotonic()
            if now >= self.next_look:
                self.next_look = now + _LOOK_SECONDS
                self._look(now)
            if now >= deadline and not self._doomed():
                self.ending = replace(self.ending, timed_out_after_seconds=self.spec.caps.timeout_seconds)
            if self._doomed():
                self._kill()
            self._dispatch(min(self.next_look, max(deadline, now + 0.01)) - time.monotonic())

    def _start(self) -> None:
        """Start the job from this thread, the only one: the kernel ties the job's life to the thread that forks it."""
        out_reading, out_writing = os.pipe2(os.O_CLOEXEC)
        argv, passed = list(self.plan["argv"]), []
        if self.ending.sandboxed:
            report_reading, report_writing = os.pipe2(os.O_CLOEXEC)
            passed.append(report_writing)
            argv[1:1] = ["--json-status-fd", str(report_writing)]
            self._watch(report_reading, self._on_report)
        self._watch(out_reading, self._on_output)
        try:
            self.process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out_writing,
                stderr=out_writing,
                cwd=self.work,
                env=self.plan["environment"],
                pass_fds=passed,
                start_new_session=True,
                preexec_fn=self._confine(os.getpid()),
            )
        except subprocess.SubprocessError as error:
            raise OSError(f"it could not be confined, {LOG} says why") from error
        except OSError as error:
            if self.ending.sandboxed or error.filename != argv[0]:
                raise
            # Inside the sandbox a command that is not there is the script's failure; without one it is the same.
            self._on_output(f"postdoc: {argv[0]}: {error.strerror}\n".encode())
            self.ending = replace(self.ending, return_code=127)
            return
        finally:
            os.close(out_writing)
            for descriptor in passed:
                os.close(descriptor)
        ended = os.pidfd_open(self.process.pid)
        self.selector.register(ended, selectors.EVENT_READ, lambda: False)

    def _confine(self, supervisor: int) -> Callable[[], None]:
        chosen = limits(self.spec.caps, self.tier)

        def confine() -> None:
            try:
                kernel.die_with(supervisor)
                # When the whole machine runs out of memory, the kernel takes the job and not the bot.
                with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
                    file.write("500")
                if self.group is not None:
                    self.group.enter()
                if self.plan["leaves_network"]:
                    kernel.leave_network()
                for name, value in chosen.items():
                    which = getattr(resource, name)
                    hard = resource.getrlimit(which)[1]
                    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
                    resource.setrlimit(which, (value, value))
            except OSError as error:
                # All that the parent learns of an exception here is that there was one.
                os.write(2, f"postdoc: the job could not be confined: {error}\n".encode())
                raise

        return confine

    def _watch(self, descriptor: int, handler: Callable[[bytes], None]) -> None:
        os.set_blocking(descriptor, False)

        def on_readable() -> bool:
            try:
                data = os.read(descriptor, 1 << 16)
            except BlockingIOError:
                return True
            if data:
                handler(data)
            return bool(data)

        self.selector.register(descriptor, selectors.EVENT_READ, on_readable)

    def _on_output(self, data: bytes) -> None:
        assert self.log is not None
        try:
            self.log.write(data)
        except OSError as error:
            if not self.ending.disk_over:
                self.ending = replace(self.ending, disk_over=f"the log cannot be written: {error.strerror}")

    def _on_report(self, data: bytes) -> None:
        """One JSON object a line: `child-pid` when the sandbox stands, `exit-code` when the script has ended."""
        *lines, self.report = (self.report + data).split(b"\n")
        for line in lines:
            said = json.loads(line)
            if "exit-code" in said:
                self.ending = replace(self.ending, reported_exit_code=said["exit-code"])
            elif "child-pid" in said and self.inside is None:
                try:
                    self.inside = os.pidfd_open(said["child-pid"])
                except ProcessLookupError:
                    continue

    # caps

    def _doomed(self) -> bool:
        ending = self.ending
        return bool(
            ending.cancelled
            or ending.shutdown_signal is not None
            or ending.timed_out_after_seconds is not None
            or ending.oom_kills
            or ending.memory_over
            or ending.processes_over
            or ending.disk_over
        )

    def _look(self, now: float) -> None:
        self._renew_lease()
        if self._doomed() or self._told_to_stop():
            return
        if self.group is not None:
            # The kernel kills one process; a job that has lost one in silence must not go on as if it were whole.
            self.ending = replace(self.ending, oom_kills=self.group.oom_kills())
            self.peak_bytes = max(self.peak_bytes, self.group.private_bytes())
        else:
            self._look_at_tree()
        if now >= self.next_disk_look:
            used = outputs.used_bytes(self.work) + outputs.used_bytes(self.folder / SCRATCH)
            cap_gib = self.spec.caps.disk_gib
            if used > cap_gib * 2**30:
                words = f"the job's folder holds {used / 2**30:.3g} GiB, its cap is {cap_gib:g} GiB"
                self.ending = replace(self.ending, disk_over=words)
            # A folder with very many files takes long to walk; the walks then take a twentieth of the time.
            self.next_disk_look = now + max(_DISK_LOOK_SECONDS, 20 * (time.monotonic() - now))

    def _look_at_tree(self) -> None:
        caps = self.spec.caps
        tree = self._tree()
        own = _SANDBOX_PROCESSES if self.ending.sandboxed else 0
        if len(tree) - own > caps.pids:
            words = f"{len(tree) - own} processes at once, the cap is {caps.pids}"
            self.ending = replace(self.ending, processes_over=words)
        held = processes.private_bytes(tree)
        if held > caps.memory_gib * 2**30:
            held = processes.proportional_bytes(tree)
        self.peak_bytes = max(self.peak_bytes, held)
        if held > caps.memory_gib * 2**30:
            words = f"{held / 2**30:.3g} GiB held by all processes, the cap is {caps.memory_gib:g} GiB"
            self.ending = replace(self.ending, memory_over=words)
        if self.process is not None:
            processes.reap_adopted(keep=self.process.pid)

    def _tree(self) -> list[int]:
        return processes.descendants(os.getpid())

    def _kill(self) -> None:
        if self.group is not None:
            self.group.kill()
        if self.ending.sandboxed and self.process is not None:
            # Its death takes the first process inside along, and with that one the whole process namespace.
            self.process.kill()
        else:
            processes.kill_all(self._tree)

    # the end

    def _clear_away(self) -> None:
        """Nothing of the job is left running, and everything that it said and did is written down."""
        if self.process is not None and self.process.poll() is None:
            self._kill()
            self.process.wait()
        if self.inside is not None:
            selector = selectors.DefaultSelector()
            selector.register(self.inside, selectors.EVENT_READ)
            selector.select(10.0)
        if not self.ending.sandboxed:
            processes.kill_all(self._tree)
        while self._dispatch(0):
            continue
        if self.process is not None:
            self.ending = replace(self.ending, return_code=self.process.returncode)
        self._take_last_measures()
        if self.log is not None:
            for note in outputs.disarm(self.work):
                self._on_output(f"[postdoc: {note}]\n".encode())
            self.log.close()
        _remove(self.folder / SCRATCH)
        tail = joblog.tail_text(self.folder / LOG, _CLASSIFIED_TAIL_BYTES)
        self.ending = replace(self.ending, log_tail=tail)

    def _take_last_measures(self) -> None:
        # Of the largest single process; the looks above may have missed a short peak.
        largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        self.peak_bytes = max(self.peak_bytes, largest)
        if self.group is None:
            return
        self.group.kill()
        self.ending = replace(self.ending, oom_kills=self.group.oom_kills(), pids_refused=self.group.pids_refused())
        if self.ending.oom_kills:
            self.peak_bytes = max(self.peak_bytes, self.group.peak_bytes() or 0)
        self.group.remove()


def _remove(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        # Imported here because most jobs leave it empty, and every job waits for the imports of this module.
        import shutil

        shutil.rmtree(folder, ignore_errors=True)


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


def take_job(folder: Path) -> int | None:
    """The lock on the job, held until this process ends; None when the job has an owner or has had one."""
    descriptor = slots.open_lock(folder / slots.LOCK)
    deadline = time.monotonic() + _LOCK_WAIT_SECONDS
    # Somebody who asks whether the lock is held holds it for a moment himself, so one refusal says nothing.
    while not slots.try_lock(descriptor):
        if read_status(folder) is not None or time.monotonic() > deadline:
            return None
        time.sleep(0.005)
    return descriptor if read_status(folder) is None else None


def supervise(folder: Path) -> None:
    """Run the job in `folder` to its end, whatever happens on the way."""
    try:
        Supervisor(folder).run()
    except Exception as error:
        # A bug of ours, or a disk that no longer takes the status: the script is not blamed.
        sys.excepthook(type(error), error, error.__traceback__)
        said = f"the supervisor failed: {type(error).__name__}: {error}"
        last = read_status(folder) or JobStatus(JobId(folder.name), JobState.FAILED)
        write_json(
            folder / STATUS,
            replace(
                last, state=JobState.FAILED, failure=FailureKind.PLATFORM, ended_at=time.time(), evidence=(said,)
            ).as_dict(),
        )


def main() -> None:
    if len(sys.argv) != 2 or not os.path.isfile(os.path.join(sys.argv[1], SPEC)):
        sys.exit("usage: python -m runners.supervisor JOB_FOLDER (a folder that holds a spec.json)")
    folder = Path(sys.argv[1]).resolve()
    detach(folder)
    if take_job(folder) is not None:
        supervise(folder)


if __name__ == "__main__":
    main()
