"""`/postdoc reproduce`: a run made again within the budget, its verdict told, and nothing of the goal moved by it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.loop.test_spending import pull_of, say, serving
from tests.world import GOOD, POLICY, World, goal_body

FOLDER = "experiments/0001-reverse"
OTHER_ROWS = [
    {"prompt": [{"role": "user", "content": "other"}], "completion": [{"role": "assistant", "content": "x"}]},
]
AGAIN: dict[str, dict[str, Any]] = {
    "rebuild-01": {"rows": OTHER_ROWS},
    "retrain-02": {"curve": "good"},
    "reassess-02": {"value": 0.97},
    "retrain-03": {"curve": "good"},
    "reassess-03": {"value": 0.96, "weights": "e" * 64},
    "retrain-04": {
        "curve": "flat",
        "environment": {"libraries": {"torch": "2.12.0", "trl": "1.16.0", "six": "1.0"}},
    },
    "reassess-04": {"value": 0.10, "weights": "e" * 64},
    "retrain-05": {"fail": "ValueError: no"},
}
"""Run 2 of the good pursuit: on other rows, to the bit, within noise, under other libraries, and failing."""


def sticky_of(world: World, number: int) -> str:
    [found] = [c["body"] for c in world.comments(number) if "| Target |" in c["body"]]
    return str(found)


def launched(world: World) -> list[str]:
    roles = ("-rebuild-", "-retrain-", "-reassess-")
    return [job for job in world.runner.launches() if any(role in job for role in roles)]


def reproduced(world: World, issue: int, line: str, count: int = 1) -> dict[str, Any]:
    """The report of the run that `line` asks for."""
    answer = say(world, pull_of(world), line, goal=issue)
    assert "is made again" in answer, answer
    return dict(world.until_event(issue, "reproduction_reported", count)["data"]["report"])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_met_goal_stays_as_it_was_whatever_its_run_comes_out_as_again(tmp_path: Path) -> None:
    with serving(tmp_path, POLICY, GOOD | AGAIN) as world:
        issue = world.open_goal(goal_body(Budget_in_runs="6"))
        assert world.until_ended(issue, 120) == "met"
        pull, line = pull_of(world), "/postdoc reproduce 2"
        for wrong, words in (("", "Write one run"), (" x", "Write one run"), (" 9", "no run 9")):
            assert words in say(world, pull, f"/postdoc reproduce{wrong}", goal=issue)
        assert "mallory" in say(world, pull, line, "mallory", goal=issue)

        other_rows = reproduced(world, issue, line, 1)
        assert other_rows["verdict"] == "not reproduced"
        assert other_rows["first"].startswith("training data (SHA-256): ")
        assert [job.split("-")[-3] for job in launched(world)] == ["rebuild"]

        bitwise = reproduced(world, issue, line, 2)
        assert (bitwise["verdict"], bitwise["first"], bitwise["items_differing"]) == ("bitwise", "", 0)
        assert bitwise["weights"] == ["f" * 64] * 2
        assert (bitwise["comparison"]["verdict"], bitwise["comparison"]["difference"]) == ("cannot tell", 0)
        assert bitwise["curve"]["first_step"] is None

        noise = reproduced(world, issue, line, 3)
        assert (noise["verdict"], noise["items_differing"]) == ("within seed noise", 2)
        assert noise["value"] == [0.97, 0.96]
        assert noise["comparison"]["ci_low"] < 0 < noise["comparison"]["ci_high"]

        worse = reproduced(world, issue, line, 4)
        assert worse["verdict"] == "not reproduced"
        assert worse["first"] == "torch: 2.13.0 then, 2.12.0 now"
        assert [each["what"] for each in worse["differences"]] == ["torch", "six"]
        assert worse["comparison"]["verdict"] == "worse"
        assert worse["curve"]["first_step"] == 1
        assert worse["curve"]["apart"]

        failed = reproduced(world, issue, line, 5)
        assert failed == {"failure": "training it again failed (script_error): ValueError: no"}

        world.until(lambda: "Run 2, no verdict" in sticky_of(world, pull), "the last word in the sticky comment")
        sticky = sticky_of(world, pull)
        table = sticky[sticky.find("### Repro") :][:900]
        assert "| 2 | **bitwise** | 97.0 % | 97.0 % | +0.0 points" in sticky, table
        assert "| 2 | **within seed noise** | 97.0 % | 96.0 % | −1.0 points" in sticky, table
        assert "What differs first: the scores of 2 items." in sticky
        assert "(made again: not reproduced)" in sticky  # an attempt without a verdict changes no word
        assert "6 of 6 runs" in sticky  # the one that was never trained took none
        assert f"`postdoc reproduce {FOLDER}/runs/NN`" in say(world, pull, line, goal=issue)
        assert world.state(issue) == "met"
        kinds = [event["kind"] for event in world.events(issue)]
        assert (kinds.count("ended"), kinds.count("confirmed"), kinds.count("reproduction_opened")) == (1, 1, 5)


def test_reproduction_waits_for_the_run_under_way_and_the_next_run_for_its_verdict(tmp_path: Path) -> None:
    script = GOOD | {"train-02": {"curve": "good", "hold": True}, "retrain-01": {"curve": "flat", "hold": True}}
    script |= {"reassess-01": {"value": 0.02}}
    with serving(tmp_path, POLICY, script) as world:
        issue = world.open_goal()
        world.until_job("train-02")
        pull = pull_of(world)
        assert "Run 2 is still under way" in say(world, pull, "/postdoc reproduce 2", goal=issue)
        answer = say(world, pull, "/postdoc reproduce 1", goal=issue)
        assert "It begins when the run under way has ended" in answer
        assert "Reproduction 1, of run 1, is under way" in say(world, pull, "/postdoc reproduce 1", goal=issue)
        assert launched(world) == []
        world.runner.release("train-02")
        world.until_job("retrain-01")
        assert not any("confirm" in job for job in world.runner.launches())
        world.runner.release("retrain-01")
        assert world.until_ended(issue, 120) == "met"
        report = world.first(issue, "reproduction_reported")["report"]
        assert report["verdict"] == "bitwise"
        # The run's own record travels in the closing commit.
        branch = world.pulls()[0]["head"]["ref"]
        run = json.loads(world.file(branch, f"{FOLDER}/runs/01/run.json"))
        assert [each["verdict"] for each in run["reproductions"]] == ["bitwise"]


@pytest.mark.slow
def test_nobody_has_agreed_so_nothing_is_made_again(tmp_path: Path) -> None:
    with serving(tmp_path, None) as world:
        issue = world.open_goal()
        world.until_event(issue, "consent_asked")
        assert "No run has been trained yet" in say(world, pull_of(world), "/postdoc reproduce 1", goal=issue)
        world.comment(pull_of(world), "/postdoc stop")
        world.until_ended(issue)


@pytest.mark.slow
@pytest.mark.parametrize("line", ["/postdoc stop", pytest.param("/postdoc halt", marks=pytest.mark.slow)])
def test_stop_and_halt_end_a_reproduction_of_an_ended_goal(tmp_path: Path, line: str) -> None:
    with serving(tmp_path, POLICY, GOOD | {"retrain-01": {"hold": True}}) as world:
        issue = world.open_goal()
        assert world.until_ended(issue, 120) == "met"
        say(world, pull_of(world), "/postdoc reproduce 2", goal=issue)
        world.until_job("retrain-01")
        say(world, pull_of(world), line, goal=issue)
        report = world.until_event(issue, "reproduction_reported")["data"]["report"]
        assert report.keys() == {"failure"} and "ada" in report["failure"]
        states = {
            e["data"]["job_id"]: e["data"]["status"]["state"] for e in world.events(issue) if e["kind"] == "job_ended"
        }
        assert [state for job, state in states.items() if "-retrain-" in job] == ["cancelled"]
        assert world.state(issue) == "met"
