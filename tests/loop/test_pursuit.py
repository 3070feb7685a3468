"""Whole pursuits: the real bot's process on the practice forge, with a runner whose outcomes are scripted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.world import GOOD, REPOSITORY, World, goal_body, practice_world


def checks_on(world: World, ref: str) -> list[dict[str, object]]:
    return list(world.api("ada", "GET", f"/repos/{REPOSITORY}/commits/{ref}/check-runs")["check_runs"])


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world for goals that come to nothing."""
    with practice_world(tmp_path_factory.mktemp("idle")) as found:
        found.start()
        found.wait_ready()
        yield found


@pytest.fixture(scope="module")
def met(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, int]]:
    """A world whose one goal fell short at first and was met then: (world, issue)."""
    with practice_world(tmp_path_factory.mktemp("met")) as found:
        found.start()
        found.wait_ready()
        issue = found.open_goal()
        assert found.until_ended(issue) == "met"
        yield found, issue


def test_goal_that_falls_short_once_is_met_and_confirmed(met: tuple[World, int]) -> None:
    world, issue = met
    [pull] = world.pulls()
    assert pull["draft"] is False
    assert pull["state"] == "open"
    assert [name.split("/")[-1] for name in keys(world.bot_comments(issue))] == ["contract"]
    sticky, ending = keys(world.bot_comments(pull["number"]))
    assert sticky.endswith("/sticky")
    assert "/ending/" in ending
    first, second = world.reviews(pull["number"])
    assert first["state"] == second["state"] == "COMMENTED"
    assert "Cannot tell this run from the untouched base model" in first["body"]
    assert "2.0 % (95 % interval 0.8 to 5.0 %, n = 200" in first["body"]
    assert "Better than the untouched base model" in second["body"]
    log = world.branch_log(pull["head"]["ref"])
    assert len(log) == 3
    assert all(line.startswith("postdoc[bot]: ") for line in log)


def test_diagnosis_is_a_suggestion_on_the_line_it_blames(met: tuple[World, int]) -> None:
    world, _ = met
    [pull] = world.pulls()
    comment = world.review_comments(pull["number"])[0]
    assert comment["path"] == "experiments/0001-reverse/recipe.yaml"
    assert comment["original_line"] == line_number(world, comment["original_commit_id"], "learning_rate")
    assert "```suggestion\nlearning_rate: 0.003\n```" in comment["body"]
    assert "**D1 · `plateau`**" in comment["body"]


def test_each_run_has_one_check_with_a_meaning(met: tuple[World, int]) -> None:
    world, issue = met
    started = [event["data"]["head_sha"] for event in world.events(issue) if event["kind"] == "run_started"]
    conclusions = [checks_on(world, sha)[0]["conclusion"] for sha in started]
    assert conclusions == ["neutral", "success"]
    [verdict] = checks_on(world, world.pulls()[0]["head"]["sha"])
    assert verdict["conclusion"] == "success"
    assert "confirmed on the sealed test" in str(verdict["output"]["title"])  # type: ignore[index]


def test_committed_evaluation_carries_no_benchmark_text(met: tuple[World, int]) -> None:
    world, _ = met
    ref = world.pulls()[0]["head"]["ref"]
    found = world.file(ref, "experiments/0001-reverse/runs/02/evaluation.json")
    assert '"score"' in found
    assert "reverse " not in found
    assert '"prompt"' not in found
    assert '"status": "succeeded"' not in world.file(ref, "experiments/0001-reverse/README.md")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"Base_model": "nobody/no-such-model"}, "no-such-model"),
        ({"Benchmark": "practice/backwards"}, "practice/"),
        ({"Target": "-5 %"}, "-5"),
        ({"Target": "140 %"}, "140"),
        ({"Budget_in_runs": "-3"}, "-3"),
        ({"Training_data": "../../etc/passwd"}, "passwd"),
        ({"Training_data": "data/nothing-here.jsonl"}, "nothing-here"),
        ({"Starting_recipe": "```yaml\na: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n```"}, ""),
        ({"Starting_recipe": "```yaml\nlearning_rate: quick\n```"}, "learning_rate"),
        ({"Target": "x" * 60_000}, ""),
    ],
    ids=["model", "benchmark", "negative", "above", "budget", "escape", "missing", "bomb", "word", "long"],
)
def test_goal_with_nonsense_gets_one_clear_comment_and_nothing_else(
    idle: World, fields: dict[str, str], says: str
) -> None:
    world = idle
    issue = world.open_goal(goal_body(**fields))
    world.until_event(issue, "contract_read")
    [body] = world.bot_comments(issue)
    assert says in body
    assert "Traceback" not in body
    assert len(body) < 6_000
    assert world.pulls() == []
    assert world.runner.launches() == []
    assert world.state(issue) == "needs author"


def test_target_below_the_baseline_gets_one_comment_and_no_pull_request(world: World) -> None:
    world.runner.script({"baseline-00": {"value": 0.4}})
    issue = world.open_goal(goal_body(Target="30 %"))
    world.until_event(issue, "refused")
    [body] = world.bot_comments(issue)
    assert "40.0 %" in body
    assert "higher target" in body
    assert world.pulls() == []


def test_refused_goal_that_is_edited_is_read_again_in_the_same_comment(world: World) -> None:
    issue = world.open_goal(goal_body(Target="140 %"))
    world.until_event(issue, "contract_read")
    world.api("ada", "PATCH", f"/repos/{REPOSITORY}/issues/{issue}", json={"body": goal_body()})
    assert world.until_ended(issue) == "met"
    assert len(world.bot_comments(issue)) == 1


def test_second_goal_opened_while_the_first_trains_is_pursued_too(world: World) -> None:
    world.runner.script(GOOD | {"train-01": {"curve": "flat", "hold": True}})
    first = world.open_goal()
    world.until_event(first, "run_started")
    second = world.open_goal(goal_body(Benchmark="practice/upper"), title="Another goal")
    world.until_event(second, "run_started")
    assert world.state(first) == "training"
    world.runner.release("train-01")
    assert world.until_ended(first) == world.until_ended(second) == "met"
    assert len(world.pulls()) == 2


def test_remedies_that_do_not_help_end_in_a_spent_budget(world: World) -> None:
    flat = {f"train-{n:02d}": {"curve": "flat"} for n in range(1, 5)}
    low = {f"evaluate-{n:02d}": {"value": 0.01 * n} for n in range(1, 5)}
    world.runner.script(GOOD | flat | low)
    issue = world.open_goal(goal_body(Budget_in_runs="2"))
    assert world.until_ended(issue) in ("exhausted", "needs human")
    ending = world.bot_comments(world.pulls()[0]["number"])[-1]
    assert "not reached" in ending
    assert "`plateau`" in ending


def test_failed_seal_is_said_and_never_asked_again(world: World) -> None:
    world.runner.script(GOOD | {"confirm-02": {"value": 0.7}})
    issue = world.open_goal()
    assert world.until_ended(issue) == "not confirmed"
    pull = world.pulls()[0]["number"]
    assert "70.0 %" in world.bot_comments(pull)[-1]
    world.comment(pull, "/postdoc resume +2")
    world.until_event(issue, "command_answered")
    assert sum("confirm" in job for job in world.runner.launches()) == 1
    assert world.state(issue) == "not confirmed"


def test_crashed_training_is_diagnosed_and_never_called_a_success(world: World) -> None:
    log = "Traceback (most recent call last):\nRuntimeError: DefaultCPUAllocator: can't allocate memory: you tried to"
    world.runner.script(GOOD | {"train-01": {"fail": log}})
    issue = world.open_goal()
    assert world.until_ended(issue) == "met"
    diagnosed = world.first(issue, "diagnosed")
    assert diagnosed["score"] is None
    assert diagnosed["report"]["diagnoses"][0]["symptom"] == "oom"
    revised = world.first(issue, "revised")
    assert revised["changed"] == {"gradient_accumulation_steps": [None, 2], "per_device_train_batch_size": [32, 16]}
    assert checks_on(world, world.first(issue, "run_started")["head_sha"])[0]["conclusion"] == "failure"


def test_lost_job_is_launched_again_and_the_recipe_not_blamed(world: World) -> None:
    world.runner.script(GOOD | {"baseline-00": {"state": "lost", "value": 0.0}})
    issue = world.open_goal()
    world.until_event(issue, "crashed")
    world.until_ended(issue)
    assert [job[-1] for job in world.runner.launches()] == ["1", "2", "3"]
    [_, ending] = world.bot_comments(issue)
    assert "could not be evaluated" in ending


def test_contaminated_training_data_is_refused_before_any_training(world: World) -> None:
    leaked = world.dev_item("practice/reverse")
    row = {
        "prompt": [{"role": "user", "content": leaked[0]}],
        "completion": [{"role": "assistant", "content": leaked[1]}],
    }
    world.runner.script(GOOD | {"data-01": {"rows": [row] * 5}})
    issue = world.open_goal()
    world.until_event(issue, "refused")
    [body] = world.bot_comments(issue)
    assert "5 of 5 training rows" in body
    assert leaked[0] not in body
    assert not any("train" in job for job in world.runner.launches())


def test_unknown_licence_is_refused_with_the_line_to_add(world: World) -> None:
    world.commit("data/README.md", "# Rows without a licence\n")
    issue = world.open_goal()
    world.until_event(issue, "refused")
    [body] = world.bot_comments(issue)
    assert "license:" in body
    assert "data/README.md" in body


def test_without_a_granting_policy_a_person_agrees_first(tmp_path: Path) -> None:
    with practice_world(tmp_path, policy=None) as world:
        world.start()
        world.wait_ready()
        issue = world.open_goal()
        asked = world.until_event(issue, "consent_asked")["data"]["head_sha"]
        pull = world.pulls()[0]["number"]
        assert f"/postdoc run {asked[:12]}" in world.bot_comments(pull)[-1]
        assert [job for job in world.runner.launches() if "data" not in job] == []
        world.comment(pull, "/postdoc run 0123456789ab")
        world.until_event(issue, "command_answered")
        assert not any(event["kind"] == "consented" for event in world.events(issue))
        world.comment(pull, f"/postdoc run {asked[:12]}", login="mallory")
        world.until_event(issue, "command_answered", 2)
        assert not any(event["kind"] == "consented" for event in world.events(issue))
        world.comment(pull, f"/postdoc run {asked[:12]}", login="bob")
        assert world.until_ended(issue) == "met"


def test_goal_of_somebody_without_permission_is_refused(world: World) -> None:
    payload = {"title": "Mine", "body": goal_body()}
    number = int(world.api("mallory", "POST", f"/repos/{REPOSITORY}/issues", json=payload)["number"])
    assert world.events(number) == []
    world.api("ada", "POST", f"/repos/{REPOSITORY}/issues/{number}/labels", json={"labels": ["postdoc"]})
    assert world.until_ended(number) == "met"  # ada labelled it, so ada asks


def keys(bodies: list[str]) -> list[str]:
    return [body.split("-->")[0].removeprefix("<!-- postdoc:").strip() for body in bodies]


def line_number(world: World, ref: str, key: str) -> int:
    lines = world.file(ref, "experiments/0001-reverse/recipe.yaml").splitlines()
    return next(i for i, line in enumerate(lines, start=1) if line.startswith(f"{key}:"))
