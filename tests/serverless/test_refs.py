"""Files on refs of our own: of two writers one wins and the other is told, and nothing is lost on the way."""

from __future__ import annotations

import pytest

from bot.conversation.github import RefMoved, Refused
from bot.errors import TransientError
from tests.serverless.conftest import REPOSITORY, Place


def moves(method: str, path: str) -> bool:
    return "/git/refs" in path and method in ("POST", "PATCH")


async def test_files_add_up_and_the_ref_only_moves_forward(place: Place) -> None:
    refs = place.refs()
    first = await refs.advance("7", None, {"journal.jsonl": b"one\n", "scripts/a": "ä\n".encode()}, "first")
    second = await refs.advance("7", first, {"journal.jsonl": b"two\n"}, "second")
    assert place.at("7") == second == await refs.standing("7")
    assert await refs.all() == {"7": second}
    assert await refs.file("journal.jsonl", second) == b"two\n"
    assert await refs.file("scripts/a", second) == "ä\n".encode()
    git = place.forge.repository(REPOSITORY).git
    assert git.commit(second).parents == (first,)
    assert git.commit(second).author.name == "github-actions[bot]"


async def test_of_two_writers_the_second_is_told_and_writes_nothing(place: Place) -> None:
    one, other = place.refs(), place.refs()
    first = await one.advance("7", None, {"f": b"1"}, "first")
    winner = await other.advance("7", first, {"f": b"2"}, "winner")
    with pytest.raises(RefMoved):
        await one.advance("7", first, {"f": b"3"}, "loser")
    with pytest.raises(RefMoved):
        await place.refs().advance("7", None, {"f": b"4"}, "thinks that it is the first")
    assert place.at("7") == winner
    assert other.made("7", winner)
    assert not one.made("7", winner)


async def test_move_whose_answer_was_lost_counts_as_made(place: Place) -> None:
    refs = place.refs()
    place.forge.faults.drop_connection(matches=moves, performed=True)
    sha = await refs.advance("7", None, {"f": b"1"}, "first")
    place.forge.faults.drop_connection(matches=moves, performed=True)
    assert place.at("7") == sha
    assert await refs.advance("7", sha, {"f": b"2"}, "second") == place.at("7")


async def test_move_that_never_arrived_is_an_outage(place: Place) -> None:
    refs = place.refs()
    place.forge.faults.drop_connection(matches=moves)
    with pytest.raises(TransientError):
        await refs.advance("7", None, {"f": b"1"}, "first")
    assert place.at("7") is None


async def test_deleted_ref_is_made_again_with_its_history(place: Place) -> None:
    refs = place.refs()
    first = await refs.advance("7", None, {"f": b"1"}, "first")
    place.move("7", None)
    second = await refs.advance("7", first, {"f": b"2"}, "second")
    assert place.at("7") == second
    assert place.forge.repository(REPOSITORY).git.commit(second).parents == (first,)


async def test_token_without_contents_write_is_refused_as_such(place: Place) -> None:
    weak = place.forge.workflow_token(REPOSITORY, {"issues": "write", "contents": "read"}).token
    with pytest.raises(Refused, match="not accessible by integration"):
        await Place(place.forge, place.url, weak, place.opened).refs().advance("7", None, {"f": b"1"}, "first")


async def test_refs_of_ours_set_off_no_push_and_more_than_a_page_of_them_is_listed(place: Place) -> None:
    registered = place.forge.register_app(
        slug="listener", permissions={"contents": "read"}, events=["push"], webhook_url="http://127.0.0.1:9/"
    )
    place.forge.install_app(registered.app_id, REPOSITORY)
    refs = place.refs()
    sha = await refs.advance("1", None, {"f": b"1"}, "first")
    for number in range(2, 40):
        place.move(str(number), sha)
    assert len(await refs.all()) == 39
    assert place.forge.settle()
    heard = place.forge.webhooks.deliveries(place.forge.apps[registered.app_id])
    assert {each.event for each in heard} == {"installation"}
