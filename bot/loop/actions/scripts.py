"""The scripts of goals: kept by their digests, so that an upgrade leaves a goal under way its own, and found again."""

from __future__ import annotations

import os
from pathlib import Path

from bot.domain.experiment import Experiment
from bot.domain.scripts import TRAIN, files_shipped_as, shipped_files
from bot.errors import UserError
from bot.loop.world import World, digest

KEPT_SCRIPTS = "scripts"
"""Folder of a goal's scripts, by digest; also where the data folder may not last."""


def keep_shipped(world: World, method: str) -> dict[str, str]:
    """Keep the scripts that ship for `method`: an upgrade then leaves a goal under way its own.

    Returns: path in an experiment's folder -> digest.
    """
    return {path: _keep_script(world, file.read_bytes()) for path, file in shipped_files(method).items()}


def _keep_script(world: World, content: bytes) -> str:
    """Keep it under its digest, which is returned."""
    folder = _kept_scripts(world)
    folder.mkdir(parents=True, exist_ok=True)
    name = digest(content)
    partial = folder / f".{name}-{os.getpid()}"
    partial.write_bytes(content)
    partial.replace(folder / name)
    return name


def _kept_scripts(world: World) -> Path:
    return world.data_folder / KEPT_SCRIPTS


async def script_of(world: World, x: Experiment, path: str, wanted: str, ref: str) -> bytes:
    """A script of the experiment's folder as commit `ref` holds it: the shipped file where the digest says so."""
    if (written := x.written.get(wanted)) is not None:
        return written.encode()
    kept = _kept_scripts(world) / wanted
    if kept.is_file() and digest(content := kept.read_bytes()) == wanted:
        return content
    if world.kept_file is not None:
        content = await world.kept_file(x.goal_id, f"{KEPT_SCRIPTS}/{wanted}") or b""
        if digest(content) == wanted:
            return content
    for shipped in files_shipped_as(path):
        # What was kept went with the machine, and this version still ships the same.
        if digest(content := shipped.read_bytes()) == wanted:
            return content
    repository = world.repository(x)
    if x.pull_request is None and x.goal is not None and x.goal.script and path == TRAIN:
        found = await repository.file(x.goal.script, (await repository.default_branch())[1])
    else:
        found = await repository.file(f"{x.folder}/{path}", ref)
    if found is None or digest(found) != wanted:
        raise UserError(f"`{path}` changed while the run was being started. Push again, or write `/postdoc run`.")
    return found
