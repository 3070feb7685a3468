"""`/postdoc reproduce`: a run made again within the budget, its verdict told, and nothing of the goal moved by it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.loop.test_spending import pull_of, say, serving
from tests.world import GOOD, POLICY, World, goal_body

FOLDER = "experiments/0001-reverse"
AGAIN: dict[str, dict[str, Any]] = {"retrain-01": {"curve": "good"}, "reassess-01": {"value": 0.97}}
"""Run 2 of the good pursuit as it was."""


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


def test_run_of_a_met_goal_is_made_again_to_the_bit_and_the_goal_stays_as_it_was(tmp_path: Path) -> None:
    with serving(tmp_path, POLICY, GOOD | AGAIN) as world:
        issue = world.open_goal()
        assert world.until_ended(issue) == "met"
        report = reproduced(world, issue, "/postdoc reproduce 2")
        assert (report["verdict"], report["first"], report["items_differing"]) == ("bitwise", "", 0)
        assert report["weights"][0] == report["weights"][1] == "f" * 64
        assert report["comparison"]["verdict"] == "cannot tell" and report["comparison"]["difference"] == 0
        assert report["curve"]["first_step"] is None
        pull = pull_of(world)
        world.until(lambda: "**bitwise**" in sticky_of(world, pull), "the verdict in the sticky comment")
        sticky = sticky_of(world, pull)
        assert "| 2 | **bitwise** | 97.0 % | 97.0 % | +0.0 points" in sticky, sticky[sticky.find("### Repro") :][:600]
        assert "(made again: bitwise)" in sticky
        assert "3 of 4 runs" in sticky
        assert [job.split("-")[-3] for job in launched(world)] == ["rebuild", "retrain", "reassess"]
        assert world.state(issue) == "met"
        kinds = [event["kind"] for event in world.events(issue)]
        assert kinds.count("ended") == kinds.count("confirmed") == 1


def test_other_numbers_that_cannot_be_told_apart_are_within_noise(tmp_path: Path) -> None:
    again = AGAIN | {"reassess-01": {"value": 0.96, "weights": "e" * 64}}
    with serving(tmp_path, POLICY, GOOD | again) as world:
        issue = world.open_goal()
        assert world.until_ended(issue) == "met"
        report = reproduced(world, issue, "/postdoc reproduce 2")
        assert (report["verdict"], report["items_differing"]) == ("within seed noise", 2)
        assert report["value"] == [0.97, 0.96]
        assert report["comparison"]["ci_low"] < 0 < report["comparison"]["ci_high"]
        sticky = sticky_of(world, pull_of(world))
        assert "**within seed noise** | 97.0 % | 96.0 % | −1.0 points" in sticky, sticky
        assert "What differs first: the scores of 2 items." in sticky


def test_worse_result_names_what_differs_first(tmp_path: Path) -> None:
    """The library before the loss, and the loss from its first step on."""
    other = {"libraries": {"torch": "2.12.0", "trl": "1.16.0", "six": "1.0"}}
    again: dict[str, dict[str, Any]] = {
        "retrain-01": {"curve": "flat", "environment": other},
        "reassess-01": {"value": 0.10, "weights": "e" * 64},
    }
    with serving(tmp_path, POLICY, GOOD | again) as world:
        issue = world.open_goal()
        assert world.until_ended(issue) == "met"
        report = reproduced(world, issue, "/postdoc reproduce 2")
        assert report["verdict"] == "not reproduced"
        assert report["first"] == "torch: 2.13.0 then, 2.12.0 now"
        assert [each["what"] for each in report["differences"]] == ["torch", "six"]
        assert report["comparison"]["verdict"] == "worse"
        assert report["curve"]["first_step"] == 1 and report["curve"]["apart"]
        assert world.state(issue) == "met"


def test_training_set_that_comes_out_otherwise_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    rows = [{"prompt": [{"role": "user", "content": "other"}], "completion": [{"role": "assistant", "content": "x"}]}]
    with serving(tmp_path, POLICY, GOOD | {"rebuild-01": {"rows": rows}}) as world:
        issue = world.open_goal()
        assert world.until_ended(issue) == "met"
        report = reproduced(world, issue, "/postdoc reproduce 2")
        assert report["verdict"] == "not reproduced"
        assert report["first"].startswith("training data (SHA-256): ")
        assert [job.split("-")[-3] for job in launched(world)] == ["rebuild"]


def test_failed_training_gives_no_verdict_and_says_why(tmp_path: Path) -> None:
    with serving(tmp_path, POLICY, GOOD | {"retrain-01": {"fail": "ValueError: no"}}) as world:
        issue = world.open_goal()
        assert world.until_ended(issue) == "met"
        report = reproduced(world, issue, "/postdoc reproduce 2")
        assert report == {"failure": "training it again failed (script_error): ValueError: no"}
        world.until(lambda: "Run 2, no verdict" in sticky_of(world, pull_of(world)), "the failure in the comment")
        # The word stays at what was found before, and another attempt is free to try.
        assert "(made again:" not in sticky_of(world, pull_of(world))


def test_reproduction_waits_for_the_run_under_way_and_the_next_run_for_its_verdict(tmp_path: Path) -> None:
    script = GOOD | AGAIN | {"train-02": {"curve": "good", "hold": True}, "retrain-01": {"curve": "flat", "hold": True}}
    script |= {"reassess-01": {"value": 0.02}}
    with serving(tmp_path, POLICY, script) as world:
        issue = world.open_goal()
        world.until(lambda: any("train-02" in job for job in world.runner.launches()), "the second training job")
        pull = pull_of(world)
        assert "Run 2 is still under way" in say(world, pull, "/postdoc reproduce 2", goal=issue)
        answer = say(world, pull, "/postdoc reproduce 1", goal=issue)
        assert "It begins when the run under way has ended" in answer
        assert "Reproduction 1, of run 1, is under way" in say(world, pull, "/postdoc reproduce 1", goal=issue)
        assert launched(world) == []
        world.runner.release("train-02")
        world.until(lambda: any("retrain-01" in job for job in world.runner.launches()), "the training made again")
        assert not any("confirm" in job for job in world.runner.launches())
        world.runner.release("retrain-01")
        assert world.until_ended(issue) == "met"
        report = world.first(issue, "reproduction_reported")["report"]
        assert report["verdict"] == "bitwise"
        # The run's own record travels in the closing commit.
        branch = world.pulls()[0]["head"]["ref"]
        run = json.loads(world.file(branch, f"{FOLDER}/runs/01/run.json"))
        assert [each["verdict"] for each in run["reproductions"]] == ["bitwise"]


def test_reproduction_counts_against_the_budget_and_needs_a_consent(tmp_path: Path) -> None:
    with serving(tmp_path, POLICY, GOOD | AGAIN) as world:
        issue = world.open_goal(goal_body(Budget_in_runs="2"))
        assert world.until_ended(issue) == "met"
        pull = pull_of(world)
        answer = say(world, pull, "/postdoc reproduce 2", goal=issue)
        assert f"`postdoc reproduce {FOLDER}/runs/NN`" in answer and launched(world) == []
        for line, words in (
            ("reproduce", "Write one run"),
            ("reproduce x", "Write one run"),
            ("reproduce 9", "no run 9"),
        ):
            assert words in say(world, pull, f"/postdoc {line}", goal=issue)
        assert not [event for event in world.events(issue) if event["kind"] == "reproduction_opened"]


def test_nobody_has_agreed_so_nothing_is_made_again(tmp_path: Path) -> None:
    with serving(tmp_path, None) as world:
        issue = world.open_goal()
        world.until_event(issue, "consent_asked")
        assert "No run has been trained yet" in say(world, pull_of(world), "/postdoc reproduce 1", goal=issue)
        assert "mallory" in say(world, pull_of(world), "/postdoc reproduce 1", "mallory", goal=issue)
        world.comment(pull_of(world), "/postdoc stop")
        world.until_ended(issue)


@pytest.mark.parametrize("line", ["/postdoc stop", "/postdoc halt"])
def test_stop_and_halt_end_a_reproduction_of_an_ended_goal(tmp_path: Path, line: str) -> None:
    with serving(tmp_path, POLICY, GOOD | {"retrain-01": {"hold": True}}) as world:
        issue = world.open_goal()
        assert world.until_ended(issue) == "met"
        say(world, pull_of(world), "/postdoc reproduce 2", goal=issue)
        world.until(lambda: any("retrain-01" in job for job in world.runner.launches()), "the training made again")
        say(world, pull_of(world), line, goal=issue)
        report = world.until_event(issue, "reproduction_reported")["data"]["report"]
        assert report.keys() == {"failure"} and "ada" in report["failure"]
        states = {
            e["data"]["job_id"]: e["data"]["status"]["state"] for e in world.events(issue) if e["kind"] == "job_ended"
        }
        assert [state for job, state in states.items() if "-retrain-" in job] == ["cancelled"]
        assert world.state(issue) == "met"
