"""Starts jobs in a process that has its imports behind it (`zygote`): a practice run then costs what it trains.

    with Warm() as warm:
        job = warm.start(["train.py", "--config", "recipe.yaml"], cwd=folder, log=folder / "log.txt")
        ended = job.wait(timeout=60)

Jobs run side by side as far as the caller starts them so. Not covered: a sandbox; only shipped scripts belong here.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from bot.errors import PlatformError

ZYGOTE = Path(__file__).with_name("zygote.py")
IMPORTS = (
    "torch",
    "yaml",
    "datasets",
    "transformers",
    "peft",
    "trl.trainer.sft_trainer",
    "trl.trainer.distillation_trainer",
    "trl.trainer.dpo_trainer",
    "trl.trainer.grpo_trainer",
    "trl.trainer.reward_trainer",
)
"""What the shipped scripts import, loaded once."""
EVALUATION_IMPORTS = ("lm_eval.api.task", "lm_eval.evaluator", "lm_eval.models.huggingface")
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
START_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Ended:
    exit_code: int
    """Negative for the signal that ended it."""
    seconds: float
    cpu_seconds: float
    peak_mib: float


class WarmJob:
    """One started script."""

    def __init__(self) -> None:
        self._begun, self._done = threading.Event(), threading.Event()
        self.pid: int | None = None
        self.ended: Ended | None = None

    def began(self, pid: int) -> None:
        self.pid = pid
        self._begun.set()

    def end(self, ended: Ended) -> None:
        self.ended = ended
        self._begun.set()
        self._done.set()

    def wait(self, timeout: float | None = None) -> Ended | None:
        """How it ended; None when it still runs after `timeout` seconds."""
        self._done.wait(timeout)
        return self.ended

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the job and all that it started."""
        self._begun.wait(START_SECONDS)
        if self.pid is None or self.ended is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:
                os.kill(self.pid, number)  # just forked, and not yet a group of its own


class Warm:
    """The zygote, from `with` on; its jobs end with the block."""

    def __init__(
        self,
        modules: Sequence[str] = IMPORTS,
        *,
        python: str = sys.executable,
        environment: Mapping[str, str] = ENVIRONMENT,
    ) -> None:
        self._command = [python, str(ZYGOTE), *itertools.chain.from_iterable(("--import", name) for name in modules)]
        self._environment = dict(environment)
        self._jobs: dict[str, WarmJob] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Warm:
        self._process = subprocess.Popen(
            self._command,
            env=os.environ | self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        if process is None or process.stdin is None:
            return
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def start(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        log: Path,
        environment: Mapping[str, str] | None = None,
        address_space_gib: float | None = None,
        file_size_mib: float | None = None,
    ) -> WarmJob:
        """Run a Python script with its words; what it prints is appended to `log`.

        `address_space_gib` is what it may take beyond what the imports hold. Raises: PlatformError.
        """
        process = self._process
        if not self._ready.wait(START_SECONDS) or process is None or process.stdin is None:
            raise PlatformError("the process for practice jobs did not start")
        job = WarmJob()
        with self._lock:
            name = str(next(self._numbers))
            self._jobs[name] = job
            request = {
                "id": name,
                "argv": list(argv),
                "cwd": str(cwd),
                "log": str(log),
                "env": dict(environment or {}),
                "address_space_gib": address_space_gib,
                "file_size_mib": file_size_mib,
            }
            try:
                process.stdin.write(json.dumps(request).encode() + b"\n")
                process.stdin.flush()
            except OSError as error:
                raise PlatformError("the process for practice jobs has ended") from error
        return job

    def _listen(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        for line in self._process.stdout:
            self._heard(json.loads(line))
        with self._lock:
            for job in self._jobs.values():
                job.end(Ended(-signal.SIGKILL, 0.0, 0.0, 0.0))
        self._process.stdout.close()

    def _heard(self, told: dict[str, Any]) -> None:
        if "ready" in told:
            self._ready.set()
        elif "pid" in told:
            self._jobs[told["id"]].began(told["pid"])
        else:
            with self._lock:
                job = self._jobs.pop(told.pop("id"))
            job.end(Ended(**told))
