"""One process at a time: taken, rung, given back, taken over from the dead, and lost cleanly."""

from __future__ import annotations

import asyncio
import time

import pytest

from bot.errors import LeaseLost, TransientError
from bot.serverless.lock import FILE, NAME, Lock, Standing
from tests.serverless.conftest import Place


def lock(place: Place, run: str, seconds: float = 30.0) -> Lock:
    refs = place.refs()
    return Lock(refs, run, seconds=seconds, now=time.time)


async def until_rung(holder: Lock) -> None:
    for _ in range(400):
        if await holder.rung():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("nobody rang")


async def test_lock_is_taken_by_one_and_free_again_once_given_back(place: Place) -> None:
    one, other = lock(place, "run 1"), lock(place, "run 2")
    assert await one.acquire(5) == ""
    one.check()
    assert await one.release()
    assert await other.acquire(5) == ""
    with pytest.raises(TransientError):
        one.check()
    assert other.died_at is None


async def test_of_many_at_once_one_gets_it_and_the_others_leave_when_they_are_heard(place: Place) -> None:
    locks = [lock(place, f"run {n}") for n in range(5)]

    async def attend(each: Lock) -> str:
        other = await each.acquire(20)
        if other:
            return other
        for _ in range(200):
            if rung := await each.rung():
                await each.answer(rung)
            if each.standing.heard == 4:
                return ""
            await asyncio.sleep(0.05)
        raise AssertionError("nobody rang")

    answers = await asyncio.gather(*map(attend, locks))
    assert answers.count("") == 1
    winner = locks[answers.index("")]
    assert {answer for answer in answers if answer} == {winner._run}
    assert await winner.release()


async def test_ring_keeps_the_lock_from_being_given_back_until_it_is_answered(place: Place) -> None:
    one, other = lock(place, "run 1"), lock(place, "run 2")
    await one.acquire(5)
    waiting = asyncio.create_task(other.acquire(20))
    await until_rung(one)
    assert not await one.release()
    assert not waiting.done()
    await one.answer(await one.rung())
    assert await waiting == "run 1"
    assert await one.release()


async def test_killed_holder_is_replaced_once_its_time_is_over(place: Place) -> None:
    dead = lock(place, "run 1", seconds=2)
    await dead.acquire(5)
    heir = lock(place, "run 2", seconds=2)
    started = time.monotonic()
    assert await heir.acquire(30) == ""
    assert time.monotonic() - started > 1
    assert heir.died_at == pytest.approx(time.time(), abs=3)
    with pytest.raises(TransientError):
        dead.check()  # it stopped writing before the other could have it
    with pytest.raises(LeaseLost, match="run 2"):
        await dead.renew()
    with pytest.raises(LeaseLost):
        dead.check()


async def test_run_that_is_run_again_waits_for_nobody(place: Place) -> None:
    first = lock(place, "run 1")
    await first.acquire(5)
    again = lock(place, "run 1")
    assert await again.acquire(5) == ""
    with pytest.raises(LeaseLost):
        await first.renew()
    again.check()


async def test_renewing_goes_on_past_rings_and_a_deleted_ref(place: Place) -> None:
    one, other = lock(place, "run 1"), lock(place, "run 2")
    await one.acquire(5)
    waiting = asyncio.create_task(other.acquire(20))
    await asyncio.sleep(0.3)
    await one.renew()
    place.move(NAME, None)
    await one.renew()
    one.check()
    assert place.at(NAME) is not None
    waiting.cancel()


@pytest.mark.parametrize(
    "content",
    [b"", b"nonsense", b"[]", b'{"holder": 7, "until": "never"}', b'{"until": 1e400}',
     b'{"holder": "mallory", "until": 9999999999}'],
)  # fmt: skip
async def test_what_no_process_writes_holds_nothing(place: Place, content: bytes) -> None:
    await place.refs().advance(NAME, None, {FILE: content}, "by hand")
    mine = lock(place, "run 1")
    assert await mine.acquire(2) == ""
    mine.check()


def test_standing_that_cannot_be_read_is_nobodys() -> None:
    assert Standing.read(None) == Standing.read(b"\xff") == Standing.read(b"[" * 100_000) == Standing()
