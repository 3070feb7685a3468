"""What the zoo consists of, and that nothing about a run gives its fault away."""

from __future__ import annotations

import json
import re

import pytest

from bot.domain.diagnosis import Symptom
from bot.errors import UserError
from bot.zoo.faults import FAULTS, SEVERITIES
from bot.zoo.job_folder import recipe_text
from bot.zoo.plan import CONTROL, FAULT, HEALTHY, PAIR, Case, all_cases, choice_of, fault_case
from bot.zoo.specimen import plain

METHODS = frozenset({"sft", "dpo", "grpo"})
CASES = list(all_cases())
WORDS_OF_THE_TRADE = {"dtype", "tokenizer"}
"""Labels that every recipe and script uses as a word."""


def test_plan_has_every_fault_in_every_severity_and_five_seeds() -> None:
    planned = {(case.faults[0], case.severity, case.seed) for case in CASES if case.kind == FAULT}
    wanted = {(n, severity, seed) for n, fault in FAULTS.items() for severity in fault.severities for seed in range(5)}
    assert planned == wanted
    # 45 faults, of which 45 is three.
    assert set(FAULTS) == set(range(1, 48))


def test_plan_has_enough_healthy_runs_and_thirty_pairs() -> None:
    kinds = [case.kind for case in CASES]
    assert kinds.count(HEALTHY) >= 300
    assert kinds.count(PAIR) == 30
    assert len({case.name for case in CASES}) == len(CASES)


def test_control_comes_before_what_is_compared_with_it() -> None:
    place = {case: number for number, case in enumerate(CASES)}
    for case in CASES:
        if case.kind in (FAULT, PAIR):
            assert place[case.control()] < place[case]


def test_labels_are_the_engines_and_whole_faults_are_held_out() -> None:
    known = {str(symptom) for symptom in Symptom}
    for fault in FAULTS.values():
        assert {*fault.labels, *fault.neighbours} <= known, fault.name
        assert fault.held_out_severity in ("", *fault.severities), fault.name
        assert set(fault.fails) <= set(fault.severities), fault.name
    assert sum(fault.held_out for fault in FAULTS.values()) >= 6


def test_nothing_is_tuned_on_late_seeds_or_held_out_severities() -> None:
    for case in CASES:
        if case.kind == FAULT:
            fault = FAULTS[case.faults[0]]
            secret = case.seed > 2 or fault.held_out or case.severity == fault.held_out_severity
            assert bool(case.held_out) == secret


@pytest.mark.parametrize("number", sorted(FAULTS))
def test_fault_changes_something_and_does_not_say_its_name(number: int) -> None:
    fault = FAULTS[number]
    for severity in fault.severities:
        case = fault_case(fault, severity, 0)
        faulty, control = case.specimen(), case.control().specimen()
        assert faulty.digest != control.digest
        assert faulty.digest == case.specimen().digest, "two makings differ"
        shown = (
            recipe_text(faulty.recipe) + json.dumps(faulty.rows[:50]) + "".join(new for _, new in faulty.script_edits)
        )
        shown += "".join(faulty.companions.values()) + "".join(faulty.own_rewards.values()) + case.name
        words = {*fault.labels, "fault", "inject", "zoo", severity} - WORDS_OF_THE_TRADE
        for label in words:
            assert not re.search(rf"\b{label}\b", shown), f"{label} stands in what the engine sees"


def test_run_of_several_processes_sees_as_many_rows_a_step_as_its_control_and_as_one_process() -> None:
    case = fault_case(FAULTS[42], "gross", 0)
    faulty, control, alone = case.specimen(), case.control().specimen(), plain("sft", "reverse", 0)
    assert (faulty.processes, control.processes, alone.processes) == (2, 2, 1)
    assert {2 * one.recipe["per_device_train_batch_size"] for one in (faulty, control)} == {
        alone.recipe["per_device_train_batch_size"]
    }
    assert len({one.digest for one in (faulty, control, alone)}) == 3


def test_severities_of_a_fault_are_different_runs() -> None:
    for fault in FAULTS.values():
        digests = {fault_case(fault, severity, 0).specimen().digest for severity in fault.severities}
        assert len(digests) == len(fault.severities), fault.name


def test_only_what_training_shows_is_trained_for_400_steps() -> None:
    for case in CASES:
        if case.kind == FAULT and case.long:
            assert FAULTS[case.faults[0]].shows == "training"
            assert case.seed % 2 == 1
    long = {case.faults[0] for case in CASES if case.long and case.kind == FAULT}
    assert len(long) >= 12


def test_part_of_the_plan_brings_its_controls() -> None:
    chosen = choice_of("1,17,gross,seed0", METHODS).cases()
    assert [case.kind for case in chosen] == [CONTROL, FAULT, CONTROL, FAULT]
    assert {case.severity for case in chosen if case.kind == FAULT} == {"gross"}
    healthy = choice_of("healthy7", METHODS).cases()
    assert [case.kind for case in healthy] == [HEALTHY] * 7
    assert {case.method for case in choice_of("dpo,gross", METHODS).cases()} == {"dpo"}


@pytest.mark.parametrize("words", ["48", "99", "grosss", "seed9", "ppo"])
def test_unknown_part_of_the_plan_is_refused_with_what_there_is(words: str) -> None:
    with pytest.raises(UserError, match=r"--only .*\."):
        choice_of(words, METHODS)


def test_name_of_a_case_is_a_digest_of_what_it_is() -> None:
    one, other = Case(HEALTHY, seed=1), Case(HEALTHY, seed=2)
    assert re.fullmatch(r"run-[0-9a-f]{12}", one.name)
    assert one.name != other.name
    assert one.name == Case(HEALTHY, seed=1).name
    assert set(SEVERITIES) == {"gross", "medium", "subtle"}
