"""Every text method end to end for two steps on a base with random weights: what it writes, audits and refuses."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from tests.templates.conftest import Job, chat, chat_rows, pair_rows

pytestmark = pytest.mark.timeout(600)
ALWAYS = {"setup.json", "environment.json", "data_audit.json", "metrics.jsonl", "trainer_state.json", "model",
          "summary.json"}  # fmt: skip


def written(job: Job) -> set[str]:
    return {path.name for path in job.out.iterdir()}


def steps(job: Job) -> list[dict[str, Any]]:
    return [row for row in job.metrics if "loss" in row]


# --- GRPO -----------------------------------------------------------------------------------------------------------


def test_grpo_trains_on_its_rewards_and_records_the_true_objective_in_their_shadow(job: Job) -> None:
    job.data(chat_rows(40, "last"))
    job.data(chat_rows(8, "last", seed=7), "validation")
    job.run("--smoke", method="grpo", reward_functions="contains,ends", reward_weights="1,0.5", probe_rows=4)
    assert written(job) == ALWAYS | {"completions.jsonl"}
    last = steps(job)[-1]
    assert {"rewards/contains/mean", "rewards/ends/mean", "rewards/exact_match/mean", "entropy"} <= last.keys()
    assert {"completions/mean_length", "completions/clipped_ratio", "frac_reward_zero_std"} <= last.keys()
    paid = last["rewards/contains/mean"] + 0.5 * last["rewards/ends/mean"]
    assert last["reward"] == pytest.approx(paid, abs=1e-6), "the shadow is not paid for"
    audit = job.json("data_audit.json")
    assert audit["rows"] == 40 and audit["columns"] == ["prompt", "reference"] and audit["truncated_rows"] == 0
    assert audit["reward_check"]["contains"] == {"reference": 1.0, "wrong": 0.0, "errors": 0}
    assert audit["reward_check"]["ends"]["wrong"] == 1.0, "a form alone tells right from wrong answers by nothing"
    assert audit["steps_per_epoch"] == 20, "8 answers a step are two prompts"
    rows = job.lines("completions.jsonl")
    sampled = [row for row in rows if len(row["rewards"]) == 3]
    assert len(sampled) == 8 and len(rows) == 16
    assert {row["finish"] for row in rows} <= {"stop", "length"} and sampled[0]["step"] == 1
    assert job.json("summary.json")["method"] == job.json("setup.json")["method"] == "grpo"


OWN_REWARD = """
def nothing(prompts, completions, reference, **more):
    return [0.0 for _ in completions]

def broken(prompts, completions, answer, **more):
    return [float(text == right) for text, right in zip(completions, answer)]

def silent(prompts, completions, **more):
    return [None for _ in completions]

def backwards(prompts, completions, reference, **more):
    return [-float(one[-1]["content"] == right) for one, right in zip(completions, reference)]
"""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing", "reward nothing gives the data's own references nothing (mean 0 over 20 rows)"),
        ("broken", "reward broken cannot score the data's own references: TypeError"),
        ("silent", "reward silent cannot score the data's own references: it returns None or NaN"),
        ("backwards", "reward backwards gives the data's own references nothing (mean -1 over 20 rows)"),
        ("absent", "reward_functions names absent, and rewards.py has nothing, broken, silent, backwards"),
    ],
)
def test_grpo_refuses_a_reward_that_cannot_be_meant_before_any_step(job: Job, name: str, words: str) -> None:
    (job.path / "rewards.py").write_text(OWN_REWARD)
    job.data(chat_rows(20))
    assert words in job.refusal("--smoke", method="grpo", reward_functions=name)
    if name != "absent":
        assert job.json("data_audit.json")["reward_check"].keys() == {name}, "the evidence is there"
    assert not (job.out / "metrics.jsonl").exists()


def test_grpo_tries_the_examples_of_a_reward_and_goes_on_where_it_is_told_to(job: Job) -> None:
    shipped = job.path / "rewards.py"
    source = (Path(__file__).parents[2] / "templates" / "scripts" / "rewards.py").read_text()
    shipped.write_text(source.replace('("cba", "cba", 1.0), (" cba', '("cba", "cba", 0.5), (" cba', 1))
    job.data(chat_rows(20))
    assert "exact_match: 'cba' against 'cba' is worth [1.0], and should be 0.5" in job.refusal("--smoke", method="grpo")
    shipped.write_text(OWN_REWARD)
    job.run("--smoke", method="grpo", reward_functions="backwards", check_rewards=False)
    assert job.json("data_audit.json")["reward_check"]["backwards"]["reference"] == -1.0


# --- DPO and reward models ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["dpo", "reward"])
def test_preferences_are_trained_on_and_measured(job: Job, method: str) -> None:
    same = pair_rows(1, seed=5)[0]
    job.data([*pair_rows(30), same | {"rejected": same["chosen"]}])
    job.data(pair_rows(8, seed=7), "validation")
    job.run("--smoke", method=method, use_peft=True, lora_target_modules="all-linear", lora_r=2)
    assert written(job) == ALWAYS | {"adapter"} | ({"completions.jsonl"} if method == "dpo" else set())
    audit = job.json("data_audit.json")
    assert audit["rows"] == 31 and audit["chosen_equals_rejected_rows"] == 1 and audit["dropped_rows"] == 0
    assert audit["mean_rejected_tokens"] > audit["mean_chosen_tokens"] + 7, "the question is the longer answer"
    assert audit["template"]["train_prefix_equal_rows"] == audit["template"]["compared_rows"] == 31
    assert audit["lora"]["matched_modules"] == 21 and audit["lora"]["target_modules"] == ["all-linear"]
    assert audit["lora"]["trainable_parameters"] == job.json("setup.json")["trainable_parameters"]
    of_dpo = {"rewards/accuracies", "rewards/margins", "logps/chosen", "logps/rejected"}
    keys = of_dpo if method == "dpo" else {"accuracy", "margin"}
    assert keys <= steps(job)[-1].keys()
    assert any("eval_loss" in row for row in job.metrics)
    config = json.loads((job.out / "model" / "config.json").read_text())
    assert config["architectures"] == [{"dpo": "Qwen3ForCausalLM", "reward": "Qwen3ForSequenceClassification"}[method]]


def test_dpo_samples_what_it_rejects_and_keeps_it(job: Job) -> None:
    job.data(chat_rows(20))
    job.data(chat_rows(6, seed=7), "validation")
    job.run("--smoke", method="dpo", rejected_samples=2)
    pairs = job.lines("pairs.jsonl")
    assert {pair["split"] for pair in pairs} == {"train", "validation"}
    right = {row["prompt"][0]["content"]: row["completion"] for row in chat_rows(20) + chat_rows(6, seed=7)}
    assert all(right[pair["prompt"][0]["content"]] == pair["chosen"] != pair["rejected"] for pair in pairs)
    assert job.json("data_audit.json")["rows"] == sum(pair["split"] == "train" for pair in pairs)
    assert "needs prompt, chosen and rejected" in job.refusal("--smoke", method="reward")


# --- Causal language modelling --------------------------------------------------------------------------------------


def test_pretraining_starts_from_random_weights_of_any_shape(job: Job) -> None:
    job.data([{"text": f"line {number} of a text"} for number in range(60)])
    job.data([{"text": "another line"}] * 20, "validation")
    shape = "hidden_size=48,head_dim=12,intermediate_size=96"
    job.run("--smoke", method="pretrain", from_scratch=True, config_overrides=shape)
    assert written(job) == ALWAYS, "the start that it made is gone"
    audit = job.json("data_audit.json")
    tokens = sum(17 + (number > 9) for number in range(60))
    assert audit["rows"] == 60 and audit["packing"] and audit["blocks"] == -(-tokens // 64)
    assert "packing_is_isolated" not in audit["attention"]
    assert 60_000 < job.json("setup.json")["parameters"] < 100_000
    assert steps(job)[0]["loss"] == pytest.approx(5.56, abs=0.15), "the logarithm of 260 tokens: nothing is known yet"
    assert "write from_scratch: true as well" in job.refusal("--smoke", method="pretrain", config_overrides=shape)


@pytest.mark.parametrize("packing", [True, False])
def test_loss_of_texts_is_the_mean_of_their_tokens_whichever_lie_in_a_batch(job: Job, packing: bool) -> None:
    job.data([{"text": "a few words " * 6}] * 4)
    job.data([{"text": "long text " * 6}] * 3 + [{"text": "zz"}] * 4, "validation")
    found = []
    for batch in (1, 3, 8):
        job.run(method="pretrain", packing=packing, max_steps=1, max_length=48, per_device_eval_batch_size=batch)
        found.append(next(row["eval_loss"] for row in job.metrics if "eval_loss" in row))
    assert found[1:] == pytest.approx([found[0]] * 2, rel=1e-4), "the mean of batches would be another one each time"


# --- What all of them share -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("strategy", "isolated"), [("bfd", True), ("wrapped", False)])
def test_audit_measures_whether_packed_rows_see_each_other(job: Job, strategy: str, isolated: bool) -> None:
    job.data(chat_rows(40))
    done = job.run("--smoke", packing=True, packing_strategy=strategy)
    assert job.json("data_audit.json")["attention"] == {"implementation": "sdpa", "packing_is_isolated": isolated}
    assert ("packed rows see each other" in done.output) is not isolated


@pytest.mark.parametrize(
    ("recipe", "untrained"),
    [
        ({}, []),
        ({"use_peft": True}, []),
        ({"use_peft": True, "train_added_tokens": False}, [260, 261]),
    ],
)
def test_tokens_that_a_recipe_adds_get_embeddings_and_are_trained(job: Job, recipe: dict, untrained: list[int]) -> None:
    job.data([chat(f"call {n}", f"<call>{n}</call>") for n in range(20)])
    job.run("--smoke", added_tokens="<call>, </call>", **recipe)
    vocabulary = job.json("data_audit.json")["vocabulary"]
    assert vocabulary == {"tokenizer": 262, "embeddings": 262, "largest_id": 261, "new_untrained_tokens": untrained}
    assert json.loads((job.out / "model" / "config.json").read_text())["vocab_size"] == 262
    assert "start" not in written(job)


def test_tokenizer_of_another_model_is_refused_with_what_it_lacks(job: Job, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    for file in job.base.iterdir():
        (foreign / file.name).write_bytes(file.read_bytes())
    tokenizer = json.loads((foreign / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append(tokenizer["added_tokens"][0] | {"id": 300, "content": "<far>"})
    tokenizer["model"]["vocab"]["<far>"] = 300
    (foreign / "tokenizer.json").write_text(json.dumps(tokenizer))
    job.data([chat("go", "<far>")] * 8)
    line = job.refusal("--smoke", init_from=foreign)
    assert "the data holds token id 300, and the model has 260 embeddings" in line
    assert job.json("data_audit.json")["vocabulary"]["largest_id"] == 300


def test_audit_sees_a_prompt_that_generation_will_render_otherwise(job: Job) -> None:
    plain: list[dict[str, Any]] = [{"prompt": f"reverse {n}", "completion": f"{n}"} for n in range(10)]
    job.data([*plain, {"prompt": "x", "completion": ""}])
    job.run("--smoke")
    audit = job.json("data_audit.json")
    assert audit["template"]["train_prefix_equal_rows"] == 0 and audit["template"]["compared_rows"] == 11
    assert audit["empty_completions"] == 1


def test_run_that_moves_no_weight_is_told_after_three_steps(job: Job) -> None:
    job.data(chat_rows(40))
    job.run(max_steps=3, learning_rate=1e-30, weight_decay=0.0)
    assert job.json("setup.json")["frozen_after_3_steps"] is True
    job.run(max_steps=3)
    assert job.json("setup.json")["frozen_after_3_steps"] is False


def test_settings_that_a_library_refuses_are_one_line(job: Job) -> None:
    job.data(chat_rows(8))
    assert "Target modules" in job.refusal("--smoke", use_peft=True, lora_target_modules="query")
    assert "init_from: there is no folder /nowhere" in job.refusal("--smoke", init_from=Path("/nowhere/at/all"))
    job.data([{"text": base64.b64encode(b"x").decode()}] * 8)
    assert "the dataset is not conversational" in job.refusal("--smoke", assistant_only_loss=True)


def test_grpo_counts_its_steps_and_is_not_frozen_by_answers_that_are_all_wrong(job: Job) -> None:
    """One round of answers serves two steps here, as in the published row for Qwen3."""
    job.data(chat_rows(2))
    job.run(
        method="grpo", per_device_train_batch_size=1, gradient_accumulation_steps=8, num_generations=16,
        generation_batch_size=16, num_train_epochs=1,
    )  # fmt: skip
    assert job.json("data_audit.json")["steps_per_epoch"] == job.json("setup.json")["max_steps"] == 4
    assert not any(row["grad_norm"] for row in steps(job))
    assert "frozen_after_3_steps" not in job.json("setup.json")
