"""No delivery ever arrives, or it arrives late, or twice: the timer alone tells what happened, and tells it once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.world import GOOD, REPOSITORY, World, goal_body, practice_world

HELD = GOOD | {"train-01": {"curve": "flat", "hold": True}}
NOWHERE = "http://127.0.0.1:9/webhook"


@pytest.fixture
def deaf(tmp_path: Path) -> Iterator[World]:
    """A world whose webhooks lead nowhere, and whose bot looks twice a second."""
    with practice_world(tmp_path) as world:
        world.environment["POSTDOC_RECONCILE_SECONDS"] = "0.5"
        world.forge.set_webhook(world.app_id, NOWHERE)
        world.runner.script(HELD)
        world.start()
        world.wait_ready(60)
        yield world


def training(world: World) -> tuple[int, int]:
    """(issue, pull request) of a goal whose first run trains until it is released."""
    issue = world.open_goal()
    world.until_job("train-01")
    return issue, world.pulls()[0]["number"]


def kinds(world: World, issue: int) -> list[str]:
    return [event["kind"] for event in world.events(issue)]


def commands(world: World, issue: int) -> list[dict[str, Any]]:
    return [event["data"] for event in world.events(issue) if event["kind"] == "command"]


def test_goal_comment_and_push_without_any_delivery(deaf: World) -> None:
    issue, pull = training(deaf)
    assert deaf.first(issue, "goal_opened")["author"] == "ada"
    deaf.comment(pull, "/postdoc status")
    deaf.until_event(issue, "command_answered")
    branch = deaf.pulls()[0]["head"]["ref"]
    recipe = deaf.file(branch, "experiments/0001-reverse/recipe.yaml")
    path = "experiments/0001-reverse/recipe.yaml"
    pushed = deaf.commit(path, recipe.replace("num_train_epochs: 1", "num_train_epochs: 2"), branch=branch, login="bob")
    moved = deaf.until_event(issue, "head_moved")["data"]
    assert (moved["head_sha"], moved["by"]) == (pushed, "bob")
    deaf.comment(pull, "/postdoc stop")
    assert deaf.until_ended(issue) == "stopped"
    assert [c["verb"] for c in commands(deaf, issue)] == ["status", "stop"]


def test_edit_and_closing_without_any_delivery(deaf: World) -> None:
    issue = deaf.open_goal(goal_body(Target="140 %"))
    deaf.until_event(issue, "contract_read")
    deaf.api("ada", "PATCH", f"/repos/{REPOSITORY}/issues/{issue}", json={"body": goal_body()})
    deaf.until_job("train-01")
    pull = deaf.pulls()[0]["number"]
    deaf.api("bob", "PATCH", f"/repos/{REPOSITORY}/pulls/{pull}", json={"state": "closed"})
    assert deaf.until_ended(issue) == "closed"
    assert deaf.first(issue, "pull_request_closed")["by"] == "bob"
    deaf.api("bob", "PATCH", f"/repos/{REPOSITORY}/pulls/{pull}", json={"state": "open"})
    deaf.until_event(issue, "pull_request_reopened")
    assert len(deaf.bot_comments(issue)) == 1


def test_what_the_timer_told_is_not_told_again_by_late_deliveries(deaf: World) -> None:
    issue, pull = training(deaf)
    deaf.comment(pull, "/postdoc status")
    deaf.until_event(issue, "command_answered")
    deaf.comment(pull, "/postdoc stop")
    assert deaf.until_ended(issue) == "stopped"
    told = kinds(deaf, issue)
    deaf.stop()
    deaf.forge.set_webhook(deaf.app_id, f"{deaf.bot_url}/webhook")
    deaf.start()  # asks for everything that was never delivered
    deaf.wait_ready(60)
    deaf.until(lambda: "asked again for" in deaf.log(), "the late deliveries")
    assert deaf.forge.settle()
    deaf.comment(pull, "/postdoc help")
    deaf.until_event(issue, "command_answered", 3)
    assert kinds(deaf, issue) == [*told, "command", "command_answered"]


@pytest.mark.slow
def test_what_deliveries_told_is_not_told_again_by_the_timer(tmp_path: Path) -> None:
    with practice_world(tmp_path) as world:
        world.environment["POSTDOC_RECONCILE_SECONDS"] = "0.5"
        world.start()
        world.wait_ready(60)
        issue = world.open_goal()
        world.until_ended(issue, 60)
        pull = world.pulls()[0]["number"]
        world.comment(pull, "/postdoc status\n/postdoc help")
        world.until_event(issue, "command_answered", 2)
        told = world.events(issue)
        seen = world.api("ada", "GET", f"/repos/{REPOSITORY}/issues/{pull}")["updated_at"]
        time.sleep(6)  # a dozen passes, two of them close
        assert world.events(issue) == told
        assert world.api("ada", "GET", f"/repos/{REPOSITORY}/issues/{pull}")["updated_at"] == seen


def test_comment_that_somebody_else_changed_speaks_for_nobody(deaf: World) -> None:
    issue, pull = training(deaf)
    deaf.stop()
    mine = deaf.comment(pull, "I like this.", login="ada")
    deaf.api("bob", "PATCH", f"/repos/{REPOSITORY}/issues/comments/{mine}", json={"body": "/postdoc stop"})
    own = deaf.comment(pull, "Hm.", login="bob")
    deaf.api("bob", "PATCH", f"/repos/{REPOSITORY}/issues/comments/{own}", json={"body": "/postdoc status"})
    deaf.start()
    deaf.wait_ready(60)
    deaf.until_event(issue, "command_answered")
    assert [(c["verb"], c["author"]) for c in commands(deaf, issue)] == [("status", "bob")]
    assert "others changed" in deaf.log()


def test_box_that_stops_is_honoured_whoever_ticked_it(deaf: World) -> None:
    issue, pull = training(deaf)
    sticky = next(c for c in deaf.comments(pull) if "postdoc:box stop" in c["body"])
    body = sticky["body"].replace("- [ ] Stop", "- [x] Stop")
    assert body != sticky["body"]
    deaf.api("bob", "PATCH", f"/repos/{REPOSITORY}/issues/comments/{sticky['id']}", json={"body": body})
    assert deaf.until_ended(issue) == "stopped"
    after = next(c for c in deaf.comments(pull) if c["id"] == sticky["id"])
    assert "[x]" not in after["body"]


def test_closing_the_issue_of_a_goal_under_way_stops_it(deaf: World) -> None:
    issue, _ = training(deaf)
    deaf.api("bob", "PATCH", f"/repos/{REPOSITORY}/issues/{issue}", json={"state": "closed"})
    assert deaf.until_ended(issue) == "stopped"
    [stop] = commands(deaf, issue)
    assert (stop["verb"], stop["author"]) == ("stop", "bob")
    assert not running(deaf)


def test_deleted_issue_ends_its_goal_and_says_why_on_the_pull_request(deaf: World) -> None:
    issue, pull = training(deaf)
    with deaf.forge.lock:
        del deaf.forge.repository(REPOSITORY).issues[issue]
    assert deaf.until_ended(issue) == "needs human"
    assert "the issue was deleted" in deaf.bot_comments(pull)[-1]
    assert not running(deaf)


def test_uninstalled_app_ends_its_jobs_and_says_why(deaf: World) -> None:
    issue, _ = training(deaf)
    deaf.forge.uninstall_app(deaf.first(issue, "goal_opened")["installation_id"])
    assert deaf.until_ended(issue) == "needs human"
    [ended] = [event["data"] for event in deaf.events(issue) if event["kind"] == "ended"]
    assert ended["reason"] == "the App was uninstalled"
    assert not running(deaf)


def test_job_that_its_goal_has_not_asked_for_is_ended_and_a_stranger_left_alone(deaf: World) -> None:
    training(deaf)
    deaf.runner.script(HELD | {"train-07": {"curve": "flat", "hold": True}})
    [known] = running(deaf)
    lost, stranger = known.replace("train-01-1", "train-07-1"), "other-9-abcdef-012345-train-07-1"
    for job_id in (lost, stranger):
        copy_job(deaf, known, job_id)
    assert sorted(running(deaf)) == sorted([known, lost, stranger])
    deaf.until(lambda: lost not in running(deaf), "the end of the job that nobody asked for", 60)
    assert sorted(running(deaf)) == sorted([known, stranger])
    assert f"job {stranger} runs and is of no goal known here" in deaf.log()


def running(world: World) -> list[str]:
    statuses = {job: world.runner.status(job) for job in world.runner.jobs()}
    return [job for job, status in statuses.items() if status is not None and not status.state.ended]


def copy_job(world: World, source: str, target: str) -> None:
    status = (world.runner.root / source / "status.json").read_text().replace(source, target)
    (world.runner.root / target).mkdir()
    (world.runner.root / target / "status.json").write_text(status)


def test_closing_the_issue_is_heard_at_once_where_its_delivery_arrives(tmp_path: Path) -> None:
    with practice_world(tmp_path) as world:
        world.runner.script(HELD)
        world.start()
        world.wait_ready(60)
        issue, _ = training(world)
        world.api("bob", "PATCH", f"/repos/{REPOSITORY}/issues/{issue}", json={"state": "closed"})
        assert world.until_ended(issue) == "stopped"
        assert [(c["verb"], c["author"]) for c in commands(world, issue)] == [("stop", "bob")]
