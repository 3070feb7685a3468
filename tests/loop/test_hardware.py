"""A recipe that its machine has too little memory for: said before anything is paid, on the line, with what fits."""

from __future__ import annotations

import json
from pathlib import Path

from tests.runners.test_hardware_shape import QWEN3_17B
from tests.world import World, practice_world

L4 = {"name": "l4x1", "gpus": 1, "gpu_model": "nvidia-l4", "gpu_memory_gib": 24.0, "usd_per_hour": 0.8}
A100 = {"name": "a100-large", "gpus": 1, "gpu_model": "nvidia-a100", "gpu_memory_gib": 80.0, "usd_per_hour": 2.5}


def with_hardware(world: World, *flavors: dict[str, object]) -> None:
    """The goal's model has 1.7 billion parameters now, by its configuration."""
    (world.folder / "models" / "postdoc" / "tiny-test" / "config.json").write_text(json.dumps(QWEN3_17B))
    (world.runner.root / "flavors.json").write_text(json.dumps({"flavors": flavors}))


def test_recipe_that_does_not_fit_waits_for_a_person_and_one_that_does_goes_on(tmp_path: Path) -> None:
    with practice_world(tmp_path) as world:
        with_hardware(world, L4, A100)
        world.start()
        world.wait_ready()
        issue = world.open_goal()
        world.until_event(issue, "consent_asked")
        pull = world.pulls()[0]["number"]
        assert not any("train" in job for job in world.runner.launches()), "nothing is paid before somebody was told"
        contract, plan = world.bot_comments(issue)[0], world.pulls()[0]["body"]
        assert "GiB by estimate, of 23.3 GiB: it does not fit" in contract and "does not fit" in plan
        question = next(text for text in world.bot_comments(pull) if "May I train" in text)
        assert "l4x1 has 23.3 GiB" in question and "a100-large (78 GiB, about" in question
        review = world.reviews(pull)[0]
        said = [comment["body"] for comment in world.review_comments(pull)] + [review["body"]]
        assert "does not fit on its machine" in review["body"] and any("/postdoc set use_peft=true" in text for text in said)
        assert review["state"] == "COMMENTED"
        world.comment(pull, "/postdoc set use_peft=true lora_target_modules=all-linear")
        world.until_event(issue, "run_started")
        assert world.first(issue, "consented")["by"] == "policy", "what fits is covered by the policy again"


def test_person_who_was_told_may_train_it_all_the_same(tmp_path: Path) -> None:
    with practice_world(tmp_path) as world:
        with_hardware(world, L4)
        world.start()
        world.wait_ready()
        issue = world.open_goal()
        world.until_event(issue, "consent_asked")
        world.comment(world.pulls()[0]["number"], "/postdoc run")
        world.until_event(issue, "run_started")
        assert world.first(issue, "consented")["by"] == "ada"


def test_plan_prices_the_first_run_by_estimate(tmp_path: Path) -> None:
    with practice_world(tmp_path) as world:
        with_hardware(world, A100, L4)
        world.start()
        world.wait_ready()
        issue = world.open_goal()
        world.until(world.pulls, "the pull request")
        body = world.pulls()[0]["body"]
        assert "estimated: no run has been timed yet" in body and "USD" in body.partition("| One run |")[2].partition("\n")[0]
        assert "of 77.6 GiB |" in body and "does not fit" not in body
        world.until_event(issue, "run_started")
