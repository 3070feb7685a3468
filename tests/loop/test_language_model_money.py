"""Money of the language model: set aside under every ceiling before a turn is asked, and never told twice or lost."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bot.brain.agent.account import Account, Purse, Unaffordable
from bot.brain.agent.transcript import Paid, Transcript
from bot.brain.model import patience
from bot.brain.model.errors import ModelBusy
from bot.brain.model.patience import Attempt, patiently
from bot.brain.model.prices import Price
from bot.brain.model.talk import Again, Reply, Role, Said, Stop, Tool, Usage
from bot.conversation.policy import Month, Policy
from bot.domain.experiment import Event, EventKind, Experiment
from bot.domain.fold import experiment_of, tell
from bot.domain.goal import GoalId
from bot.loop.database import open_database
from bot.loop.purse import GoalPurse, left_behind
from bot.loop.treasury import SERVER, Refusal, Treasury

PRICE = Price(1.0, 10.0, 0.1, 1.25)
NOVEMBER, DECEMBER = 1_795_000_000.0, 1_796_500_000.0
USED = Usage(1000, 100)
TURN = PRICE.of(USED)
NAME = "thought/1/"


class Death(BaseException):
    """`kill -9`: nothing that would handle an error hears of it."""


class Dying:
    """Passes calls on, and dies at the point with the number `at`, counted over all that go through it."""

    def __init__(self, at: int | None = None) -> None:
        self.at, self.seen = at, 0

    def point(self) -> None:
        self.seen += 1
        if self.at is not None and self.seen > self.at:
            self.at = None
            raise Death


class Mind:
    """A model that answers each turn with a number, and breaks off as often as it is told to before one."""

    name, context_tokens, price = "test:mind", 100_000, PRICE

    def __init__(self, dying: Dying | None = None, breaks: Sequence[int] = ()) -> None:
        self.dying, self.breaks, self.asked = dying or Dying(), list(breaks), 0

    async def reply(
        self, system: str, said: Sequence[Said], tools: Sequence[Tool] = (), *, most_tokens: int = 8192,
        again: Again | None = None,
    ) -> Reply:  # fmt: skip
        left = self.breaks.pop(0) if self.breaks else 0

        async def once(attempt: Attempt) -> Reply:
            nonlocal left
            self.asked += 1
            attempt.usage = USED
            self.dying.point()
            if left:
                left -= 1
                raise ModelBusy("broke off")
            return Reply(Said(Role.MODEL, f"{self.asked}"), Stop.END, USED, 0.0, self.name)

        return await patiently(once, PRICE, again)

    async def close(self) -> None:
        pass


class Mortal:
    """A purse whose process may end before and after each thing that it does."""

    def __init__(self, purse: GoalPurse, dying: Dying) -> None:
        self._purse, self._dying = purse, dying

    async def _at(self, act: Callable[..., Awaitable[Any]], *given: Any) -> Any:
        self._dying.point()
        done = await act(*given)
        self._dying.point()
        return done

    async def reserve(self, number: int, usd: float) -> None:
        await self._at(self._purse.reserve, number, usd)

    async def left_behind(self, number: int) -> float:
        return float(await self._at(self._purse.left_behind, number))

    async def release(self, number: int) -> None:
        await self._at(self._purse.release, number)

    async def pay(self, number: int, paid: Paid) -> None:
        await self._at(self._purse.pay, number, paid)


class Clock:
    now = NOVEMBER

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(seconds: float) -> None:
        pass

    monkeypatch.setattr(patience, "pause", at_once)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def treasury(tmp_path: Path, clock: Clock) -> Treasury:
    return Treasury(open_database(f"sqlite:///{tmp_path / 't.sqlite'}"), clock=clock)


def goal(number: int = 1, month: float = 10.0) -> Experiment:
    x = Experiment(GoalId(f"acme/lab#{number}"), owner="acme", repository="lab", issue=number)
    x.policy = replace(Policy(), month=Month(usd=month)).as_dict()
    return x


def purse_of(treasury: Treasury, x: Experiment, name: str = NAME) -> GoalPurse:
    return GoalPurse(treasury, x, name, of="thought 1", model="test:mind")


def account(mind: Mind, folder: Path, purse: Purse, clock: Clock, limit: float = 10.0) -> Account:
    return Account(mind, Transcript(folder / "talk.jsonl", clock=clock), purse, limit)


async def turn(conversation: Account) -> None:
    if not conversation.transcript.conversation.said:
        conversation.transcript.say("Think.")
    await conversation.ask("", conversation.transcript.conversation.said, most_tokens=1000)


MOST = PRICE.most(4, 1000)
"""USD of a first turn, at the least."""


async def test_a_turn_is_set_aside_while_it_is_asked_and_settled_at_its_price(
    treasury: Treasury, tmp_path: Path, clock: Clock
) -> None:
    seen: list[float] = []

    class Looking(Dying):
        def point(self) -> None:
            seen.append(treasury.month_spend("acme/lab").usd)

    x = goal()
    purse = purse_of(treasury, x)
    await turn(account(Mind(Looking()), tmp_path, purse, clock))
    assert seen[0] >= MOST > TURN
    assert treasury.month_spend("acme/lab").usd == pytest.approx(TURN)
    assert [event.data["usd"] for event in purse.events] == [pytest.approx(TURN)]
    assert treasury.running("acme/lab") == 0  # no job


@pytest.mark.parametrize("why", ["month", "halt", "server", "goal"])
async def test_what_no_ceiling_leaves_room_for_is_not_asked(
    treasury: Treasury, tmp_path: Path, clock: Clock, why: str
) -> None:
    x = goal(month=0.001 if why == "month" else 10.0)
    if why in ("halt", "server"):
        treasury.halt("acme/lab" if why == "halt" else SERVER, "ada")
    mind = Mind()
    with pytest.raises(Unaffordable) as found:
        await turn(account(mind, tmp_path, purse_of(treasury, x), clock, 0.001 if why == "goal" else 10.0))
    assert not mind.asked and treasury.months() == {}
    assert found.value.halted == (why in ("halt", "server"))
    words = {"month": "ceiling for 2026-11 of 0.00 USD leaves 0.00; `month`", "goal": "USD are left for it"}
    assert words.get(why, "halted by @ada") in str(found.value)


async def test_a_model_that_costs_nothing_is_halted_too(treasury: Treasury) -> None:
    assert treasury.reserve_turn("llm/thought/1/0", goal(), 0.0, 0.0) is None
    treasury.halt("acme/lab", "ada")
    assert isinstance(treasury.reserve_turn("llm/thought/1/0", goal(), 0.0, 0.0), Refusal)


@pytest.mark.parametrize(("limit", "month", "asked"), [(10.0, 10.0, 3), (MOST + 1.5 * TURN, 10.0, 2),
                                                       (10.0, MOST + 1.5 * TURN, 2)])  # fmt: skip
async def test_an_attempt_that_broke_off_is_made_again_only_where_that_is_covered_too(
    treasury: Treasury, tmp_path: Path, clock: Clock, limit: float, month: float, asked: int
) -> None:
    mind = Mind(breaks=[2])
    conversation = account(mind, tmp_path, purse_of(treasury, goal(month=month)), clock, limit)
    if asked == 3:
        await turn(conversation)
    else:
        with pytest.raises(ModelBusy):
            await turn(conversation)
    assert mind.asked == asked
    spent = treasury.month_spend("acme/lab").usd
    assert spent == pytest.approx(asked * TURN) and spent <= min(limit, month)


def test_goals_that_think_at_the_same_moment_never_share_the_same_room(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 't.sqlite'}"
    treasuries = [Treasury(open_database(url), clock=Clock()) for _ in range(8)]
    granted: list[bool] = []

    def ask(number: int) -> None:
        granted.append(treasuries[number].reserve_turn("llm/thought/1/0", goal(number), 3.0, 10.0) is None)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(granted) == [False] * 5 + [True] * 3
    assert treasuries[0].month_spend("acme/lab").usd == pytest.approx(9.0)


async def test_killed_anywhere_every_price_is_counted_once(tmp_path: Path, clock: Clock) -> None:
    """Three turns, one of which breaks off; the process dies once, at each point of it in turn. What the treasury, the
    transcript and the journal have is the same, and no less than the provider was asked for."""
    for at in itertools.count():
        folder = tmp_path / str(at)
        treasury = Treasury(open_database(f"sqlite:///{folder / 't.sqlite'}"), clock=clock)
        x, dying, asked = goal(), Dying(at), 0
        alive = False
        while not alive:
            mind, purse = Mind(dying, breaks=[0, 1]), purse_of(treasury, x)
            conversation = account(mind, folder, Mortal(purse, dying), clock)
            talk = conversation.transcript.conversation
            with contextlib.suppress(Death):
                await conversation.open()
                while talk.turns < 3:
                    await turn(conversation)
                alive = True
            asked += mind.asked
        assert talk.turns == 3
        booked = sum(event.data["usd"] for event in purse.events)
        assert booked == pytest.approx(talk.usd) == pytest.approx(treasury.month_spend("acme/lab").usd)
        assert booked >= asked * TURN - 1e-9
        tell(x, purse.events, NOVEMBER)
        assert await left_behind(treasury, x) == []
        empty = Treasury(open_database("sqlite://"), clock=clock)
        empty.restore(x)
        assert empty.months() == treasury.months()
        treasury.restore(x)
        assert empty.months() == treasury.months()
        if dying.at is not None:
            break  # it was never reached
    assert at >= 20


async def test_what_went_with_another_machine_is_booked_at_what_was_set_aside(
    treasury: Treasury, tmp_path: Path, clock: Clock
) -> None:
    x, dying = goal(), Dying(1)
    mind = Mind(dying)
    conversation = account(mind, tmp_path / "gone", purse_of(treasury, x), clock)
    await turn(conversation)
    with pytest.raises(Death):
        await turn(conversation)
    held = treasury.month_spend("acme/lab").usd
    # Another conversation of the goal finds both turns, and its own name is looked after by its own purse.
    assert await left_behind(treasury, x, besides=NAME) == []
    events = await left_behind(treasury, x, besides="ask/7/")
    assert [event.key for event in events] == ["llm/thought/1/0", "llm/thought/1/1"]
    assert (
        sum(event.data["usd"] for event in events)
        == pytest.approx(held)
        == pytest.approx(treasury.month_spend("acme/lab").usd)
    )
    tell(x, events, NOVEMBER)
    assert await left_behind(treasury, x) == []
    # The same conversation begun anew goes on after their numbers.
    anew, purse = Mind(), purse_of(treasury, goal())
    conversation = account(anew, tmp_path / "new", purse, clock)
    await conversation.open()
    await turn(conversation)
    assert [event.key for event in purse.events] == [f"llm/thought/1/{n}" for n in range(3)]
    assert treasury.month_spend("acme/lab").usd == pytest.approx(held + TURN)


async def test_a_turn_counts_in_the_month_in_which_it_was_paid(
    treasury: Treasury, tmp_path: Path, clock: Clock
) -> None:
    x, purse = goal(), purse_of(treasury, goal())
    conversation = account(Mind(), tmp_path, purse, clock)
    await turn(conversation)
    clock.now = DECEMBER
    await conversation.open()  # told again by the next process, a month later
    await turn(conversation)
    months = {month: spend.usd for (_, month), spend in treasury.months().items()}
    assert months == {"2026-11": pytest.approx(TURN), "2026-12": pytest.approx(TURN)}
    tell(x, purse.events, DECEMBER)
    assert {price.month for price in x.llm_paid.values()} == {"2026-11", "2026-12"}


def test_journals_from_before_the_month_was_said_count_by_their_moment(treasury: Treasury) -> None:
    opened = {"owner": "acme", "repository": "lab", "issue": 1, "title": "", "body": "", "author": "ada",
              "author_id": 1, "installation_id": 1}  # fmt: skip
    journal = [
        Event(0, EventKind.GOAL_OPENED, "opened", NOVEMBER, opened),
        Event(1, EventKind.LLM_SPENT, "llm/ask/3/0", DECEMBER, {"usd": 2.0, "what": "an answer", "model": "m"}),
    ]
    x = experiment_of(GoalId("acme/lab#1"), journal)
    assert not x.unreadable
    treasury.restore(x)
    assert treasury.month_spend("acme/lab", "2026-12").usd == 2.0
    treasury.restore(x)
    assert treasury.month_spend("acme/lab", "2026-12").usd == 2.0
