"""Lays out shipped scripts as a job's folder has them, where no bot does it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path


def lay_out(files: Mapping[str, Path], folder: Path) -> None:
    """Copy each file to its path below `folder`; see `bot.domain.scripts`."""
    for path, file in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, folder / path)
