"""Processes that begin where the imports end.

Importing the bot takes about two seconds of a core, and the tests start it some hundred times. One process for each
pytest worker imports it once and forks when a new one is asked for: what runs afterwards is a process of its own, with
its own environment, which tests may stop, kill and wait for like any other.

`python -m tests.preloaded MODULE` is that process. It takes requests on its standard input, a socket.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import gc
import importlib
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

_READ_LATER = ("POSTDOC_", "GITHUB_", "RUNNER_")
"""Variables with these beginnings are read when the bot starts; all others may count while modules are imported."""
_MOST_BYTES = 1 << 20
_PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that a process gets when its parent ends."""
_ROOT = Path(__file__).resolve().parent.parent


class Forked:
    """What `subprocess.Popen` says of a child, for a child of the process that forked it."""

    def __init__(self, pid: int, ending: socket.socket, arguments: list[str]) -> None:
        self.pid, self.args = pid, arguments
        self.returncode: int | None = None
        self._ending = ending

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._ending], [], [], 0)[0]:
            self._read()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._ending], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            self._read()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _read(self) -> None:
        said = self._ending.recv(64)
        assert said, f"the process that forked {self.pid} is gone"
        self.returncode = int(said)
        self._ending.close()


Process = Forked | subprocess.Popen[bytes]


def start(
    module: str, arguments: list[str], *, environment: Mapping[str, str], folder: Path, output: IO[bytes],
    errors: IO[bytes] | None = None,
) -> Process:  # fmt: skip
    """`python -m MODULE ARGUMENTS`, with `output` for both its streams unless there is one for errors; `module` has a
    `main` without parameters.

    The module is the one that this process would import: start other code's by `subprocess`.
    """
    if not hasattr(os, "pidfd_open"):
        command = [sys.executable, "-m", module, *arguments]
        return subprocess.Popen(command, cwd=folder, env=dict(environment), stdout=output, stderr=errors or output)
    imported = {name: value for name, value in environment.items() if not name.startswith(_READ_LATER)}
    control = _forker(module, json.dumps(imported, sort_keys=True))
    ours, theirs = socket.socketpair()
    asked = {"arguments": arguments, "environment": dict(environment), "folder": str(folder)}
    with theirs:
        socket.send_fds(
            control, [json.dumps(asked).encode()], [theirs.fileno(), output.fileno(), (errors or output).fileno()]
        )
    pid = ours.recv(64)
    assert pid, f"no process could be forked for {module}"
    return Forked(int(pid), ours, [module, *arguments])


@functools.cache
def _forker(module: str, environment: str) -> socket.socket:
    """The socket of a process that has imported `module` under `environment`; it ends with this one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for each in (ours, theirs):
        each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MOST_BYTES)
    with theirs:
        command = [sys.executable, "-m", "tests.preloaded", module]
        process = subprocess.Popen(command, cwd=_ROOT, stdin=theirs.fileno(), env=json.loads(environment))

    def leave() -> None:
        ours.close()
        process.wait(20)

    atexit.register(leave)
    return ours


def main() -> None:
    module = importlib.import_module(sys.argv[1])
    control = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    gc.collect()
    gc.freeze()
    living: dict[int, tuple[int, socket.socket]] = {}
    while True:
        for ready in select.select([control.fileno(), *living], [], [])[0]:
            if ready in living:
                pid, ending = living.pop(ready)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with contextlib.suppress(OSError), ending:
                    ending.send(str(code).encode())
                os.close(ready)
                continue
            text, descriptors, _, _ = socket.recv_fds(control, _MOST_BYTES, 3)
            if not text:
                return
            ending, streams = socket.socket(fileno=descriptors[0]), descriptors[1:]
            pid = os.fork()
            if pid == 0:
                for each in (control, ending, *(each for _, each in living.values())):
                    each.close()
                for descriptor in living:
                    os.close(descriptor)
                _become(module.main, json.loads(text), streams)
            for descriptor in streams:
                os.close(descriptor)
            living[os.pidfd_open(pid)] = (pid, ending)
            ending.send(str(pid).encode())


def _become(work: Callable[[], Any], asked: dict[str, Any], streams: list[int]) -> None:
    """Be that process, to its end."""
    code = 1
    # A worker that is killed (by its own time limit, say) takes what it asked for with it.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        for number, descriptor in enumerate(streams, start=1):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.chdir(asked["folder"])
        os.environ.clear()
        os.environ.update(asked["environment"])
        sys.argv[1:] = asked["arguments"]
        random.seed()
        code = work() or 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
