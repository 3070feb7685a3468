"""Is what a run would train on free of its benchmark: the built rows, the rows held out for validation, the scripts."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from bot.conversation.policy import Policy
from bot.data.contamination import Contamination
from bot.data.detectors import ItemLike
from bot.data.script_audit import audit_scripts
from bot.domain.experiment import Experiment
from bot.loop.actions.scripts import script_of
from bot.loop.screening import screened
from bot.loop.world import World

Rows = Sequence[Mapping[str, Any]]


async def contamination_of(
    world: World, x: Experiment, rows: Rows, validation: Rows, held_out: Sequence[ItemLike]
) -> Contamination:
    """Look at everything that the head's recipe would train on. Raises: UserError when a script cannot be read."""
    scripts = {
        path: await script_of(world, x, path, wanted, x.head_sha)
        for path, wanted in x.recipe_digests.items()
        if x.shipped_digests.get(path) != wanted  # the shipped ones are ours
    }
    return Contamination(
        await screened(rows, held_out, world.embeddings),
        await screened(validation, held_out, world.embeddings),
        tuple(await asyncio.to_thread(audit_scripts, scripts, held_out)),
        drops=Policy.from_dict(x.policy).contamination == "drop",
    )
