"""Leases change hands only when their holder is gone, and a journal is written only under the fence of the day."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from bot.domain.experiment import EventKind, NewEvent
from bot.domain.goal import GoalId
from bot.errors import LeaseLost, TransientError
from bot.loop.database import open_database
from bot.loop.journal import Journal
from bot.loop.leases import Lease, Leases

GOAL = GoalId("acme/lab#1")
ROOT = Path(__file__).resolve().parents[2]
Make = Callable[..., Leases]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'leases.sqlite'}"
    return str(request.getfixturevalue("postgres").create(tmp_path.name))


@pytest.fixture
def journal(url: str) -> Iterator[Callable[[], Journal]]:
    """Makes journals, each as another process would have it."""
    made: list[sa.Engine] = []

    def one() -> Journal:
        made.append(open_database(url))
        return Journal(made[-1])

    yield one
    for engine in made:
        engine.dispose()


@pytest.fixture
def make(url: str, tmp_path: Path) -> Iterator[Make]:
    """Makes processes, each with a connection of its own; by default in folders that no other can see."""
    made: list[tuple[Leases, sa.Engine]] = []

    def one(*, seconds: float = 30.0, folder: Path | None = None) -> Leases:
        engine = open_database(url)
        leases = Leases(engine, folder or tmp_path / f"folder-{len(made)}", seconds=seconds)
        made.append((leases, engine))
        leases.start()
        return leases

    yield one
    for leases, engine in made:
        leases.stop()
        engine.dispose()


def lease_of(leases: Leases, name: str) -> Lease:
    found = leases.lease(name)
    assert found is not None
    return found


def event(key: str) -> NewEvent:
    return NewEvent(EventKind.COMMAND, key, {})


def test_lease_is_one_process_s_until_it_is_given_back(make: Make) -> None:
    first, second = make(), make()
    assert first.acquire("inbox")
    assert first.acquire("inbox")
    assert first.holds("inbox")
    assert not second.acquire("inbox")
    assert not second.holds("inbox")
    fence = lease_of(first, "inbox").fence
    first.release("inbox")
    assert not first.holds("inbox")
    assert second.acquire("inbox")
    assert lease_of(second, "inbox").fence > fence


def test_of_many_that_ask_at_once_one_gets_it(make: Make) -> None:
    processes = [make() for _ in range(5)]
    names = [f"goal/acme/lab#{n}" for n in range(40)]
    barrier = threading.Barrier(len(processes))

    def grab(leases: Leases) -> None:
        barrier.wait()
        leases.acquire_free(names)

    threads = [threading.Thread(target=grab, args=(leases,)) for leases in processes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    held = [name for leases in processes for name in leases.held]
    assert sorted(held) == sorted(names)


def test_process_that_ends_gives_everything_back(make: Make) -> None:
    first, second = make(), make()
    first.acquire_free(["a", "b"])
    first.stop()
    assert not first.holds("a")
    assert second.acquire_free(["a", "b"]) == ["a", "b"]
    assert not first.acquire("c")


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_silent_process_loses_everything_after_its_time_and_not_before(make: Make) -> None:
    silent, other = make(seconds=4.0), make()
    assert silent.acquire("a")
    other.look()
    assert not other.acquire("a")
    until(lambda: not silent.holds("a"))  # it knows by its own clock
    with pytest.raises(TransientError, match="others may have taken over"):
        silent.check(lease_of(silent, "a"))
    until(lambda: other.look().freed)  # by the clock of the database
    assert other.acquire("a")
    old = lease_of(silent, "a")
    changes = silent.look()
    assert changes.lost == ["a"]
    with pytest.raises(LeaseLost):
        silent.check(old)
    # It is somebody new now, and may take what is free.
    assert silent.acquire("b")


def test_silent_process_that_nobody_replaced_goes_on(make: Make) -> None:
    leases = make(seconds=2.0)
    leases.acquire("a")
    until(lambda: not leases.holds("a"))
    assert leases.look().lost == []
    assert leases.holds("a")


def test_killed_process_that_shares_the_folder_is_noticed_at_once(make: Make, url: str, tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from bot.loop.database import open_database; from bot.loop.leases import Leases\n"
        "leases = Leases(open_database(sys.argv[1]), Path(sys.argv[2])); leases.start()\n"
        "print(leases.acquire('a'), flush=True); time.sleep(60)\n"
    )
    shared = tmp_path / "shared"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", code, url, str(shared)], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "True\n"
        here, elsewhere = make(folder=shared), make()
        here.look()
        assert not here.acquire("a")
        process.kill()
        process.wait()
    elsewhere.look()
    assert not elsewhere.acquire("a")  # it cannot tell a killed process from a slow one, so it waits
    assert here.look().freed
    assert here.acquire("a")
    assert [path.name for path in shared.iterdir()] == [here.executor]


def test_journal_takes_nothing_from_a_process_that_lost_its_lease(make: Make, journal: Callable[[], Journal]) -> None:
    first, second, one, two = make(), make(), journal(), journal()
    first.acquire("a")
    lease = lease_of(first, "a")
    assert one.append(GOAL, [event("x")], guard=lambda connection: first.fence(connection, lease))
    first.release("a")
    second.acquire("a")
    with pytest.raises(LeaseLost):
        one.append(GOAL, [event("y")], guard=lambda connection: first.fence(connection, lease))
    now = lease_of(second, "a")
    assert two.append(GOAL, [event("z")], guard=lambda connection: second.fence(connection, now))
    assert [found.key for found in one.read(GOAL)] == ["x", "z"]
    assert [found.seq for found in one.read(GOAL)] == [0, 1]


def test_takeover_waits_for_a_journal_write_under_way(make: Make, journal: Callable[[], Journal]) -> None:
    """Whoever takes over reads a journal to which the holder before can add nothing."""
    first, second = make(), make()
    first.acquire("a")
    lease = lease_of(first, "a")
    inside, outcome = threading.Event(), []

    def slowly(connection: sa.Connection) -> None:
        first.fence(connection, lease)
        inside.set()
        time.sleep(0.5)

    def take() -> None:
        inside.wait()
        with second._engine.begin() as connection:
            connection.execute(sa.text("DELETE FROM executors WHERE id = :id"), {"id": first.executor})
        second.acquire("a")
        outcome.append([found.key for found in Journal(second._engine).read(GOAL)])

    thread = threading.Thread(target=take)
    thread.start()
    journal().append(GOAL, [event("x")], guard=slowly)
    thread.join()
    assert outcome == [["x"]]


def test_poke_reaches_the_holder_and_nobody_else(make: Make, journal: Callable[[], Journal]) -> None:
    holder, other = make(), make()
    holder.acquire("a")
    journal().append(GOAL, [event("x")], guard=lambda connection: other.poke(connection, "a"))
    assert not other.look().poked
    assert holder.look().poked == ["a"]
    assert not holder.look().poked


def test_write_is_refused_under_a_lease_that_is_gone(make: Make) -> None:
    leases = make()
    leases.acquire("a")
    lease = lease_of(leases, "a")
    leases.check_write()
    with leases.acting_under(lease):
        leases.check_write()
        leases.release("a")
        with pytest.raises(LeaseLost):
            leases.check_write()
    leases.abandon()
    with pytest.raises(TransientError):
        leases.check_write()


def test_events_of_many_processes_are_numbered_without_gaps_and_none_is_lost(journal: Callable[[], Journal]) -> None:
    journals = [journal() for _ in range(4)]
    failed: list[BaseException] = []

    def write(worker: int) -> None:
        try:
            for n in range(15):
                assert journals[worker].append(GOAL, [event(f"{worker}/{n}"), event(f"shared/{n}")])
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    found = journals[0].read(GOAL)
    assert [each.seq for each in found] == list(range(4 * 15 + 15))
    assert len({each.key for each in found}) == len(found)
    assert list(journals[3].read(GOAL)) == list(found)
