"""What people do on the pull request while a goal is pursued: commands, pushes, accepted suggestions, closing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.world import GOOD, REPOSITORY, World, practice_world

HELD = GOOD | {"train-01": {"curve": "flat", "hold": True}}


@pytest.fixture
def held(world: World) -> tuple[World, int, int]:
    """A world whose first run trains until it is released: (world, issue, pull request)."""
    return training(world)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, int, int]]:
    """The same, for commands that change nothing: all of them are asked of one goal."""
    with practice_world(tmp_path_factory.mktemp("asked")) as world:
        world.start()
        world.wait_ready()
        yield training(world)


def training(world: World) -> tuple[World, int, int]:
    world.runner.script(HELD)
    issue = world.open_goal()
    world.until_job("train-01")
    return world, issue, world.pulls()[0]["number"]


def answered(world: World, issue: int) -> int:
    return [event["kind"] for event in world.events(issue)].count("command_answered")


def reply_to(world: World, pull: int, command: str, issue: int, *, login: str = "ada") -> str:
    """Write a command and return the answer: it stands in the sticky comment, and no new comment was made for it."""
    before, had = len(world.bot_comments(pull)), answered(world, issue)
    world.comment(pull, command, login=login)
    world.until_event(issue, "command_answered", had + 1)
    reply = str([event for event in world.events(issue) if event["kind"] == "command_answered"][-1]["data"]["reply"])
    world.until(lambda: any("/sticky" in body and reply in body for body in world.bot_comments(pull)), "the answer")
    assert len(world.bot_comments(pull)) == before
    return reply


def test_help_lists_what_is_there(asked: tuple[World, int, int]) -> None:
    world, issue, pull = asked
    body = reply_to(world, pull, "/postdoc help", issue)
    for verb in ("status", "stop", "resume", "set", "run", "accept"):
        assert f"/postdoc {verb}" in body


def test_status_while_training_says_so(asked: tuple[World, int, int]) -> None:
    world, issue, pull = asked
    assert "as of now" in reply_to(world, pull, "/postdoc status", issue)
    sticky = next(body for body in world.bot_comments(pull) if "/sticky" in body)
    assert "0.0 %" in sticky


def test_status_on_the_issue_is_answered_in_one_comment_there(asked: tuple[World, int, int]) -> None:
    world, issue, pull = asked
    for _ in range(2):
        had = answered(world, issue)
        world.comment(issue, "/postdoc status")
        world.until_event(issue, "command_answered", had + 1)
    world.until(lambda: len(world.bot_comments(issue)) == 2, "one comment beside the contract")
    found = world.bot_comments(issue)[-1]
    assert f"The pull request is #{pull}." in found
    assert "0.0 %" in found


def test_unknown_command_is_answered_with_the_nearest(asked: tuple[World, int, int]) -> None:
    world, issue, pull = asked
    assert "status" in reply_to(world, pull, "/postdoc statsu", issue)


def test_reader_may_ask_but_not_spend_or_stop(asked: tuple[World, int, int]) -> None:
    world, issue, pull = asked
    assert "mallory" in reply_to(world, pull, "/postdoc stop", issue, login="mallory")
    assert world.state(issue) == "training"
    assert "/postdoc stop" in reply_to(world, pull, "/postdoc help", issue, login="mallory")


def test_stop_ends_the_job_and_resume_goes_on(held: tuple[World, int, int]) -> None:
    world, issue, pull = held
    world.comment(pull, "/postdoc stop")
    assert world.until_ended(issue) == "stopped"
    job = next(job for job in world.runner.launches() if "train-01" in job)
    status = world.runner.status(job)  # type: ignore[arg-type]
    assert status is not None
    assert status.state == "cancelled"
    world.runner.release("train-01")
    world.comment(pull, "/postdoc resume")
    world.until_event(issue, "ended", 2)
    assert world.state(issue) == "met"
    assert [job[-4:] for job in world.runner.launches() if "train-01" in job] == ["01-1", "01-2"]


def test_set_is_committed_and_the_next_run_uses_it(held: tuple[World, int, int]) -> None:
    world, issue, pull = held
    body = reply_to(world, pull, "/postdoc set learning_rate=1e-3 max_length=64", issue)
    assert "`learning_rate` `2e-05` → `0.001`" in body
    world.runner.release("train-01")
    world.until_event(issue, "run_started", 2)
    second = [event["data"] for event in world.events(issue) if event["kind"] == "run_started"][1]
    assert second["changed"] == {"learning_rate": [2e-05, 0.001], "max_length": [128, 64]}
    assert "max_length: 64" in world.file(second["head_sha"], "experiments/0001-reverse/recipe.yaml")
    world.until_ended(issue)


@pytest.mark.parametrize("setting", ["output_dir=/etc", "push_to_hub=true", "learning_rate=fast", "a b", ""])
def test_set_of_what_must_not_be_set_is_refused(asked: tuple[World, int, int], setting: str) -> None:
    world, issue, pull = asked
    assert "Not carried out" in reply_to(world, pull, f"/postdoc set {setting}", issue)
    assert not any(event["kind"] == "revised" for event in world.events(issue))


def test_commands_in_quotes_code_and_edits_run_once(held: tuple[World, int, int]) -> None:
    world, issue, pull = held
    number = world.comment(pull, "> /postdoc stop\n\n```\n/postdoc stop\n```\n\n/postdoc status")
    world.until_event(issue, "command_answered")
    path = f"/repos/{REPOSITORY}/issues/comments/{number}"
    world.api("ada", "PATCH", path, json={"body": "A better wording\n\n/postdoc status\n\n/postdoc help"})
    world.until_event(issue, "command_answered", 2)
    verbs = [event["data"]["verb"] for event in world.events(issue) if event["kind"] == "command"]
    assert verbs == ["status", "help"]


def test_ticked_stop_box_is_the_command_of_who_ticked_it(held: tuple[World, int, int]) -> None:
    world, issue, pull = held
    sticky = next(comment for comment in world.comments(pull) if "/sticky" in comment["body"])
    body = sticky["body"].replace("- [ ] Stop", "- [x] Stop")
    world.api("bob", "PATCH", f"/repos/{REPOSITORY}/issues/comments/{sticky['id']}", json={"body": body})
    assert world.until_ended(issue) == "stopped"
    assert "bob asked to stop" in world.bot_comments(pull)[-1]


def test_accepted_suggestion_is_the_persons_commit_and_the_next_recipe(tmp_path: Path) -> None:
    script = GOOD | {"probe-01": {"suggested": 3e-3, "hold": False}}
    policy = "consent:\n  auto_approve:\n    runs: 6\n    gpu_hours: 2\n    recipe_keys: [max_length]\n"
    with practice_world(tmp_path, policy=policy) as world:
        world.runner.script(script)
        world.start()
        world.wait_ready()
        issue = world.open_goal()
        world.until_event(issue, "consent_asked")  # the remedy's key was not part of what the policy grants
        pull = world.pulls()[0]
        [comment] = world.review_comments(pull["number"])
        world.forge.accept_suggestion(comment["id"], "bob")
        assert world.until_ended(issue) == "met"
        read = world.first(issue, "head_read")
        assert read["changed"] == {"learning_rate": [2e-05, 0.003]}
        assert world.branch_log(pull["head"]["ref"])[1].startswith("bob: ")


def test_accept_by_command_commits_the_remedy(tmp_path: Path) -> None:
    policy = "consent:\n  auto_approve:\n    runs: 6\n    gpu_hours: 2\n    recipe_keys: [max_length]\n"
    with practice_world(tmp_path, policy=policy) as world:
        world.start()
        world.wait_ready()
        issue = world.open_goal()
        world.until_event(issue, "consent_asked")
        pull = world.pulls()[0]["number"]
        assert "There is D1" in reply_to(world, pull, "/postdoc accept D7", issue).replace("There are", "There is")
        world.comment(pull, "/postdoc accept D1", login="bob")
        assert world.until_ended(issue) == "met"


def test_pushed_recipe_that_cannot_be_used_is_answered_and_not_trained(held: tuple[World, int, int]) -> None:
    world, issue, pull = held
    branch = world.pulls()[0]["head"]["ref"]
    world.commit("experiments/0001-reverse/recipe.yaml", "learning_rate: [fast\n", branch=branch, login="bob")
    world.runner.release("train-01")
    world.until_event(issue, "head_read")
    assert any("cannot be trained" in body for body in world.bot_comments(pull))
    assert world.until_ended(issue) == "met"


def test_pushed_script_takes_a_persons_consent(held: tuple[World, int, int]) -> None:
    world, issue, pull = held
    branch = world.pulls()[0]["head"]["ref"]
    world.commit("experiments/0001-reverse/train.py", "print('mine')\n", branch=branch, login="bob")
    world.runner.release("train-01")
    asked = world.until_event(issue, "consent_asked")["data"]["head_sha"]
    assert any(f"/postdoc run {asked[:12]}" in body for body in world.bot_comments(pull))
    assert not any("train-02" in job for job in world.runner.launches())


def test_closed_pull_request_ends_the_goal_and_its_job(held: tuple[World, int, int]) -> None:
    world, issue, pull = held
    world.api("ada", "PATCH", f"/repos/{REPOSITORY}/pulls/{pull}", json={"state": "closed"})
    assert world.until_ended(issue) == "closed"
    job = next(job for job in world.runner.launches() if "train-01" in job)
    status = world.runner.status(job)  # type: ignore[arg-type]
    assert status is not None
    assert status.state == "cancelled"


def test_bots_process_stays_small(held: tuple[World, int, int]) -> None:
    world, issue, _ = held
    world.runner.release("train-01")
    world.until_ended(issue)
    assert world.process is not None
    status = Path(f"/proc/{world.process.pid}/status")
    if not status.exists():
        pytest.skip("no /proc on this machine")
    peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    assert int(peak.split()[1]) < 200 * 1024, peak


def test_two_runs_are_compared_on_the_same_items(world: World) -> None:
    world.runner.script(GOOD)
    issue = world.open_goal()
    assert world.until_ended(issue) == "met"
    pull = world.pulls()[0]["number"]
    body = reply_to(world, pull, "/postdoc compare 1 2", issue)
    assert "**Run 2 is better than run 1.**" in body
    assert "190 gained, 0 lost of 200" in body and "p < 0.001" in body and "(power 0.8)" in body
    body = reply_to(world, pull, "/postdoc compare base 1", issue)
    assert "**Run 1 cannot be told from the untouched base model.**" in body and "would tell the observed one" in body
    assert "This goal has no run 9" in reply_to(world, pull, "/postdoc compare 2 9", issue)
    assert "Write two runs by their numbers" in reply_to(world, pull, "/postdoc compare 2", issue)
