"""How a job ended, from evidence: our own flags first, then the kernel's counters, the sandbox's report, the exit code
and, last because a script can print anything, the words at the end of its log."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from typing import NamedTuple

from runners.job import FailureKind, JobState

_TRACEBACK = "Traceback (most recent call last)"
_TAIL_CHARACTERS = 4096

_PATTERNS: tuple[tuple[FailureKind, str], ...] = (
    (FailureKind.OOM, r"^MemoryError\b"),
    (FailureKind.OOM, r"DefaultCPUAllocator: (?:can't|not enough)[^\n]{0,40}"),
    (FailureKind.OOM, r"(?:CUDA|HIP|XPU|MPS)[^\n]{0,30} out of memory"),
    (FailureKind.OOM, r"torch\.(?:cuda\.)?OutOfMemoryError"),
    (FailureKind.OOM, r"CUBLAS_STATUS_ALLOC_FAILED"),
    (FailureKind.OOM, r"std::bad_alloc"),
    (FailureKind.OOM, r"Cannot allocate memory"),
    (FailureKind.DISK_FULL, r"No space left on device"),
    (FailureKind.DISK_FULL, r"File too large"),
    (FailureKind.DISK_FULL, r"Disk quota exceeded"),
    (FailureKind.PROCESS_LIMIT, r"can't start new thread"),
    (FailureKind.PROCESS_LIMIT, r"Resource temporarily unavailable"),
)


@dataclass(frozen=True, slots=True)
class Ending:
    """What the supervisor knows when the last process of a job has gone."""

    return_code: int | None
    """Of the process that the supervisor started, negative for a signal; None when it could not be started."""
    sandboxed: bool
    """That process was the sandbox, which reports the script's own exit code separately."""
    reported_exit_code: int | None = None
    """From the sandbox's status report; None when it broke, or was killed, before the script ended."""
    cancelled: bool = False
    shutdown_signal: int | None = None
    """The machine, or a person, told the supervisor itself to stop."""
    timed_out_after_seconds: float | None = None
    oom_kills: int = 0
    memory_over: str = ""
    """Where no control group holds the cap: what was measured when the supervisor killed the job for it."""
    processes_over: str = ""
    disk_over: str = ""
    pids_refused: int = 0
    start_error: str = ""
    lost: str = ""
    """What ran the job went away with it, or ended it of its own accord: how that showed."""
    log_tail: str = ""

    @property
    def was_cut_short(self) -> bool:
        """Somebody, or a cap, decided that the job shall not go on."""
        return bool(
            self.cancelled
            or self.shutdown_signal is not None
            or self.timed_out_after_seconds is not None
            or self.oom_kills
            or self.memory_over
            or self.processes_over
            or self.disk_over
        )


class Outcome(NamedTuple):
    state: JobState
    failure: FailureKind | None
    exit_code: int | None
    evidence: tuple[str, ...]


def outcome(ending: Ending) -> Outcome:
    """The state, the kind of failure and what they rest on."""
    code = _script_exit_code(ending)
    if ending.start_error:
        return Outcome(JobState.FAILED, FailureKind.PLATFORM, None, (ending.start_error,))
    if ending.cancelled:
        return Outcome(JobState.CANCELLED, None, code, ())
    if ending.shutdown_signal is not None:
        name = signal.Signals(ending.shutdown_signal).name
        return Outcome(JobState.LOST, FailureKind.PLATFORM, code, (f"the supervisor was told to stop by {name}",))
    struck = _struck_by_a_cap(ending)
    if struck is not None:
        return Outcome(JobState.FAILED, struck[0], code, (struck[1],))
    if ending.lost:
        return Outcome(JobState.LOST, FailureKind.PLATFORM, code, (ending.lost,))
    if ending.sandboxed and ending.reported_exit_code is None:
        return _broken_sandbox(ending)
    if code == 0:
        return Outcome(JobState.SUCCEEDED, None, 0, ())
    kind, evidence = _from_exit(ending, code or 0)
    return Outcome(JobState.FAILED, kind, code, evidence)


def _script_exit_code(ending: Ending) -> int | None:
    if ending.reported_exit_code is not None:
        return ending.reported_exit_code
    if ending.return_code is None:
        return None
    return 128 - ending.return_code if ending.return_code < 0 else ending.return_code


def _struck_by_a_cap(ending: Ending) -> tuple[FailureKind, str] | None:
    if ending.timed_out_after_seconds is not None:
        return FailureKind.TIMEOUT, f"killed at its time-out of {ending.timed_out_after_seconds:g} s"
    if ending.oom_kills:
        return FailureKind.OOM, f"oom_kill counter {ending.oom_kills}"
    if ending.memory_over:
        return FailureKind.OOM, ending.memory_over
    if ending.processes_over:
        return FailureKind.PROCESS_LIMIT, ending.processes_over
    if ending.disk_over:
        return FailureKind.DISK_FULL, ending.disk_over
    return None


def _broken_sandbox(ending: Ending) -> Outcome:
    said = [line for line in ending.log_tail.splitlines() if line.startswith("bwrap: ")]
    if ending.return_code == 1 and said and said[-1].startswith("bwrap: execvp "):
        # The walls stood; what the job asked to run is not there. 127 is what a shell says then.
        return Outcome(JobState.FAILED, FailureKind.SCRIPT_ERROR, 127, (said[-1],))
    words = f"the sandbox ended with {ending.return_code} and did not report how the script ended"
    return Outcome(JobState.FAILED, FailureKind.PLATFORM, None, (said[-1] if said else words,))


def _from_exit(ending: Ending, code: int) -> tuple[FailureKind, tuple[str, ...]]:
    exit_evidence = f"exit code {code}"
    if ending.pids_refused:
        return FailureKind.PROCESS_LIMIT, (exit_evidence, f"pids.events max {ending.pids_refused}")
    if code == 128 + signal.SIGXFSZ:
        return FailureKind.DISK_FULL, (f"{exit_evidence} (SIGXFSZ: a file grew past its cap)",)
    pattern = _last_pattern(ending.log_tail)
    if pattern is not None:
        kind, words = pattern
        return kind, (exit_evidence, f"stderr: {words}")
    if 128 < code < 128 + signal.NSIG:
        return FailureKind.SIGNAL, (f"{exit_evidence} ({_signal_name(code - 128)})",)
    return FailureKind.SCRIPT_ERROR, (exit_evidence, *_last_words(ending.log_tail))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _last_pattern(log_tail: str) -> tuple[FailureKind, str] | None:
    """The pattern that stands last: an error that was handled long before the end is not the cause."""
    tail = log_tail[-_TAIL_CHARACTERS:]
    traceback = tail.rfind(_TRACEBACK)
    if traceback >= 0:
        tail = tail[traceback:]
    found = [
        (match.end(), kind, match[0])
        for kind, pattern in _PATTERNS
        for match in re.finditer(pattern, tail, re.MULTILINE)
    ]
    if not found:
        return None
    _, kind, words = max(found)
    return kind, words


def _last_words(log_tail: str) -> tuple[str, ...]:
    """The last line of a traceback, which names the exception."""
    if _TRACEBACK not in log_tail:
        return ()
    lines = [line.strip() for line in log_tail.splitlines() if line.strip()]
    return (f"stderr: {lines[-1][:300]}",) if lines else ()
