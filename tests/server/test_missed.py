"""Deliveries that did not come by themselves: swept up when they failed, or read from GitHub altogether."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bot.conversation.github import Refused
from bot.errors import TransientError
from bot.loop.database import open_database
from bot.loop.inbox import Inbox
from bot.practice.world import free_port
from bot.server.deliveries import Pull, Sweep
from bot.server.webhook import Admission
from tests.world import REPOSITORY, practice_world

DAY = 86_400.0


@pytest.mark.slow
def test_whole_goal_is_pursued_without_a_public_address(tmp_path: Path) -> None:
    with practice_world(tmp_path) as world:
        # Nobody listens where GitHub delivers, and the server knows no secret that could sign anything.
        world.forge.set_webhook(world.app_id, f"http://127.0.0.1:{free_port()}/webhook", None)
        world.environment["POSTDOC_PULL"] = "true"
        del world.environment["POSTDOC_WEBHOOK_SECRET"]
        issue = world.open_goal()
        world.start()
        world.wait_ready(60)
        world.until_event(issue, "run_started")
        pull = world.pulls()[0]["number"]
        comment = world.comment(pull, "/postdoc status")
        world.kill()
        world.api("ada", "PATCH", f"/repos/{REPOSITORY}/issues/comments/{comment}", json={"body": "/postdoc help"})
        world.start()
        world.wait_ready(60)
        assert world.until_ended(issue, 60) == "met"
        world.until_event(issue, "command_answered", 2)
        commands = [event["data"]["verb"] for event in world.events(issue) if event["kind"] == "command"]
        # What stood in the comment at the restart may be read before the delivery of what stood there first.
        assert sorted(commands) == ["help", "status"]
        assert len(world.pulls()) == 1
        assert len(set(world.runner.launches())) == len(world.runner.launches())
        rows = world.forge.webhooks.deliveries(world.forge.apps[world.app_id])
        assert rows
        assert not any(row.status_code == 200 or row.redelivery for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("point", ["committed", "acknowledged"])
def test_killed_between_storing_answering_and_handling_acts_once(tmp_path: Path, point: str) -> None:
    with practice_world(tmp_path) as world:
        world.environment["POSTDOC_TEST_DIES"] = point
        world.start()
        world.wait_ready(60)
        issue = world.open_goal()
        assert world.process is not None
        assert world.process.wait(60) == -9
        assert world.forge.settle()
        app = world.forge.apps[world.app_id]
        first = next(row for row in world.forge.webhooks.deliveries(app)[::-1] if row.action == "opened")
        assert (first.status_code == 202) is (point == "acknowledged")
        del world.environment["POSTDOC_TEST_DIES"]
        world.start()
        world.wait_ready(60)
        assert world.until_ended(issue, 60) == "met"
        assert len(world.bot_comments(issue)) == len(world.pulls()) == 1
        assert len(set(world.runner.launches())) == len(world.runner.launches())
        with sqlite3.connect(tmp_path / "data" / "postdoc.sqlite") as database:
            counts = database.execute("SELECT count(*) FROM inbox GROUP BY delivery_id").fetchall()
        assert {count for (count,) in counts} == {1}


class FakeApp:
    """GitHub's list of an App's deliveries: three to a page, newest first."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.bodies: dict[int, Any] = {}
        self.listed = 0
        self.read: list[int] = []
        self.asked: list[int] = []
        self.fails_at: int | None = None

    def add(self, guid: str, *, ago: float = 0.0, status: int = 502, event: str = "issues", **more: Any) -> int:
        number = len(self.rows) + 1
        moment = datetime.fromtimestamp(time.time() - ago, UTC).isoformat().replace("+00:00", "Z")
        row = {"id": number, "guid": guid, "event": event, "action": "opened", "delivered_at": moment}
        self.rows.append(row | {"status_code": status} | more)
        self.bodies[number] = {"action": "opened", "guid": guid}
        return number

    async def deliveries(
        self, *, cursor: str | None = None, status: str | None = None
    ) -> tuple[list[dict[str, Any]], str | None]:
        self.listed += 1
        rows = [row for row in reversed(self.rows) if status is None or row["status_code"] >= 400]
        start = int(cursor or 0)
        return rows[start : start + 3], str(start + 3) if len(rows) > start + 3 else None

    async def delivery(self, number: int) -> dict[str, Any]:
        if number == self.fails_at:
            raise TransientError("GitHub is away")
        self.read.append(number)
        if self.bodies[number] == "forgotten":
            raise Refused(404, "Not Found")
        return {"request": {"payload": self.bodies[number]}}

    async def redeliver(self, number: int) -> None:
        self.asked.append(number)


@pytest.fixture
async def inbox(tmp_path: Path) -> AsyncIterator[Inbox]:
    found = Inbox(open_database(f"sqlite:///{tmp_path / 'inbox.sqlite'}"))
    yield found
    found.close()


def stored(inbox: Inbox) -> list[str]:
    return [delivery.delivery_id for delivery in inbox.unhandled()]


async def test_pull_stores_each_delivery_once_oldest_first(inbox: Inbox) -> None:
    app = FakeApp()
    for number in range(7):
        app.add(f"g{number}", ago=100 - number)
    app.add("g3", ago=5, redelivery=True)
    app.add("star", event="star")
    await inbox.receive("g5", "issues", b'{ "sent": "as other bytes" }')
    pull = Pull(app, inbox, Admission(()))  # type: ignore[arg-type]
    assert await pull.look() == 6
    assert stored(inbox) == ["g5", "g0", "g1", "g2", "g3", "g4", "g6"]
    assert json.loads(inbox.unhandled()[1].body) == {"action": "opened", "guid": "g0"}
    app.listed = 0
    assert await pull.look() == 0
    assert app.listed == 1  # the first page tells that nothing is new
    app.add("late", ago=60)  # listed after one that was delivered later
    assert await pull.look() == 1
    assert await Pull(app, inbox, Admission(())).look() == 0  # type: ignore[arg-type]


async def test_pull_that_is_interrupted_goes_on_where_it_was(inbox: Inbox) -> None:
    app = FakeApp()
    for number in range(6):
        app.add(f"g{number}", ago=100 - number)
    app.fails_at = 4
    with pytest.raises(TransientError):
        await Pull(app, inbox, Admission(())).look()  # type: ignore[arg-type]
    app.fails_at, app.read = None, []
    assert await Pull(app, inbox, Admission(())).look() == 3  # type: ignore[arg-type]
    assert app.read == [4, 5, 6]
    assert stored(inbox) == [f"g{number}" for number in range(6)]


async def test_pull_leaves_out_what_is_old_forgotten_or_not_for_us(inbox: Inbox) -> None:
    app = FakeApp()
    app.add("old", ago=4 * DAY)
    app.bodies[app.add("forgotten", ago=50)] = "forgotten"
    app.bodies[app.add("theirs", ago=40)] = {"repository": {"full_name": "other/x"}}
    app.bodies[app.add("ours", ago=30)] = {"repository": {"full_name": "acme/x"}}
    app.bodies[app.add("empty", ago=20)] = None
    assert await Pull(app, inbox, Admission(("acme",))).look() == 1  # type: ignore[arg-type]
    assert stored(inbox) == ["ours"]


async def test_sweep_asks_once_for_what_failed_and_then_ever_more_seldom(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr("bot.server.deliveries.time.time", lambda: now)
    app = FakeApp()
    await inbox.receive("arrived", "issues", b"{}")
    app.add("too old", ago=4 * DAY)
    for guid in ("older", "arrived", "newer"):
        app.add(guid, ago=2 * DAY)
    app.add("refused", status=401)
    app.add("star", event="star")
    app.add("came", status=202)
    sweep = Sweep(app, inbox)  # type: ignore[arg-type]
    assert await sweep.look() == 2
    assert app.asked == [2, 4]
    pauses = []
    for _ in range(5):
        assert await sweep.look() == 0
        since = now
        while not await sweep.look():
            now += 1
        pauses.append(round(now - since))
    assert pauses == [4, 16, 64, 256, 1024]
    await inbox.receive("older", "issues", b"{}")
    await inbox.receive("newer", "issues", b"{}")
    now += DAY / 2
    assert await sweep.look() == 0


async def test_sweep_reads_on_from_where_it_looked_last(inbox: Inbox) -> None:
    app = FakeApp()
    for number in range(30):
        app.add(f"g{number}", ago=3000 - number * 100)
    sweep = Sweep(app, inbox)  # type: ignore[arg-type]
    assert await sweep.look() == 30
    assert app.listed == 10
    app.listed = 0
    app.add("new")
    assert await sweep.look() == 1
    assert app.listed <= 3
