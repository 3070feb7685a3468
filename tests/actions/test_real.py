"""The modes with real training and real evaluation of the tiny base model."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bot.evaluation.tasks import training_rows
from bot.practice.goals import practice_place
from bot.practice.tiny_base import cached_path
from tests.actions.conftest import ROOT, TEMPLATES, Place
from tests.actions.stepper import Machine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
STEP = "OWNER/postdoc@0000000000000000000000000000000000000000"
RECIPE = """\
learning_rate: 3.0e-03
num_train_epochs: 4
per_device_train_batch_size: 32
max_length: 64
data_sources: data/rows.jsonl
"""
OWN = """\
description: Words backwards.
licence: CC0-1.0
metric: exact_match
items: {file: ours.jsonl}
splits: {dev: {n: 60}, sealed: {n: 60}}
generation: {max_gen_toks: 24}
"""


@pytest.fixture(scope="module")
def base() -> Path:
    subprocess.run([sys.executable, "-m", "bot.practice.tiny_base", "--quiet"], cwd=ROOT, check=True)
    return cached_path()


@pytest.fixture
def machine(place: Place, base: Path) -> Machine:
    machine = place.machine()
    machine.environment["XDG_CACHE_HOME"] = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return machine


def jsonl(rows: list[dict[str, str]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_training_by_hand_says_better_than_base_and_its_outputs_are_the_evaluations(
    place: Place, machine: Machine, base: Path
) -> None:
    place.push(
        {
            "experiments/1/recipe.yaml": f"{RECIPE}init_from: {base}\n",
            "data/rows.jsonl": jsonl(training_rows("reverse", 3000, 0)),
        }
    )
    inputs = {"experiment": "experiments/1", "benchmark": "practice/reverse"}
    run = place.run(TEMPLATES / "postdoc-experiment.yml", "workflow_dispatch", {"inputs": inputs}, machine=machine)
    assert run.conclusion == "success", run.log.text
    kept = run.artifact("postdoc-train")
    found = json.loads((kept / "evaluation.json").read_text())
    outputs = run.step(STEP).outputs
    assert (float(outputs["value"]), float(outputs["standard-error"])) == (found["value"], found["standard_error"])
    assert outputs["verdict"] == "better"
    assert found["value"] > 0.5
    assert json.loads((kept / "base.json").read_text())["value"] < 0.1
    assert (kept / "model" / "model.safetensors").is_file()
    assert not any(sample.keys() & {"prompt", "response", "reference"} for sample in found["samples"])
    assert run.summary.count("```mermaid") >= 1
    assert "Clean: no overlap found in 3,000 training rows" in run.summary
    assert "Lineage: descends. " in run.summary


def test_evaluate_gives_the_numbers_of_postdoc_evaluate(
    place: Place, machine: Machine, base: Path, tmp_path: Path
) -> None:
    inputs = {"model": str(base), "benchmark": "practice/upper"}
    run = place.run(TEMPLATES / "postdoc-evaluate.yml", "workflow_dispatch", {"inputs": inputs}, machine=machine)
    assert run.conclusion == "success", run.log.text
    words = [
        "evaluate",
        "--model",
        str(base),
        "--benchmark",
        "practice/upper",
        "--json",
        str(tmp_path / "by-hand.json"),
    ]
    subprocess.run([sys.executable, "-m", "bot", *words], cwd=ROOT, check=True, capture_output=True)
    by_hand = json.loads((tmp_path / "by-hand.json").read_text())
    outputs = run.step(STEP).outputs
    assert (float(outputs["value"]), float(outputs["standard-error"])) == (by_hand["value"], by_hand["standard_error"])
    assert f"{100 * by_hand['value']:.1f} %" in run.summary


def test_pull_request_cannot_change_the_benchmark_that_judges_it(place: Place, machine: Machine, base: Path) -> None:
    """Its head makes every item one that an empty answer solves, and its gate is still the base's."""
    rows = [{"prompt": row["prompt"], "reference": "?"} for row in training_rows("reverse", 200, 3)]
    easy = [row | {"reference": ""} for row in rows]
    place.push({"benchmarks/ours.yaml": OWN, "benchmarks/ours.jsonl": jsonl(rows), "models.txt": str(base)})
    place.push({"benchmarks/ours.jsonl": jsonl(easy), "benchmarks/ours.yaml": OWN.replace("60", "6")}, branch="change")
    event = place.open_pull("change")
    workflow = (
        (TEMPLATES / "postdoc-gate.yml")
        .read_text()
        .replace("model: model", f"model: {base}\n          base-model: {base}")
    )
    run = place.run(workflow, "pull_request", event, machine=machine)
    assert "compare" in run.log.text, "a model is not compared with itself"
    workflow = workflow.replace("mode: gate", "mode: evaluate").replace(f"base-model: {base}", "")
    run = place.run(workflow, "pull_request", event, machine=machine)
    assert run.conclusion == "success", run.log.text
    found = json.loads((run.artifact("postdoc-evaluate") / "evaluation.json").read_text())
    assert (found["n"], found["value"]) == (60, 0.0)
    assert re.search(r"read from the base commit [0-9a-f]{9}", run.summary)


def test_goal_is_pursued_to_its_target_within_the_job(place: Place, machine: Machine, base: Path) -> None:
    files = {
        name: content if isinstance(content, str) else content.decode()
        for name, content in practice_place(0).files.items()
    }
    goal = (
        "base_model: postdoc/tiny-qwen3\nbenchmark: practice/reverse\ntarget: 0.9\ndataset: data/reverse\nseed: 0\n"
        "budget: {runs: 4, gpu_hours: 0.5, usd: 0}\n"
        "recipe: |\n  learning_rate: 2.0e-05\n  num_train_epochs: 1\n"
        "  per_device_train_batch_size: 16\n  max_length: 2048\n"
    )
    place.push(files | {"goal.yaml": goal})
    run = place.run(
        TEMPLATES / "postdoc-pursue.yml", "workflow_dispatch", {"inputs": {"goal": "goal.yaml"}}, machine=machine
    )
    assert run.conclusion == "success", run.log.text
    outputs = run.step(STEP).outputs
    assert outputs["state"] == "met"
    assert float(outputs["value"]) >= 0.9
    kept = run.artifact("postdoc-pursue")
    assert (kept / "model" / "config.json").is_file()
    assert json.loads((kept / "postdoc.json").read_text())["state"] == "met"
    heads = subprocess.run(
        ["git", "bundle", "list-heads", str(kept / "postdoc.bundle")], capture_output=True, text=True
    )
    assert "refs/heads/postdoc/" in heads.stdout
