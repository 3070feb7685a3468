"""The GPUs of this machine: which there are, which are busy, and how a job is given some of them and no other.

NVIDIA's are asked for with `nvidia-smi`, AMD's are read from the kernel (`/sys/class/kfd`). A GPU is held by a lock
that goes when its holder ends, like a slot; the locks of all runners of one user lie in one folder, so that two
servers, or two Actions runners, on one machine do not take the same GPU. What others do on a shared machine is seen by
looking.

Not covered: the slices of a GPU in MIG mode (it is given away as a whole), and a process that only shows graphics.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runners import slots

_QUERY = "index,uuid,name,memory.total,memory.used,pci.bus_id"
_ANSWER_SECONDS = 30.0
"""Without NVIDIA's persistence daemon every question wakes the driver, which takes seconds on a machine with many."""
_BUSY_SHARE = 0.1
"""In a container nvidia-smi cannot see other people's processes; more used memory than this tells of them."""
_SHARED_NODES = (
    "dev/nvidiactl", "dev/nvidia-uvm", "dev/nvidia-uvm-tools", "dev/nvidia-modeset", "dev/nvidia-caps", "dev/dxg",
)  # fmt: skip
_TOPOLOGY = ("/sys/bus", "/sys/class", "/sys/devices", "/sys/module")
"""CUDA, ROCm and NCCL read there what is connected to what."""
_CHOICES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")


@dataclass(frozen=True, slots=True)
class Gpu:
    index: int
    uuid: str
    """The name that stays: an index changes when another card is added, and is counted anew inside a job."""
    model: str
    memory_gib: float
    vendor: str
    """nvidia or amd."""
    nodes: tuple[str, ...]
    """Device files without which a job cannot use it, and that belong to it alone."""
    used_gib: float = 0.0
    holders: tuple[int, ...] = ()
    """Processes that compute on it, by the numbers that the driver gives."""

    @property
    def name(self) -> str:
        return f"GPU {self.index} ({self.model})"

    @property
    def occupied(self) -> str:
        """What somebody is doing on it, in words; empty when it is idle."""
        if self.holders:
            return f"GPU {self.index} is in use by process {', '.join(map(str, self.holders))}"
        if self.used_gib > _BUSY_SHARE * self.memory_gib:
            return f"GPU {self.index} has {self.used_gib:.1f} of {self.memory_gib:.0f} GiB in use by somebody else"
        return ""


@dataclass(frozen=True, slots=True)
class GpuPlace:
    """Where the GPUs of a machine are looked for; plain data, because a supervisor gets it in its plan."""

    tool: str = ""
    """Absolute path of nvidia-smi, empty where there is none."""
    locks: str = ""
    """Folder of the lock files."""
    root: str = "/"
    """Where /dev, /sys and /proc are."""
    allowed: tuple[str, ...] | None = None
    """Indices or uuids that this server may give away; None: all."""

    def as_dict(self) -> dict[str, Any]:
        return {"tool": self.tool, "locks": self.locks, "root": self.root,
                "allowed": None if self.allowed is None else list(self.allowed)}  # fmt: skip

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> GpuPlace:
        allowed = data["allowed"]
        return cls(data["tool"], data["locks"], data["root"], None if allowed is None else tuple(allowed))

    def gpus(self) -> list[Gpu]:
        """Those that jobs may be given, with what happens on them now."""
        # A workstation's processor often has a small AMD GPU of its own; nobody who asks for a GPU means that one.
        found = _nvidia(self.tool, Path(self.root)) or _amd(Path(self.root))
        if self.allowed is None:
            return found
        return [gpu for gpu in found if any(_is_called(gpu, name) for name in self.allowed)]


def place(environment: Mapping[str, str] | None = None, root: str = "/", locks: Path | None = None) -> GpuPlace:
    """This machine's. A server that was started with CUDA_VISIBLE_DEVICES (or AMD's) gives away those alone."""
    known = os.environ if environment is None else environment
    tool = next(
        (path for folder in known.get("PATH", os.defpath).split(os.pathsep)
         if folder and os.access(path := os.path.join(folder, "nvidia-smi"), os.X_OK)), "",
    )  # fmt: skip
    chosen = next((known[name] for name in _CHOICES if name in known), None)
    allowed = None if chosen is None else tuple(word.strip() for word in chosen.split(",") if word.strip())
    return GpuPlace(os.path.abspath(tool) if tool else "", str(locks or _lock_folder()), root, allowed)


def _lock_folder() -> Path:
    """One for each user; /tmp, because it is there, empty after a start, and the same for all of a user's processes."""
    return Path("/tmp", f"postdoc-gpus-{os.getuid()}")


def _is_called(gpu: Gpu, name: str) -> bool:
    # The drivers take the beginning of a uuid for the whole.
    return name == str(gpu.index) or (len(name) > 4 and gpu.uuid.startswith(name))


# --- looking


def _nvidia(tool: str, root: Path) -> list[Gpu]:
    rows = _answer([tool, f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]) if tool else []
    holders: dict[str, list[int]] = {}
    if rows:
        for uuid, pid in _answer([tool, "--query-compute-apps=gpu_uuid,pid", "--format=csv,noheader,nounits"], 2):
            holders.setdefault(uuid, []).append(_number(pid))
    found = []
    for index, uuid, model, total, used, bus in (row for row in rows if len(row) == 6):
        minor = _minor(root, bus, index)
        nodes = tuple(str(path) for path in (root / f"dev/nvidia{minor}",) if path.exists())
        found.append(Gpu(_number(index), uuid, model, _number(total) / 1024, "nvidia", nodes,
                         _number(used) / 1024, tuple(sorted(holders.get(uuid, ())))))  # fmt: skip
    return found


def _minor(root: Path, bus: str, index: str) -> str:
    """The N of /dev/nvidiaN, which is not always the index that nvidia-smi counts."""
    short = bus.lower()[-12:]  # nvidia-smi writes the domain with eight digits, the kernel with four
    for path in (root / "proc/driver/nvidia/gpus").glob("*/information"):
        if path.parent.name.lower()[-12:] == short:
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                key, _, value = line.partition(":")
                if key.strip() == "Device Minor":
                    return value.strip()
    return index


def _answer(command: Sequence[str], fields: int = 6) -> list[list[str]]:
    """The rows that the tool prints; none when it fails, hangs, or prints something else."""
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=_ANSWER_SECONDS,
            stdin=subprocess.DEVNULL, check=False,
            env={"PATH": os.defpath, "LANG": "C"},
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines()]
    return [row for row in rows if len(row) == fields] if done.returncode == 0 else []


def _number(text: str) -> int:
    """0 for `[N/A]`, which the tool prints where a driver does not tell."""
    try:
        return int(float(text))
    except (ValueError, OverflowError):
        return 0


def _amd(root: Path) -> list[Gpu]:
    """https://docs.kernel.org/gpu/amdgpu/ and the kernel's drivers/gpu/drm/amd/amdkfd/kfd_topology.c."""
    found: list[Gpu] = []
    nodes = (root / "sys/class/kfd/kfd/topology/nodes").glob("*")
    for node in sorted(nodes, key=lambda path: _number(path.name)):
        about = _properties(node / "properties")
        if not about.get("simd_count") or not (root / "dev/kfd").exists():
            continue
        memory = sum(bank.get("size_in_bytes", 0) for path in node.glob("mem_banks/*/properties")
                     if (bank := _properties(path)).get("heap_type") in (1, 2))  # fmt: skip
        gpu_id = _text(node / "gpu_id")
        used = {_number(path.parent.name): _number(_text(path))
                for path in (root / "sys/class/kfd/kfd/proc").glob(f"*/vram_{gpu_id}")}  # fmt: skip
        found.append(Gpu(
            index=len(found),
            uuid=f"GPU-{about.get('unique_id', 0):016x}",
            model=_text(node / "name") or "AMD GPU",
            memory_gib=memory / 2**30,
            vendor="amd",
            nodes=(str(root / f"dev/dri/renderD{about.get('drm_render_minor', 128)}"),),
            used_gib=sum(used.values()) / 2**30,
            holders=tuple(sorted(pid for pid, size in used.items() if size)),
        ))  # fmt: skip
    return found


def _properties(path: Path) -> dict[str, int]:
    words = (line.split() for line in _text(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in words if len(pair) == 2 and pair[1].isdecimal()}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


# --- taking


@dataclass(frozen=True, slots=True)
class Taken:
    """GPUs that are held as long as `descriptors` stay open; none, and why, when there were not enough."""

    gpus: tuple[Gpu, ...] = ()
    descriptors: tuple[int, ...] = field(default=())
    waits_for: str = ""


def take(where: GpuPlace, count: int) -> Taken:
    """`count` idle GPUs, or none of them. Raises: OSError when the folder of locks cannot be used."""
    folder = _checked_folder(Path(where.locks))
    held: list[tuple[Gpu, int]] = []
    reasons: list[str] = []
    known = where.gpus()
    for gpu in known:
        descriptor = slots.open_lock(folder / gpu.uuid.replace("/", "_"))
        if len(held) < count and not slots.try_lock(descriptor):
            reasons.append(f"GPU {gpu.index} trains another job")
        elif len(held) < count and not gpu.occupied:
            held.append((gpu, descriptor))
            continue
        elif gpu.occupied:
            reasons.append(gpu.occupied)
        os.close(descriptor)
    if len(held) == count:
        return Taken(tuple(gpu for gpu, _ in held), tuple(descriptor for _, descriptor in held))
    for _, descriptor in held:
        os.close(descriptor)
    wanted = f"{count} GPU{'s' if count > 1 else ''}"
    return Taken(waits_for=f"waits for {wanted}, {len(held)} of {len(known)} idle: {'; '.join(reasons)}")


def take_again(where: GpuPlace, uuids: Sequence[str]) -> Taken:
    """Those that a job has and whose holder has gone, as far as nobody else took them meanwhile."""
    folder = _checked_folder(Path(where.locks))
    held: list[tuple[Gpu, int]] = []
    for gpu in where.gpus():
        if gpu.uuid in uuids:
            descriptor = slots.open_lock(folder / gpu.uuid.replace("/", "_"))
            if slots.try_lock(descriptor):
                held.append((gpu, descriptor))
            else:
                os.close(descriptor)
    return Taken(tuple(gpu for gpu, _ in held), tuple(descriptor for _, descriptor in held))


def _checked_folder(folder: Path) -> Path:
    """Anybody can make a folder in /tmp; one that is not ours alone would let others hold our GPUs back."""
    folder.mkdir(mode=0o700, exist_ok=True)
    about = folder.lstat()
    if folder.is_symlink() or about.st_uid != os.getuid() or about.st_mode & 0o077:
        raise PermissionError(1, "belongs to somebody else, or others may write to it: remove it", str(folder))
    return folder


# --- giving


def environment(chosen: Sequence[Gpu]) -> dict[str, str]:
    """Which GPUs the libraries take. Of no GPU: an empty list, because without the variable they would take all."""
    names = {vendor: ",".join(gpu.uuid for gpu in chosen if gpu.vendor == vendor) for vendor in ("nvidia", "amd")}
    found = {"CUDA_VISIBLE_DEVICES": names["nvidia"], "ROCR_VISIBLE_DEVICES": names["amd"]}
    if names["amd"]:
        # Torch for ROCm reads these two as positions among what ROCR has left over.
        left = ",".join(str(position) for position, _ in enumerate(chosen))
        return found | {"HIP_VISIBLE_DEVICES": left, "CUDA_VISIBLE_DEVICES": left}
    return found


def walls(chosen: Sequence[Gpu], root: str = "/") -> list[str]:
    """bubblewrap's words for the device files of these GPUs, and of no other."""
    if not chosen:
        return []
    nodes = [node for gpu in chosen for node in gpu.nodes]
    if any(gpu.vendor == "nvidia" for gpu in chosen):
        nodes += [path for name in _SHARED_NODES if os.path.exists(path := os.path.join(root, name))]
    if any(gpu.vendor == "amd" for gpu in chosen):
        nodes.append(os.path.join(root, "dev/kfd"))
    words = [word for node in dict.fromkeys(nodes) for word in ("--dev-bind", node, _inside(node, root))]
    return words + [word for path in _TOPOLOGY for word in ("--ro-bind-try", path, path)]


def _inside(node: str, root: str) -> str:
    return "/" + os.path.relpath(node, root)
