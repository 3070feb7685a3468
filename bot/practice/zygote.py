"""A process that has imported what training needs and forks for each job, so that no job waits for its imports.

    python zygote.py --import torch --import trl.trainer.sft_trainer

`bot.practice.warm` starts it and speaks to it; nothing else needs to. One JSON object a line. On standard input:

    {"id": "7", "argv": ["train.py", "--config", "recipe.yaml"], "cwd": "/...", "log": "/.../log.txt",
     "env": {"OMP_NUM_THREADS": "1"}, "address_space_gib": null, "file_size_mib": null}

On standard output {"id", "pid"} when the job has begun, then {"id", "exit_code", "seconds", "cpu_seconds", "peak_mib"};
`exit_code` is negative for the signal that ended it. Jobs are sessions of their own and die with this process.

Importing torch and TRL takes about five seconds, as long as many a practice run trains. Not covered: a sandbox. Only
shipped scripts run here; anybody else's belong to `runners.local`.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import importlib
import json
import os
import resource
import runpy
import select
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""
POLL_SECONDS = 0.02


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--import", dest="modules", action="append", default=[])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started us, who then closes our input
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints on import is not an answer
    warm(parser.parse_args().modules)
    say(answers, {"ready": os.getpid()})
    running: dict[int, tuple[str, float]] = {}
    pending = b""
    while True:
        readable, _, _ = select.select([0], [], [], POLL_SECONDS if running else None)
        if readable:
            chunk = os.read(0, 1 << 16)
            if not chunk:
                return end_all(running)
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                request = json.loads(line)
                pid = start(request)
                running[pid] = (request["id"], time.monotonic())
                say(answers, {"id": request["id"], "pid": pid})
        for pid in list(running):
            done, status, usage = os.wait4(pid, os.WNOHANG)
            if done:
                job, began = running.pop(pid)
                say(answers, {
                    "id": job,
                    "exit_code": os.waitstatus_to_exitcode(status),
                    "seconds": round(time.monotonic() - began, 3),
                    "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 3),
                    "peak_mib": round(usage.ru_maxrss / 1024, 1),
                })  # fmt: skip


def warm(modules: list[str]) -> None:
    gc.disable()  # importing makes a million long-lived objects, and each collection looks at all of them again
    for name in modules:
        importlib.import_module(name)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)  # a pool of threads would not survive the fork
    gc.enable()
    gc.freeze()


def say(answers: Any, value: dict[str, Any]) -> None:
    answers.write(json.dumps(value) + "\n")


def start(request: dict[str, Any]) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        run(request, parent)
    return pid


def run(request: dict[str, Any], parent: int) -> NoReturn:
    """In the child: the script as if Python had been started on it."""
    code = 1
    try:
        os.setsid()
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(request["cwd"])
        os.environ.update(request.get("env") or {})
        limit(resource.RLIMIT_AS, request.get("address_space_gib"), 1 << 30)
        limit(resource.RLIMIT_FSIZE, request.get("file_size_mib"), 1 << 20)
        script, *words = request["argv"]
        sys.argv = [script, *words]
        sys.path.insert(0, str(Path(script).resolve().parent))
        runpy.run_path(script, run_name="__main__")
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)


def limit(kind: int, value: float | None, unit: int) -> None:
    """`value` more than is used already, for the address space; else `value` itself."""
    if value is None:
        return
    used = 0
    if kind == resource.RLIMIT_AS:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    else:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write then fails with an error, as on a full disk
    ceiling = used + int(value * unit)
    resource.setrlimit(kind, (ceiling, ceiling))


def end_all(running: dict[int, tuple[str, float]]) -> int:
    for pid in running:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    for pid in running:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
