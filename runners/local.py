"""Jobs on this machine: each in a folder of its own, under a supervisor that outlives the bot."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from bot.errors import PlatformError, UserError
from runners import activity, bubblewrap, cgroup, gpus, intake, joblog, processes, sandbox, slots
from runners.cache import shared_cache
from runners.cgroup import Cgroup, CgroupUnavailable, Hierarchy
from runners.checkpoints import CHECKPOINT_SECONDS, ask_for_checkpoint, checkpoint_is_made
from runners.gpus import GpuPlace
from runners.job import FailureKind, Flavor, JobId, JobSpec, JobState, JobStatus, Swept, read_json
from runners.layout import (
    CANCEL,
    LAUNCH_LOCK,
    LEASE,
    LOG,
    PLAN,
    SCRATCH,
    SPEC,
    STATUS,
    WORK,
    read_status,
    write_json,
)
from runners.metrics import metric_rows
from runners.tier import Tier

_START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from runners.supervisor import main; main()"
_PACKAGES = str(Path(__file__).resolve().parent.parent)
_START_SECONDS = 60.0
_SILENT_SECONDS = 60.0
_CANCEL_SECONDS = 15.0


class LocalRunner:
    """The Runner protocol over folders and processes of this machine."""

    name = "local"
    _supervisor_words: tuple[str, ...] = ("-S", "-c", _START)
    """For the interpreter of the bot; the packages' folder and the job's follow."""

    def __init__(
        self,
        root: Path,
        python: Path | None = None,
        tier: Tier | None = None,
        *,
        slots: int | None = None,
        log_bytes: int = joblog.DEFAULT_CAP_BYTES,
        redact: Callable[[str], str] | None = None,
        cache: Path | None = None,
        gpu_place: GpuPlace | None = None,
    ) -> None:
        """`python` is the interpreter of the jobs' environment (this process's own when None); `tier` the strongest
        available when None; `slots` how many jobs run at once, one for each processor core when None. `redact` takes
        the bot's own secrets out of what it reads; secrets of known shape never come to be stored. `cache` is a
        Hugging Face cache that jobs read and cannot change; `gpu_place` where GPUs are looked for, this machine when
        None.

        Raises: UserError when `cache` is no such cache.
        """
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Inside its sandbox a job may set the set-user-id bit on a file that, out here, belongs to this user.
        root.chmod(0o700)
        self.root = root.resolve()
        self._python = python
        self._wanted_tier = tier
        self._slots = max(1, slots if slots is not None else _cores())
        self._log_bytes = log_bytes
        self._redact = redact or str
        self._shared = shared_cache(cache)
        self._gpu_place = gpu_place or gpus.place()

    # the protocol

    def launch(self, spec: JobSpec) -> JobStatus:
        """Start the job, or return the status of the one that already has this id.

        Raises: UserError when the specification is wrong, or no tier here may run it; PlatformError when the
        supervisor does not start.
        """
        intake.check_job_id(spec.job_id)
        folder = self.root / spec.job_id
        if not (folder / SPEC).exists():
            intake.check(spec, self.root)
            self._check_permitted(spec)
            self._check_possible(spec)
        folder.mkdir(exist_ok=True, mode=0o700)
        with locked(folder / LAUNCH_LOCK):
            if not (folder / SPEC).exists():
                self._prepare(spec, folder)
            self._start_if_never_started(spec.job_id)
        status = self.status(spec.job_id)
        assert status is not None
        return status

    def status(self, job_id: JobId) -> JobStatus | None:
        """The job as seen now, None for an unknown id. A job whose supervisor vanished is LOST, for good."""
        folder = self._existing(job_id)
        if folder is None:
            return None
        status = read_status(folder)
        if status is None:
            return JobStatus(job_id, JobState.QUEUED, tier=self._planned_tier(folder))
        status = replace(status, evidence=tuple(self._redact(words) for words in status.evidence))
        if status.state.ended:
            return status
        if not slots.is_held(folder / slots.LOCK):
            # It may have ended, lock and all, between the two looks.
            return self._without_supervisor(folder)
        silent = _age_seconds(folder / LEASE)
        if silent is not None and silent > _SILENT_SECONDS:
            return replace(status, evidence=(f"the supervisor has been silent for {silent:.0f} s",))
        if status.state is JobState.QUEUED:
            return replace(status, detail=self._why_it_waits(status))
        quiet = activity.seconds_since_output(folder, status.started_at, time.time())
        return replace(status, seconds_since_output=quiet, cpu_share=activity.cpu_share(folder))

    def cancel(self, job_id: JobId) -> JobStatus | None:
        """End the whole process tree and wait until it is gone. A job that has ended stays as it ended.

        Raises: PlatformError when the job cannot be ended.
        """
        status = self.status(job_id)
        folder = self._existing(job_id)
        if status is None or folder is None or status.state.ended:
            return status
        (folder / CANCEL).touch()
        deadline = time.monotonic() + _CANCEL_SECONDS
        while time.monotonic() < deadline:
            if self._end_unstarted(folder):
                break
            self._signal_supervisor(folder, signal.SIGUSR1)
            with contextlib.suppress(TimeoutError):
                return self.wait(job_id, 0.5)
        else:
            # It does not listen: without it the kernel ends the job, and what is left is swept here.
            self._signal_supervisor(folder, signal.SIGKILL)
        return self._after_hard_cancel(job_id)

    def folder(self, job_id: JobId) -> Path:
        """The job's working directory on this machine. Read what a job wrote with `runners.outputs.read_output`."""
        intake.check_job_id(job_id)
        return self.root / job_id / WORK

    def checkpoint_first(self, job_id: JobId) -> float:
        return CHECKPOINT_SECONDS if ask_for_checkpoint(self.folder(job_id)) else 0.0

    def checkpoint_is_made(self, job_id: JobId) -> bool:
        return checkpoint_is_made(self.folder(job_id))

    def log_tail(self, job_id: JobId, lines: int = 200) -> str:
        folder = self._existing(job_id)
        return "" if folder is None else self._redact(joblog.tail(folder / LOG, lines))

    def jobs(self) -> Sequence[JobId]:
        """Every job whose folder is here, the oldest first."""
        specs = sorted(self.root.glob(f"*/{SPEC}"), key=lambda path: (path.stat().st_mtime_ns, path))
        return [JobId(path.parent.name) for path in specs]

    def metrics(self, job_id: JobId, after: int = 0) -> list[dict[str, Any]]:
        return metric_rows(self.folder(job_id))[after:]

    def flavors(self) -> Sequence[Flavor]:
        """One: this machine."""
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
        known = self._gpu_place.gpus()
        return (
            Flavor(
                "local",
                gpus=len(known),
                gpu_model=known[0].model if known else "",
                gpu_memory_gib=round(min((gpu.memory_gib for gpu in known), default=0.0), 1),
                memory_gib=round(pages * size / 2**30, 1),
                cpus=_cores(),
            ),
        )

    def refresh(self, job_id: JobId | None = None) -> None:
        """Nothing here is remembered between two calls."""

    @property
    def isolates(self) -> bool:
        """False where the walls, or the cap on processes, are not the kernel's: `postdoc doctor` says which."""
        return self._report.isolates

    # beyond the protocol

    @property
    def _report(self) -> sandbox.TierReport:
        return next(report for report in sandbox.probe(self._python) if report.tier is self.tier)

    @cached_property
    def tier(self) -> Tier:
        """Where jobs run. Raises: UserError when the tier that was asked for is not available."""
        reports = {report.tier: report for report in sandbox.probe(self._python)}
        if self._wanted_tier is None:
            available = [tier for tier, report in reports.items() if report.available]
            if not available:
                raise UserError("jobs can run on this machine only under Linux; choose another runner")
            return available[0]
        report = reports[self._wanted_tier]
        if not report.available:
            raise UserError(f"sandbox tier {report.tier} is not available here: {report.reason}; {report.advice}")
        return report.tier

    def spec(self, job_id: JobId) -> JobSpec | None:
        """What was asked for, None for an unknown id."""
        folder = self._existing(job_id)
        data = read_json(folder / SPEC) if folder is not None else None
        return JobSpec.from_dict(data) if data is not None else None

    def wait(self, job_id: JobId, timeout_seconds: float) -> JobStatus:
        """The status of the job once it has ended.

        Raises: TimeoutError when it has not within the time; UserError for an unknown id.
        """
        deadline = time.monotonic() + timeout_seconds
        pause = 0.005
        while True:
            status = self.status(job_id)
            if status is None:
                raise UserError(f"there is no job {job_id}")
            if status.state.ended:
                return status
            if time.monotonic() + pause > deadline:
                raise TimeoutError(f"job {job_id} is {status.state} after {timeout_seconds:g} s")
            time.sleep(pause)
            pause = min(0.1, pause * 1.2)

    def sweep(self) -> Swept:
        """Put the folder in order after a start: start what was only written down, declare lost what has no
        supervisor, end what is left of it, and leave the living alone."""
        started: list[JobId] = []
        lost: list[JobId] = []
        running: list[JobId] = []
        for job_id in self.jobs():
            before = read_status(self.root / job_id)
            with locked(self.root / job_id / LAUNCH_LOCK):
                if self._start_if_never_started(job_id):
                    started.append(job_id)
            status = self.status(job_id)
            if status is None:
                continue
            if status.state is JobState.LOST and before is not None and not before.state.ended:
                lost.append(job_id)
            elif not status.state.ended and job_id not in started:
                running.append(job_id)
        self._remove_half_prepared()
        return Swept(tuple(started), tuple(lost), tuple(running), self._end_orphans())

    def remove(self, job_id: JobId) -> None:
        """Delete an ended job with everything that it wrote.

        Raises: UserError when it has not ended.
        """
        status = self.status(job_id)
        if status is None:
            return
        if not status.state.ended:
            raise UserError(f"job {job_id} is {status.state}; cancel it first")
        shutil.rmtree(self.root / job_id)

    # starting

    @cached_property
    def _setting(self) -> sandbox.Setting:
        try:
            here = sandbox.setting(self.root, self.tier, self._python, self._gpu_place, self._shared)
        except (OSError, ValueError, subprocess.SubprocessError, CgroupUnavailable) as error:
            raise PlatformError(f"the jobs' interpreter or control group cannot be used: {error}") from error
        bubblewrap.write_etc(self.root)
        return here

    def _check_permitted(self, spec: JobSpec) -> None:
        if spec.trusted or self.isolates:
            return
        code = f"job {spec.job_id} runs code that did not ship with Postdoc"
        if self.tier is Tier.BUBBLEWRAP_RLIMITS:
            raise UserError(
                f"{code}, and the sandbox tier {self.tier} does not hold it here ({self._report.reason}). Give the "
                "server a control group (root, or a systemd service with `Delegate=yes`), run it as a user that is not "
                "root, or choose another runner"
            )
        missing = [report for report in sandbox.probe(self._python) if not report.available]
        why = "; ".join(f"{report.tier}: {report.reason}" for report in missing) or "the plain tier was asked for"
        raise UserError(
            f"{code}, and this machine has no sandbox for it ({why}). Install bubblewrap (`apt-get install "
            "bubblewrap`, `dnf install bubblewrap`) and let `postdoc doctor` check it, or choose another runner. What "
            "the plain tier has does not hold such code: it reads this user's files, changes their modes and talks to "
            "this user's programs"
        )

    def _check_possible(self, spec: JobSpec) -> None:
        """More than this machine has would be waited for without end."""
        wanted = spec.hardware
        if wanted.nodes > 1:
            raise UserError(f"job {spec.job_id} asks for {wanted.nodes} machines, and this runner has the one it runs "
                            "on. Ask for one, or choose the ray runner")  # fmt: skip
        if not wanted.gpus:
            return
        known = self._gpu_place.gpus()
        if not known:
            raise UserError(
                f"job {spec.job_id} asks for {wanted.gpus} GPUs, and this machine shows none that jobs may have. Ask "
                "for none, or choose another runner; `postdoc doctor` says what it sees"
            )
        if wanted.gpus > len(known):
            has = f"has {', '.join(gpu.name for gpu in known)}"
            raise UserError(f"job {spec.job_id} asks for {wanted.gpus} GPUs, and this machine {has}. Ask for at most "
                            f"{len(known)}, or choose another runner")  # fmt: skip

    def _prepare(self, spec: JobSpec, folder: Path) -> None:
        """Write everything that the job needs; `spec.json` comes last and makes it a job."""
        _remove_unfinished(folder)
        try:
            intake.copy_in(spec.files, folder / WORK)
            (folder / SCRATCH).mkdir(mode=0o700)
            plan = self._launch_plan(spec, folder)
            write_json(folder / PLAN, plan | {"slots": self._slots, "log_bytes": self._log_bytes}, durable=False)
            write_json(folder / SPEC, spec.as_dict())
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError):
                raise PlatformError(f"job {spec.job_id} could not be prepared: {error}") from error
            raise

    def _launch_plan(self, spec: JobSpec, folder: Path) -> dict[str, Any]:
        inside = self._shared if self.tier is Tier.PLAIN else self._shared.moved_to(bubblewrap.CACHE)
        self._shared.link_datasets(folder / SCRATCH, inside.datasets)
        return sandbox.launch_plan(spec, self._setting, folder)

    def _start_if_never_started(self, job_id: JobId) -> bool:
        folder = self.root / job_id
        if read_status(folder) is not None or slots.is_held(folder / slots.LOCK):
            return False
        self._start_supervisor(job_id)
        return True

    def _start_supervisor(self, job_id: JobId) -> None:
        folder = self.root / job_id
        plan = read_json(folder / PLAN) or {}
        slots.enqueue(self.root, job_id, slots.GPU_QUEUE if plan.get("gpus") else slots.QUEUE)
        # It takes the job, forks, and its first half ends: the second is not our child, so it becomes no zombie and is
        # not ended with us. Without site-packages (-S) and the caller's environment it starts in half the time.
        command = [sys.executable, "-I", *self._supervisor_words, _PACKAGES, str(folder)]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={"LANG": "C.UTF-8", "PATH": os.defpath},
                cwd="/",
                start_new_session=True,
                timeout=_START_SECONDS,
                check=False,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise PlatformError(f"the supervisor of job {job_id} could not be started: {error}") from error
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            raise PlatformError(f"the supervisor of job {job_id} did not start: {said}")

    # ending

    def _without_supervisor(self, folder: Path) -> JobStatus:
        """What becomes of a job that has not ended and whose supervisor has gone: here it went with it."""
        return self._declare_lost(folder)

    def _declare_lost(self, folder: Path) -> JobStatus:
        """Under the job's own lock: of several that notice, one writes, and a supervisor that came back is seen."""
        descriptor = slots.open_lock(folder / slots.LOCK)
        try:
            taken = slots.try_lock(descriptor)
            status = read_status(folder)
            assert status is not None
            if status.state.ended or not taken:
                return status
            self._end_leftovers(folder)
            evidence = ("its supervisor has gone without a word",)
            lost = replace(
                status, state=JobState.LOST, failure=FailureKind.PLATFORM, ended_at=time.time(), evidence=evidence
            )
            write_json(folder / STATUS, lost.as_dict())
            return lost
        finally:
            os.close(descriptor)

    def _end_unstarted(self, folder: Path) -> bool:
        """Cancel a job that no supervisor has taken; False when one has."""
        descriptor = slots.open_lock(folder / slots.LOCK)
        try:
            if not slots.try_lock(descriptor) or read_status(folder) is not None:
                return False
            status = JobStatus(
                JobId(folder.name), JobState.CANCELLED, ended_at=time.time(), tier=self._planned_tier(folder)
            )
            write_json(folder / STATUS, status.as_dict())
            slots.leave_queue(self.root, folder.name)
            return True
        finally:
            os.close(descriptor)

    def _after_hard_cancel(self, job_id: JobId) -> JobStatus:
        status = self.wait(job_id, _CANCEL_SECONDS)
        if status.state is JobState.LOST:
            status = replace(
                status,
                state=JobState.CANCELLED,
                failure=None,
                evidence=("its supervisor did not answer and was killed",),
            )
            write_json(self.root / job_id / STATUS, status.as_dict())
        return status

    def _signal_supervisor(self, folder: Path, number: signal.Signals) -> None:
        lease = read_json(folder / LEASE)
        if lease is None or not slots.is_held(folder / slots.LOCK):
            return
        # A number alone could by now belong to somebody else.
        if processes.start_ticks(lease["pid"]) == lease["start_ticks"]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(lease["pid"], number)

    def _end_leftovers(self, folder: Path) -> None:
        """Whatever the kernel did not end together with the supervisor."""
        plan = read_json(folder / PLAN) or {}
        if plan.get("hierarchy"):
            group = Cgroup(Hierarchy.from_dict(plan["hierarchy"]), plan["group"])
            group.kill()
            group.remove()
        if plan.get("tier") == Tier.PLAIN:
            processes.kill_all(lambda: processes.marked(str(folder)))
        slots.leave_queue(self.root, folder.name)
        shutil.rmtree(folder / SCRATCH, ignore_errors=True)

    def _remove_half_prepared(self) -> None:
        for lock in self.root.glob(f"*/{LAUNCH_LOCK}"):
            folder = lock.parent
            if not (folder / SPEC).exists() and not slots.is_held(lock):
                shutil.rmtree(folder, ignore_errors=True)

    def _end_orphans(self) -> tuple[str, ...]:
        """Control groups of jobs below this root that have no supervisor: its folder may have been deleted."""
        try:
            hierarchy = cgroup.find_hierarchy()
        except CgroupUnavailable:
            return ()
        prefix = sandbox.group_prefix(self.root)
        for path in {path for folder in hierarchy.folders for path in folder.glob(f"{prefix}*")}:
            job_id = path.name.removeprefix(prefix)
            if not slots.is_held(self.root / job_id / slots.LOCK):
                group = Cgroup(hierarchy, path.name)
                group.kill()
                group.remove()
        return ()

    # reading

    def _existing(self, job_id: JobId) -> Path | None:
        intake.check_job_id(job_id)
        folder = self.root / job_id
        return folder if (folder / SPEC).is_file() else None

    def _why_it_waits(self, status: JobStatus) -> str:
        before = slots.place_in_line(self.root, status.job_id)
        if before is None:
            return status.detail
        running = slots.taken_slots(self.root)
        place = "next in line" if before == 0 else f"{_ordinal(before + 1)} in line"
        words = f"{place}; {running} job{' is' if running == 1 else 's are'} running"
        return f"{words}; {status.detail}" if status.detail else words

    def _planned_tier(self, folder: Path) -> str:
        return str((read_json(folder / PLAN) or {}).get("tier", ""))


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    descriptor = slots.open_lock(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _cores() -> int:
    """Those that this process may use, which in a container are often fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _remove_unfinished(folder: Path) -> None:
    """What a bot left that died while it prepared the job."""
    for name in (WORK, SCRATCH):
        shutil.rmtree(folder / name, ignore_errors=True)


def _age_seconds(path: Path) -> float | None:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return None
