"""The loop of a language model at work: ask, carry out what it calls, keep every step, stop where it has to stop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from bot.brain.agent.account import Account, Unaffordable
from bot.brain.agent.circles import Circles, Warned
from bot.brain.agent.compaction import must_shorten, shortened, summary_of
from bot.brain.model.errors import ContextFull, ModelBusy, ModelError
from bot.brain.model.talk import Call, Result, Stop, Tool

MOST_TURNS = 300
MOST_REPLY_TOKENS = 16_384
MOST_NUDGES = 2
"""Times that a model which stops without having finished is asked to go on."""
_CUT = (
    "This reply was cut at its limit, so the call is not carried out: half of it may be missing. Do the same in "
    "smaller pieces."
)
_MALFORMED = "The arguments are no JSON object, so the call was not carried out. Write it again."
_CIRCLING = (
    "You have done the same thing several times with the same outcome. It will not come out otherwise. Do something "
    "that differs in kind, or finish with what you have and say what is missing. If this goes on, the work ends here."
)
_NUDGE = "You stopped without finishing. Go on, or finish: {how}"


class Ended(StrEnum):
    """Why the work is over, or waits."""

    FINISHED = "finished"
    BUDGET = "budget"
    TURNS = "turns"
    CIRCLING = "circling"
    GAVE_UP = "gave up"
    """It stopped without finishing, however often it was asked to go on."""
    REFUSED = "refused"
    """By the model, or by its provider: asking again changes nothing."""
    AWAY = "away"
    """The provider does not answer now."""
    PAUSED = "paused"
    """The sitting is over, the work is not: it goes on where it stands."""


@dataclass(frozen=True, slots=True)
class Work:
    """What came of it."""

    ended: Ended
    why: str
    """A sentence for a person."""
    turns: int
    usd: float
    """Of the whole transcript, earlier sittings included."""
    retry_after_seconds: float | None = None


class Tools(Protocol):
    """What the model may do."""

    @property
    def tools(self) -> Sequence[Tool]: ...

    @property
    def finish(self) -> str:
        """How the work is finished, for a model that forgot: "call `propose` ..."."""
        ...

    async def carry_out(self, call: Call) -> Result:
        """The call's answer, whatever happens: a mistake of the model is a failed result and not an exception. It may
        come again after a kill, so what it does must bear being done twice. What finishes the work says so in
        `finishes`."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    turns: int = MOST_TURNS
    """Of the whole transcript."""
    reply_tokens: int = MOST_REPLY_TOKENS
    sitting: int = MOST_TURNS
    """Turns before whoever asked is given a chance to look at the world."""


class Worker:
    """One piece of work: a task, a model with its transcript and its money, tools."""

    def __init__(
        self, account: Account, system: str, tools: Tools, limits: Limits, *, pinned: Callable[[], str]
    ) -> None:
        """`pinned` writes the task and all that must never be forgotten, as it stands now."""
        self._account = account
        self._transcript = transcript = account.transcript
        self._system = system
        self._tools = tools
        self._limits = limits
        self._pinned = pinned
        self._circles = Circles()
        for call, result in transcript.conversation.actions:
            self._circles.look(call.name, call.arguments, result.text)
        self._nudges = 0
        self._before = transcript.conversation.turns

    async def work(self) -> Work:
        """Until it ends, from wherever the transcript stands."""
        talk = self._transcript.conversation
        await self._account.open()
        if not talk.said:
            self._transcript.say(self._pinned())
        while True:
            try:
                ended = await self._step()
            except Unaffordable as short:
                # A halt ends no thought: whoever asked for this sitting learns of it at the next one.
                return self._over(Ended.PAUSED if short.halted else Ended.BUDGET, str(short))
            except ModelBusy as busy:
                return self._over(Ended.AWAY, str(busy), busy.retry_after_seconds)
            except ModelError as error:
                return self._over(Ended.REFUSED, str(error))
            if ended is not None:
                return ended

    async def _step(self) -> Work | None:
        """Answer what is unanswered, then take one turn."""
        talk = self._transcript.conversation
        if talk.said and talk.said[-1].calls:
            note = await self._answer()
            if done := next((each.finishes for each in talk.results.values() if each.finishes), ""):
                return self._over(Ended.FINISHED, done)
            if note is Warned.STOP:
                return self._over(Ended.CIRCLING, "the same thing was done again and again, after a warning too")
            self._transcript.say(_CIRCLING if note is Warned.WARN else "", list(talk.results.values()))
        elif talk.stop is not None and (over := self._after_words(talk.stop)) is not None:
            return over
        if talk.turns >= self._limits.turns:
            return self._over(Ended.TURNS, f"{self._limits.turns} turns are the limit, and they are used up")
        if talk.turns - self._before >= self._limits.sitting:
            return self._over(Ended.PAUSED, f"{talk.turns} turns so far")
        if must_shorten(talk.context, self._account.model):
            await self._shorten()
        await self._turn()
        return None

    async def _turn(self) -> None:
        said, tools = self._transcript.conversation.said, self._tools.tools
        try:
            await self._account.ask(self._system, said, tools, most_tokens=self._limits.reply_tokens)
        except ContextFull:
            if len(said) < 3:
                raise
            await self._shorten()

    async def _answer(self) -> Warned:
        """Carry out the calls of the latest reply that have no answer yet."""
        talk = self._transcript.conversation
        cut = talk.stop is Stop.LENGTH
        note = Warned.FINE
        for call in talk.unanswered():
            if any(each.finishes for each in talk.results.values()):
                break
            if cut or call.malformed:
                result = Result(call.id, _CUT if cut else _MALFORMED, failed=True)
            else:
                result = await self._tools.carry_out(call)
            self._transcript.result(result)
            note = max(note, self._circles.look(call.name, call.arguments, result.text), key=list(Warned).index)
        return note

    def _after_words(self, stop: Stop) -> Work | None:
        """A reply without calls: what to say to it, or the end."""
        match stop:
            case Stop.REFUSED:
                return self._over(Ended.REFUSED, "the model declined to go on")
            case Stop.LENGTH:
                self._transcript.say("Your reply was cut at its limit. Go on where it ends, in smaller pieces.")
            case Stop.PAUSED | Stop.FULL:
                self._transcript.say("Go on.")
            case _ if self._nudges < MOST_NUDGES:
                self._nudges += 1
                self._transcript.say(_NUDGE.format(how=self._tools.finish))
            case _:
                return self._over(Ended.GAVE_UP, "the model stopped without finishing, although it was asked to go on")
        return None

    async def _shorten(self) -> None:
        """Raises: ModelError, Unaffordable when the summary cannot be had for now; the conversation stays as it is."""
        talk = self._transcript.conversation
        summary = talk.summary or await summary_of(self._account, self._system, talk.said, self._tools.tools)
        self._transcript.compact(shortened(self._pinned(), summary, talk.said, self._account.model))

    def _over(self, ended: Ended, why: str, retry_after_seconds: float | None = None) -> Work:
        talk = self._transcript.conversation
        if ended not in (Ended.AWAY, Ended.PAUSED):
            self._transcript.close(f"{ended}: {why}")
        return Work(ended, why, talk.turns, talk.usd, retry_after_seconds)
