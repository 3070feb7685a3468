"""What a recipe may set."""

from __future__ import annotations

import pytest
import yaml

from bot.conversation.recipe_rules import NUMBERS, key_problem, path_problem, recipe_problems, setting_problem


@pytest.mark.parametrize("key", NUMBERS)
def test_every_example_in_a_message_is_itself_allowed(key: str) -> None:
    assert setting_problem(key, yaml.safe_load(NUMBERS[key].example)) is None


@pytest.mark.parametrize("key", NUMBERS)
def test_values_outside_every_range_are_refused(key: str) -> None:
    limits = NUMBERS[key]

    assert setting_problem(key, limits.high) is None
    assert setting_problem(key, limits.high * 2 + 1) is not None
    assert (setting_problem(key, limits.low) is None) != limits.open_low
    assert setting_problem(key, float("nan")) is not None


@pytest.mark.parametrize(
    "text",
    [
        "learning_rate: 2e-5\nnum_train_epochs: 3\nmax_length: null\npacking: false\noptim: adamw_torch_fused\n",
        "# a card's recipe\nmethod: sft\nlr_scheduler_type: cosine  # decays\neos_token: <|im_end|>\nlora_r: 16\n",
        "trust_remote_code: false\npush_to_hub: false\nreport_to: none\n",
        "data_sources: data/a.jsonl, data/b.jsonl\ndata_prompt_column: question\n",
    ],
)
def test_usual_recipes_pass(text: str) -> None:
    assert recipe_problems(text) == []


def test_keys_that_postdoc_wrote_may_stand_but_not_change() -> None:
    standing = {"init_from": "postdoc/tiny-qwen3", "learning_rate": 0.001}

    assert recipe_problems("init_from: postdoc/tiny-qwen3\nlearning_rate: 0.01\n", standing=standing) == []
    (problem,) = recipe_problems("learning_rate: 0.01\ninit_from: evil/model\n", standing=standing)
    assert problem.startswith("Recipe, line 2: `init_from` cannot be set")
    assert len(recipe_problems("init_from: postdoc/tiny-qwen3\n")) == 1


def test_indented_keys_are_refused_because_no_comment_could_stand_on_them() -> None:
    assert "line of its own" in recipe_problems("  learning_rate: 0.01\n")[0]


@pytest.mark.parametrize("key", ["hub_model_id", "hf_token", "wandb_api_key", "db_password", "aws_secret", "token"])
def test_secrets_and_hub_settings_are_refused(key: str) -> None:
    assert key_problem(key) is not None


@pytest.mark.parametrize("key", ["eos_token", "pad_token", "max_completion_length", "learning_rate", "some_new_option"])
def test_other_keys_are_free(key: str) -> None:
    assert key_problem(key) is None


@pytest.mark.parametrize("path", ["data/train.jsonl", "data", "a/b/c.d-e_f/x.jsonl", "data/"])
def test_paths_inside_the_repository_pass(path: str) -> None:
    assert path_problem(path) is None


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/a",
        "~/a",
        "../a",
        "a/../b",
        "./a",
        "a//b",
        "a\\b",
        "C:/a",
        "s3://a/b",
        "hf:a",
        "a b",
        "a;b",
        "-a",
        ".git/config",
        "a\nb",
        "a\x00b",
        "é.jsonl",
        "a/" * 20,
        "x" * 300,
        "www.example.org/a",
        "a/.github/x",
    ],
)
def test_paths_that_could_leave_or_mislead_are_refused(path: str) -> None:
    assert path_problem(path) is not None
