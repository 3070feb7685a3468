"""`postdoc map` and `postdoc audit` on files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bot.cli import run
from tests.fakes.hub import DataSet, FakeHub


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [{"question": f"What is {n} plus 1?", "answer": f"one more\n#### {n + 1}"} for n in range(12)]
    path = tmp_path / "sums.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert run([*words, "--json", "-"]) == 0
    return json.loads(capsys.readouterr().out)


def test_map_says_lines_of_the_recipe_with_evidence(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["map", str(data), "--method", "grpo"]) == 0
    said = capsys.readouterr().out
    assert "data_prompt_column: question" in said
    assert "data_completion_column: final(answer)    # " in said and "ends in a marked final answer" in said
    found = answer(capsys, "map", str(data), "--method", "sft")
    assert [(use["role"], use["expression"]) for use in found["uses"]] == [
        ("prompt", "question"),
        ("completion", "answer"),
    ]
    assert found["ask"] is None and found["columns"] == ["question", "answer"]


def test_map_asks_and_a_column_option_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"alpha": "one two", "beta": "three four"}\n')
    assert "cannot tell which column to use" in answer(capsys, "map", str(path))["ask"]
    found = answer(capsys, "map", str(path), "--column", "prompt=alpha", "--column", "completion=beta")
    assert found["ask"] is None and found["uses"][0]["expression"] == "alpha"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--method", "ppo"], "Write one of sft, "),
        (["--column", "prompt"], "is not PART=EXPRESSION"),
        (["--column", "answer=x"], "Parts are prompt, completion"),
    ],
)
def test_map_refuses_words_that_mean_nothing(
    data: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["map", str(data), *words]) == 2
    assert said in capsys.readouterr().err


def test_audit_counts_and_judges(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with data.open("a") as file:
        file.write(json.dumps({"question": "Who are you?", "answer": "just kys"}) + "\n")
    found = answer(capsys, "audit", str(data))
    assert found["rows"] == 13 and found["checkable"]["numeric"] == 12
    assert found["abusive"] == {"a call to self-harm": 1}
    assert found["verdicts"] == [
        {"action": "filter", "rows": 1, "reason": "1 of 13 rows hold what looks like a call to self-harm."}
    ]


def test_data_set_of_the_hub_is_fetched_and_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "".join(json.dumps({"query": f"what is {n}?", "response": f"it is {n}"}) + "\n" for n in range(5))
    with FakeHub().serve() as hub:
        hub.sets = {"acme/sums": DataSet({"train.jsonl": rows.encode()})}
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        found = answer(capsys, "map", "hf:acme/sums")
        assert [use["expression"] for use in found["uses"]] == ["query", "response"] and found["rows"] == 5
        assert run(["map", "hf:acme/none"]) == 2
        assert "acme/none" in capsys.readouterr().err
