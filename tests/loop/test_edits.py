"""An issue that is edited: read again before the pull request, compared and offered after it, over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.world import GOOD, REPOSITORY, World, goal_body, practice_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with practice_world(tmp_path_factory.mktemp("edits")) as found:
        found.start()
        found.wait_ready()
        yield found


def edit(world: World, issue: int, login: str = "ada", **fields: str) -> None:
    world.api(login, "PATCH", f"/repos/{REPOSITORY}/issues/{issue}", json=fields)


def read(world: World, issue: int, count: int) -> dict[str, Any]:
    return dict(world.until_event(issue, "goal_read", count)["data"])


def kinds(world: World, issue: int) -> list[str]:
    return [event["kind"] for event in world.events(issue)]


def test_edit_of_an_agreed_goal_is_offered_as_a_difference_and_disturbs_no_job(world: World) -> None:
    world.runner.script(GOOD | {"train-01": {"curve": "flat", "hold": True}})
    issue = world.open_goal()
    world.until_job("train-01")
    agreed = world.bot_comments(issue)[0]
    jobs = world.runner.launches()

    # What means the same is not mentioned: a title, spaces, a comment in the recipe, a remark.
    edit(world, issue, title="Another title")
    assert read(world, issue, 1)["told"] == ""
    body = goal_body().replace("max_length: 128", "max_length:   128   # enough") + "\n\n### Notes\n\nThank you!\n"
    edit(world, issue, body=body)
    assert read(world, issue, 2)["offer"] is None
    assert world.bot_comments(issue) == [agreed]

    edit(world, issue, login="bob", body=goal_body(Target="80 %", Budget_in_runs="5"))
    offer = read(world, issue, 3)["offer"]
    [shown] = world.bot_comments(issue)
    assert "| Target | 90 % | 80 % |" in shown
    assert "| Budget | 4 runs, " in shown
    assert "| 5 runs, " in shown
    assert "| Base model |" in shown.split("now says something else")[0]
    assert "| Base model |" not in shown.split("now says something else")[1]
    assert f"(hash `{offer['hash']}`), somebody with `write` permission comments `/postdoc accept goal`" in shown
    assert "@bob" not in shown
    assert "What has been measured still counts." in shown

    edit(world, issue, body=goal_body(Target="0 %", Base_model="nobody/nothing"))
    assert read(world, issue, 4)["offer"] is None
    assert "I cannot act on it as it now stands" in world.bot_comments(issue)[0]
    edit(world, issue, body=goal_body(Benchmark="practice/upper"))
    assert read(world, issue, 5)["offer"]["goal"]["benchmark"] == "practice/upper"
    assert "earlier runs no longer count" in world.bot_comments(issue)[0]
    edit(world, issue, body=goal_body())
    assert read(world, issue, 6)["told"] == ""
    assert "now says something else" not in world.bot_comments(issue)[0]
    assert world.runner.launches() == jobs

    world.runner.release("train-01")
    assert world.until_ended(issue) == "met"
    edit(world, issue, body=goal_body() + "\n")
    assert read(world, issue, 7)["told"] == ""
    edit(world, issue, body=goal_body(Target="99 %"))
    assert read(world, issue, 8)["told"] == "ended"
    [shown] = world.bot_comments(issue)
    assert "this goal has ended** (met)" in shown
    assert kinds(world, issue).count("contract_read") == 1
    assert world.state(issue) == "met"


def test_many_edits_at_once_are_read_as_their_last(world: World) -> None:
    world.runner.script(GOOD | {"train-01": {"curve": "flat", "hold": True}})
    issue = world.open_goal()
    world.until_event(issue, "run_started")
    world.process.send_signal(19)  # SIGSTOP: they all wait together, as after an outage
    try:
        for n in range(10):
            edit(world, issue, body=goal_body(Target=f"{70 + n} %"))
    finally:
        world.process.send_signal(18)
    world.until_event(issue, "goal_edited", 10)
    world.until(lambda: "| Target | 90 % | 79 % |" in world.bot_comments(issue)[0], "the last edit's offer")
    # How many come between two readings is the machine's pace; what counts is that not each is read for itself.
    assert kinds(world, issue).count("goal_read") < 10
    world.comment(issue, "/postdoc stop")
    world.until_ended(issue)


def test_edit_by_somebody_without_permission_moves_nothing(world: World) -> None:
    world.runner.script(GOOD | {"baseline-00": {"value": 0.0, "hold": True}})
    payload = {"title": "Mine", "body": goal_body()}
    issue = int(world.api("mallory", "POST", f"/repos/{REPOSITORY}/issues", json=payload)["number"])
    world.api("ada", "POST", f"/repos/{REPOSITORY}/issues/{issue}/labels", json={"labels": ["postdoc"]})
    world.until_event(issue, "job_launched")
    goal = world.first(issue, "contract_read")["goal"]

    edit(world, issue, login="mallory", body=goal_body(Target="5 %"))
    assert read(world, issue, 1)["by"] == "mallory"
    assert kinds(world, issue).count("contract_read") == 1
    assert "has `read` permission here, which is not enough" in world.bot_comments(issue)[-1]
    edit(world, issue, login="mallory", body=goal_body(Target="6 %"))
    read(world, issue, 2)
    assert len(world.bot_comments(issue)) == 2

    # A word of somebody who may: the goal is read again as it stands.
    edit(world, issue, login="bob", body=goal_body(Target="85 %"))
    assert world.until_event(issue, "contract_read", 2)["data"]["goal"]["target"] == 0.85
    assert goal["target"] == 0.9
    world.runner.release("baseline-00")
    world.until_event(issue, "run_started")
    edit(world, issue, login="mallory", body=goal_body(Target="7 %"))
    assert read(world, issue, 3)["offer"] is None
    assert "7 %" not in "".join(world.bot_comments(issue))
    world.until_ended(issue)


def test_goal_that_is_read_again_before_its_pull_request_goes_on(world: World) -> None:
    world.runner.script(GOOD)
    world.commit("bare/rows.jsonl", '{"prompt": "a", "completion": "b"}\n')
    issue = world.open_goal(goal_body(Training_data="bare/rows.jsonl"))
    world.until_event(issue, "refused")
    world.commit("bare/README.md", "---\nlicense: mit\n---\n")
    # The same baseline and the same rows are looked at again, now with a card.
    edit(world, issue, body=goal_body(Training_data="bare/rows.jsonl") + "\n\n### Notes\n\nIt has a card now.\n")
    assert world.until_ended(issue) == "met"
    assert kinds(world, issue).count("baseline_recorded") == 2
    assert sum("baseline" in job for job in world.runner.launches() if f"-{issue}-" in job) == 1
