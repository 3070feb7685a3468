"""A whole goal with real training, once on this machine and once in containers: the same numbers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bot.domain.experiment import State
from runners.containers.runner import ContainerRunner
from tests.runners import engines
from tests.runners.test_hf_pursuit import end_local_jobs, pursued, rows

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]
ROOT = Path(__file__).resolve().parents[2]


def test_goal_is_met_in_containers_with_the_numbers_of_this_machine(tmp_path: Path) -> None:
    engine: Any = engines.engine("dockerd")
    if isinstance(engine, str):
        pytest.skip(f"dockerd: {engine}")
    subprocess.run([sys.executable, "-m", "bot.practice.tiny_base", "--quiet"], cwd=ROOT, check=True)
    image = engine.image_that_trains()

    def end_jobs(folder: Path) -> None:
        runner = ContainerRunner(folder / "jobs", image, engine.url)
        for job_id in runner.jobs():
            runner.cancel(job_id)

    near, _ = pursued(tmp_path / "near", {}, end_local_jobs)
    settings = {"POSTDOC_RUNNER": "docker", "POSTDOC_DOCKER_URL": engine.url, "POSTDOC_DOCKER_IMAGE": image}
    far, log = pursued(tmp_path / "far", settings, end_jobs)
    assert near.state is State.MET
    assert far.state is State.MET, log[-4000:]
    assert rows(far) == rows(near)
    assert {job.status["tier"] for job in far.jobs.values() if job.status is not None} == {"container (docker)"}
    assert engine.containers() == []
