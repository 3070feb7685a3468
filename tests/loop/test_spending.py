"""Who agrees to how much, driven over HTTP: consent, ceilings, the halt, and commands where there is no goal."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.world import GOOD, POLICY, REPOSITORY, World, goal_body, practice_world

HELD = GOOD | {"train-01": {"curve": "flat", "hold": True}}
FALLS_SHORT = {f"train-{n:02d}": {"curve": "flat"} for n in range(1, 9)} | {
    f"evaluate-{n:02d}": {"value": 0.01 * n} for n in range(1, 9)
}


@contextlib.contextmanager
def serving(tmp_path: Path, policy: str | None, script: dict[str, dict[str, Any]] = GOOD) -> Iterator[World]:
    with practice_world(tmp_path, policy=policy) as world:
        world.runner.script(script)
        world.start()
        world.wait_ready()
        yield world


def say(world: World, number: int, line: str, login: str = "ada", *, goal: int | None = None) -> str:
    """Write a command and return its answer."""
    issue = goal or number
    count = sum(event["kind"] == "command_answered" for event in world.events(issue))
    world.comment(number, line, login=login)
    return str(world.until_event(issue, "command_answered", count + 1)["data"]["reply"])


def pull_of(world: World) -> int:
    return int(world.pulls()[0]["number"])


def checks(world: World, sha: str, name: str) -> list[dict[str, Any]]:
    found = world.api("ada", "GET", f"/repos/{REPOSITORY}/commits/{sha}/check-runs")["check_runs"]
    return [check for check in found if check["name"] == name]


def reactions(world: World, comment_id: int) -> list[str]:
    rows = world.api("ada", "GET", f"/repos/{REPOSITORY}/issues/comments/{comment_id}/reactions")
    return [row["content"] for row in rows]


def test_waiting_for_consent_is_a_check_with_a_button_that_consents_to_that_commit(tmp_path: Path) -> None:
    with serving(tmp_path, None) as world:
        issue = world.open_goal()
        sha = world.until_event(issue, "consent_asked")["data"]["head_sha"]
        [check] = checks(world, sha, "postdoc / consent")
        assert (check["status"], check["conclusion"]) == ("completed", "action_required")
        world.forge.press_button(check["id"], "agree", "bob")
        assert world.until_ended(issue) == "met"
        [check] = checks(world, sha, "postdoc / consent")
        assert check["conclusion"] == "success"
        assert "bob" in check["output"]["title"]
        assert world.first(issue, "consented")["by"] == "bob"


def test_run_without_a_commit_means_the_head_its_author_saw(tmp_path: Path) -> None:
    with serving(tmp_path, None) as world:
        issue = world.open_goal()
        world.until_event(issue, "consent_asked")
        pull = world.pulls()[0]
        recipe = world.file(pull["head"]["ref"], "experiments/0001-reverse/recipe.yaml")
        pushed = world.commit(
            "experiments/0001-reverse/recipe.yaml", recipe.replace("2.0e-05", "1.0e-05"),
            branch=pull["head"]["ref"], login="bob",
        )  # fmt: skip
        answer = say(world, pull["number"], f"/postdoc run {pull['head']['sha'][:10]}", goal=issue)
        assert "is not what stands here now" in answer
        assert world.until_event(issue, "consent_asked", 2)["data"]["head_sha"] == pushed
        assert "Agreed" in say(world, pull["number"], "/postdoc run", goal=issue)
        assert world.first(issue, "consented")["head_sha"] == pushed
        world.until_ended(issue)


def test_author_alone_agrees_only_below_the_policys_ceiling(tmp_path: Path) -> None:
    policy = "consent:\n  self_approve_usd: 4\n"
    with serving(tmp_path, policy) as world:
        issue = world.open_goal(goal_body(Budget_in_USD="5"))
        world.until_event(issue, "consent_asked")
        answer = say(world, pull_of(world), "/postdoc run", goal=issue)
        assert "somebody else has to agree" in answer
        assert "4.00 USD" in answer
        assert "at most" in say(world, pull_of(world), "/postdoc run", "bob", goal=issue)
        assert world.until_ended(issue) == "met"


def test_spent_budget_is_raised_by_an_admin_within_the_policy_and_the_goal_goes_on(tmp_path: Path) -> None:
    with serving(tmp_path, POLICY, GOOD | {"train-01": {"curve": "flat"}}) as world:
        issue = world.open_goal(goal_body(Budget_in_runs="1"))
        assert world.until_ended(issue) == "exhausted"
        pull = pull_of(world)
        assert "the role `admin`" in say(world, pull, "/postdoc budget +2runs", "bob", goal=issue)
        assert "allows a goal 8" in say(world, pull, "/postdoc budget +20runs", goal=issue)
        answer = say(world, pull, "/postdoc budget +2runs", goal=issue)
        assert "The goal may now take 3 runs" in answer
        world.until_event(issue, "ended", 2)
        assert world.state(issue) == "met"


def test_halt_ends_what_runs_and_refuses_what_would_until_it_is_lifted(tmp_path: Path) -> None:
    with serving(tmp_path, POLICY, HELD) as world:
        issue = world.open_goal()
        world.until_job("train-01")
        pull = pull_of(world)
        assert "the role `admin`" in say(world, pull, "/postdoc halt", "bob", goal=issue)
        assert "**Halted.**" in say(world, pull, "/postdoc halt", goal=issue)
        assert world.until_ended(issue) == "stopped"
        assert "halted by @ada" in world.first(issue, "ended")["reason"]
        assert "was halted" in say(world, pull, "/postdoc resume", goal=issue)
        launched = len(world.runner.launches())
        other = world.open_goal(goal_body(Benchmark="practice/upper"), title="Another goal")
        assert world.until_ended(other) == "stopped"
        assert len(world.runner.launches()) == launched
        world.runner.release("train-01")
        assert "allowed again" in say(world, pull, "/postdoc halt off", goal=issue)
        say(world, pull, "/postdoc resume", goal=issue)
        world.until_event(issue, "ended", 2)
        assert world.state(issue) == "met"


def test_months_ceiling_of_the_repository_starts_no_job(tmp_path: Path) -> None:
    with serving(tmp_path, POLICY + "month:\n  gpu_hours: 0.01\n") as world:
        issue = world.open_goal()
        assert world.until_ended(issue) == "exhausted"
        assert "0.01 h of job time is used up" in world.first(issue, "ended")["reason"]
        assert world.runner.launches() == []


def test_remedy_beyond_the_envelope_is_priced_and_waits_for_a_person(tmp_path: Path) -> None:
    policy = "consent:\n  auto_approve:\n    runs: 6\n    gpu_hours: 2\n    recipe_keys: [max_length]\n"
    with serving(tmp_path, policy) as world:
        issue = world.open_goal()
        world.until_event(issue, "consent_asked")
        pull = pull_of(world)
        question = world.bot_comments(pull)[-1]
        assert "`learning_rate` `2e-05` → `0.003`" in question
        assert "/postdoc accept D1" in question
        sha = world.first(issue, "run_started")["head_sha"]
        [check] = checks(world, sha, "postdoc / run 1")
        world.forge.press_button(check["id"], "accept D1", "bob")
        assert world.until_ended(issue) == "met"
        assert world.first(issue, "revised")["by"] == "bob"


@pytest.mark.slow
def test_plan_prices_the_next_run_from_the_last_one(tmp_path: Path) -> None:
    policy = "consent:\n  auto_approve:\n    runs: 6\n    gpu_hours: 2\n    recipe_keys: [max_length]\n"
    with serving(tmp_path, policy) as world:
        issue = world.open_goal()
        world.until_event(issue, "consent_asked")
        answer = say(world, pull_of(world), "/postdoc plan", "bob", goal=issue)
        assert "| One run | about" in answer
        assert "| At most | 4 runs" in answer
        assert "clean: none of" in answer


def test_every_command_gets_eyes_and_then_its_result(tmp_path: Path) -> None:
    with serving(tmp_path, POLICY, HELD) as world:
        issue = world.open_goal()
        world.until_job("train-01")
        for line, result in (("help", "+1"), ("statsu", "confused"), ("run 0123456", "-1")):
            count = sum(event["kind"] == "command_answered" for event in world.events(issue))
            comment = world.comment(pull_of(world), f"/postdoc {line}")
            world.until_event(issue, "command_answered", count + 1)
            world.until(lambda: len(reactions(world, comment)) == 2, "both reactions")  # noqa: B023
            assert reactions(world, comment) == ["eyes", result]


@pytest.mark.slow
def test_commands_where_there_is_no_goal_get_one_comment_that_holds_the_answers(tmp_path: Path) -> None:
    with serving(tmp_path, POLICY) as world:
        number = int(
            world.api("bob", "POST", f"/repos/{REPOSITORY}/issues", json={"title": "A bug", "body": "Broken"})["number"]
        )
        assert "There is no goal here" in say(world, number, "/postdoc status", "bob")
        assert "the role `admin`" in say(world, number, "/postdoc halt", "bob")
        assert "**Halted.**" in say(world, number, "/postdoc halt")
        [answers] = world.bot_comments(number)
        assert answers.count("<details>") == 2
        assert world.state(number) is None
        goal = world.open_goal()
        assert world.until_ended(goal) == "stopped"
        # An issue that was talked on becomes a goal like any other.
        say(world, number, "/postdoc halt off")
        world.api("ada", "PATCH", f"/repos/{REPOSITORY}/issues/{number}", json={"body": goal_body()})
        world.api("ada", "POST", f"/repos/{REPOSITORY}/issues/{number}/labels", json={"labels": ["postdoc"]})
        assert world.until_ended(number) == "met"


@pytest.mark.slow
def test_vouching_copies_a_forks_head_and_trains_nothing(tmp_path: Path) -> None:
    with serving(tmp_path, POLICY) as world:
        fork = world.forge.fork(REPOSITORY, "mallory")
        path = f"/repos/{fork.full_name}/contents/notes.md"
        head = world.api("mallory", "PUT", path, json={"message": "Notes", "content": "aGk="})["commit"]["sha"]
        opened = {"title": "Notes", "head": "mallory:main", "base": "main", "body": ""}
        number = int(world.api("mallory", "POST", f"/repos/{REPOSITORY}/pulls", json=opened)["number"])
        assert "the role `write`" in say(world, number, f"/postdoc vouch {head[:10]}", "mallory")
        assert "Look at it first" in say(world, number, "/postdoc vouch 0123456789", "bob")
        assert "Copied" in say(world, number, f"/postdoc vouch {head[:10]}", "bob")
        branch = f"postdoc/vouched-{number}-{head[:12]}"
        ref = world.api("ada", "GET", f"/repos/{REPOSITORY}/git/ref/heads/{branch}")
        assert ref["object"]["sha"] == head
        assert world.runner.launches() == []


@pytest.mark.slow
def test_edited_goal_is_offered_as_a_difference_and_adopted_by_command(tmp_path: Path) -> None:
    with serving(tmp_path, None) as world:
        issue = world.open_goal()
        world.until_event(issue, "consent_asked")
        path = f"/repos/{REPOSITORY}/issues/{issue}"
        world.api("ada", "PATCH", path, json={"body": goal_body(Target="95 %")})
        world.until(lambda: "/postdoc accept goal" in world.bot_comments(issue)[0], "the difference in the contract")
        assert "95 %" in world.bot_comments(issue)[0]
        assert "`deadbeef`" not in world.bot_comments(issue)[0]
        assert "another than that" in say(world, pull_of(world), "/postdoc accept goal deadbeef", goal=issue)
        answer = say(world, pull_of(world), "/postdoc accept goal", goal=issue)
        assert "95 %" in answer
        world.until_event(issue, "consent_asked", 2)
        assert "target: 0.95" in world.file(world.pulls()[0]["head"]["ref"], "experiments/0001-reverse/goal.yaml")
        say(world, pull_of(world), "/postdoc run", "bob", goal=issue)
        assert world.until_ended(issue) == "met"


@pytest.mark.slow
def test_servers_owner_halts_everything_from_the_command_line(tmp_path: Path) -> None:
    def halt(*words: str) -> str:
        command = [sys.executable, "-m", "bot", "halt", *words]
        ran = subprocess.run(command, env=world.environment, capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    with serving(tmp_path, POLICY, HELD) as world:
        issue = world.open_goal()
        world.until_job("train-01")
        assert "All spending is halted: this server." in halt()
        assert world.until_ended(issue) == "stopped"
        assert "on this server was halted" in world.first(issue, "ended")["reason"]
        assert "was halted" in say(world, pull_of(world), "/postdoc resume", goal=issue)
        world.runner.release("train-01")
        assert "allowed again" in halt("--off")
        say(world, pull_of(world), "/postdoc resume", goal=issue)
        world.until_event(issue, "ended", 2)
        assert world.state(issue) == "met"
