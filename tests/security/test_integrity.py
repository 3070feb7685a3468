"""Attacks on what measures a goal, each tried on a running goal: caught, named, and without effect.

The benchmark's file and items edited in the branch: `tests/loop/test_own_benchmark.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.world import GOOD, REPOSITORY, World, practice_world

HELD = GOOD | {"train-02": {"curve": "good", "hold": True}}
EVALUATOR = "bot/evaluation/bundle/evaluate.py"


@pytest.fixture
def held(tmp_path: Path) -> Iterator[tuple[World, int, int, str]]:
    """A goal whose second run trains until it is released: (world, issue, pull request, branch)."""
    with practice_world(tmp_path) as world:
        world.start()
        world.wait_ready()
        world.runner.script(HELD)
        issue = world.open_goal()
        world.until_job("train-02")
        [pull] = world.pulls()
        yield world, issue, pull["number"], pull["head"]["ref"]


@pytest.mark.slow
def test_edited_evaluator_and_results_in_the_branch_count_nowhere(held: tuple[World, int, int, str]) -> None:
    world, issue, pull, branch = held
    files = world.api("ada", "GET", f"/repos/{REPOSITORY}/pulls/{pull}/files?per_page=100")
    path = next(file["filename"] for file in files if file["filename"].endswith("runs/01/evaluation.json"))
    honest = world.file(branch, path)
    forged = json.loads(honest)
    for sample in forged["samples"]:
        sample["score"] = 1.0
    world.commit(EVALUATOR, "print('everything is right')\n", branch=branch)
    world.commit(path, json.dumps(forged | {"value": 1.0}), branch=branch)
    world.runner.release("train-02")
    world.until(
        lambda: any(f"`{path}`: what the evaluation found stands" in body for body in world.bot_comments(pull)),
        "the edit to be named",
    )
    assert world.until_ended(issue) == "met"
    for spec in world.runner.root.glob("*-evaluate-*/spec.json"):
        given = json.loads(spec.read_text())
        assert given["argv"][1] == "bundle/evaluate.py"
        assert "everything is right" not in "".join(p.read_text() for p in Path(given["files"]["bundle"]).glob("*.py"))
    first = next(event["data"] for event in world.events(issue) if event["kind"] == "diagnosed")
    assert first["score"]["value"] == pytest.approx(0.02, abs=0.005)
    assert json.loads(world.file(branch, path)) == json.loads(honest)


@pytest.mark.slow
def test_results_edited_where_the_bot_keeps_them_are_not_compared_with(held: tuple[World, int, int, str]) -> None:
    world, issue, _, _ = held
    [result] = world.runner.root.glob("*-baseline-*/work/out/evaluation.json")
    forged = json.loads(result.read_text())
    forged["samples"][0]["score"] = 1.0 - forged["samples"][0]["score"]
    result.write_text(json.dumps(forged))
    world.runner.release("train-02")
    assert world.until_ended(issue) == "needs human"
    ended = world.first(issue, "ended")
    assert "somebody has edited them" in ended["reason"] and "-baseline-" in ended["reason"]


def test_no_job_that_trains_is_given_an_item_that_decides(held: tuple[World, int, int, str]) -> None:
    world, issue, _, _ = held
    world.runner.release("train-02")
    assert world.until_ended(issue) == "met"
    asked = {path: path.read_text().splitlines() for path in world.runner.root.glob("*/work/items.jsonl")}
    sealed = [json.loads(line)["id"] for path, rows in asked.items() if "-confirm-" in str(path) for line in rows]
    held_out = [row["id"] for rows in asked.values() for row in map(json.loads, rows) if row.get("set") == "holdout"]
    assert sealed and held_out
    assert not any("-train-" in str(path) or "-data-" in str(path) for path in asked)
    for spec in world.runner.root.glob("*/spec.json"):
        job, given = spec.parent.name, json.loads(spec.read_text())
        if "-confirm-" not in job:
            text = "".join(Path(p).read_text() for p in given["files"].values() if Path(p).is_file())
            assert not any(item in text for item in sealed), job
        if "-train-" in job or "-data-" in job or "-probe-" in job:
            assert set(given["mounts"]) <= {"init", "checkpoint", "teacher"}
            assert not any("items" in target or "benchmark" in target for target in given["files"]), job
            assert not any("confirm" in source or "evaluate" in source for source in given["mounts"].values()), job
    [queries] = [[e for e in world.events(issue) if e["kind"] in ("holdout_asked", "seal_opened")]]
    assert [each["kind"] for each in queries] == ["holdout_asked", "seal_opened"]
