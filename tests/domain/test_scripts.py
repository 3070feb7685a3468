"""Which scripts an experiment's folder has, and which of them build its training set."""

from __future__ import annotations

from bot.domain.methods import METHODS
from bot.domain.scripts import (
    COLUMNS,
    PREPARE,
    TRAIN,
    builds_data,
    data_files,
    files_shipped_as,
    shipped_files,
    training_files,
    with_data_scripts,
)


def test_every_method_ships_files_that_are_there() -> None:
    for method in METHODS:
        assert [path for path, file in shipped_files(method).items() if not file.is_file()] == []
        assert not any(map(builds_data, training_files(method)))
    assert all(map(builds_data, data_files()))


def test_prepare_ships_with_the_modules_of_the_bot_itself() -> None:
    import bot.data.columns as package

    [folder] = package.__path__
    modules = {path: file for path, file in data_files().items() if path != PREPARE}
    assert {file.parent.as_posix() for file in modules.values()} == {folder}
    assert {f"{COLUMNS}/__init__.py", f"{COLUMNS}/turns.py", f"{COLUMNS}/expressions.py"} <= modules.keys()


def test_what_may_lie_at_a_path() -> None:
    assert {file.name for file in files_shipped_as(TRAIN)} == {f"{method}.py" for method in METHODS}
    assert [file.name for file in files_shipped_as(PREPARE)] == ["prepare.py"]
    assert [file.name for file in files_shipped_as(f"{COLUMNS}/turns.py")] == ["turns.py"]
    assert files_shipped_as("data/turns.py") == files_shipped_as("runs/01/run.json") == []


def test_another_method_keeps_what_builds_the_data() -> None:
    new = {"train.py": "grpo", "rewards.py": "r", PREPARE: "new", f"{COLUMNS}/turns.py": "new"}
    standing = {"train.py": "sft", PREPARE: "theirs", f"{COLUMNS}/turns.py": "old", f"{COLUMNS}/gone.py": "old"}
    assert with_data_scripts(new, standing) == {
        "train.py": "grpo", "rewards.py": "r", PREPARE: "theirs", f"{COLUMNS}/turns.py": "old",
        f"{COLUMNS}/gone.py": "old",
    }  # fmt: skip
    # What an older version began has a prepare.py that stands alone.
    alone = with_data_scripts(new, {"train.py": "sft", PREPARE: "alone"})
    assert alone == {"train.py": "grpo", "rewards.py": "r", PREPARE: "alone"}
    assert with_data_scripts(new, {}) == new
