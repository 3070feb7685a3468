"""Deliveries in any order, any number of times, under any id: what happened is in the journal once."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from bot.conversation.events import Occurrence
from bot.errors import TransientError
from bot.server import reader
from tests.server.conftest import (
    ADA,
    BOB,
    US,
    Door,
    closed,
    commented,
    edited,
    issue,
    opened,
    payload,
    pull,
    pushed,
    reopened,
    stamp,
)  # fmt: skip

OPENED = ("issues", opened())
STICKY = {"id": 50, "user": US, "updated_at": stamp(40), "body": "x\n- [x] Stop <!-- postdoc:box stop -->"}


async def send(door: Door, *deliveries: tuple[str, Any]) -> None:
    for event, body in deliveries:
        await door.send(event, body)
    await door.settled()


async def test_comment_that_arrives_before_its_issue_opens_the_goal_under_the_same_key(door: Door) -> None:
    door.github.labelled[1] = (2, "bob", "User")
    await send(door, ("issue_comment", commented("/postdoc status")), ("issues", opened()), ("issues", opened()))
    first, second = door.journal()
    assert (first.key, first.data["author"], first.data["author_id"]) == ("opened", "bob", 2)  # whoever labelled it
    assert (second.kind, second.data["verb"]) == ("command", "status")


async def test_edit_or_label_that_arrives_before_the_issue_opens_the_goal(door: Door) -> None:
    labelled = payload("labeled", issue=issue(2), label={"name": "postdoc"}, sender=BOB)
    await send(door, ("issues", edited("old", "new", at=9)), ("issues", labelled), OPENED, ("issues", opened(2)))
    assert [event.data["body"] for event in door.journal()] == ["new"]
    assert [event.data["author"] for event in door.journal("acme/speller#2")] == ["bob"]


@pytest.mark.parametrize(
    "more", [{"labels": []}, {"state": "closed"}, {"pull_request": {"url": "x"}}], ids=["no label", "closed", "pull"]
)
async def test_comment_opens_no_goal_that_its_issue_is_not(door: Door, more: dict[str, Any]) -> None:
    await send(door, ("issue_comment", commented("/postdoc run") | {"issue": issue(**more)}))
    assert "goal_opened" not in door.kinds()


async def test_edits_in_any_order_end_with_the_latest_text(door: Door) -> None:
    edits = [edited("its text", "j", at=10), edited("j", "k", at=20), edited("k", "l", at=30)]
    for number, order in enumerate(itertools.permutations(edits), start=1):
        moved = [("issues", each | {"issue": each["issue"] | {"number": number}}) for each in order]
        await send(door, ("issues", opened(number)), *moved, *moved)
        bodies = [event.data["body"] for event in door.journal(f"acme/speller#{number}")]
        assert bodies[-1] == "l", order
        assert bodies == sorted(set(bodies)), order  # nothing older after something newer, nothing twice


async def test_two_edits_of_one_second_follow_each_other_by_their_texts(door: Door) -> None:
    first, second = edited("its text", "B", at=10), edited("B", "C", at=10)
    await send(door, OPENED, ("issues", first), ("issues", second))
    assert [event.data["body"] for event in door.journal()] == ["its text", "B", "C"]
    second, first = ({**each, "issue": {**each["issue"], "number": 2}} for each in (second, first))
    await send(door, ("issues", opened(2)), ("issues", second), ("issues", first))
    assert [event.data["body"] for event in door.journal("acme/speller#2")] == ["its text", "C"]


async def test_everything_told_twice_under_two_ids_happened_once(door: Door) -> None:
    tick = payload("edited", issue=issue(2, pull_request={}), comment=STICKY, changes={"body": {"from": "x"}})
    told = [
        OPENED,
        ("issues", edited("its text", "B", at=5)),
        ("pull_request", payload("opened", sender=US, pull_request=pull())),
        ("issue_comment", commented("/postdoc status\n\n/postdoc status\n\n/postdoc help", number=2, pull=True)),
        ("issue_comment", tick),
        ("pull_request", pushed("a" * 40, "c" * 40, at=50)),
        ("pull_request", closed(at=60)),
        ("pull_request", reopened(at=70)),
    ]
    await send(door, *told)
    once = door.kinds()
    assert once == [
        "goal_opened", "goal_edited", *["command"] * 4, "head_moved", "pull_request_closed", "pull_request_reopened",
    ]  # fmt: skip
    await send(door, *told, *reversed(told))
    assert door.kinds() == once


async def test_edited_comment_runs_only_what_is_new_whatever_arrives_first(door: Door) -> None:
    one, two = "/postdoc status", "A word\n\n/postdoc status\n\n/postdoc help"
    edit = commented(two) | {"action": "edited", "changes": {"body": {"from": one}}}
    await send(door, OPENED, ("issue_comment", edit), ("issue_comment", commented(one)), ("issue_comment", edit))
    assert sorted(event.data["verb"] for event in door.journal()[1:]) == ["help", "status"]


async def test_pull_request_is_known_by_its_branch_before_its_journal_tells(door: Door) -> None:
    await send(door, OPENED, ("pull_request", closed(at=10)))
    assert door.kinds() == ["goal_opened", "pull_request_closed"]
    assert door.github.asked == []


@pytest.mark.parametrize(
    "theirs",
    [{"user": ADA}, {"home": "mallory/speller"}, {"ref": "postdoc/x"}, {"ref": "postdoc/01-x"}, {"ref": "1-reverse"}],
    ids=["a person's", "a fork's", "no issue", "odd number", "no prefix"],
)
async def test_branch_that_is_not_ours_names_no_goal(door: Door, theirs: dict[str, Any]) -> None:
    await send(door, OPENED, ("pull_request", closed(at=10, **theirs)))
    assert door.kinds() == ["goal_opened"]


async def test_pull_request_of_no_known_goal_is_about_nothing(door: Door) -> None:
    await send(door, ("pull_request", closed(at=10)))
    assert door.journal() == []


async def test_command_on_an_unknown_pull_request_asks_whose_branch_it_is_once(door: Door) -> None:
    door.github.pulls = {2: pull(2), 3: pull(3, user=ADA)}
    said = [commented("/postdoc status", number=n, comment_id=n, pull=True) for n in (2, 3, 3, 4)]
    talk = commented("just talk", number=5, pull=True)
    await send(door, OPENED)
    await send(door, *[("issue_comment", each) for each in (*said, talk)])
    assert door.kinds() == ["goal_opened", "command"]
    assert sorted(door.github.asked) == ["pull 2", "pull 3", "pull 4"]


async def test_closing_and_reopening_follow_their_moments(door: Door) -> None:
    seen = ("pull_request", payload("opened", sender=US, pull_request=pull()))
    await send(door, OPENED, seen, ("pull_request", reopened(at=20)), ("pull_request", closed(at=10)))
    assert door.kinds()[1:] == ["pull_request_reopened"]  # the close is older than what is known: it stands open
    await send(door, ("pull_request", closed(at=30)), ("pull_request", reopened(at=20)))
    assert door.kinds()[1:] == ["pull_request_reopened", "pull_request_closed"]
    await send(door, ("pull_request", closed(at=40, merged=True)), ("pull_request", reopened(at=50)))
    assert door.kinds()[3:] == ["pull_request_closed"]  # merged is merged


async def test_pushes_follow_their_moments_and_a_branch_may_come_back(door: Door) -> None:
    a, b, c = ("abc"[i] * 40 for i in range(3))
    await send(door, OPENED, ("pull_request", pushed(b, c, at=20)), ("pull_request", pushed(a, b, at=10)))
    await send(door, ("pull_request", pushed(c, b, at=20)))  # in the same second, after it
    await send(door, ("pull_request", pushed(b, c, at=30)), ("pull_request", pushed(b, c, at=30)))
    assert [event.data["head_sha"][0] for event in door.journal()[1:]] == ["c", "b", "c"]


# Lanes


Acts = Callable[[Occurrence], Any]


def interfere(door: Door, monkeypatch: pytest.MonkeyPatch, before: Acts) -> None:
    act = door.bot.reader._handlers.act

    async def interfered(event: Occurrence) -> str | None:
        await before(event)
        return await act(event)

    monkeypatch.setattr(door.bot.reader._handlers, "act", interfered)


@pytest.mark.parametrize("error", [TransientError("GitHub is away"), sa.exc.OperationalError("x", {}, Exception())])
async def test_goal_that_meets_an_outage_holds_nobody_up_and_loses_nothing(
    door: Door, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(reader, "FIRST_RETRY_SECONDS", 0.05)
    away = True

    async def outage(event: Occurrence) -> None:
        if away and getattr(event, "number", 0) == 1:
            raise error

    interfere(door, monkeypatch, outage)
    for text in range(reader.MOST_IN_HAND + 50):  # more than is held in memory
        await door.send("issues", edited(str(text - 1), str(text), at=text))
    await door.send("issues", opened(2))
    await door.send("issue_comment", commented("/postdoc help", number=2))
    await door.settled(but=reader.MOST_IN_HAND + 50)
    assert door.kinds("acme/speller#2") == ["goal_opened", "command"]
    assert door.journal() == []
    assert len(door.bot.reader._in_hand) <= reader.MOST_IN_HAND
    away = False
    await door.settled()
    assert [int(event.data["body"]) for event in door.journal()] == list(range(reader.MOST_IN_HAND + 50))


async def test_slow_delivery_holds_up_its_own_goal_only(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    done, go_on = defaultdict[int, list[str]](list), asyncio.Event()

    async def slow(event: Any) -> None:
        if event.number == 1:
            await go_on.wait()
        done[event.number].append(event.where.delivery_id)

    interfere(door, monkeypatch, slow)
    for number in (1, 2, 1, 2, 1, 2):
        await door.send("issue_comment", commented("talk", number=number, comment_id=number))
    await door.settled(but=3)
    assert done == {2: ["guid-1", "guid-3", "guid-5"]}
    go_on.set()
    await door.settled()
    assert done[1] == ["guid-0", "guid-2", "guid-4"]


async def test_delivery_that_breaks_the_handler_is_put_aside_and_the_next_is_handled(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def bug(event: Any) -> None:
        if isinstance(event.body if hasattr(event, "body") else None, str) and event.body == "boom":
            raise RuntimeError("a bug")

    interfere(door, monkeypatch, bug)
    await send(door, OPENED, ("issue_comment", commented("boom")), ("issue_comment", commented("/postdoc help")))
    assert door.kinds() == ["goal_opened", "command"]


async def test_what_another_process_stored_is_found(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "LOOK_AGAIN_SECONDS", 0.1)
    monkeypatch.setattr(door.bot.arrived, "set", lambda: None)
    await send(door, *numbered(3))
    assert [door.kinds(f"acme/speller#{n}") for n in (1, 2, 3)] == [["goal_opened"]] * 3


def numbered(count: int) -> Sequence[tuple[str, Any]]:
    return [("issues", opened(number)) for number in range(1, count + 1)]
