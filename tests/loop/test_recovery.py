"""`kill -9` before and after every action and every write: the goal goes on to the same end, nothing happens twice.

The process dies once at each point it reaches (tests/serving.py), and is started again each time. The thread, the
branch, the checks and the jobs are then compared with those of a pursuit that nobody disturbed.
"""

from __future__ import annotations

import difflib
import json
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.world import GOOD, REPOSITORY, World, practice_world

SHA = re.compile(r"\b[0-9a-f]{7,64}\b")
FOLDER = re.compile(r"/[^\s\"]*/runner/")
TIMES = re.compile(r"\b\d+(\.\d+)? (s|min|h|hours?|minutes?|seconds?|days?)\b( \d+ (s|min))?|under 0\.\d+|\d\d:\d\d")


def pursue(
    world: World,
    act: Callable[[World, int], None] | None = None,
    *,
    lose_database: bool = False,
    body: str | None = None,
) -> int:
    """Open a goal and restart the bot as often as it dies, its database lost or not; returns how many deaths."""
    for each in (world, *world.peers):
        each.start()
    deaths, acted = 0, act is None
    issue = 0
    deadline = time.monotonic() + 1500
    while time.monotonic() < deadline:
        for each in (world, *world.peers):
            assert each.process is not None
            if each.process.poll() is not None:
                assert each.process.returncode == -9, world.log()
                deaths += 1
                if lose_database:
                    each.lose_database()
                each.start()
        if not issue and world.wait_ready(60):
            issue = world.open_goal(body)
        events = world.events(issue) if issue else []
        if act is not None and not acted and any(event["kind"] == "run_started" for event in events):
            act(world, issue)
            acted = True
        if acted and any(event["kind"] == "ended" for event in events):
            return deaths
        time.sleep(0.02)
    raise AssertionError(f"no ending after {deaths} deaths:\n{world.log()}")


def seen(world: World, issue: int) -> dict[str, Any]:
    """All that people can see, with what may differ between two pursuits (hashes, clock times) blanked."""
    pull = world.pulls()[0]
    number = pull["number"]
    commits = world.api("ada", "GET", f"/repos/{REPOSITORY}/pulls/{number}/commits?per_page=100")
    checks = [
        check
        for commit in commits
        for check in world.api("ada", "GET", f"/repos/{REPOSITORY}/commits/{commit['sha']}/check-runs")["check_runs"]
    ]
    return {
        "pulls": len(world.pulls()),
        "draft": pull["draft"],
        "issue": [plain(body) for body in world.bot_comments(issue)],
        "pull_request": [plain(body) for body in world.bot_comments(number)],
        "reviews": [plain(review["body"]) for review in world.reviews(number)],
        "inline": [plain(comment["body"]) for comment in world.review_comments(number)],
        "commits": [plain(commit["commit"]["message"]) for commit in commits],
        "checks": [(check["name"], check["conclusion"], plain(check["output"]["title"])) for check in checks],
        "launches": world.runner.launches(),
        "kinds": [event["kind"] for event in world.events(issue)],
    }


def difference(expected: Any, found: Any) -> list[str]:
    left, right = (json.dumps(value, indent=1).replace("\\n", "\n").splitlines() for value in (expected, found))
    return list(difflib.unified_diff(left, right, "undisturbed", "killed", lineterm="", n=1))


def plain(text: str) -> str:
    return FOLDER.sub("…", TIMES.sub("…", SHA.sub("…", text)))


@pytest.mark.slow
@pytest.mark.timeout(1700)
@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow, id="a peer takes over")])
def test_killed_before_and_after_every_action_and_write_ends_the_same_and_doubles_nothing(
    tmp_path: Path, processes: int
) -> None:
    with practice_world(tmp_path / "undisturbed") as world:
        assert pursue(world) == 0
        expected = seen(world, 1)
    with practice_world(tmp_path / "killed", deaths=tmp_path / "deaths", processes=processes) as world:
        deaths = pursue(world)
        found = seen(world, 1)
    points = (tmp_path / "deaths").read_text().splitlines()
    assert len(points) - processes < deaths <= len(points)  # the last to die may not have been seen
    assert sum(" performed " in point for point in points) >= 20
    assert sum(point.startswith("write ") for point in points) >= 15
    for what in expected:
        assert found[what] == expected[what], f"{what}:\n" + "\n".join(difference(expected[what], found[what]))
    assert len(set(found["launches"])) == len(found["launches"])


@pytest.mark.slow
@pytest.mark.timeout(1700)
def test_command_and_push_survive_kills_around_them(tmp_path: Path) -> None:
    """A stop that arrives while a job runs, with the bot dying at every point around it."""

    def stop(world: World, issue: int) -> None:
        world.comment(world.pulls()[0]["number"], "/postdoc stop")

    with practice_world(tmp_path / "killed", deaths=tmp_path / "deaths") as world:
        world.runner.script(GOOD | {"train-01": {"curve": "flat", "hold": True}})
        deaths = pursue(world, stop)
        assert deaths > 20
        assert world.until_ended(1) == "stopped"
        bodies = world.bot_comments(world.pulls()[0]["number"])
        assert len(bodies) == len({body.splitlines()[0] for body in bodies}) == 3


@pytest.mark.slow
@pytest.mark.timeout(1700)
def test_ablation_survives_kills_around_it(tmp_path: Path) -> None:
    """Both values are trained once and told once, with the bot dying at every point on the way."""

    def ablate(world: World, issue: int) -> None:
        world.comment(world.pulls()[0]["number"], "/postdoc ablate learning_rate=1e-4,1e-3")

        def release_once_opened() -> None:
            world.until(lambda: "ablation_opened" in {e["kind"] for e in world.events(issue)}, "the ablation", 600)
            world.runner.release("train-01")

        threading.Thread(target=release_once_opened, daemon=True).start()

    with practice_world(tmp_path / "killed", deaths=tmp_path / "deaths") as world:
        arms = {f"ablate-{n:02d}": {"curve": "good"} for n in (1, 2)} | {
            f"weigh-{n:02d}": {"value": 0.4 * n} for n in (1, 2)
        }
        world.runner.script(GOOD | arms | {"train-01": {"curve": "flat", "hold": True}})
        deaths = pursue(world, ablate)
        assert deaths > 20
        assert world.until_ended(1) == "met"
        launches = world.runner.launches()
        assert len(set(launches)) == len(launches)
        assert sum("-ablate-" in job or "-weigh-" in job for job in launches) == 4
        bodies = world.bot_comments(world.pulls()[0]["number"])
        assert len(bodies) == len({body.splitlines()[0] for body in bodies})
        assert sum("### Ablation 1" in body for body in bodies) == 1


@pytest.mark.slow
@pytest.mark.timeout(1700)
def test_reproduction_survives_kills_around_it(tmp_path: Path) -> None:
    """Its data is built, its training and evaluation are done, and its verdict is told, once each."""

    def reproduce(world: World, issue: int) -> None:
        def once_reviewed() -> None:
            world.until(lambda: "reviewed" in {e["kind"] for e in world.events(issue)}, "the first review", 600)
            world.comment(world.pulls()[0]["number"], "/postdoc reproduce 1")
            world.until(lambda: "reproduction_opened" in {e["kind"] for e in world.events(issue)}, "it", 600)
            world.runner.release("train-02")

        threading.Thread(target=once_reviewed, daemon=True).start()

    points = {"POSTDOC_TEST_DEATHS_AT": "rebuil|retrain|reassess|report_reproduction|answer_command"}
    with practice_world(tmp_path / "killed", deaths=tmp_path / "deaths", settings=points) as world:
        again: dict[str, dict[str, Any]] = {"retrain-01": {"curve": "flat"}, "reassess-01": {"value": 0.02}}
        world.runner.script(GOOD | again | {"train-02": {"curve": "good", "hold": True}})
        deaths = pursue(world, reproduce)
        assert deaths > 12
        assert world.until_ended(1) == "met"
        launches = world.runner.launches()
        assert len(set(launches)) == len(launches)
        assert sum(role in job for job in launches for role in ("-rebuild-", "-retrain-", "-reassess-")) == 3
        assert world.first(1, "reproduction_reported")["report"]["verdict"] == "bitwise"
        bodies = world.bot_comments(world.pulls()[0]["number"])
        assert len(bodies) == len({body.splitlines()[0] for body in bodies})
        assert sum("### Reproductions" in body for body in bodies) == 1


def test_job_that_ends_while_the_bot_is_away_is_picked_up(tmp_path: Path) -> None:
    with practice_world(tmp_path) as world:
        world.runner.script(GOOD | {"train-01": {"curve": "flat", "hold": True}})
        world.start()
        world.wait_ready()
        issue = world.open_goal()
        world.until_job("train-01")
        world.kill()
        world.runner.release("train-01")
        world.start()
        world.wait_ready()
        assert world.until_ended(issue) == "met"
        assert len(set(world.runner.launches())) == len(world.runner.launches())


@pytest.mark.slow
def test_delivery_that_was_missed_while_the_bot_was_away_is_asked_for(tmp_path: Path) -> None:
    with practice_world(tmp_path) as world:
        world.start()
        world.wait_ready()
        world.kill()
        issue = world.open_goal()
        assert world.forge.settle()
        world.start()
        world.wait_ready()
        assert world.until_ended(issue) == "met"
        assert len(world.bot_comments(issue)) == 1
        assert len(world.pulls()) == 1
