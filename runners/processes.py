"""The processes of a job as /proc shows them: who descends from whom, what they hold in memory, how they are ended."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator

JOB_MARK = "POSTDOC_JOB_FOLDER"
"""Environment variable in every job on the plain tier: what is left of one whose supervisor died is found by it."""


def pids() -> Iterator[int]:
    """Every process that /proc shows."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            yield int(name)


def count_on_machine() -> int:
    """Processes and threads of this machine: one short read, where walking /proc takes longer the more there are."""
    try:
        with open("/proc/loadavg", encoding="ascii") as file:
            return int(file.read().split()[3].partition("/")[2])
    except (OSError, ValueError, IndexError):
        return 0


def _stat_fields(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from `state` on; the command's name before it may hold spaces and brackets."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return None


def start_ticks(pid: int) -> int | None:
    """When the process started, in clock ticks since boot: with the pid, an identity that is never used twice."""
    fields = _stat_fields(pid)
    return int(fields[19]) if fields else None


def is_running(pid: int) -> bool:
    """Whether the process exists and is more than a zombie waiting to be reaped."""
    fields = _stat_fields(pid)
    return fields is not None and fields[0] not in ("Z", "X")


def descendants(root: int) -> list[int]:
    """Every live process below `root`, however deep, zombies left out."""
    children: dict[int, list[int]] = {}
    for pid in pids():
        fields = _stat_fields(pid)
        if fields is not None and fields[0] not in ("Z", "X"):
            children.setdefault(int(fields[1]), []).append(pid)
    found: list[int] = []
    frontier = [root]
    while frontier:
        below = [child for pid in frontier for child in children.get(pid, ())]
        found.extend(below)
        frontier = below
    return found


def marked(job_folder: str) -> list[int]:
    """Processes that carry the plain tier's mark of this job in their environment."""
    needle = f"{JOB_MARK}={job_folder}".encode()
    found = []
    for pid in pids():
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                variables = file.read().split(b"\0")
        except OSError:
            continue
        if needle in variables and pid != os.getpid() and is_running(pid):
            found.append(pid)
    return found


def kill_all(find: Callable[[], Iterable[int]], timeout_seconds: float = 10.0) -> bool:
    """Kill what `find` finds until it finds nothing: a process may fork between the look and the blow."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        alive = list(find())
        if not alive:
            return True
        for pid in alive:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)


def reap_adopted(keep: int) -> None:
    """Collect the ended children of this process, except `keep`, whose exit status somebody waits for."""
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None or ended.si_pid == keep:
            return
        os.waitpid(ended.si_pid, 0)


def cpu_seconds(group: Iterable[int]) -> float:
    """Processor time that these processes, and the children that they have waited for, have used."""
    found = (_stat_fields(pid) for pid in group)
    ticks = sum(int(field) for fields in found if fields for field in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def private_bytes(group: Iterable[int]) -> int:
    """Memory that these processes hold and that no file backs, shared pages counted once for each holder."""
    total = 0
    for pid in group:
        total += sum(_kib_fields(f"/proc/{pid}/status", ("RssAnon:", "RssShmem:"))) * 1024
    return total


def proportional_bytes(group: Iterable[int]) -> int:
    """The same, but a page that n processes share counts 1/n for each. Slower, so asked only near a limit."""
    total = 0
    for pid in group:
        fields = _kib_fields(f"/proc/{pid}/smaps_rollup", ("Pss_Anon:", "Pss_Shmem:"))
        total += sum(fields or _kib_fields(f"/proc/{pid}/status", ("RssAnon:", "RssShmem:"))) * 1024
    return total


def largest_peak_bytes(group: Iterable[int]) -> int:
    """The most memory that any one of these processes has held since it started."""
    return max((sum(_kib_fields(f"/proc/{pid}/status", ("VmHWM:",))) * 1024 for pid in group), default=0)


def _kib_fields(path: str, names: tuple[str, ...]) -> list[int]:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return [int(line.split()[1]) for line in file if line.startswith(names)]
    except OSError:
        return []
