"""What can be trained: keys that the script knows, values that go together, and room for them."""

from __future__ import annotations

import datetime
import math
from dataclasses import replace
from typing import Any

import pytest

from bot.brain.fitting import Room, fitted
from bot.brain.playbook import Kind, Remedy, after_probe, remedies_for, settled
from bot.brain.remedies import scope_change
from bot.brain.search import draft_settings
from bot.diagnosis.learning_rates import rate_of
from bot.domain.diagnosis import Diagnosis, DiagnosisReport, Symptom
from bot.domain.goal import digest_of
from bot.domain.recipe import normalised_value, recipe_hash
from tests.brain.place import ALL, RECIPE, Place, found

SFT: dict[str, Any] = {"method": "sft", "max_steps": 100, "warmup_steps": 40, "max_length": 512, "learning_rate": 1e-3}
GRPO: dict[str, Any] = {"method": "grpo", "per_device_train_batch_size": 12, "num_generations": 4}


def changes(recipe: str, *diagnoses: Diagnosis, **known: Any) -> list[dict[str, Any]]:
    return [each.settings for each in remedies_for(DiagnosisReport(diagnoses), recipe, tried={}, **known)]


@pytest.mark.parametrize(
    "settings",
    [
        {"beta": 0.04},  # of another method
        {"warmup_ratio": 0.1},  # of no method any more
        {"learning_rate": 0},
        {"learning_rate": math.nan},
        {"per_device_train_batch_size": 0},
        {"max_steps": True},
        {"packing": [1, 2]},
        {"weight_decay": "much"},
        {"warmup_steps": 101},
    ],
)
def test_what_the_script_would_refuse_is_not_tried(settings: dict[str, Any]) -> None:
    assert fitted(SFT, settings) is None
    assert changes(RECIPE + "warmup_steps: 5\n", found(Symptom.UNKNOWN, *next(iter(settings.items())))) == []


def test_batch_holds_whole_groups_of_samples() -> None:
    assert fitted(GRPO, {"per_device_train_batch_size": 6}) is None
    assert fitted(GRPO, {"num_generations": 8}) is None
    assert fitted(GRPO, {"num_generations": 1}) is None
    assert fitted(GRPO, {"num_generations": 6}) == {"num_generations": 6}
    assert fitted(GRPO | {"eval_strategy": "steps"}, {"num_generations": 6}) is None
    assert fitted(GRPO | {"num_generations": 5}, {"learning_rate": 1e-5}) == {"learning_rate": 1e-5}, "its own fault"


@pytest.mark.parametrize(("batch", "smaller", "accumulated"), [(16, 8, 2), (9, 3, 3), (3, 1, 3)])
def test_smaller_batch_keeps_the_rows_of_an_update(batch: int, smaller: int, accumulated: int) -> None:
    first = changes(RECIPE.replace("size: 32", f"size: {batch}"), found(Symptom.OOM))[0]
    assert first == {"per_device_train_batch_size": smaller, "gradient_accumulation_steps": accumulated}


def test_warm_up_shrinks_with_a_training_that_becomes_shorter_than_it() -> None:
    assert fitted(SFT, {"max_steps": 50}) == {"max_steps": 50}
    assert fitted(SFT, {"max_steps": 20}) == {"max_steps": 20, "warmup_steps": 8}
    assert fitted(SFT | {"warmup_steps": 0.4}, {"max_steps": 20}) == {"max_steps": 20}
    (first, *_) = changes(RECIPE + "warmup_steps: 80\n", found(Symptom.OVERFIT))
    assert first == {"max_steps": 50, "warmup_steps": 40}


def test_sequence_is_never_longer_than_the_model() -> None:
    cut = found(Symptom.TRUNCATION, "max_length", 2048)
    assert {"max_length": 1000} in changes(RECIPE, cut, room=Room(positions=1000))
    assert all(each["max_length"] <= 1000 for each in changes(RECIPE, cut, room=Room(positions=1000)))
    assert changes(RECIPE, cut, room=Room(positions=256)) == []
    sampled = found(Symptom.CLIPPED_COMPLETIONS, "max_completion_length", 512)
    assert {"max_completion_length": 512} not in changes(
        RECIPE.replace("method: sft", "method: grpo"), sampled, room=Room(positions=400)
    )


@pytest.mark.parametrize(("times", "steps"), [(None, 400), (4.0, 400), (2.5, 250), (1.2, None), (0.5, None)])
def test_longer_training_fits_into_the_time_that_is_left(times: float | None, steps: int | None) -> None:
    short = found(Symptom.PLATEAU, "max_steps", 400)
    longest = [
        each["max_steps"] for each in changes(RECIPE, short, room=Room(times_longer=times)) if "max_steps" in each
    ]
    assert (longest[0] if longest else None) == steps


def test_time_that_is_left_is_held_against_the_run_that_is_changed() -> None:
    place = Place(runs=10).ran(0.4, found(Symptom.PLATEAU, "max_steps", 400), seconds=100.0)
    assert place.remedy(means=replace(ALL, seconds=300.0)).settings == {"max_steps": 270}
    assert "max_steps" not in place.remedy(means=replace(ALL, seconds=110.0)).settings
    drafted = Place(runs=10).ran(0.4, seconds=100.0)
    assert drafted.remedy(means=replace(ALL, seconds=100.0)).settings.keys() == {"learning_rate"}


def test_chain_of_remedies_never_leaves_the_floor_nor_the_ceiling() -> None:
    """A third, a tenth and bolder steps of both, one on top of the other, whether the size is known or not."""
    for size, start in ((None, 1e-3), (3e5, 1e-3), (1.7e9, 2e-5)):
        for symptom, factor in ((Symptom.NAN_INF, 0.1), (Symptom.PLATEAU, 10.0)):
            rate, reached = start, set()
            for _ in range(12):
                recipe = RECIPE.replace("0.001", f"{rate:.2e}").replace("postdoc/tiny-qwen3", "org/model")
                rates = [
                    each["learning_rate"]
                    for each in changes(recipe, found(symptom, "learning_rate", rate * factor), parameters=size)
                    if "learning_rate" in each
                ]
                if not rates:
                    break
                reached |= set(rates)
                rate = min(rates) if factor < 1 else max(rates)
            band = rate_of({"method": "sft", "learning_rate": start}, size)
            assert reached
            assert all(band.floor <= each <= band.band.ceiling for each in reached), (size, symptom, reached)


def test_steps_of_the_table_know_the_models_size() -> None:
    """Its name tells nothing; three times 1e-4 is beyond what a 1.7B model takes."""
    recipe = RECIPE.replace("0.001", "0.0001").replace("postdoc/tiny-qwen3", "org/model")
    flat = found(Symptom.PLATEAU)
    assert {"learning_rate": 3e-4} in changes(recipe, flat)
    assert not any("learning_rate" in each for each in changes(recipe, flat, parameters=1.7e9))


def test_plain_gradients_have_a_ceiling_too() -> None:
    band = rate_of({"optim": "sgd", "use_peft": True, "learning_rate": 0.1}).band
    assert band.ceiling == 1.0


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"data_max_rows": 100}),
        ({"data_max_rows": 200}, {"data_max_rows": 100}),
        ({"data_validation_rows": 64}, {"data_validation_rows": 128}),
        ({}, {"from_scratch": True}),
    ],
)
def test_fewer_rows_and_other_weights_are_a_persons(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert scope_change(before, {**before, **after})
    assert scope_change({**before, **after}, {**before, **after}) is None


def test_more_rows_and_less_validation_are_not() -> None:
    assert scope_change({"data_max_rows": 100}, {"data_max_rows": None}) is None
    assert scope_change({"data_validation_rows": 64}, {"data_validation_rows": 32}) is None


def test_no_draft_changes_the_scope() -> None:
    """Nobody named a method, and the model is large: an adapter is a person's word all the same."""
    values = {"method": "sft", "learning_rate": 2e-5, "max_steps": 100}
    drafts = list(draft_settings(values, replace(ALL, parameters=7e9)))
    assert drafts
    assert all(scope_change(values, {**values, **each}) is None for each in drafts)


def test_script_of_the_goals_own_is_given_no_key_that_its_recipe_lacks() -> None:
    recipe = "method: sft\nlr: 0.001\nmax_steps: 50\n"
    place = Place(recipe, script="mine.py", runs=12).ran(0.4, found(Symptom.DIVERGENCE, "learning_rate", 1e-4))
    seen: set[str] = set()
    for _ in range(4):
        decision = place.decided()
        if decision.remedy is None:
            break
        seen |= decision.remedy.settings.keys()
        place.revised().ran(0.4)
    assert seen == {"max_steps"}


@pytest.mark.parametrize("suggested", [math.nan, math.inf, 0.0, -1.0, 5.0, True, "1e-4", None])
def test_range_test_that_names_no_rate_that_it_was_asked_for_is_not_believed(suggested: object) -> None:
    remedy = Remedy("learning_rate", 1e-4, "plateau", "Flat.", probe=True, rates=(1e-4, 1e-3))
    assert after_probe(remedy, {"suggested": suggested}).value == 1e-4
    assert after_probe(remedy, {"suggested": 1e-3}).value == 1e-3
    assert after_probe(remedy, {"suggested": 1e-3}).kind is Kind.REPAIR


def test_range_test_that_chooses_what_an_earlier_run_has_trained_leaves_the_evidence_its_word() -> None:
    """Else the goal would end there, for a recipe that has already been trained."""
    place = Place().ran(0.1, found(Symptom.PLATEAU, "learning_rate", 0.003))
    remedy, run = place.remedy(), place.x.runs[0]
    known: dict[str, Any] = {"tried": place.x.tried, "script_digest": digest_of(run.digests)}
    rates = replace(remedy, rates=(0.001, 0.003, 0.01))
    assert settled(rates, {"suggested": 0.01}, run.recipe, **known).value == 0.01
    assert settled(rates, {"suggested": 0.001}, run.recipe, **known).value == 0.003
    earlier = recipe_hash({**place.values(), "learning_rate": 0.01}, script_digest=digest_of(run.digests))
    known["tried"] = {**place.x.tried, earlier: 2}
    assert settled(rates, {"suggested": 0.01}, run.recipe, **known).value == 0.003


def test_ledger_says_how_much_of_it_is_told() -> None:
    place = Place(runs=20)
    for n in range(10):
        place.x.recipe = place.x.recipe.replace(f"seed: {n}", f"seed: {n + 1}")
        place.ran(0.1)
    place.ran(None, found(Symptom.SCRIPT_ERROR))
    assert "Tried, the last 8 of 11 runs: run 4 (seed 4 → 5): 0.1" not in place.decided().stuck
    assert "Tried, the last 8 of 11 runs: run 4 (seed 3 → 4): 0.1" in place.decided().stuck


def test_date_in_a_recipe_is_a_word() -> None:
    assert normalised_value(datetime.date(2026, 11, 21)) == "2026-11-21"
