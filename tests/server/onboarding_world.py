"""A practice world whose bot onboards, with what people and deliveries do to its pull request."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.world import REPOSITORY, World, practice_world


@contextlib.contextmanager
def onboarding_world(folder: Path, *, policy: str | None = None, **settings: str) -> Iterator[World]:
    with practice_world(folder, policy=policy) as world:
        world.environment |= {"POSTDOC_ONBOARDING": "true"} | {f"POSTDOC_{k.upper()}": v for k, v in settings.items()}
        yield world


def offers(world: World, repository: str = REPOSITORY) -> list[dict[str, Any]]:
    """The onboarding pull requests, oldest first."""
    found = world.api("ada", "GET", f"/repos/{repository}/pulls?state=all&per_page=100")
    return sorted((p for p in found if p["head"]["ref"] == "postdoc/configure"), key=lambda p: int(p["number"]))


def until_offered(world: World, count: int = 1) -> dict[str, Any]:
    world.until(lambda: len(offers(world)) >= count, f"onboarding pull request {count}")
    return offers(world)[count - 1]


def settled(world: World) -> None:
    """Wait until every delivery so far was handled and the queue has been worked off."""
    world.forge.settle()
    marker = f"settled-{len(world.forge.webhooks.deliveries(world.forge.apps[world.app_id]))}"
    # A pull request from the bot's own account comes after what was queued before it.
    world.api("ada", "POST", f"/repos/{REPOSITORY}/issues", json={"title": marker, "body": "", "labels": ["postdoc"]})
    number = world.api("ada", "GET", f"/repos/{REPOSITORY}/issues?state=all&per_page=1")[0]["number"]
    world.until(lambda: world.bot_comments(number), "an answer to the marker")


def close(world: World, number: int) -> None:
    world.api("ada", "PATCH", f"/repos/{REPOSITORY}/pulls/{number}", json={"state": "closed"})


def restart(world: World) -> None:
    world.stop()
    world.start()
    assert world.wait_ready()
    settled(world)
