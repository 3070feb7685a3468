"""What a backend executes: the job's specification, its states, its outcome, and the Runner protocol."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, NewType, Protocol

JobId = NewType("JobId", str)
"""Lowercase letters, digits and hyphens; chosen by the caller from what the job is for, so that launching the same
job twice is recognised as the same job."""


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """The script ended wrongly by itself, or against a cap."""
    CANCELLED = "cancelled"
    LOST = "lost"
    """The supervisor or the machine went away without a word: the platform's fault, not the recipe's."""

    @property
    def ended(self) -> bool:
        return self not in (JobState.QUEUED, JobState.RUNNING)


class FailureKind(StrEnum):
    """Why a job failed, by evidence in this order: time-out flag, oom_kill counter, status JSON, exit code, stderr."""

    TIMEOUT = "timeout"
    OOM = "oom"
    """Killed by the memory cap (kernel counter), or an allocator's own message in stderr."""
    DISK_FULL = "disk_full"
    """File-size cap or a full file system."""
    PROCESS_LIMIT = "process_limit"
    SIGNAL = "signal"
    SCRIPT_ERROR = "script_error"
    """A non-zero exit of its own, a traceback most often."""
    PLATFORM = "platform"
    """The sandbox could not start or broke, no machine came, the outputs did not arrive; the script is not blamed."""


class Fault(StrEnum):
    """Whose fault an ending is. Only the script's blames the recipe; the platform's is tried again."""

    NONE = ""
    SCRIPT = "script"
    PLATFORM = "platform"


@dataclass(frozen=True, slots=True)
class Caps:
    """Limits that hold whatever the script does."""

    memory_gib: float = 4.0
    pids: int = 256
    file_size_gib: float = 4.0
    """Largest single file it may write."""
    disk_gib: float = 32.0
    """Everything that lies under the working directory together, what was copied in included."""
    timeout_seconds: float = 3600.0
    cpu_threads: int = 1
    """OMP_NUM_THREADS and friends inside the job."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a job asks its backend for."""

    gpus: int = 0
    """On each machine."""
    nodes: int = 1
    """Machines that train together."""
    flavor: str = ""
    """The backend's own name for a kind of machine: a Hub flavor, a runner label. Empty: the backend's default."""


@dataclass(frozen=True, slots=True)
class Flavor:
    """A kind of machine that a backend offers."""

    name: str
    gpus: int = 0
    gpu_model: str = ""
    gpu_memory_gib: float = 0.0
    """Of one GPU."""
    memory_gib: float = 0.0
    cpus: float = 0.0
    usd_per_hour: float | None = None
    """None where the backend does not say: the repository's policy does then."""


@dataclass(frozen=True, slots=True)
class JobSpec:
    """Everything a backend needs, as plain data. Written to `spec.json` in the job's folder before anything starts."""

    job_id: JobId
    argv: tuple[str, ...]
    """Run inside the job with the working directory `/job` (tier without a mount namespace: the work folder itself).
    `{python}` stands for the interpreter of the job's environment, `{job}` for the job's working directory and
    `{mount:NAME}` for where the read-only mount NAME appears."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Relative path in the working directory -> absolute path of a file or folder on this machine, copied in."""
    mounts: Mapping[str, str] = field(default_factory=dict)
    """NAME -> absolute path of a folder, readable and not writable (a base model, an earlier run's weights)."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to a clean environment. Never a secret."""
    caps: Caps = field(default_factory=Caps)
    trusted: bool = False
    """True when the caller has checked that every file executed is byte for byte one that ships with Postdoc. Only
    such a job may run on a tier without isolation."""
    hardware: Hardware = field(default_factory=Hardware)
    network: bool = False
    """Whether the script may reach the network. Backends that cannot take it away say so in `Runner.isolates`."""
    outputs: tuple[str, ...] = ("out",)
    """Paths below the working directory that come back from another machine when the job has ended."""
    checkpoints: str = ""
    """Folder below the working directory in which the script makes `checkpoint-N` folders; each leaves the machine
    when it is complete. Empty: the job makes none."""
    origins: Mapping[str, str] = field(default_factory=dict)
    """NAME of a mount -> where another machine can fetch the same thing by itself, `hub:OWNER/NAME@REVISION`."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """What the job is for, for the backend's own lists: `repository`, `goal`, `role`, `run`, `sha`. Never a secret."""
    monitor: str = ""
    """`abort`: a wrapper that can judge the run ends it when it is doomed. Anything else: nobody but the bot does."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> JobSpec:
        return cls(
            job_id=data["job_id"],
            argv=tuple(data["argv"]),
            files=data["files"],
            mounts=data["mounts"],
            environment=data["environment"],
            caps=Caps(**data["caps"]),
            trusted=data["trusted"],
            # From here on absent in what an earlier version wrote.
            hardware=Hardware(**data.get("hardware", {})),
            network=data.get("network", False),
            outputs=tuple(data.get("outputs", ("out",))),
            checkpoints=data.get("checkpoints", ""),
            origins=data.get("origins", {}),
            labels=data.get("labels", {}),
            monitor=data.get("monitor", ""),
        )


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A job as seen now. Times are Unix seconds."""

    job_id: JobId
    state: JobState
    started_at: float | None = None
    ended_at: float | None = None
    exit_code: int | None = None
    """The script's own; 128 + n for signal n. None while running or when it never started."""
    failure: FailureKind | None = None
    evidence: tuple[str, ...] = ()
    """What the classification rests on, in words: `oom_kill counter 1`, `stderr: DefaultCPUAllocator`."""
    tier: str = ""
    """Sandbox tier that ran it: bubblewrap+cgroup, bubblewrap+rlimits, or plain."""
    peak_memory_gib: float | None = None
    detail: str = ""
    """What a person who waits wants to know: `third in line`, `no machine with the label gpu is online`."""
    machine: str = ""
    """Name of the machine that runs it, in the backend's words."""
    cost_usd: float | None = None
    """So far, by the backend's own price; None where it has none."""
    seconds_since_output: float | None = None
    """Since the last line of log or logged step: of a running job, and of one that was ended from outside."""
    cpu_share: float | None = None
    """Of one core since then, on average; None where it writes, or where nobody has measured it."""
    watched: bool = False
    """The wrapper beside the job judges the run itself, so that the bot need not."""
    judged: Mapping[str, Any] | None = None
    """What the wrapper ended it for: `bot.diagnosis.watching.verdict`."""

    @property
    def fault(self) -> Fault:
        """Whose fault the ending is; nobody's while it runs, when it succeeded and when somebody cancelled it."""
        if self.state is JobState.LOST or self.failure is FailureKind.PLATFORM:
            return Fault.PLATFORM
        return Fault.SCRIPT if self.state is JobState.FAILED else Fault.NONE

    @property
    def seconds(self) -> float | None:
        if self.started_at is None or self.ended_at is None:
            return None
        return self.ended_at - self.started_at

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {
            "state": str(self.state),
            "failure": str(self.failure) if self.failure else None,
            "evidence": list(self.evidence),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> JobStatus:
        fields = {key: data[key] for key in cls.__dataclass_fields__ if key in data}
        fields["state"] = JobState(data["state"])
        fields["failure"] = FailureKind(data["failure"]) if data.get("failure") else None
        fields["evidence"] = tuple(data.get("evidence", ()))
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class Swept:
    """What a start-up or the timer found and put in order."""

    started: tuple[JobId, ...] = ()
    """Written down by a bot that died before it could start them."""
    lost: tuple[JobId, ...] = ()
    running: tuple[JobId, ...] = ()
    """Alive, untouched."""
    ended: tuple[str, ...] = ()
    """Orphans of the backend that were ours by their label and known to nobody; they cost nothing any more."""


class Runner(Protocol):
    """A backend. Calls may block for as long as a file system does, those to another machine for as long as an HTTP
    request; the engine runs them in a thread. Whatever the backend, `folder` is on this machine."""

    @property
    def name(self) -> str: ...

    @property
    def isolates(self) -> bool:
        """True when a job that did not ship with Postdoc may run here."""
        ...

    def launch(self, spec: JobSpec) -> JobStatus:
        """Start the job, or return the status of the one that already has this id.

        Raises: UserError when the specification is wrong or this backend may not run it (the text says what to do);
        PlatformError when the backend cannot start anything now.
        """
        ...

    def status(self, job_id: JobId) -> JobStatus | None:
        """The job as seen now, None for an unknown id. A job whose supervisor or machine vanished is LOST, once."""
        ...

    def cancel(self, job_id: JobId) -> JobStatus | None:
        """End the whole process tree and wait until it is gone. A job that has ended stays as it ended."""
        ...

    def folder(self, job_id: JobId) -> Path:
        """The job's working directory, or what has come back of it: `/job` as the script saw it."""
        ...

    def metrics(self, job_id: JobId, after: int = 0) -> list[dict[str, Any]]:
        """What the script has logged so far in `out/metrics.jsonl`, TRL's key names and `step`, oldest first, without
        the first `after` rows."""
        ...

    def checkpoint_first(self, job_id: JobId) -> float:
        """Ask the script for a checkpoint, because the job is about to be ended; far from here, the job ends itself
        after that. Returns how many seconds that may take before `cancel` follows, 0 where nobody can be asked."""
        ...

    def checkpoint_is_made(self, job_id: JobId) -> bool:
        """Whether nothing that was asked for is still to come, so that the job may be ended now."""
        ...

    def log_tail(self, job_id: JobId, lines: int = 200) -> str:
        """The last lines of stdout and stderr together, secrets removed."""
        ...

    def jobs(self) -> Sequence[JobId]:
        """Every job whose folder is here, ended ones included."""
        ...

    def sweep(self) -> Swept:
        """Called at the start and on a timer: start what was only written down, declare lost what is gone, end what
        carries our label and is nobody's."""
        ...

    def flavors(self) -> Sequence[Flavor]:
        """The kinds of machine that can be asked for now, with their prices, the default first."""
        ...

    def refresh(self, job_id: JobId | None = None) -> None:
        """Something happened to the job (a webhook said so): the next `status` asks the backend."""
        ...


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in `path`, or None when it is absent or half-written by a process that died."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None
