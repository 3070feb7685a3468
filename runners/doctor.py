"""What this machine can do for a job, and what to do about each thing that it lacks. Nothing heavy is imported."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runners import gpus, landlock, sandbox, seccomp
from runners.containers.doctor import container_engine
from runners.sandbox import Layer
from runners.tier import Tier

_TRAINING_PACKAGES = ("torch", "transformers", "trl", "peft", "datasets", "lm_eval")
_ANSWER_SECONDS = 10.0
_LEAST_MEMORY_GIB = 4.0
_LEAST_DISK_GIB = 10.0
_PACKAGE_QUESTION = """
import importlib.metadata, json, sys
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        found[name] = None
json.dump(found, sys.stdout)
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `postdoc doctor`."""

    name: str
    ok: bool
    detail: str
    """What was seen."""
    advice: str = ""
    """What to do; starts with "optional" where Postdoc works without it. Empty when all is well."""


def examine(
    python: Path | None = None, root: Path | None = None, environment: Mapping[str, str] | None = None
) -> list[Finding]:
    """Look at the machine. `python` is the interpreter of the jobs' environment, `root` where jobs will lie,
    `environment` where the settings of container jobs are read (this process's own when None)."""
    return [
        *_sandbox(python),
        _processors(),
        _memory(),
        _disk(root or Path.cwd()),
        _gpus(),
        *_packages(python),
        _git(),
        _node(),
        _container_engine(os.environ if environment is None else environment),
    ]


def _sandbox(python: Path | None) -> list[Finding]:
    reports = sandbox.probe(python)
    walled = any(report.available for report in reports if report.tier is not Tier.PLAIN)
    findings = []
    for report in reports:
        advice = report.advice
        if advice and walled:
            advice = f"optional, a weaker tier is there: {advice}"
        findings.append(Finding(f"sandbox {report.tier}", report.available, report.reason, advice))
    if walled:
        layers = next(report.layers for report in reports if report.available)
        findings += [_seccomp(Layer.SECCOMP in layers), _landlock(Layer.LANDLOCK in layers)]
    return findings


def _seccomp(works: bool) -> Finding:
    """What stands behind bubblewrap's walls."""
    here = seccomp.machine()
    if works and here is not None:
        return Finding("seccomp", True, f"{len(seccomp.refused_calls(here))} system calls are refused to jobs")
    if here is None:
        known = " and ".join(seccomp.MACHINES)
        return Finding("seccomp", False, f"no filter for {os.uname().machine}", f"optional: use {known}")
    advice = "optional: a kernel with CONFIG_SECCOMP_FILTER, or a container that lets its processes set filters"
    return Finding("seccomp", False, "the kernel does not take a filter", advice)


def _landlock(works: bool) -> Finding:
    version = landlock.version()
    if works:
        return Finding("landlock", True, f"version {version}")
    advice = (
        "optional: Linux 5.19 or newer with CONFIG_SECURITY_LANDLOCK, and `landlock` in the kernel's `lsm=` parameter"
    )
    return Finding("landlock", False, f"version {version}" if version else "not in this kernel, or off", advice)


def _processors() -> Finding:
    allowed = len(os.sched_getaffinity(0))
    quota = _processor_quota()
    detail = f"{allowed} cores" + (f", limited to {quota:g} by a control group" if quota else "")
    return Finding("processor", True, detail)


def _processor_quota(cgroup: Path = Path("/sys/fs/cgroup")) -> float | None:
    """How many cores' worth of time this machine's or container's root group may use; None without a limit."""
    try:
        period_file = cgroup / "cpu.max"
        if period_file.is_file():
            quota, period = period_file.read_text(encoding="ascii").split()
        else:
            quota = (cgroup / "cpu/cpu.cfs_quota_us").read_text(encoding="ascii").strip()
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    return None if quota in ("max", "-1") else int(quota) / int(period)


def _memory() -> Finding:
    text = Path("/proc/meminfo").read_text(encoding="ascii")
    gib = {name: int(kib) / 2**20 for name, kib in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}
    free = gib.get("MemAvailable", gib["MemFree"])
    detail = f"{gib['MemTotal']:.1f} GiB, {free:.1f} GiB free"
    enough = free >= _LEAST_MEMORY_GIB
    return Finding("memory", enough, detail, "" if enough else f"a training job wants {_LEAST_MEMORY_GIB:g} GiB free")


def _disk(folder: Path) -> Finding:
    free_gib = shutil.disk_usage(folder).free / 2**30
    enough = free_gib >= _LEAST_DISK_GIB
    advice = (
        "" if enough else f"checkpoints want {_LEAST_DISK_GIB:g} GiB free; remove ended jobs or name another folder"
    )
    return Finding("disk", enough, f"{free_gib:.1f} GiB free at {folder}", advice)


def _gpus() -> Finding:
    known = gpus.place().gpus()
    if known:
        words = (f"{gpu.name}, {gpu.memory_gib:.0f} GiB, {'in use' if gpu.occupied else 'idle'}" for gpu in known)
        return Finding("gpu", True, "; ".join(words))
    driver = Path("/proc/driver/nvidia/version")
    if driver.is_file():
        first = driver.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
        advice = "install the tools of the driver's own version (`nvidia-smi` must list the GPU)"
        return Finding("gpu", False, f"a driver is loaded, but no GPU answers: {first}", advice)
    advice = (
        "optional: jobs run on the processor, which is enough for the tiny base model; for others name a GPU runner"
    )
    return Finding("gpu", False, "none", advice)


def _packages(python: Path | None) -> list[Finding]:
    """From the packages' metadata: importing torch would take seconds."""
    executable = str(python or sys.executable)
    said = _answer([executable, "-I", "-c", _PACKAGE_QUESTION, *_TRAINING_PACKAGES])
    if said is None:
        return [
            Finding("training environment", False, f"{executable} does not run", "name the interpreter of the jobs")
        ]
    versions: Mapping[str, str | None] = json.loads(said)
    missing = [name for name, version in versions.items() if version is None]
    detail = ", ".join(f"{name} {version}" for name, version in versions.items() if version) or "none of them"
    if missing:
        advice = f"`pip install 'postdoc[train]'` into the environment of {executable}"
        return [Finding("training environment", False, f"lacks {', '.join(missing)}; has {detail}", advice)]
    return [Finding("training environment", True, detail), _bytecode(executable)]


def _bytecode(executable: str) -> Finding:
    """Jobs cannot write into their environment, so what was not compiled before is compiled by every job again."""
    question = "import importlib.util; print(importlib.util.find_spec('torch').origin)"
    origin = _answer([executable, "-I", "-c", question])
    cached = origin is not None and any(Path(origin).parent.glob("__pycache__/__init__.*.pyc"))
    advice = (
        "" if cached else f"`{executable} -m compileall -q <its site-packages>` makes each job start seconds sooner"
    )
    return Finding("compiled packages", cached, "present" if cached else "torch has no bytecode cache", advice)


def _git() -> Finding:
    version = _answer(["git", "--version"])
    if version is None:
        return Finding("git", False, "not installed", "install it: `apt-get install git`")
    backend = _answer(["git", "--exec-path"])
    serves = backend is not None and os.access(os.path.join(backend, "git-http-backend"), os.X_OK)
    detail = version.removeprefix("git version ")
    if serves:
        return Finding("git", True, detail)
    return Finding(
        "git", False, f"{detail}, without git-http-backend", "install the full git package; the demo needs it"
    )


def _node() -> Finding:
    version = _answer(["node", "--version"])
    major = re.match(r"v(\d+)\.", version or "")
    if version and major and int(major[1]) >= 20:
        return Finding("node", True, version.removeprefix("v"))
    advice = "optional: Node 20 or newer is wanted by some of Postdoc's own tests, by nothing else"
    return Finding("node", False, version or "not installed", advice)


def _container_engine(environment: Mapping[str, str]) -> Finding:
    url, image = environment.get("POSTDOC_DOCKER_URL", ""), environment.get("POSTDOC_DOCKER_IMAGE", "")
    wanted = environment.get("POSTDOC_RUNNER") == "docker"
    return Finding("container engine", *container_engine(url, image, wanted=wanted))


def _answer(command: list[str]) -> str | None:
    """What a program prints, None when it is missing, fails or takes too long."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_ANSWER_SECONDS,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
