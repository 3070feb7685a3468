"""A conversation that has grown too long, told again shortly.

What must not be forgotten (the contract, the constraints, what was tried with what came of it, open questions) is never
summarised: the caller writes it anew from the journal, and it stands word for word at the beginning. The latest
exchanges stay as they are. What lies between is summarised by the model itself; where it cannot be asked any more, a
plain list of what was done takes the summary's place.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from bot.brain.agent.account import Account
from bot.brain.agent.transcript import SUMMARY
from bot.brain.model.errors import ContextFull
from bot.brain.model.talk import Call, Model, Result, Role, Said, Tool

THRESHOLD = 0.75
"""† Share of the context window from which on a conversation is shortened. A reply and its answers must still fit."""
KEPT_SHARE = 0.15
"""† Share of the context window that the latest exchanges may keep."""
_SUMMARY_TOKENS = 4096
_CHARACTERS_PER_TOKEN = 3
_ASK = (
    "Before you go on: this conversation is about to be shortened. The contract, the ledger and the open questions "
    "will be given to you again word for word, so leave them out. Write down, as briefly as you can, what else you "
    "need to go on: what you found out, with numbers and where they came from; what you made and in which files; what "
    "failed and why; what you were about to do. Write only that, and call no tool."
)


def must_shorten(context: int, model: Model) -> bool:
    """Whether the conversation, `context` tokens long, should be shortened before the next turn."""
    return context > THRESHOLD * model.context_tokens


async def summary_of(account: Account, system: str, said: Sequence[Said], tools: Sequence[Tool]) -> str:
    """What the model says of the conversation so far.

    The question is put at the end of the very conversation, so that all of it is read from the cache. Where even that
    is too long the older half is left out, again and again. Raises: Unaffordable; ModelError, ContextFull excepted.
    """
    rest = list(said)
    while len(rest) > 2:
        asked = [*rest[:-1], _with(rest[-1], _ASK)] if rest[-1].role is Role.USER else [*rest, Said(Role.USER, _ASK)]
        try:
            reply = await account.ask(system, asked, tools, most_tokens=_SUMMARY_TOKENS, about=SUMMARY)
        except ContextFull:
            rest = _from_a_user(rest[len(rest) // 2 :])
            continue
        return reply.said.text.strip() or _listed(said)
    return _listed(said)


def shortened(pinned: str, summary: str, said: Sequence[Said], model: Model) -> list[Said]:
    """The new conversation: what is pinned, the summary, and the latest exchanges as they were."""
    told = f"{pinned}\n\n## What has happened so far, in your own words\n\n{summary}"
    kept = _latest(said, int(KEPT_SHARE * model.context_tokens) * _CHARACTERS_PER_TOKEN)
    if not kept:
        return [Said(Role.USER, told)]
    return [Said(Role.USER, told), *kept]


def _with(said: Said, more: str) -> Said:
    return Said(said.role, f"{said.text}\n\n{more}".strip(), results=said.results)


def _latest(said: Sequence[Said], characters: int) -> list[Said]:
    """Whole exchanges from the end, beginning with one of the model's messages; the first message is never among them,
    for it is what `pinned` replaces."""
    kept: list[Said] = []
    found: list[Said] = []
    for one in reversed(said[1:]):
        characters -= len(json.dumps(one.as_dict()))
        if characters < 0:
            break
        kept.insert(0, one)
        if one.role is Role.MODEL:
            found = list(kept)
    return found


def _from_a_user(said: list[Said]) -> list[Said]:
    """Without a beginning that hangs in the air: answers whose calls are gone become words."""
    while said and said[0].role is not Role.USER:
        said = said[1:]
    if said and said[0].results:
        words = "\n".join(result.text for result in said[0].results)
        said = [Said(Role.USER, f"{said[0].text}\n\n{words}".strip()), *said[1:]]
    return said


def _listed(said: Sequence[Said]) -> str:
    """What was done, without a model's help: each call in a line with the beginning of its answer."""
    answers = {result.id: result for one in said for result in one.results}
    lines = [_line(call, answers.get(call.id)) for one in said for call in one.calls]
    return "No summary could be made; these were the calls, the latest last:\n" + "\n".join(lines[-60:])


def _line(call: Call, answer: Result | None) -> str:
    given = " ".join(json.dumps(dict(call.arguments), ensure_ascii=False).split())[:160]
    came = "" if answer is None else (" failed: " if answer.failed else ": ") + " ".join(answer.text.split())[:160]
    return f"- {call.name}({given}){came}"
