"""The Runner protocol for jobs on other machines: everything that does not depend on which backend starts them.

ROOT/<job id>/ is a mirror, laid out like a job's folder of this machine (`runners/layout.py`): `spec.json`,
`status.json`, `log.txt` and `work/`, with `remote.json` for what the backend calls the job and how far the store has
been read.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from bot.errors import PlatformError, PostdocError, TransientError, UserError
from runners import intake, joblog, slots
from runners.checkpoints import CHECKPOINT_FIRST, FAR_SECONDS
from runners.job import FailureKind, Flavor, JobId, JobSpec, JobState, JobStatus, Swept, read_json
from runners.layout import CANCEL as CANCEL_FILE
from runners.layout import LAUNCH_LOCK, LOG, SPEC, WORK, read_status, write_json
from runners.layout import STATUS as STATUS_FILE
from runners.metrics import METRICS as METRICS_FILE
from runners.metrics import metric_rows
from runners.remote import package
from runners.remote.store import CANCEL, CHECKPOINTS, INPUTS, METRICS, OUTPUTS, OUTPUTS_NOTE, STATUS, Store
from runners.remote.store import LOG as LOG_PIECES

log = logging.getLogger("postdoc.remote")

REMOTE = "remote.json"
LATEST = "latest"
"""In the folder of checkpoints: the name of the newest whole one."""
_LEASE_SECONDS = 180.0
_TIMEOUT_GRACE_SECONDS = 120.0
_CANCEL_SECONDS = 30.0


class Seen(StrEnum):
    WAITING = "waiting"
    """For a machine."""
    RUNNING = "running"
    ENDED = "ended"
    GONE = "gone"
    """The backend does not know it any more, or lost the machine."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """What a backend says of one of its jobs."""

    seen: Seen
    detail: str = ""
    machine: str = ""
    cost_usd: float | None = None
    failure: FailureKind | None = None
    """Where the backend itself knows why it ended: its time-out, its memory limit, its queue."""
    exit_code: int | None = None
    cancelled: bool = False
    """Somebody ended it at the backend itself, not through us."""
    machine_may_live: bool = False
    """True where a job outlives what the backend knows of it: then only a lapsed lease means that it is gone."""


class Backend(Protocol):
    """What differs between far machines. Raises: PlatformError whenever the other side cannot be reached now."""

    name: str
    poll_seconds: float
    """Shortest time between two looks at one job."""

    @property
    def isolates(self) -> bool: ...

    @property
    def hears(self) -> bool:
        """Whether the wrappers read their store while the job runs."""
        ...

    def store(self, job_id: JobId) -> Store: ...

    def omitted(self, spec: JobSpec) -> frozenset[str]:
        """Names of mounts that the other machine fetches by itself, from `spec.origins`."""
        ...

    def submit(self, spec: JobSpec) -> Mapping[str, Any]:
        """Start it, or find what an earlier call with the same id started: the handle to look and cancel by. The
        packed job lies in its store already."""
        ...

    def look(self, job_id: JobId, handle: Mapping[str, Any]) -> Sighting: ...

    def cancel(self, job_id: JobId, handle: Mapping[str, Any]) -> None:
        """Ask for its end; done already is no error."""
        ...

    def orphans(self, known: frozenset[JobId]) -> Sequence[str]:
        """End jobs that carry our label, run, and are none of `known`; what they were, for the log."""
        ...

    def flavors(self) -> Sequence[Flavor]: ...


@dataclass(slots=True)
class _Memory:
    """Of one job, in this process."""

    looked_at: float = float("-inf")
    lock: threading.Lock = field(default_factory=threading.Lock)
    last: JobStatus | None = None


class RemoteRunner:
    """A backend's jobs, mirrored below `root`."""

    def __init__(
        self,
        root: Path,
        backend: Backend,
        *,
        redact: Callable[[str], str],
        lease_seconds: float = _LEASE_SECONDS,
        timeout_grace_seconds: float = _TIMEOUT_GRACE_SECONDS,
        log_bytes: int = joblog.DEFAULT_CAP_BYTES,
    ) -> None:
        """`redact` takes secrets out of a log before it is stored; `lease_seconds` is how long a wrapper may be silent
        before its machine counts as lost."""
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.root = root.resolve()
        self.backend = backend
        self._redact = redact
        self._lease_seconds = lease_seconds
        self._grace_seconds = timeout_grace_seconds
        self._log_bytes = log_bytes
        self._memories: dict[JobId, _Memory] = {}
        self._listens_since = time.time()
        """A wrapper that could not reach this side while it was away was not silent by its own doing."""

    @property
    def name(self) -> str:
        return self.backend.name

    @property
    def isolates(self) -> bool:
        return self.backend.isolates

    # the protocol

    def launch(self, spec: JobSpec) -> JobStatus:
        intake.check_job_id(spec.job_id)
        folder = self.root / spec.job_id
        if not (folder / SPEC).exists():
            intake.check(spec, self.root)
            if not (spec.trusted or self.isolates):
                raise UserError(
                    f"job {spec.job_id} runs code that did not ship with Postdoc, and the runner {self.name} does not "
                    "isolate jobs. Choose one that does"
                )
        folder.mkdir(exist_ok=True, mode=0o700)
        with _locked(folder / LAUNCH_LOCK):
            fresh = not (folder / SPEC).exists()
            if fresh:
                self._prepare(spec, folder)
            try:
                self._submit_if_needed(spec.job_id)
            except UserError:
                # Nothing was started, and nothing will be: a sweep must not try it for ever.
                if fresh:
                    shutil.rmtree(folder, ignore_errors=True)
                raise
        status = self.status(spec.job_id)
        assert status is not None
        return status

    def status(self, job_id: JobId) -> JobStatus | None:
        folder = self._existing(job_id)
        if folder is None:
            return None
        known = read_status(folder)
        if known is not None and known.state.ended:
            return known
        memory = self._memories.setdefault(job_id, _Memory())
        with memory.lock:
            if memory.last is None or time.monotonic() - memory.looked_at >= self.backend.poll_seconds:
                try:
                    memory.last = self._look(job_id, folder)
                except (PlatformError, TransientError, OSError) as error:
                    # A page that shows the job, and a bot that starts, do not fail because the other side is away.
                    memory.last = self._unseen(job_id, folder, memory.last, error)
                memory.looked_at = time.monotonic()
                if memory.last.state.ended:
                    del self._memories[job_id]
            return memory.last

    def cancel(self, job_id: JobId) -> JobStatus | None:
        status = self.status(job_id)
        folder = self._existing(job_id)
        if status is None or folder is None or status.state.ended:
            return status
        (folder / CANCEL_FILE).touch()
        self.backend.store(job_id).write(CANCEL, b"")
        with _locked(folder / LAUNCH_LOCK):
            remote = read_json(folder / REMOTE)
            if remote is None:
                return self._end(folder, replace(status, state=JobState.CANCELLED, ended_at=time.time()))
        self.backend.cancel(job_id, remote["handle"])
        deadline = time.monotonic() + _CANCEL_SECONDS
        while not status.state.ended and time.monotonic() < deadline:
            self.refresh(job_id)
            status = self.status(job_id) or status
            time.sleep(min(0.2, self.backend.poll_seconds))
        if not status.state.ended:
            # It was asked to end twice over; whatever it still does, nobody waits for it.
            status = self._end(folder, replace(status, state=JobState.CANCELLED, ended_at=time.time()))
        return status

    def checkpoint_first(self, job_id: JobId) -> float:
        """The wrapper asks the script, and ends the job; a backend whose wrappers hear nothing cannot be asked."""
        status = self.status(job_id)
        folder = self._existing(job_id)
        spec = None if folder is None else JobSpec.from_dict(read_json(folder / SPEC) or {})
        if status is None or folder is None or status.state is not JobState.RUNNING or not self.backend.hears:
            return 0.0
        if spec is None or not spec.checkpoints:
            return 0.0
        (folder / CANCEL_FILE).touch()
        self.backend.store(job_id).write(CANCEL, CHECKPOINT_FIRST)
        return FAR_SECONDS

    def checkpoint_is_made(self, job_id: JobId) -> bool:
        """False until the job has ended: its outputs, the checkpoint among them, are on their way until then."""
        status = self.status(job_id)
        return status is None or status.state.ended

    def folder(self, job_id: JobId) -> Path:
        intake.check_job_id(job_id)
        return self.root / job_id / WORK

    def metrics(self, job_id: JobId, after: int = 0) -> list[dict[str, Any]]:
        return metric_rows(self.folder(job_id))[after:]

    def log_tail(self, job_id: JobId, lines: int = 200) -> str:
        folder = self._existing(job_id)
        return "" if folder is None else joblog.tail(folder / LOG, lines)

    def jobs(self) -> Sequence[JobId]:
        specs = sorted(self.root.glob(f"*/{SPEC}"), key=lambda path: (path.stat().st_mtime_ns, path))
        return [JobId(path.parent.name) for path in specs]

    def sweep(self) -> Swept:
        started: list[JobId] = []
        lost: list[JobId] = []
        running: list[JobId] = []
        for job_id in self.jobs():
            before = read_status(self.root / job_id)
            if before is not None and before.state.ended:
                continue
            try:
                with _locked(self.root / job_id / LAUNCH_LOCK):
                    if self._submit_if_needed(job_id):
                        started.append(job_id)
            except UserError as error:
                # The no is final: whoever waits for the job learns it now.
                words = (str(error),)
                refused = JobStatus(job_id, JobState.FAILED, failure=FailureKind.PLATFORM, evidence=words)
                self._end(self.root / job_id, refused)
            except (PostdocError, OSError) as error:
                log.warning("job %s is still not submitted: %s", job_id, error)
            self.refresh(job_id)
            status = self.status(job_id)
            if status is not None and status.state is JobState.LOST:
                lost.append(job_id)
            elif status is not None and not status.state.ended and job_id not in started:
                running.append(job_id)
        try:
            ended = self.backend.orphans(frozenset(self.jobs()))
        except (PostdocError, OSError) as error:
            log.warning("%s cannot be swept now: %s", self.name, error)
            ended = ()
        return Swept(tuple(started), tuple(lost), tuple(running), tuple(ended))

    def flavors(self) -> Sequence[Flavor]:
        return self.backend.flavors()

    def refresh(self, job_id: JobId | None = None) -> None:
        for known, memory in list(self._memories.items()):
            if job_id in (None, known):
                memory.looked_at = float("-inf")

    # from one machine to the next

    def trace(self, job_id: JobId) -> dict[str, Any] | None:
        """What another machine needs to go on watching a submitted job that has not ended; None for any other."""
        folder = self._existing(job_id)
        remote = read_json(folder / REMOTE) if folder is not None else None
        if folder is None or remote is None or ((known := read_status(folder)) is not None and known.state.ended):
            return None
        return {"spec": read_json(folder / SPEC), "handle": remote["handle"], "submitted_at": remote["submitted_at"]}

    def adopt(self, trace: Mapping[str, Any]) -> JobId:
        """Mirror a job that another machine submitted. Raises: UserError for a trace that is none."""
        try:
            spec = JobSpec.from_dict(trace["spec"])
            remote = {"handle": dict(trace["handle"]), "submitted_at": float(trace["submitted_at"])}
        except (LookupError, TypeError, ValueError) as error:
            raise UserError("the trace of a job on another machine cannot be read") from error
        intake.check_job_id(spec.job_id)
        folder = self.root / spec.job_id
        if not (folder / SPEC).exists():
            folder.mkdir(exist_ok=True, mode=0o700)
            write_json(folder / REMOTE, remote)
            write_json(folder / SPEC, spec.as_dict())
        return spec.job_id

    # starting

    def _prepare(self, spec: JobSpec, folder: Path) -> None:
        """Copy and pack the job's inputs; `spec.json` comes last and makes it a job."""
        shutil.rmtree(folder / WORK, ignore_errors=True)
        archive = folder / INPUTS
        try:
            intake.copy_in(spec.files, folder / WORK)
            package.pack(spec, folder / WORK, archive, self.backend.omitted(spec))
            self.backend.store(spec.job_id).push(archive, INPUTS)
            write_json(folder / SPEC, spec.as_dict())
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError):
                raise PlatformError(f"job {spec.job_id} could not be prepared: {error}") from error
            raise
        finally:
            archive.unlink(missing_ok=True)

    def _submit_if_needed(self, job_id: JobId) -> bool:
        folder = self.root / job_id
        if (folder / REMOTE).exists() or read_status(folder) is not None:
            return False
        spec = JobSpec.from_dict(read_json(folder / SPEC) or {})
        handle = self.backend.submit(spec)
        write_json(folder / REMOTE, {"handle": dict(handle), "submitted_at": time.time()})
        return True

    # looking

    def _look(self, job_id: JobId, folder: Path) -> JobStatus:
        remote = read_json(folder / REMOTE)
        if remote is None:
            return JobStatus(job_id, JobState.QUEUED, detail="it is about to be submitted")
        spec = JobSpec.from_dict(read_json(folder / SPEC) or {})
        store = self.backend.store(job_id)
        said, remote = self._wrapper_said(job_id, store, remote)
        sighting = self._sighting(job_id, remote["handle"], said)
        self._pull(folder, store, remote)
        write_json(folder / REMOTE, remote, durable=False)
        status = replace(
            said or JobStatus(job_id, JobState.QUEUED),
            cost_usd=sighting.cost_usd,
            machine=sighting.machine or (said.machine if said else ""),
            detail=sighting.detail or (said.detail if said else ""),
        )
        if said is not None and said.state.ended:
            return self._collect(folder, spec, store, status)
        if sighting.seen in (Seen.ENDED, Seen.GONE):
            # The wrapper's last word may have come between the two looks.
            said, remote = self._wrapper_said(job_id, store, remote)
            if said is not None and said.state.ended:
                last = replace(said, cost_usd=status.cost_usd, machine=status.machine, detail=status.detail)
                return self._collect(folder, spec, store, last)
            if not (sighting.machine_may_live and self._is_heard(said, remote)):
                return self._ended_without_a_word(folder, spec, store, status, sighting)
            write_json(folder / REMOTE, remote, durable=False)
        if (overdue := self._overdue(spec, remote, said)) is not None:
            # Whoever comes back after that finds the wish and ends.
            store.write(CANCEL, b"")
            with contextlib.suppress(PlatformError):  # it may be what cannot be reached
                self.backend.cancel(job_id, remote["handle"])
            return self._lost_or_late(folder, spec, store, status, overdue)
        if status.state is JobState.QUEUED and sighting.seen is Seen.RUNNING:
            status = replace(status, detail=status.detail or "its machine is getting ready")
        return status

    def _sighting(self, job_id: JobId, handle: Mapping[str, Any], said: JobStatus | None) -> Sighting:
        """What the backend says. Where it cannot be reached the wrapper's word stands alone, and its lease."""
        try:
            return self.backend.look(job_id, handle)
        except PlatformError as error:
            if said is None:
                raise
            return Sighting(Seen.RUNNING, str(error), said.machine)

    def _unseen(self, job_id: JobId, folder: Path, last: JobStatus | None, error: Exception) -> JobStatus:
        """What was known last, with why nothing newer is."""
        if last is None:
            spoke = (read_json(folder / REMOTE) or {}).get("lease") is not None
            last = JobStatus(job_id, JobState.RUNNING if spoke else JobState.QUEUED)
        return replace(last, detail=f"{self.name} cannot be asked now: {error}")

    def _wrapper_said(
        self, job_id: JobId, store: Store, remote: dict[str, Any]
    ) -> tuple[JobStatus | None, dict[str, Any]]:
        """The wrapper's own word, and since when (by this machine's clock) it has not been renewed."""
        content = store.read(STATUS)
        if content is None:
            return None, remote
        try:
            data = json.loads(content)
            status = JobStatus.from_dict(data)
        except (ValueError, LookupError, TypeError):
            return None, remote
        if data.get("at") != remote.get("lease"):
            remote = remote | {"lease": data.get("at"), "lease_seen_at": time.time()}
        return replace(status, job_id=job_id), remote

    def _overdue(self, spec: JobSpec, remote: Mapping[str, Any], said: JobStatus | None) -> FailureKind | None:
        """TIMEOUT or PLATFORM when the job should have ended, or its wrapper should have spoken, by now."""
        if said is None or said.started_at is None:
            return None
        if not self._is_heard(said, remote):
            return FailureKind.PLATFORM
        if said.ended_at is not None:
            return None  # the script has ended; what still takes its time are its outputs on their way
        first_seen = remote.setdefault("running_since", time.time()) if isinstance(remote, dict) else time.time()
        if time.time() - first_seen > spec.caps.timeout_seconds + self._grace_seconds:
            return FailureKind.TIMEOUT
        return None

    def _is_heard(self, said: JobStatus | None, remote: Mapping[str, Any]) -> bool:
        """Whether the wrapper has spoken, and its lease has not lapsed."""
        heard_at = max(remote.get("lease_seen_at", 0.0), self._listens_since)
        return said is not None and time.time() - heard_at <= self._lease_seconds

    def _pull(self, folder: Path, store: Store, remote: dict[str, Any]) -> None:
        """New pieces of metrics and log, appended to the mirror."""
        target = folder / WORK / METRICS_FILE
        for name in store.names(METRICS):
            if name > remote.get("metrics", ""):
                target.parent.mkdir(parents=True, exist_ok=True)
                with open(target, "ab") as file:
                    file.write(store.read(name) or b"")
                remote["metrics"] = name
        pieces = [name for name in store.names(LOG_PIECES) if name > remote.get("log", "")]
        if pieces:
            mirror = joblog.CappedLog(folder / LOG, self._log_bytes)
            for name in pieces:
                text = (store.read(name) or b"").decode("utf-8", "replace")
                mirror.write(self._redact(text).encode())
                remote["log"] = name
            mirror.close()

    # ending

    def _collect(self, folder: Path, spec: JobSpec, store: Store, status: JobStatus) -> JobStatus:
        """The outputs, fetched and checked; a job whose outputs are missing did not succeed."""
        archive = folder / OUTPUTS
        try:
            problem = self._fetch_outputs(folder, spec, store, archive)
        finally:
            archive.unlink(missing_ok=True)
        if problem and status.state is JobState.SUCCEEDED:
            words = f"the script ended well, but {problem}"
            status = replace(status, state=JobState.FAILED, failure=FailureKind.PLATFORM, evidence=(words,))
        if (folder / CANCEL_FILE).exists() and status.state is not JobState.SUCCEEDED:
            status = replace(status, state=JobState.CANCELLED, failure=None)
        return self._end(folder, status)

    def _fetch_outputs(self, folder: Path, spec: JobSpec, store: Store, archive: Path) -> str:
        """What is wrong with them, empty when nothing is."""
        note = store.read(OUTPUTS_NOTE)
        if note is None or not store.fetch(OUTPUTS, archive):
            return "its outputs did not arrive"
        wanted = json.loads(note)
        with open(archive, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != wanted.get("sha256"):
            return "its outputs arrived damaged"
        for name in spec.outputs:
            # What was mirrored while it ran is part of what comes now, whole.
            target = folder / WORK / name
            shutil.rmtree(target, ignore_errors=True) if target.is_dir() else target.unlink(missing_ok=True)
        try:
            package.unpack_outputs(archive, folder / WORK, int(spec.caps.disk_gib * 2**30))
        except PlatformError as error:
            return str(error)
        return ""

    def _ended_without_a_word(
        self, folder: Path, spec: JobSpec, store: Store, status: JobStatus, sighting: Sighting
    ) -> JobStatus:
        if (folder / CANCEL_FILE).exists() or sighting.cancelled:
            ended = replace(status, state=JobState.CANCELLED, failure=None, ended_at=time.time())
            return self._end(folder, ended)
        if sighting.failure not in (None, FailureKind.PLATFORM):
            evidence = (sighting.detail or f"{self.name} says {sighting.failure}",)
            return self._end(folder, replace(status, state=JobState.FAILED, failure=sighting.failure,
                             evidence=evidence, exit_code=sighting.exit_code, ended_at=time.time()))  # fmt: skip
        if sighting.failure is FailureKind.PLATFORM and status.started_at is None:
            # The backend knows that no machine ever ran it: there is nothing that could have been lost.
            evidence = (sighting.detail or f"{self.name} never ran it",)
            failed = replace(status, state=JobState.FAILED, failure=FailureKind.PLATFORM, evidence=evidence)
            return self._end(folder, failed)
        words = (sighting.detail or f"{self.name} has no trace of it", "its wrapper left no last word")
        return self._lose(folder, spec, store, replace(status, evidence=words))

    def _lost_or_late(
        self, folder: Path, spec: JobSpec, store: Store, status: JobStatus, overdue: FailureKind
    ) -> JobStatus:
        if overdue is FailureKind.TIMEOUT:
            evidence = (f"ended from outside after its time-out of {spec.caps.timeout_seconds:g} s",)
            late = replace(status, state=JobState.FAILED, failure=overdue, evidence=evidence, ended_at=time.time())
            return self._end(folder, late)
        evidence = (f"its machine has been silent for more than {self._lease_seconds:g} s",)
        return self._lose(folder, spec, store, replace(status, evidence=evidence))

    def _lose(self, folder: Path, spec: JobSpec, store: Store, status: JobStatus) -> JobStatus:
        """Note the loss and bring the last checkpoint that left the machine here: the next attempt starts there."""
        if spec.checkpoints:
            names = sorted(store.names(CHECKPOINTS), key=lambda name: int(Path(name).stem))
            archive = folder / "checkpoint.tar"
            if names and store.fetch(names[-1], archive):
                target = folder / WORK / spec.checkpoints
                with contextlib.suppress(PlatformError):
                    package.unpack_outputs(archive, target, int(spec.caps.disk_gib * 2**30))
                    (target / LATEST).write_text(f"checkpoint-{Path(names[-1]).stem}", encoding="utf-8")
                archive.unlink(missing_ok=True)
        lost = replace(status, state=JobState.LOST, failure=FailureKind.PLATFORM, ended_at=time.time())
        return self._end(folder, lost)

    def _end(self, folder: Path, status: JobStatus) -> JobStatus:
        ended = replace(status, ended_at=status.ended_at or time.time())
        write_json(folder / STATUS_FILE, ended.as_dict())
        return ended

    def _existing(self, job_id: JobId) -> Path | None:
        intake.check_job_id(job_id)
        folder = self.root / job_id
        return folder if (folder / SPEC).is_file() else None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = slots.open_lock(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
