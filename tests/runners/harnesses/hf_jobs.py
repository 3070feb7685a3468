"""Hugging Face Jobs: the real client against a fake Hub over HTTP, whose containers are processes of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from bot.domain.redaction import redact as redact_shapes
from runners.hf_jobs.backend import JOB_LABEL, JOB_UID, HubJobs, Machine
from runners.hf_jobs.hub import Hub
from runners.hf_jobs.stream import Reader
from runners.job import JobId
from runners.remote.runner import RemoteRunner
from tests.fakes.hub import FakeHub
from tests.fakes.hub_jobs import IMAGE, ROOT, FakeJob
from tests.runners.conftest import processes_naming

REPOSITORY = "acme/postdoc-runs"
SERVER_TOKEN, RUNS_TOKEN = "hf_server", "hf_runs_only"


@cache
def job_uid() -> int:
    """Whom scripts run as: another user, where this one is root and that one can be shown the tests' interpreter."""
    if os.getuid() != 0:
        return 0
    code = "from tests.fakes import container as c; c.hidden_from_others() is None or c.show_interpreter()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    return JOB_UID if done.returncode == 0 else 0


class Harness:
    slow = True
    seconds = 60.0
    loses_outputs = True
    hears = False

    @staticmethod
    def missing() -> str:
        return ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hub = FakeHub()
        self.hub.models.writers = {SERVER_TOKEN: {"acme"}, RUNS_TOKEN: {REPOSITORY}}
        self.uid = job_uid()
        self._stack = ExitStack()
        self._stack.enter_context(self.hub.serve())
        self._backends: list[HubJobs] = []

    def backend(self, *, root: Path | None = None, **machine: Any) -> HubJobs:
        client = Hub(self.hub.url, SERVER_TOKEN, "acme", REPOSITORY)
        given = Machine(IMAGE, "cpu-basic", RUNS_TOKEN, self.uid)
        made = HubJobs(
            client, replace(given, **machine), root or self.folder / "mirror", poll_seconds=0.05, drain_seconds=5.0
        )
        self._backends.append(made)
        return made

    def runner(self, **options: Any) -> RemoteRunner:
        return RemoteRunner(self.folder / "mirror", self.backend(), **{"redact": redact_shapes, **options})

    def job(self, job_id: JobId) -> FakeJob:
        [job] = self.hub.jobs.labelled(JOB_LABEL, job_id)
        return job

    def lose_machine(self, job_id: JobId) -> None:
        self.hub.jobs.vanish(self.job(job_id))

    def lose_outputs(self, job_id: JobId) -> None:

        for backend in self._backends:
            _lose_outputs(backend.hub)

    def launches(self, job_id: JobId) -> int:
        return len(self.hub.jobs.labelled(JOB_LABEL, job_id))

    def readers(self) -> list[Reader]:
        return [reader for backend in self._backends for reader in backend._readers.values()]

    def left_over(self) -> list[str]:
        deadline = time.monotonic() + 30
        while (left := processes_naming(self.folder) + self.hub.jobs.alive()) and time.monotonic() < deadline:
            time.sleep(0.02)
        return left

    def close(self) -> None:
        runner = self.runner()
        for job_id in runner.jobs():
            runner.cancel(job_id)
        for reader in self.readers():
            reader.stop()
        self._stack.close()


def _lose_outputs(hub: Hub) -> None:
    fetch = hub.fetch

    def fetch_the_rest(path: str, target: Path, revision: str = "main") -> bool:
        return not path.endswith("outputs.tar") and fetch(path, target, revision)

    hub.fetch = fetch_the_rest  # type: ignore[method-assign]
