"""A whole goal with real training, once on this machine and once on a fake Hub's containers: the same numbers."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bot.domain.experiment import Experiment, State
from bot.domain.goal import GoalId
from bot.practice.demo import open_demo_issue, over, run_row
from bot.practice.goals import MAINTAINER, demo_goals, practice_place
from bot.practice.narration import Story
from bot.practice.tiny_base import NAME, cached_path
from bot.practice.world import Place, PracticeWorld
from runners.local import LocalRunner
from tests.fakes.hub import FakeHub
from tests.fakes.hub_jobs import IMAGE, ROOT
from tests.runners.harnesses.hf_jobs import REPOSITORY, RUNS_TOKEN, SERVER_TOKEN

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
TOLD = ("n", "value", "n_items", "standard_error", "verdict", "symptoms", "changed")


def end_local_jobs(folder: Path) -> None:
    runner = LocalRunner(folder / "jobs")
    for job_id in runner.jobs():
        runner.cancel(job_id)


def pursued(
    folder: Path, settings: dict[str, str], end_jobs: Callable[[Path], None], place: Place | None = None,
    ready: Callable[[PracticeWorld], None] = lambda _: None,
) -> tuple[Experiment, str]:  # fmt: skip
    """The demo's first goal, with a budget that pays for machines; a person agrees to what is asked.

    `ready` is called with the world before the bot starts.
    """
    goal = demo_goals(0)[1]
    goal = dataclasses.replace(goal, answers=dict(goal.answers) | {"usd": "2"})
    place = place or practice_place(0)
    world = PracticeWorld(folder, place, models={NAME: cached_path()}, settings=settings, end_jobs=end_jobs)
    with world:
        ready(world)
        issue = open_demo_issue(world, goal)
        world.start_bot()
        story, asked_for = Story(GoalId(f"{world.place.full_name}#{issue}"), world.page()), ""
        while not (story.events and over(story.experiment)):
            assert world.bot_runs, world.last_words()
            story.heard(world.events(issue, story.last_seq)[0])
            if story.events and story.experiment.state is State.AWAITING_CONSENT:
                x = story.experiment
                if x.head_sha != asked_for and x.pull_request is not None:
                    asked_for = x.head_sha
                    world.comment(MAINTAINER.login, x.pull_request, f"/postdoc run {x.head_sha}")
            time.sleep(0.25)
        return story.experiment, world.log_path.read_text(encoding="utf-8")


def rows(x: Experiment) -> list[dict[str, Any]]:
    return [{key: row[key] for key in TOLD} for row in map(run_row, x.runs)]


def test_goal_is_met_on_hugging_face_jobs_with_the_numbers_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run([sys.executable, "-m", "bot.practice.tiny_base", "--quiet"], cwd=ROOT, check=True)
    near, _ = pursued(tmp_path / "near", {}, end_local_jobs)
    hub = FakeHub()
    hub.models.writers = {SERVER_TOKEN: {"acme"}, RUNS_TOKEN: {REPOSITORY}}
    with hub.serve():
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        settings = {
            "POSTDOC_RUNNER": "hf_jobs", "POSTDOC_HUB_TOKEN": SERVER_TOKEN, "POSTDOC_HF_JOBS_TOKEN": RUNS_TOKEN,
            "POSTDOC_HF_JOBS_NAMESPACE": "acme", "POSTDOC_HF_JOBS_REPOSITORY": REPOSITORY,
            "POSTDOC_HF_JOBS_IMAGE": IMAGE, "POSTDOC_HF_JOBS_FLAVOR": "cpu-basic",
        }  # fmt: skip
        far, log = pursued(tmp_path / "far", settings, lambda _: None)
        started = [job.spec["labels"]["postdoc-job"] for job in hub.jobs.jobs.values()]
        uploads = [path for path in hub.asked if path.startswith("PUT /lfs/")]
        commits = hub.models.models[REPOSITORY].commits
    assert near.state is State.MET
    assert far.state is State.MET, log[-4000:]
    assert rows(far) == rows(near)
    assert len(started) == len(set(started)) == len(far.jobs)
    # What an evaluation evaluates is in the repository already: its inputs do not hold the weights again.
    inputs = hub.models.models[REPOSITORY].files
    sizes = {path: len(content) for path, content in inputs.items() if path.endswith("inputs.tar")}
    weights = max(len(content) for path, content in inputs.items() if path.endswith("outputs.tar"))
    assert all(size < weights / 4 for path, size in sizes.items() if "-evaluate-" in path), sizes
    assert all(job.status is not None and job.status["cost_usd"] is not None for job in far.jobs.values())
    assert len(commits) <= 4 * len(started), (commits, uploads)
    assert SERVER_TOKEN not in log
    assert RUNS_TOKEN not in log
