"""One turn, tried again as a whole where a provider broke off or was busy, and what the broken attempts have cost.

Both clients retry here and nowhere else: a stream that breaks in its middle is an error that no client library retries,
and two owners of retries multiply.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace

from bot.brain.model.errors import ModelBusy, ModelError
from bot.brain.model.prices import Price
from bot.brain.model.talk import Again, Reply, Usage

ATTEMPTS = 4
FIRST_WAIT_SECONDS = 2.0
LONGEST_WAIT_SECONDS = 60.0
"""Longer than that a provider is not waited for within a turn: the goal goes on without it meanwhile."""


class Attempt:
    """What one attempt has used so far, told by the client as it reads."""

    def __init__(self) -> None:
        self.usage = Usage()


async def pause(seconds: float) -> None:
    """Between two attempts; tests put something quicker in its place."""
    await asyncio.sleep(seconds)


async def patiently(ask: Callable[[Attempt], Awaitable[Reply]], price: Price, again: Again | None = None) -> Reply:
    """The first reply that arrives whole. Raises: ModelError, with everything that was spent on it."""
    wasted = Usage()
    for number in range(1, ATTEMPTS + 1):
        attempt = Attempt()
        try:
            reply = await ask(attempt)
        except ModelBusy as busy:
            wasted += attempt.usage
            wait = busy.retry_after_seconds
            too_long = wait is not None and wait > LONGEST_WAIT_SECONDS
            if number == ATTEMPTS or too_long or (again is not None and not await again(price.of(wasted))):
                busy.wasted, busy.usd = wasted, price.of(wasted)
                raise
            backoff = FIRST_WAIT_SECONDS * 2 ** (number - 1) * random.uniform(1.0, 1.5)
            await pause(max(wait or 0.0, min(backoff, LONGEST_WAIT_SECONDS)))
        except ModelError as error:
            wasted += attempt.usage
            error.wasted, error.usd = wasted, price.of(wasted)
            raise
        else:
            return replace(reply, usd=price.of(reply.usage + wasted), attempts=number, wasted=wasted)
    raise AssertionError("unreachable: the last attempt returns or raises")
