"""The inbox keeps what is delivered, once, in order, through restarts, and answers only after the commit."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from bot.errors import TransientError
from bot.loop import inbox as module
from bot.loop.database import open_database
from bot.loop.inbox import Inbox, InboxFull


@contextmanager
def open_inbox(folder: Path, **options: Any) -> Iterator[Inbox]:
    engine = open_database(f"sqlite:///{folder / 'inbox.sqlite'}")
    inbox = Inbox(engine, **options)
    try:
        yield inbox
    finally:
        inbox.close()
        engine.dispose()


async def test_delivery_is_stored_once_and_handed_on_in_order(tmp_path: Path) -> None:
    with open_inbox(tmp_path) as inbox:
        assert await inbox.receive("d1", "issues", b"one")
        assert not await inbox.receive("d1", "issues", b"one")
        assert await inbox.receive("d1", "issues", b"another body under the same id")
        assert await inbox.receive("d2", "push", b"two")
        first, second, third = inbox.unhandled()
        assert (first.body, third.body) == (b"one", b"two")
        await inbox.mark_handled([(first.seq, None)])
        assert inbox.known(["d1", "d2", "d3"]) == {"d1", "d2"}
    with open_inbox(tmp_path) as inbox:
        assert [d.seq for d in inbox.unhandled()] == [second.seq, third.seq]
        assert [d.seq for d in inbox.unhandled(after=second.seq)] == [third.seq]
        assert inbox.backlog()[0] == 2


async def test_many_at_once_share_transactions_and_keep_their_order(tmp_path: Path) -> None:
    with open_inbox(tmp_path) as inbox:
        commits = 0

        def count(_: object) -> None:
            nonlocal commits
            commits += 1

        sa.event.listen(inbox._engine, "commit", count)
        ids = [f"d{i % 300}" for i in range(400)]  # every fourth one a second time
        stored = await asyncio.gather(*(inbox.receive(each, "issues", each.encode()) for each in ids))
        assert sum(stored) == 300
        assert [d.delivery_id for d in inbox.unhandled(limit=1000)] == ids[:300]
        assert commits <= 10


async def test_nobody_is_told_before_the_commit(tmp_path: Path) -> None:
    with open_inbox(tmp_path) as inbox:
        may_commit = threading.Event()
        sa.event.listen(inbox._engine, "commit", lambda _: may_commit.wait(20))
        waiting = asyncio.create_task(inbox.receive("d1", "issues", b"{}"))
        done, _ = await asyncio.wait([waiting], timeout=0.1)
        assert not done
        assert inbox.unhandled() == []
        may_commit.set()
        assert await waiting
        assert len(inbox.unhandled()) == 1


async def test_database_that_does_not_answer_is_an_error_and_stores_nothing(tmp_path: Path) -> None:
    with open_inbox(tmp_path) as inbox:

        def fail(*_: object) -> None:
            raise sa.exc.OperationalError("COMMIT", {}, Exception("disk I/O error"))

        sa.event.listen(inbox._engine, "commit", fail)
        with pytest.raises(TransientError):
            await inbox.receive("d1", "issues", b"{}")
        sa.event.remove(inbox._engine, "commit", fail)
        assert inbox.unhandled() == []
        assert await inbox.receive("d1", "issues", b"{}")


async def test_a_flood_is_turned_away_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 5)
    monkeypatch.setattr(module, "MOST_WAITING_BYTES", 1000)
    with open_inbox(tmp_path) as inbox:
        may_commit = threading.Event()
        sa.event.listen(inbox._engine, "commit", lambda _: may_commit.wait(20))
        first = asyncio.create_task(inbox.receive("first", "issues", b"{}"))
        await asyncio.sleep(0.1)  # the writer has taken it and waits for the disk
        waiting = [asyncio.create_task(inbox.receive(f"d{i}", "issues", b"{}")) for i in range(8)]
        await asyncio.sleep(0)
        with pytest.raises(InboxFull):
            await inbox.receive("large", "issues", b"x" * 2000)
        may_commit.set()
        told = await asyncio.gather(first, *waiting, return_exceptions=True)
        assert sum(each is True for each in told) == 6
        assert sum(isinstance(each, InboxFull) for each in told) == 3
        assert await inbox.receive("later", "issues", b"{}")


async def test_closing_writes_what_waits(tmp_path: Path) -> None:
    with open_inbox(tmp_path) as inbox:
        waiting = [asyncio.create_task(inbox.receive(f"d{i}", "issues", b"{}")) for i in range(30)]
        await asyncio.sleep(0)
        await asyncio.to_thread(inbox.close)
        assert all(await asyncio.gather(*waiting))
        with pytest.raises(InboxFull):
            await inbox.receive("late", "issues", b"{}")


async def test_a_page_is_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE_BYTES", 250)
    with open_inbox(tmp_path) as inbox:
        for i in range(5):
            await inbox.receive(f"d{i}", "issues", b"x" * 100)
        await inbox.receive("large", "issues", b"x" * 1000)
        sizes, after = [], 0
        while page := inbox.unhandled(after=after):
            sizes.append(len(page))
            after = page[-1].seq
        assert sizes == [2, 2, 1, 1]


async def test_handled_deliveries_are_forgotten_after_the_replay_window(tmp_path: Path) -> None:
    now = 1_000_000.0
    with open_inbox(tmp_path, clock=lambda: now) as inbox:
        for i in range(450):
            await inbox.receive(f"d{i}", "issues", b"{}")
        seqs = [d.seq for d in inbox.unhandled(limit=450)]
        await inbox.mark_handled([(seq, None) for seq in seqs[1:]])
        now += 8 * 86_400 - 1
        assert inbox.prune() == 0
        now += 2
        assert inbox.prune() == 449
        assert [d.seq for d in inbox.unhandled()] == seqs[:1]  # what nobody has acted on is never forgotten


async def test_marks_are_kept(tmp_path: Path) -> None:
    with open_inbox(tmp_path) as inbox:
        assert inbox.mark("pulled") is None
        inbox.set_mark("pulled", "1")
        inbox.set_mark("pulled", "2")
    with open_inbox(tmp_path) as inbox:
        assert inbox.mark("pulled") == "2"
