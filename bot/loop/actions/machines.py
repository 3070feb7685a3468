"""Which machine a job gets that needs no GPU, and what an hour of a machine costs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from bot.domain.experiment import Experiment
from bot.domain.scripts import builds_data
from bot.errors import PlatformError, TransientError
from bot.loop.world import World
from runners.job import Flavor, Hardware

LIGHT_GIB = 8.0
"""Memory of an audit or of building a training set: the libraries, and every row in tokens."""


async def machine_price(world: World, flavor: str | None = None) -> float | None:
    """USD for an hour of the machine that jobs get, or of a `flavor`, as the backend says now; None where it has no
    price.

    Raises: TransientError when it cannot say.
    """
    wanted = world.hardware.flavor if flavor is None else flavor
    return next((each.usd_per_hour for each in await flavors_of(world) if wanted in ("", each.name)), None)


async def machine_without_gpu(world: World) -> Hardware:
    """The cheapest without a GPU, of those that have a price; else what a backend takes for a job that asks for none.

    Raises: TransientError when the backend cannot say.
    """
    offered = [each for each in await flavors_of(world) if not each.gpus and each.usd_per_hour is not None]
    large = [each for each in offered if not each.memory_gib or each.memory_gib >= LIGHT_GIB]
    return Hardware(flavor=min(large, key=lambda each: each.usd_per_hour or 0.0).name) if large else Hardware()


async def data_machine(world: World, x: Experiment) -> Hardware:
    """Of the job that builds the training set at the head: ours asks for no GPU, and a team's own script gets what the
    backend takes for a job that asks for nothing.

    Raises: TransientError when the backend cannot say.
    """
    building = {path: wanted for path, wanted in x.recipe_digests.items() if builds_data(path)}
    ours = building.items() <= x.shipped_digests.items()
    return await machine_without_gpu(world) if ours else Hardware()


async def flavors_of(world: World) -> Sequence[Flavor]:
    """Raises: TransientError when the backend cannot say."""
    try:
        return await asyncio.to_thread(world.runner.flavors)
    except PlatformError as error:
        raise TransientError(f"the runner cannot say what machines it has and what they cost: {error}") from error
