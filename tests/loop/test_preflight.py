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
from bot.loop.actions.machines import machine_price, machine_without_gpu
from bot.loop.actions.preflight import earlier_audit
from bot.loop.actions.specs import light_machine
from bot.loop.auditing import audit_wanted, prepares_alike
from bot.loop.spending import data_key
from bot.loop.world import World as World_
from runners.job import Flavor, Hardware, JobId
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


def audit(rows: int, dropped: int, longest: int) -> dict[str, Any]:
    """As `--audit_only` writes it; the script's own tests compare that with the training's."""
    lengths = {"p50": longest, "p95": longest, "max": longest}
    written = {
        "rows": rows, "dropped_rows": dropped, "truncated_rows": dropped, "zero_label_rows": dropped,
        "max_length": 128, "token_lengths": lengths, "supervised_eos_rows": rows - dropped,
    }  # fmt: skip
    return {"files": {"out/data_audit.json": json.dumps(written)}}


def looked_at(world: World) -> list[str]:
    return [job[-10:] for job in world.runner.launches() if "train" in job or "audit" in job]


def test_run_that_cannot_learn_is_found_out_before_a_gpu_is_asked_for(tmp_path: Path) -> None:
    with practice_world(tmp_path, settings={"POSTDOC_JOB_GPUS": "1"}) as world:
        world.runner.script(GOOD | {"audit-01": audit(200, 200, 300), "audit-02": audit(200, 0, 20)})
        world.start()
        world.wait_ready()
        issue = world.open_goal()
        assert world.until_ended(issue) == "met"
        assert looked_at(world) == ["audit-01-1", "audit-02-1", "train-02-1"]
        refused = world.first(issue, "job_refused")
        assert (refused["role"], refused["diagnoses"][0]["symptom"]) == ("train", "truncation")
        spec = json.loads(next(world.runner.root.glob("*audit-01-1/spec.json")).read_text())
        assert spec["argv"][-1] == "--audit_only" and spec["argv"][spec["argv"].index("--init_from") + 1] == "init"
        assert not spec["mounts"] and not spec["hardware"]["gpus"]
        assert "init/config.json" in spec["files"] and "init/model.safetensors" not in spec["files"]
        [pull] = world.pulls()
        assert "Not started, because" in world.reviews(pull["number"])[0]["body"]


@pytest.mark.slow
def test_audit_is_not_repeated_for_another_rate_and_its_own_failure_stops_nothing(tmp_path: Path) -> None:
    with practice_world(tmp_path, settings={"POSTDOC_JOB_GPUS": "1"}) as world:
        world.runner.script(GOOD | {"audit-01": {"fail": "Traceback"}})
        world.start()
        world.wait_ready()
        assert world.until_ended(world.open_goal()) == "met"
        assert looked_at(world) == ["audit-01-1", "train-01-1", "train-02-1"], "run 2 has another rate alone"


def test_data_is_audited_first_where_training_costs_something_and_nothing_is_known_of_it() -> None:
    recipe = "method: sft\nlearning_rate: 1e-5\n"
    digests = {"train.py": "a", "data/prepare.py": "b"}

    def asked(text: str = recipe, *, first: bool = True, method: str = "sft", **changes: Any) -> bool:
        run = Run(2, text, "h", "s", method, digests=digests)
        x = Experiment(GoalId("acme/lab#1"), runs=[Run(1, recipe, "h", "s", digests=digests), run])
        x.data[data_key(text, digests)] = {"audit_first": first}
        x.shipped_digests = digests
        for name, value in changes.items():
            setattr(x, name, value)
        return audit_wanted(x, run)

    assert asked()
    assert not asked(first=False), "what costs nothing looks for itself, at step 0"
    assert not asked(method="rft"), "its rows are the model's own answers"
    assert not asked(policy={"monitor": "advise"}), "nothing would be refused"
    assert not asked(shipped_digests={"train.py": "z"}), "a team's own script need not know the flag"
    assert not asked("init_from: runs/01\n"), "that model lies where it was trained"
    known = Job("job-1", JobRole.TRAIN, 1)
    assert not asked(jobs={"job-1": known}) and asked("max_length: 8\n", jobs={"job-1": known})
    assert asked(jobs={"job-1": Job("job-1", JobRole.TRAIN, 1, refused=True)})


async def test_audit_and_data_take_the_cheapest_machine_without_a_gpu_that_has_the_memory() -> None:
    def on(*flavors: Flavor) -> Any:
        return machine_without_gpu(cast(World_, SimpleNamespace(runner=SimpleNamespace(flavors=lambda: flavors))))

    gpu, small = Flavor("gpu", gpus=1, usd_per_hour=0.005), Flavor("small", memory_gib=2, usd_per_hour=0.01)
    large, larger = Flavor("large", memory_gib=16, usd_per_hour=0.02), Flavor("xl", memory_gib=32, usd_per_hour=0.04)
    assert (await on(gpu, small, larger, large)).flavor == "large"
    assert await on(gpu, Flavor("here")) == Hardware(), "without prices a backend knows best"


async def test_training_set_is_built_without_a_gpu_unless_a_team_wrote_the_script() -> None:
    flavors = (Flavor("gpu", gpus=1, usd_per_hour=4.0), Flavor("cpu", memory_gib=16, usd_per_hour=0.01))
    runner, hardware = SimpleNamespace(flavors=lambda: flavors), Hardware(flavor="gpu", gpus=1)
    world = cast(World_, SimpleNamespace(runner=runner, hardware=hardware))
    x = Experiment(GoalId("acme/lab#1"), recipe_digests={"train.py": "own", "data/prepare.py": "a"})
    x.shipped_digests = {"train.py": "t", "data/prepare.py": "a"}

    async def machine(role: JobRole) -> Hardware | None:
        return await light_machine(world, x, role, 1)

    assert await machine(JobRole.DATA) == Hardware(flavor="cpu")
    assert await machine(JobRole.AUDIT) == Hardware(flavor="cpu")
    assert await machine(JobRole.TRAIN) is None and await machine(JobRole.EVALUATE) is None
    assert await machine_price(world, "cpu") == 0.01 and await machine_price(world) == 4.0
    x.recipe_digests["data/prepare.py"] = "of the team"
    assert await machine(JobRole.DATA) == Hardware(), "what a team's script needs is not known"


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
