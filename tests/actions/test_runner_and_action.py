"""The runner that dispatches and the Action that is dispatched, together: forge, the server's stores over HTTP, and the
template executed on the machine that takes the job."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runners.job import Caps, JobId, JobSpec, JobState, JobStatus
from tests.actions.judge import Judge
from tests.actions.stepping_machine import SteppingMachine
from tests.runners.actions_world import LAB, ActionsWorld


@pytest.fixture
def world(tmp_path: Path, judge: Judge) -> Iterator[ActionsWorld]:
    world = ActionsWorld(tmp_path)
    registered = world.forge.add_machine(LAB, "gpu-box", ("postdoc",))
    machine = SteppingMachine(world.url, registered, tmp_path / "gpu-box", judge=judge, forge=world.forge)
    world.machines.append(machine)
    machine.start()
    yield world
    world.close()


def ended(runner: Any, spec: JobSpec) -> JobStatus:
    runner.launch(spec)
    deadline = time.monotonic() + 180
    while True:
        status = runner.status(spec.job_id)
        assert status is not None
        if status.state.ended:
            return JobStatus.from_dict(status.as_dict())
        assert time.monotonic() < deadline, status
        time.sleep(0.1)


def spec_of(world: ActionsWorld, script: str) -> JobSpec:
    path = world.folder / "job.py"
    path.write_text(script)
    head = str(world.forge.repository(LAB).git.branch("main"))
    return JobSpec(
        JobId("lab-1-train-01-1"), ("{python}", "job.py"), files={"job.py": str(path)}, trusted=True,
        caps=Caps(memory_gib=1, timeout_seconds=120), labels={"sha": head},
    )  # fmt: skip


def test_job_goes_out_by_dispatch_and_comes_home_by_the_store(world: ActionsWorld) -> None:
    runner = world.runner()
    script = "import os, json; os.mkdir('out'); open('out/answer', 'w').write('42')\n"
    script += "open('out/metrics.jsonl', 'w').write(json.dumps({'step': 1, 'loss': 2.0}) + chr(10)); print('trained')\n"
    status = ended(runner, spec_of(world, script))
    machine = world.machines[0]
    assert isinstance(machine, SteppingMachine)
    shown = machine.runs[0].log.text if machine.runs else ""
    assert status.state is JobState.SUCCEEDED, f"{status}\n{shown}"
    assert (runner.folder(status.job_id) / "out" / "answer").read_text() == "42"
    assert runner.metrics(status.job_id) == [{"step": 1, "loss": 2.0}]
    assert "trained" in runner.log_tail(status.job_id)
    deadline = time.monotonic() + 90
    while not machine.runs and time.monotonic() < deadline:
        time.sleep(0.1)
    [run] = machine.runs
    assert run.conclusion == "success", run.log.text
    token = machine.taken[0]["event"]["inputs"]["token"]
    assert token in run.log.masks
    assert token not in run.log.text + run.summary
    assert "trained" not in run.log.text, "what the job says is for the store"
