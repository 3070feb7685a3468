"""The door by which the pages reach the forge's API: the same endpoints, but nobody's rate limit and no injected fault.

Looking at a page is no API call of the person who looks (on GitHub neither): an open page would use up an hour's 60
anonymous requests in a minute, and a fault that a test has set for the bot would strike the reader instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from starlette.applications import Starlette

from bot.practice import graphql, rest
from bot.practice.faults import Faults
from bot.practice.rate_limits import RateLimits, Window
from bot.practice.routing import starlette_route

if TYPE_CHECKING:
    from bot.practice.forge import Forge


class _Unlimited(RateLimits):
    def window(self, key: str, resource: str, now: float) -> Window:
        return Window(limit=1_000_000, used=0, reset=int(now))


class _Door:
    """The forge itself, but for what counts and what disturbs requests."""

    def __init__(self, forge: Forge) -> None:
        self._forge = forge
        self.limits = _Unlimited()
        self.faults = Faults()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._forge, name)


def open_door(forge: Forge) -> Starlette:
    """The REST API at /api/v3 and GraphQL at /api/graphql, for calls in this process."""
    door = cast("Forge", _Door(forge))
    routes = [starlette_route(door, endpoint, "/api/v3") for endpoint in rest.endpoints()]
    return Starlette(routes=[*routes, starlette_route(door, graphql.ENDPOINT, "/api", "graphql")])
