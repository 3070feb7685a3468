"""A real Ray cluster on loopback: a head without processors and workers with an address of their own each, started and
ended by the test that needs them. Nothing of it leaves 127.0.0.0/8."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runners.processes import descendants

_PR_SET_PDEATHSIG = 1
_UP_SECONDS = 120.0
_ATTEMPTS = 4
HEAD = "127.0.0.2"
_MEMORY_BYTES = 8 << 30
"""Of each worker, as Ray counts it; nothing holds a process to it but our own cap."""


def missing() -> str:
    """Why no cluster can be started here; empty when one can."""
    if importlib.util.find_spec("ray") is None:
        return "Ray is not installed: pip install 'postdoc[ray]'"
    program = Path(sys.executable).with_name("ray")
    if not program.exists():
        return "the program `ray` does not lie beside the interpreter"
    return ""


@dataclass(slots=True)
class Node:
    """One `ray start --block` and everything below it."""

    address: str
    process: subprocess.Popen[bytes]
    log: Path

    def pids(self) -> list[int]:
        return [self.process.pid, *descendants(self.process.pid)]

    def kill(self) -> None:
        """All at once, as when a machine loses its power."""
        for _ in range(3):
            for pid in self.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.process.wait(10)


class RayCluster:
    """`head` and `workers`; `dashboard` is the address that jobs are submitted to."""

    def __init__(self, workers: int = 2, cpus: int = 2, gpus: int = 0, **head_settings: str) -> None:
        # Ray keeps its sockets here, and a socket's path may have 107 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="ray-"))
        self._cpus, self._gpus = cpus, gpus
        self._made = 0
        self._head_settings = head_settings
        self.port, dashboard_port = _free_ports(2)
        self.dashboard = f"http://127.0.0.1:{dashboard_port}"
        self.workers: list[Node] = []
        self._all: list[Node] = []
        try:
            self.head = self._start_head(dashboard_port)
            for _ in range(workers):
                self.add_worker()
        except BaseException:
            self.close()
            raise

    def add_worker(self) -> Node:
        """Ray gives a node half a minute to come up, which a busy machine may need more than once."""
        for _ in range(_ATTEMPTS):
            node = self._start(
                "--address", f"{HEAD}:{self.port}", "--num-cpus", str(self._cpus), "--num-gpus", str(self._gpus),
                "--memory", str(_MEMORY_BYTES),
            )  # fmt: skip
            while node.process.poll() is None:
                if node.address in self.alive():
                    self.workers.append(node)
                    return node
                time.sleep(0.1)
        raise AssertionError(f"no worker came up: {self._words()}")

    def alive(self) -> list[str]:
        """Addresses of the nodes that Ray holds for alive."""
        try:
            with urllib.request.urlopen(f"{self.dashboard}/nodes?view=summary", timeout=10) as answer:
                summary: list[dict[str, Any]] = json.load(answer)["data"]["summary"]
        except (OSError, ValueError, KeyError, urllib.error.URLError):
            return []
        return [node["ip"] for node in summary if node["raylet"].get("state") == "ALIVE"]

    def pids(self) -> list[int]:
        return [pid for node in self._all for pid in node.pids() if node.process.poll() is None]

    def restore(self, workers: int = 2) -> None:
        """As many workers as it was made with, whatever a test did to them."""
        self.workers = [node for node in self.workers if node.process.poll() is None]
        while len(self.workers) < workers:
            self.add_worker()

    def close(self) -> None:
        for node in reversed(self._all):
            if node.process.poll() is None:
                node.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    # starting

    def _start_head(self, dashboard_port: int) -> Node:
        for _ in range(_ATTEMPTS):
            head = self._start(
                "--head", "--port", str(self.port), "--num-cpus", "0", "--num-gpus", "0", "--temp-dir",
                str(self.folder), "--include-dashboard", "true", "--dashboard-host", "127.0.0.1", "--dashboard-port",
                str(dashboard_port), "--ray-client-server-port", str(_free_ports(1)[0]), address=HEAD,
            )  # fmt: skip
            deadline = time.monotonic() + _UP_SECONDS
            while head.process.poll() is None and time.monotonic() < deadline:
                if self.alive():
                    return head
                time.sleep(0.1)
            head.kill()
        raise AssertionError(f"the head did not come up: {self._words()}")

    def _start(self, *words: str, address: str = "") -> Node:
        self._made += 1
        # Every address of 127.0.0.0/8 is loopback, and one for each node is what machines have.
        address = address or f"127.0.0.{self._made + 2}"
        log = self.folder / f"start-{self._made}.log"
        command = [str(Path(sys.executable).with_name("ray")), "start", *words, "--block", "--disable-usage-stats"]
        command += ["--node-ip-address", address, "--object-store-memory", str(80 << 20)]
        command += ["--min-worker-port", "0", "--max-worker-port", "0"]
        command += ["--dashboard-agent-listen-port", str(_free_ports(1, address)[0])]
        with open(log, "wb") as file:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True, cwd=self.folder,
                env=self._environment(), preexec_fn=_end_with_the_tests,
            )  # fmt: skip
        node = Node(address, process, log)
        self._all.append(node)
        return node

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("LANG", "TMPDIR") if name in os.environ}
        quick = {
            # A dead node is noticed in seconds.
            "RAY_health_check_initial_delay_ms": "1000",
            "RAY_health_check_period_ms": "500",
            "RAY_health_check_timeout_ms": "2000",
            "RAY_health_check_failure_threshold": "3",
        }
        return kept | quick | self._head_settings | {
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            # Where jobs lie on a node unless it is told otherwise; all of it goes with the cluster.
            "HOME": str(self.folder),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
            "PYTHONWARNINGS": "ignore",
        }  # fmt: skip

    def _words(self) -> str:
        return " | ".join(node.log.read_text(errors="replace")[-600:] for node in self._all)


def _end_with_the_tests() -> None:
    """Tests that are killed leave no cluster: on SIGTERM `ray start --block` ends the node's processes."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


_shared: list[RayCluster] = []


def shared() -> RayCluster:
    """One for all tests of this process that do not break it for good; `close_shared` ends it."""
    if not _shared:
        _shared.append(RayCluster())
    return _shared[0]


def close_shared() -> None:
    while _shared:
        _shared.pop().close()


def _free_ports(count: int, address: str = "127.0.0.1") -> list[int]:
    """Of them none is used now; held together, so that they differ."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((address, 0))
        return [int(each.getsockname()[1]) for each in sockets]
