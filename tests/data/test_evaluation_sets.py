"""Benchmarks are refused as training data by their names, mis-named splits and copies included."""

from __future__ import annotations

import pytest

from bot.data.evaluation_sets import EVALUATION_SETS, evaluation_set, training_refusal


@pytest.mark.parametrize(
    ("repo", "path", "word"),
    [
        ("gorilla-llm/Berkeley-Function-Calling-Leaderboard", "", "split called `train` holds the very items"),
        ("Idavidrein/gpqa", "gpqa_diamond.csv", "the benchmark GPQA"),
        ("google/IFEval", "", "split called `train`"),
        ("somebody/GPQA_Diamond", "", "the benchmark GPQA"),
        ("somebody/aime_2025", "train.jsonl", "the benchmark AIME"),
        ("openai/openai_humaneval", "", "name other data"),
        ("openai/gsm8k", "main/test-00000-of-00001.parquet", "Name its split `train`"),
        ("cais/mmlu", "", "only its `auxiliary_train`"),
        ("cais/mmlu", "all/validation-00000-of-00001.parquet", "Name its split `auxiliary_train`"),
    ],
)
def test_what_is_scored_is_refused_in_words(repo, path, word):
    assert word in training_refusal(repo, path)


@pytest.mark.parametrize(
    ("repo", "path"),
    [
        ("openai/gsm8k", ""),
        ("openai/gsm8k", "main/train-00000-of-00001.parquet"),
        ("cais/mmlu", "auxiliary_train/train-00000-of-00001.parquet"),
        ("allenai/ai2_arc", "ARC-Easy/train-00000-of-00001.parquet"),
        ("acme/gpqa-like-questions", ""),
        ("acme/tests", "test.jsonl"),
        ("meta-math/MetaMathQA", ""),
    ],
)
def test_training_parts_and_other_data_are_let_pass(repo, path):
    assert training_refusal(repo, path) is None


def test_every_set_has_a_source_and_is_found_by_each_of_its_names_in_any_case():
    for each in EVALUATION_SETS:
        assert each.source.startswith("https://")
        for name in (*each.ids, *(f"copied/{name}" for name in each.names)):
            assert evaluation_set(name.upper()) is each
    ids = [name for each in EVALUATION_SETS for name in (*each.ids, *each.names)]
    assert len(ids) == len(set(ids))
