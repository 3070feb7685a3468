"""The engine as a whole: a rule with a source for every label, two causes at once, and what must never fire."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from bot.diagnosis import diagnose
from bot.diagnosis.consequences import EXPLAINS
from bot.diagnosis.engine import RULES
from bot.domain.diagnosis import Diagnosis, Severity, Symptom


def blamed(path: Any) -> list[Diagnosis]:
    return [d for d in diagnose(path).diagnoses if d.severity is not Severity.ADVICE]


def test_every_label_has_a_rule_with_a_source() -> None:
    assert {rule.symptom for rule in RULES} == set(Symptom) - {Symptom.UNKNOWN}
    assert all(len(rule.source) > 10 for rule in RULES)


def test_no_two_causes_explain_each_other() -> None:
    both = [(a, b) for a, b in itertools.permutations(EXPLAINS, 2) if b in EXPLAINS[a] and a in EXPLAINS[b]]
    assert both == [] and not any(symptom in hidden for symptom, hidden in EXPLAINS.items())


def test_two_faults_at_once_are_both_named_the_more_harmful_first(folder: Any, build: Any) -> None:
    metrics = build.curve(build.decay(1.8, 0.9, 200), entropy=lambda _, loss: loss)
    audit = build.audit | {"truncated_rows": 900, "duplicate_rows": 550}
    report = blamed(folder(build.recipe + "data_deduplicate: false\n", metrics=metrics, audit=audit))
    assert [d.symptom for d in report] == [Symptom.TRUNCATION, Symptom.DUPLICATES]
    assert [d.line for d in report] == [4, 6]


def test_rate_and_forgotten_task_are_both_named(folder: Any, build: Any) -> None:
    metrics = build.curve(build.decay(1.5, 1.1, 40) + [6.0] * 60, peak=1e-3)
    old = [{"name": "reverse", "before": 0.98, "after": 0.03, "n": 100}]
    result = build.evaluation(0.5, old_tasks=old)
    labels = {d.symptom for d in blamed(folder(build.recipe, metrics=metrics, evaluation=result, goal={"target": 0.9}))}
    assert {Symptom.DIVERGENCE} <= labels


def test_old_task_that_was_lost_is_named_though_the_target_was_met(folder: Any, build: Any) -> None:
    old = [
        {"name": "reverse", "before": 0.98, "after": 0.03, "n": 100},
        {"name": "sort", "before": 0.5, "after": 0.48, "n": 100},
    ]
    path = folder("max_steps: 200\n", evaluation=build.evaluation(0.95, old_tasks=old), goal={"target": 0.9})
    (found,) = blamed(path)
    assert (found.symptom, found.key, found.suggested, found.line) == (Symptom.FORGETTING, "max_steps", 100, 1)


def test_old_tasks_within_noise_are_kept(folder: Any, build: Any) -> None:
    old = [{"name": "reverse", "before": 0.98, "after": 0.95, "n": 40}]
    report = diagnose(folder(evaluation=build.evaluation(0.95, old_tasks=old), goal={"target": 0.9}))
    assert report.healthy and any(line.startswith("forgetting") for line in report.ruled_out)


def test_spike_without_clipping_that_cost_ground(folder: Any, build: Any) -> None:
    losses = [*build.noisy(build.decay(2.0, 0.6, 100, knee=0.2)), 8.0, 7.0, *build.noisy([1.05] * 60)]
    norms = [1.0] * 100 + [40.0, 35.0] + [1.2] * 60
    metrics = build.curve(losses, grad_norm=lambda step, _: norms[step - 1], entropy=lambda _, loss: loss)
    recipe = "init_from: Qwen/Qwen3-1.7B\nlearning_rate: 2.0e-5\nmax_grad_norm: 0\n"
    path = folder(recipe, metrics=metrics, evaluation=build.evaluation(0.3), goal={"target": 0.7})
    found = blamed(path)[0]
    assert (found.symptom, found.key, found.suggested, found.line) == (Symptom.LOSS_SPIKE, "max_grad_norm", 1.0, 3)
    assert found.certain_at == 101


def test_norms_that_stay_above_a_hundred(folder: Any, build: Any) -> None:
    metrics = build.curve(build.noisy([1.9] * 60), grad_norm=lambda step, _: 300.0 if step > 10 else 20.0)
    found = blamed(folder(build.recipe + "max_grad_norm: 1000\n", metrics=metrics))[0]
    assert (found.symptom, found.key, found.suggested, found.certain_at) == (
        Symptom.GRAD_EXPLOSION,
        "max_grad_norm",
        1.0,
        18,
    )


def test_gradient_that_never_is_anything_but_zero(folder: Any, build: Any) -> None:
    metrics = build.curve([2.3] * 30, grad_norm=0.0)
    (found,) = blamed(folder(metrics=metrics))
    assert (found.symptom, found.severity, found.certain_at) == (Symptom.FROZEN, Severity.FATAL, 5)


def test_weights_that_stay_while_gradients_flow_blame_the_script(folder: Any, build: Any) -> None:
    metrics = build.curve([2.3] * 30, grad_norm=1.4)
    found = blamed(folder(metrics=metrics, setup={"frozen_after_3_steps": True}))[0]
    assert (found.symptom, found.file, found.key) == (Symptom.FROZEN, "train.py", None)


def test_answers_of_the_base_model_after_training_are_an_adapter_nobody_loads(folder: Any, build: Any) -> None:
    samples = [{"id": str(i), "response": w, "score": 0.0} for i, w in enumerate(build.words(60))]
    metrics = build.curve(build.decay(6.0, 0.01, 100), peak=1e-3, mean_token_accuracy=0.99, epoch=1.0)
    result = build.evaluation(0.0, n=60, samples=samples)
    (found,) = blamed(
        folder("use_peft: true\n", metrics=metrics, evaluation=result, baseline=result, goal={"target": 0.8})
    )
    assert (found.symptom, found.key) == (Symptom.ADAPTER_UNUSED, None)


def test_right_as_served_and_wrong_as_evaluated_is_the_evaluations_prompt(folder: Any, build: Any) -> None:
    metrics = build.curve(build.decay(6.0, 0.01, 100), peak=1e-3, mean_token_accuracy=0.99, epoch=1.0)
    metrics += [{"step": step, "probe/exact_match": 0.94, "probe/termination_rate": 1.0} for step in (50, 100)]
    path = folder("learning_rate: 1.0e-3\n", metrics=metrics, evaluation=build.evaluation(0.0), goal={"target": 0.8})
    assert blamed(path)[0].symptom is Symptom.EVAL_PROMPT_MISMATCH


def test_metric_of_which_less_is_more_is_met_from_above(folder: Any, build: Any) -> None:
    result = build.evaluation(0.2, metric="wer")
    assert diagnose(folder(evaluation=result, goal={"target": 0.25, "metric": "wer"})).healthy
    missed = diagnose(folder(evaluation=build.evaluation(0.6, metric="wer"), goal={"target": 0.25, "metric": "wer"}))
    assert [d.symptom for d in missed.diagnoses] == [Symptom.UNKNOWN]


# What healthy runs show, and rules are tempted by. Reinforcement's and preference's are in test_policies.
@pytest.mark.parametrize(
    "records",
    [
        [{"step": i, "loss": 0.0, "grad_norm": 0.8, "reward": 0.3 + 0.01 * i, "reward_std": 0.3} for i in range(1, 40)],
        [{"step": i, "loss": 1.9 - 0.02 * i, "grad_norm": 0.0 if i % 9 == 0 else 0.7} for i in range(1, 40)],
        [{"step": i, "reward": 0.5, "rewards/ours/std": 0.4, "reward_std": 0.0 if i % 3 else 0.2, "loss": 0.01,
          "frac_reward_zero_std": 0.6, "grad_norm": 0.3} for i in range(1, 40)],
        [{"step": i, "loss": 0.6 - 0.01 * i, "rewards/chosen": -0.01 * i, "rewards/rejected": -0.05 * i,
          "grad_norm": 1.0, "rewards/margins": 0.04 * i, "rewards/accuracies": 0.9, "logps/chosen": -20 - 0.02 * i,
          "logps/rejected": -20 - 0.5 * i} for i in range(1, 40)],
        [{"step": i, "loss": 0.2, "grad_norm": 0.5, "reward": 0.2 + 0.015 * i, "entropy": max(0.06, 2.4 * 0.6**i)}
         for i in range(1, 40)],
    ],
    ids=["loss-zero-with-gradient", "a-zero-norm-now-and-then", "spread-in-parts-not-in-groups", "chosen-below-zero",
         "entropy-falls-early"],
)  # fmt: skip
def test_what_must_not_fire_does_not(folder: Any, records: list[dict[str, Any]]) -> None:
    report = diagnose(folder("init_from: Qwen/Qwen3-1.7B\nlearning_rate: 1.0e-6\n", metrics=records))
    assert report.healthy, [d.cause for d in report.diagnoses]


def classifier(build: Any, losses: list[float], rate: str) -> dict[str, Any]:
    recipe = f"method: classify\ninit_from: google-bert/bert-base-uncased\nlearning_rate: {rate}\n"
    audit = {"rows": 1000, "labels": {"good": 500, "bad": 500}}
    setup = {"parameters": 1.1e8, "trainable_parameters": 1.1e8}
    chance = build.evaluation(0.5, metric="accuracy")
    return {"recipe": recipe, "metrics": build.curve(losses, peak=float(rate)), "audit": audit, "setup": setup,
            "evaluation": chance, "baseline": chance, "goal": {"target": 0.9, "metric": "accuracy"}}  # fmt: skip


def test_classifier_that_cannot_tell_its_labels_apart(folder: Any, build: Any) -> None:
    found = blamed(folder(**classifier(build, build.noisy([0.69] * 200), "3.0e-5")))
    assert found[0].symptom is Symptom.LABEL_NOISE and "0.6931" in found[0].cause


@pytest.mark.parametrize(("rate", "suggested"), [("1.0e-3", 5.7e-5), ("1.0e-7", 3.2e-5), ("1.5e-5", 1.5e-4)])
def test_classifier_that_never_moved_changes_its_rate_towards_the_band(
    folder: Any, build: Any, rate: str, suggested: float
) -> None:
    found = blamed(folder(**classifier(build, build.noisy([0.69] * 200), rate)))[0]
    assert (found.symptom, found.key, found.suggested) == (Symptom.PLATEAU, "learning_rate", suggested)
