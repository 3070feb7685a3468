"""Shapes of curves and logs that runs of other people have, at their scale: what to say of them, and what not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bot.diagnosis import diagnose, read_folder
from bot.diagnosis.logs import last_crash
from bot.domain.diagnosis import Diagnosis, Severity, Symptom
from bot.errors import UserError


def said(path: Path) -> list[Diagnosis]:
    return [d for d in diagnose(path).diagnoses if d.severity is not Severity.ADVICE]


def held_out(metrics: list[dict[str, Any]], **columns: list[float]) -> list[dict[str, Any]]:
    """`metrics` with evaluations spread over the run, one column each."""
    n = len(next(iter(columns.values())))
    every = len(metrics) // n
    rows = [{"step": (i + 1) * every} | {f"eval_{key}": values[i] for key, values in columns.items()} for i in range(n)]
    return metrics + rows


@pytest.mark.parametrize(
    ("model", "rate", "start", "end"),
    [
        ("gpt2", 5e-5, 3.7, 3.25),
        ("my-organisation/model", 5e-5, 3.3, 2.75),
        ("TinyLlama/TinyLlama-1.1B-intermediate-step-480k-1T", 2e-4, 3.4, 3.05),
        ("my-organisation/gpt-from-scratch", 5e-5, 5.3, 3.4),
    ],
)
def test_prose_that_falls_by_a_few_per_cent_is_no_plateau(
    folder: Any, build: Any, model: str, rate: float, start: float, end: float
) -> None:
    losses = build.noisy(build.decay(start, end, 200, knee=0.3), noise=0.02)
    recipe = f"init_from: {model}\nlearning_rate: {rate}\n"
    assert said(folder(recipe, metrics=build.curve(losses, peak=rate, schedule="linear"))) == []


def test_tiny_model_that_barely_moves_is_still_a_plateau(folder: Any, build: Any) -> None:
    metrics = build.curve(build.noisy(build.decay(3.7, 3.25, 200, knee=0.3)), peak=5e-5)
    (found, *_) = said(folder("init_from: postdoc/tiny-qwen3\nlearning_rate: 5.0e-5\n", metrics=metrics))
    assert (found.symptom, found.key) == (Symptom.PLATEAU, "learning_rate")


def test_model_stuck_at_token_frequencies_is_a_plateau_at_any_size(folder: Any, build: Any) -> None:
    metrics = build.curve([7.6 - 0.001 * i for i in range(100)], mean_token_accuracy=0.06)
    assert said(folder("init_from: my/model\nlearning_rate: 2.0e-5\n", metrics=metrics))


RISING = [0.31, 0.35, 0.39, 0.42, 0.44, 0.45, 0.46, 0.47]


@pytest.mark.parametrize(
    ("key", "values", "severity"),
    [
        ("wer", [34.0, 33.2, 32.6, 32.3, 32.1, 32.0, 32.0, 32.1], Severity.ADVICE),
        ("accuracy", [0.89, 0.91, 0.92, 0.93, 0.935, 0.94, 0.94, 0.942], Severity.ADVICE),
        ("rougeL", [30.0, 31.0, 31.5, 31.8, 32.0, 32.0, 32.1, 32.0], Severity.ADVICE),
        ("wer", [34.0, 36.0, 38.0, 40.0, 42.0, 44.0, 45.0, 46.0], Severity.HARMFUL),
        ("accuracy", [0.89, 0.88, 0.87, 0.86, 0.85, 0.84, 0.83, 0.82], Severity.HARMFUL),
        ("mean_token_accuracy", [0.89, 0.90, 0.90, 0.90, 0.90, 0.90, 0.90, 0.90], Severity.HARMFUL),
    ],
)
def test_held_out_loss_that_rises_harms_only_with_the_tasks_score(
    folder: Any, build: Any, key: str, values: list[float], severity: Severity
) -> None:
    metrics = build.curve(build.decay(0.9, 0.005, 200, knee=0.2), epoch=lambda step, _: step / 20)
    columns = {"loss": RISING, key: values}
    found = diagnose(folder("init_from: openai/whisper-small\n", metrics=held_out(metrics, **columns))).diagnoses
    assert [(d.symptom, d.severity) for d in found] == [(Symptom.OVERFIT, severity)]


def test_gap_that_costs_the_task_nothing_is_no_overfitting(folder: Any, build: Any) -> None:
    metrics = build.curve(build.decay(0.75, 0.012, 150, knee=0.2), epoch=lambda step, _: step / 10)
    losses, errors = [0.27, 0.25, 0.24, 0.239, 0.24, 0.239], [14.0, 12.0, 11.0, 10.5, 10.0, 9.7]
    report = diagnose(
        folder("init_from: openai/whisper-large-v2\n", metrics=held_out(metrics, loss=losses, wer=errors))
    )
    assert report.diagnoses == ()


def test_both_losses_above_their_best_lower_the_rate(folder: Any, build: Any) -> None:
    """Steps that undo what was known: the training loss does not go on down, so no rows are learned by heart."""
    metrics = build.curve([0.8, 0.4, 0.2, *[0.12] * 7, *[0.3] * 40, *[0.18] * 10], peak=1e-4)
    rows = held_out(metrics, loss=[0.22, 0.42, 0.42, 0.41, 0.44, 0.40], wer=[17.7, 29.6, 31.0, 30.0, 30.0, 28.4])
    (found,) = said(folder("init_from: openai/whisper-small\nlearning_rate: 1.0e-4\n", metrics=rows))
    assert (found.symptom, found.key, found.suggested) == (Symptom.DIVERGENCE, "learning_rate", 1e-5)


def test_first_record_that_is_the_highest_is_no_jump(folder: Any, build: Any) -> None:
    """Losses of speech models are often sums over a batch, in the thousands."""
    losses = [11400.0, 3550.0, 3540.0, *build.noisy(build.decay(3500, 1100, 58, knee=0.2), noise=0.05)]
    assert said(folder("learning_rate: 3.0e-4\nmethod: speech\n", metrics=build.curve(losses, peak=3e-4))) == []


def test_nan_in_the_evaluation_alone_blames_the_held_out_rows(folder: Any, build: Any) -> None:
    metrics = held_out(build.curve(build.noisy(build.decay(5.9, 5.2, 90))), loss=[float("nan")] * 6)
    for record in metrics:
        record.update({key: "NaN" for key, value in record.items() if value != value})
    recipe = "init_from: gpt2\nlearning_rate: 1.0e-5\ndataset_name: wikitext\n"
    (found,) = said(folder(recipe, metrics=metrics))
    assert (found.symptom, found.severity, found.key) == (Symptom.NAN_INF, Severity.HARMFUL, "dataset_name")
    assert found.line == 3 and "eval_loss" in found.cause
    (found,) = said(folder(recipe + "fp16_full_eval: true\n", metrics=metrics))
    assert (found.key, found.suggested) == ("fp16_full_eval", False)


def test_nan_hidden_as_zero_is_not_taken_for_a_healthy_run_with_a_bad_evaluation(folder: Any, build: Any) -> None:
    """Transformers before 4.38 logged no grad_norm, so the loss of exactly 0 is all that shows it."""
    metrics = build.curve([2.0] * 20 + [0.0] * 40)
    for record in metrics:
        del record["grad_norm"]
    (found,) = said(folder(metrics=[*metrics, {"step": 30, "eval_loss": None}, {"step": 60, "eval_loss": None}]))
    assert (found.symptom, found.severity) == (Symptom.NAN_INF, Severity.FATAL)


def classifier(build: Any, loss: float, accuracy: float, final: float) -> list[dict[str, Any]]:
    metrics = build.curve(build.noisy(build.decay(1.12, final, 60), noise=0.01), peak=1e-3, epoch=lambda s, _: s / 20)
    return held_out(metrics, loss=[1.11, loss, loss], accuracy=[0.33, accuracy, accuracy])


def test_classifier_that_guesses_at_a_high_rate_is_divergence(folder: Any, build: Any) -> None:
    recipe = "init_from: bert-base-uncased\nlearning_rate: 1.0e-3\nnum_train_epochs: 5\n"
    (found,) = said(folder(recipe, metrics=classifier(build, 1.10, 0.332, 1.1)))
    assert (found.symptom, found.key, found.suggested) == (Symptom.DIVERGENCE, "learning_rate", 1e-4)
    assert "3 classes" in found.cause


def test_classifier_that_learns_a_little_does_not_guess(folder: Any, build: Any) -> None:
    recipe = "init_from: bert-base-uncased\nlearning_rate: 1.0e-3\nnum_train_epochs: 5\n"
    assert said(folder(recipe, metrics=classifier(build, 1.02, 0.47, 0.98))) == []


def test_run_that_did_not_have_its_whole_length_is_not_called_too_short(tmp_path: Path, build: Any) -> None:
    history = build.curve(build.noisy([2.4 - 0.013 * i for i in range(150)], noise=0.01))
    (tmp_path / "recipe.yaml").write_text("init_from: Qwen/Qwen3-1.7B\nlearning_rate: 2.0e-5\n")
    for planned, expected in ((150, [Symptom.PLATEAU]), (1000, [])):
        state = {"global_step": 150, "max_steps": planned, "log_history": history}
        (tmp_path / "trainer_state.json").write_text(json.dumps(state))
        assert [d.symptom for d in said(tmp_path)] == expected


def test_trainers_output_folder_without_a_recipe_is_read(tmp_path: Path, build: Any) -> None:
    losses = build.decay(1.4, 1.1, 30) + [7.5] * 60
    for step in (50, 90):
        (tmp_path / f"checkpoint-{step}").mkdir()
        state = {"log_history": build.curve(losses, peak=3e-3)[:step], "num_train_epochs": 2**63 - 1, "max_steps": 90}
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(json.dumps(state))
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "meta-llama/Llama-3-8B"}))
    run = read_folder(tmp_path)
    assert run.last_step == 90 and "num_train_epochs" not in run.recipe and run.recipe["use_peft"] is True
    (found,) = said(tmp_path)
    assert (found.symptom, found.key, found.line, found.suggested) == (
        Symptom.DIVERGENCE, "learning_rate", None, 2.3e-4,
    )  # fmt: skip


def test_folder_with_nothing_of_a_run_is_told_what_belongs_there(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"trainer_state\.json nor log\.txt"):
        diagnose(tmp_path)


NOTEBOOK = """\
\x1b[0;31m---------------------------------------------------------------------------\x1b[0m
\x1b[0;31mValueError\x1b[0m                                Traceback (most recent call last)
Cell \x1b[0;32mIn[7]\x1b[0m, line 12
      9 model = load("a", from_pretrained=True)
     11 trainer = Trainer(model)
---> 12 trainer.train()
     13 print("KeyError: done")

File ~/venv/lib/python3.12/site-packages/accelerate/accelerator.py:1816, in Accelerator.prepare_model(self, model)
   1814 if quantized:
-> 1816     raise ValueError("no")

ValueError: The model is on another device than the one that trains it.
"""
OLD_NOTEBOOK = """\
---------------------------------------------------------------------------
OutOfMemoryError                          Traceback (most recent call last)
<ipython-input-5-3435b262f1ae> in <module>
----> 1 trainer.train()

/usr/local/lib/python3.8/dist-packages/torch/_tensor.py in backward(self, gradient, retain_graph)
    486             )
    487         torch.autograd.backward(
--> 488             self, gradient
    489         )

OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.
"""


def test_tracebacks_of_notebooks_are_read() -> None:
    crash = last_crash(NOTEBOOK)
    assert crash is not None and crash.symptom is Symptom.SCRIPT_ERROR
    assert crash.exception == "ValueError: The model is on another device than the one that trains it."
    assert crash.where == "accelerator.py:1816 in Accelerator.prepare_model"
    crash = last_crash("Loading\n" * 5000 + OLD_NOTEBOOK.replace("    486", "    486 " + "x" * 30000))
    assert crash is not None and (crash.symptom, crash.phase) == (Symptom.OOM, "backward")
    assert crash.where == "_tensor.py:488 in backward"


def test_traceback_after_which_training_went_on_is_no_end() -> None:
    log = 'Traceback (most recent call last):\n  File "/a/callback.py", line 3, in f\n    g()\nOSError: no tracker\n'
    records = "".join(f"{{'loss': {2.0 - i / 10}, 'epoch': {i / 10}}}\n" for i in range(9))
    assert last_crash(log + records) is None
    crash = last_crash(records + log)
    assert crash is not None and crash.exception == "OSError: no tracker"


def test_noise_of_small_batches_is_no_fall_that_was_lost(folder: Any, build: Any) -> None:
    losses = build.noisy([0.75] * 60, noise=0.25, seed=1)
    losses[30:33], losses[-6:] = [0.5, 0.5, 0.5], [0.8, 0.85, 0.6, 0.9, 0.8, 1.0]
    assert said(folder("init_from: my/model-3B\nlearning_rate: 2.0e-4\n", metrics=build.curve(losses, peak=2e-4))) == []


def test_loss_that_lies_above_its_best_by_more_than_noise_diverged(folder: Any, build: Any) -> None:
    losses = build.noisy([*build.decay(1.5, 0.6, 60), *[1.6] * 60], noise=0.25)
    (found, *_) = said(folder("init_from: my/model-3B\nlearning_rate: 2.0e-4\n", metrics=build.curve(losses)))
    assert found.symptom is Symptom.DIVERGENCE


def test_lucky_steps_of_a_noisy_reward_were_not_lost(folder: Any, build: Any) -> None:
    """Sixteen answers a step: rewards in steps of a sixteenth, rising slowly."""
    reward = [0.06 * round(v / 0.06) for v in build.trend(0.1, 0.35, 600, noise=0.13)]
    metrics = [{k: v for k, v in r.items() if k != "kl"} for r in build.policy_curve(reward)]
    assert said(folder("method: grpo\n", metrics=metrics)) == []
    collapsed = build.trend(0.1, 0.8, 300, noise=0.1) + build.trend(0.1, 0.1, 300, noise=0.1)
    metrics = [{k: v for k, v in r.items() if k != "kl"} for r in build.policy_curve(collapsed)]
    assert Symptom.KL_BLOWUP in {d.symptom for d in said(folder("method: grpo\n", metrics=metrics))}


def test_held_out_loss_on_another_scale_is_no_label_noise(folder: Any, build: Any) -> None:
    """Rows with weights, or losses summed over accumulated batches, multiply the training loss alone."""
    metrics = build.curve(build.decay(4.6, 2.1, 40, knee=0.2))
    assert said(folder(metrics=held_out(metrics, loss=[0.388, 0.389, 0.389, 0.386]))) == []
    learned = held_out(metrics, loss=[2.0, 0.9, 0.5, 0.386])
    assert [d.symptom for d in said(folder(metrics=learned))] == [Symptom.LABEL_NOISE]


def test_one_evaluation_that_overflowed_is_advice(folder: Any, build: Any) -> None:
    metrics = held_out(build.curve(build.noisy(build.decay(0.7, 0.6, 100))), loss=[0.63, 0.6, 0.58, 0.57, 0.55, 0.54])
    metrics[-3]["eval_loss"] = None
    (found,) = diagnose(folder(metrics=metrics)).diagnoses
    assert (found.symptom, found.severity) == (Symptom.NAN_INF, Severity.ADVICE) and "overflowed" in found.cause


@pytest.mark.parametrize(
    ("norms", "losses", "severity"),
    [
        ((2e6, 2e5), (5.3, 0.1), Severity.ADVICE),  # scaled for fp16, or a sum: large before anything was learned
        ((8.0, 300.0), (25.0, 15.0), Severity.ADVICE),  # errors squared: training and held-out loss still fall
        ((8.0, 300.0), (2.0, 1.9), Severity.HARMFUL),
    ],
)
def test_large_norms_harm_where_the_loss_does_not_fall(
    folder: Any, build: Any, norms: tuple[float, float], losses: tuple[float, float], severity: Severity
) -> None:
    (first, last), (start, end) = norms, losses
    columns = {"grad_norm": lambda step, _: first + (last - first) * step / 100}
    metrics = build.curve(build.decay(start, end, 100, knee=0.3), **columns)
    rows = held_out(metrics, loss=[start, 0.9 * start, 0.8 * start] if end < 0.9 * start else [start, start, start])
    found = diagnose(folder("init_from: my/model\n", metrics=rows)).diagnoses
    assert [(d.symptom, d.severity) for d in found if d.symptom is Symptom.GRAD_EXPLOSION] == [
        (Symptom.GRAD_EXPLOSION, severity)
    ]


def test_of_several_runs_in_one_log_the_last_one_counts(tmp_path: Path) -> None:
    def printed(loss: str, i: int) -> str:
        return f"{{'loss': {loss}, 'grad_norm': 1.0, 'learning_rate': 1e-05, 'epoch': {i / 10}}}\n"

    failed = "".join(printed("nan", i) for i in range(1, 9))
    went_well = "".join(printed(str(2.0 - i / 20), i) for i in range(1, 13))
    (tmp_path / "log.txt").write_text(failed + went_well)
    assert read_folder(tmp_path).last_step == 12 and diagnose(tmp_path).healthy
    (tmp_path / "log.txt").write_text(went_well + failed)
    assert not diagnose(tmp_path).healthy


def test_held_out_loss_at_its_best_in_the_end_is_no_overfitting(folder: Any, build: Any) -> None:
    metrics = build.curve(build.decay(1.5, 0.001, 160, knee=0.2), epoch=lambda step, _: step / 13)
    columns = {"loss": [0.63, 0.7, 1.1, 0.9, 0.6, 0.28], "accuracy": [0.71, 0.74, 0.72, 0.82, 0.88, 0.95]}
    assert said(folder("init_from: my/vision-model\n", metrics=held_out(metrics, **columns))) == []
