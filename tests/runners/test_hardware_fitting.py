"""Memory, time and price of recipes on machines, and the settings that make one fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from bot.errors import UserError
from runners.hardware.estimate import CUDA_GIB, PARTS, MemoryEstimate, memory_of
from runners.hardware.fitting import Fit, Rows, changes_that_fit, cheapest, fit_on
from runners.hardware.gpus import gpu_named
from runners.hardware.shape import shape_of
from runners.hardware.time import Probe, steps_of
from runners.hardware.training import training_of
from runners.job import Flavor
from tests.runners.test_hardware_shape import LLAMA3_8B, QWEN3_17B

GIB = 2**30
L4 = Flavor("l4x1", 1, "nvidia-l4", 24.0, 30.0, 8.0, 0.8)
A100 = Flavor("a100-large", 1, "nvidia-a100", 80.0, 142.0, 12.0, 2.5)
H200 = Flavor("h200", 1, "nvidia-h200", 141.0, 256.0, 23.0, 5.0)
FLAVORS = (L4, A100, H200)
ROWS = Rows(7_500, 700, 300.0)
TINY = {
    "model_type": "qwen3", "hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4, "head_dim": 24,
    "num_key_value_heads": 2, "intermediate_size": 256, "vocab_size": 400, "tie_word_embeddings": True,
}  # fmt: skip


def memory(config: Mapping[str, Any], *, gpu: bool = True, **recipe: Any) -> MemoryEstimate:
    return memory_of(shape_of(config), training_of(recipe, gpu=gpu), gpu=gpu)


def fits(config: Mapping[str, Any], **recipe: Any) -> list[Fit]:
    return [fit_on(flavor, shape_of(config), recipe, ROWS) for flavor in FLAVORS]


# --- memory


def test_full_training_in_float32_takes_sixteen_bytes_a_parameter_beside_what_comes_and_goes() -> None:
    found = memory(LLAMA3_8B, per_device_train_batch_size=1, max_length=512)
    parameters = shape_of(LLAMA3_8B).parameters
    assert found.weights_gib == found.gradients_gib == pytest.approx(4 * parameters / GIB)
    assert found.optimizer_gib == pytest.approx(8 * parameters / GIB)
    assert found.total_gib == pytest.approx(16 * parameters / GIB, rel=0.1)


def test_total_is_the_parts_less_what_never_stands_together() -> None:
    found = memory(QWEN3_17B)
    assert found.total_gib == pytest.approx(sum(getattr(found, part) for part in PARTS) - found.overlap_gib)
    assert MemoryEstimate.from_dict(found.as_dict()) == found
    assert found.explain()[-1] == f"{found.total_gib:.2f} GiB in all"


def test_quantised_base_takes_a_seventh_and_its_adapter_little() -> None:
    whole = memory(LLAMA3_8B, dtype="bfloat16", use_peft=True, lora_target_modules="all-linear")
    small = memory(LLAMA3_8B, dtype="bfloat16", use_peft=True, lora_target_modules="all-linear", load_in_4bit=True)
    assert whole.weights_gib == pytest.approx(15.1, abs=0.1) and small.weights_gib == pytest.approx(5.7, abs=0.1)
    assert small.gradients_gib + small.optimizer_gib < 0.3


@pytest.mark.parametrize(
    ("optimizer", "bytes_each"),
    [("adamw_torch_fused", 8.0), ("paged_adamw_8bit", 2.03), ("lion_32bit", 4.0), ("sgd", 0.0)],
)
def test_optimizer_states(optimizer: str, bytes_each: float) -> None:
    found = memory(QWEN3_17B, optim=optimizer)
    assert found.optimizer_gib * GIB / shape_of(QWEN3_17B).parameters == pytest.approx(bytes_each, abs=0.01)


def test_what_costs_memory_costs_memory() -> None:
    base = memory(QWEN3_17B, gradient_checkpointing=False)
    assert memory(QWEN3_17B, gradient_checkpointing=True).activations_gib < 0.4 * base.activations_gib
    assert memory(QWEN3_17B, gradient_checkpointing=False, per_device_train_batch_size=16).activations_gib > (
        1.9 * base.activations_gib
    )
    eager = memory(QWEN3_17B, gradient_checkpointing=False, attn_implementation="eager")
    assert eager.activations_gib > 1.5 * base.activations_gib
    assert memory(QWEN3_17B, gradient_accumulation_steps=4).total_gib > memory(QWEN3_17B).total_gib


def test_preference_pairs_and_their_reference_model_are_counted() -> None:
    sft, dpo = memory(QWEN3_17B), memory(QWEN3_17B, method="dpo")
    assert dpo.weights_gib == 2 * sft.weights_gib and dpo.activations_gib > 1.9 * sft.activations_gib
    ahead = memory(QWEN3_17B, method="dpo", precompute_ref_log_probs=True)
    adapted = memory(QWEN3_17B, method="dpo", use_peft=True)
    assert ahead.weights_gib == sft.weights_gib and adapted.weights_gib == pytest.approx(sft.weights_gib, rel=0.01)


def test_generated_answers_have_a_cache_of_the_published_size() -> None:
    # 2 x 36 layers x 8 heads x 128 x 2 bytes is 147 kB a token of Qwen3-8B; 1.7B has 28 layers: 114,688 bytes.
    found = memory(QWEN3_17B, method="grpo", max_prompt_length=512, max_completion_length=512, num_generations=8)
    assert found.kv_cache_gib == pytest.approx(8 * 1024 * 114_688 / GIB)
    assert memory(QWEN3_17B).kv_cache_gib == 0
    shared = memory_of(
        shape_of(QWEN3_17B), training_of({"method": "grpo", "use_vllm": True}, gpu=True), gpu=True, device_gib=80.0
    )
    assert shared.kv_cache_gib == pytest.approx(24.0)


def test_reward_model_has_no_vocabulary_to_score() -> None:
    assert memory(LLAMA3_8B, method="reward").logits_gib == 0
    assert memory(LLAMA3_8B, method="reward").weights_gib < memory(LLAMA3_8B).weights_gib


def test_packing_without_flash_attention_pays_for_the_mask() -> None:
    recipe: dict[str, Any] = {
        "per_device_train_batch_size": 8,
        "max_length": 4096,
        "packing": True,
        "gradient_checkpointing": False,
    }
    fused, flash = memory(QWEN3_17B, **recipe), memory(QWEN3_17B, **recipe, attn_implementation="flash_attention_2")
    assert fused.activations_gib > 1.5 * flash.activations_gib


@pytest.mark.parametrize(
    "recipe", [{"per_device_train_batch_size": "many"}, {"max_length": 0.5}, {"lora_r": -1, "use_peft": True}]
)
def test_recipe_that_is_no_number_is_refused_by_its_key(recipe: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"{next(iter(recipe))} needs a"):
        training_of(recipe, gpu=True)


def test_null_limit_means_the_longest_row() -> None:
    assert training_of({"max_length": None}, gpu=True, longest=900).length == 900
    assert training_of({"max_length": 512}, gpu=True, longest=900).length == 512
    assert training_of({}, gpu=True, longest=10).length == 10


# --- time and price


def test_steps_come_from_rows_epochs_and_devices() -> None:
    training = training_of(
        {"num_train_epochs": 2, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}, gpu=True
    )
    assert steps_of(training, 100, tokens_per_row=50) == 26
    assert steps_of(training, 100, tokens_per_row=50, devices=2) == 14
    packed = training_of(
        {"packing": True, "max_length": 1000, "num_train_epochs": 1, "per_device_train_batch_size": 1}, gpu=True
    )
    assert steps_of(packed, 100, tokens_per_row=250) == 25
    assert steps_of(training_of({"max_steps": 7}, gpu=True), 100, tokens_per_row=50) == 7


def test_time_is_that_of_six_operations_a_parameter_and_token() -> None:
    found = fit_on(
        A100, shape_of(LLAMA3_8B), {"gradient_checkpointing": False, "max_steps": 1000, "dtype": "bfloat16"}, ROWS
    )
    expected = 6 * 7.5e9 * 8 * 300 * 1000 / (312e12 * 0.35)
    assert found.time.seconds - found.time.start_seconds == pytest.approx(expected, rel=0.15)
    assert found.usd == pytest.approx(2.5 * found.time.seconds / 3600)


def test_adapter_is_faster_and_checkpointing_slower() -> None:
    def seconds(**recipe: Any) -> float:
        return fit_on(A100, shape_of(LLAMA3_8B), recipe, ROWS).time.seconds_per_step

    whole = seconds(gradient_checkpointing=False)
    assert seconds(gradient_checkpointing=False, use_peft=True) == pytest.approx(whole * 2 / 3, rel=0.1)
    assert seconds(gradient_checkpointing=True) == pytest.approx(whole * 4 / 3, rel=0.1)
    assert seconds(gradient_checkpointing=False, method="grpo") > whole


def test_probe_replaces_what_was_estimated() -> None:
    probe = Probe.from_dict({"steps": 20, "seconds_per_step": 0.5, "peak_memory_gib": 30.0})
    assert probe is not None
    found = fit_on(L4, shape_of(QWEN3_17B), {"max_steps": 100}, ROWS, probe=probe)
    assert found.time.measured and found.time.seconds == 50 + found.time.start_seconds
    assert found.memory.total_gib == pytest.approx(30.0) and not found.fits


@pytest.mark.parametrize(
    "lie",
    [
        {},
        {"steps": 0, "seconds_per_step": 1},
        {"steps": 3, "seconds_per_step": "NaN"},
        {"steps": 3, "seconds_per_step": float("inf")},
        {"steps": True, "seconds_per_step": -1},
    ],
)
def test_probe_that_says_nothing_is_none(lie: dict[str, Any]) -> None:
    assert Probe.from_dict(lie) is None


def test_price_comes_from_the_flavor_then_from_the_policy() -> None:
    unpriced = Flavor("box", 1, "nvidia-l4", 24.0)
    assert fit_on(unpriced, shape_of(TINY), {}, ROWS).usd is None
    here = fit_on(unpriced, shape_of(TINY), {}, ROWS, usd_per_hour=1.0)
    assert here.usd == pytest.approx(here.time.seconds / 3600)


# --- fitting


def test_cheapest_machine_that_fits_is_by_the_price_of_the_run() -> None:
    found = fits(QWEN3_17B)
    assert [fit.fits for fit in found] == [False, True, True]
    best = cheapest(found)
    assert best is not None and best.usd == min(fit.usd or 0 for fit in found if fit.fits)
    assert (
        cheapest(fits(LLAMA3_8B, per_device_train_batch_size=64, max_length=8192, gradient_checkpointing=False)) is None
    )


def test_machine_that_does_not_say_its_memory_is_not_judged() -> None:
    found = fit_on(Flavor("scripted"), shape_of(LLAMA3_8B), {}, ROWS)
    assert found.available_gib is None and found.fits and not found.tight
    assert cheapest([found]) is None


def test_processor_cores_are_bound_by_the_jobs_cap() -> None:
    here = Flavor("local", memory_gib=64.0, cpus=8.0)
    assert fit_on(here, shape_of(TINY), {}, ROWS, memory_cap_gib=8.0).fits, "a tiny model trains anywhere"
    large = fit_on(here, shape_of(QWEN3_17B), {}, ROWS, memory_cap_gib=8.0)
    assert not large.fits and large.available_gib == 8.0
    assert large.memory.overhead_gib < CUDA_GIB + large.memory.total_gib


def needed(config: Mapping[str, Any], flavor: Flavor) -> Any:
    return lambda recipe: fit_on(flavor, shape_of(config), recipe, ROWS).memory.total_gib


def test_mildest_change_comes_first() -> None:
    recipe = {
        "gradient_checkpointing": False,
        "per_device_train_batch_size": 16,
        "max_length": 700,
        "dtype": "bfloat16",
    }
    assert needed(QWEN3_17B, L4)(recipe) > 23
    assert changes_that_fit(recipe, needed(QWEN3_17B, L4), 23, gpu=True) == {"gradient_checkpointing": True}
    wide = {"per_device_train_batch_size": 64, "dtype": "bfloat16"}
    found = changes_that_fit(wide, needed(QWEN3_17B, L4), 20, gpu=True)
    assert found is not None and found.keys() == {"per_device_train_batch_size", "gradient_accumulation_steps"}
    assert found["per_device_train_batch_size"] * found["gradient_accumulation_steps"] == 64


def test_several_changes_are_named_together_and_really_fit() -> None:
    found = changes_that_fit({}, needed(LLAMA3_8B, L4), 23, gpu=True)
    assert found is not None and found["use_peft"] is True and found["dtype"] == "bfloat16"
    assert needed(LLAMA3_8B, L4)(found) <= 23


def test_nothing_is_suggested_where_nothing_helps() -> None:
    assert changes_that_fit({}, needed(LLAMA3_8B, L4), 1.0, gpu=True) is None


@pytest.mark.parametrize(
    ("said", "name"),
    [("nvidia-a10g", "A10G"), ("NVIDIA A100-SXM4-80GB", "A100"), ("Tesla T4", "T4"), ("NVIDIA H100 80GB HBM3", "H100"),
     ("rtx-pro-6000", "RTX PRO 6000"), ("NVIDIA L40S", "L40S"), ("nvidia-l4", "L4"), ("T400", None), ("", None)],
)  # fmt: skip
def test_gpus_are_known_by_the_names_that_backends_give(said: str, name: str | None) -> None:
    found = gpu_named(said)
    assert (found.name if found else None) == name


def test_gpu_without_bfloat16_multiplies_in_float32() -> None:
    t4 = Flavor("t4-small", 1, "nvidia-t4", 16.0)
    wide, narrow = (fit_on(flavor, shape_of(QWEN3_17B), {}, ROWS).memory for flavor in (t4, L4))
    assert wide.activations_gib > narrow.activations_gib
