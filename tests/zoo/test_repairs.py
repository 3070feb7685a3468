"""Random edits stay recipes, and repairs are counted by tries."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import yaml

from bot.domain.experiment import Experiment, Run
from bot.domain.goal import GoalId
from bot.domain.recipe import differences
from bot.zoo.job_folder import recipe_text
from bot.zoo.making import Making
from bot.zoo.plan import FAULT, Case
from bot.zoo.repairs import Patient, drawn, randomly_edited, repair_figures, repairs_of, within_noise
from bot.zoo.running import Outcome
from bot.zoo.specimen import plain
from bot.zoo.traces import TRUTH, Trace, Truth


@pytest.mark.parametrize("method", ["sft", "dpo", "grpo"])
def test_random_edit_changes_one_key_to_a_value_of_its_kind(method: str) -> None:
    text = recipe_text(plain(method, "last", 0, lora=True).recipe)
    rng = random.Random(0)
    edited: set[str] = set()
    for _ in range(120):
        changed = differences(yaml.safe_load(text), yaml.safe_load(randomly_edited(text, rng)))
        assert len(changed) <= 1
        edited |= changed.keys()
        for before, after in changed.values():
            assert isinstance(after, type(before)) or {type(before), type(after)} <= {int, float, str, list}
    assert {"learning_rate", "max_steps", "use_peft"} <= edited
    assert not edited & {"method", "init_from", "data_sources", "seed"}


@pytest.mark.parametrize("seed", range(5))
def test_no_edit_is_tried_twice(seed: int) -> None:
    text = "packing: true\nuse_peft: true\n"
    tried = Run(1, "packing: false\nuse_peft: true\n", "", "")
    case = Case(FAULT, (2,), "gross", 0, ("sft", "last", False))
    patient = Patient(
        case, Outcome(0, "succeeded", None), (), Experiment(GoalId("zoo/repairs#1"), is_goal=True, runs=[tried])
    )
    assert yaml.safe_load(drawn(patient, text, random.Random(seed))) == {"packing": True, "use_peft": False}


def trace(name: str, **repairs: int) -> Trace:
    truth = Truth(healthy=False, labels=("plateau",), held_out="seed", repairs=repairs or None)
    return Trace(name, {TRUTH: json.dumps(truth.as_dict()).encode()})


def test_repairs_are_counted_up_to_the_try() -> None:
    traces = [
        trace("a", control=1, playbook=1, random=0), trace("b", control=1, playbook=3, random=2),
        trace("c", control=1, playbook=0, random=0),
    ]  # fmt: skip
    found = repair_figures([*traces, trace("d"), trace("e", control=0)])
    assert (found["playbook"]["repair_1"], found["playbook"]["repair_3"]) == (pytest.approx(1 / 3, abs=1e-4), 0.6667)
    assert (found["random"]["repair_1"], found["random"]["repair_3"], found["random"]["n"]) == (0.0, 0.3333, 3)
    assert repair_figures([trace("d")]) == {}


def test_what_cannot_be_told_from_the_control_is_as_good() -> None:
    assert within_noise(1.0, 1.0) == 0.95, "at least five points"
    assert within_noise(0.8, 0.7) == pytest.approx(0.8 - 1.96 * (0.8 * 0.2 / 200 + 0.7 * 0.3 / 200) ** 0.5, abs=1e-4)


def test_repairs_survive_a_kill_in_the_middle_of_a_line(tmp_path: Path) -> None:
    attempt = {"changes": {}, "value": 1.0, "state": "succeeded", "repaired": True}
    whole = json.dumps({"name": "run-1", "policy": "playbook", "attempts": [attempt | {"repaired": False}, attempt]})
    (tmp_path / "repairs.jsonl").write_text(whole + "\n" + whole[:30])
    assert repairs_of(tmp_path) == {"run-1": {"playbook": 2}}


def test_making_goes_on_from_its_manifest_and_makes_changed_cases_again(tmp_path: Path) -> None:
    outcome = {"exit_code": 0, "state": "succeeded", "failure": None, "value": 0.9, "n": 200}
    entry = {"name": "run-1", "case": "x", "specimen": "d1", "outcome": outcome, "cpu_seconds": 1}
    lost = entry | {"name": "run-2"}
    (tmp_path / "raw" / "run-1").mkdir(parents=True)
    (tmp_path / "manifest.jsonl").write_text(
        json.dumps(entry) + "\n" + json.dumps(lost) + "\n" + '{"name": "run-3", "c'
    )
    made = Making.opened(tmp_path)
    assert made.digests == {"run-1": "d1"}  # run-2 has no folder, run-3's line was being written
    assert made.done["run-1"].value == 0.9
