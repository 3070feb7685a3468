"""What the language model costs a goal in the loop: each turn under every ceiling, and one sum wherever it is told."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from bot.loop.database import open_database
from bot.loop.treasury import Treasury
from tests.fakes.language_models import Answer, Json, calls, text
from tests.loop.test_commands import reply_to
from tests.loop.test_recovery import pursue
from tests.loop.test_thinking import (
    BETTER,
    CRASH,
    NOTHING,
    POLICY,
    RUNS,
    kinds,
    patched,
    propose,
    pursued_with,
    said,
    thinking_world,
)
from tests.world import GOOD, REPOSITORY, World, goal_body

PRICED: Any = {"POSTDOC_BRAIN_PRICE": "3/15"}
LOOK = calls(("read_file", {"path": "recipe.yaml"}))


def books(world: World) -> list[tuple[str, float]]:
    """(key, USD) of every turn that the treasury knows."""
    with contextlib.closing(sqlite3.connect(world.folder / "data" / "postdoc.sqlite")) as connection:
        rows = connection.execute("SELECT job_id, usd FROM reservations WHERE job_id LIKE '%/llm/%' ORDER BY job_id")
        return [(job_id.partition("/llm/")[2], usd) for job_id, usd in rows]


def journal(world: World, issue: int) -> list[tuple[str, float]]:
    """The same of the journal."""
    spent = [event for event in world.events(issue) if event["kind"] == "llm_spent"]
    return sorted((event["key"].removeprefix("llm/"), event["data"]["usd"]) for event in spent)


def agree(world: World, issue: int) -> None:
    assert books(world) == [(key, pytest.approx(usd)) for key, usd in journal(world, issue) if usd]


@pytest.mark.slow
def test_thinking_is_paid_by_the_goal_within_what_was_agreed(tmp_path: Path) -> None:
    """The price of every turn is booked under the thought; the next run's money is not thought away."""
    policy = POLICY.replace("usd: 0", "usd: 2") + "usd_per_hour: 0.01\nbudget: {usd: 5}\n"
    with thinking_world(tmp_path, policy=policy, **PRICED) as (world, api):
        api.say(propose(**NOTHING), LOOK, propose(kind="recipe", label="plateau", settings={"learning_rate": 3e-3}))
        world.runner.script(GOOD | RUNS | BETTER)
        world.start()
        world.wait_ready()
        issue = world.open_goal(goal_body(Budget_in_USD="2"))
        assert world.until_ended(issue) == "met", world.log()
        spent = kinds(world, issue, "llm_spent")
        thoughts = [each for each in kinds(world, issue, "thought") if each["outcome"] or each["proposal"]]
        assert sum(each["usd"] for each in spent) == pytest.approx(sum(each["usd"] for each in thoughts))
        assert len(spent) == 3 and all(each["usd"] > 0 for each in spent)
        assert kinds(world, issue, "revised")[0]["changed"]["learning_rate"] == [2e-05, 0.003]
        sticky = next(b for b in world.bot_comments(world.pulls()[0]["number"]) if "/sticky" in b)
        assert "2 turns, " in sticky
        agree(world, issue)


@pytest.mark.slow
def test_without_money_the_playbook_goes_on_and_says_so(tmp_path: Path) -> None:
    policy = POLICY.replace("usd: 0", "usd: 0.01") + "budget: {usd: 1}\n"
    with thinking_world(tmp_path, policy=policy, **PRICED) as (world, api):
        issue, state = pursued_with(world, BETTER, goal_body(Budget_in_USD="0.01"))
        assert state == "met" and not api.asked
        assert {each["outcome"] for each in kinds(world, issue, "thought")} == {"budget"}
        [review, *_] = world.reviews(world.pulls()[0]["number"])
        assert "USD are left for it" in review["body"] and "the playbook goes on" in review["body"]


@pytest.mark.slow
def test_a_thought_whose_transcript_is_gone_is_begun_anew_and_every_turn_is_booked(tmp_path: Path) -> None:
    """The machine went while its proposal was tried; the goal is taken up on another."""
    policy = POLICY.replace("usd: 0", "usd: 2") + "budget: {usd: 5}\n"
    with thinking_world(tmp_path, policy=policy, **PRICED) as (world, api):
        first = propose(kind="patch", label="plateau", files=[patched("Wrong.")])
        api.say(propose(**NOTHING), LOOK, first)
        outcomes = {"smoke-02": {"fail": CRASH, "hold": True}}
        world.runner.script(GOOD | RUNS | BETTER | outcomes)
        world.start()
        world.wait_ready()
        issue = world.open_goal(goal_body(Budget_in_USD="2"))
        world.until(lambda: any("smoke-02" in job for job in world.runner.launches()), "the smoke run")
        world.kill()
        [gone] = (tmp_path / "data" / "goals").glob("*/brain")
        shutil.rmtree(gone)
        api.say(LOOK, propose(kind="recipe", label="plateau", settings={"learning_rate": 3e-3}))
        world.runner.release("smoke-02")
        world.start()
        world.wait_ready()
        assert world.until_ended(issue) == "met", world.log()
        assert CRASH[:20] in said(api)
        spent = [each["usd"] for each in kinds(world, issue, "llm_spent")]
        last = {each["thought"]: each for each in kinds(world, issue, "thought")}
        assert len(spent) == 5 and last[2]["turns"] == 4
        assert sum(spent) == pytest.approx(sum(each["usd"] for each in last.values()))
        agree(world, issue)


@pytest.mark.slow
def test_the_months_ceiling_holds_for_turns_and_the_playbook_goes_on(tmp_path: Path) -> None:
    """The goal could pay; what its repository may spend in a month is used up."""
    policy = POLICY.replace("usd: 0", "usd: 2") + "budget: {usd: 5}\nmonth: {usd: 1.2, gpu_hours: 100}\n"
    with thinking_world(tmp_path, policy=policy, POSTDOC_BRAIN_PRICE="240/15") as (world, api):
        api.say(*[LOOK] * 4)
        issue, state = pursued_with(world, BETTER, goal_body(Budget_in_USD="2"))
        assert state == "met", world.log()
        assert 0 < len(api.asked) < 4, "the price of a turn leaves too little for another"
        assert {each["outcome"] for each in kinds(world, issue, "thought")} == {"budget"}
        [review, *_] = world.reviews(world.pulls()[0]["number"])
        assert "this repository's ceiling for 20" in review["body"] and "the playbook goes on" in review["body"]
        assert sum(usd for _, usd in books(world)) <= 1.2
        agree(world, issue)


@pytest.mark.slow
def test_a_halt_refuses_the_next_turn_of_a_sitting(tmp_path: Path) -> None:
    policy = POLICY.replace("usd: 0", "usd: 2") + "budget: {usd: 5}\n"
    with thinking_world(tmp_path, policy=policy, **PRICED) as (world, api):
        treasury = Treasury(open_database(f"sqlite:///{tmp_path / 'data' / 'postdoc.sqlite'}"))

        def halted_meanwhile(body: Json) -> Answer:
            treasury.halt(REPOSITORY, "ada")
            return LOOK

        api.say(halted_meanwhile, propose(**NOTHING))
        issue, state = pursued_with(world, BETTER, goal_body(Budget_in_USD="2"))
        assert state == "stopped" and len(api.asked) == 1
        assert "all spending in this repository was halted by @ada" in world.events(issue)[-1]["data"]["reason"]
        agree(world, issue)
        assert len(journal(world, issue)) == 1
        # Once it is lifted, the thought goes on where it stood.
        treasury.lift(REPOSITORY)
        world.comment(world.pulls()[0]["number"] if world.pulls() else issue, "/postdoc resume")
        world.until(lambda: len(api.asked) == 2, "the next turn")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("point", ["before reserving", "after reserving", "before paying", "after paying"])
def test_killed_around_a_turns_money_it_is_counted_once_everywhere(tmp_path: Path, point: str) -> None:
    policy = POLICY.replace("usd: 0", "usd: 5") + "budget: {usd: 5}\n"
    settings = PRICED | {"POSTDOC_TEST_DEATHS_AT": f"{point} turn llm/thought/1/1"}
    with thinking_world(tmp_path, policy=policy, deaths=tmp_path / "deaths", **settings) as (world, api):
        api.say(LOOK, LOOK, propose(**NOTHING), propose(**NOTHING))
        world.runner.script(GOOD | RUNS | BETTER)
        assert pursue(world, body=goal_body(Budget_in_USD="5")) == 1
        assert not api.script and len(api.asked) == 4
        agree(world, 1)
        paid = [usd for _, usd in journal(world, 1)]
        # A turn of which nobody knows how far it came is counted at what was set aside for it.
        assert len(paid) == (5 if point == "after reserving" else 4)
        assert (max(paid) > 0.2) == (point == "after reserving")


@pytest.mark.slow
@pytest.mark.parametrize("use", ["ask", "off"])
def test_a_policy_lets_the_model_answer_alone_or_not_at_all(tmp_path: Path, use: str) -> None:
    with thinking_world(tmp_path, policy=f"{POLICY}brain: {use}\n") as (world, api):
        issue, state = pursued_with(world, BETTER)
        assert state == "met" and not api.asked and not kinds(world, issue, "thought")
        pull = world.pulls()[0]["number"]
        api.say(text("Run 2 learned."))
        answer = reply_to(world, pull, "/postdoc ask What helped?", issue)
        assert ("Run 2 learned" in answer) == (use == "ask") == (len(api.asked) == 1)
        assert use == "ask" or "`brain: off`" in answer


@pytest.mark.slow
@pytest.mark.parametrize("use", ["ask", "off"])
def test_a_plan_is_explained_but_not_made_again_where_the_model_may_only_answer(tmp_path: Path, use: str) -> None:
    policy = POLICY.replace("runs: 6", "runs: 0") + f"brain: {use}\n"
    with thinking_world(tmp_path, policy=policy) as (world, api):
        world.runner.script(GOOD | RUNS | BETTER)
        world.start()
        world.wait_ready()
        issue = world.open_goal()
        world.until_event(issue, "consent_asked")
        pull = world.pulls()[0]["number"]
        api.say(text("It trains the first recipe."))
        plan = reply_to(world, pull, "/postdoc plan", issue)
        assert "The next run" in plan and ("It trains the first recipe" in plan) == (use == "ask")
        refusal = reply_to(world, pull, "/postdoc plan again longer, please", issue)
        assert f"`brain: {use}` in the repository's policy" in refusal
        assert len(api.asked) == (use == "ask")
