"""Suggested values and the bounds they keep."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bot.diagnosis.learning_rates import parameters_of, rate_of
from bot.diagnosis.remedies import (
    column_for,
    companions_of,
    longer_factor,
    max_length_for,
    null_is_the_remedy,
    power_of_two,
    scaled_duration,
    smaller_batch_size,
    smaller_memory,
    wants_range_probe,
)
from bot.domain.diagnosis import Diagnosis, Evidence, Severity, Symptom


def diagnosis(symptom: Symptom, key: str, suggested: Any, line: int | None = 1) -> Diagnosis:
    return Diagnosis(symptom, Severity.HARMFUL, 0.9, (), "c", line=line, key=key, suggested=suggested)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("Qwen/Qwen3-1.7B", 1.7e9),
        ("HuggingFaceTB/SmolLM2-135M", 135e6),
        ("meta-llama/Llama-3-8B-Instruct", 8e9),
        ("TinyLlama/TinyLlama-1.1B", 1.1e9),
        ("postdoc/tiny-qwen3", 1e6),
        ("openai-community/gpt2", 1.24e8),
        ("openai/whisper-tiny", 3.9e7),
        ("google-bert/bert-base-uncased", 1.1e8),
        ("./model", None),
    ],
)
def test_size_is_read_from_the_name(name: str, size: float | None) -> None:
    assert parameters_of({"init_from": name}) == size


def test_rates_of_large_models_are_bounded_and_lora_reaches_higher() -> None:
    full = {"init_from": "x/y-7B", "learning_rate": 5e-5}
    assert rate_of(full).raised() == 1e-4
    assert rate_of(full | {"learning_rate": 1e-4}).raised() is None
    assert rate_of(full | {"use_peft": True, "learning_rate": 1e-4}).raised() == 1e-3
    # Into the band's upper half: at its end a run may still be lost.
    assert rate_of(full | {"learning_rate": 0.1}).lowered() == 3.3e-5


def test_measured_size_wins_over_the_name() -> None:
    assert rate_of({"init_from": "out/model"}, 7e9).band.ceiling == 1e-4


def test_absent_rate_is_the_trainers_default() -> None:
    assert rate_of({}).current == 2e-5


def test_probes_go_where_the_symptom_points() -> None:
    low = rate_of({"init_from": "postdoc/tiny-qwen3", "learning_rate": 2e-5})
    assert low.probes(Symptom.PLATEAU) == (6.3e-5, 2e-4, 6.3e-4, 2e-3, 6.3e-3)
    assert all(rate < 2e-5 for rate in low.probes(Symptom.DIVERGENCE))


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ({"p95": 600, "max": 1025}, 2048),
        ({"p95": 1500}, 2048),
        ({"max": 1024}, None),
        ({}, None),
        ({"p95": 1100, "max": 90_000}, 2048),
    ],
)
def test_max_length_is_the_smallest_power_of_two_that_fits(lengths: dict[str, int], expected: int | None) -> None:
    assert max_length_for(lengths, 1024) == expected


@pytest.mark.parametrize(("value", "power"), [(1, 1), (2, 2), (3, 4), (1024, 1024), (1025, 2048)])
def test_power_of_two_is_at_least_the_value(value: int, power: int) -> None:
    assert power_of_two(value) == power


def test_memory_is_saved_by_batch_then_checkpointing_then_length() -> None:
    assert smaller_memory({}, batch=3, length=512) == ("per_device_train_batch_size", 1)
    off = {"gradient_checkpointing": False}
    assert smaller_memory(off, batch=1, length=512) == ("gradient_checkpointing", True)
    assert smaller_memory({}, batch=1, length=512) == ("max_length", 256)


def test_memory_of_what_is_not_known_is_saved_by_a_key_without_a_value() -> None:
    assert smaller_memory({}, batch=None, length=512) == ("per_device_train_batch_size", None)
    assert smaller_memory({}, batch=1, length=None) == ("max_length", None)
    assert companions_of(diagnosis(Symptom.OOM, "per_device_train_batch_size", None), {}) == {}


def test_halved_batch_keeps_the_rows_per_update() -> None:
    oom = diagnosis(Symptom.OOM, "per_device_train_batch_size", 4)
    recipe = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2}
    assert companions_of(oom, recipe) == {"gradient_accumulation_steps": 4}
    assert companions_of(diagnosis(Symptom.PLATEAU, "learning_rate", 1e-4), recipe) == {}


@pytest.mark.parametrize(("batch", "smaller"), [(2, 1), (32, 16), (64, 16), (2048, 256), (3, 1), (1, 1)])
def test_batch_shrinks_faster_the_larger_it_is(batch: int, smaller: int) -> None:
    assert smaller_batch_size(batch) == smaller


def test_columns_that_were_swapped_change_together() -> None:
    recipe = {"data_prompt_column": "answer", "data_completion_column": "question"}
    one = diagnosis(Symptom.WRONG_COLUMNS, "data_prompt_column", "auto")
    swapped = replace(one, evidence=(Evidence("swapped", None, 1.4),))
    assert companions_of(swapped, recipe) == {"data_completion_column": "auto"}
    assert companions_of(one, recipe) == {}, "one that names nothing leaves the other as a person named it"
    flipped = diagnosis(Symptom.DPO_FLIPPED, "data_chosen_column", "better")
    pairs = {"data_chosen_column": "worse", "data_rejected_column": "better"}
    assert companions_of(flipped, pairs) == {"data_rejected_column": "worse"}


def test_tiny_beta_comes_back_with_the_rate() -> None:
    overshot = diagnosis(Symptom.DPO_OVERSHOOT, "learning_rate", 4e-4)
    assert companions_of(overshot, {"beta": 0.01}) == {"beta": 0.1}
    assert companions_of(overshot, {"beta": 0.1}) == companions_of(overshot, {}) == {}


def test_rows_that_were_packed_into_blocks_are_not_cut_short_without_packing() -> None:
    lengths = tuple(Evidence(f"token_lengths.{name}", None, value) for name, value in (("p95", 20), ("max", 22)))
    leaking = replace(diagnosis(Symptom.PACKING_LEAK, "packing", False), evidence=lengths)
    assert companions_of(leaking, {"max_length": 12}) == {"max_length": 32}
    assert companions_of(leaking, {"max_length": 128}) == companions_of(leaking, {"max_length": None}) == {}


def test_terms_of_a_loss_come_with_their_weights() -> None:
    for symptom in (Symptom.DPO_OVERSHOOT, Symptom.DPO_DISPLACEMENT):
        alone = diagnosis(symptom, "loss_type", "sigmoid,sft")
        assert companions_of(alone, {"loss_type": "sigmoid"}) == {"loss_weights": "1.0,0.2"}


def test_rows_that_were_left_out_come_back_for_as_many_steps() -> None:
    evidence = (Evidence("eval_loss", 20, 4.6), Evidence("loss", 200, 0.001))
    few = replace(diagnosis(Symptom.OVERFIT, "data_max_rows", None), evidence=evidence)
    assert null_is_the_remedy(few)
    assert companions_of(few, {"data_max_rows": 32, "num_train_epochs": 100}) == {"max_steps": 200}
    assert companions_of(few, {"data_max_rows": 32, "max_steps": 50}) == {}


def test_duration_scales_the_key_that_rules() -> None:
    assert scaled_duration({"max_steps": 100}, 2.5) == 250
    assert scaled_duration({"max_steps": -1, "num_train_epochs": 2}, 2) == 4
    assert scaled_duration({}, 0.1) == 0.3


def test_longer_run_is_bounded_both_ways() -> None:
    assert longer_factor(final=1.0, per_step=-1e-9, steps=100) == 4.0
    assert longer_factor(final=1.0, per_step=-0.5, steps=100) == 1.5


def test_marks_for_the_one_who_applies_the_remedy() -> None:
    assert wants_range_probe(diagnosis(Symptom.PLATEAU, "learning_rate", 1e-4))
    assert not wants_range_probe(diagnosis(Symptom.PLATEAU, "max_steps", 200))
    assert null_is_the_remedy(diagnosis(Symptom.MISSING_EOS, "chat_template_path", None))
    assert not null_is_the_remedy(diagnosis(Symptom.MISSING_EOS, "eos_token", None, line=None))


@pytest.mark.parametrize(
    ("key", "columns", "current", "expected"),
    [
        ("data_prompt_column", ("question", "answer"), "ask", "auto"),
        ("data_prompt_column", ("question", "answer"), None, "question"),
        ("data_completion_column", ("question", "answer_text"), None, "answer_text"),
        ("dataset_text_field", ("body",), None, "body"),
        ("data_prompt_column", ("a", "b"), None, None),
    ],
)
def test_column_is_suggested_by_its_name(
    key: str, columns: tuple[str, ...], current: str | None, expected: str | None
) -> None:
    assert column_for(key, columns, current) == expected
