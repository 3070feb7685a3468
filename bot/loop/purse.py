"""What the language model costs, under every ceiling: the goal's, its repository's for the month, and the halt.

A turn is reserved in the treasury under the key of the event that will tell its price, and settled there at once. The
journal learns of it when the action ends, so what a process leaves behind that is killed in between is found by its
key: no price is told twice, and none is forgotten.
"""

from __future__ import annotations

import asyncio

from bot.brain.agent.account import Unaffordable
from bot.brain.agent.transcript import Paid
from bot.conversation.policy import Policy
from bot.domain.budget import month_of
from bot.domain.experiment import EventKind, Experiment, NewEvent
from bot.loop.treasury import Treasury

JUDGING = "llm/judge/"
"""Keys of what a judge costs begin so; its own action goes on with them, whatever happened to its process."""
_LEFT_BEHIND = "a turn whose process ended before its price was noted"


class GoalPurse:
    """Pays for one conversation of a goal, which `name` tells from the others: `thought/2/`."""

    def __init__(self, treasury: Treasury, x: Experiment, name: str, *, of: str, model: str) -> None:
        """`of` ends what each price is said to be for: "a turn of thought 2"."""
        self._treasury, self._x, self._name, self._of, self._model = treasury, x, name, of, model
        self._events: dict[int, NewEvent] = {}

    @property
    def events(self) -> list[NewEvent]:
        """Every price so far, for the journal."""
        return list(self._events.values())

    async def reserve(self, number: int, usd: float) -> None:
        ceiling = Policy.from_dict(self._x.policy).month.usd
        refused = await asyncio.to_thread(self._treasury.reserve_turn, self._key(number), self._x, usd, ceiling)
        if refused is not None:
            raise Unaffordable(refused.reason, most=usd, halted=refused.halted)

    async def left_behind(self, number: int) -> float:
        kept = await asyncio.to_thread(self._treasury.turns, self._x.goal_id)
        found = kept.get(self._key(number))
        return found[0] if found is not None and self._key(number) not in self._x.llm_paid else 0.0

    async def release(self, number: int) -> None:
        await asyncio.to_thread(self._treasury.release, self._treasury.turn_id(self._x.goal_id, self._key(number)))

    async def pay(self, number: int, paid: Paid) -> None:
        key, month = self._key(number), month_of(paid.at)
        await asyncio.to_thread(self._treasury.settle_turn, key, self._x, paid.usd, month)
        self._events[number] = spent(key, paid.usd, f"{paid.what} of {self._of}", self._model, month)

    def _key(self, number: int) -> str:
        return f"llm/{self._name}{number}"


async def left_behind(treasury: Treasury, x: Experiment, besides: str = "") -> list[NewEvent]:
    """Prices that the journal does not have of conversations that went with their process, at what was set aside.

    `besides` names the conversation whose own purse looks after it.
    """
    found = []
    for key, (usd, month) in (await asyncio.to_thread(treasury.turns, x.goal_id)).items():
        ours = key.rpartition("/")[0] == f"llm/{besides}".rstrip("/")
        if key in x.llm_paid or key.startswith(JUDGING) or ours:
            continue
        await asyncio.to_thread(treasury.settle_turn, key, x, usd, month)
        found.append(spent(key, usd, _LEFT_BEHIND, "", month))
    return found


def spent(key: str, usd: float, what: str, model: str, month: str) -> NewEvent:
    """The event that tells a price."""
    return NewEvent(EventKind.LLM_SPENT, key, {"usd": usd, "what": what, "model": model, "month": month})
