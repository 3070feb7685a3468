"""A conversation on the disk: one JSON object a line, each written whole before anything follows from it.

A reply is on the disk before its calls are carried out and before its price is told to anybody, so that after `kill -9`
nothing that was paid and received is asked for again. The one turn that a kill can lose is the one under way.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from bot.brain.model.talk import Call, Reply, Result, Role, Said, Stop, Usage

SAID, REPLY, RESULT, COMPACTED, LOST, CLOSED = "said", "reply", "result", "compacted", "lost", "closed"
SUMMARY = "a summary"
"""What a reply is about that a compaction asked for."""


class Paid(NamedTuple):
    """One price."""

    usd: float
    what: str
    """What it was for."""
    at: float
    """Unix seconds."""


@dataclass
class Conversation:
    """What the lines add up to."""

    said: list[Said] = field(default_factory=list)
    """As it is sent next: since the last compaction, its text first."""
    turns: int = 0
    """Replies so far, compactions' own included."""
    usage: Usage = field(default_factory=Usage)
    usd: float = 0.0
    paid: list[Paid] = field(default_factory=list)
    """Each price, in the order in which they became known."""
    summary: str = ""
    """Asked for by a compaction that has not been made yet."""
    context: int = 0
    """Tokens that the latest reply found in its context, itself included."""
    results: dict[str, Result] = field(default_factory=dict)
    """Of the latest reply's calls, by id, as far as they have been carried out."""
    actions: list[tuple[Call, Result]] = field(default_factory=list)
    """Every call with its answer, from the beginning on."""
    stop: Stop | None = None
    """Of the latest reply, while nothing was said after it."""
    closed: str = ""
    """Why it is over; empty while it is not."""

    def unanswered(self) -> list[Call]:
        """Calls of the latest reply that have not been carried out."""
        if not self.said or self.said[-1].role is not Role.MODEL:
            return []
        return [call for call in self.said[-1].calls if call.id not in self.results]


class Transcript:
    """One file, which one process writes at a time."""

    def __init__(
        self, path: Path, *, clean: Callable[[Any], Any] = lambda value: value, clock: Callable[[], float] = time.time
    ) -> None:
        """`clean` takes secrets out of whatever is written; what was cleaned is also what is sent from then on."""
        self.path = path
        self._clean = clean
        self._clock = clock
        path.parent.mkdir(parents=True, exist_ok=True)
        self.conversation = Conversation()
        for line in self._whole_lines():
            _take(self.conversation, line)

    # --- writing

    def say(self, text: str, results: Sequence[Result] = ()) -> None:
        """Postdoc's next message."""
        self._write({"kind": SAID, **Said(Role.USER, text, results=tuple(results)).as_dict()})

    def reply(self, reply: Reply, *, about: str = "") -> None:
        """The model's. `about` names a turn that is no part of the conversation: a summary for a compaction."""
        self._write(
            {"kind": REPLY, **reply.said.as_dict(), "stop": str(reply.stop), "usage": reply.usage.as_dict(),
             "wasted": reply.wasted.as_dict(), "usd": reply.usd, "model": reply.model,
             "request_id": reply.request_id, "attempts": reply.attempts, "about": about}
        )  # fmt: skip

    def result(self, result: Result) -> None:
        """A call has been carried out; all of them together become Postdoc's next message."""
        self._write({"kind": RESULT, "id": result.id, "text": result.text, "failed": result.failed,
                     "finishes": result.finishes})  # fmt: skip

    def compact(self, said: Sequence[Said]) -> None:
        """From here on the conversation is this."""
        self._write({"kind": COMPACTED, "said": [one.as_dict() for one in said]})

    def lost(self, usage: Usage, usd: float, why: str) -> None:
        """A turn that was paid and never arrived."""
        self._write({"kind": LOST, "usage": usage.as_dict(), "usd": usd, "why": why})

    def close(self, why: str) -> None:
        self._write({"kind": CLOSED, "why": why})

    def lines(self) -> Iterator[Mapping[str, Any]]:
        """Everything, as it was written, each with its moment `at` (Unix seconds)."""
        yield from self._whole_lines()

    def _write(self, entry: dict[str, Any]) -> None:
        entry = {"at": round(self._clock(), 3)} | self._cleaned(entry)
        with self.path.open("ab") as file:
            file.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        _take(self.conversation, entry)

    def _cleaned(self, entry: dict[str, Any]) -> dict[str, Any]:
        cleaned: dict[str, Any] = self._clean(entry)
        if cleaned != entry:
            cleaned.pop("native", None)  # its signature was another text's; the message is rebuilt from its parts
        return cleaned

    def _whole_lines(self) -> Iterator[dict[str, Any]]:
        """A line that a kill cut off is cut away, so that the next one does not grow onto it."""
        if not self.path.exists():
            return
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with self.path.open("r+b") as file:
                file.truncate(whole)
        for line in content[:whole].splitlines():
            yield json.loads(line)


def _take(talk: Conversation, entry: Mapping[str, Any]) -> None:
    match entry["kind"]:
        case "said":
            _say(talk, Said.from_dict(entry))
        case "reply":
            usage, wasted = Usage.from_dict(entry["usage"]), Usage.from_dict(entry["wasted"])
            talk.turns += 1
            talk.usage = talk.usage + usage + wasted
            _pay(talk, entry, entry.get("about") or "a turn")
            if entry.get("about"):
                talk.summary = entry.get("text", "")
            else:
                talk.context, talk.stop, talk.results = usage.context, Stop(entry["stop"]), {}
                talk.said.append(Said.from_dict(entry))
        case "result":
            result = Result(entry["id"], entry["text"], entry["failed"], entry["finishes"])
            talk.results[result.id] = result
            calls = {call.id: call for call in talk.said[-1].calls}
            talk.actions.append((calls[result.id], result))
        case "compacted":
            talk.said = [Said.from_dict(one) for one in entry["said"]]
            talk.results, talk.stop, talk.context, talk.summary = {}, None, 0, ""
        case "lost":
            talk.usage += Usage.from_dict(entry["usage"])
            _pay(talk, entry, "a turn that broke off")
        case "closed":
            talk.closed = entry["why"]


def _pay(talk: Conversation, entry: Mapping[str, Any], what: str) -> None:
    talk.usd += entry["usd"]
    talk.paid.append(Paid(entry["usd"], what, entry["at"]))


def _say(talk: Conversation, said: Said) -> None:
    """Two messages of one side after the other are one: providers take turns literally."""
    talk.stop, talk.closed = None, ""
    if talk.said and talk.said[-1].role is Role.USER:
        before = talk.said.pop()
        text = "\n\n".join(part for part in (before.text, said.text) if part)
        said = Said(Role.USER, text, results=(*before.results, *said.results))
    talk.said.append(said)
    talk.results = {}
