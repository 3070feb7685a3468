"""A goal pursued with real training, once by the server and once by `postdoc respond`: the same numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bot.cli.practice import _end_jobs
from bot.domain.experiment import Experiment
from bot.domain.fold import experiment_of
from bot.domain.goal import GoalId
from bot.loop.journal import Journal
from bot.loop.record import Record, key_of
from bot.practice.goals import WRITER, demo_goals, issue_of, practice_place
from bot.practice.tiny_base import NAME, cached_path, is_built
from bot.practice.world import PracticeWorld
from tests.serverless.workflows import WORKFLOW_PERMISSIONS
from tests.world import ROOT

SECONDS = 1500.0
pytestmark = [pytest.mark.slow, pytest.mark.timeout(2 * SECONDS)]


@pytest.fixture(scope="module")
def base() -> Path:
    if not is_built(cached_path()):
        subprocess.run([sys.executable, "-m", "bot.practice.tiny_base"], cwd=ROOT, check=True, capture_output=True)
    return cached_path()


def numbers(x: Experiment) -> list[Any]:
    """What must not depend on who asked for it."""
    found: list[Any] = [str(x.state), x.baseline and x.baseline.value]
    for run in x.runs:
        found.append((run.n, run.score and run.score.value, run.symptoms, run.changed, run.verdict, run.recipe_hash))
    return [*found, x.confirmation and x.confirmation["score"]["value"]]


def open_goal(world: PracticeWorld) -> int:
    goal = demo_goals(0)[1]
    body, labels = issue_of(goal.answers)
    return world.open_issue(WRITER.login, goal.title, body, labels)


def by_server(folder: Path, base: Path) -> Experiment:
    with PracticeWorld(folder, practice_place(0), models={NAME: base}, end_jobs=_end_jobs) as world:
        world.start_bot()
        issue = open_goal(world)
        deadline = time.monotonic() + SECONDS
        while True:
            rows, _ = world.events(issue)
            if any(row["kind"] == "ended" for row in rows):
                break
            assert time.monotonic() < deadline, world.last_words()
            time.sleep(0.5)
        return _folded(world, issue, [_event(row) for row in rows])


def by_respond(folder: Path, base: Path) -> Experiment:
    with PracticeWorld(folder, practice_place(0), end_jobs=_end_jobs) as world:
        models = folder / "models" / NAME
        models.parent.mkdir(parents=True)
        models.symlink_to(base, target_is_directory=True)
        issue = open_goal(world)
        payload = _payload(world, issue)
        event = folder / "event.json"
        event.write_text(json.dumps(payload))
        result = folder / "result.json"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("POSTDOC_")}
        done = subprocess.run(
            [sys.executable, "-m", "bot", "respond", "--event", str(event), "--event-name", "issues",
             "--data-folder", str(folder / "data"), "--json", str(result)],
            cwd=ROOT, text=True, capture_output=True, timeout=SECONDS,
            env=environment | {
                "GITHUB_TOKEN": world.forge.workflow_token(world.place.full_name, WORKFLOW_PERMISSIONS).token,
                "GITHUB_REPOSITORY": world.place.full_name, "GITHUB_RUN_ID": "1",
                "GITHUB_API_URL": f"{world.url}/api/v3",
                "POSTDOC_MODEL_FOLDERS": str(folder / "models"), "POSTDOC_WRITE_PAUSE_SECONDS": "0",
            },
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr[-4000:]
        (told,) = json.loads(result.read_text())["goals"]
        assert (told["state"], told["running"]) == ("met", [])
        assert (Path(told["model"]) / "model.safetensors").is_file()
        return _kept(world, issue)


def _payload(world: PracticeWorld, issue: int) -> dict[str, Any]:
    """The event as GitHub writes it: from what the practice forge tells its App."""
    assert world.forge.settle(30)
    (app,) = (app for app in world.forge.apps.values() if app.slug != "github-actions")
    told = [d for d in world.forge.webhooks.deliveries(app) if d.event == "issues" and d.action == "opened"]
    payload: dict[str, Any] = json.loads(told[0].body)
    assert payload["issue"]["number"] == issue
    return {key: value for key, value in payload.items() if key != "installation"}


def _kept(world: PracticeWorld, issue: int) -> Experiment:
    content = subprocess.run(
        ["git", "show", f"refs/postdoc/{issue}:journal.jsonl"], cwd=world.repository, check=True, capture_output=True
    ).stdout
    journal: Any = Journal.__new__(Journal)
    goal_id = GoalId(f"{world.place.full_name}#{issue}")
    return experiment_of(goal_id, Record(journal, [key_of("")]).read(goal_id, content))


def _folded(world: PracticeWorld, issue: int, events: list[Any]) -> Experiment:
    return experiment_of(GoalId(f"{world.place.full_name}#{issue}"), events)


def _event(row: dict[str, Any]) -> Any:
    from bot.domain.experiment import Event, EventKind

    return Event(row["seq"], EventKind(row["kind"]), row["key"], row["at"], row["data"])


def test_numbers_are_the_servers(tmp_path: Path, base: Path) -> None:
    without = by_respond(tmp_path / "respond", base)
    served = by_server(tmp_path / "server", base)
    assert str(served.state) == "met"
    assert numbers(without) == numbers(served)
