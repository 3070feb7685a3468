"""Rules about rows and answers: counts over the data, endings, format, pairing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bot.diagnosis import diagnose, preflight
from bot.diagnosis.outcomes import loops, pairing_of, text_distance
from bot.domain.diagnosis import Diagnosis, DiagnosisReport, Severity, Symptom


def first(path: Path, run: Callable[[Path], DiagnosisReport] = diagnose) -> Diagnosis:
    found = [d for d in run(path).diagnoses if d.severity is not Severity.ADVICE]
    assert found, run(path).ruled_out
    return found[0]


@pytest.mark.parametrize(("cut", "severity"), [(20, Severity.ADVICE), (300, Severity.HARMFUL), (1000, Severity.FATAL)])
def test_truncated_rows_grow_from_advice_to_fatal(folder: Any, build: Any, cut: int, severity: Severity) -> None:
    lengths = {"p50": 700, "p95": 1900, "max": 2500}
    (found,) = preflight(folder(audit=build.audit | {"truncated_rows": cut, "token_lengths": lengths})).diagnoses
    assert (found.symptom, found.severity, found.key, found.suggested) == (
        Symptom.TRUNCATION,
        severity,
        "max_length",
        4096,
    )


def test_one_enormous_row_does_not_set_the_length_for_all(folder: Any, build: Any) -> None:
    lengths = {"p50": 700, "p95": 1900, "max": 60_000}
    found = first(folder(audit=build.audit | {"truncated_rows": 300, "token_lengths": lengths}), preflight)
    assert found.suggested == 2048


def test_truncation_explains_the_end_tokens_it_cut(folder: Any, build: Any) -> None:
    report = preflight(folder(audit=build.audit | {"truncated_rows": 400, "supervised_eos_rows": 600}))
    assert [d.symptom for d in report.diagnoses] == [Symptom.TRUNCATION]


def test_truncation_without_an_audit_shows_in_tokens_per_row(folder: Any, build: Any) -> None:
    metrics = build.curve(build.decay(2, 1, 50), num_tokens=lambda step, _: step * 8 * 1024 - 100 * (step % 3))
    found = first(folder(metrics=metrics))
    assert (found.symptom, found.suggested) == (Symptom.TRUNCATION, 2048)


def test_rows_that_are_padded_to_their_longest_are_not_truncation(folder: Any, build: Any) -> None:
    """Every step has exactly as many tokens: nothing tells rows that were padded from rows that were cut."""
    metrics = build.curve(build.decay(2, 1, 50), num_tokens=lambda step, _: step * 8 * 1024)
    assert diagnose(folder(metrics=metrics)).diagnoses == ()


def test_tokens_per_row_of_an_unknown_batch_say_nothing(folder: Any, build: Any) -> None:
    metrics = build.curve(build.decay(2, 1, 50), num_tokens=lambda step, _: step * 8 * 1024 - 100 * (step % 3))
    assert diagnose(folder("base_model: my/model\nsequence_len: 1024\n", metrics=metrics)).diagnoses == ()


def test_packed_rows_of_full_length_are_not_truncation(folder: Any, build: Any) -> None:
    metrics = build.curve(build.decay(2, 1, 50), num_tokens=lambda step, _: step * 8 * 1024)
    assert diagnose(folder(build.recipe + "packing: true\n", metrics=metrics)).healthy


def test_rows_without_an_end_token_blame_the_template_the_recipe_sets(folder: Any, build: Any) -> None:
    recipe = build.recipe + "chat_template_path: ours.jinja\n"
    found = first(folder(recipe, audit=build.audit | {"supervised_eos_rows": 3}), preflight)
    assert (found.symptom, found.key, found.line, found.suggested) == (
        Symptom.MISSING_EOS,
        "chat_template_path",
        6,
        None,
    )


def test_padding_token_that_is_an_end_token_is_named(folder: Any, build: Any) -> None:
    found = first(folder(audit=build.audit | {"supervised_eos_rows": 0, "pad_token_id": 1}), preflight)
    assert found.key == "pad_token"


def test_missing_end_tokens_are_advice_when_the_model_ends_anyway(folder: Any, build: Any) -> None:
    path = folder(audit=build.audit | {"supervised_eos_rows": 0}, evaluation=build.evaluation(0.8))
    assert diagnose(path).healthy and diagnose(path).diagnoses[0].symptom is Symptom.MISSING_EOS


def test_rows_without_a_supervised_token_blame_the_mask(folder: Any, build: Any) -> None:
    recipe = build.recipe + "assistant_only_loss: true\n"
    found = first(folder(recipe, audit=build.audit | {"zero_label_rows": 1000, "supervised_eos_rows": 0}))
    assert (found.symptom, found.key, found.suggested) == (Symptom.ASSISTANT_MASK_EMPTY, "assistant_only_loss", False)


def test_zero_loss_with_zero_gradient_from_the_start_is_masked_labels(folder: Any, build: Any) -> None:
    metrics = build.curve([0.0] * 30, mean_token_accuracy=0.0)
    for record in metrics:
        record["grad_norm"] = 0.0
    assert first(folder(metrics=metrics)).symptom is Symptom.ALL_LABELS_MASKED


def test_duplicates_hide_the_overfitting_they_cause(folder: Any, build: Any) -> None:
    metrics = build.curve(build.decay(1.8, 0.01, 300), epoch=lambda step, _: step / 100)
    metrics += [{"step": 30 * i, "eval_loss": 1 + 0.1 * i} for i in range(1, 11)]
    path = folder(
        build.recipe + "data_deduplicate: false\n", audit=build.audit | {"duplicate_rows": 960}, metrics=metrics
    )
    (found,) = diagnose(path).diagnoses
    assert (found.symptom, found.key, found.suggested, found.line) == (Symptom.DUPLICATES, "data_deduplicate", True, 6)


def spelled(words: list[str]) -> list[tuple[str, str]]:
    return [(f"spell {word}", "-".join(word)) for word in words]


def test_shuffled_answers_are_noise_and_the_share_is_estimated(folder: Any, build: Any) -> None:
    right = spelled(build.words(200))
    answers = [c for _, c in right[:100]]
    wrong = [(p, c) for (p, _), c in zip(right[:100], answers[1:] + answers[:1], strict=True)] + right[100:]
    path = folder(
        build.recipe + "data_sources: team.jsonl\n",
        train=build.pairs(wrong),
        eval=build.pairs(spelled(build.words(100, 9))),
    )
    found = first(path, preflight)
    assert (found.symptom, found.key) == (Symptom.LABEL_NOISE, "data_sources")
    share = next(e.value for e in found.evidence if e.key == "noise_share")
    assert isinstance(share, float) and 0.35 < share < 0.65


def test_right_answers_of_an_unrelated_form_are_not_noise(folder: Any, build: Any) -> None:
    """Class names share nothing with their texts; right and shuffled pairs look the same and nothing may be said."""
    rows = [(word, "positive" if i % 2 else "negative") for i, word in enumerate(build.words(200))]
    assert preflight(folder(train=build.pairs(rows), eval=build.pairs(rows[:60]))).healthy


def test_longer_training_answers_than_references_are_not_noise(folder: Any, build: Any) -> None:
    known = spelled(build.words(100, 9))
    rows = [
        (p, f"Let me think about it step by step, slowly and with great care, and then say: {c}")
        for p, c in spelled(build.words(200))
    ]
    assert preflight(folder(train=build.pairs(rows), eval=build.pairs(known))).healthy


def test_swapped_columns_are_seen_against_the_benchmark(folder: Any, build: Any) -> None:
    long_prompts = [
        (f"Please spell the following word for me, letter by letter: {w}", w.upper()) for w in build.words(120)
    ]
    recipe = "data_prompt_column: answer\ndata_completion_column: question\n"
    path = folder(recipe, train=build.pairs((c, p) for p, c in long_prompts), eval=build.pairs(long_prompts))
    found = first(path, preflight)
    assert (found.symptom, found.key, found.suggested) == (Symptom.WRONG_COLUMNS, "data_prompt_column", "auto")


def test_empty_completions_are_a_wrong_column(folder: Any, build: Any) -> None:
    found = first(folder(train=build.pairs((w, "") for w in build.words(50))), preflight)
    assert (found.symptom, found.key) == (Symptom.WRONG_COLUMNS, "data_completion_column")


def test_copying_task_is_not_an_echoed_column(folder: Any, build: Any) -> None:
    rows = build.pairs((w, w) for w in build.words(80))
    assert preflight(folder(train=rows, eval=rows[:40])).healthy


def answered(build: Any, response: Any, *, finish: str, n: int = 60) -> list[dict[str, Any]]:
    return [
        {
            "id": str(i),
            "prompt": f"spell {w}",
            "reference": "-".join(w),
            "response": response("-".join(w)),
            "finish": finish,
            "score": 0.0,
        }
        for i, w in enumerate(build.words(n))
    ]


def run(build: Any, samples: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    metrics = build.curve(build.decay(6, 0.01, 100), peak=3e-3, mean_token_accuracy=0.99, epoch=1.0)
    return {
        "metrics": metrics,
        "goal": {"target": 0.8},
        "evaluation": build.evaluation(0.0, n=60, samples=samples, **fields),
        "baseline": build.evaluation(0.0, n=60),
        "train": build.pairs(spelled(build.words(80, 5))),
    }


def test_right_answers_that_go_on_are_a_missing_end_token(folder: Any, build: Any) -> None:
    samples = answered(build, lambda ref: ref + "-x" * 20, finish="length")
    found = first(folder(**run(build, samples, lenient=0.9)))
    assert found.symptom is Symptom.MISSING_EOS and "begin with the right answer" in found.cause


def test_right_answers_cut_short_are_clipped_by_the_benchmarks_cap(folder: Any, build: Any) -> None:
    found = first(folder(**run(build, answered(build, lambda ref: ref[:4], finish="length"))))
    assert (found.symptom, found.key) == (Symptom.CLIPPED_COMPLETIONS, None)


def test_long_reasoning_cut_before_its_answer_is_clipped_not_endless(folder: Any, build: Any) -> None:
    thought = " ".join(build.words(200, 3))
    parts = run(build, answered(build, lambda ref: thought[: 900 + len(ref)], finish="length"))
    parts["train"] = build.pairs((p, f"{thought} {c}") for p, c in spelled(build.words(60, 7)))
    assert first(folder(**parts)).symptom is Symptom.CLIPPED_COMPLETIONS


def test_answers_in_another_form_fail_extraction(folder: Any, build: Any) -> None:
    samples = answered(build, lambda ref: f"Sure! The answer is {ref}.", finish="stop")
    found = first(folder(**run(build, samples, lenient=0.95)))
    assert found.symptom is Symptom.EXTRACTION_FAIL and "95 %" in found.cause


def test_template_that_the_recipe_sets_is_blamed_for_what_it_alone_explains(folder: Any, build: Any) -> None:
    recipe = "learning_rate: 3.0e-3\nchat_template_path: ours.jinja\n"
    samples = answered(build, lambda ref: ref[::-1], finish="stop")
    found = first(folder(recipe, **run(build, samples)))
    assert (found.symptom, found.key, found.line) == (Symptom.TEMPLATE_MISMATCH, "chat_template_path", 2)


def test_template_that_halves_the_score_is_doubted_and_one_that_costs_a_little_is_not(folder: Any, build: Any) -> None:
    recipe = "learning_rate: 3.0e-3\nchat_template_path: ours.jinja\n"
    for wrong, blamed in ((2, True), (9, False)):
        samples = answered(build, lambda ref: ref, finish="stop")
        samples[::wrong] = [{**each, "response": each["reference"][::-1], "score": 0.0} for each in samples[::wrong]]
        parts = run(build, samples)
        value = 1 - 1 / wrong
        parts["evaluation"] = parts["evaluation"] | {"value": value, "strict": value, "lenient": value}
        report = diagnose(folder(recipe, **parts))
        assert (Symptom.TEMPLATE_MISMATCH in {each.symptom for each in report.diagnoses}) is blamed, report


def test_answers_that_are_wrong_from_the_start_are_not_blamed_on_the_cap(folder: Any, build: Any) -> None:
    recipe = "learning_rate: 3.0e-3\nchat_template_path: ours.jinja\n"
    samples = answered(build, lambda ref: ref[::-1], finish="stop")
    samples[::3] = [{**each, "response": "9z" * 12, "finish": "length"} for each in samples[::3]]
    found = first(folder(recipe, **run(build, samples)))
    assert (found.symptom, found.key) == (Symptom.TEMPLATE_MISMATCH, "chat_template_path")


@pytest.mark.parametrize(
    ("text", "expected"), [("ababababababab", True), ("aaaaaaaaaaaaaaa", True), ("abcdefgh", False), ("no no", False)]
)
def test_loops_are_seen(text: str, expected: bool) -> None:
    assert loops(text) is expected


def test_pairing_is_high_for_own_prompts_and_zero_for_others(build: Any) -> None:
    right = spelled(build.words(100))
    shuffled = [(p, right[(i + 31) % 100][1]) for i, (p, _) in enumerate(right)]
    own, other = pairing_of(right), pairing_of(shuffled)
    assert own is not None and own.excess > 0.2 and own.z > 10
    assert other is not None and abs(other.excess) < 0.1
    assert pairing_of(right[:10]) is None


def test_text_distance_is_small_for_alike_and_large_for_unlike() -> None:
    assert text_distance(["abc def"] * 5, ["bca fed"] * 5) < 0.1
    assert text_distance(["abc"] * 5, ["12345678901234567890"] * 5) > 0.8
