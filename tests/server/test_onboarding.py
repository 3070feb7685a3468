"""When onboarding pull requests are opened: by which events, how many an hour, and by a server that runs and dies."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from bot.conversation import events as hooks
from bot.loop.onboarding import Offer
from bot.practice.webhooks import Event
from bot.server.onboarding import HOUR_SECONDS, Onboarding
from tests.loop.onboarding_place import Place, open_place
from tests.server.onboarding_world import close, offers, onboarding_world, restart, settled, until_offered
from tests.world import REPOSITORY, World

PERSON = hooks.Person(1, "ada", "User")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with open_place(tmp_path) as opened:
        yield opened


class Clock:
    def __init__(self, place: Place) -> None:
        self.later = 0.0
        self._now = place.forge.clock

    def __call__(self) -> float:
        return self._now().timestamp() + self.later


@contextlib.asynccontextmanager
async def running(place: Place, clock: Clock, per_hour: int = 3) -> AsyncIterator[Onboarding]:
    async with place.app() as app:
        onboarding = Onboarding(app, Offer(), per_hour=per_hour, clock=clock)
        task = asyncio.create_task(onboarding.run())
        try:
            yield onboarding
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def opened(place: Place) -> int:
    return sum(len(place.offers(each.full_name)) for each in list(place.forge.repositories.values()))


async def until_opened(place: Place, count: int) -> None:
    for _ in range(400):
        if opened(place) >= count:
            break
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.3)  # one more would have been opened by now
    assert opened(place) == count


def changed(place: Place, action: str, *names: str) -> hooks.InstallationChanged:
    return hooks.InstallationChanged(
        sender=PERSON, installation_id=place.installation_id, account="acme", delivery_id="d", action=action,
        repositories=names,
    )  # fmt: skip


@pytest.mark.slow
async def test_large_installation_gets_a_few_an_hour_also_across_restarts(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="postdoc.onboarding")
    names = [f"acme/r{n:02d}" for n in range(8)]
    for name in names:
        place.forge.add_repository("acme", name.partition("/")[2], {"README.md": "# r\n"})
    place.forge.install_app(place.registration.app_id, *names)
    clock = Clock(place)
    async with running(place, clock):
        await until_opened(place, 3)
        assert "6 repositories wait for their onboarding pull request: at most 3 an hour" in caplog.text
    async with running(place, clock) as onboarding:
        await until_opened(place, 3)
        clock.later = HOUR_SECONDS + 5
        await onboarding.note(changed(place, "added"))  # wakes it
        await until_opened(place, 6)
        clock.later = 2 * HOUR_SECONDS + 10
        await onboarding.note(changed(place, "removed", "acme/r07"))
        await until_opened(place, 8)


async def test_repository_that_is_added_is_asked_and_one_that_is_removed_is_not(place: Place) -> None:
    clock = Clock(place)
    for name in ("one", "two"):
        place.forge.add_repository("acme", name, {"README.md": "# r\n"})
    async with running(place, clock, per_hour=2) as onboarding:
        await until_opened(place, 1)
        place.forge.install_app(place.registration.app_id, "acme/one", "acme/two")
        for _ in range(3):
            await onboarding.note(changed(place, "added", "acme/one"))
        await until_opened(place, 2)
        await onboarding.note(changed(place, "added", "acme/two"))
        await onboarding.note(changed(place, "deleted"))
        clock.later = HOUR_SECONDS + 5
        await onboarding.note(changed(place, "removed", "acme/one"))
        await until_opened(place, 2)


@pytest.mark.slow
async def test_outage_of_one_installation_is_waited_out_and_does_not_hold_up_another(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.forge.add_repository("umbrella", "lab", {"README.md": "# l\n"})
    other = place.forge.install_app(place.registration.app_id, "umbrella/lab")
    assert other != place.installation_id
    clock = Clock(place)
    place.forge.faults.server_error(
        count=1, matches=lambda method, path: (method, path) == ("GET", f"/repos/{REPOSITORY}")
    )
    async with running(place, clock) as onboarding:
        await until_opened(place, 1)
        assert len(place.offers("umbrella/lab")) == 1
        assert "has to wait: GitHub answered 502" in caplog.text
        clock.later = 31
        await onboarding.note(changed(place, "added"))
        await until_opened(place, 2)


@pytest.mark.slow
async def test_refused_repository_does_not_stop_the_others(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.forge.add_repository("acme", "one", {"README.md": "# r\n"})
    place.forge.install_app(place.registration.app_id, "acme/one")
    async with running(place, Clock(place)) as onboarding:
        await onboarding.note(changed(place, "added", "acme/gone", REPOSITORY))
        await until_opened(place, 2)
    assert caplog.text.count("acme/gone could not be offered a configuration: GitHub answered 404") == 1


def redeliver_everything(world: World) -> None:
    """Every delivery so far once more, under its own id and under a new one."""
    app = world.forge.apps[world.app_id]
    for delivery in reversed(world.forge.webhooks.deliveries(app)):
        for guid in (delivery.guid, None):
            world.forge.webhooks.send(app, Event(delivery.event, delivery.action, delivery.body, guid=guid))
    settled(world)


@pytest.mark.slow
def test_running_server_offers_takes_a_no_and_is_asked_again(tmp_path: Path) -> None:
    with onboarding_world(tmp_path) as world:
        world.start()
        first = until_offered(world)["number"]
        close(world, first)
        # Words that command nothing, and a command of somebody who may only read.
        world.comment(first, "What is this?", login="bob")
        world.comment(first, "/postdoc help", login="mallory")
        redeliver_everything(world)
        restart(world)
        assert [each["number"] for each in offers(world)] == [first]

        world.comment(first, "Let us try it.\n\n/postdoc help", login="bob")
        second = until_offered(world, 2)["number"]
        close(world, second)
        redeliver_everything(world)
        assert [each["state"] for each in offers(world)] == ["closed", "closed"]


@pytest.mark.slow
def test_killed_after_every_write_the_server_leaves_one_of_everything(tmp_path: Path) -> None:
    deaths = tmp_path / "deaths"
    with onboarding_world(tmp_path, test_deaths=str(deaths)) as world:
        checks = f"/repos/{REPOSITORY}/commits/postdoc/configure/check-runs"

        def over() -> bool:
            died = world.process is not None and world.process.poll() is not None
            return died or (bool(offers(world)) and world.api("ada", "GET", checks)["total_count"] > 0)

        for _ in range(12):
            world.start()
            world.until(over, "a death, or the end", 60)
            assert world.process is not None
            with contextlib.suppress(subprocess.TimeoutExpired):
                world.process.wait(timeout=3)
            if world.process.poll() is None:
                break  # nothing was left to write
        written = [line.split(" in ")[0] for line in deaths.read_text().splitlines() if line.startswith("write ")]
        assert [line for line in written if REPOSITORY in line or "graphql" in line] == [
            f"write POST /repos/{REPOSITORY}/labels",
            f"write POST /repos/{REPOSITORY}/git/refs",
            "write POST /graphql",
            f"write POST /repos/{REPOSITORY}/pulls",
            f"write POST /repos/{REPOSITORY}/check-runs",
        ]
        assert len(offers(world)) == 1
        assert world.branch_log("postdoc/configure") == ["postdoc[bot]: Configure Postdoc"]
        assert world.api("ada", "GET", checks)["total_count"] == 1
