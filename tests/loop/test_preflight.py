"""A run that is known to be in vain is not submitted: it is told like any other, and its remedy is the next one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bot.domain.experiment import Experiment, Job, JobRole, Run
from bot.domain.goal import GoalId
from bot.loop.actions.preflight import earlier_audit, prepares_alike
from bot.loop.world import World as World_
from runners.job import JobId
from tests.fakes.runner import ScriptedRunner
from tests.world import GOOD, POLICY, RECIPE, World, goal_body, practice_world

ECHOES: list[dict[str, Any]] = [
    {
        "prompt": [{"role": "user", "content": f"speak {i} backwards please"}],
        "completion": [{"role": "assistant", "content": f"speak {i} backwards please"}],
    }
    for i in range(200)
]


RECIPE_OF_ECHOES = f"```yaml\n{RECIPE}data_completion_column: prompt\n```"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with practice_world(tmp_path) as found:
        found.runner.script(GOOD | {"data-01": {"rows": ECHOES}})
        found.start()
        found.wait_ready()
        yield found


def trained(world: World) -> list[str]:
    return [job[-10:] for job in world.runner.launches() if "train" in job]


def test_rows_that_teach_nothing_are_not_trained_on_and_the_next_run_has_others(world: World) -> None:
    issue = world.open_goal(goal_body(Starting_recipe=RECIPE_OF_ECHOES))
    assert world.until_ended(issue) == "met"
    refused = world.first(issue, "job_refused")
    assert (refused["run"], refused["diagnoses"][0]["symptom"]) == (1, "wrong_columns")
    diagnosed = world.first(issue, "diagnosed")
    assert diagnosed["failure"].startswith("Not started, because of what is known before the first step: ")
    assert diagnosed["report"]["diagnoses"][0]["symptom"] == diagnosed["remedy"]["symptom"] == "wrong_columns"
    assert trained(world) == ["train-02-1"]
    # Nothing was reserved for it, so there is nothing to settle.
    launched = [event["data"] for event in world.events(issue) if event["kind"] == "job_launched"]
    assert not any((job["role"], job["run"]) == ("train", 1) for job in launched)
    [pull] = world.pulls()
    assert "Not started, because" in world.reviews(pull["number"])[0]["body"]
    blamed = world.review_comments(pull["number"])[0]
    assert "```suggestion\ndata_completion_column: auto" in blamed["body"]
    run = json.loads(world.file(pull["head"]["ref"], f"{Path(blamed['path']).parent}/runs/01/run.json"))
    assert (run["state"], run["jobs"]["train"]["seconds"]) == ("refused", 0.0)


def test_what_no_remedy_mends_is_left_to_a_person_and_not_tried_in_vain(world: World) -> None:
    issue = world.open_goal()
    assert world.until_ended(issue) == "needs human"
    assert "`wrong_columns` stands in the way" in world.first(issue, "ended")["reason"]
    assert trained(world) == []


def test_audit_of_an_earlier_job_stands_while_only_how_long_is_trained_has_changed() -> None:
    def run(recipe: str, **digests: str) -> Run:
        return Run(1, recipe, "h", "s", digests=digests)

    first = run("method: sft\nlearning_rate: 1e-5\nmax_length: 64\n", train="a")
    assert prepares_alike(first, run("method: sft\nlearning_rate: 3e-5\nmax_length: 64\n", train="a"))
    assert not prepares_alike(first, run("method: sft\nlearning_rate: 1e-5\nmax_length: 128\n", train="a"))
    assert not prepares_alike(first, run("method: sft\nlearning_rate: 1e-5\nmax_length: 64\n", train="b"))


def test_audit_is_that_of_the_latest_job_that_ran_and_says_nothing_of_the_warm_up(tmp_path: Path) -> None:
    runner = ScriptedRunner(tmp_path)
    world = cast(World_, SimpleNamespace(runner=runner))
    runs = [Run(n, f"max_length: 64\nlearning_rate: {n}e-5\n", "h", "s") for n in (1, 2, 3)]
    jobs = {f"job-{n}": Job(f"job-{n}", JobRole.TRAIN, n, refused=n == 2) for n in (1, 2)}
    x = Experiment(GoalId("acme/lab#1"), runs=runs, jobs=jobs)
    for n in (1, 2):
        out = runner.folder(JobId(f"job-{n}")) / "out"
        out.mkdir(parents=True)
        (out / "data_audit.json").write_text(json.dumps({"rows": n, "warm_up_steps": 9}))
    assert earlier_audit(world, x, runs[2]) == {"rows": 1}
    assert earlier_audit(world, x, Run(4, "max_length: 8\n", "h", "s")) is None
    (runner.folder(JobId("job-1")) / "out" / "data_audit.json").write_text("[" * 100_000)
    assert earlier_audit(world, x, runs[2]) is None


@pytest.mark.slow
def test_monitor_that_may_only_advise_refuses_nothing(tmp_path: Path) -> None:
    with practice_world(tmp_path, policy=POLICY + "monitor: advise\n") as world:
        world.runner.script(GOOD | {"data-01": {"rows": ECHOES}})
        world.start()
        world.wait_ready()
        issue = world.open_goal()
        world.until_event(issue, "diagnosed")
        assert "train-01-1" in trained(world)
        assert not any(event["kind"] == "job_refused" for event in world.events(issue))
