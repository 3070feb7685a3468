"""Rules about training at the scale of real models: what fires, on which key, with which value, and what must not."""

from __future__ import annotations

from typing import Any

import pytest

from bot.diagnosis import diagnose
from bot.domain.diagnosis import Diagnosis, Severity, Symptom


def first(path: Any) -> Diagnosis:
    found = [d for d in diagnose(path).diagnoses if d.severity is not Severity.ADVICE]
    assert found, diagnose(path).ruled_out
    return found[0]


def with_entropy(step: int, loss: float) -> float:
    return 0.95 * loss


def test_loss_that_blows_up_at_seven_billion_scale_lowers_the_rate(folder: Any, build: Any) -> None:
    losses = build.noisy(build.decay(1.5, 1.1, 40) + [1.1 + 0.15 * i for i in range(40)] + [7.1] * 60)
    recipe = "init_from: meta-llama/Llama-3-8B\nlearning_rate: 1.0e-3\n"
    found = first(folder(recipe, metrics=build.curve(losses, peak=1e-3, entropy=with_entropy)))
    assert (found.symptom, found.key, found.line) == (Symptom.DIVERGENCE, "learning_rate", 2)
    assert found.suggested == 3.3e-5 and found.severity is Severity.FATAL


def test_blow_up_without_clipping_at_a_usual_rate_blames_the_clipping(folder: Any, build: Any) -> None:
    losses = build.decay(1.5, 1.1, 60) + [6.0] * 60
    found = first(folder(build.recipe + "max_grad_norm: 0\n", metrics=build.curve(losses)))
    assert (found.key, found.suggested) == ("max_grad_norm", 1.0)


def test_single_spikes_that_recover_are_not_divergence(folder: Any, build: Any) -> None:
    losses = build.noisy(build.decay(1.6, 1.1, 300))
    for step in (50, 51, 120, 121, 200):
        losses[step] = 9.0
    assert diagnose(folder(metrics=build.curve(losses))).healthy


def test_rate_that_is_a_thousand_times_too_low_is_raised(folder: Any, build: Any) -> None:
    recipe = "init_from: Qwen/Qwen3-1.7B\nlearning_rate: 2.0e-8\n"
    metrics = build.curve(build.noisy([1.4] * 200, noise=0.02), peak=2e-8, entropy=1.3, mean_token_accuracy=0.65)
    found = first(folder(recipe, metrics=metrics))
    assert (found.symptom, found.key, found.suggested) == (Symptom.PLATEAU, "learning_rate", 2.2e-5)


def test_raised_rate_stays_below_the_ceiling_of_the_model(folder: Any, build: Any) -> None:
    recipe = "init_from: Qwen/Qwen3-1.7B\nlearning_rate: 3.0e-5\n"
    metrics = build.curve([9 - 0.001 * i for i in range(100)], peak=3e-5, entropy=1.0, mean_token_accuracy=0.1)
    assert first(folder(recipe, metrics=metrics)).suggested == 1e-4


def test_loss_still_falling_short_of_the_target_asks_for_more_epochs(folder: Any, build: Any) -> None:
    losses = build.noisy([2.4 - 0.01 * i for i in range(150)], noise=0.02)
    path = folder(
        metrics=build.curve(losses, entropy=with_entropy), evaluation=build.evaluation(0.55), goal={"target": 0.6}
    )
    found = first(path)
    assert (found.symptom, found.key) == (Symptom.PLATEAU, "num_train_epochs")
    assert 4 <= found.suggested <= 12


def test_max_steps_is_blamed_where_it_overrides_the_epochs(folder: Any, build: Any) -> None:
    losses = build.noisy([2.4 - 0.01 * i for i in range(150)], noise=0.02)
    path = folder(
        build.recipe + "max_steps: 150\n",
        metrics=build.curve(losses, entropy=with_entropy),
        evaluation=build.evaluation(0.5),
        goal={"target": 0.6},
    )
    found = first(path)
    assert found.key == "max_steps" and 220 <= found.suggested <= 600


def test_flat_end_of_a_cosine_schedule_is_no_plateau(folder: Any, build: Any) -> None:
    losses = build.noisy(build.decay(1.8, 1.0, 300, knee=0.15), noise=0.05)
    assert diagnose(folder(metrics=build.curve(losses, schedule="cosine", entropy=with_entropy))).healthy


def test_warm_up_longer_than_the_run_is_named(folder: Any, build: Any) -> None:
    metrics = build.curve([9 - 0.01 * i for i in range(100)], entropy=1.0, mean_token_accuracy=0.1)
    for record in metrics:
        record["learning_rate"] = 2e-5 * record["step"] / 3000
    found = first(folder(build.recipe + "warmup_steps: 3000\n", metrics=metrics))
    assert (found.symptom, found.key, found.suggested) == (Symptom.PLATEAU, "warmup_steps", 5)


def test_schedule_that_ends_at_a_fifth_of_the_run_is_named(folder: Any, build: Any) -> None:
    metrics = build.curve([9 - 0.05 * min(i, 20) for i in range(100)], entropy=1.0, mean_token_accuracy=0.1)
    for record in metrics:
        record["learning_rate"] = max(0.0, 2e-5 * (1 - record["step"] / 20))
    found = first(folder(build.recipe + "lr_scheduler_type: polynomial\n", metrics=metrics))
    assert (found.key, found.suggested) == ("lr_scheduler_type", "cosine")


def test_schedule_that_ended_early_is_why_a_target_is_missed_though_the_rows_are_learned(
    folder: Any, build: Any
) -> None:
    """Whatever the gap: the rest of the run is there to be used. Without a gap nothing is missing."""
    metrics = build.curve([9 * 0.7**i + 0.01 for i in range(100)], entropy=0.02, mean_token_accuracy=0.99)
    for record in metrics:
        record["learning_rate"] = max(0.0, 2e-5 * (1 - record["step"] / 20))
    recipe = build.recipe + "lr_scheduler_type: polynomial\n"
    short = folder(recipe, metrics=metrics, evaluation=build.evaluation(0.92), goal={"target": 0.95})
    assert (first(short).key, first(short).suggested) == ("lr_scheduler_type", "cosine")
    assert diagnose(folder(recipe, metrics=metrics, evaluation=build.evaluation(0.96), goal={"target": 0.95})).healthy
    assert diagnose(folder(recipe, metrics=metrics)).healthy


def test_met_target_turns_blame_into_advice(folder: Any, build: Any) -> None:
    metrics = build.curve([1.4] * 100, entropy=1.3)
    missed = folder(metrics=metrics, evaluation=build.evaluation(0.3), goal={"target": 0.6})
    assert not diagnose(missed).healthy
    assert diagnose(folder(metrics=metrics, evaluation=build.evaluation(0.7), goal={"target": 0.6})).healthy


def test_nan_hidden_as_zero_loss_is_found_and_hides_everything_else(folder: Any, build: Any) -> None:
    metrics = build.curve([2.0] * 30 + [0.0] * 70)
    for record in metrics[30:]:
        record["grad_norm"] = "NaN"
    path = folder(
        build.recipe + "fp16: true\n", metrics=metrics, evaluation=build.evaluation(0.0), goal={"target": 0.5}
    )
    (found,) = diagnose(path).diagnoses
    assert (found.symptom, found.key, found.suggested, found.line) == (Symptom.NAN_INF, "fp16", False, 6)
    assert found.evidence[0].step == 31 and "logging_nan_inf_filter" in found.cause


def test_nan_after_a_blow_up_blames_the_rate(folder: Any, build: Any) -> None:
    metrics = build.curve([2.0] * 10 + [3.0, 6.0, 20.0] + [1.0] * 20)
    for record in metrics[13:]:
        record["loss"] = "NaN"
    found = first(folder(metrics=metrics))
    assert (found.symptom, found.key, found.suggested) == (Symptom.NAN_INF, "learning_rate", 2e-6)


def test_nan_from_the_first_step_blames_the_weights(folder: Any, build: Any) -> None:
    metrics = [record | {"loss": None, "grad_norm": None} for record in build.curve([1.0] * 20)]
    found = first(folder(metrics=metrics))
    assert (found.symptom, found.key, found.line) == (Symptom.NAN_INF, "init_from", 1)


def test_loss_scaler_skipping_its_first_steps_is_no_nan(folder: Any, build: Any) -> None:
    metrics = build.curve(build.noisy(build.decay(1.8, 1.2, 100)))
    metrics[0]["grad_norm"] = metrics[1]["grad_norm"] = "Infinity"
    assert diagnose(folder(build.recipe + "fp16: true\n", metrics=metrics)).healthy


def with_held_out(metrics: list[dict[str, Any]], values: list[float]) -> list[dict[str, Any]]:
    every = len(metrics) // len(values)
    return metrics + [{"step": (i + 1) * every, "eval_loss": value} for i, value in enumerate(values)]


def test_held_out_loss_that_turns_back_up_ends_at_its_best(folder: Any, build: Any) -> None:
    metrics = build.curve(build.decay(1.8, 0.2, 300, knee=0.4), epoch=lambda step, _: step / 50)
    held_out = [1.5, 1.3, 1.2, 1.25, 1.35, 1.5, 1.6, 1.7, 1.8, 1.9]
    recipe = "init_from: Qwen/Qwen3-1.7B\nnum_train_epochs: 6\n"
    found = first(folder(recipe, metrics=with_held_out(metrics, held_out)))
    assert (found.symptom, found.key, found.suggested) == (Symptom.OVERFIT, "num_train_epochs", 2)


@pytest.mark.parametrize(
    "held_out",
    [
        [1.30, 1.22, 1.21, 1.215, 1.212, 1.218, 1.214, 1.219, 1.216, 1.22],  # noise of one fixed set
        [1.4, 1.3, 1.25, 1.2, 1.18, 1.17, 1.16, 1.16, 1.15, 1.22],  # one bad evaluation
        [0.5, 0.05, 0.01, 0.006, 0.004, 0.009, 0.006, 0.011, 0.008, 0.012],  # factors of nothing
    ],
)
def test_held_out_noise_is_not_overfitting(folder: Any, build: Any, held_out: list[float]) -> None:
    start, end = (1.6, 1.0) if held_out[0] > 1 else (6.0, 0.003)
    metrics = build.curve(build.decay(start, end, 300), epoch=lambda step, _: step / 100)
    assert diagnose(folder(metrics=with_held_out(metrics, held_out))).healthy


def test_rows_learned_by_heart_without_a_held_out_set_are_overfitting(folder: Any, build: Any) -> None:
    metrics = build.curve(build.decay(2.0, 0.001, 200, knee=0.05), epoch=lambda step, _: step / 5)
    path = folder(build.recipe, metrics=metrics, evaluation=build.evaluation(0.2), goal={"target": 0.6})
    found = first(path)
    assert (found.symptom, found.key) == (Symptom.OVERFIT, "num_train_epochs") and found.suggested < 3


def test_held_out_rows_of_another_kind_are_not_overfitting(folder: Any, build: Any) -> None:
    metrics = build.curve(build.decay(5.0, 0.001, 200), epoch=lambda step, _: step / 20)
    path = folder(metrics=with_held_out(metrics, [9.7, 10.0, 10.2, 10.3, 10.4]))
    assert first(path).symptom is Symptom.WRONG_COLUMNS


def test_rate_that_no_model_survives_is_divergence_even_when_the_loss_looks_slow(folder: Any, build: Any) -> None:
    recipe = "init_from: postdoc/tiny-qwen3\nlearning_rate: 0.1\nmax_steps: 100\n"
    metrics = build.curve(build.decay(14, 0.8, 100), peak=0.1, entropy=0.83, mean_token_accuracy=0.75)
    found = first(folder(recipe, metrics=metrics, evaluation=build.evaluation(0.0), goal={"target": 0.9}))
    assert (found.symptom, found.key, found.suggested) == (Symptom.DIVERGENCE, "learning_rate", 0.01)


def test_reinforcement_loss_around_zero_is_not_judged(folder: Any, build: Any) -> None:
    metrics = build.curve([0.001 * (-1) ** i for i in range(100)], reward=lambda step, _: step / 100, entropy=0.01)
    assert diagnose(folder("method: grpo\n", metrics=metrics)).healthy


def test_clipped_completions_while_training_raise_the_recipes_cap(folder: Any, build: Any) -> None:
    metrics = build.curve([0.0] * 40, reward=0.0, **{"completions/clipped_ratio": 1.0})
    found = first(folder("method: grpo\nmax_completion_length: 64\n", metrics=metrics))
    assert (found.symptom, found.key, found.suggested) == (Symptom.CLIPPED_COMPLETIONS, "max_completion_length", 128)


def test_score_far_below_the_target_with_nothing_to_name_is_unknown(folder: Any, build: Any) -> None:
    metrics = build.curve(
        build.noisy(build.decay(1.8, 1.0, 200)), entropy=with_entropy, mean_token_accuracy=0.8, epoch=3.0
    )
    report = diagnose(folder(metrics=metrics, evaluation=build.evaluation(0.3), goal={"target": 0.6}))
    assert [d.symptom for d in report.diagnoses] == [Symptom.UNKNOWN]
    assert report.diagnoses[0].key is None and len(report.ruled_out) > 5
