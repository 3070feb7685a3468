"""This machine: supervisors as the runner starts them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from runners.job import JobId, read_json
from runners.layout import LEASE
from runners.local import LocalRunner
from tests.runners.conftest import processes_naming


class Harness:
    seconds = 60.0
    loses_outputs = False

    @staticmethod
    def missing() -> str:
        return ""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "jobs"

    def runner(self, **options: Any) -> LocalRunner:
        return LocalRunner(self.root, slots=4, **options)

    def lose_machine(self, job_id: JobId) -> None:
        lease = read_json(self.root / job_id / LEASE)
        assert lease is not None
        os.kill(lease["pid"], signal.SIGKILL)

    def lose_outputs(self, job_id: JobId) -> None:
        raise NotImplementedError

    def launches(self, job_id: JobId) -> int:
        return 1

    def left_over(self) -> list[str]:
        deadline = time.monotonic() + 30
        while (left := processes_naming(self.root)) and time.monotonic() < deadline:
            time.sleep(0.01)
        return left

    def close(self) -> None:
        runner = self.runner()
        for job_id in runner.jobs():
            runner.cancel(job_id)
