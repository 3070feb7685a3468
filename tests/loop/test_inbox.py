"""The inbox keeps what is delivered, once, in order, through restarts."""

from __future__ import annotations

from pathlib import Path

from bot.loop.database import open_database
from bot.loop.inbox import Inbox


def open_inbox(folder: Path) -> Inbox:
    return Inbox(open_database(f"sqlite:///{folder / 'inbox.sqlite'}"))


def test_delivery_is_stored_once_and_handed_on_in_order(tmp_path: Path) -> None:
    inbox = open_inbox(tmp_path)
    assert inbox.receive("d1", "issues", b"one")
    assert not inbox.receive("d1", "issues", b"one")
    assert inbox.receive("d1", "issues", b"another body under the same id")
    assert inbox.receive("d2", "push", b"two")
    first, second, third = inbox.unhandled()
    assert (first.body, third.body) == (b"one", b"two")
    inbox.mark_handled(first.seq)
    assert [d.seq for d in open_inbox(tmp_path).unhandled()] == [second.seq, third.seq]
