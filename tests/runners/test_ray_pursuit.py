"""A goal pursued to its target with real training, on this machine and on a Ray cluster: the same numbers."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bot.domain.experiment import Experiment, State
from bot.domain.goal import GoalId
from bot.practice.demo import open_demo_issue, over, run_row
from bot.practice.goals import MAINTAINER, demo_goals, practice_place
from bot.practice.narration import Story
from bot.practice.tiny_base import NAME, cached_path
from bot.practice.world import PracticeWorld
from runners.local import LocalRunner
from tests.runners import ray_cluster

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(ray_cluster.missing()), reason=ray_cluster.missing() or "-"),
]


def end_local_jobs(folder: Path) -> None:
    runner = LocalRunner(folder / "jobs")
    for job_id in runner.jobs():
        runner.cancel(job_id)


def pursued(folder: Path, settings: dict[str, str]) -> Experiment:
    ends = (lambda _folder: None) if settings else end_local_jobs
    world = PracticeWorld(folder, practice_place(0), models={NAME: cached_path()}, settings=settings, end_jobs=ends)
    with world:
        issue = open_demo_issue(world, demo_goals(0)[1])
        world.start_bot()
        story = Story(GoalId(f"{world.place.full_name}#{issue}"), world.page())
        agreed = ""
        while not (story.events and over(story.experiment)):
            assert world.bot_runs, world.last_words()
            story.heard(world.events(issue, story.last_seq)[0])
            x = story.experiment if story.events else None
            if x is not None and x.state is State.AWAITING_CONSENT and x.pull_request and x.head_sha != agreed:
                agreed = x.head_sha
                world.comment(MAINTAINER.login, x.pull_request, f"/postdoc run {x.head_sha}")
            time.sleep(0.25)
        assert story.experiment.state is State.MET, world.log_path.read_text(encoding="utf-8")[-4000:]
        return story.experiment


def numbers(x: Experiment) -> list[dict[str, Any]]:
    told = ("n", "value", "n_items", "standard_error", "verdict", "symptoms", "changed")
    return [{key: row[key] for key in told} for row in map(run_row, x.runs)]


def test_goal_is_met_on_a_cluster_with_the_numbers_of_this_machine(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "bot.practice.tiny_base", "--quiet"], cwd=ROOT, check=True)
    near = pursued(tmp_path / "near", {})
    storage = tmp_path / "storage"
    storage.mkdir()
    cluster = ray_cluster.shared()
    settings = {
        "POSTDOC_RUNNER": "ray", "POSTDOC_RAY_ADDRESS": cluster.dashboard, "POSTDOC_RAY_STORAGE": str(storage),
        "POSTDOC_JOB_MEMORY_GIB": "6",
    }  # fmt: skip
    far = pursued(tmp_path / "far", settings)
    assert numbers(far) == numbers(near)
    assert {job.status["machine"] for job in far.jobs.values() if job.status} <= {
        node.address for node in cluster.workers
    }
