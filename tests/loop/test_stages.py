"""Several methods one after the other, and what is tried after a run, through the real loop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.world import GOOD, World, goal_body, practice_world

STAGED: dict[str, dict[str, Any]] = {
    "baseline-00": {"value": 0.0},
    "train-01": {"curve": "good"},
    "evaluate-01": {"value": 0.40},
    "train-02": {"curve": "good"},
    "evaluate-02": {"value": 0.97},
    "confirm-02": {"value": 0.96},
}


def spec(world: World, name: str) -> dict[str, object]:
    [path] = list(world.runner.root.glob(f"*{name}*/spec.json"))
    return dict(json.loads(path.read_text()))


def test_next_stage_is_one_commit_and_trains_from_the_run_before(world: World) -> None:
    world.runner.script(STAGED)
    issue = world.open_goal(goal_body(Method="sft then sft"))
    assert world.until_ended(issue) == "met"
    first, second = [event["data"] for event in world.events(issue) if event["kind"] == "run_started"]
    revised = world.first(issue, "revised")
    assert revised["stage"]["index"] == 1
    assert revised["by"] == "postdoc"
    values = yaml.safe_load(revised["recipe"])
    assert (values["init_from"], values["method"]) == ("runs/01", "sft")
    assert values["data_sources"] == "data/train.jsonl"  # the data and the seed go on, the rest is a new start
    assert first["head_sha"] != second["head_sha"]
    [before], [after] = ([spec(world, f"train-0{n}")["mounts"]] for n in (1, 2))
    assert str(after["init"]).endswith("train-01-1/work/out/model")  # type: ignore[index]
    assert before != after
    assert spec(world, "train-02")["trusted"] is True
    [review, _] = world.reviews(world.pulls()[0]["number"])
    assert "train by `sft`, from `runs/01`" in review["body"]
    assert "stage 2 of 2" in review["body"]
    kinds = [event["kind"] for event in world.events(issue)]
    assert "consent_asked" not in kinds  # the goal names its stages, so agreeing to it was agreeing to them


def test_earlier_run_that_is_not_there_is_refused_with_what_to_write(world: World) -> None:
    world.runner.script(GOOD | {"train-02": {"curve": "good", "hold": True}})
    issue = world.open_goal()
    world.until_event(issue, "run_started", 2)
    pull = world.pulls()[0]["number"]
    world.comment(pull, "/postdoc set init_from=runs/07")
    answer = world.until_event(issue, "command_answered")["data"]["reply"]
    assert "`init_from: runs/07` names a run that left no model: write one of runs/01" in answer
    world.runner.release("train-02")
    assert world.until_ended(issue) == "met"


@pytest.mark.slow
def test_search_that_is_switched_off_is_one_run(tmp_path: Path) -> None:
    with practice_world(tmp_path) as world:
        world.environment["POSTDOC_SEARCH"] = "none"
        world.start()
        world.wait_ready()
        issue = world.open_goal()
        assert world.until_ended(issue) == "needs human"
        assert "one run was asked for" in world.bot_comments(world.pulls()[0]["number"])[-1]
