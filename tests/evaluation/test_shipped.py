"""Every shipped benchmark of others' data: it loads, asks what it should, and scores answers, on invented rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from bot.errors import UserError
from bot.evaluation.benchmarks import BUNDLE, SHIPPED, known_benchmarks, load_benchmark, write_job_files
from bot.evaluation.items import Item, items, shots
from bot.evaluation.tasks import TASKS
from tests.evaluation.shipped_rows import SHIPPED_ROWS, write_data
from tests.evaluation.test_bundle import loaded

pytest.importorskip("pyarrow")


def fetched(name: str, folder: Path) -> Any:
    benchmark = load_benchmark(name)
    assert benchmark.hub is not None
    return benchmark.fetched(benchmark.hub.revision or "f" * 40, write_data(name, folder))


def test_each_has_rows_here_and_nothing_else_is_shipped() -> None:
    assert set(known_benchmarks()) == set(SHIPPED_ROWS) | {f"practice/{task}" for task in TASKS}


@pytest.mark.parametrize("name", SHIPPED_ROWS)
def test_shipped_benchmark_renders_both_splits_from_rows_of_its_data_set(name: str, tmp_path: Path) -> None:
    benchmark = fetched(name, tmp_path)
    dev, sealed = items(benchmark, "dev"), items(benchmark, "sealed")
    assert dev and sealed and not {item.id for item in dev} & {item.id for item in sealed}
    for item in [*dev, *sealed]:
        assert "{{" not in item.prompt and item.content.strip()
        json.dumps(item.as_row())
    files = write_job_files(benchmark, "dev", tmp_path / "job", beside=True)
    text = Path(files["items.jsonl"]).read_text()
    assert not any(item.id in text for item in sealed)
    rows = [json.loads(line) for line in text.splitlines()]
    assert sum(row.get("set") == "shots_beside" for row in rows) == benchmark.shots_beside


@pytest.mark.parametrize("name", SHIPPED_ROWS)
def test_shipped_benchmark_says_whose_its_items_are_and_is_never_trained_on(name: str) -> None:
    benchmark = load_benchmark(name)
    text = (SHIPPED / f"{name}.yaml").read_text()
    assert benchmark.configuration["citation"] and benchmark.licence and benchmark.description
    assert benchmark.hub.repo.lower() in benchmark.datasets
    assert benchmark.hub.pinned or "pinned when" in text, "a commit, or the word that there is none yet"
    assert len(text) < 3000, "a benchmark's file holds no items"


def test_items_that_were_not_fetched_are_asked_for() -> None:
    with pytest.raises(UserError, match="have not been fetched"):
        items(load_benchmark("gsm8k"), "dev")


def test_gsm8k_takes_the_number_after_the_marks_and_its_shots_show_solutions(tmp_path: Path) -> None:
    benchmark = fetched("gsm8k", tmp_path)
    item = items(benchmark, "dev")[0]
    asked = int(item.prompt.split("Ann has ")[1].split()[0])
    assert item.reference == f"{asked + 1:,}"
    [shot] = shots(benchmark, 1)
    assert shot["answer"].endswith(f"ANSWER: {shot['reference']}")
    assert "####" in shot["answer"] and shot["id"] not in {each.id for each in items(benchmark, "dev")}
    extraction, rules = loaded(BUNDLE, "extraction"), benchmark.configuration["extraction"]
    sample = {"response": f"{asked} and one\nANSWER: {asked + 1}", "reference": item.reference, "finish": "stop"}
    assert extraction.score(sample, rules) == (1, 1)
    assert extraction.score(sample | {"response": f"so {asked + 1}."}, rules) == (0, 1)


def test_gpqa_shuffles_by_a_hash_and_keeps_diamond_out_of_dev(tmp_path: Path) -> None:
    benchmark = fetched("gpqa", tmp_path)
    dev, sealed = items(benchmark, "dev"), items(benchmark, "sealed")
    questions = {item.prompt for item in dev}
    assert len(dev) == 13 and not questions & {item.prompt for item in sealed}
    letters = {item.reference for item in [*dev, *sealed]}
    assert len(letters) > 2, "the right choice is at no one place"
    for item in dev:
        number = item.prompt.split("spring ")[1].split("?")[0]
        assert f"{item.reference}) {number} joules" in item.prompt
    assert [item.prompt for item in items(benchmark, "dev")] == [item.prompt for item in dev]


def test_mmlu_letters_count_from_zero_and_arc_understands_letters_and_digits(tmp_path: Path) -> None:
    for item in items(fetched("mmlu", tmp_path / "m"), "dev"):
        n = int(item.prompt.split("Which is ")[1].split("?")[0])
        assert item.reference == "ABCD"[n % 4] and f"{item.reference}) {n + n % 4}\n" in item.prompt + "\n"
    for item in items(fetched("arc-challenge", tmp_path / "a"), "dev"):
        n = int(item.prompt.split("sinks ")[1].split("?")[0])
        assert item.asked["answer"] == n % 4 and item.asked["choices"][0] == f"stone {n}"


def test_humanevals_own_solution_passes_and_another_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTDOC_RUN_CODE", "1")
    benchmark = fetched("humaneval", tmp_path)
    assert benchmark.runs_code
    item = items(benchmark, "dev")[0]
    n = item.asked["code"]["entry_point"].removeprefix("add")
    code = loaded(BUNDLE, "code_execution")
    for body, score in ((f"return x + {n}", (1, 1)), (f"return x + {n} + 1", (0, 0))):
        response = f"```python\ndef add{n}(x):\n    {body}\n```"
        assert code.scores([{"response": response, "finish": "stop"}], benchmark.configuration, [item.as_row()]) == [
            score
        ]


def test_ifevals_arguments_are_those_that_are_given(tmp_path: Path) -> None:
    item = items(fetched("ifeval", tmp_path), "dev")[0]
    assert item.asked["instructions"] == [
        {"kind": "punctuation:no_comma"},
        {"kind": "length_constraints:number_words", "relation": "at least", "num_words": 2},
    ]
    scores = loaded(BUNDLE, "instructions").scores
    assert scores([{"response": "A wide bay"}, {"response": "Wide"}], {}, [item.as_row()] * 2) == [(1, 1), (0, 0)]


def test_bfcls_answers_are_joined_and_one_call_is_right(tmp_path: Path) -> None:
    item = items(fetched("bfcl-simple", tmp_path), "dev")[0]
    n = item.prompt.split("port ")[-1].rstrip("?")
    assert '"tide.at"' in item.prompt and json.loads(item.reference) == [
        {"tide.at": {"port": [int(n)], "unit": ["m", ""]}}
    ]
    score = loaded(BUNDLE, "tool_calls").score
    right = f'{{"name": "tide.at", "arguments": {{"port": {n}}}}}'
    assert score(right, item.reference, "stop") == (1, 1)
    assert score(f"[{right}, {right}]", item.reference, "stop") == (0, 0)


def test_labels_stand_for_the_numbers_of_their_data_sets(tmp_path: Path) -> None:
    sst2 = items(fetched("sst2", tmp_path / "s"), "dev")
    assert all(item.reference == ("positive" if "fine" in item.prompt else "negative") for item in sst2)
    pictures = items(fetched("cifar10", tmp_path / "c"), "dev")
    assert {item.reference for item in pictures} <= set(load_benchmark("cifar10").configuration["labels"])
    assert all(item.media["image"].startswith("iVBOR") for item in pictures), "PNG in base64"


def test_blank_rows_of_a_corpus_are_no_items(tmp_path: Path) -> None:
    benchmark = fetched("wikitext", tmp_path)
    found: list[Item] = [*items(benchmark, "dev"), *items(benchmark, "sealed")]
    assert len(found) == 17 and all("Valley" in item.prompt for item in found)


def test_commit_that_was_found_is_part_of_the_configuration_and_so_of_the_digest(tmp_path: Path) -> None:
    benchmark = load_benchmark("healthbench")
    pinned = benchmark.fetched("a" * 40, write_data("healthbench", tmp_path))
    assert pinned.digest != benchmark.digest
    files = write_job_files(pinned, "dev", tmp_path / "job")
    assert yaml.safe_load(Path(files["benchmark.yaml"]).read_text())["items"]["hub"] == f"openai/healthbench@{'a' * 40}"
