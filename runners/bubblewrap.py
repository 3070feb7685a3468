"""The bubblewrap command line: what a job sees of this machine, and nothing else.

Not covered: a hole in the kernel, and timing between jobs that share a processor.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from runners import landlock

WORK = "/job"
SCRATCH = "/scratch"
ETC = ".etc"

_ETC_FILES = {
    # Written by us: this machine's own files name its users and neighbours.
    "passwd": "root:x:0:0::/:/usr/sbin/nologin\npostdoc:x:1000:1000::/tmp:/usr/sbin/nologin\n",
    "group": "root:x:0:\npostdoc:x:1000:\n",
    "hosts": "127.0.0.1 localhost postdoc-job\n::1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}
_SYSTEM_LINKS = ("lib", "lib32", "lib64", "libx32", "bin", "sbin")
_NAME_FILES = ("/etc/hosts", "/etc/nsswitch.conf", "/etc/resolv.conf", "/etc/ssl/certs")
_SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/alternatives")
LANDLOCK = "/postdoc/landlock.py"
GPUS = "--postdoc-gpus"
"""Stands in the command where the words for the job's GPUs come in when it is its turn and they are known."""
CACHE = "/cache"
_OUR_LANDLOCK = str(Path(__file__).with_name("landlock.py"))


@dataclass(frozen=True, slots=True)
class Interpreter:
    """The Python of the jobs' environment."""

    executable: str
    folders: tuple[str, ...]
    """What must be readable for it to run: its environment, and the installation that the environment links to."""


def interpreter(python: Path | None = None) -> Interpreter:
    """Ask an interpreter (this one when None) where it lives.

    Raises: OSError, subprocess.SubprocessError, ValueError when it cannot be run.
    """
    if python is None:
        executable, prefixes = sys.executable, [sys.prefix, sys.base_prefix]
    else:
        executable = os.path.abspath(python)
        question = "import json, sys; print(json.dumps([sys.prefix, sys.base_prefix]))"
        answer = subprocess.run(
            [executable, "-I", "-S", "-c", question], capture_output=True, text=True, timeout=30, check=True
        )
        prefixes = json.loads(answer.stdout)
        # Without `site`, a virtual environment does not know itself; its marker stands one level above the program.
        environment = os.path.dirname(os.path.dirname(executable))
        if os.path.isfile(os.path.join(environment, "pyvenv.cfg")):
            prefixes.append(environment)
    # A program that is a link needs every link on the way (uv and pyenv chain several).
    installation = os.path.dirname(os.path.dirname(os.path.realpath(executable)))
    folders = [*prefixes, *(os.path.realpath(prefix) for prefix in prefixes), installation]
    return Interpreter(executable, tuple(dict.fromkeys(path for path in folders if not _in_system(path))))


def _in_system(path: str) -> bool:
    return path in ("/", "/usr") or path.startswith("/usr/")


def write_etc(root: Path) -> None:
    """Write the few files of /etc that a job sees, once for all jobs below `root`."""
    folder = root / ETC
    folder.mkdir(exist_ok=True)
    for name, text in _ETC_FILES.items():
        path = folder / name
        if not path.is_file() or path.read_text(encoding="ascii") != text:
            # A name for each process: two that start at once must not write into each other's file.
            partial = folder / f"{name}.{os.getpid()}"
            partial.write_text(text, encoding="ascii")
            partial.replace(path)


def command(
    bwrap: str,
    python: Interpreter,
    etc: Path,
    work: Path,
    scratch: Path,
    mounts: Mapping[str, str],
    environment: Mapping[str, str],
    memory_bytes: int,
    second_wall: bool = False,
    processes: int = 0,
) -> list[str]:
    """Everything up to the job's own words. `mounts` maps a place in the job to a folder on this machine.

    `/tmp` and `/dev/shm` are memory: they count against the memory cap where a control group holds it, and are
    bounded by their own size where none does. With `second_wall` the job's first process builds Landlock's around
    itself, and where `processes` is not 0 it caps how many there can be, if the kernel counts them for the job alone.
    """
    words = [
        bwrap,
        *("--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
        *("--die-with-parent", "--new-session", "--disable-userns", "--cap-drop", "ALL"),
        *("--uid", "1000", "--gid", "1000", "--hostname", "postdoc-job", "--clearenv"),
        *("--size", str(max(64 << 20, memory_bytes // 2)), "--tmpfs", "/tmp"),
        *_system(),
        *(word for folder in python.folders for word in ("--ro-bind", folder, folder)),
        *(word for name in _ETC_FILES for word in ("--ro-bind", str(etc / name), f"/etc/{name}")),
        *("--proc", "/proc", "--dev", "/dev"),
        *("--size", str(max(64 << 20, memory_bytes // 2)), "--tmpfs", "/dev/shm"),
        GPUS,
        # A bot that is root maps to root's own number outside: without capabilities, but the owner of the kernel's
        # settings in /proc/sys, of which core_pattern alone would be a way out. bubblewrap covers that folder only
        # where the folder itself looks writable, which it never does.
        *("--remount-ro", "/dev", "--remount-ro", "/proc"),
        *("--bind", str(scratch), SCRATCH, "--bind", str(work), WORK),
    ]
    for place, source in mounts.items():
        words += ["--ro-bind", source, place]
    if second_wall or processes:
        words += ["--ro-bind", _OUR_LANDLOCK, LANDLOCK]
    words += ["--remount-ro", "/", "--chdir", WORK]
    for name, value in environment.items():
        words += ["--setenv", name, value]
    words.append("--")
    if second_wall or processes:
        rules = json.dumps(_rules(python, mounts) if second_wall else None, separators=(",", ":"))
        words += [python.executable, "-I", "-S", LANDLOCK, rules, str(processes)]
    return words


def with_gpus(argv: Sequence[str], words: Sequence[str]) -> list[str]:
    """The command when it is known which GPUs the job has; `words` are empty for none."""
    place = argv.index(GPUS)
    return [*argv[:place], *words, *argv[place + 1 :]]


def _rules(python: Interpreter, mounts: Mapping[str, str]) -> list[tuple[int, str]]:
    """The walls once more, for what a mistake in the mounts would let through."""
    system = ["/usr", "/etc", *(f"/{name}" for name in _SYSTEM_LINKS)]
    readable = [*system, "/proc", "/sys", *python.folders, *mounts]
    rules = [(landlock.LIST, "/"), (landlock.DEVICE, "/dev"), *((landlock.READ, path) for path in readable)]
    return rules + [(landlock.WRITE, path) for path in (WORK, SCRATCH, "/tmp", "/dev/shm")]


def with_network(words: list[str]) -> list[str]:
    """The same walls without the one around the network, for a script that must reach other machines."""
    open_words = [word for word in words if word not in ("--unshare-net", "--unshare-uts")]
    name = open_words.index("--hostname")
    del open_words[name : name + 2]  # the machine's own, by which others find it
    for path in ("/etc/hosts", "/etc/nsswitch.conf"):
        ours = open_words.index(path)
        del open_words[ours - 2 : ours + 1]
    own = (word for path in _NAME_FILES for word in ("--ro-bind-try", path, path))
    place = open_words.index("--proc")
    return [*open_words[:place], *own, *open_words[place:]]


def _system() -> list[str]:
    words = ["--ro-bind", "/usr", "/usr"]
    for name in _SYSTEM_LINKS:
        path = f"/{name}"
        if os.path.islink(path):
            words += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            words += ["--ro-bind", path, path]
    for path in _SYSTEM_FILES:
        words += ["--ro-bind-try", path, path]
    return words
