"""The tools that the model works with: Python in the sandbox, the experiment's files, a proposal, a question.

Nothing here trains, spends or reaches a branch: `propose` and `ask_human` are handed in, and everything else ends in a
folder of the bot. Each answer is capped, free of secrets, and quoted where somebody else wrote it.

After a kill the loop carries out again what had no answer yet. What bears that is done again: code in the sandbox by
its number (a session that is still alive gives the answer that it has), a read, a write, an edit by what the file was
to become. Of what does not, the model is told that nobody knows whether it took effect.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bot.brain.agent.functions import Kind, Parameter, checked_arguments, schema_of
from bot.brain.agent.quoting import MOST_CHARACTERS, head_and_tail, quoted
from bot.brain.agent.scratch import MOST_BYTES, Scratch, digest_of_file
from bot.brain.model.talk import Call, Result, Tool
from bot.errors import PlatformError, TransientError, UserError

_LOG = logging.getLogger(__name__)
MOST_SECONDS = 600
DEFAULT_SECONDS = 120
MOST_CODE = 60_000
MOST_QUESTION = 2000
"""Characters."""
_UNKNOWN = (
    "Postdoc was restarted while it carried this call out, and whether it took effect is unknown. Look at how things "
    "stand before you do it again."
)


class Verdict(Protocol):
    """What became of a proposal or a question."""

    @property
    def text(self) -> str:
        """For the model: why it was refused and what to do instead, or what follows."""
        ...

    @property
    def accepted(self) -> bool:
        """It ends the work."""
        ...

    @property
    def taken(self) -> str:
        """What the work ends with, where it does."""
        ...


Propose = Callable[[Mapping[str, Any]], Awaitable[Verdict]]
"""Raises: UserError for what the model has to mend, TransientError, PlatformError. It may come again after a kill, with
the same arguments."""


class Python(Protocol):
    """A lasting session in a sandbox."""

    @property
    def about(self) -> str:
        """For the tool's description: what can be imported, which functions there are."""
        ...

    async def run(self, number: int, code: str, seconds: float) -> tuple[str, bool]:
        """What came of it, capped and quoted, and whether it failed. The same number is run once in one session."""
        ...

    async def leave(self) -> None:
        """Let the session be, for the same work to go on with."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Offer:
    about: str
    parameters: Mapping[str, Parameter]
    work: Callable[..., Awaitable[Result]]


class Desk:
    """`Tools` of one piece of work."""

    def __init__(
        self,
        folder: Path,
        *,
        number: Callable[[], int],
        python: Python | None,
        scratch: Scratch,
        propose: Propose | None = None,
        proposal: Tool | None = None,
        ask_human: Propose | None = None,
        proposes_again: bool = True,
        clean: Callable[[str], str] = str,
        why_no_python: str = "",
    ) -> None:
        """`folder` keeps what was begun. `number` is how many calls have been answered so far
        (`len(transcript.conversation.actions)`): a provider's own ids may repeat. `proposal` names and describes
        `propose` with its schema; `proposes_again` says whether it bears being done twice. `ask_human` is called with
        `{"question": ...}`. `clean` takes secrets out. `why_no_python` is told where there is no sandbox."""
        self._number = number
        self._python = python
        self._scratch = scratch
        self._propose = propose
        self._proposal = proposal
        self._ask = ask_human
        self._proposes_again = proposes_again
        self._clean = clean
        self._begun = Begun(folder / "begun.jsonl")
        self._why_no_python = why_no_python
        self._offers = self._all_offers()

    @property
    def tools(self) -> Sequence[Tool]:
        own = [Tool(name, offer.about, schema_of(offer.parameters)) for name, offer in self._offers.items()]
        return [*own, self._proposal] if self._proposal is not None and self._propose is not None else own

    @property
    def finish(self) -> str:
        ways = [self._proposal.name] if self._proposal is not None else []
        ways += ["ask_human"] if self._ask is not None else []
        return f"call {' or '.join(f'`{way}`' for way in ways)}." if ways else "say what you found."

    @property
    def missing(self) -> str:
        """What is not offered here and why, for the system prompt and for a person; empty where nothing is missing."""
        if self._python is not None:
            return ""
        return f"There is no Python tool here, because {self._why_no_python or 'this machine has no sandbox'}."

    async def leave(self) -> None:
        """Until the same work goes on, in a desk made anew; sessions stay for some minutes."""
        if self._python is not None:
            await self._python.leave()

    async def close(self) -> None:
        """The work is over: nothing of it is left running."""
        if self._python is not None:
            await self._python.close()

    async def carry_out(self, call: Call) -> Result:
        try:
            result = await self._carried_out(call)
        except UserError as error:
            result = Result(call.id, str(error), failed=True)
        except TransientError as error:
            wait = f" Try again in {error.retry_after_seconds:.0f} s." if error.retry_after_seconds else ""
            result = Result(call.id, f"Not now: {error}.{wait}", failed=True)
        except PlatformError as error:
            result = Result(call.id, f"This machine failed: {error}", failed=True)
        except Exception:  # a bug of ours: the model goes on without this call, and we read the log
            _LOG.exception("a call of %s failed", call.name)
            result = Result(call.id, "Postdoc itself failed at this call; it is logged. Go another way.", failed=True)
        text = self._clean(result.text)
        return Result(call.id, head_and_tail(text, 2 * MOST_CHARACTERS), result.failed, self._clean(result.finishes))

    async def _carried_out(self, call: Call) -> Result:
        if self._proposal is not None and call.name == self._proposal.name and self._propose is not None:
            whole = with_drafts(call.arguments, self._scratch)
            return await self._once(call, self._propose, whole, again=self._proposes_again)
        offer = self._offers.get(call.name)
        if offer is None:
            known = ", ".join(tool.name for tool in self.tools)
            more = f" {self.missing}" if call.name == "python" else ""
            raise UserError(f"There is no tool {call.name[:60]!r}. There are {known}.{more}")
        arguments = checked_arguments(call.name, offer.parameters, call.arguments)
        return await offer.work(call, **arguments)

    # --- the tools

    def _all_offers(self) -> dict[str, _Offer]:
        path = Parameter(Kind.TEXT, f"One of {', '.join(self._scratch.writable)}.", characters=200)
        readable = Parameter(Kind.TEXT, f"One of {', '.join(self._scratch.paths) or 'none yet'}.", characters=200)
        offers = {
            "read_file": _Offer(
                "Read a file of the experiment's folder, with line numbers. `first` and `lines` take a part of it.",
                {"path": readable, "first": Parameter(Kind.WHOLE, default=1, least=1, most=1e6),
                 "lines": Parameter(Kind.WHOLE, default=400, least=1, most=2000)},
                self._read,
            ),
            "write_file": _Offer(
                "Write a file of the experiment's folder whole. It stays a draft until a proposal is accepted.",
                {"path": path, "content": Parameter(Kind.TEXT, characters=MOST_BYTES)},
                self._write,
            ),
            "edit_file": _Offer(
                "Replace one place of a file: `old` has to stand in it exactly once, blanks included.",
                {"path": path, "old": Parameter(Kind.TEXT, characters=MOST_CODE),
                 "new": Parameter(Kind.TEXT, characters=MOST_CODE)},
                self._edit,
            ),
        }  # fmt: skip
        if self._python is not None:
            seconds = Parameter(Kind.WHOLE, "Time limit.", DEFAULT_SECONDS, 1, MOST_SECONDS)
            offers["python"] = _Offer(
                f"Run Python in a sandbox without network. {self._python.about}",
                {"code": Parameter(Kind.TEXT, characters=MOST_CODE), "seconds": seconds},
                self._run,
            )
        if self._ask is not None:
            offers["ask_human"] = _Offer(
                "Ask the people of this goal one question, where only they can decide. The work ends with it and goes "
                "on when they have answered.",
                {"question": Parameter(Kind.TEXT, characters=MOST_QUESTION)},
                self._ask_human,
            )
        return offers

    async def _run(self, call: Call, code: str, seconds: int) -> Result:
        assert self._python is not None
        text, failed = await self._python.run(self._number(), code, seconds)
        return Result(call.id, text, failed)

    async def _read(self, call: Call, path: str, first: int, lines: int) -> Result:
        held = self._scratch.read(path).splitlines()
        part = held[first - 1 : first - 1 + lines]
        shown = "\n".join(f"{number:>5}  {line}" for number, line in enumerate(part, first))
        more = f" (lines {first} to {first + len(part) - 1} of {len(held)})" if len(part) < len(held) else ""
        shown = head_and_tail(shown, rest="read less at once, with `first` and `lines`")
        return Result(call.id, quoted(shown, f"{path} of the experiment{more}"))

    async def _write(self, call: Call, path: str, content: str) -> Result:
        self._scratch.write(path, content)
        return Result(call.id, f"{path} is written, {len(content.splitlines())} lines. {self._drafts()}")

    async def _edit(self, call: Call, path: str, old: str, new: str) -> Result:
        number = self._number()
        wanted = self._begun.of(number).get("becomes")
        if wanted is None or wanted != self._scratch.digest(path):
            text = self._scratch.edited(path, old, new)
            # Written down first: after a kill the file says by its digest whether this was done.
            self._begun.begin(number, {"becomes": digest_of_file(text.encode())})
            self._scratch.write(path, text)
        return Result(call.id, f"{path} is changed at that one place. {self._drafts()}")

    async def _ask_human(self, call: Call, question: str) -> Result:
        assert self._ask is not None
        return await self._once(call, self._ask, {"question": question}, again=False)

    async def _once(self, call: Call, do: Propose, arguments: Mapping[str, Any], *, again: bool) -> Result:
        number = self._number()
        if not again and self._begun.of(number):
            return Result(call.id, _UNKNOWN, failed=True)
        self._begun.begin(number, {"tool": call.name})
        verdict = await do(arguments)
        return Result(
            call.id, verdict.text, failed=not verdict.accepted, finishes=verdict.taken if verdict.accepted else ""
        )

    def _drafts(self) -> str:
        changed = ", ".join(sorted(self._scratch.changes()))
        return f"Drafts that differ from the branch: {changed or 'none'}."


def with_drafts(arguments: Mapping[str, Any], scratch: Scratch) -> dict[str, Any]:
    """A proposal whose `files` name a path alone means that path's draft: its content is put in."""
    files, drafts = arguments.get("files"), scratch.changes()
    if not isinstance(files, list):
        return dict(arguments)
    whole = [
        {"path": each["path"], "content": drafts[each["path"]].decode("utf-8", errors="replace")}
        if isinstance(each, Mapping) and set(each) == {"path"} and str(each["path"]) in drafts
        else each
        for each in files
    ]
    return {**arguments, "files": whole}


class Begun:
    """Which calls were begun, by their number, kept before anything follows from them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[int, Mapping[str, Any]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            content = path.read_bytes()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                with path.open("r+b") as file:
                    file.truncate(whole)
            for line in content[:whole].splitlines():
                entry = json.loads(line)
                self._known[entry.pop("number")] = entry

    def of(self, number: int) -> Mapping[str, Any]:
        """What was kept of it; empty where it was never begun."""
        return self._known.get(number, {})

    def begin(self, number: int, what: Mapping[str, Any]) -> None:
        self._known[number] = dict(what)
        with self._path.open("ab") as file:
            file.write(json.dumps({"number": number, **what}).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
