"""The tiers of isolation that this machine can give a job, found by really running something in each of them."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

from runners import bubblewrap, cgroup, intake, kernel, processes
from runners.bubblewrap import Interpreter
from runners.cgroup import Cgroup, CgroupUnavailable, Hierarchy
from runners.job import JobSpec
from runners.tier import Tier

_PROBE_SECONDS = 20.0
_PROBE_MEMORY_BYTES = 256 << 20
_ANSWER = "it runs"
_PROBE_SCRIPT = f"print({_ANSWER!r})"


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


def probe(python: Path | None = None) -> list[TierReport]:
    """Try each tier with the jobs' interpreter, the strongest first."""
    return list(_probe(python))


@cache
def _probe(python: Path | None) -> tuple[TierReport, ...]:
    walls, walls_advice = _try_bubblewrap(python)
    group, group_advice = _try_cgroup()
    sealed = {"isolates_files": True, "isolates_network": True}
    both = walls is None and group is None
    return (
        TierReport(
            Tier.BUBBLEWRAP_CGROUP,
            both,
            walls or group or "a program ran inside both",
            walls_advice if walls else group_advice if group else "",
            **sealed,
        ),
        TierReport(
            Tier.BUBBLEWRAP_RLIMITS,
            walls is None,
            walls or "a program ran inside bubblewrap",
            walls_advice if walls else "",
            **sealed,
        ),
        _plain_report(),
    )


def _try_bubblewrap(python: Path | None) -> tuple[str | None, str]:
    """Why bubblewrap does not work (None when it does) and what to do about it."""
    bwrap = shutil.which("bwrap")
    if sys.platform != "linux":
        return "bubblewrap exists on Linux only", "run the jobs on a Linux machine"
    if bwrap is None:
        return (
            "the program bwrap is not installed",
            "install it: `apt-get install bubblewrap`, `dnf install bubblewrap`",
        )
    try:
        words = bubblewrap.interpreter(python)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return f"the jobs' interpreter {python} does not run: {error}", "name another interpreter for the jobs"
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
        )
        reason = _run([*command, words.executable, "-I", "-S", "-c", _PROBE_SCRIPT])
    return reason, _bubblewrap_advice(reason or "")


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


def _run(command: list[str], entering: Cgroup | None = None) -> str | None:
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
            env={"PATH": "/usr/bin:/bin"},
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"{os.path.basename(command[0])} could not be run: {error}"
    if done.returncode == 0 and done.stdout.strip() == _ANSWER:
        return None
    said = done.stderr.strip().splitlines()
    return said[-1] if said else f"{os.path.basename(command[0])} ended with {done.returncode}"


def _plain_report() -> TierReport:
    if sys.platform != "linux":
        return TierReport(Tier.PLAIN, False, "jobs on this machine need Linux", "choose another runner")
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _PROBE_SCRIPT],
            preexec_fn=kernel.leave_network,
            timeout=_PROBE_SECONDS,
            capture_output=True,
            check=False,
        )
        network = done.returncode == 0
    except (OSError, subprocess.SubprocessError):
        network = False
    seen = "jobs get no network" if network else "jobs keep this machine's network"
    return TierReport(
        Tier.PLAIN, True, f"no isolation, so only scripts that ship with Postdoc run; {seen}", isolates_network=network
    )


@dataclass(frozen=True, slots=True)
class Setting:
    """Where on this machine a job is run: fixed when a runner starts, the same for all of its jobs."""

    tier: Tier
    interpreter: Interpreter
    root: Path
    bwrap: str
    hierarchy: Hierarchy | None
    leaves_network: bool


def setting(root: Path, tier: Tier, python: Path | None) -> Setting:
    """Raises: OSError, ValueError, subprocess.SubprocessError when the interpreter cannot be run."""
    report = next(report for report in probe(python) if report.tier is tier)
    return Setting(
        tier=tier,
        interpreter=bubblewrap.interpreter(python),
        root=root,
        bwrap=shutil.which("bwrap") or "bwrap",
        hierarchy=cgroup.find_hierarchy() if tier is Tier.BUBBLEWRAP_CGROUP else None,
        leaves_network=tier is Tier.PLAIN and report.isolates_network,
    )


def launch_plan(spec: JobSpec, here: Setting, folder: Path) -> dict[str, Any]:
    """What the supervisor starts, as plain data: the command with its walls, the environment and the control group."""
    work, scratch = folder / "work", folder / "scratch"
    bound = {name: intake.mount_point(name, source) for name, source in spec.mounts.items()}
    if here.tier is Tier.PLAIN:
        paths = {name: str(Path(source).resolve()) for name, source in spec.mounts.items()}
        environment = job_environment(spec, here.interpreter, str(scratch), str(scratch))
        environment[processes.JOB_MARK] = str(folder)
        argv = intake.substitute(spec.argv, here.interpreter.executable, str(work), paths)
    else:
        paths = {name: path for name, (_, _, path) in bound.items()}
        environment = {"PATH": "/usr/bin:/bin"}
        walls = bubblewrap.command(
            here.bwrap,
            here.interpreter,
            here.root / bubblewrap.ETC,
            work,
            scratch,
            {place: source for source, place, _ in bound.values()},
            job_environment(spec, here.interpreter, "/tmp", bubblewrap.SCRATCH),
            int(spec.caps.memory_gib * 2**30),
        )
        if spec.network:
            walls = bubblewrap.with_network(walls)
        argv = [*walls, *intake.substitute(spec.argv, here.interpreter.executable, bubblewrap.WORK, paths)]
    return {
        "tier": str(here.tier),
        "argv": argv,
        "environment": environment,
        "hierarchy": here.hierarchy.as_dict() if here.hierarchy else None,
        "group": group_prefix(here.root) + spec.job_id,
        "leaves_network": here.leaves_network and not spec.network,
    }


def group_prefix(root: Path) -> str:
    """Of the control groups of all jobs below `root`: two bots on one machine must not sweep each other's."""
    return f"postdoc-{hashlib.sha256(os.fsencode(root)).hexdigest()[:8]}-"


def job_environment(spec: JobSpec, python: Interpreter, home: str, scratch: str) -> dict[str, str]:
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
    return environment | _chosen_gpus() | dict(spec.environment)


def _chosen_gpus() -> dict[str, str]:
    names = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
    return {name: os.environ[name] for name in names if name in os.environ}
