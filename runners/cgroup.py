"""The kernel's control group of one job: memory and process caps that hold for the whole tree, and how they struck.

Both layouts are supported: version 1 (a folder in each controller's hierarchy) and version 2 (one folder).
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path("/sys/fs/cgroup")
_CONTROLLERS = ("memory", "pids")


class CgroupUnavailable(Exception):
    """This machine gives us no control group; the text says why."""


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """Where groups of jobs are made: one folder for each controller on version 1, the same folder on version 2."""

    version: int
    memory: str
    pids: str

    @property
    def folders(self) -> tuple[Path, ...]:
        return (Path(self.memory),) if self.memory == self.pids else (Path(self.memory), Path(self.pids))

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Hierarchy:
        return cls(version=data["version"], memory=data["memory"], pids=data["pids"])


def find_hierarchy(root: Path = ROOT, membership: str | None = None) -> Hierarchy:
    """The place on this machine where this process may make control groups.

    `membership` is the text of /proc/self/cgroup. Only a run through the group proves that it works.

    Raises: CgroupUnavailable.
    """
    if membership is None:
        try:
            membership = Path("/proc/self/cgroup").read_text(encoding="ascii")
        except OSError as error:
            raise CgroupUnavailable(f"/proc/self/cgroup cannot be read: {error}") from error
    if (root / "cgroup.controllers").is_file():
        return _find_v2(root, membership)
    if any((root / name).is_dir() for name in _CONTROLLERS):
        return _find_v1(root, membership)
    raise CgroupUnavailable(f"no cgroup file system with a memory controller is mounted at {root}")


def _find_v1(root: Path, membership: str) -> Hierarchy:
    own: dict[str, str] = {}
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        own.update(dict.fromkeys(controllers.split(","), path))
    chosen = {}
    for name in _CONTROLLERS:
        # Below our own group first: a limit that the administrator set for the bot then holds for its jobs too.
        # Inside a container that path is often the host's and not visible, so the mount's root comes second.
        candidates = [root / name / own.get(name, "/").lstrip("/"), root / name]
        usable = [path for path in candidates if (path / "cgroup.procs").is_file() and os.access(path, os.W_OK)]
        if not usable:
            raise CgroupUnavailable(f"no right to make a group in {root / name} (root, or a delegated group, may)")
        chosen[name] = str(usable[0])
    return Hierarchy(version=1, **chosen)


def _find_v2(root: Path, membership: str) -> Hierarchy:
    own = next((line[3:] for line in membership.splitlines() if line.startswith("0::")), "/")
    inside = root / own.lstrip("/")
    # A group that holds processes cannot give controllers to children (the "no internal processes" rule), so a
    # sibling of our own group comes first; https://docs.kernel.org/admin-guide/cgroup-v2.html
    candidates = [path for path in inside.parents if path == root or root in path.parents]
    if inside == root:
        candidates = [root]
    reasons = []
    for candidate in candidates:
        reason = _enable_controllers(candidate)
        if reason is None:
            return Hierarchy(version=2, memory=str(candidate), pids=str(candidate))
        reasons.append(f"{candidate}: {reason}")
    raise CgroupUnavailable("; ".join(reasons) or f"the group {own} is not visible below {root}")


def _enable_controllers(group: Path) -> str | None:
    """Give the children of `group` the memory and pids controllers; None when they have them, else why not."""
    control = group / "cgroup.subtree_control"
    try:
        missing = set(_CONTROLLERS) - set(control.read_text(encoding="ascii").split())
        if not os.access(group, os.W_OK):
            return "not writable by this user"
        if missing:
            control.write_text(" ".join(f"+{name}" for name in sorted(missing)), encoding="ascii")
    except OSError as error:
        return f"controllers cannot be enabled ({error.strerror})"
    return None


def group_of(pid: int, owner: str, root: Path = ROOT) -> Cgroup | None:
    """The group that somebody else made for `pid` and what it starts: the nearest one whose name holds `owner`. None
    when no such group can be seen from here.

    Raises: OSError when there is no such process.
    """
    text = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8", errors="replace")
    paths: dict[str, str] = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        paths.update(dict.fromkeys(controllers.split(","), path))
    unified = (root / "cgroup.controllers").is_file()
    found = []
    for name in _CONTROLLERS:
        place = Path(paths.get("" if unified else name, "/").lstrip("/"))
        own = next((each for each in (place, *place.parents) if owner in each.name), None)
        top = root if unified else root / name
        if own is None or ".." in own.parts or not (top / own).is_dir():
            return None
        found.append(top / own)
    memory, pids = found
    return Cgroup(Hierarchy(2 if unified else 1, str(memory.parent), str(pids.parent)), memory.name)


class Cgroup:
    """One job's group. Made by `create`, joined between fork and exec by `enter`, ended by `kill` and `remove`."""

    def __init__(self, hierarchy: Hierarchy, name: str) -> None:
        self.version = hierarchy.version
        self._folders = tuple(folder / name for folder in hierarchy.folders)
        self._memory = self._folders[0]
        self._pids = self._folders[-1]

    def exists(self) -> bool:
        return any(folder.is_dir() for folder in self._folders)

    def create(self, memory_bytes: int, pids: int) -> None:
        """Raises: OSError when the group cannot be made or does not take the caps."""
        for folder in self._folders:
            folder.mkdir()
        if self.version == 1:
            _write(self._memory / "memory.limit_in_bytes", str(memory_bytes))
            # Without this cap the job would swap instead of meeting its limit; kernels without swap accounting lack it.
            _write_if_there(self._memory / "memory.memsw.limit_in_bytes", str(memory_bytes))
        else:
            _write(self._memory / "memory.max", str(memory_bytes))
            _write_if_there(self._memory / "memory.swap.max", "0")
            _write_if_there(self._memory / "memory.oom.group", "1")
        _write(self._pids / "pids.max", str(pids))

    def enter(self) -> None:
        for folder in self._folders:
            _write(folder / "cgroup.procs", "0")

    def oom_kills(self) -> int:
        name = "memory.oom_control" if self.version == 1 else "memory.events"
        return _counter(self._memory / name, "oom_kill")

    def pids_refused(self) -> int:
        return _counter(self._pids / "pids.events", "max")

    def peak_bytes(self) -> int | None:
        """The most that was ever charged, page cache included; None where the kernel does not keep it."""
        name = "memory.max_usage_in_bytes" if self.version == 1 else "memory.peak"
        try:
            return int((self._memory / name).read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None

    def private_bytes(self) -> int:
        """Memory held now that no file backs, so that cannot be given back under pressure."""
        names = ("total_rss", "total_shmem") if self.version == 1 else ("anon", "shmem")
        return sum(_counter(self._memory / "memory.stat", name) for name in names)

    def processes(self) -> list[int]:
        found: set[int] = set()
        for folder in self._folders:
            try:
                found.update(int(line) for line in (folder / "cgroup.procs").read_text(encoding="ascii").split())
            except OSError:
                continue
        return sorted(found)

    def kill(self, timeout_seconds: float = 10.0) -> bool:
        """End every process in the group; True when none is left."""
        deadline = time.monotonic() + timeout_seconds
        while alive := self.processes():
            if self.version == 2:
                _write_if_there(self._memory / "cgroup.kill", "1")
            for pid in alive:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            if time.monotonic() > deadline:
                return False
            time.sleep(0.002)
        return True

    def remove(self, timeout_seconds: float = 2.0) -> bool:
        """Remove the group; the kernel refuses for some milliseconds after the last process has gone."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            for folder in self._folders:
                try:
                    folder.rmdir()
                except OSError:
                    continue
            if not self.exists():
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(0.002)


def _write(path: Path, text: str) -> None:
    # Opened without O_CREAT: a control file that is missing must fail, not come to be.
    descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC)
    try:
        os.write(descriptor, text.encode("ascii"))
    finally:
        os.close(descriptor)


def _write_if_there(path: Path, text: str) -> None:
    try:
        _write(path, text)
    except OSError:
        return


def _counter(path: Path, name: str) -> int:
    try:
        text = path.read_text(encoding="ascii")
    except OSError:
        return 0
    match = re.search(rf"^{name} (\d+)$", text, re.MULTILINE)
    return int(match[1]) if match else 0
