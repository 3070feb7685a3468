"""The recipe that runs first: a row of the table, or the goal's own with what it leaves open taken from the row."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from bot.brain.playbook import StartingRecipe, fitting_row, starting_recipe
from tests.brain.place import goal

TINY = {"family": "qwen3", "parameters": 3.3e5}
LORA = fitting_row(**TINY, method="sft", peft=True)  # type: ignore[arg-type]


def started(recipe: str | None, method: str = "sft", **fields: Any) -> StartingRecipe:
    size = {key: fields.pop(key, value) for key, value in TINY.items()}
    return starting_recipe(goal(recipe=recipe, method=method, **fields), **size, data_source="data/rows.jsonl")


def values(found: StartingRecipe) -> dict[str, Any]:
    return dict(yaml.safe_load(found.text))


def test_brought_recipe_is_completed_from_the_row_of_its_kind() -> None:
    found = started("use_peft: true\n")
    trained = {key: value for key, value in LORA.recipe.items() if key != "save_strategy"}
    assert {key: value for key, value in values(found).items() if key in LORA.recipe} == trained
    assert found.source.startswith("brought by the goal, completed (learning_rate, ")
    assert found.source.endswith(LORA.source)


def test_every_brought_value_stays_however_bad_it_is() -> None:
    brought = "learning_rate: 2.0e-05\nwarmup_steps: 0.1\nnum_train_epochs: 1\nper_device_train_batch_size: 16\n"
    found = values(started(brought))
    assert {key: found[key] for key in yaml.safe_load(brought)} == yaml.safe_load(brought)
    assert "max_steps" not in found, "it would win over the epochs"
    assert "use_peft" not in found


@pytest.mark.parametrize(
    ("method", "family", "parameters", "brought", "left_out"),
    [
        ("sft", "llama", 8e9, "use_peft: true\nper_device_train_batch_size: 8\n", "gradient_accumulation_steps"),
        ("sft", "llama", 8e9, "optim: sgd\n", "learning_rate"),
        ("sft", "llama", 8e9, "use_peft: true\nlora_r: 64\n", "lora_alpha"),
        ("sft", "llama", 8e9, "use_peft: true\n", "load_in_8bit"),
        ("grpo", "qwen3", 3.3e5, "num_generations: 6\n", "per_device_train_batch_size"),
        ("pretrain", "qwen3", 3.3e5, "learning_rate: 1.0e-3\n", "from_scratch"),
        ("distill", "qwen3", 3.3e5, "teacher: org/teacher\non_policy: false\n", "beta"),
    ],
)
def test_what_goes_with_a_brought_value_is_not_taken_from_elsewhere(
    method: str, family: str, parameters: float, brought: str, left_out: str
) -> None:
    found = started(brought, method, family=family, parameters=parameters)
    assert left_out not in values(found)
    assert yaml.safe_load(brought).items() <= values(found).items()


def test_recipe_of_somebodys_own_script_is_left_alone() -> None:
    found = started("learning_rate: 2.0e-05\n", script="train/own.py")
    assert found.source == "brought by the goal"
    assert "max_steps" not in values(found)


def test_recipe_that_says_everything_is_simply_the_goals() -> None:
    found = started("".join(f"{key}: {value}\n" for key, value in LORA.recipe.items()))
    assert found.source == "brought by the goal"


def test_goal_without_a_recipe_takes_the_row() -> None:
    assert started(None).source == fitting_row(**TINY, method="sft").source  # type: ignore[arg-type]
