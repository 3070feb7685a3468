"""A recipe that its machine has too little memory for: said before anything is paid, on the line, with what fits."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bot.conversation import messages
from bot.domain.experiment import EventKind
from bot.errors import PlatformError
from bot.loop.action import ActionKind
from bot.loop.actions.consent import ask_consent
from bot.loop.actions.planning import plan_facts
from bot.loop.hardware import hardware_facts
from bot.loop.policy import next_action
from bot.loop.spending import consent_missing, data_key, memory_unfit, policy_covers
from runners.job import Flavor, Hardware
from tests.conversation.conftest import RECIPE, SHA, Story, make_goal
from tests.runners.test_hardware_shape import QWEN3_17B
from tests.world import World, practice_world

L4 = {"name": "l4x1", "gpus": 1, "gpu_model": "nvidia-l4", "gpu_memory_gib": 24.0, "usd_per_hour": 0.8}
A100 = {"name": "a100-large", "gpus": 1, "gpu_model": "nvidia-a100", "gpu_memory_gib": 80.0, "usd_per_hour": 2.5}


HERE: Any = SimpleNamespace(machine="the machine")
GRANT: dict[str, Any] = {"consent": {"auto_approve": {"runs": 6, "gpu_hours": 2, "usd": 5}}}


def facts(*flavors: dict[str, object], config: dict[str, Any] = QWEN3_17B) -> dict[str, Any]:
    return {
        "config": config, "parameters": None, "rows": 5_000, "longest_bytes": 9_000, "mean_bytes": 1_000.0,
        "flavors": list(flavors), "memory_cap_gib": 8.0, "cores": 2,
    }  # fmt: skip


def proposed(*flavors: dict[str, object], recipe: str = RECIPE, **more: Any) -> Story:
    """A pull request whose data has been checked on these machines, under a policy that grants its spending."""
    story = Story().opened().contracted(make_goal(recipe=recipe), **GRANT).proposed()
    story.events[1].data["recipe"] = recipe  # type: ignore[index]
    return story.add(EventKind.DATA_CHECKED, data_key=data_key(recipe, {}), hardware=facts(*flavors, **more))


def test_what_does_not_fit_is_not_covered_by_a_policy_and_is_by_a_person() -> None:
    story = proposed(L4, A100)
    x = story.experiment()
    why = policy_covers(x)
    assert why is not None and "does not fit: it needs about" in why and "l4x1 has 23.3 GiB" in why
    action = next_action(x)
    assert action is not None and action.kind is ActionKind.ASK_CONSENT
    envelope = {
        "goal_hash": x.goal.hash if x.goal else "",
        "ceilings": {"runs": 4, "gpu_hours": 1.0, "wall_hours": 24.0},
    }
    by_policy = Story()
    by_policy.events = [*story.events]
    by_policy.add(EventKind.CONSENTED, by="policy", head_sha=SHA[0], envelope=envelope)
    assert "does not fit" in (consent_missing(by_policy.experiment(), keys=()) or "")
    story.add(EventKind.CONSENTED, by="alice", head_sha=SHA[0], envelope=envelope)
    assert consent_missing(story.experiment(), keys=()) is None, "an estimate may be wrong, and she has been told"


def test_what_fits_asks_nobody() -> None:
    x = proposed(A100, L4).experiment()
    assert memory_unfit(x) is None and policy_covers(x) is None
    tiny = {"name": "local", "memory_gib": 16.0, "cpus": 2}
    small = {**QWEN3_17B, "hidden_size": 96, "num_hidden_layers": 3, "intermediate_size": 256, "vocab_size": 400}
    assert memory_unfit(proposed(tiny, config=small).experiment()) is None
    assert memory_unfit(proposed(tiny).experiment()) is not None


def test_blame_is_on_the_line_with_the_settings_that_fit_and_the_machine_that_would() -> None:
    recipe = RECIPE + "per_device_train_batch_size: 64\nuse_peft: true\nload_in_4bit: true\n"
    unfit = memory_unfit(proposed(L4, A100, recipe=recipe).experiment())
    assert unfit is not None
    diagnosis, changes = unfit
    assert diagnosis.key == "per_device_train_batch_size" and diagnosis.line == 5
    assert diagnosis.suggested == changes["per_device_train_batch_size"] < 64
    assert changes["gradient_accumulation_steps"] * diagnosis.suggested == 64
    assert "a100-large (78 GiB, about" in diagnosis.cause and "alone)" in diagnosis.cause


def test_run_that_needed_as_much_and_ended_well_proves_the_estimate_wrong() -> None:
    story = proposed(L4)
    assert memory_unfit(story.experiment()) is not None
    story.trained(1)
    assert memory_unfit(story.experiment()) is None


def test_plan_prices_the_first_run_by_estimate_and_says_so() -> None:
    x = proposed(A100, L4).experiment()
    found = plan_facts(HERE, x)
    assert found["estimated"] and found["seconds_per_run"] > 60 and found["usd_per_run"] > 0.05
    said = messages.plan(x, messages.PlanFacts(**found))
    assert "(estimated: no run has been timed yet)" in said and "by estimate, of 77.6 GiB |" in said
    timed = proposed(A100, L4).trained(1).experiment()
    assert not plan_facts(HERE, timed)["estimated"] and plan_facts(HERE, timed)["seconds_per_run"] == 23.0


def test_without_facts_nothing_is_claimed() -> None:
    x = Story().opened().contracted(**GRANT).proposed().experiment()
    found = plan_facts(HERE, x)
    assert (found["memory"], found["seconds_per_run"], found["estimated"]) == ("", None, False)
    assert memory_unfit(proposed({"name": "scripted"}).experiment()) is None
    broken = proposed(L4, recipe="per_device_train_batch_size: many\n").experiment()
    assert memory_unfit(broken) is None, "the script says what is wrong with such a recipe"


class Repository:
    """Remembers what is written."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.reviews: list[dict[str, Any]] = []

    async def upsert_comment(self, number: int, key: str, body: str, **_: Any) -> int:
        self.said.append(body)
        return 1

    async def create_check(self, **_: Any) -> int:
        return 7

    async def review(self, number: int, **review: Any) -> int:
        self.reviews.append(review)
        return 8


async def test_question_comes_with_a_review_on_the_line() -> None:
    recipe = RECIPE + "gradient_checkpointing: false\nper_device_train_batch_size: 16\ndtype: bfloat16\n"
    x = proposed(L4, recipe=recipe).experiment()
    repository = Repository()
    world: Any = SimpleNamespace(repository=lambda _: repository, runner=None, machine="this", buttons=True)
    action = next_action(x)
    assert action is not None
    await ask_consent(world, x, action)
    [review] = repository.reviews
    [comment] = review["comments"]
    assert (comment.path, comment.line) == ("experiments/0042-reverse/recipe.yaml", 5)
    assert "```suggestion\ngradient_checkpointing: true\n```" in comment.body
    assert "/postdoc set gradient_checkpointing=true" in comment.body
    assert "does not fit" in repository.said[0]


async def test_facts_are_noted_from_the_model_the_rows_and_the_runner(tmp_path: Path) -> None:
    config = QWEN3_17B | {"id2label": {str(n): "x" * 50 for n in range(500)}, "layer_types": ["full_attention"] * 28}
    (tmp_path / "config.json").write_text(json.dumps(config))
    rows: list[dict[str, Any]] = [
        {"prompt": "abc", "completion": "de"},
        {"messages": [{"role": "user", "content": "é" * 10}]},
    ]
    runner: Any = SimpleNamespace(name="local", flavors=lambda: (Flavor("local", memory_gib=8.0),))
    found = await hardware_facts(runner, tmp_path, rows, memory_cap_gib=4.0, cores=2, wanted=Hardware(1))
    assert found is not None and found == json.loads(json.dumps(found))
    assert (found["rows"], found["longest_bytes"], found["mean_bytes"]) == (2, 24, 14.5)
    assert "id2label" not in found["config"] and found["flavors"][0]["name"] == "local"
    assert len(json.dumps(found)) < 2_000


@pytest.mark.parametrize(
    ("runner", "wanted", "first", "gpus"),
    [
        ("hf_jobs", Hardware(flavor="a100-large"), "a100-large", 1),
        ("ray", Hardware(), "l4x1", 0),
        ("ray", Hardware(1, flavor="a100-large"), "a100-large", 1),
    ],
)
async def test_machine_is_the_one_that_a_job_asks_for(
    tmp_path: Path, runner: str, wanted: Hardware, first: str, gpus: int
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN3_17B))
    offered = [Flavor(**L4), Flavor(**A100)]  # type: ignore[arg-type]
    backend: Any = SimpleNamespace(name=runner, flavors=lambda: offered)
    found = await hardware_facts(backend, tmp_path, [], memory_cap_gib=4.0, cores=1, wanted=wanted)
    assert found is not None
    assert (found["flavors"][0]["name"], found["flavors"][0]["gpus"]) == (first, gpus)


@pytest.mark.parametrize("config", ["{", '{"model_type": "qwen3"}'])
async def test_model_that_says_nothing_leaves_no_facts(tmp_path: Path, config: str) -> None:
    (tmp_path / "config.json").write_text(config)
    runner: Any = SimpleNamespace(name="local", flavors=lambda: ())
    assert await hardware_facts(runner, tmp_path, [], memory_cap_gib=4.0, cores=1, wanted=Hardware()) is None


async def test_backend_that_does_not_answer_costs_the_estimate_and_nothing_else(tmp_path: Path) -> None:
    def silent() -> Any:
        raise PlatformError("no answer")

    (tmp_path / "config.json").write_text(json.dumps(QWEN3_17B))
    runner: Any = SimpleNamespace(name="local", flavors=silent)
    found = await hardware_facts(runner, tmp_path, [], memory_cap_gib=4.0, cores=1, wanted=Hardware())
    assert found is not None and found["flavors"] == []


def with_hardware(world: World, *flavors: dict[str, object]) -> None:
    """The goal's model has 1.7 billion parameters now, by its configuration."""
    (world.folder / "models" / "postdoc" / "tiny-test" / "config.json").write_text(json.dumps(QWEN3_17B))
    (world.runner.root / "flavors.json").write_text(json.dumps({"flavors": flavors}))


def test_recipe_that_does_not_fit_waits_for_a_person_and_one_that_does_goes_on(tmp_path: Path) -> None:
    with practice_world(tmp_path, settings={"POSTDOC_JOB_GPUS": "1"}) as world:
        free = {"usd_per_hour": None}  # the goal has no money
        with_hardware(world, L4 | free, A100 | free)
        world.start()
        world.wait_ready()
        issue = world.open_goal()
        world.until_event(issue, "consent_asked")
        pull = world.pulls()[0]["number"]
        assert not any("train" in job for job in world.runner.launches()), "nothing is paid before somebody was told"
        contract, plan = world.bot_comments(issue)[0], world.pulls()[0]["body"]
        assert "GiB by estimate, of 23.3 GiB: it does not fit" in contract and "does not fit" in plan
        question = next(text for text in world.bot_comments(pull) if "May I train" in text)
        assert "l4x1 has 23.3 GiB" in question and "a100-large (78 GiB)" in question
        review = world.reviews(pull)[0]
        said = [comment["body"] for comment in world.review_comments(pull)] + [review["body"]]
        assert review["state"] == "COMMENTED" and "does not fit on its machine" in review["body"]
        assert any("/postdoc set use_peft=true" in text for text in said)
        world.comment(pull, "/postdoc set use_peft=true lora_target_modules=all-linear")
        world.until_event(issue, "run_started")
        assert world.first(issue, "consented")["by"] == "policy", "what fits is covered by the policy again"
