"""The shipped rewards: their examples hold, and each is what its name says on answers that try to cheat it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest

from tests.templates.conftest import SCRIPTS


def load() -> ModuleType:
    specification = importlib.util.spec_from_file_location("shipped_rewards", SCRIPTS / "rewards.py")
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


REWARDS = load()


def score(name: str, answers: list[str], reference: str, **more: Any) -> list[float]:
    many = len(answers)
    return REWARDS.FUNCTIONS[name](prompts=[""] * many, completions=answers, reference=[reference] * many, **more)


@pytest.mark.parametrize("name", REWARDS.FUNCTIONS)
def test_examples_hold_and_there_is_one_of_each_kind(name: str) -> None:
    assert REWARDS.failed_examples(name) == []
    assert len({value for _, _, value, *_ in REWARDS.FUNCTIONS[name].examples}) > 1, "an example must be able to fail"


def test_file_checks_itself_with_the_standard_library_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(SCRIPTS / "rewards.py")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and done.stderr == ""
    assert "exact_match: 5 examples" in done.stdout


def test_example_that_does_not_hold_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(REWARDS.FUNCTIONS["contains"], "examples", (("a", "b", 1.0),))
    assert REWARDS.failed_examples("contains") == ["contains: 'a' against 'b' is worth [0.0], and should be 1.0"]


@pytest.mark.parametrize(
    ("name", "reference", "right", "wrong"),
    [
        ("numeric", "3/4 is 0.75", ["0.75", ".75", "so 0.750"], ["75", "0.7", "", "3"]),
        ("numeric", "-2", ["= -2", "\\boxed{-2}"], ["2", "- 3"]),
        ("json_equal", "[1, 2]", ["[1,2]"], ["[2, 1]", "1, 2", "null"]),
        ("json_equal", "null", ["null"], ["", "none"]),
        ("boxed", "\\boxed{\\frac{1}{2}}", ["\\boxed{\\frac{1}{2}}"], ["\\frac{1}{2}", "\\boxed{1}"]),
        ("shape", "ab 12", ["x 1", "word 999"], ["12 ab", "ab12", "ab 12 "[:2]]),
    ],
)
def test_right_and_wrong_answers_are_told_apart(name: str, reference: str, right: list[str], wrong: list[str]) -> None:
    assert score(name, right, reference) == [1.0] * len(right)
    assert score(name, wrong, reference) == [0.0] * len(wrong)


def test_form_alone_pays_for_wrong_answers_which_is_why_it_is_never_enough() -> None:
    assert score("shape", ["zz 99"], "ab 12") == score("json_valid", ["{}"], "") == [1.0]
    assert score("exact_match", ["zz 99"], "ab 12") == [0.0]


def test_length_is_punished_only_near_the_end() -> None:
    ids = [[0] * n for n in (1, 80, 85, 90, 100)]
    punished = score("overlong", [""] * 5, "", completion_ids=ids, max_completion_length=100)
    assert punished == [0.0, 0.0, -0.25, -0.5, -1.0]
