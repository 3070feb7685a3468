"""The evaluator's arithmetic: strict and lenient scores, standard error, and the digest of what was used."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from bot.evaluation.benchmarks import BUNDLE, bundle_digest, load_benchmark

PRACTICE = load_benchmark("practice/reverse")


def loaded(folder: Path, name: str = "evaluate") -> ModuleType:
    specification = importlib.util.spec_from_file_location(f"{name}_under_test", folder / f"{name}.py")
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    sys.path.insert(0, str(BUNDLE))  # where the job's process finds what lies beside the script
    try:
        specification.loader.exec_module(module)
    finally:
        sys.path.remove(str(BUNDLE))
    return module


@pytest.fixture(scope="module")
def bundle() -> Iterator[ModuleType]:
    before = dict(os.environ)  # the script turns the network off for its own process
    yield loaded(BUNDLE)
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    return loaded(BUNDLE, "generate")


@pytest.fixture(scope="module")
def scores() -> ModuleType:
    return loaded(BUNDLE, "scores")


def scored(generate: ModuleType, response: str, reference: str, finish: str = "stop", **extraction: Any) -> tuple:
    sample = {"response": response, "reference": reference, "finish": finish}
    return generate.score(sample, extraction or PRACTICE.configuration["extraction"])


@pytest.mark.parametrize(
    ("response", "finish", "strict", "lenient"),
    [
        ("cba", "stop", 1, 1),
        (" cba\n", "stop", 1, 1),
        ("cba", "length", 0, 1),
        ("The answer is cba", "stop", 0, 1),
        ("The answer is: `cba`.", "stop", 0, 1),
        ("**cba**", "stop", 0, 1),
        ("CBA", "stop", 0, 0),
        ("abc", "stop", 0, 0),
        ("cbacba", "length", 0, 0),
        ("last of abc cba", "stop", 0, 0),
        ("", "stop", 0, 0),
    ],
)
def test_strict_needs_the_whole_answer_and_an_end_lenient_finds_it(
    generate: ModuleType, response: str, finish: str, strict: int, lenient: int
) -> None:
    assert scored(generate, response, "cba", finish) == (strict, lenient)


def test_json_answer_is_not_cut_at_its_colon(generate: ModuleType) -> None:
    assert scored(generate, '{"ab": 12}', '{"ab": 12}') == (1, 1)
    assert scored(generate, '{"ab": 12}', "12}") == (0, 1), "the pattern takes what follows a colon"


def test_strict_pattern_extracts_its_last_match(generate: ModuleType) -> None:
    pattern = {"pattern": r"#### (-?[\d,]+)"}
    assert scored(generate, "#### 3 no\n#### 72", "72", strict=pattern) == (1, 1)
    assert scored(generate, "the answer is 72", "72", strict=pattern) == (0, 0)
    lenient = {"pattern": r"(\d+)\D*$"}
    assert scored(generate, "the answer is 72!", "72", strict=pattern, lenient=lenient) == (0, 1)


def test_letter_case_counts_unless_the_benchmark_says_otherwise(generate: ModuleType) -> None:
    assert scored(generate, "Paris", "paris", lenient={"ignore_case": True}) == (0, 1)
    assert scored(generate, "Paris", "paris", lenient={"ignore_case": False}) == (0, 0)


def test_standard_error_is_the_samples_own(scores: ModuleType) -> None:
    assert scores.standard_error([1.0, 0.0, 1.0, 0.0], [1.0] * 4, 0.5, [*"abcd"]) == pytest.approx((1 / 3 / 4) ** 0.5)
    assert scores.standard_error([1.0] * 5, [1.0] * 5, 1.0, [*"abcde"]) == 0.0
    assert scores.standard_error([1.0], [1.0], 1.0, ["a"]) == 0.0


def test_bot_and_job_compute_the_same_digests(bundle: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "benchmark.yaml").write_text(yaml.safe_dump(dict(PRACTICE.configuration)))
    written = bundle.read_benchmark(str(tmp_path / "benchmark.yaml"))
    parts = bundle.harness_parts(written, ("lm_eval", "torch", "transformers", "tokenizers"))
    assert parts["bundle"] == bundle_digest()
    assert parts["benchmark"] == PRACTICE.digest
    assert set(parts["versions"]) == {"lm_eval", "torch", "transformers", "tokenizers"}


def test_changed_evaluator_has_another_digest(bundle: ModuleType, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(BUNDLE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    with open(copy / "evaluate.py", "a") as file:
        file.write("# easier\n")
    changed = loaded(copy).harness_parts({}, ("torch",))
    assert changed["bundle"] != bundle.harness_parts({}, ("torch",))["bundle"]
    assert bundle.digest(changed) != bundle.digest(bundle.harness_parts({}, ("torch",)))


def test_items_of_one_cluster_make_the_error_larger_as_the_bot_computes_it(scores: ModuleType) -> None:
    from bot.domain.statistics import clustered_standard_error

    samples: list[dict[str, Any]] = [{"score": float(i % 8 < 3), "cluster": f"c{i // 4}"} for i in range(40)]
    alone = scores.value_and_error("exact_match", [{"score": each["score"]} for each in samples])[1]
    value, error = scores.value_and_error("exact_match", samples)
    assert error > 1.2 * alone
    wanted = clustered_standard_error([each["score"] for each in samples], [each["cluster"] for each in samples])
    assert (value, error) == pytest.approx((0.375, wanted))


def test_the_holdouts_results_are_apart_and_without_texts(bundle: ModuleType) -> None:
    samples = [
        {"id": f"h{i}", "score": float(i < 3), "finish": "stop", "prompt": "secret", "response": "r", "reference": "r"}
        for i in range(4)
    ]
    evaluation = {"benchmark": "b", "engine": "generate", "harness_digest": "d", "model": "m", "metric": "exact_match"}
    found = bundle.holdout(evaluation, samples)
    assert (found["value"], found["n"], found["split"]) == (0.75, 4, "holdout")
    assert "secret" not in str(found) and [each["id"] for each in found["samples"]] == ["h0", "h1", "h2", "h3"]
    sets = bundle.other_sets("exact_match", {"old:upper": samples})
    assert sets["old_tasks"] == [
        {"name": "upper", "after": 0.75, "n": 4, "scores": {"h0": 1.0, "h1": 1.0, "h2": 1.0, "h3": 0.0}}
    ]
