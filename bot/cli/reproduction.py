"""`postdoc reproduce`: make a recorded run again on this machine, and say whether it came out the same."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from bot.cli.common import DONE, FAILED, JsonFile, check_json, say, screen, write_json
from bot.errors import UserError

_WANTED = {"bitwise": ("bitwise",), "reproduced": ("bitwise", "within seed noise")}


def reproduce(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder: experiments/0042-gsm8k/runs/03.")],
    json_file: JsonFile = None,
    model: Annotated[
        Path | None, typer.Option("--model", help="Folder of the base model, where it lies somewhere of its own.")
    ] = None,
    require: Annotated[
        str | None,
        typer.Option("--require", metavar="HOW", help="Exit with 1 unless it is so: reproduced, or bitwise."),
    ] = None,
) -> int:
    """Train a recorded run again and compare: bitwise, within seed noise, or not reproduced.

    Says beforehand what is not the same here; builds the training set and compares it before training on it.
    """
    from bot.config import cache_folder
    from bot.loop.rerun import Bench, outcome_line
    from bot.loop.rerun import reproduce as reproduced
    from bot.practice import tiny_base
    from bot.practice.narration import Activity
    from runners.local import LocalRunner

    check_json(json_file)
    if require not in (None, *_WANTED):
        raise UserError(f"--require {require}: write `--require reproduced` or `--require bitwise`, or leave it out.")
    if model is not None and not (model / "config.json").is_file():
        raise UserError(f"--model {model}: the folder holds no config.json, so it is no model.")
    shown = screen("-")
    cached = tiny_base.cached_path()
    runner = LocalRunner(cache_folder() / "jobs")
    with tempfile.TemporaryDirectory(prefix="postdoc-reproduce-") as inputs, shown:
        bench = Bench(
            runner,
            _model_folders(),
            Path(inputs),
            base_model=model.resolve() if model is not None else None,
            known_models={tiny_base.NAME: cached} if tiny_base.is_built(cached) else {},
            hub_token=os.environ.get("POSTDOC_HUB_TOKEN") or os.environ.get("HF_TOKEN") or "",
            notice=lambda line: say([line], json_file),
            doing=lambda words, since: shown.show(Activity(words, since=since)),
        )
        report = reproduced(run, bench)
        for job in bench.jobs:
            runner.remove(job)
    lines = [outcome_line(report)]
    if report.first:
        lines.append(f"what differs first: {report.first}")
    say(lines, json_file)
    write_json(json_file, {"run": str(run)} | report.as_dict())
    return FAILED if require is not None and str(report.verdict) not in _WANTED[require] else DONE


def _model_folders() -> tuple[Path, ...]:
    """Those that a server here would look through, and the cache."""
    from bot.config import cache_folder

    named = (part.strip() for part in os.environ.get("POSTDOC_MODEL_FOLDERS", "").split(os.pathsep))
    return (*(Path(part) for part in named if part), cache_folder() / "models")


COMMANDS = (reproduce,)
