"""A run that is known to be in vain is not submitted: it is told like any other, and its remedy is the next one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.world import GOOD, POLICY, RECIPE, World, goal_body, practice_world

ECHOES: list[dict[str, Any]] = [
    {
        "prompt": [{"role": "user", "content": f"speak {i} backwards please"}],
        "completion": [{"role": "assistant", "content": f"speak {i} backwards please"}],
    }
    for i in range(200)
]


RECIPE_OF_ECHOES = f"```yaml\n{RECIPE}data_completion_column: prompt\n```"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with practice_world(tmp_path) as found:
        found.runner.script(GOOD | {"data-01": {"rows": ECHOES}})
        found.start()
        found.wait_ready()
        yield found


def trained(world: World) -> list[str]:
    return [job[-10:] for job in world.runner.launches() if "train" in job]


def test_rows_that_teach_nothing_are_not_trained_on_and_the_next_run_has_others(world: World) -> None:
    issue = world.open_goal(goal_body(Starting_recipe=RECIPE_OF_ECHOES))
    assert world.until_ended(issue) == "met"
    refused = world.first(issue, "job_refused")
    assert (refused["run"], refused["diagnoses"][0]["symptom"]) == (1, "wrong_columns")
    diagnosed = world.first(issue, "diagnosed")
    assert diagnosed["failure"].startswith("Not started, because of what is known before the first step: ")
    assert diagnosed["report"]["diagnoses"][0]["symptom"] == diagnosed["remedy"]["symptom"] == "wrong_columns"
    assert trained(world) == ["train-02-1"]
    # Nothing was reserved for it, so there is nothing to settle.
    launched = [event["data"] for event in world.events(issue) if event["kind"] == "job_launched"]
    assert not any((job["role"], job["run"]) == ("train", 1) for job in launched)
    [pull] = world.pulls()
    assert "Not started, because" in world.reviews(pull["number"])[0]["body"]
    blamed = world.review_comments(pull["number"])[0]
    assert "```suggestion\ndata_completion_column: auto" in blamed["body"]
    run = json.loads(world.file(pull["head"]["ref"], f"{Path(blamed['path']).parent}/runs/01/run.json"))
    assert (run["state"], run["jobs"]["train"]["seconds"]) == ("refused", 0.0)


def test_what_no_remedy_mends_is_left_to_a_person_and_not_tried_in_vain(world: World) -> None:
    issue = world.open_goal()
    assert world.until_ended(issue) == "needs human"
    assert "`wrong_columns` stands in the way" in world.first(issue, "ended")["reason"]
    assert trained(world) == []


@pytest.mark.slow
def test_monitor_that_may_only_advise_refuses_nothing(tmp_path: Path) -> None:
    with practice_world(tmp_path, policy=POLICY + "monitor: advise\n") as world:
        world.runner.script(GOOD | {"data-01": {"rows": ECHOES}})
        world.start()
        world.wait_ready()
        issue = world.open_goal()
        world.until_event(issue, "diagnosed")
        assert "train-01-1" in trained(world)
        assert not any(event["kind"] == "job_refused" for event in world.events(issue))
