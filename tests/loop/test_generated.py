"""Rows that a run makes itself are scanned before its result counts, and stand in the dataset's card."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bot.loop.actions.generated import CARD, usable_card
from tests.world import GOOD, World, practice_world

COUNTS: dict[str, Any] = {
    "generator": "postdoc/tiny-test", "seed": 0, "new_prompts": True, "verified_by": ["exact_match"],
    "stages": {"drafted": 40, "verified": 20}, "rejected": {"repeats a prompt": 20},
    "strata": {"reverse": {"real": 200, "verified": 20, "target": 20, "used": 20, "most_repeats": 1}},
    "synthetic_share": {"wanted": 0.1, "reached": 0.1}, "rows": {"real": 200, "synthetic": 20}, "sha256": "ef" * 32,
}  # fmt: skip


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with practice_world(tmp_path) as found:
        yield found


def made(*pairs: tuple[str, str]) -> dict[str, str]:
    """What synthetic.py leaves of rows with these prompts and completions."""
    rows = [{"prompt": p, "completion": c, "stratum": "reverse", "agreement": 1.0} for p, c in pairs]
    return {"out/synthetic.jsonl": "".join(json.dumps(row) + "\n" for row in rows), CARD: json.dumps(COUNTS)}


def pursued(world: World, rows: dict[str, str]) -> int:
    world.runner.script(GOOD | {"train-02": GOOD["train-02"] | {"files": rows}})
    world.start()
    world.wait_ready()
    return world.open_goal()


def test_run_that_made_items_of_the_benchmark_does_not_count_and_says_why(world: World) -> None:
    issue = pursued(world, made(("an innocent question", "an answer"), world.dev_item("practice/reverse")))
    assert world.until_ended(issue) == "needs human"
    second = [event["data"] for event in world.events(issue) if event["kind"] == "diagnosed"][1]
    assert (second["score"], second["verdict"]) == (None, None)
    assert "1 of those 2 hold items of the benchmark" in second["failure"]
    assert (second["generated"]["verdict"], second["generated"]["flagged_rows"]) == ("contaminated", 1)
    assert second["report"]["diagnoses"][0]["symptom"] == "contamination"
    prompt, _ = world.dev_item("practice/reverse")
    assert prompt not in json.dumps(second["generated"])
    [pull] = world.pulls()
    assert "so its result does not count" in world.reviews(pull["number"])[-1]["body"]
    assert not any("confirm" in job for job in world.runner.launches())


@pytest.mark.slow
def test_clean_rows_count_and_their_numbers_stand_in_the_card(world: World) -> None:
    issue = pursued(world, made(("an innocent question", "an answer")))
    assert world.until_ended(issue) == "met"
    second = [event["data"] for event in world.events(issue) if event["kind"] == "diagnosed"][1]
    assert second["generated"]["verdict"] == "clean"
    [pull] = world.pulls()
    blamed = world.review_comments(pull["number"])[0]["path"]
    card = world.file(pull["head"]["ref"], f"{Path(blamed).parent}/data/README.md")
    assert "## Synthetic rows" in card
    assert "Training saw 20 of them beside 200 real rows" in card


@pytest.mark.parametrize(
    "broken",
    [{"strata": {"a": 3}}, {"rows": {}}, {"stages": {"x": "many"}}, {"synthetic_share": {}}, {"seed": "x" * 30000}],
)
def test_a_card_that_has_not_the_documented_form_is_not_shown(broken: dict[str, Any]) -> None:
    assert usable_card(COUNTS) == COUNTS
    assert usable_card(COUNTS | broken) is None
    assert usable_card(None) is None
