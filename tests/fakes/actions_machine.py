"""A self-hosted machine of the practice forge: takes queued jobs and runs the wrapper as the Action's train step does.

It reads the dispatch's inputs from the event alone, hands the token over in a file, starts the wrapper in a session of
its own and without RUNNER_TRACKING_ID, follows it, and keeps the artifact whatever the ending.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import httpx

from bot.practice.actions_model import Machine
from runners.job import read_json
from runners.layout import LEASE
from runners.local import LocalRunner
from runners.remote.sealing import SEALED

REPOSITORY = Path(__file__).resolve().parents[2]
WORKFLOW = """\
name: Postdoc trains
run-name: postdoc ${{ inputs.job }}
on:
  workflow_dispatch:
    inputs:
      job: {required: true, type: string}
      sha: {required: true, type: string}
      store: {required: true, type: string}
      token: {required: true, type: string}
      timeout_minutes: {required: true, type: string}
      label: {required: true, type: string}
permissions: {contents: read}
concurrency:
  group: postdoc-${{ inputs.job }}
jobs:
  train:
    runs-on: ${{ inputs.label }}
    steps:
      - run: the wrapper
"""


class ActionsMachine:
    """Polls the forge from a thread until `stop`; may take one job after the other, or several by several threads."""

    def __init__(self, url: str, machine: Machine, folder: Path, *, renew_seconds: float = 0.5) -> None:
        self.machine, self.folder, self._renew = machine, folder, renew_seconds
        self.jobs = folder / "jobs"
        folder.mkdir(parents=True, exist_ok=True)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.taken: list[dict[str, Any]] = []
        self._door = httpx.Client(
            base_url=f"{url}/practice/machines", headers={"Authorization": f"Bearer {machine.token}"}, trust_env=False
        )
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def start(self) -> ActionsMachine:
        self._thread.start()
        return self

    def stop(self) -> None:
        """The agent ends; what it started detached goes on until somebody ends it."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(30)
        self._door.close()

    def kill(self, job_id: str) -> None:
        """Power off, as far as this job is concerned: its wrapper and its supervisor are gone."""
        process = self.processes[job_id]
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        lease = read_json(self.jobs / job_id / LEASE)
        if lease is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(lease["pid"], signal.SIGKILL)

    def end_leftovers(self) -> None:
        for process in self.processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if self.jobs.exists():
            runner = LocalRunner(self.jobs)
            for job_id in runner.jobs():
                runner.cancel(job_id)
            runner.sweep()

    def _work(self) -> None:
        while not self._stopping.wait(0.03):
            with contextlib.suppress(httpx.TransportError):
                answer = self._door.post("/next")
                if answer.status_code == 200:
                    self.taken.append(answer.json())
                    self._execute(self.taken[-1])

    def _execute(self, told: dict[str, Any]) -> None:
        inputs, number = told["event"]["inputs"], told["job"]["id"]
        job_id = inputs["job"]
        artifact = self.folder / f"artifact-{number}"
        process = self.processes[job_id] = self._start_wrapper(inputs, artifact)
        cancelled = False
        while process.poll() is None and not cancelled and not self._stopping.is_set():
            said = self._door.get(f"/jobs/{number}").json()
            cancelled = bool(said["cancel"]) or said["status"] == "completed"
            time.sleep(0.03)
        self._keep(told["run"]["id"], f"postdoc-{job_id}", artifact)
        conclusion = "cancelled" if cancelled else "success" if process.poll() == 0 else "failure"
        self._door.post(f"/jobs/{number}/finish", json={"conclusion": conclusion})

    def _start_wrapper(self, inputs: dict[str, str], artifact: Path) -> subprocess.Popen[bytes]:
        token = self.folder / f"{inputs['job']}.token"
        token.touch(mode=0o600)
        token.write_text(inputs["token"])
        environment = {name: value for name, value in os.environ.items() if name != "RUNNER_TRACKING_ID"}
        command = [sys.executable, "-m", "actions.wrapping", "--job", inputs["job"], "--store", inputs["store"]]
        command += ["--jobs", str(self.jobs), "--artifact", str(artifact), "--renew", str(self._renew), "--slots", "4"]
        with open(self.folder / f"{inputs['job']}.log", "ab") as log:
            return subprocess.Popen(
                command, cwd=REPOSITORY, env=environment | {"POSTDOC_RUN_TOKEN_FILE": str(token)},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def _keep(self, run_id: int, name: str, folder: Path) -> None:
        if not (folder / SEALED).exists():
            return
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(folder / SEALED, SEALED)
        self._door.put(f"/runs/{run_id}/artifacts/{name}", content=packed.getvalue())
