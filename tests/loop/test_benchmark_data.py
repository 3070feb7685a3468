"""Benchmarks with items in a data set of the Hub: fetched by the bot's own process, pinned, and kept from training."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bot.errors import UserError
from bot.evaluation.benchmark_file import Benchmark, read_benchmark_file
from bot.evaluation.benchmarks import items, load_benchmark
from bot.loop import benchmark_data
from tests.evaluation.shipped_rows import SHIPPED_ROWS, file_of
from tests.fakes.hub import DataSet, FakeHub
from tests.world import GOOD, World, goal_body, practice_world

CANARY = "canary item"


def item_lines(n: int = 160) -> bytes:
    rubric = [{"criterion": "Is right.", "points": 1}]
    rows = ({"question": f"{CANARY} {i}?", "answer": str(i), "rubrics": rubric} for i in range(n))
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    with FakeHub().serve() as fake:
        fake.sets = {"acme/quiz": DataSet({"test.jsonl": item_lines()})}
        for name in ("gsm8k", "gpqa"):
            source = load_benchmark(name).hub
            assert source is not None
            files = {file: file_of(file, make) for file, make in SHIPPED_ROWS[name].items()}
            fake.sets[source.repo] = DataSet(files, branches={source.revision: source.revision}, gated=name == "gpqa")
        yield fake


@pytest.fixture
def at_hub(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeHub:
    for name, value in {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf")}.items():
        monkeypatch.setenv(name, value)
    hub.asked.clear()
    return hub


def quiz(folder: Path, **more: Any) -> Benchmark:
    content = {
        "licence": "MIT",
        "prompt": "{{question}}",
        "items": {"hub": "acme/quiz", "file": "test.jsonl", "reference": "answer"},
        "splits": {"dev": {"n": 60}, "sealed": {"n": 60}},
    }
    (folder / "quiz.yaml").write_text(yaml.safe_dump(content | more))
    return read_benchmark_file("quiz", folder / "quiz.yaml")


def fetched(benchmark: Benchmark, folder: Path, token: str = "", commit: str | None = None) -> Benchmark:
    return asyncio.run(benchmark_data.with_data(benchmark, folder, token, commit))


def test_shipped_benchmark_is_fetched_at_its_commit_once(at_hub: FakeHub, tmp_path: Path) -> None:
    benchmark = load_benchmark("gsm8k")
    assert benchmark.hub is not None
    found = fetched(benchmark, tmp_path)
    assert len(items(found, "dev")) and found.configuration == benchmark.configuration
    assert at_hub.asked and all(f"/{benchmark.hub.revision}" in each for each in at_hub.asked)
    at_hub.asked.clear()
    assert items(fetched(benchmark, tmp_path), "dev") == items(found, "dev") and not at_hub.asked


def test_data_set_without_a_commit_is_pinned_to_the_one_it_has(at_hub: FakeHub, tmp_path: Path) -> None:
    benchmark = quiz(tmp_path)
    commit = at_hub.sets["acme/quiz"].sha
    found = fetched(benchmark, tmp_path)
    assert found.configuration["items"]["hub"] == f"acme/quiz@{commit}" and found.digest != benchmark.digest
    at_hub.asked.clear()
    assert fetched(benchmark, tmp_path, commit=commit).digest == found.digest and not at_hub.asked


def test_gated_data_set_says_whose_account_must_accept_its_terms(at_hub: FakeHub, tmp_path: Path) -> None:
    at_hub.tokens["hf_reader"].add("Idavidrein/gpqa")
    assert items(fetched(load_benchmark("gpqa"), tmp_path, "hf_reader"), "sealed")
    with pytest.raises(UserError, match="gated: accept its terms"):
        fetched(load_benchmark("gpqa"), tmp_path / "other")


def test_benchmark_larger_than_a_server_fetches_leaves_nothing_behind(
    at_hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark_data, "MOST_BYTES", 100)
    with pytest.raises(UserError, match=r"in 1 file; at most 0 MiB"):
        fetched(quiz(tmp_path), tmp_path / "data")
    assert not list((tmp_path / "data").rglob("*.jsonl"))


def test_file_that_the_data_set_has_not_is_named_with_those_it_has(at_hub: FakeHub, tmp_path: Path) -> None:
    source = {"hub": "acme/quiz", "file": "train.jsonl", "reference": "answer"}
    with pytest.raises(UserError, match=r"has no file `train.jsonl`. It holds `test.jsonl`"):
        fetched(quiz(tmp_path, items=source), tmp_path / "data")


# --- A goal on one ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(hub: FakeHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("quiz")
    with practice_world(folder) as found:
        found.environment |= {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(folder / "hf")}
        found.commit("benchmarks/quiz.yaml", (quiz(folder).path).read_text())
        found.commit("benchmarks/judged.yaml", (quiz(folder, metric="rubric_score")).path.read_text())
        source = {"hub": "acme/quiz", "file": "test.jsonl", "reference": "answer", "pattern": "(a+)+$"}
        found.commit("benchmarks/slow.yaml", quiz(folder, items=source).path.read_text())
        found.start()
        found.wait_ready()
        yield found


def test_goal_is_measured_on_the_pinned_items_which_reach_evaluations_alone(world: World, hub: FakeHub) -> None:
    world.runner.script(GOOD | {"train-01": {"curve": "flat", "hold": True}})
    issue = world.open_goal(goal_body(Benchmark="benchmarks/quiz.yaml"))
    world.until_event(issue, "run_started")
    assert world.first(issue, "contract_read")["pins"]["benchmark_data"] == hub.sets["acme/quiz"].sha

    with_items = {path.parent.parent.name for path in world.runner.root.glob("*/work/items.jsonl")}
    jobs = {path.parent.name: path.read_text() for path in world.runner.root.glob("*/spec.json")}
    assert with_items and all("bundle/evaluate.py" in jobs[name] for name in with_items)
    for path in world.runner.root.glob("*/work/**/*"):
        if path.is_file() and CANARY.encode() in path.read_bytes():
            assert path.relative_to(world.runner.root).parts[0] in with_items, "an evaluation's own folder"
    [pull] = world.pulls()
    said = [json.dumps(world.events(issue)), *world.bot_comments(issue), *world.bot_comments(pull["number"])]
    assert not any(CANARY in text for text in said)
    world.comment(pull["number"], "/postdoc stop")
    world.until_ended(issue)


def test_training_on_the_benchmarks_data_set_is_refused(world: World) -> None:
    issue = world.open_goal(goal_body(Benchmark="benchmarks/quiz.yaml", Training_data="hf:acme/quiz"))
    world.until_event(issue, "contract_read")
    assert "takes its items from" in world.bot_comments(issue)[-1]


def test_goal_on_a_benchmark_that_needs_a_judge_is_told_what_to_do(world: World) -> None:
    issue = world.open_goal(goal_body(Benchmark="benchmarks/judged.yaml", Metric="rubric_score"))
    world.until_event(issue, "contract_read")
    said = world.bot_comments(issue)[-1]
    assert "is scored by a judge model, and this server has none" in said
    assert "can set POSTDOC_JUDGE to PROVIDER:MODEL" in said and "`postdoc evaluate --judge`" in said


def test_what_no_old_task_can_block_is_not_promised(world: World) -> None:
    issue = world.open_goal(goal_body(Benchmark="benchmarks/quiz.yaml", Forgetting="block"))
    world.until_event(issue, "contract_read")
    said = world.bot_comments(issue)[-1]
    assert "`Forgetting: block` asks every run" in said and "names none: write `report` instead" in said


def test_pattern_of_a_repositorys_benchmark_never_runs_in_the_server(world: World) -> None:
    issue = world.open_goal(goal_body(Benchmark="benchmarks/slow.yaml"))
    world.until_event(issue, "contract_read")
    assert "uses `items.pattern`, which is for benchmarks of the server" in world.bot_comments(issue)[-1]
