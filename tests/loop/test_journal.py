"""The journals keep what they are given, once, in order, through restarts."""

from __future__ import annotations

import threading
from pathlib import Path

from bot.domain.experiment import EventKind, NewEvent
from bot.domain.goal import GoalId
from bot.loop.database import open_database
from bot.loop.journal import Journal

GOAL = GoalId("acme/lab#1")


def event(key: str, **data: object) -> NewEvent:
    return NewEvent(EventKind.COMMAND, key, data)


def open_journal(folder: Path) -> Journal:
    return Journal(open_database(f"sqlite:///{folder / 'journal.sqlite'}"))


def test_same_key_is_kept_once_and_the_first_wins(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    assert len(journal.append(GOAL, [event("a", n=1), event("a", n=2)])) == 1
    assert journal.append(GOAL, [event("a", n=3)]) == []
    assert [found.data for found in journal.read(GOAL)] == [{"n": 1}]


def test_journal_reads_the_same_after_a_restart(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    journal.append(GOAL, [event("a", pair=(1, 2.5)), event("b", text="ümlaut \u2028")])
    assert list(journal.read(GOAL)) == list(open_journal(tmp_path).read(GOAL))
    assert journal.read(GOAL)[0].data == {"pair": [1, 2.5]}


def test_events_from_many_threads_are_numbered_without_gaps(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)

    def write(worker: int) -> None:
        for n in range(20):
            journal.append(GOAL, [event(f"{worker}/{n}")])

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found.seq for found in open_journal(tmp_path).read(GOAL)] == list(range(80))


def test_goals_are_listed_oldest_first(tmp_path: Path) -> None:
    times = iter(range(100))
    journal = Journal(open_database(f"sqlite:///{tmp_path / 'j.sqlite'}"), clock=lambda: float(next(times)))
    for name in ("acme/lab#9", "acme/lab#2", "acme/app#1"):
        journal.append(GoalId(name), [event("opened")])
    assert journal.goals() == ["acme/lab#9", "acme/lab#2", "acme/app#1"]
