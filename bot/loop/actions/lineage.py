"""The lineage of a run's or an arm's model: held against the declared base, by a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from bot.domain.experiment import Experiment, JobRole
from bot.domain.goal import digest_of, slug
from bot.domain.recipe import earlier_run
from bot.errors import PostdocError, TransientError
from bot.loop.actions.specs import base_model, finished, trained_model
from bot.loop.hub_process import ask_hub
from bot.loop.models import hub_origin
from bot.loop.world import PACKAGE, World

MOST_RELATIVES = 12
RELATIVES_SECONDS = 180
FRESH_SECONDS = 7 * 24 * 3600
"""For so long what is published beside a base is not asked for again."""
SECONDS = 1800
"""For one check; it reads both models once, at the speed of the disk."""
TABLES = "fingerprints"
"""Folder of the data folder with fingerprints of published models; an owner's own files lie there too."""
CHECK, RELATIVES = "bot.evaluation.lineage.child", "bot.loop.relatives_child"


class Published(NamedTuple):
    """What is known of the models that are published beside a base."""

    names: tuple[str, ...] = ()
    problem: str = ""
    """Why some, or all, could not be asked for; empty where they were, and where the base is not of the Hub."""


async def lineage_of(world: World, x: Experiment, role: JobRole, n: int, recipe: str) -> dict[str, Any]:
    """`Lineage.as_dict()` of what the job that did `role` for run or arm `n` has trained by `recipe`, or {"error": why
    it was not checked}."""
    values = yaml.safe_load(recipe) or {}
    left = finished(world, x, role, n) / "out"
    model, adapter = left / "model", left / "adapter"
    if not model.is_dir():
        return {"error": "its model is not on this machine"}
    try:
        base = await base_model(world, x)
    except PostdocError as error:
        return {"error": f"the base model is not here ({error})"}
    known = await gather_published(world, x)
    earlier = earlier_run(values.get("init_from"))
    request = {
        "model": str(model),
        "base": str(base),
        "published": [str(path) for path in tables(world)],
        "adapter": str(adapter) if values.get("use_peft") is True and adapter.is_dir() else None,
        "start": str(trained_model(world, x, earlier)) if earlier is not None else None,
        "from_scratch": values.get("from_scratch") is True,
        "template_asked": "chat_template_path" in values,
    }
    found = await check(request)
    if known.problem and "notes" in found:
        found["notes"] = [*found["notes"], f"Not all published models could be looked at: {known.problem}."]
    return found


async def gather_published(world: World, x: Experiment) -> Published:
    """Have fingerprints of what the Hub has beside and from the goal's base, taken anew where they are old.

    Never in the way: what cannot be asked is said, and asked again at the next occasion.
    """
    assert x.goal is not None
    name = x.goal.base_model
    origin = hub_origin(await base_model(world, x), name)
    if not origin:
        return Published()
    file = world.data_folder / TABLES / f"hub-{slug(name, limit=40)}-{digest_of(name)[:8]}.json"
    if file.is_file() and world.clock() - file.stat().st_mtime < FRESH_SECONDS:
        return Published(tuple(str(each["name"]) for each in json.loads(file.read_bytes())["models"]))
    request = {
        "repo": name, "revision": origin.rpartition("@")[2], "most": MOST_RELATIVES, "own": list(world.hub_namespaces),
        "token": world.hub_token, "file": str(file), "seconds": RELATIVES_SECONDS,
    }  # fmt: skip
    try:
        answer = await ask_hub(request, "tell what is published beside the base", module=RELATIVES)
    except TransientError as error:
        return Published(problem=str(error))
    if "error" in answer:
        return Published(problem=f"the Hub could not be asked ({answer['error']})")
    return Published(tuple(answer["models"]), "; ".join(answer["problems"][:3]))


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
