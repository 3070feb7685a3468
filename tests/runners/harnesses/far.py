"""A stand-in for another machine: processes of this one that share nothing with the runner but a store. It is how the
part that all far backends have in common is tried without any of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bot.domain.redaction import redact as redact_shapes
from runners.job import Flavor, JobId, JobSpec, read_json
from runners.layout import LEASE
from runners.local import LocalRunner
from runners.remote.runner import RemoteRunner, Seen, Sighting
from runners.remote.store import CHECKPOINTS, OUTPUTS, FolderStore

REPOSITORY = Path(__file__).resolve().parents[3]


class _FarMachine:
    """A backend whose machine is a folder and whose jobs are wrapper processes."""

    name = "far"
    isolates = True
    hears = True
    poll_seconds = 0.05

    def __init__(self, folder: Path) -> None:
        self.stores, self.jobs = folder / "stores", folder / "far-jobs"
        self.processes: dict[JobId, subprocess.Popen[bytes]] = {}
        self.submitted: list[JobId] = []

    def store(self, job_id: JobId) -> FolderStore:
        (self.stores / job_id).mkdir(parents=True, exist_ok=True)
        return FolderStore(self.stores / job_id)

    def omitted(self, spec: JobSpec) -> frozenset[str]:
        return frozenset()

    def submit(self, spec: JobSpec) -> Mapping[str, Any]:
        self.submitted.append(spec.job_id)
        command = [sys.executable, "-m", "runners.remote.wrapper", "--job", spec.job_id, "--slots", "4"]
        command += ["--store", str(self.stores / spec.job_id), "--jobs", str(self.jobs)]
        self.processes[spec.job_id] = subprocess.Popen(command, cwd=REPOSITORY, start_new_session=True)
        return {"pid": self.processes[spec.job_id].pid}

    def look(self, job_id: JobId, handle: Mapping[str, Any]) -> Sighting:
        ended = self.processes[job_id].poll() is not None
        return Sighting(Seen.GONE, "the machine is gone") if ended else Sighting(Seen.RUNNING, machine="far-1")

    def cancel(self, job_id: JobId, handle: Mapping[str, Any]) -> None:
        """The wrapper reads the wish from the store."""

    def orphans(self, known: frozenset[JobId]) -> Sequence[str]:
        return ()

    def flavors(self) -> Sequence[Flavor]:
        return (Flavor("far"),)


class Harness:
    seconds = 60.0
    loses_outputs = True

    @staticmethod
    def missing() -> str:
        return ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.machine = _FarMachine(folder)
        self._lost: set[JobId] = set()

    def runner(self, **options: Any) -> RemoteRunner:
        return RemoteRunner(self.folder / "mirror", self.machine, **{"redact": redact_shapes, **options})

    def lose_machine(self, job_id: JobId) -> None:
        os.killpg(self.machine.processes[job_id].pid, signal.SIGKILL)
        self.machine.processes[job_id].wait()
        lease = read_json(self.machine.jobs / job_id / LEASE)
        if lease is not None:
            os.kill(lease["pid"], signal.SIGKILL)

    def lose_outputs(self, job_id: JobId) -> None:
        # A folder in its place: nothing can be written there.
        (self.machine.stores / job_id).mkdir(parents=True, exist_ok=True)
        self._lost.add(job_id)
        original = self.machine.store(job_id).fetch

        class Losing(FolderStore):
            def fetch(self, key: str, path: Path) -> bool:
                return key != OUTPUTS and original(key, path)

        store = self.machine.store
        self.machine.store = lambda asked: Losing(self.machine.stores / asked) if asked in self._lost else store(asked)  # type: ignore

    def checkpoint_is_away(self, job_id: JobId) -> bool:
        return bool(self.machine.store(job_id).names(CHECKPOINTS))

    def launches(self, job_id: JobId) -> int:
        return self.machine.submitted.count(job_id)

    def left_over(self) -> list[str]:
        return [job for job, process in self.machine.processes.items() if process.poll() is None]

    def close(self) -> None:
        runner = self.runner()
        for job_id in runner.jobs():
            runner.cancel(job_id)
        for process in self.machine.processes.values():
            process.wait(30)
        far = LocalRunner(self.machine.jobs)
        far.sweep()
