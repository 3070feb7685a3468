"""Faults that look alike, told apart by what else is known of the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bot.diagnosis import diagnose, read_folder
from bot.diagnosis.engine import diagnosis_of
from bot.domain.diagnosis import Diagnosis, Severity, Symptom

TINY = "method: sft\ninit_from: postdoc/tiny-qwen3\nlearning_rate: 3.0e-3\nmax_length: 128\n"


def blamed(place: Path) -> list[Diagnosis]:
    return [found for found in diagnose(place).diagnoses if found.severity is not Severity.ADVICE]


def probes(*shares: tuple[float, float]) -> list[dict[str, Any]]:
    return [
        {"step": 20 * n, "probe/termination_rate": ended, "probe/exact_match": right}
        for n, (ended, right) in enumerate(shares, start=1)
    ]


def endless(build: Any, n: int = 60) -> list[dict[str, Any]]:
    """Answers that have nothing to do with the reference and run into the cap."""
    names = build.words(n)
    return [
        {"id": str(i), "prompt": f"say {w}", "response": "xq" * 20, "reference": w, "score": 0.0, "finish": "length"}
        for i, w in enumerate(names)
    ]


@pytest.mark.parametrize(
    ("last", "symptom"),
    [((1.0, 0.95), Symptom.EVAL_PROMPT_MISMATCH), ((0.05, 0.0), Symptom.MISSING_EOS)],
    ids=["ends-as-served", "never-ends"],
)
def test_answers_without_an_end_are_the_evaluations_where_the_served_model_ends(
    folder: Any, build: Any, last: tuple[float, float], symptom: Symptom
) -> None:
    metrics = build.curve(build.decay(6.0, 0.01, 100), peak=3e-3, mean_token_accuracy=0.99, epoch=1.0)
    audit = build.audit | {"template": {"compared_rows": 50, "train_prefix_equal_rows": 50}}
    result = build.evaluation(0.0, n=60, samples=endless(build))
    rows = [*metrics, *probes((1.0, 0.0), last)]
    found = blamed(folder(TINY, metrics=rows, evaluation=result, audit=audit, goal={"target": 0.9}))
    assert found[0].symptom is symptom
    if symptom is Symptom.EVAL_PROMPT_MISMATCH:
        assert found[0].key is None  # the evaluator is no line of the experiment


def test_cap_below_the_references_is_not_a_missing_end(folder: Any, build: Any) -> None:
    audit = build.audit | {"truncated_rows": 1000, "max_completion_length": 2, "answer_token_lengths": {"max": 3}}
    metrics = build.policy_curve(build.trend(0.1, 0.4, 40), **{"completions/clipped_ratio": 1.0})
    recipe = "method: grpo\nlearning_rate: 1.0e-3\nmax_completion_length: 2\n"
    result = build.evaluation(0.0, n=60, samples=endless(build))
    found = blamed(folder(recipe, metrics=metrics, audit=audit, evaluation=result, goal={"target": 0.9}))
    assert (found[0].symptom, found[0].key) == (Symptom.CLIPPED_COMPLETIONS, "max_completion_length")
    assert Symptom.MISSING_EOS not in {each.symptom for each in found}


def test_schedule_that_ended_early_is_blamed_for_the_loss_that_stayed(folder: Any, build: Any) -> None:
    def rate(step: int, _: float) -> float:
        return 3e-3 if step < 30 else 0.0

    recipe = TINY + "lr_scheduler_type: warmup_stable_decay\n"
    losses = build.noisy([*build.decay(6.0, 1.6, 30), *[1.6] * 170])
    result, goal = build.evaluation(0.05), {"target": 0.9}
    metrics = [row | {"learning_rate": rate(row["step"], 0)} for row in build.curve(losses, entropy=1.6)]
    found = blamed(folder(recipe, metrics=metrics, evaluation=result, goal=goal))
    assert (found[0].symptom, found[0].key) == (Symptom.PLATEAU, "lr_scheduler_type")
    assert "step 29 of 200" in found[0].cause


def batches(build: Any, empty: int, **others: float) -> list[dict[str, Any]]:
    """A curve of which every `empty`-th record has no loss and no gradient."""
    rows = build.curve(build.noisy([2.0] * 100), mean_token_accuracy=0.4)
    nothing = {"loss": 0.0, "grad_norm": 0.0, "mean_token_accuracy": 0.0} | others
    return [row | nothing if row["step"] % empty == 0 else row for row in rows]


def test_batches_that_lost_their_labels_are_the_scripts(folder: Any, build: Any) -> None:
    audit = build.audit | {"zero_label_rows": 0}
    for empty, severity in ((1, Severity.FATAL), (3, Severity.HARMFUL), (20, Severity.HARMFUL)):
        found = blamed(folder(TINY, metrics=batches(build, empty), audit=audit, goal={"target": 0.9}))
        named = next(each for each in found if each.symptom is Symptom.ALL_LABELS_MASKED)
        assert (named.key, named.file, named.severity) == (None, "train.py", severity)


@pytest.mark.parametrize("others", [{"mean_token_accuracy": 1.0}, {"grad_norm": 1e-7}])
def test_batches_that_are_solved_have_their_labels(folder: Any, build: Any, others: dict[str, float]) -> None:
    report = diagnose(folder(TINY, metrics=batches(build, 3, **others), audit=build.audit | {"zero_label_rows": 0}))
    assert Symptom.ALL_LABELS_MASKED not in {each.symptom for each in report.diagnoses}


def test_not_a_number_after_a_divergence_is_where_that_ended(folder: Any, build: Any) -> None:
    risen = [{"step": n, "loss": 1.0 if n < 20 else 2.0**n, "grad_norm": 1.0} for n in range(1, 60)]
    lost = [{"step": n, "loss": "NaN", "grad_norm": "NaN"} for n in range(60, 100)]
    at_once = [{"step": n, "loss": 1.0, "grad_norm": 1.0} for n in range(1, 60)]
    clipped = TINY + "max_grad_norm: 0.0\n"
    found = blamed(folder(clipped, metrics=[*risen, *lost]))
    assert (found[0].symptom, found[0].key) == (Symptom.DIVERGENCE, "max_grad_norm")
    assert blamed(folder(clipped, metrics=[*at_once, *lost]))[0].symptom is Symptom.NAN_INF
    assert blamed(folder(TINY + "fp16: true\n", metrics=[*risen, *lost]))[0].symptom is Symptom.NAN_INF


def test_answers_that_do_not_end_yet_are_those_of_a_model_that_has_not_learned(folder: Any, build: Any) -> None:
    recipe = "method: sft\ninit_from: postdoc/tiny-qwen3\nlearning_rate: 2.0e-4\nuse_peft: true\nmax_steps: 150\n"
    metrics = build.curve(
        build.noisy([12 * 0.992**n for n in range(150)]), peak=2e-4, entropy=3.4, mean_token_accuracy=0.3
    )
    samples = [s | {"response": "4434" if i % 2 else "xq" * 20} for i, s in enumerate(endless(build))]
    result = build.evaluation(0.0, n=60, samples=samples)
    found = blamed(folder(recipe, metrics=metrics, evaluation=result, goal={"target": 0.9}))
    assert [(each.symptom, each.key) for each in found] == [(Symptom.PLATEAU, "learning_rate")]
    assert found[0].suggested > 2e-4


def test_rate_below_its_band_comes_before_more_steps(folder: Any, build: Any) -> None:
    recipe = "method: sft\ninit_from: postdoc/tiny-qwen3\nlearning_rate: 2.0e-5\nnum_train_epochs: 1\n"
    metrics = build.curve(build.noisy(build.decay(5.0, 0.5, 150, knee=0.5)), peak=2e-5, mean_token_accuracy=0.8)
    found = blamed(folder(recipe, metrics=metrics, evaluation=build.evaluation(0.75), goal={"target": 0.9}))
    assert (found[0].symptom, found[0].key) == (Symptom.PLATEAU, "learning_rate")


def test_far_from_the_target_below_the_band_the_rate_is_named_whatever_the_curve(folder: Any, build: Any) -> None:
    recipe = "method: pretrain\ninit_from: postdoc/tiny-qwen3\nlearning_rate: 2.0e-5\npacking: true\n"
    metrics = build.curve(build.noisy(build.decay(5.5, 4.3, 200)), peak=2e-5)
    result = build.evaluation(0.5) | {"value": 78.0, "metric": "perplexity", "standard_error": 1.0, "samples": []}
    goal = {"target": 6.8, "metric": "perplexity"}
    found = blamed(folder(recipe, metrics=metrics, evaluation=result, goal=goal))
    assert [(each.symptom, each.key) for each in found] == [(Symptom.PLATEAU, "learning_rate")]


def test_one_token_for_padding_and_end_is_seen_in_the_probes(folder: Any, build: Any) -> None:
    audit = build.audit | {"pad_token_id": 1}
    metrics = build.curve(build.noisy([1.0] * 60))

    def severity(*shares: tuple[float, float]) -> Severity | None:
        run = read_folder(folder(TINY, metrics=[*metrics, *probes(*shares)], audit=audit)).until(60)
        named = (each for each in diagnosis_of(run).diagnoses if each.symptom is Symptom.PAD_EQ_EOS)
        return next((each.severity for each in named), None)

    assert severity((0.9, 0.0), (0.1, 0.0), (0.0, 0.0)) is Severity.HARMFUL
    assert severity((0.9, 0.0), (0.9, 0.3), (1.0, 0.9)) is Severity.ADVICE


PERPLEXITY: dict[str, Any] = {"metric": "perplexity", "standard_error": 0.1, "strict": None, "lenient": None}


@pytest.mark.parametrize("value", [0.9, 3.0, 40.0])
def test_metric_that_counts_errors_is_no_share_of_right_answers(folder: Any, build: Any, value: float) -> None:
    """A solved run whose perplexity met its target: no rule takes the number for a share of right answers."""
    metrics = build.curve(build.decay(6.0, 0.01, 100), peak=3e-3, mean_token_accuracy=0.99, epoch=1.0)
    audit = build.audit | {"template": {"compared_rows": 50, "train_prefix_equal_rows": 50}}
    result = build.evaluation(0.0, n=60) | PERPLEXITY | {"value": value}
    for goal in ({"target": 1.1 * value, "metric": "perplexity"}, {"target": 0.5 * value, "metric": "perplexity"}, {}):
        place = folder(TINY, metrics=metrics, evaluation=result, audit=audit, goal=goal)
        assert read_folder(place).share_right is None
        wrong = {Symptom.TEMPLATE_MISMATCH, Symptom.EVAL_PROMPT_MISMATCH, Symptom.EXTRACTION_FAIL}
        assert not wrong & {each.symptom for each in diagnose(place).diagnoses}
