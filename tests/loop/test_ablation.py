"""`/postdoc ablate`: several values of one key side by side, within the budget, told in one table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.fakes.weights import CONFIG, random_model, trained, write_model
from tests.loop.test_spending import pull_of, say, serving
from tests.world import GOOD, POLICY, World, goal_body

ARMS: dict[str, dict[str, Any]] = {
    "ablate-01": {"curve": "flat", "hold": True},
    "weigh-01": {"value": 0.10},
    "ablate-02": {"curve": "good", "hold": True},
    "weigh-02": {"value": 0.80},
}


def launched(world: World, role: str) -> list[str]:
    return [job for job in world.runner.launches() if f"-{role}-" in job]


def comment_with(world: World, number: int, words: str) -> str:
    found = [c["body"] for c in world.comments(number) if words in c["body"]]
    assert len(found) == 1, found
    return str(found[0])


def test_arms_run_side_by_side_and_are_told_in_one_table(tmp_path: Path) -> None:
    # A second run is waited for, so that a person can speak between two of them.
    script: dict[str, dict[str, Any]] = GOOD | ARMS | {"train-02": {"curve": "good", "hold": True}}
    with serving(tmp_path, POLICY, script) as world:
        issue = world.open_goal()
        world.until_job("train-02")
        pull = pull_of(world)
        answer = say(world, pull, "/postdoc ablate learning_rate=1e-4,1e-3", goal=issue)
        assert "It takes 2 runs of the budget" in answer
        assert "begins when the run under way has ended" in answer
        assert launched(world, "ablate") == []
        world.runner.release("train-02")
        world.until(lambda: len(launched(world, "ablate")) == 2, "both arms to train at once")
        sticky = comment_with(world, pull, "| Target |")
        assert "4 of 4 runs" in sticky
        world.runner.release("ablate-01")
        world.runner.release("ablate-02")
        reported = world.until_event(issue, "ablation_reported")["data"]
        assert [row["score"]["value"] for row in reported["rows"]] == [0.1, 0.8]
        table = comment_with(world, pull, "### Ablation 1")
        assert "**`0.001`**" in table
        assert "70.0 points, worse" in table
        assert "`/postdoc set learning_rate=0.001`" in table
        assert world.until_ended(issue) == "met"
        assert len(launched(world, "weigh")) == 2
        report = world.file(world.pulls()[0]["head"]["ref"], "experiments/0001-reverse/README.md")
        assert "80.0 % (73.9 to 85.0, n = 200)" in report, report[report.index("### Ablation") :][:400]


def test_value_that_a_run_has_trained_is_taken_and_failed_and_foreign_arms_have_none(tmp_path: Path) -> None:
    """The arm that scores best hands the base back as its own, so it has no value."""
    base = random_model(0)
    honest = str(write_model(tmp_path / "honest", trained(base, 1)))
    script: dict[str, dict[str, Any]] = {
        "baseline-00": {"value": 0.0},
        "train-01": {"curve": "flat", "model": honest},
        "evaluate-01": {"value": 0.01},
        "probe-01": {"suggested": None},
        "ablate-02": {"model": honest},
        "weigh-02": {"value": 0.5},
        "ablate-03": {"fail": "ValueError: loss is not finite"},
        "ablate-04": {"model": str(write_model(tmp_path / "untrained", base))},
        "weigh-04": {"value": 0.9},
    }
    with serving(tmp_path, POLICY, script) as world:
        write_model(tmp_path / "models" / "postdoc" / "tiny-test", base, files={"config.json": CONFIG})
        issue = world.open_goal(goal_body(Budget_in_runs="1"))
        assert world.until_ended(issue) == "exhausted"
        pull = pull_of(world)
        line = "/postdoc ablate learning_rate=2e-5,1e-3,1e-2,3e-3"
        assert "That takes 3 runs and 0 are left" in say(world, pull, line, goal=issue)
        world.comment(pull, f"/postdoc budget +3runs\n{line}")
        rows = world.until_event(issue, "ablation_reported")["data"]["rows"]
        assert [(row["run"], row["score"] and row["score"]["value"]) for row in rows] == [
            (1, 0.01),
            (None, 0.5),
            (None, None),
            (None, None),
        ]
        assert [row.get("lineage", {}).get("verdict") for row in rows] == [None, "descends", None, "equals base"]
        table = comment_with(world, pull, "### Ablation 1")
        assert "`2e-05` (run 1)" in table
        assert "training failed (script_error): ValueError: loss is not finite" in table
        assert "its result does not count (equals base): Every weight is the base model's" in table
        assert "**`0.001`**" in table and "90.0 %" not in table
        assert world.until_event(issue, "ended", 2)["data"]["state"] == "exhausted"
        assert len(launched(world, "ablate")) == 3


def test_ablation_that_makes_no_sense_says_what_to_write(tmp_path: Path) -> None:
    with serving(tmp_path, None) as world:
        issue = world.open_goal()
        world.until_event(issue, "consent_asked")
        pull = pull_of(world)
        for line, words in (
            ("ablate", "Write one key with its values"),
            ("ablate learning_rate=1e-5", "takes 2 to 8 different values"),
            ("ablate learning_rate=1e-5,0.00001", "takes 2 to 8 different values"),
            ("ablate data_deduplicate=true,false", "compares on the same one"),
            ("ablate learning_rate=fast,slow", "learning_rate"),
            ("ablate learning_rate=1e-5,3e-5", "`/postdoc run` first"),
        ):
            assert words in say(world, pull, f"/postdoc {line}", goal=issue)
        assert launched(world, "ablate") == []
        world.comment(pull, "/postdoc stop")
        world.until_ended(issue)


@pytest.mark.slow
def test_stop_ends_an_ablation_and_resuming_does_not_bring_it_back(tmp_path: Path) -> None:
    with serving(tmp_path, POLICY, GOOD | ARMS | {"train-01": {"curve": "flat", "hold": True}}) as world:
        issue = world.open_goal()
        world.until_job("train-01")
        pull = pull_of(world)
        say(world, pull, "/postdoc ablate learning_rate=1e-4,1e-3", goal=issue)
        assert "Ablation 1 is under way" in say(world, pull, "/postdoc ablate seed=1,2", goal=issue)
        world.runner.release("train-01")
        world.until(lambda: len(launched(world, "ablate")) == 2, "both arms")
        say(world, pull, "/postdoc stop", goal=issue)
        assert world.until_ended(issue) == "stopped"
        ends = [event["data"]["status"]["state"] for event in world.events(issue) if event["kind"] == "job_ended"]
        assert ends.count("cancelled") == 2
        say(world, pull, "/postdoc resume", goal=issue)
        world.until_job("train-02")
        assert len(launched(world, "ablate")) == 2
        world.until_event(issue, "ended", 2)
        assert not [event for event in world.events(issue) if event["kind"] == "ablation_reported"]
