"""GitHub Actions: the practice forge's API, the server's own endpoints, and a machine that runs the wrapper."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from runners.job import JobId, Runner
from runners.remote.store import CHECKPOINTS, OUTPUTS, FolderStore
from tests.runners.actions_world import ActionsWorld
from tests.runners.conftest import processes_naming


class Harness:
    seconds = 60.0
    loses_outputs = True
    slow = True
    """What is its own is tried in test_actions.py, what it has in common with the others on `far`."""

    @staticmethod
    def missing() -> str:
        return ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.world = ActionsWorld(folder, judged=False)
        self.machine = self.world.machine()
        self._lost: set[JobId] = set()

    def runner(self, **options: Any) -> Runner:
        runner = self.world.runner(**options)
        original = runner.backend.store

        def store(job_id: JobId) -> Any:
            return _Losing(self.world.root / job_id / "store") if job_id in self._lost else original(job_id)

        runner.backend.store = store  # type: ignore[method-assign]
        return runner

    def lose_machine(self, job_id: JobId) -> None:
        self.machine.kill(job_id)
        self.world.forge.lose_machine(self.machine.machine)
        self.world.give_up()

    def lose_outputs(self, job_id: JobId) -> None:
        self._lost.add(job_id)

    def launches(self, job_id: JobId) -> int:
        return len(self.world.runs(job_id))

    def left_over(self) -> list[str]:
        deadline = time.monotonic() + 30
        while (left := processes_naming(self.folder)) and time.monotonic() < deadline:
            time.sleep(0.02)
        return left

    def checkpoint_is_away(self, job_id: JobId) -> bool:
        return bool(self.world.runners[-1].backend.store(job_id).names(CHECKPOINTS))

    def close(self) -> None:
        self.world.close()


class _Losing(FolderStore):
    def fetch(self, key: str, path: Path) -> bool:
        return key != OUTPUTS and super().fetch(key, path)
