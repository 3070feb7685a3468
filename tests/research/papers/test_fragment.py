"""A paper's stage as keys of recipe.yaml, each with its source."""

from __future__ import annotations

import dataclasses

import pytest

from bot.errors import UserError
from bot.research.papers.fragment import _KEYS, to_recipe
from tests.research.papers.test_recipe import of


def test_values_become_keys_of_the_script_with_their_sources() -> None:
    sentence = "We use AdamW in bf16 with a constant learning rate of 1e-5, 10% warmup and a global batch size of 64."
    found = to_recipe(of(sentence), "sft")
    assert {key: source.value for key, source in found.values.items()} == {
        "learning_rate": 1e-5,
        "warmup_steps": 0.1,
        "lr_scheduler_type": "constant_with_warmup",
        "optim": "adamw_torch",
        "bf16": True,
    }
    assert found.values["learning_rate"].quote == sentence
    assert found.values["learning_rate"].section == "SFT"
    assert found.values["learning_rate"].url == "https://arxiv.org/abs/2401.00001"
    assert {key: source.value for key, source in found.beside.items()} == {"global_batch_size": 64}


def test_a_models_own_values_win_over_those_of_all() -> None:
    recipe = of(
        "We train the 7B model with a learning rate of 1e-5 and the 70B model with a learning rate of 5e-6.",
        "We train for 2 epochs.",
    )
    assert {key: source.value for key, source in to_recipe(recipe, "sft", variant="70B").values.items()} == {
        "learning_rate": 5e-6,
        "num_train_epochs": 2,
    }
    assert set(to_recipe(recipe, "sft").values) == {"num_train_epochs"}


def test_variants_of_a_method_say_their_loss() -> None:
    found = to_recipe(of("DAPO uses a learning rate of 1e-6 and 16 rollouts per prompt.", title="DAPO"), "dapo")
    assert found.method == "grpo"
    assert found.values["loss_type"].value == "dapo"
    assert found.values["num_generations"].value == 16


def test_adapters_are_switched_on_by_their_rank() -> None:
    found = to_recipe(of("We use LoRA with rank 16 and a learning rate of 1e-4."), "sft")
    assert found.values["use_peft"].value is True
    assert "LoRA with rank 16" in found.values["use_peft"].quote


def test_a_contradicted_key_is_open_and_has_no_value() -> None:
    found = to_recipe(of("The learning rate is 1e-5.", "The learning rate is 2e-5."), "sft")
    assert found.open == ("learning_rate",)
    assert "learning_rate" not in found.values


def test_a_stage_that_is_not_there_or_has_no_script_says_which_are() -> None:
    with pytest.raises(UserError, match="It tells sft"):
        to_recipe(of("The learning rate is 1e-5."), "dpo")
    with pytest.raises(UserError, match="No script of ours trains `ppo`"):
        to_recipe(of("The learning rate is 1e-5.", title="PPO"), "ppo")


@pytest.mark.slow
def test_keys_are_those_of_trl() -> None:
    from trl import DPOConfig, GRPOConfig, ModelConfig, RewardConfig, SFTConfig

    configs = {"sft": SFTConfig, "dpo": DPOConfig, "grpo": GRPOConfig, "reward": RewardConfig}
    model = {field.name for field in dataclasses.fields(ModelConfig)}
    for method, config in configs.items():
        assert _KEYS[method] <= model | {field.name for field in dataclasses.fields(config)}
