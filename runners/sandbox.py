"""The tiers of isolation that this machine can give a job, found by really running something in each of them."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any
from uuid import uuid4

from runners import bubblewrap, cgroup, gpus, intake, kernel, landlock, processes, seccomp
from runners.bubblewrap import Interpreter
from runners.cache import Shared
from runners.cgroup import Cgroup, CgroupUnavailable, Hierarchy
from runners.gpus import GpuPlace
from runners.job import JobSpec
from runners.tier import Tier

_PROBE_SECONDS = 20.0
_PROBE_MEMORY_BYTES = 256 << 20
_ANSWER = "it runs"
_PROBE_SCRIPT = f"print({_ANSWER!r})"
_PROBE_PROCESSES = 8
_FORKS_SCRIPT = f"""
import os, time
try:
    for _ in range({_PROBE_PROCESSES}):
        if os.fork() == 0:
            time.sleep(5)
            os._exit(0)
except BlockingIOError:
    print({_ANSWER!r})
else:
    print('it could make more')
"""
_FILTER_SCRIPT = f"print({_ANSWER!r} if 'Seccomp:\\t2' in open('/proc/self/status').read() else 'it has no filter')"


class Layer(StrEnum):
    SECCOMP = "seccomp"
    """System calls that no training needs are refused."""
    LANDLOCK = "landlock"
    """The kernel holds the job to its own files a second time; on the plain tier, to writing its own files."""


@dataclass(frozen=True, slots=True)
class TierReport:
    """What a tier can do here."""

    tier: Tier
    available: bool
    reason: str
    """What was seen when it was tried."""
    advice: str = ""
    """What to do to get it; empty when it is there."""
    isolates_files: bool = False
    isolates_network: bool = False
    isolates: bool = False
    """Whether code that did not ship with Postdoc may run in it."""
    layers: frozenset[Layer] = frozenset()
    """What stands behind the first wall here, because the kernel has it and it was seen to work."""


def probe(python: Path | None = None) -> list[TierReport]:
    """Try each tier with the jobs' interpreter, the strongest first."""
    return list(_probe(python))


@functools.cache
def _probe(python: Path | None) -> tuple[TierReport, ...]:
    walls, layers, walls_advice = _try_bubblewrap(python)
    group, group_advice = _try_cgroup()
    both = walls is None and group is None
    behind = f", behind it {' and '.join(sorted(layers))}" if layers else ""
    return (
        TierReport(
            Tier.BUBBLEWRAP_CGROUP,
            both,
            walls or group or f"a program ran inside both{behind}",
            walls_advice if walls else group_advice if group else "",
            isolates_files=True,
            isolates_network=True,
            isolates=both,
            layers=layers,
        ),
        _rlimits_report(python, walls, walls_advice, layers, behind),
        _plain_report(),
    )


def _rlimits_report(
    python: Path | None, walls: str | None, advice: str, layers: frozenset[Layer], behind: str
) -> TierReport:
    """Without a control group nothing but RLIMIT_NPROC stops a job that forks without end in time; a supervisor that
    looks and kills is too slow where thousands of processes compete with it."""
    forks = None if walls else _try_process_cap(python, layers)
    reason = walls or f"a program ran inside bubblewrap{behind}"
    if forks:
        reason += f"; only scripts that ship with Postdoc run, because {forks}"
    return TierReport(
        Tier.BUBBLEWRAP_RLIMITS,
        walls is None,
        reason,
        advice if walls else "",
        isolates_files=True,
        isolates_network=True,
        isolates=walls is None and forks is None,
        layers=layers,
    )


def _try_process_cap(python: Path | None, layers: frozenset[Layer]) -> str | None:
    """Why the kernel does not cap a job's processes here; None when it was seen to."""
    if os.getuid() == 0:
        return "the kernel caps no processes of root (run the bot as another user, or with a control group)"
    if not kernel.counts_processes_by_namespace():
        return "a kernel before 5.14 counts all processes of this user together"
    said = _try_walls(shutil.which("bwrap") or "bwrap", bubblewrap.interpreter(python), layers, _PROBE_PROCESSES)
    return f"its cap on processes does not hold ({said})" if said else None


def _try_bubblewrap(python: Path | None) -> tuple[str | None, frozenset[Layer], str]:
    """Why bubblewrap does not work (None when it does), what works behind it, and what to do about it."""
    none: frozenset[Layer] = frozenset()
    if sys.platform != "linux":
        return "bubblewrap exists on Linux only", none, "run the jobs on a Linux machine"
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        advice = "install it: `apt-get install bubblewrap`, `dnf install bubblewrap`"
        return "the program bwrap is not installed", none, advice
    try:
        words = bubblewrap.interpreter(python)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return f"the jobs' interpreter {python} does not run: {error}", none, "name another interpreter for the jobs"
    wanted = _layers_of_the_kernel()
    # All of them as a rule; where something stands in the way of one, as many as work.
    for layers in sorted({wanted, wanted - {Layer.LANDLOCK}, wanted - {Layer.SECCOMP}, none}, key=len, reverse=True):
        reason = _try_walls(bwrap, words, layers)
        if reason is None:
            return None, layers, ""
    return reason, none, _bubblewrap_advice(reason or "")


def _layers_of_the_kernel() -> frozenset[Layer]:
    found = {Layer.SECCOMP} if seccomp.machine() is not None else set()
    return frozenset(found | ({Layer.LANDLOCK} if landlock.version() >= landlock.LEAST_VERSION else set()))


def _try_walls(bwrap: str, words: Interpreter, layers: frozenset[Layer], processes: int = 0) -> str | None:
    with tempfile.TemporaryDirectory(prefix="postdoc-probe-") as folder:
        root = Path(folder)
        bubblewrap.write_etc(root)
        for name in ("work", "scratch"):
            (root / name).mkdir()
        command = bubblewrap.command(
            bwrap,
            words,
            root / bubblewrap.ETC,
            root / "work",
            root / "scratch",
            {},
            {"PATH": "/usr/bin:/bin"},
            _PROBE_MEMORY_BYTES,
            second_wall=Layer.LANDLOCK in layers,
            processes=processes,
        )
        command = bubblewrap.with_gpus(command, ())
        script = _FORKS_SCRIPT if processes else _FILTER_SCRIPT if Layer.SECCOMP in layers else _PROBE_SCRIPT
        command += [words.executable, "-I", "-S", "-c", script]
        if Layer.SECCOMP not in layers:
            return _run(command)
        program = seccomp.program_file()
        assert program is not None
        try:
            command[1:1] = ["--seccomp", str(program)]
            return _run(command, passing=(program,))
        finally:
            os.close(program)


def _bubblewrap_advice(reason: str) -> str:
    if "nknown option" in reason:
        return "bubblewrap 0.8 or newer is needed (Debian 12, Ubuntu 24.04, Fedora 38 have it)"
    if "ermission denied" in reason or "not permitted" in reason or "No permissions" in reason:
        return (
            "this user may not make namespaces: `sysctl kernel.unprivileged_userns_clone=1`, on Ubuntu 24.04 "
            "`sysctl kernel.apparmor_restrict_unprivileged_userns=0` or an AppArmor profile for bwrap, in a container "
            "one that is started with the right to make user namespaces"
        )
    return "the line above is bubblewrap's own; its manual page explains the option that it names"


def _try_cgroup() -> tuple[str | None, str]:
    advice = "run the bot as root, or as a systemd service with `Delegate=yes`; without it the second tier is used"
    try:
        group = Cgroup(cgroup.find_hierarchy(), f"postdoc-probe-{uuid4().hex}")
    except CgroupUnavailable as error:
        return f"no control group: {error}", advice
    try:
        group.create(_PROBE_MEMORY_BYTES, 16)
        # Read from inside: a group that takes the pid and does not list it would hold no cap either.
        reason = _run([sys.executable, "-I", "-S", "-c", _PROBE_SCRIPT], entering=group)
    except OSError as error:
        reason = f"the control group cannot be used: {error}"
    group.kill()
    if not group.remove() and reason is None:
        reason = "the control group cannot be removed again"
    return reason, advice


def _run(command: list[str], entering: Cgroup | None = None, passing: tuple[int, ...] = ()) -> str | None:
    """Run a command that prints the answer; None when it did, else why not."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_PROBE_SECONDS,
            stdin=subprocess.DEVNULL,
            check=False,
            preexec_fn=entering.enter if entering else None,
            pass_fds=passing,
            env={"PATH": "/usr/bin:/bin"},
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"{os.path.basename(command[0])} could not be run: {error}"
    if done.returncode == 0 and done.stdout.strip() == _ANSWER:
        return None
    said = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return said[-1] if said else f"{os.path.basename(command[0])} ended with {done.returncode}"


def _plain_report() -> TierReport:
    if sys.platform != "linux":
        return TierReport(Tier.PLAIN, False, "jobs on this machine need Linux", "choose another runner")
    network = _works(kernel.leave_network)
    writes = landlock.version() >= landlock.LEAST_VERSION and _works(lambda: landlock.restrict([], landlock.ALL_WRITES))
    seen = "jobs get no network" if network else "jobs keep this machine's network"
    seen += " and write only their own files (Landlock)" if writes else ""
    return TierReport(
        Tier.PLAIN,
        True,
        f"no isolation, so only scripts that ship with Postdoc run; {seen}",
        isolates_network=network,
        layers=frozenset({Layer.LANDLOCK} if writes else ()),
    )


def _works(confine: Callable[[], None]) -> bool:
    """Whether a process can do this to itself."""
    command = [sys.executable, "-I", "-S", "-c", _PROBE_SCRIPT]
    try:
        done = subprocess.run(
            command, preexec_fn=confine, timeout=_PROBE_SECONDS, capture_output=True, stdin=subprocess.DEVNULL,
            check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0


@dataclass(frozen=True, slots=True)
class Setting:
    """Where on this machine a job is run: fixed when a runner starts, the same for all of its jobs."""

    tier: Tier
    interpreter: Interpreter
    root: Path
    bwrap: str
    hierarchy: Hierarchy | None
    leaves_network: bool
    layers: frozenset[Layer]
    gpus: GpuPlace
    shared: Shared
    """Models and data sets that every job may read."""


def setting(
    root: Path, tier: Tier, python: Path | None, where: GpuPlace | None = None, shared: Shared | None = None
) -> Setting:
    """Raises: OSError, ValueError, subprocess.SubprocessError when the interpreter cannot be run."""
    report = next(report for report in probe(python) if report.tier is tier)
    return Setting(
        tier=tier,
        interpreter=bubblewrap.interpreter(python),
        root=root,
        bwrap=shutil.which("bwrap") or "bwrap",
        hierarchy=cgroup.find_hierarchy() if tier is Tier.BUBBLEWRAP_CGROUP else None,
        leaves_network=tier is Tier.PLAIN and report.isolates_network,
        layers=report.layers,
        gpus=where or gpus.place(),
        shared=shared or Shared(),
    )


def launch_plan(spec: JobSpec, here: Setting, folder: Path) -> dict[str, Any]:
    """What the supervisor starts, as plain data: the command with its walls, the environment and the control group."""
    wanted = spec.hardware.gpus
    return {
        "tier": str(here.tier),
        **(_plain(spec, here, folder) if here.tier is Tier.PLAIN else _walled(spec, here, folder)),
        "hierarchy": here.hierarchy.as_dict() if here.hierarchy else None,
        "group": group_prefix(here.root) + spec.job_id,
        "leaves_network": here.leaves_network and not spec.network,
        "gpus": {"count": wanted, "place": here.gpus.as_dict()} if wanted else None,
    }


def _plain(spec: JobSpec, here: Setting, folder: Path) -> dict[str, Any]:
    work, scratch = folder / "work", folder / "scratch"
    paths = {name: str(Path(source).resolve()) for name, source in spec.mounts.items()}
    environment = job_environment(spec, here.interpreter, str(scratch), str(scratch), here.shared.environment())
    own = [(landlock.WRITE, str(work)), (landlock.WRITE, str(scratch)), (landlock.WRITE, "/dev/shm")]
    return {
        "argv": intake.substitute(spec.argv, here.interpreter.executable, str(work), paths),
        "environment": environment | {processes.JOB_MARK: str(folder)},
        "seccomp": False,
        "landlock": [*own, (landlock.DEVICE, "/dev")] if Layer.LANDLOCK in here.layers else None,
    }


def _walled(spec: JobSpec, here: Setting, folder: Path) -> dict[str, Any]:
    bound = {name: intake.mount_point(name, source) for name, source in spec.mounts.items()}
    paths = {name: path for name, (_, _, path) in bound.items()}
    shared = here.shared.moved_to(bubblewrap.CACHE)
    walls = bubblewrap.command(
        here.bwrap,
        here.interpreter,
        here.root / bubblewrap.ETC,
        folder / "work",
        folder / "scratch",
        {place: source for source, place, _ in bound.values()} | here.shared.mounts(bubblewrap.CACHE),
        job_environment(spec, here.interpreter, "/tmp", bubblewrap.SCRATCH, shared.environment()),
        int(spec.caps.memory_gib * 2**30),
        second_wall=Layer.LANDLOCK in here.layers,
        # And the first process inside, which is bubblewrap's.
        processes=spec.caps.pids + 1 if kernel.counts_processes_by_namespace() else 0,
    )
    if spec.network:
        walls = bubblewrap.with_network(walls)
    return {
        "argv": [*walls, *intake.substitute(spec.argv, here.interpreter.executable, bubblewrap.WORK, paths)],
        "environment": {"PATH": "/usr/bin:/bin"},
        "seccomp": Layer.SECCOMP in here.layers,
        "landlock": None,
    }


def group_prefix(root: Path) -> str:
    """Of the control groups of all jobs below `root`: two bots on one machine must not sweep each other's."""
    return f"postdoc-{hashlib.sha256(os.fsencode(root)).hexdigest()[:8]}-"


def job_environment(
    spec: JobSpec, python: Interpreter, home: str, scratch: str, shared: dict[str, str]
) -> dict[str, str]:
    """The whole environment of a job: nothing is inherited, so nothing secret can be."""
    threads = str(spec.caps.cpu_threads)
    environment = {
        "PATH": f"{os.path.dirname(python.executable)}:/usr/local/bin:/usr/bin:/bin",
        "HOME": home,
        "TMPDIR": home,
        "USER": "postdoc",
        "LOGNAME": "postdoc",
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        **dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"), "1"),
        **dict.fromkeys(("HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK"), "1"),
        **dict.fromkeys(
            ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "RAYON_NUM_THREADS"),
            threads,
        ),
        # Caches of converted datasets and compiled kernels can be large: on disk, where /tmp is memory.
        "HF_HOME": f"{scratch}/huggingface",
        "XDG_CACHE_HOME": f"{scratch}/cache",
        "TRITON_CACHE_DIR": f"{scratch}/triton",
        "TORCHINDUCTOR_CACHE_DIR": f"{scratch}/inductor",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        # The order of sets must not make two runs of one seed differ.
        "PYTHONHASHSEED": "0",
        "POSTDOC_JOB_ID": spec.job_id,
    }
    # Which GPUs a job has is known when it is its turn; one that asked for none sees none.
    none = gpus.environment(()) if not spec.hardware.gpus else {}
    return environment | shared | none | dict(spec.environment)
