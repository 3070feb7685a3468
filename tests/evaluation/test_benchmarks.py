"""Benchmark files: what loads, what is refused with which words, and that splits never mix."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
import yaml

from bot.errors import UserError
from bot.evaluation.benchmark_file import read_benchmark_file
from bot.evaluation.benchmarks import (
    BUNDLE,
    bundle_digest,
    items,
    known_benchmarks,
    load_benchmark,
    split_sizes,
    write_job_files,
)
from bot.evaluation.tasks import TASKS, training_rows

FAQ = {
    "name": "team/faq",
    "licence": "CC-BY-4.0",
    "prompt": "Answer in one word: {{question}}",
    "items": {"file": "faq.jsonl", "reference": "answer"},
    "splits": {"dev": {"n": 30}, "sealed": {"n": 30}},
}


def write(folder: Path, content: object, rows: int = 100, name: str = "faq") -> Path:
    team = folder / "team"
    team.mkdir(exist_ok=True)
    text = content if isinstance(content, str) else yaml.safe_dump(content)
    (team / f"{name}.yaml").write_text(text)
    row = {"question": "What is {} plus one?", "note": "\u2028"}
    lines = [
        json.dumps(row | {"question": row["question"].format(i), "answer": i + 1}, ensure_ascii=False)
        for i in range(rows)
    ]
    (team / "faq.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_every_shipped_benchmark_loads_with_both_splits_and_a_licence() -> None:
    assert known_benchmarks() == sorted(f"practice/{task}" for task in TASKS)
    for name in known_benchmarks():
        benchmark = load_benchmark(name)
        assert benchmark.licence == "Apache-2.0"
        dev, sealed = items(benchmark, "dev"), items(benchmark, "sealed")
        assert len(dev) == len(sealed) == 200
        assert not {item.id for item in dev} & {item.id for item in sealed}


def test_practice_items_share_no_prompt_with_the_training_rows() -> None:
    benchmark = load_benchmark("practice/reverse")
    trained = {row["prompt"] for row in training_rows("reverse", 3000, 0)}
    assert not {item.prompt for split in ("dev", "sealed") for item in items(benchmark, split)} & trained


@pytest.mark.parametrize(
    "name", ["practice/revers", "gpqa", "../../etc/passwd", "x" * 60_000, "", "practice/reverse\n"]
)
def test_unknown_name_lists_what_there_is(name: str) -> None:
    with pytest.raises(UserError) as caught:
        load_benchmark(name)
    message = str(caught.value)
    assert "`practice/reverse`" in message and "\n" not in message.strip()
    assert len(message) < 1000


def test_near_miss_names_the_likely_one() -> None:
    with pytest.raises(UserError, match="Did you mean `practice/reverse`"):
        load_benchmark("practice/revers")


def test_team_benchmark_divides_its_file_and_renders_its_prompt(tmp_path: Path) -> None:
    benchmark = load_benchmark("team/faq", [write(tmp_path, FAQ)])
    dev, sealed = items(benchmark, "dev"), items(benchmark, "sealed")
    assert len(dev) == len(sealed) == 30
    assert not {item.prompt for item in dev} & {item.prompt for item in sealed}
    assert dev[0].prompt.startswith("Answer in one word: What is ")
    asked = int(dev[0].prompt.split()[6])
    assert dev[0].reference == str(asked + 1)


def test_rows_added_to_a_file_move_no_item_to_the_other_split(tmp_path: Path) -> None:
    benchmark = load_benchmark("team/faq", [write(tmp_path, FAQ, rows=100)])
    before = {split: {item.id for item in items(benchmark, split)} for split in ("dev", "sealed")}
    write(tmp_path, FAQ, rows=500)
    after = {split: {item.id for item in items(benchmark, split)} for split in ("dev", "sealed")}
    assert not before["dev"] & after["sealed"] and not before["sealed"] & after["dev"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"metric": "bleu"}, "write exact_match"),
        ({"engine": "classify", "metric": "wer"}, "write accuracy or macro_f1"),
        ({"engine": "listen"}, "write one of generate, likelihood, classify, vision, speech, pairs"),
        ({"engine": "vision", "items": {"task": "reverse"}}, "asked with engine: generate, not vision"),
        ({"labels": ["a", "b"]}, "labels is for engine classify and vision"),
        ({"engine": "classify", "labels": ["a"]}, "two different labels"),
        ({"engine": "classify", "labels": [True, False]}, "quote them"),
        ({"engine": "likelihood", "likelihood": {"window": 0}}, "likelihood.window needs a whole number"),
        ({"engine": "speech", "speech": {"normalise": "german"}}, "must be one of basic, english, none"),
        ({"engine": "speech", "speech": {"language": False}}, "speech.language must be text"),
        ({"fresh": 100}, "write fresh: {n: 100}"),
        ({"old_tasks": ["fly"]}, "old_tasks: fly is neither a practice task"),
        ({"old_tasks": ["safety.jsonl"]}, "there is no safety.jsonl"),
        ({"old_tasks": ["../safety.jsonl"]}, "nor a .jsonl file"),
        ({"items": {}}, "items needs either"),
        ({"items": {"task": "fly"}}, "there is no practice task fly"),
        ({"items": {"file": "../../secret.jsonl"}}, "must lie beside"),
        ({"items": {"file": "none.jsonl"}}, "there is no none.jsonl"),
        ({"splits": {"dev": {"n": 5}}}, "both dev and sealed"),
        ({"splits": {"dev": {"n": 0}, "sealed": {"n": 5}}}, "whole number from 1"),
        ({"generation": {"do_sample": True}}, "do_sample must be false"),
        ({"generation": {"max_gen_toks": "many"}}, "max_gen_toks"),
        ({"extraction": {"strict": {"pattern": "("}}}, "not a regular expression"),
        ({"promt": "x"}, "unknown key promt"),
    ],
)
def test_unusable_file_is_refused_with_what_to_write_instead(tmp_path: Path, change: dict, words: str) -> None:
    folder = write(tmp_path, FAQ | change)
    with pytest.raises(UserError, match="Benchmark `team/faq` cannot be used") as caught:
        load_benchmark("team/faq", [folder])
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: &a [1]\nb: [*a, *a]\n", "uses YAML aliases"),
        ("a: [", "is not YAML"),
        ("x" * 200_000, "larger than 100 kB"),
        ("splits: 2024-01-01\n", "put quotes around dates"),
    ],
)
def test_hostile_yaml_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_benchmark("team/faq", [write(tmp_path, text)])


def test_item_without_its_column_is_named(tmp_path: Path) -> None:
    benchmark = load_benchmark("team/faq", [write(tmp_path, FAQ | {"prompt": "{{quiz}}"})])
    with pytest.raises(UserError, match=r"needs the column quiz.*has only question, note, answer"):
        items(benchmark, "dev")


def test_job_files_hold_only_the_split_that_is_evaluated(tmp_path: Path) -> None:
    benchmark = load_benchmark("practice/reverse")
    files = write_job_files(benchmark, "dev", tmp_path)
    assert set(files) == {"bundle", "benchmark.yaml", "items.jsonl"}
    assert files["bundle"] == str(BUNDLE)
    text = Path(files["items.jsonl"]).read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    assert len([row for row in rows if "set" not in row]) == 200
    assert len([row for row in rows if row.get("set") == "holdout"]) == 100
    assert len({row["id"] for row in rows}) == 300
    assert not any(item.id in text or f'"{item.prompt}"' in text for item in items(benchmark, "sealed"))
    assert yaml.safe_load(Path(files["benchmark.yaml"]).read_text()) == benchmark.configuration


def test_a_file_is_divided_into_dev_holdout_and_sealed_the_same_way_every_time(tmp_path: Path) -> None:
    splits = {"dev": {"n": 30}, "holdout": {"n": 20}, "sealed": {"n": 30}}
    benchmark = load_benchmark("team/faq", [write(tmp_path, FAQ | {"splits": splits}, rows=300)])
    found = {split: [item.id for item in items(benchmark, split)] for split in ("dev", "holdout", "sealed")}
    assert [len(each) for each in found.values()] == [30, 20, 30]
    assert len({one for each in found.values() for one in each}) == 80
    assert found == {split: [item.id for item in items(benchmark, split)] for split in found}
    assert split_sizes(benchmark) == {"dev": 30, "holdout": 20, "sealed": 30}
    unnamed = load_benchmark("team/faq", [write(tmp_path, FAQ, rows=400)])
    spare = items(unnamed, "holdout")
    assert len(spare) == 15
    assert not {item.id for item in spare} & {item.id for split in ("dev", "sealed") for item in items(unnamed, split)}
    few = load_benchmark("team/faq", [write(tmp_path, FAQ, rows=90)])
    assert items(few, "holdout") == []


def test_a_rule_seals_items_by_a_column_and_no_other_split_has_them(tmp_path: Path) -> None:
    splits = {"dev": {"n": 200}, "sealed": {"n": 60, "where": {"subset": "diamond"}}}
    folder = write(tmp_path, FAQ | {"splits": splits})
    rows = [{"question": f"What is {i} plus one?", "answer": i + 1, "subset": "main"} for i in range(200)]
    rows += [row | {"subset": "diamond"} for row in rows[:50]]  # Diamond is a part of Main
    (folder / "team" / "faq.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    benchmark = load_benchmark("team/faq", [folder])
    dev, sealed = items(benchmark, "dev"), items(benchmark, "sealed")
    assert (len(dev), len(sealed)) == (150, 50)
    assert not {item.id for item in dev} & {item.id for item in sealed}
    assert {int(item.reference) for item in sealed} == set(range(1, 51))


def test_items_of_one_cluster_stay_together_and_carry_its_hash(tmp_path: Path) -> None:
    folder = write(tmp_path, FAQ | {"items": {**FAQ["items"], "cluster": "passage"}})  # type: ignore[dict-item]
    rows = [{"question": f"What is {i}?", "answer": i, "passage": f"text {i // 5}"} for i in range(200)]
    (folder / "team" / "faq.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    benchmark = load_benchmark("team/faq", [folder])
    dev, sealed = ({item.cluster for item in items(benchmark, split)} for split in ("dev", "sealed"))
    assert dev and sealed and not dev & sealed
    assert not any("text" in cluster for cluster in dev | sealed)
    assert items(benchmark, "dev")[0].as_row()["cluster"] in dev
    missing = load_benchmark("team/faq", [write(tmp_path, FAQ | {"items": {**FAQ["items"], "cluster": "part"}})])  # type: ignore[dict-item]
    with pytest.raises(UserError, match="needs the column part"):
        items(missing, "dev")


def test_bundle_digest_is_stable_and_a_benchmarks_digest_follows_its_content(tmp_path: Path) -> None:
    assert bundle_digest() == bundle_digest()
    first = load_benchmark("team/faq", [write(tmp_path, FAQ)]).digest
    second = load_benchmark("team/faq", [write(tmp_path, FAQ | {"generation": {"max_gen_toks": 7}})]).digest
    assert first != second


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "templates" / "benchmarks").glob("*.yaml")))
def test_example_benchmarks_are_read_and_their_items_too(path: Path) -> None:
    benchmark = read_benchmark_file(path.stem, path)
    found = 0
    for split in ("dev", "sealed"):
        with contextlib.suppress(UserError):  # a handful of rows may all belong to one split
            found += len(items(benchmark, split))
    assert found >= 3
