"""A run's lineage: its model held against the declared base, by a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from bot.domain.experiment import Experiment, JobRole, Run
from bot.domain.recipe import earlier_run
from bot.errors import PostdocError, TransientError
from bot.loop.actions.specs import base_model, finished, trained_model
from bot.loop.world import PACKAGE, World

SECONDS = 1800
"""For one check; it reads both models once, at the speed of the disk."""
TABLES = "fingerprints"
"""Folder of the data folder with fingerprints of published models; an owner's own files lie there too."""
CHECK = "bot.evaluation.lineage.child"


async def lineage_of(world: World, x: Experiment, run: Run) -> dict[str, Any]:
    """`Lineage.as_dict()` of a trained run, or {"error": why it was not checked}."""
    values = yaml.safe_load(run.recipe) or {}
    model = trained_model(world, x, run.n)
    if not model.is_dir():
        return {"error": "its model is not on this machine"}
    try:
        base = await base_model(world, x)
    except PostdocError as error:
        return {"error": f"the base model is not here ({error})"}
    earlier = earlier_run(values.get("init_from"))
    adapter = finished(world, x, JobRole.TRAIN, run.n) / "out" / "adapter"
    request = {
        "model": str(model),
        "base": str(base),
        "published": [str(path) for path in tables(world)],
        "adapter": str(adapter) if values.get("use_peft") is True and adapter.is_dir() else None,
        "start": str(trained_model(world, x, earlier)) if earlier is not None else None,
        "from_scratch": values.get("from_scratch") is True,
        "template_asked": "chat_template_path" in values,
    }
    return await check(request)


def tables(world: World) -> list[Path]:
    """Files of fingerprints, those that ship first."""
    shipped = PACKAGE / "evaluation" / "lineage" / "fingerprints"
    return sorted(shipped.glob("*.json")) + sorted((world.data_folder / TABLES).glob("*.json"))


async def check(request: Mapping[str, Any], seconds: int = SECONDS) -> dict[str, Any]:
    """What the child answers. Raises: TransientError when it was ended before it answered."""
    child = await _started(["-m", CHECK])
    try:
        output, _ = await child.communicate(json.dumps({**request, "seconds": seconds}).encode())
    finally:
        if child.returncode is None:
            child.kill()
    if child.returncode == -signal.SIGALRM:
        return {"error": f"it took more than {seconds} s"}
    try:
        answer: dict[str, Any] = json.loads(output)
    except ValueError:
        raise TransientError(f"the check of a model's lineage ended without an answer ({child.returncode})") from None
    return answer


async def _started(words: Sequence[str]) -> asyncio.subprocess.Process:
    # Nothing of our settings: what reads a job's files holds no secret.
    kept = {key: value for key, value in os.environ.items() if key in ("PATH", "LANG", "HOME", "TMPDIR")}
    environment = kept | {"PYTHONPATH": str(PACKAGE.parent), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return await asyncio.create_subprocess_exec(
        sys.executable, *words, env=environment, cwd="/", stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
