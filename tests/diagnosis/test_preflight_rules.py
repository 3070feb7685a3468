"""Rules that need no training: what the audit, the rows and the recipe say before the first step."""

from __future__ import annotations

from typing import Any

import pytest

from bot.diagnosis import diagnose, preflight
from bot.domain.diagnosis import Diagnosis, Severity, Symptom
from bot.domain.languages import language_of, shares_of


def only(path: Any) -> Diagnosis:
    found = [d for d in preflight(path).diagnoses if d.severity is not Severity.ADVICE]
    assert len(found) == 1, [d.cause for d in found] or preflight(path).ruled_out
    return found[0]


VOCABULARY = {"tokenizer": 260, "embeddings": 260, "largest_id": 259, "new_untrained_tokens": []}
LORA = "init_from: Qwen/Qwen3-1.7B\nuse_peft: true\nlora_target_modules: q_proj\n"
PEFT_SETUP = {"parameters": 1.7e9, "trainable_parameters": 8_700_000}


@pytest.mark.parametrize(
    ("recipe", "audit", "setup", "symptom", "key", "suggested"),
    [
        ("", {"vocabulary": VOCABULARY | {"largest_id": 300}}, {}, Symptom.TOKENIZER, "init_from", None),
        (
            "use_peft: true\n",
            {"vocabulary": VOCABULARY | {"new_untrained_tokens": [258, 259]}},
            PEFT_SETUP,
            Symptom.EMBEDDING,
            "trainable_token_indices",
            "embed_tokens",
        ),
        (
            "bf16: true\n",
            {"precision": {"dtype": "bfloat16", "fp16": False, "bf16": True, "device_capability": "7.5"}},
            {},
            Symptom.DTYPE,
            "bf16",
            False,
        ),
        (
            "fp16: true\ndtype: float16\n",
            {"precision": {"dtype": "float16", "fp16": True, "bf16": False, "device_capability": [8, 0]}},
            {},
            Symptom.DTYPE,
            "dtype",
            "float32",
        ),
        (
            "packing: true\n",
            {"packing": True, "attention": {"implementation": "eager", "packing_is_isolated": False}},
            {},
            Symptom.PACKING_LEAK,
            "packing",
            False,
        ),
        (
            "use_peft: true\nlora_target_modules: [nothing]\n",
            {"lora": {"target_modules": ["nothing"], "matched_modules": 0, "trainable_parameters": 0}},
            {"parameters": 330_000, "trainable_parameters": 0},
            Symptom.LORA_TARGETS,
            "lora_target_modules",
            "all-linear",
        ),
        (
            "use_peft: true\nlora_target_modules: layers.0.self_attn.q_proj\n",
            {"lora": {"target_modules": ["layers.0.self_attn.q_proj"], "matched_modules": 1}},
            {"parameters": 330_000, "trainable_parameters": 1536},
            Symptom.LORA_TARGETS,
            "lora_target_modules",
            "all-linear",
        ),
        ("", {}, {"parameters": 330_000, "trainable_parameters": 0}, Symptom.FROZEN, None, None),
        (
            "chat_template_path: ours.jinja\n",
            {"template": {"train_prefix_equal_rows": 0, "compared_rows": 64, "double_bos_rows": 0}},
            {},
            Symptom.TEMPLATE_MISMATCH,
            "chat_template_path",
            None,
        ),
        (
            "",
            {"template": {"train_prefix_equal_rows": 0, "compared_rows": 64, "double_bos_rows": 64}},
            {},
            Symptom.TEMPLATE_MISMATCH,
            "init_from",
            None,
        ),
        (
            "assistant_only_loss: true\n",
            {"template": {"assistant_mask_rows": 0}, "zero_label_rows": 1000, "supervised_eos_rows": 0},
            {},
            Symptom.ASSISTANT_MASK_EMPTY,
            "assistant_only_loss",
            False,
        ),
        ("", {"pad_token_id": 1, "supervised_eos_rows": 0}, {}, Symptom.PAD_EQ_EOS, "pad_token", None),
        ("", {"null_completions": 400}, {}, Symptom.WRONG_COLUMNS, "data_completion_column", None),
        ("", {"labels": {"good": 950, "bad": 50}}, {}, Symptom.IMBALANCE, "data_sources", None),
        (
            "method: dpo\n",
            {"chosen_equals_rejected_rows": 700},
            {},
            Symptom.DPO_DISPLACEMENT,
            "data_rejected_column",
            None,
        ),
        (
            "method: grpo\nreward_functions: ours\n",
            {"reward_check": {"ours": {"reference": 0.0, "wrong": 0.0, "errors": 0}}},
            {},
            Symptom.REWARD_ZERO,
            "reward_functions",
            None,
        ),
        (
            "method: grpo\nreward_functions: ours\n",
            {"reward_check": {"ours": {"reference": -1.0, "wrong": 0.0}, "exact_match": {"reference": 1, "wrong": 0}}},
            {},
            Symptom.REWARD_INVERTED,
            "reward_functions",
            "exact_match",
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, Symptom) else "",
)
def test_audit_names_a_fault_before_the_first_step(
    folder: Any, build: Any, recipe: str, audit: dict[str, Any], setup: dict[str, Any], symptom: Symptom,
    key: str | None, suggested: object,
) -> None:  # fmt: skip
    found = only(folder("init_from: postdoc/tiny-qwen3\n" + recipe, audit=build.audit | audit, setup=setup))
    assert (found.symptom, found.key, found.suggested) == (symptom, key, suggested)
    assert found.certain_at is None or found.symptom is Symptom.FROZEN
    assert (found.line is not None) is ((key or "none:") + ":" in "init_from:" + recipe)


def test_audit_of_a_healthy_run_is_silent_and_says_what_was_looked_at(folder: Any, build: Any) -> None:
    audit = build.audit | {
        "vocabulary": VOCABULARY,
        "template": {"train_prefix_equal_rows": 64, "compared_rows": 64, "double_bos_rows": 0},
        "attention": {"implementation": "sdpa", "packing_is_isolated": True},
        "lora": {"target_modules": None, "matched_modules": 196, "trainable_parameters": 8_700_000},
        "precision": {"dtype": "bfloat16", "fp16": False, "bf16": True, "device_capability": "9.0"},
        "labels": {"good": 510, "bad": 490},
        "languages": {"en": 0.98, "de": 0.02},
        "null_completions": 0,
        "empty_completions": 3,
        "reward_check": {"exact_match": {"reference": 1.0, "wrong": 0.02, "errors": 0}},
    }
    path = folder("use_peft: true\nbf16: true\npacking: true\n", audit=audit, setup=PEFT_SETUP, goal={"language": "en"})
    report = preflight(path)
    assert report.healthy and not report.diagnoses
    looked_at = {line.split(":")[0] for line in report.ruled_out}
    assert {"tokenizer", "embedding", "template_mismatch", "packing_leak", "lora_targets", "dtype", "imbalance",
            "language_mismatch", "pad_eq_eos", "reward_hack"} <= looked_at  # fmt: skip


def test_padding_with_the_end_token_that_does_no_harm_is_advice(folder: Any, build: Any) -> None:
    report = preflight(folder(audit=build.audit | {"pad_token_id": 1}))
    assert report.healthy and report.diagnoses[0].symptom is Symptom.PAD_EQ_EOS


def test_padding_with_the_end_token_is_blamed_for_answers_that_never_end(folder: Any, build: Any) -> None:
    """The labels looked right before training, and what masks padding masked the ends after that."""
    endless, ended = (build.evaluation(0.0, finish=finish) for finish in ("length", "stop"))
    path = folder("pad_token: x\n", audit=build.audit | {"pad_token_id": 1}, evaluation=endless, baseline=ended)
    (found,) = [d for d in diagnose(path).diagnoses if d.severity is not Severity.ADVICE]
    assert (found.symptom, found.key, found.line) == (Symptom.PAD_EQ_EOS, "pad_token", 1)


def test_answers_of_one_class_are_compared_with_what_the_benchmark_asks(folder: Any, build: Any) -> None:
    texts = build.words(300)
    rows = build.pairs((w, "spam" if i % 20 == 0 else "ham") for i, w in enumerate(texts[:200]))
    equal = build.pairs((w, "spam" if i % 2 else "ham") for i, w in enumerate(texts[200:]))
    found = only(folder("train_file: a.jsonl\n", train=rows, eval=equal))
    assert (found.symptom, found.key) == (Symptom.IMBALANCE, "train_file")
    alike = build.pairs((w, "spam" if i % 20 == 0 else "ham") for i, w in enumerate(texts[200:]))
    assert preflight(folder("train_file: a.jsonl\n", train=rows, eval=alike)).healthy


def test_rows_in_another_language_than_the_goal_asks_for(folder: Any, build: Any) -> None:
    german = "Das ist nicht die Frage, die wir auf der Seite mit einem Bild gestellt haben, oder?"
    rows = build.pairs((f"{german} {w}", f"Ich weiß nicht, wie das mit der Zahl {w} ist.") for w in build.words(60))
    found = only(folder("data_sources: x.jsonl\n", train=rows, goal={"language": "en"}))
    assert (found.symptom, found.key) == (Symptom.LANGUAGE_MISMATCH, "data_sources")
    assert preflight(folder("data_sources: x.jsonl\n", train=rows, goal={"language": "de"})).healthy


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("The answer to that is what you would have said there", "en"),
        ("Les enfants ne sont pas dans la maison avec leur mère", "fr"),
        ("今日は天気がいいですね", "ja"),
        ("今天的天气很好", "zh"),
        ("Сегодня хорошая погода", "ru"),
        ("reverse abcd", None),
        ("", None),
        ("7 + 5 = 12", None),
    ],
)
def test_language_is_told_only_where_words_or_script_tell_it(text: str, code: str | None) -> None:
    assert language_of(text) == code


def test_shares_need_enough_texts_that_tell() -> None:
    assert shares_of(["abc"] * 100) == {} and shares_of(["Сегодня хорошая погода"] * 30) == {"ru": 1.0}


def test_time_that_a_probe_measured_against_the_limit(folder: Any) -> None:
    recipe = "max_steps: 1000\ntimeout_seconds: 600\n"
    found = only(folder(recipe, timing={"steps": 20, "seconds_per_step": 1.5}))
    assert (found.symptom, found.key, found.suggested, found.line) == (Symptom.JOB_TIMEOUT, "timeout_seconds", 1800, 2)
    assert preflight(folder(recipe, timing={"steps": 20, "seconds_per_step": 0.4})).healthy


def shared(build: Any, n: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Training rows, and evaluation samples of which `n` stand in them."""
    asked = [f"spell {w}" for w in build.words(100, 9)]
    rows = build.pairs([(p, "-".join(p[6:])) for p in asked[:n]] + [(f"spell {w}", w) for w in build.words(100, 4)])
    samples = [{"id": str(i), "prompt": p, "reference": "-".join(p[6:]), "response": "-".join(p[6:]), "score": 1.0}
               for i, p in enumerate(asked)]  # fmt: skip
    return rows, samples


def test_test_items_among_the_rows_void_a_score_that_met_its_target(folder: Any, build: Any) -> None:
    rows, samples = shared(build, 40)
    result = build.evaluation(1.0, n=100, samples=samples)
    (found,) = diagnose(folder("data_sources: x\n", train=rows, evaluation=result, goal={"target": 0.5})).diagnoses
    assert (found.symptom, found.severity, found.key) == (Symptom.CONTAMINATION, Severity.HARMFUL, "data_sources")
    rows, samples = shared(build, 0)
    result = build.evaluation(1.0, n=100, samples=samples)
    assert diagnose(folder("data_sources: x\n", train=rows, evaluation=result, goal={"target": 0.5})).healthy


def test_fresh_items_far_below_the_benchmarks_are_contamination(folder: Any, build: Any) -> None:
    void = build.evaluation(0.95, fresh={"value": 0.02, "n": 100})
    (found,) = diagnose(folder(evaluation=void, goal={"target": 0.9})).diagnoses
    assert found.symptom is Symptom.CONTAMINATION and "0.02" in found.cause
    assert diagnose(folder(evaluation=build.evaluation(0.95, fresh={"value": 0.93, "n": 100}))).healthy
