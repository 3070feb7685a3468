"""The folder of a specimen's job before it starts: recipe.yaml, train.py with what it needs beside it, and the rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bot.domain.recipe import as_yaml
from bot.domain.scripts import SCRIPTS, data_files
from bot.errors import PlatformError
from bot.practice.laying import lay_out
from bot.zoo.specimen import SOURCE, Json, Specimen


def write_inputs(specimen: Specimen, folder: Path) -> None:
    """recipe.yaml, train.py with what it needs beside it, and the rows."""
    (folder / "recipe.yaml").write_text(recipe_text(specimen.recipe), encoding="utf-8")
    _write_script(specimen, "train.py", f"{specimen.method}.py", specimen.script_edits, folder)
    if specimen.method == "grpo":
        _write_script(specimen, "rewards.py", "rewards.py", [], folder)
        own = "".join(f"\n\n{text}" for text in specimen.own_rewards.values())
        with (folder / "rewards.py").open("a", encoding="utf-8") as file:
            file.write(own)
    (folder / "data").mkdir()
    for name, text in specimen.companions.items():
        (folder / name).write_text(text, encoding="utf-8")
    lay_out(data_files(), folder)
    (folder / "inputs").mkdir()
    write_lines(folder / "inputs" / Path(SOURCE).name, specimen.rows)
    if specimen.train_rows is not None:
        write_lines(folder / "data" / "train.jsonl", specimen.train_rows)
        if specimen.validation_rows:
            write_lines(folder / "data" / "validation.jsonl", specimen.validation_rows)
    if specimen.full_disk_at is not None:
        place = folder / "out" / specimen.full_disk_at
        place.parent.mkdir(parents=True)
        place.symlink_to("/dev/full")


def _write_script(specimen: Specimen, name: str, source: str, edits: list[tuple[str, str]], folder: Path) -> None:
    text = (SCRIPTS / source).read_text(encoding="utf-8")
    for old, new in edits:
        if text.count(old) != 1:
            raise PlatformError(f"{source} holds {old.strip().splitlines()[0]!r} {text.count(old)} times, not once")
        text = text.replace(old, new)
    (folder / name).write_text(text, encoding="utf-8")


def recipe_text(recipe: Mapping[str, Any]) -> str:
    """One key a line. `init_from` names the practice base where a flag will name its folder."""
    lines = []
    for key, value in recipe.items():
        shown = json.dumps(value) if isinstance(value, list) else as_yaml(value)
        lines.append(f"{key}: {shown}\n")
    return "".join(lines)


def write_lines(path: Path, rows: list[Json]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
