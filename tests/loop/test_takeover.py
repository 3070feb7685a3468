"""Several processes on one database: a goal is turned by one, and goes on when that one is killed, paused or ended."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from bot.loop.database import open_database
from tests.postgres import Postgres
from tests.world import GOOD, World, practice_world

HELD = GOOD | {"train-01": {"curve": "flat", "hold": True}}
Settings = Callable[..., dict[str, str]]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Settings of processes that share one database."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'shared.sqlite'}"
    else:
        server: Postgres = request.getfixturevalue("postgres")
        url = server.create(tmp_path.name)
    return lambda **more: {"POSTDOC_DATABASE_URL": url, **more}


@pytest.fixture
def pair(settings: Settings, tmp_path: Path) -> Iterator[tuple[World, World]]:
    """Two processes started at the same moment on a database that neither has made yet."""
    holds = tmp_path / "holds"
    holds.mkdir()
    chosen = settings(POSTDOC_LEASE_SECONDS="3", POSTDOC_TEST_HOLDS=str(holds))
    with practice_world(tmp_path, processes=2, settings=chosen) as world:
        [peer] = world.peers
        world.start()
        peer.start()
        assert world.wait_ready()
        assert peer.wait_ready()
        yield world, peer


def holder_of(world: World, pair: tuple[World, World], issue: int) -> World | None:
    """The process that turns the goal."""
    [executor] = ask(world, "SELECT holder FROM leases WHERE name LIKE :name", name=f"goal/%#{issue}")
    return next((each for each in pair if each.process and str(executor).startswith(f"{each.process.pid}-")), None)


def ask(world: World, statement: str, **values: object) -> list[object]:
    engine = open_database(world.environment["POSTDOC_DATABASE_URL"])
    try:
        with engine.begin() as connection:
            result = connection.execute(sa.text(statement), values)
            return [row[0] for row in result] if result.returns_rows else []
    finally:
        engine.dispose()


def assert_nothing_twice(world: World, issue: int) -> None:
    launches = world.runner.launches()
    assert len(set(launches)) == len(launches)
    [pull] = world.pulls()
    for number in (issue, pull["number"]):
        keys = [body.splitlines()[0] for body in world.bot_comments(number)]
        assert len(set(keys)) == len(keys)
    assert len(world.branch_log(pull["head"]["ref"])) == 3
    assert len(world.reviews(pull["number"])) == 2
    seqs = [event["seq"] for event in world.events(issue)]
    assert seqs == list(range(len(seqs)))


def test_goal_of_a_killed_process_is_met_by_its_peer(pair: tuple[World, World]) -> None:
    world, _ = pair
    world.runner.script(HELD)
    issue = world.open_goal()
    world.until_job("train-01")
    holder = holder_of(world, pair, issue)
    holder.kill()
    killed_at = time.monotonic()
    world.runner.release("train-01")
    world.until(lambda: any(e["kind"] == "job_ended" and "train-01" in e["key"] for e in world.events(issue)), "an end")
    print(f"taken over after {time.monotonic() - killed_at:.2f} s")
    assert world.until_ended(issue, 60) == "met"
    assert_nothing_twice(world, issue)


@pytest.mark.slow
def test_process_that_was_paused_too_long_writes_nothing_more(pair: tuple[World, World]) -> None:
    """It stops between the effect of an action and its record, and wakes when its peer is at the same point."""
    world, _ = pair
    issue = world.open_goal()
    world.until_event(issue, "run_started")
    holds = Path(world.environment["POSTDOC_TEST_HOLDS"])
    (holds / "review").touch()
    world.until((holds / "review.reached").exists, "the review's effect")
    holder = holder_of(world, pair, issue)
    [survivor] = [each for each in pair if each is not holder]
    assert holder is not None and holder.process is not None and survivor.process is not None
    holder.process.send_signal(signal.SIGSTOP)
    stopped_at = time.monotonic()
    (holds / "review.reached").unlink()
    try:
        survivor.until((holds / "review.reached").exists, "the takeover", 60)
        waited = time.monotonic() - stopped_at
        before = kinds(world, issue)
        (holds / "review").write_text(str(survivor.process.pid))
    finally:
        holder.process.send_signal(signal.SIGCONT)
    print(f"taken over after {waited:.2f} s")
    assert waited > 1.5  # nobody may take a lease that its holder could still be using
    holder.until(lambda: f"goal/acme/speller#{issue} is another process's now" in holder.log(), "the refusal")
    assert kinds(world, issue) == before
    (holds / "review").unlink()
    assert survivor.until_ended(issue, 60) == "met"
    assert_nothing_twice(world, issue)
    # It knows that it lost everything, and is of use again.
    survivor.kill()
    holder.until(lambda: holder_of(world, pair, issue) is holder, "the way back")


@pytest.mark.slow
def test_what_one_process_receives_is_done_by_the_one_that_holds_the_goal(pair: tuple[World, World]) -> None:
    world, _ = pair
    world.runner.script(HELD)
    issue = world.open_goal()
    world.until_job("train-01")
    holder = holder_of(world, pair, issue)
    [reader] = [each for each in pair if each is not holder]
    # The inbox changes hands as it does when its reader has died and come back.
    [executor] = ask(world, "SELECT id FROM executors WHERE id LIKE :pid", pid=f"{reader.process.pid}-%")
    ask(world, "UPDATE leases SET holder = :id, fence = fence + 1 WHERE name = 'inbox'", id=executor)
    time.sleep(2.5)
    pull = world.pulls()[0]["number"]
    world.comment(pull, "/postdoc stop")
    asked_at = time.monotonic()
    assert world.until_ended(issue, 60) == "stopped"
    print(f"stopped after {time.monotonic() - asked_at:.2f} s")
    assert holder_of(world, pair, issue) is holder
    assert ask(world, "SELECT holder FROM leases WHERE name = 'inbox'") == [executor]


@pytest.mark.slow
def test_process_that_ends_in_order_hands_over_at_once(pair: tuple[World, World]) -> None:
    world, _ = pair
    world.runner.script(HELD)
    issue = world.open_goal()
    world.until_job("train-01")
    holder = holder_of(world, pair, issue)
    asked_at = time.monotonic()
    holder.process.send_signal(signal.SIGTERM)
    world.until(lambda: holder_of(world, pair, issue) is not holder, "the handover")
    print(f"handed over after {time.monotonic() - asked_at:.2f} s")
    assert holder.process.wait(timeout=20) == 0
    world.runner.release("train-01")
    assert world.until_ended(issue, 60) == "met"
    assert_nothing_twice(world, issue)


def kinds(world: World, issue: int) -> list[str]:
    rows = ask(world, "SELECT kind FROM journal WHERE goal_id LIKE :goal ORDER BY seq", goal=f"%#{issue}")
    return [str(row) for row in rows]
