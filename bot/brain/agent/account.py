"""What a conversation costs: set aside before each attempt at a turn, and settled once its price is known.

Every turn of a conversation is asked here, a summary's and an answer's too, so that none is asked for which nothing was
set aside. What was paid stands in the transcript before whoever pays is told of it, under the number of the price.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Protocol

from bot.brain.agent.transcript import Paid, Transcript
from bot.brain.model.errors import ModelError
from bot.brain.model.talk import Model, Reply, Role, Said, Tool, Usage
from bot.errors import PostdocError

_CHARACTERS_PER_TOKEN = 3
"""Fewer than usual (about four of English), so that an estimate errs towards more tokens."""
_UNDER_WAY = "its process ended while it was under way"


class Unaffordable(PostdocError):
    """The next turn is not asked: nothing is set aside for it."""

    def __init__(self, message: str, *, most: float = 0.0, left: float | None = None, halted: bool = False) -> None:
        super().__init__(message)
        self.most = most
        """USD that it may cost."""
        self.left = left
        """USD of the conversation's own limit, where that is what is too low."""
        self.halted = halted
        """All spending is; it may go on once that is lifted."""


class Purse(Protocol):
    """Whoever pays. A price goes by its number in the transcript, from 0 on."""

    async def reserve(self, number: int, usd: float) -> None:
        """Set aside up to `usd` for this price, in place of what is set aside for it. Raises: Unaffordable."""
        ...

    async def left_behind(self, number: int) -> float:
        """USD that a process which is gone set aside, or paid, for a price that the transcript does not have."""
        ...

    async def release(self, number: int) -> None:
        """It cost nothing after all."""
        ...

    async def pay(self, number: int, paid: Paid) -> None:
        """It is known. After a restart every price is told again."""
        ...


class Account:
    """One conversation's."""

    def __init__(self, model: Model, transcript: Transcript, purse: Purse, usd_limit: float) -> None:
        """`usd_limit` is for the whole transcript."""
        self.model = model
        self.transcript = transcript
        self._purse, self._limit = purse, usd_limit

    async def open(self) -> None:
        """Tell every price again, and book what a process that is gone cannot have told: at what was set aside, because
        nobody knows how far its turn came."""
        talk = self.transcript.conversation
        for number, paid in enumerate(talk.paid):
            await self._purse.pay(number, paid)
        while (usd := await self._purse.left_behind(len(talk.paid))) > 0:
            self.transcript.lost(Usage(), usd, _UNDER_WAY)
            await self._tell()

    async def ask(
        self, system: str, said: Sequence[Said], tools: Sequence[Tool] = (), *, most_tokens: int, about: str = ""
    ) -> Reply:
        """The next message of `said`, kept in the transcript.

        Raises: Unaffordable, before anything is asked; ModelError, with what it has cost booked.
        """
        number = len(self.transcript.conversation.paid)
        most = self.model.price.most(self._context(system, said, tools), most_tokens)
        await self._reserve(number, most)

        async def again(wasted: float) -> bool:
            try:
                await self._reserve(number, wasted + most)
            except Unaffordable:
                return False
            return True

        try:
            reply = await self.model.reply(system, said, tools, most_tokens=most_tokens, again=again)
        except ModelError as error:
            if error.usd > 0:
                self.transcript.lost(error.wasted, error.usd, str(error))
                await self._tell()
            else:
                await self._purse.release(number)
            raise
        self.transcript.reply(reply, about=about)
        await self._tell()
        return reply

    async def _reserve(self, number: int, usd: float) -> None:
        left = max(0.0, self._limit - self.transcript.conversation.usd)
        if usd > left:
            words = f"the next turn may cost {usd:.2f} USD, and {left:.2f} USD are left for it"
            raise Unaffordable(words, most=usd, left=left)
        await self._purse.reserve(number, usd)

    async def _tell(self) -> None:
        paid = self.transcript.conversation.paid
        await self._purse.pay(len(paid) - 1, paid[-1])

    def _context(self, system: str, said: Sequence[Said], tools: Sequence[Tool]) -> int:
        """Tokens that the turn finds in its context: as they were counted up to the latest reply, and estimated."""
        known = self.transcript.conversation.context
        if not known:
            schemas = [[tool.name, tool.description, dict(tool.schema)] for tool in tools]
            return _tokens(system) + _tokens(json.dumps(schemas)) + sum(map(_weight, said))
        last = max((at for at, one in enumerate(said) if one.role is Role.MODEL), default=-1)
        return known + sum(map(_weight, said[last + 1 :]))


def _weight(said: Said) -> int:
    calls = (json.dumps(dict(call.arguments)) for call in said.calls)
    return sum(map(_tokens, (said.text, *(result.text for result in said.results), *calls)))


def _tokens(text: str) -> int:
    return len(text) // _CHARACTERS_PER_TOKEN + 1
