"""A lost database: a goal comes back from GitHub and goes on to the same end, and nobody forges what comes back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bot.loop.record import Record, seal_key
from bot.practice.auth import new_key_pair
from tests.loop.test_recovery import difference, pursue, seen
from tests.world import GOOD, REPOSITORY, World, goal_body, practice_world

HELD = GOOD | {"train-01": {"curve": "flat", "hold": True}}
RECORD = "experiments/0001-reverse/journal.jsonl"
FEW_POINTS = (
    "performed propose|performed launch:train/1|reviews in review:1|recorded revise|check-runs in conclude"
    "|issues/2/comments in conclude"
)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_database_lost_at_several_points_of_one_pursuit(tmp_path: Path) -> None:
    assert compare(tmp_path, FEW_POINTS) == 6


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_database_lost_before_and_after_every_action_and_write(tmp_path: Path) -> None:
    assert compare(tmp_path, "") > 40


def compare(folder: Path, points: str) -> int:
    """Lose the database at each point; returns at how many, having compared all that people can see."""
    with practice_world(folder / "undisturbed") as world:
        assert pursue(world) == 0
        expected = seen(world, 1)
    with practice_world(folder / "lost", deaths=folder / "deaths") as world:
        world.environment["POSTDOC_TEST_DEATHS_AT"] = points
        deaths = pursue(world, lose_database=True)
        found = seen(world, 1)
    for what in expected:
        assert found[what] == expected[what], f"{what}:\n" + "\n".join(difference(expected[what], found[what]))
    assert len(set(found["launches"])) == len(found["launches"])
    return deaths


@pytest.fixture
def held(tmp_path: Path) -> Iterator[tuple[World, int, int]]:
    """(world, issue, pull request), the first run training until it is released."""
    with practice_world(tmp_path) as world:
        world.runner.script(HELD)
        world.start()
        world.wait_ready(60)
        issue = world.open_goal()
        world.until_job("train-01")
        world.until_event(issue, "job_launched", 3)
        yield world, issue, world.pulls()[0]["number"]


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[tuple[World, int, int]]:
    """(world, issue, pull request), waiting for somebody to agree."""
    with practice_world(tmp_path, policy=None) as world:
        world.start()
        world.wait_ready(60)
        issue = world.open_goal()
        world.until_event(issue, "consent_asked")
        yield world, issue, world.pulls()[0]["number"]


def lose(world: World) -> None:
    world.kill()
    world.lose_database()


def come_back(world: World, issue: int) -> None:
    world.start()
    world.wait_ready(60)
    world.until(lambda: world.events(issue), "the goal's return", 60)


def said(world: World, *numbers: int) -> list[tuple[int, str, str]]:
    """(id, time of the latest edit, text) of all that the bot has said."""
    found = [c for number in numbers for c in world.comments(number) if c["user"]["login"] == "postdoc[bot]"]
    return [(c["id"], c["updated_at"], c["body"]) for c in found]


def kinds(world: World, issue: int) -> list[str]:
    return [event["kind"] for event in world.events(issue)]


def trained(world: World) -> list[str]:
    return [job for job in world.runner.launches() if "train" in job]


def test_running_job_is_found_again_and_a_stop_written_meanwhile_ends_it(held: tuple[World, int, int]) -> None:
    world, issue, pull = held
    before = world.events(issue)
    lose(world)
    world.forge.set_webhook(world.app_id, "http://127.0.0.1:9/webhook")  # the comment's delivery is lost as well
    world.comment(pull, "/postdoc stop")
    come_back(world, issue)
    assert world.until_ended(issue, 60) == "stopped"
    assert len(trained(world)) == 1
    status = world.runner.status(trained(world)[0])  # type: ignore[arg-type]
    assert status is not None
    assert status.state == "cancelled"
    # What was before is again what it was, place by place.
    restored = world.events(issue)[: len(before)]
    assert [(e["seq"], e["kind"], e["key"]) for e in restored] == [(e["seq"], e["kind"], e["key"]) for e in before]
    checks = world.api("ada", "GET", f"/repos/{REPOSITORY}/commits/{head_of_run(world, issue)}/check-runs")
    assert [check["status"] for check in checks["check_runs"] if check["name"] != "Postdoc policy"] == ["completed"]


def test_consent_given_while_the_database_was_lost_is_heard(asking: tuple[World, int, int]) -> None:
    world, issue, pull = asking
    asked, comments = world.first(issue, "consent_asked")["head_sha"], len(world.bot_comments(pull))
    world.comment(pull, f"/postdoc run {asked[:12]}", login="mallory")
    world.until_event(issue, "command_answered")
    lose(world)
    world.comment(pull, f"/postdoc run {asked[:12]}", login="bob")
    come_back(world, issue)
    assert world.until_ended(issue, 60) == "met"
    consents = [event["data"]["by"] for event in world.events(issue) if event["kind"] == "consented"]
    assert consents == ["bob"]
    keys = [body.splitlines()[0] for body in world.bot_comments(pull)]
    assert len(keys) == len(set(keys)) == comments + 1  # and the ending


@pytest.mark.slow
def test_goal_that_had_ended_comes_back_without_a_word(held: tuple[World, int, int]) -> None:
    world, issue, pull = held
    world.runner.release("train-01")
    assert world.until_ended(issue, 60) == "met"
    world.api("ada", "PUT", f"/repos/{REPOSITORY}/pulls/{pull}/merge", json={})
    world.until_event(issue, "issue_closed")
    before, told, commits = kinds(world, issue), said(world, issue, pull), world.pulls()[0]["head"]["sha"]
    lose(world)
    come_back(world, issue)
    world.until(lambda: "issue_closed" in kinds(world, issue), "the end of the rebuild")
    assert kinds(world, issue) == before
    assert world.state(issue) == "met"
    assert said(world, issue, pull) == told
    assert world.pulls()[0]["head"]["sha"] == commits


def test_forged_record_is_refused_and_its_consent_not_obeyed(asking: tuple[World, int, int]) -> None:
    world, issue, _ = asking
    branch = world.pulls()[0]["head"]["ref"]
    genuine = world.file(branch, RECORD)
    lines = genuine.splitlines()
    envelope = {"goal_hash": world.first(issue, "contract_read")["goal"], "ceilings": {}, "keys": []}
    consent = {"seq": len(lines) - 1, "kind": "consented", "key": "consent/9", "at": 1.0,
               "data": {"by": "ada", "head_sha": "0" * 40, "envelope": envelope}}  # fmt: skip
    world.kill()
    forged = "\n".join([*lines[:-1], json.dumps(consent), lines[-1]]) + "\n"
    world.commit(RECORD, forged, branch=branch, login="bob")
    world.lose_database()
    come_back(world, issue)
    world.until_event(issue, "head_read")
    assert "is refused: its seal does not fit" in world.log()
    assert "consented" not in kinds(world, issue)
    assert trained(world) == []
    assert kinds(world, issue)[:5] == [json.loads(line)["kind"] for line in lines[:5]]


def test_record_of_another_app_or_goal_is_refused(asking: tuple[World, int, int]) -> None:
    world, issue, _ = asking
    branch = world.pulls()[0]["head"]["ref"]
    genuine = world.file(branch, RECORD).encode()
    goal = f"{REPOSITORY}#{issue}"
    ours = Record(None, [seal_key(world.environment["POSTDOC_PRIVATE_KEY"])])  # type: ignore[arg-type]
    theirs = Record(None, [seal_key(new_key_pair()[0])])  # type: ignore[arg-type]
    events = ours.read(goal, genuine)  # type: ignore[arg-type]
    world.kill()
    world.commit(RECORD, theirs.sealed(goal, events).decode(), branch=branch, login="bob")  # type: ignore[arg-type]
    world.commit(RECORD, ours.sealed("acme/speller#99", events).decode(), branch=branch, login="bob")  # type: ignore[arg-type]
    world.lose_database()
    come_back(world, issue)
    world.until_event(issue, "consent_asked")
    assert "made with another private key" in world.log()
    assert "the record of another goal" in world.log()
    assert f"is back: {len(events)} events" in world.log()


@pytest.mark.slow
def test_older_record_that_is_put_back_does_not_undo_what_came_after(held: tuple[World, int, int]) -> None:
    world, issue, pull = held
    branch = world.pulls()[0]["head"]["ref"]
    older = world.file(branch, RECORD)
    first = world.pulls()[0]["head"]["sha"]
    world.comment(pull, "/postdoc stop")
    assert world.until_ended(issue, 60) == "stopped"
    before = kinds(world, issue)
    world.kill()
    world.commit(RECORD, older, branch=branch, login="bob")
    world.lose_database()
    come_back(world, issue)
    world.until_event(issue, "ended")
    assert kinds(world, issue)[: len(before)] == before
    assert world.state(issue) == "stopped"
    # The same by force: the branch is moved back to where it was before the stop.
    world.until_event(issue, "head_read")
    world.kill()
    world.api("ada", "PATCH", f"/repos/{REPOSITORY}/git/refs/heads/{branch}", json={"sha": first, "force": True})
    world.lose_database()
    come_back(world, issue)
    world.until_ended(issue, 60)
    assert len(trained(world)) == 1
    endings = [body for body in world.bot_comments(pull) if "/ending/" in body.splitlines()[0]]
    assert len(endings) == 1


@pytest.mark.slow
def test_halt_outlives_the_database(held: tuple[World, int, int]) -> None:
    world, issue, pull = held
    world.comment(pull, "/postdoc halt", login="ada")
    world.until_event(issue, "command_answered")
    world.until_ended(issue, 60)
    lose(world)
    world.comment(pull, "/postdoc halt off", login="mallory")
    come_back(world, issue)
    world.until_event(issue, "ended")
    world.comment(pull, "/postdoc resume", login="ada")
    world.until(lambda: kinds(world, issue).count("command_answered") == 3, "an answer to resume")
    assert "all spending in acme/speller is halted again: @ada said so" in world.log()
    assert len(trained(world)) == 1


@pytest.mark.slow
def test_goal_without_a_pull_request_is_opened_again_from_its_issue(tmp_path: Path) -> None:
    with practice_world(tmp_path) as world:
        world.runner.script(GOOD | {"baseline-00": {"value": 0.0, "hold": True}})
        world.start()
        world.wait_ready(60)
        payload = {"title": "Mine", "body": goal_body()}
        issue = int(world.api("mallory", "POST", f"/repos/{REPOSITORY}/issues", json=payload)["number"])
        world.api("ada", "POST", f"/repos/{REPOSITORY}/issues/{issue}/labels", json={"labels": ["postdoc"]})
        world.until_job("baseline")
        told = [(number, body) for number, _, body in said(world, issue)]
        lose(world)
        come_back(world, issue)
        assert world.first(issue, "goal_opened")["author"] == "ada"
        world.runner.release("baseline-00")
        assert world.until_ended(issue, 60) == "met"
        assert [(number, body) for number, _, body in said(world, issue)] == told
        assert len(set(world.runner.launches())) == len(world.runner.launches())


def test_what_the_record_says_to_the_public(held: tuple[World, int, int]) -> None:
    """Nothing of this machine, no item of the benchmark, folded in a diff, and small."""
    world, issue, _ = held
    world.runner.release("train-01")
    world.until_ended(issue, 60)
    branch = world.pulls()[0]["head"]["ref"]
    found = world.file(branch, RECORD)
    for private in (str(world.folder), str(Path.home()), world.environment["POSTDOC_WEBHOOK_SECRET"]):
        assert private not in found
    prompt, _reference = world.dev_item("practice/reverse")
    assert prompt not in found
    assert len(found) < 30_000
    attributes = world.file(branch, RECORD.replace("journal.jsonl", ".gitattributes"))
    assert {"journal.jsonl linguist-generated", "data/columns/** linguist-generated"} <= set(attributes.splitlines())


def head_of_run(world: World, issue: int) -> Any:
    return world.first(issue, "run_started")["head_sha"]
