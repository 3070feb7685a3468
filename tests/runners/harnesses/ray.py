"""A real Ray cluster on loopback, a head and two workers, shared by all tests of the process."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from bot.domain.redaction import redact as redact_shapes
from runners.job import JobId
from runners.ray_jobs.backend import RayJobs
from runners.ray_jobs.dashboard import Dashboard
from runners.remote.runner import RemoteRunner
from runners.remote.store import CHECKPOINTS, OUTPUTS, FolderStore
from tests.runners import ray_cluster

_ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


class _OwnIds(Dashboard):
    """Remembers what Ray took. The suite calls every job `job`, and Ray's monitor of one that has just ended would end
    the next one of that name; on the shared cluster each harness therefore has names of its own."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.submitted: list[str] = []
        self.forgotten: set[str] = set()
        """Jobs whose end nobody waits for."""
        self._suffix = f"-{uuid4().hex[:8]}"

    def full_name(self, submission_id: str) -> str:
        return submission_id + self._suffix

    def submit(self, job: Mapping[str, Any]) -> None:
        super().submit({**job, "submission_id": job["submission_id"] + self._suffix})
        self.submitted.append(job["submission_id"])

    def job(self, submission_id: str) -> dict[str, Any] | None:
        return super().job(submission_id + self._suffix)

    def jobs(self) -> list[dict[str, Any]]:
        ours = [job for job in super().jobs() if job["submission_id"].endswith(self._suffix)]
        return [{**job, "submission_id": job["submission_id"].removesuffix(self._suffix)} for job in ours]

    def stop(self, submission_id: str) -> None:
        super().stop(submission_id + self._suffix)

    def forget(self, submission_id: str) -> None:
        super().forget(submission_id + self._suffix)


class Harness:
    seconds = 120.0
    loses_outputs = True
    slow = True

    @staticmethod
    def missing() -> str:
        return ray_cluster.missing()

    def __init__(self, folder: Path, cluster: ray_cluster.RayCluster | None = None) -> None:
        """`cluster` is the caller's own, the shared one without."""
        self.cluster = cluster or ray_cluster.shared()
        self.folder = folder
        self.storage, self.node_jobs = folder / "storage", folder / "node-jobs"
        self.storage.mkdir()
        self.dashboard = _OwnIds(self.cluster.dashboard)
        self.backend = RayJobs(
            self.dashboard, self.storage, "tests", jobs_folder=str(self.node_jobs), poll_seconds=0.3, orphan_seconds=0
        )

    def runner(self, **options: Any) -> RemoteRunner:
        return RemoteRunner(self.folder / "mirror", self.backend, **{"redact": redact_shapes, **options})

    def lose_machine(self, job_id: JobId) -> None:
        status = self.runner().status(job_id)
        assert status is not None
        node = next(node for node in self.cluster.workers if node.address == status.machine)
        # What would go with the machine and is no child of its Ray: the tether first, which would end the job orderly.
        for word in ("tether", "supervisor"):
            for pid in self._processes(word):
                os.kill(pid, signal.SIGKILL)
        node.kill()

    def lose_outputs(self, job_id: JobId) -> None:
        class Losing(FolderStore):
            def fetch(self, key: str, path: Path) -> bool:
                return key != OUTPUTS and super().fetch(key, path)

        store = self.backend.store
        lost = Losing(store(job_id).folder)
        self.backend.store = lambda asked: lost if asked == job_id else store(asked)  # type: ignore

    def checkpoint_is_away(self, job_id: JobId) -> bool:
        return bool(self.backend.store(job_id).names(CHECKPOINTS))

    def launches(self, job_id: JobId) -> int:
        return self.dashboard.submitted.count(job_id)

    def left_over(self) -> list[str]:
        _wait(lambda: not self._processes(""))
        jobs = [job["submission_id"] for job in self.dashboard.jobs()
                if job["status"] not in _ENDED and job["submission_id"] not in self.dashboard.forgotten]  # fmt: skip
        return [*map(str, self._processes("")), *jobs]

    def close(self) -> None:
        runner = self.runner()
        for job_id in runner.jobs():
            runner.cancel(job_id)
        for job_id in set(runner.jobs()) - self.dashboard.forgotten:
            _wait(partial(self._is_over, job_id))
        self.cluster.restore()

    def _is_over(self, job_id: JobId) -> bool:
        return (self.dashboard.job(job_id) or {"status": "STOPPED"})["status"] in _ENDED

    def _processes(self, word: str) -> list[int]:
        """Those on the nodes that belong to a job of this harness."""
        found = []
        for name in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                if name.isdigit() and int(name) != os.getpid():
                    words = Path("/proc", name, "cmdline").read_bytes().decode(errors="replace")
                    if str(self.node_jobs) in words and word in words:
                        found.append(int(name))
        return found


def _wait(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
