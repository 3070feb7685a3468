"""The scripts of an experiment's folder: where each of them lies, and which of our files ships as it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bot.domain.methods import METHODS

TRAIN, PREPARE = "train.py", "data/prepare.py"
"""Paths in an experiment's folder; what a method's script imports lies beside train.py under its own name."""
COLUMNS = "data/columns"
"""The package that prepare.py imports: how columns become what a method trains on."""

_ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = _ROOT / "templates" / "scripts"
_COLUMNS = _ROOT / "bot" / "data" / "columns"


def training_files(method: str) -> dict[str, Path]:
    """Path in an experiment's folder -> the file that ships as it: train.py and what it imports."""
    return {TRAIN: SCRIPTS / f"{method}.py"} | {name: SCRIPTS / name for name in METHODS[method].companions}


def data_files() -> dict[str, Path]:
    """The same for what builds the training set: prepare.py and what it imports."""
    modules = {f"{COLUMNS}/{file.name}": file for file in sorted(_COLUMNS.glob("*.py"))}
    return {PREPARE: SCRIPTS / "prepare.py"} | modules


def shipped_files(method: str) -> dict[str, Path]:
    return training_files(method) | data_files()


def files_shipped_as(path: str) -> list[Path]:
    """All files of ours that may lie at `path` of an experiment's folder, whatever its method."""
    found = (files.get(path) for files in (*map(training_files, METHODS), data_files()))
    return list(dict.fromkeys(file for file in found if file is not None and file.is_file()))


def builds_data(path: str) -> bool:
    """Whether the script at `path` belongs to what builds the training set."""
    return path.startswith("data/")


def with_data_scripts(digests: Mapping[str, str], standing: Mapping[str, str]) -> dict[str, str]:
    """`digests` with what builds the training set as in `standing`: another method trains on what was built before.

    A goal that an older version began has a prepare.py that stands alone, and keeps it so.
    """
    if PREPARE not in standing:
        return dict(digests)
    trains = {path: digest for path, digest in digests.items() if not builds_data(path)}
    return trains | {path: digest for path, digest in standing.items() if builds_data(path)}
