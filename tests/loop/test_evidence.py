"""What a run's evidence consists of, and which rows a method takes."""

from __future__ import annotations

import json

from bot.domain.scripts import COLUMNS, PREPARE, TRAIN, shipped_files
from bot.loop.actions.planning import rows_problem
from bot.loop.actions.traces import _with_before
from bot.loop.spending import data_key
from bot.loop.world import METHODS
from tests.world import ROOT

EVALUATION = {"value": 0.9, "n": 200, "old_tasks": [{"name": "upper", "after": 0.2, "n": 50}]}


def test_old_tasks_carry_what_the_base_model_scored() -> None:
    baseline = {"value": 0.0, "old_tasks": [{"name": "upper", "after": 0.8, "n": 50}, {"name": "last", "after": 0.1}]}
    found = json.loads(_with_before(json.dumps(EVALUATION).encode(), baseline) or b"")
    assert found["old_tasks"] == [{"name": "upper", "before": 0.8, "after": 0.2, "n": 50}]
    whole = json.dumps(EVALUATION).encode()
    assert _with_before(whole, {"value": 0.0}) == whole
    assert _with_before(b"{", baseline) == b"{"
    assert _with_before(None, baseline) is None


def test_rows_are_those_of_the_method() -> None:
    pair = {"prompt": "p", "completion": "c"}
    assert rows_problem("method: sft\n", [pair]) is None
    assert rows_problem("learning_rate: 1\n", [{"messages": []}]) is None
    assert rows_problem("method: dpo\n", [pair]) is None  # it makes its own wrong answers
    assert rows_problem("method: dpo\n", [{"prompt": "p", "chosen": "a", "rejected": "b"}]) is None
    assert rows_problem("method: classify\n", [{"text": "t", "label": "x"}, {"text": "t"}]) == (
        "row 2 of data/train.jsonl has the columns text and lacks label; text classification needs text, label"
    )


def test_methods_with_the_same_rows_share_a_training_set() -> None:
    recipe, digests = "data_sources: a.jsonl\nseed: 0\n", {PREPARE: "x"}
    plain = data_key(recipe, digests)
    assert plain == data_key(f"method: sft\n{recipe}", digests) == data_key(f"method: grpo\n{recipe}", digests)
    named = {data_key(f"method: {name}\n{recipe}", digests) for name in ("dpo", "classify", "vision", "pretrain")}
    assert len(named | {plain}) == 5


def test_training_set_is_named_by_all_that_builds_it() -> None:
    recipe, alone = "data_sources: a.jsonl\nseed: 0\n", {TRAIN: "t", PREPARE: "x"}
    # A goal that was begun when prepare.py stood alone finds the rows that were built then.
    assert data_key(recipe, alone) == "8d55e7945597"
    beside = alone | {f"{COLUMNS}/turns.py": "a"}
    keys = [data_key(recipe, each) for each in (alone, beside, beside | {f"{COLUMNS}/turns.py": "b"})]
    assert len(set(keys)) == 3
    assert data_key(recipe, beside | {TRAIN: "other"}) == keys[1]


def test_script_ships_with_what_it_imports() -> None:
    columns = {f"{COLUMNS}/{file.name}" for file in (ROOT / "bot" / "data" / "columns").glob("*.py")}
    assert f"{COLUMNS}/__init__.py" in columns
    assert set(shipped_files("sft")) == {TRAIN, PREPARE} | columns
    assert "grpo" in METHODS
    assert set(shipped_files("grpo")) == {TRAIN, "rewards.py", PREPARE} | columns
