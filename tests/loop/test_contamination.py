"""Benchmark items on the way into training: in rows, in rows held out, in a script; and what policy makes of them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.world import GOOD, POLICY, World, goal_body, practice_world

PREPARE = Path(__file__).resolve().parents[2] / "templates" / "scripts" / "prepare.py"


def row(prompt: str, answer: str) -> dict[str, Any]:
    return {"prompt": [{"role": "user", "content": prompt}], "completion": [{"role": "assistant", "content": answer}]}


CLEAN = [row(f"speak {i} backwards please", f"word{i}") for i in range(40)]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with practice_world(tmp_path) as found:
        found.start()
        found.wait_ready()
        yield found


@pytest.mark.slow
def test_items_among_the_rows_held_out_for_validation_are_refused(world: World) -> None:
    leaked = row(*world.dev_item("practice/reverse"))
    world.runner.script(GOOD | {"data-01": {"rows": CLEAN, "validation": [leaked, *CLEAN[:3]]}})
    issue = world.open_goal()
    world.until_event(issue, "refused")
    [body] = world.bot_comments(issue)
    assert "1 of 4 rows held out for validation hold items" in body
    assert "contamination: drop" in body


def test_item_hidden_in_a_pushed_script_stops_the_goal_and_is_named(world: World) -> None:
    world.runner.script(GOOD | {"train-01": {"curve": "flat", "hold": True}, "data-01": {"rows": CLEAN}})
    issue = world.open_goal()
    world.until_event(issue, "run_started")
    prompt, answer = world.dev_item("practice/reverse")
    hidden = base64.b64encode(json.dumps([{"prompt": prompt, "completion": answer}]).encode()).decode()
    folder = world.first(issue, "contract_read")["folder"]
    pull = world.first(issue, "proposed")["pull_request"]
    branch = next(each["head"]["ref"] for each in world.pulls() if each["number"] == pull)
    world.commit(f"{folder}/data/prepare.py", f"{PREPARE.read_text()}\nEXTRA = '{hidden}'\n", branch=branch)
    world.runner.release("train-01")
    world.until_event(issue, "head_read")
    world.comment(pull, "/postdoc run")
    assert world.until_ended(issue) == "needs human"
    checked = [event["data"] for event in world.events(issue) if event["kind"] == "data_checked"][-1]
    [found] = checked["script_findings"]
    assert (found["file"], found["kind"], found["how"]) == ("data/prepare.py", "evaluation item", "base64")
    assert found["line"] == len(PREPARE.read_text().splitlines()) + 2
    said = "\n".join(world.bot_comments(pull))
    assert f"line {found['line']} holds the evaluation item" in said
    assert found["eval_id"] in said
    assert "hidden by base64." in said
    assert prompt not in said + json.dumps(world.events(issue))


def test_policy_that_drops_trains_on_the_other_rows_and_says_so(tmp_path: Path) -> None:
    with practice_world(tmp_path, policy=f"{POLICY}contamination: drop\n") as world:
        world.start()
        world.wait_ready()
        leaked = row(*world.dev_item("practice/reverse"))
        rows = [*CLEAN[:10], leaked, *CLEAN[10:], leaked]
        world.runner.script(GOOD | {"data-01": {"rows": rows, "validation": [leaked, *CLEAN[:3]]}})
        issue = world.open_goal()
        assert world.until_ended(issue) == "met"
        checked = world.first(issue, "data_checked")
        assert (checked["dropped_rows"], checked["dropped_validation_rows"], checked["blocked"]) == (
            [10, 41],
            [0],
            None,
        )
        for job in world.runner.root.glob("*-train-*/work"):
            assert [json.loads(line) for line in (job / "data" / "train.jsonl").read_text().splitlines()] == CLEAN
            assert (job / "data" / "validation.jsonl").read_text().count("\n") == 3
        pull = world.first(issue, "proposed")["pull_request"]
        head = next(each for each in world.pulls() if each["number"] == pull)
        card = world.file(head["head"]["ref"], f"{world.first(issue, 'contract_read')['folder']}/data/README.md")
        assert "Those 2 rows were dropped and are not trained on." in card
        assert "2 rows of 42 rows sharing text with evaluation items left out" in head["body"]


@pytest.mark.slow
def test_policy_that_drops_refuses_when_nothing_would_be_left(tmp_path: Path) -> None:
    with practice_world(tmp_path, policy=f"{POLICY}contamination: drop\n") as world:
        world.start()
        world.wait_ready()
        world.runner.script(GOOD | {"data-01": {"rows": [row(*world.dev_item("practice/reverse"))] * 3}})
        issue = world.open_goal(goal_body())
        world.until_event(issue, "refused")
        [body] = world.bot_comments(issue)
        assert "Nothing would be left without them" in body
