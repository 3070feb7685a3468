"""One skeleton: what two training scripts define under one name is the same text in both."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.templates.skeleton import MARK, ORIGINAL, SCRIPTS, assembled, definitions, training_scripts

# What a method is: its constants, its recipe keys, its order of events, and what it measures about its rows.
OWN = {"METHOD", "CONFIG", "MODEL_CLASS", "COLUMNS", "NEEDED", "Experiment", "main", "audit_data"}


def test_same_name_means_same_text_in_every_training_script() -> None:
    seen: dict[str, tuple[str, str]] = {}
    different = []
    for path in training_scripts():
        for one in definitions(path.read_text()):
            where, text = seen.setdefault(one.name, (path.name, one.text))
            if one.name not in OWN and text != one.text:
                different.append(f"{one.name} of {path.name} is not that of {where}")
    assert different == [], "edit sft.py, then run: python -m tests.templates.skeleton"


@pytest.mark.parametrize("path", training_scripts(), ids=lambda path: path.stem)
def test_lower_part_of_each_script_is_what_the_tool_writes(path: Path) -> None:
    source = path.read_text()
    assert MARK in source
    if path.name != ORIGINAL:
        assert assembled(source) == source, "run: python -m tests.templates.skeleton"


def test_tool_brings_what_a_script_names_and_nothing_else() -> None:
    own = "@dataclass\nclass Keys:\n    old: int = 1\n\n\ndef main() -> None:\n    write_json(None, 'a', {})\n"
    made = assembled(own)
    names = [one.name for one in definitions(made)]
    assert names == ["Keys", "main", "write_json", "fail"]
    original = {one.name: one.text for one in definitions((SCRIPTS / ORIGINAL).read_text())}
    assert {one.text for one in definitions(made)} <= {*original.values(), own.split("\n\n\n")[1].rstrip("\n")}
    assert assembled(made) == made
