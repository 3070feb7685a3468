"""Reading a diagnosis folder: damaged files, three spellings of not-a-number, and what a person is told."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from bot.diagnosis import read_folder
from bot.diagnosis.readings import number, shown
from bot.diagnosis.recipes import parsed_recipe
from bot.errors import UserError


def test_missing_recipe_says_what_a_folder_needs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"best with the recipe\.yaml"):
        read_folder(tmp_path)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a folder"):
        read_folder(tmp_path / "absent")


@pytest.mark.parametrize(
    "text",
    [
        "- a\n- b\n",
        "just words",
        "a: [",
        "a: &x 1\nb: *x\n",
        "\tx: 1",
        "a: 2024-99-99",
        "[" * 50_000,
        "- " * 3000 + "x",
        "a: 1\n" * 20_000,
        "? [1]\n: 2\n: : :",
    ],
)
def test_recipe_that_is_no_mapping_gets_one_clear_sentence(text: str) -> None:
    with pytest.raises(UserError, match=r"recipe\.yaml") as caught:
        parsed_recipe(text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_recipe_numbers_are_read_however_they_are_written() -> None:
    assert parsed_recipe("a: 2e-5\nb: 2.0e-5\nc: '3'\n") == {"a": 2e-5, "b": 2e-5, "c": 3}


def test_empty_recipe_is_a_recipe() -> None:
    assert parsed_recipe("# nothing yet\n") == {}


@pytest.mark.parametrize("spelling", ["null", '"NaN"', "NaN", '"nan"'])
def test_not_a_number_is_read_in_every_spelling(folder: Any, spelling: str) -> None:
    path = folder()
    (path / "metrics.jsonl").write_text(f'{{"step": 1, "loss": {spelling}, "grad_norm": "Infinity"}}\n')
    (record,) = read_folder(path).steps
    assert math.isnan(record["loss"]) and math.isinf(record["grad_norm"])


def test_trainer_state_with_bare_nan_is_used_when_there_are_no_metrics(folder: Any) -> None:
    path = folder()
    (path / "trainer_state.json").write_text(
        '{"log_history": [{"step": 5, "loss": 0.0, "grad_norm": NaN}, {"step": 5, "eval_loss": NaN}, '
        '{"step": 10, "train_runtime": 3.0, "train_loss": 1.0}]}'
    )
    observations = read_folder(path)
    assert [record["step"] for record in observations.steps] == [5.0]
    assert math.isnan(observations.evals[0]["eval_loss"])


def test_half_written_last_line_and_foreign_lines_are_left_out(folder: Any) -> None:
    path = folder()
    (path / "metrics.jsonl").write_text(
        '{"step": 1, "loss": 2.0}\nnot json\n[1]\n{"step": 2, "loss": 1.9}\n{"step": 3, "lo'
    )
    assert [record["loss"] for record in read_folder(path).steps] == [2.0, 1.9]


def test_resumed_run_keeps_the_later_record_of_a_step_in_order(folder: Any) -> None:
    metrics = [{"step": s, "loss": loss} for s, loss in ((1, 3.0), (2, 2.0), (3, 9.0), (2, 2.5), (3, 1.0))]
    steps = read_folder(folder(metrics=metrics)).steps
    assert [(r["step"], r["loss"]) for r in steps] == [(1.0, 3.0), (2.0, 2.5), (3.0, 1.0)]


def test_job_folder_is_read_as_it_lies(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("learning_rate: 1.0e-4\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "out" / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    (tmp_path / "data" / "train.jsonl").write_text('{"text": "hello"}\n')
    observations = read_folder(tmp_path)
    assert len(observations.steps) == 1 and observations.train_rows[0].completion == "hello"


def test_rows_are_read_in_every_format(folder: Any) -> None:
    rows = [
        {"prompt": "p", "completion": "c"},
        {"prompt": [{"role": "user", "content": "p"}], "completion": [{"role": "assistant", "content": "c"}]},
        {"messages": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "c"}]},
        {"id": "1", "prompt": "p", "reference": "c"},
        {"ask": "p", "reply": "c"},
    ]
    path = folder("data_prompt_column: ask\ndata_completion_column: reply\n", train=rows)
    assert {(row.prompt, row.completion) for row in read_folder(path).train_rows} == {("p", "c")}


def test_evaluation_without_samples_or_error_is_completed(folder: Any) -> None:
    found = read_folder(folder(evaluation={"value": 0.25, "n": 100})).evaluation
    assert found is not None and found.standard_error == pytest.approx(0.0433, abs=1e-3)


@pytest.mark.parametrize("damaged", [{"value": "NaN", "n": 3}, {"n": 3}, {"value": None}])
def test_evaluation_without_a_value_counts_as_absent(folder: Any, damaged: dict[str, Any]) -> None:
    assert read_folder(folder(evaluation=damaged)).evaluation is None


def test_number_takes_no_truth_value_for_a_number() -> None:
    assert number(True) is None and number("x") is None and number(10**400) == math.inf


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2e-5, "2e-5"),
        (0.0, "0"),
        (6.123456, "6.123"),
        (1234.5, "1234"),
        (1e-3, "0.001"),
        (math.nan, "NaN"),
        (None, "none"),
    ],
)
def test_numbers_in_sentences_are_short(value: float | None, text: str) -> None:
    assert shown(value) == text


def test_a_large_folder_is_read_up_to_its_ceilings(folder: Any) -> None:
    path = folder()
    row = json.dumps({"prompt": "p" * 400, "completion": "c"})
    (path / "train.jsonl").write_text(f"{row}\n" * 20_000)
    assert 1000 <= len(read_folder(path).train_rows) <= 20_000
