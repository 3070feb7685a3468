"""What a job's container is made of: the body of the Engine API's `POST /containers/create`, as plain data
(https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Container/operation/ContainerCreate).

No network unless the job asks for it, a root that cannot be written, no capability, no way to gain one, nobody's user
id, no socket, and caps on memory, processes and the size of a file. The engine's own seccomp filter stays on.
Not covered: a hole in the kernel; the engine itself, which who may use it can use as root.
"""

from __future__ import annotations

import hashlib
import os
import resource
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bot.errors import UserError
from runners import intake
from runners.bubblewrap import CACHE, Interpreter
from runners.cache import Shared
from runners.containers.engine import Description, Image
from runners.gpus import Gpu, GpuPlace
from runners.job import JobSpec
from runners.layout import SCRATCH, WORK
from runners.sandbox import job_environment

JOB_LABEL, ROOT_LABEL = "postdoc.job", "postdoc.root"
PIPES = "pipes"
OUTPUT, ENDED, RELEASE = "output", "ended", "release"
"""Named pipes between the container and its supervisor: what the script prints; a word when it has ended; a word that
lets the container end. Data waits in them while no supervisor is there, and a full one makes the script wait."""
JOB_USER = 64_737
"""Where the bot is root: a number that belongs to no person and no service of this machine, from the range that Debian
hands out to nobody by itself (https://www.debian.org/doc/debian-policy/ch-opersys.html#uid-and-gid-classes)."""

_JOB, _SCRATCH, _PIPES = "/job", "/scratch", "/postdoc"
_OWN_PROCESSES = 1
"""The shell that waits."""
_OPEN_FILES = 65_536
_MANY_PROCESSES = 32_768
"""The kernel's own default (`kernel.pid_max`), to which podman lowers its own limit and above which it cannot set one
when it is no full root."""
_LEAST_SHARED_BYTES = 64 << 20
_STOP_SECONDS = 1
_GIB = 2**30

# The shell stays the first process, so that a signal means to the script what it means elsewhere, and it lives on when
# the script is killed for its memory: the container then still stands, and its control group can be asked why. It keeps
# the pipes open, because what waits in a pipe goes when nobody has it open any more.
_LAUNCHER = f"""
exec 3<>{_PIPES}/{OUTPUT} 4<>{_PIPES}/{ENDED} 5<>{_PIPES}/{RELEASE}
"$@" </dev/null >&3 2>&1 3>&- 4>&- 5>&-
code=$?
echo >&4
read -r word <&5
exit $code
"""


@dataclass(frozen=True, slots=True)
class Setting:
    """Where containers are made: fixed when a runner first launches, the same for all of its jobs."""

    url: str
    engine: Description
    image: Image
    root: Path
    python: str
    """Interpreter inside the image."""
    gpus: GpuPlace
    shared: Shared

    @property
    def user(self) -> int:
        return os.getuid() or JOB_USER

    @property
    def group(self) -> int:
        return os.getgid() if os.getuid() else JOB_USER


def launch_plan(spec: JobSpec, here: Setting, folder: Path) -> dict[str, Any]:
    """What the supervisor makes and watches, as plain data."""
    wanted = spec.hardware.gpus
    return {
        "tier": f"container ({here.engine.kind})",
        "engine": here.engine.kind,
        "url": here.url,
        "gpus": {"count": wanted, "place": here.gpus.as_dict()} if wanted else None,
        "name": container_name(here.root, spec.job_id),
        "config": container(spec, here, folder),
    }


def container_name(root: Path, job_id: str) -> str:
    """The same for the same job: the engine refuses a second one. Two bots on one machine share no name."""
    return f"postdoc-{root_label(root)}-{job_id}"


def root_label(root: Path) -> str:
    return hashlib.sha256(os.fsencode(root)).hexdigest()[:8]


def container(spec: JobSpec, here: Setting, folder: Path) -> dict[str, Any]:
    """Raises: UserError when a mount would bring the engine's socket along."""
    bound = {name: intake.mount_point(name, source) for name, source in spec.mounts.items()}
    for name, (source, _, _) in bound.items():
        _check_no_socket(name, source, here.url)
    paths = {name: path for name, (_, _, path) in bound.items()}
    return {
        "Image": here.image.identity,
        "Entrypoint": ["/bin/sh", "-c", _LAUNCHER, "postdoc"],
        "Cmd": intake.substitute(spec.argv, here.python, _JOB, paths),
        "User": _user(here),
        "WorkingDir": _JOB,
        "Hostname": "postdoc-job",
        "Env": [f"{name}={value}" for name, value in _environment(spec, here).items()],
        "Labels": {f"postdoc.{name}": value for name, value in spec.labels.items()}
        | {JOB_LABEL: spec.job_id, ROOT_LABEL: root_label(here.root)},
        "Healthcheck": {"Test": ["NONE"]},
        # The shell hears no polite signal; an engine that shuts down need not wait for it.
        "StopTimeout": _STOP_SECONDS,
        "HostConfig": _host_config(spec, here, folder)
        | {
            "Mounts": [
                _bind(folder / WORK, _JOB),
                _bind(folder / SCRATCH, _SCRATCH),
                # A pipe can be written on a mount that cannot; it cannot be replaced there.
                _bind(folder / PIPES, _PIPES, writable=False),
                *(_bind(Path(source), place, writable=False) for source, place, _ in bound.values()),
                *(_bind(Path(source), place, writable=False) for place, source in here.shared.mounts(CACHE).items()),
            ]
        },
    }


def _host_config(spec: JobSpec, here: Setting, folder: Path) -> dict[str, Any]:
    memory = int(spec.caps.memory_gib * _GIB)
    # Both are memory and count against its cap.
    shared = max(_LEAST_SHARED_BYTES, memory // 2)
    tmpfs = f"rw,exec,nosuid,nodev,mode=1777,size={shared}"
    config: dict[str, Any] = {
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges", *_selinux()],
        "Memory": memory,
        "MemorySwap": memory,
        "PidsLimit": int(spec.caps.pids) + _OWN_PROCESSES,
        # When the whole machine runs out of memory, the kernel takes the job and not the bot.
        "OomScoreAdj": 500,
        "Tmpfs": {"/tmp": tmpfs} | dict.fromkeys(here.image.volumes, tmpfs),
        "ShmSize": shared,
        "Ulimits": _ulimits(spec),
        "IpcMode": "private",
        # The pipe carries the output; the engine's own copy would have no cap.
        "LogConfig": {"Type": "none", "Config": {}},
        "RestartPolicy": {"Name": "no"},
    }
    if not spec.network:
        config["NetworkMode"] = "none"
    if here.engine.remapped:
        # The job's folders belong to a user of this machine, not to one of the engine's making.
        config["UsernsMode"] = "host"
    if here.engine.kind == "podman" and here.engine.rootless:
        config["UsernsMode"] = "keep-id"
    return config


def with_gpus(plan: Mapping[str, Any], chosen: Sequence[Gpu]) -> dict[str, Any]:
    """The container's body with these GPUs and no other, which are known only when the job's turn has come.

    https://docs.docker.com/reference/api/engine/version/v1.41/ (DeviceRequest). podman has its GPUs by the names of the
    Container Device Interface, which `nvidia-ctk cdi generate` gives them.
    """
    config: dict[str, Any] = dict(plan["config"])
    nvidia = [gpu for gpu in chosen if gpu.vendor == "nvidia"]
    more: dict[str, Any] = {}
    if nvidia and plan["engine"] == "podman":
        more["DeviceRequests"] = [{"Driver": "cdi", "DeviceIDs": [f"nvidia.com/gpu={gpu.index}" for gpu in nvidia]}]
    elif nvidia:
        more["DeviceRequests"] = [{"Driver": "", "DeviceIDs": [gpu.uuid for gpu in nvidia], "Capabilities": [["gpu"]]}]
    nodes = [node for gpu in chosen if gpu.vendor == "amd" for node in gpu.nodes]
    if nodes:
        devices = [*nodes, "/dev/kfd"]
        more["Devices"] = [{"PathOnHost": node, "PathInContainer": node, "CgroupPermissions": "rw"} for node in devices]
        more["GroupAdd"] = sorted({str(owner_group(node)) for node in devices})
    config["HostConfig"] = config["HostConfig"] | more
    return config


def owner_group(node: str) -> int:
    """AMD's device files are opened by the members of a group (`render`), whose number the image does not know."""
    return os.stat(node).st_gid


def _user(here: Setting) -> str:
    if here.engine.kind == "docker" and here.engine.rootless:
        # Its root is this very user, without any right beyond.
        return "0:0"
    return f"{here.user}:{here.group}"


def _ulimits(spec: JobSpec) -> list[dict[str, Any]]:
    """Unless both are named, podman (seen with 4.3) takes its own defaults for open files and processes, which may be
    above what it is itself allowed, and refuses. The number of processes is `PidsLimit`'s part: this limit would count
    everything that runs under the same user."""
    limits = {
        "nofile": _allowed(resource.RLIMIT_NOFILE, _OPEN_FILES),
        "nproc": _allowed(resource.RLIMIT_NPROC, _MANY_PROCESSES),
        "core": 0,
        "fsize": int(spec.caps.file_size_gib * _GIB),
    }
    return [{"Name": name, "Soft": value, "Hard": value} for name, value in limits.items()]


def _allowed(which: int, wanted: int) -> int:
    hard = resource.getrlimit(which)[1]
    return wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)


def _environment(spec: JobSpec, here: Setting) -> dict[str, str]:
    """The same as under any other wall, but that the image knows its own PATH."""
    shared = here.shared.moved_to(CACHE).environment()
    environment = job_environment(spec, Interpreter(here.python, ()), "/tmp", _SCRATCH, shared)
    foreign = ["PATH"]
    if spec.network:
        foreign += ["HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"]
    for name in foreign:
        if name not in spec.environment:
            environment.pop(name, None)
    return environment


def _bind(source: Path, target: str, *, writable: bool = True) -> dict[str, Any]:
    return {"Type": "bind", "Source": str(source), "Target": target, "ReadOnly": not writable}


def _selinux() -> list[str]:
    """Where SELinux rules, a bound folder can be read only with its label changed, for good and for everybody, or with
    the label's check off for the container. A shared model cache is not ours to relabel."""
    return ["label=disable"] if os.path.exists("/sys/fs/selinux/enforce") else []


def _check_no_socket(name: str, source: str, url: str) -> None:
    socket = os.path.realpath(url.partition("://")[2])
    if os.path.commonpath([os.path.realpath(source), socket]) == os.path.realpath(source):
        raise UserError(f"mount {name}: {source} holds the container engine's socket; name a folder without it")
