"""The table of remedies: applicable, sourced, one cause each, and never a silent change of scope."""

from __future__ import annotations

import pytest

from bot.brain.playbook import remedies_for
from bot.brain.remedies import STEPS, family_of, scope_change
from bot.conversation.policy import DEFAULT_RECIPE_KEYS
from bot.conversation.recipe_rules import setting_problem
from bot.domain.diagnosis import DiagnosisReport, Severity, Symptom
from tests.brain.place import RECIPE, found

RICH = {
    "method": "grpo",
    "learning_rate": 1e-4, "max_steps": 100, "per_device_train_batch_size": 16, "max_length": 256, "fp16": True,
    "packing": True, "use_peft": True, "lora_r": 16, "lora_target_modules": "q_proj", "optim": "sgd", "beta": 0.001,
    "temperature": 0.1, "eos_token": "<end>", "pad_token": "<end>", "assistant_only_loss": True, "max_grad_norm": 0,
    "data_prompt_column": "a", "data_max_rows": 10, "dataloader_num_workers": 8, "dtype": "float16", "bf16": True,
    "completion_only_loss": False, "data_deduplicate": False, "num_generations": 4, "data_completion_column": "b",
}  # fmt: skip


@pytest.mark.parametrize("symptom", list(STEPS))
def test_every_step_changes_something_that_may_stand_in_a_recipe(symptom: Symptom) -> None:
    recipes = (RICH, RICH | {"method": "dpo", "beta": 0.1})
    applied = [
        (step, recipe, settings) for recipe in recipes for step in STEPS[symptom] if (settings := step.change(recipe))
    ]
    assert applied or symptom is Symptom.ROLLOUT_MISMATCH
    for step, recipe, settings in applied:
        assert step.source
        for key, value in settings.items():
            assert recipe.get(key) != value
            assert setting_problem(key, value) is None or key == "chat_template_path"
            assert key in DEFAULT_RECIPE_KEYS or scope_change(recipe, {**recipe, **settings}), key


def test_step_that_has_nothing_to_change_is_passed_over() -> None:
    quiet = {"learning_rate": 1e-4, "max_steps": 100, "optim": "adamw_torch", "lr_scheduler_type": "cosine"}
    for symptom, steps in STEPS.items():
        for step in steps:
            for key, value in step.change(quiet).items():
                assert quiet.get(key) != value, (symptom, key)


def test_script_is_never_given_a_key_of_another_methods_settings() -> None:
    keys = {key for step in STEPS[Symptom.CLIPPED_COMPLETIONS] for key in step.change(RICH | {"method": "sft"})}
    assert keys == set()
    keys = {key for step in STEPS[Symptom.CLIPPED_COMPLETIONS] for key in step.change(RICH | {"method": "rft"})}
    assert keys == {"max_completion_length"}


def test_scope() -> None:
    values = {"use_peft": False, "max_length": 512, "data_sources": "a.jsonl", "learning_rate": 1e-4}
    assert scope_change(values, {**values, "learning_rate": 1e-3, "max_steps": 7, "max_length": 1024}) is None
    assert (
        scope_change(values, {**values, "max_length": 256}) == "a `max_length` of 256 cuts what is trained on shorter"
    )
    assert "adapter" in (scope_change(values, {**values, "use_peft": True}) or "")
    assert "other data" in (scope_change(values, {**values, "data_sources": "b.jsonl"}) or "")
    assert "precision" in (scope_change(values, {**values, "load_in_4bit": True}) or "")
    assert scope_change(values, {**values, "max_length": None}) is None


def test_memory_is_found_without_touching_the_scope_first() -> None:
    fatal = found(Symptom.OOM, severity=Severity.FATAL)
    order = [each.key for each in remedies_for(DiagnosisReport((fatal,)), RECIPE, tried={})]
    assert order == [
        "per_device_train_batch_size", "gradient_checkpointing", "use_liger_kernel", "max_length", "use_peft",
    ]  # fmt: skip
    waits = {each.key for each in remedies_for(DiagnosisReport((fatal,)), RECIPE, tried={}) if each.waits}
    assert waits == {"max_length", "use_peft"}


def test_advice_brings_only_what_it_suggests() -> None:
    advice = found(Symptom.PLATEAU, "max_steps", 200, severity=Severity.ADVICE)
    assert [each.settings for each in remedies_for(DiagnosisReport((advice,)), RECIPE, tried={})] == [
        {"max_steps": 200}
    ]


def test_keys_of_one_kind_are_one_family() -> None:
    assert family_of("learning_rate") == family_of("warmup_steps") != family_of("max_steps")
    assert family_of("data_max_rows") == family_of("data_deduplicate") == "data"
    assert family_of("something_else") == "something_else"


def test_rate_that_is_not_written_is_the_methods_default() -> None:
    """A recipe of DPO without a rate trains at 1e-6: a third of it is not 6.7e-6."""
    blown = found(Symptom.DPO_OVERSHOOT)
    silent = "method: dpo\ninit_from: org/model-7B\nlearning_rate: null\n"
    first = next(remedies_for(DiagnosisReport((blown,)), silent, tried={}))
    assert first.settings == {"learning_rate": 3.3e-7}
    distilled = silent.replace("dpo", "distill")
    (flat,) = [
        each
        for each in remedies_for(DiagnosisReport((found(Symptom.FROZEN),)), distilled, tried={})
        if each.key == "learning_rate"
    ]
    assert flat.value == 1e-5


def test_dpo_that_falls_short_for_no_known_reason_gets_a_term_of_imitation() -> None:
    """Pairs that are told apart with ease have nothing more to teach; the chosen answers themselves have."""
    short = DiagnosisReport((found(Symptom.UNKNOWN),))
    dpo = "method: dpo\ninit_from: postdoc/tiny-qwen3\nlearning_rate: 5.0e-4\n"
    (only,) = remedies_for(short, dpo, tried={})
    assert only.settings == {"loss_type": "sigmoid,sft", "loss_weights": "1.0,0.2"} and not only.waits
    assert not list(remedies_for(short, dpo + "loss_type: [sigmoid, sft]\n", tried={}))
    assert not list(remedies_for(short, RECIPE, tried={}))


def test_rate_below_its_band_is_never_lowered_and_comes_before_more_steps() -> None:
    """Whatever the diagnosis says, the way out of the band is not the way back."""
    low = RECIPE.replace("0.001", "2.0e-05")
    diverged = found(Symptom.DIVERGENCE, "learning_rate", 2e-6)
    changes = [each.settings for each in remedies_for(DiagnosisReport((diverged,)), low, tried={})]
    assert changes and not any("learning_rate" in settings for settings in changes)
    short = found(Symptom.PLATEAU, "max_steps", 400)
    first, second, *_ = remedies_for(DiagnosisReport((short,)), low, tried={})
    assert (first.settings, first.probe) == ({"learning_rate": 1e-3}, True)
    assert second.settings == {"max_steps": 400}
    assert next(remedies_for(DiagnosisReport((short,)), RECIPE, tried={})).settings == {"max_steps": 400}


@pytest.mark.parametrize("symptom", [Symptom.LABEL_NOISE, Symptom.CLIPPED_COMPLETIONS])
def test_labels_and_endings_are_blamed_after_a_rate_that_could_not_have_worked(symptom: Symptom) -> None:
    low = RECIPE.replace("0.001", "0.0002")
    assert next(remedies_for(DiagnosisReport((found(symptom),)), low, tried={})).settings == {"learning_rate": 1e-3}
    usual = [each.key for each in remedies_for(DiagnosisReport((found(symptom),)), RECIPE, tried={})]
    assert "learning_rate" not in usual
