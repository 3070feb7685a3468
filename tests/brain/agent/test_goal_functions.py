"""What the sandbox can ask about the goal itself, and what it cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bot.brain.agent import goal_functions as told
from bot.brain.agent.functions import checked_arguments, checked_registry
from bot.brain.agent.goal_functions import Material, goal_functions
from bot.data.rows import Item
from bot.domain.diagnosis import DiagnosisReport
from bot.domain.experiment import Experiment, Run, Score
from bot.domain.goal import GoalId
from bot.errors import UserError

QUESTION = "A farmer has seventeen sheep and buys twelve more on Monday morning, how many sheep has he now"


def evaluation(split: str = "dev", metric: str = "exact_match") -> dict[str, Any]:
    samples = [
        {"id": f"id{n}", "score": score, "prompt": f"prompt {n}", "response": "r" * 9000, "reference": "4"}
        for n, score in enumerate((1.0, 0.0, 1.0, 0.0, 0.5))
    ]  # fmt: skip
    return {"benchmark": "b", "harness_digest": "d", "model": "m", "metric": metric, "value": 0.4,
            "standard_error": 0.1, "n": 5, "split": split, "samples": samples}  # fmt: skip


@pytest.fixture
def material(tmp_path: Path) -> Material:
    rows = [{"prompt": f"p{n}", "completion": "long " * 2000 if n == 1 else f"c{n}"} for n in range(30)]
    rows[7] = {"prompt": QUESTION, "completion": "29"}
    train = tmp_path / "train.jsonl"
    train.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    x = Experiment(GoalId("acme/models#7"))
    score = Score(0.4, 0.1, 5, 0.2, 0.6, "dev", "d")
    x.runs = [Run(1, "learning_rate: 1e-5\n", "h", "a" * 40, score=score, verdict="better", report=DiagnosisReport(),
                  changed={"learning_rate": [1e-5, 3e-5]})]  # fmt: skip
    return Material(
        x,
        {1: {"loss": [(step, None if step == 5 else 2.0 - step / 100) for step in range(100)]}},
        {"train": train},
        items=lambda: [Item("id3", QUESTION, "29")],
        evaluation=lambda run: {0: evaluation(), 1: evaluation("sealed")}.get(run),
    )


async def ask(material: Material, name: str, **given: Any) -> Any:
    function = checked_registry(goal_functions(material))[name]
    answer = await function.call(**checked_arguments(name, function.parameters, given))
    json.dumps(answer.value, allow_nan=False)
    assert answer.source
    return answer.value


async def test_rows_come_by_slices_and_long_texts_are_cut(material: Material) -> None:
    (file,) = await ask(material, "data.files")
    assert (file["name"], file["files"]) == ("train", 1) and file["bytes"] > 10_000
    rows = await ask(material, "data.rows", file="train", start=1, count=2)
    assert rows[1] == {"prompt": "p2", "completion": "c2"}
    assert len(rows[0]["completion"]) < 4100 and rows[0]["completion"].endswith("(10,000 characters)")
    assert await ask(material, "data.rows", file="train", start=500) == []
    with pytest.raises(UserError, match="one of train"):
        await ask(material, "data.rows", file="/etc/passwd")
    with pytest.raises(UserError, match="from 1 to 100"):
        await ask(material, "data.rows", file="train", count=101)


async def test_an_audit_counts(material: Material) -> None:
    found = await ask(material, "data.audit", file="train")
    assert found["rows"] == 30 and found["columns"] == {"prompt": 30, "completion": 30} and found["verdicts"] == []


async def test_a_scan_says_which_rows_and_nothing_of_the_items(material: Material) -> None:
    found = await ask(material, "data.scan", file="train")
    assert (found["verdict"], found["rows"], found["flagged"]) == ("contaminated", [7], 1)
    assert "sheep" not in json.dumps(found) and "id3" not in json.dumps(found)


async def test_a_file_too_large_for_a_call_is_refused(material: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(told, "MOST_BYTES", 10)
    for name in ("data.audit", "data.scan"):
        with pytest.raises(UserError, match="at most 10 are looked through"):
            await ask(material, name, file="train")


async def test_only_items_of_the_dev_split_are_told(material: Material) -> None:
    found = await ask(material, "runs.failures", run=0)
    assert [each["id"] for each in found["failures"]] == ["id1", "id3", "id4"] and found["of"].startswith(
        "3 of 5 items"
    )
    assert len(found["failures"][0]["response"]) < 4100
    assert (await ask(material, "runs.failures", run=0, start=1, count=1))["failures"][0]["id"] == "id3"
    with pytest.raises(UserError, match="evaluated on sealed; only the dev split"):
        await ask(material, "runs.failures", run=1)
    with pytest.raises(UserError, match="There is no run 2"):
        await ask(material, "runs.failures", run=2)


async def test_the_ledger_the_curves_and_the_rest_come_as_numbers(material: Material) -> None:
    (run,) = await ask(material, "runs.ledger")
    assert run["changed"] == {"learning_rate": [1e-5, 3e-5]} and (run["value"], run["interval"]) == (0.4, [0.2, 0.6])
    assert await ask(material, "runs.metrics", run=1) == {"loss": 100}
    curve = await ask(material, "runs.curve", run=1, metric="loss", points=10)
    assert len(curve["points"]) == 10 and curve["not_a_number_at"] == [5]
    with pytest.raises(UserError, match="It has loss"):
        await ask(material, "runs.curve", run=1, metric="reward")
    assert await ask(material, "runs.diagnoses", run=1) == {"diagnoses": [], "ruled_out": []}
    assert await ask(material, "runs.recipe", run=1) == "learning_rate: 1e-5\n"
    assert "## Run 1" in await ask(material, "runs.evidence")


async def test_before_the_data_are_built_that_is_said() -> None:
    nothing = Material(Experiment(GoalId("acme/models#7")))
    assert await ask(nothing, "data.files") == [] == await ask(nothing, "runs.ledger")
    with pytest.raises(UserError, match="have not been built yet"):
        await ask(nothing, "data.rows", file="none")
    with pytest.raises(UserError, match="There is no run 1"):
        await ask(nothing, "runs.recipe", run=1)
