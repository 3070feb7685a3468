"""The tool `python`: a lasting session in a sandbox, begun anew where it has died, with its output capped."""

from __future__ import annotations

import asyncio
import re
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from bot.brain.agent.broker import Asked, Broker
from bot.brain.agent.functions import Registry, signature
from bot.brain.agent.quoting import MOST_CHARACTERS, ends, head_and_tail, quoted
from bot.errors import PlatformError, TransientError, UserError

_START_SECONDS = 60.0
_BACK_SECONDS = 15.0
"""For a session that lives to come back to the socket."""
_LOOK_SECONDS = 0.5
_INTERRUPT_SECONDS = 5.0
"""After its time is up, code may end by the interrupt that it gets; then the session is ended."""
_READ_BYTES = 64 << 10
"""Of the beginning and of the end of an output."""
_DOOR = re.compile(r"door-(\d+)")


class Walls(Protocol):
    """What starts and ends a session (`runners.sessions.walls`). Every call may block."""

    @property
    def problem(self) -> str: ...

    def begin(self, name: str, door: Path, functions: Mapping[str, Any], mounts: Mapping[str, Path]) -> None: ...

    def alive(self, name: str) -> bool: ...

    def remove(self, name: str) -> None: ...

    def why_ended(self, name: str) -> str: ...

    def log(self, name: str) -> str: ...

    def ends(self, name: str, path: str, head_bytes: int, tail_bytes: int) -> tuple[bytes, bytes, int]: ...


class SandboxedPython:
    """`bot.brain.agent.desk.Python` over walls and a broker."""

    def __init__(
        self,
        name: str,
        folder: Path,
        walls: Walls,
        functions: Registry,
        *,
        mounts: Mapping[str, Path] | None = None,
        clean: Callable[[Any], Any] = lambda value: value,
    ) -> None:
        """`name` is the piece of work's on this machine, as a job's; `folder` is the bot's own for it. The folders of
        `mounts` can be read under /mounts."""
        self._name = name
        self._folder = folder
        self._walls = walls
        self._functions = functions
        self._mounts = dict(mounts or {})
        self._clean = clean
        self._broker: Broker | None = None
        self._generation = 0
        self._lost = ""
        """Why the latest session is no more; told with the next answer."""

    @property
    def about(self) -> str:
        """What a tool's description says of it."""
        listed = "\n".join(f"- {signature(name, f.parameters)}: {f.about}" for name, f in self._functions.items())
        rooms = ", ".join(sorted({name.partition(".")[0] for name in self._functions}))
        calls = f" `from postdoc import {rooms}` gives these, carried out outside:\n{listed}\n" if rooms else ""
        seen = ", ".join(f"/mounts/{name}" for name in self._mounts)
        return (
            f"Variables and files stay from call to call.{calls} "
            + (f"Readable, not writable: {seen}. " if seen else "")
            + "What it prints, and the value of its last line, comes back; more than "
            f"{MOST_CHARACTERS:,} characters are cut in the middle, and all of them stay in outputs/NUMBER.txt."
        )

    async def run(self, number: int, code: str, seconds: float) -> tuple[str, bool]:
        """Raises: PlatformError, TransientError when no session can be had."""
        note = await self._ready()
        broker = self._broker
        assert broker is not None
        output = f"outputs/{number:04d}.txt"
        started = time.monotonic()
        try:
            ended, fine = await self._ended(broker, number, code, output, seconds)
        finally:
            asked = broker.finish()
        taken = time.monotonic() - started
        shown = await self._output(output)
        if self._lost:
            shown += self._clean(await asyncio.to_thread(self._walls.log, self._session))
            await self._end()
        words = [note] if note else []
        words.append(f"{ended} ({taken:.1f} s)." + _told(asked) + ("" if shown else " There is no output."))
        return "\n".join([*words, *([quoted(shown, _source(asked))] if shown else [])]), not fine

    async def leave(self) -> None:
        """Let the session be, for somebody with the same name and folder to go on with; it waits some minutes."""
        if self._broker is not None:
            await self._broker.close()
            self._broker = None
        self._generation = 0

    async def close(self) -> None:
        """End the session; a later `run` begins another."""
        self._generation = self._generation or _latest(self._folder)
        if self._generation:
            await self._end()

    # --- one piece

    async def _ended(self, broker: Broker, number: int, code: str, output: str, seconds: float) -> tuple[str, bool]:
        """How it ended in words, and whether well. `_lost` says so where the session is to be ended."""
        deadline = time.monotonic() + seconds
        ended = broker.begin(number, code, output)
        interrupted = False
        while True:
            done, _ = await asyncio.wait([ended], timeout=_LOOK_SECONDS)
            if done and not broker.why_spoilt:
                return _said(ended.result(), seconds, interrupted)
            now = time.monotonic()
            if broker.why_spoilt:
                self._lost = broker.why_spoilt
            elif not await asyncio.to_thread(self._walls.alive, self._session):
                self._lost = await asyncio.to_thread(self._walls.why_ended, self._session)
            elif now > deadline + _INTERRUPT_SECONDS:
                self._lost = f"its code went on after {seconds:g} s and did not listen to an interrupt"
            elif now > deadline and not interrupted:
                broker.interrupt(number)
                interrupted = True
            if self._lost:
                return f"The session was ended: {self._clean(self._lost)}", False

    async def _output(self, path: str) -> str:
        try:
            head, tail, size = await asyncio.to_thread(self._walls.ends, self._session, path, _READ_BYTES, _READ_BYTES)
        except FileNotFoundError:
            return ""
        except UserError as error:
            return f"[no output can be read: {error}]"
        text: str = self._clean(head.decode("utf-8", errors="replace"))
        rest = f"all of it is in {path} of the session"
        if tail:
            last = self._clean(tail.decode("utf-8", errors="replace")).rstrip("\n")
            return ends(text, last, f"most of {size:,} bytes", rest=rest)
        return head_and_tail(text.rstrip("\n"), rest=rest)

    # --- the session

    @property
    def _session(self) -> str:
        return f"{self._name}-{self._generation}"

    def _door(self) -> Path:
        return self._folder / f"door-{self._generation}"

    async def _ready(self) -> str:
        """A session that listens; what the model has to know of it, where it is not the one from before."""
        if self._broker is not None and await asyncio.to_thread(self._walls.alive, self._session):
            if self._broker.why_spoilt:
                self._lost = self._broker.why_spoilt
            elif await self._broker.connected(_BACK_SECONDS):
                return ""
        if not self._generation and (latest := _latest(self._folder)):
            self._generation = latest
            if await self._found_again():
                return ""
        why = self._lost or "it is no more"
        before = self._generation
        if before:
            await self._end()
        await self._begin(before + 1)
        return f"This is a new session; variables and files of the one before are gone ({why})." if before else ""

    async def _found_again(self) -> bool:
        """Whether the session from before a restart of the bot is alive and has come back."""
        if not await asyncio.to_thread(self._walls.alive, self._session):
            self._lost = "it ended while nobody used it"
            return False
        await self._open()
        assert self._broker is not None
        return await self._broker.connected(_BACK_SECONDS)

    async def _begin(self, generation: int) -> None:
        self._generation, self._lost = generation, ""
        await self._open()
        assert self._broker is not None
        try:
            await asyncio.to_thread(
                self._walls.begin, self._session, self._door(), described(self._functions), self._mounts
            )
            deadline = time.monotonic() + _START_SECONDS
            while not await self._broker.connected(_LOOK_SECONDS):
                if not await asyncio.to_thread(self._walls.alive, self._session):
                    why = await asyncio.to_thread(self._walls.why_ended, self._session)
                    # Nobody else's code has run there yet.
                    log = await asyncio.to_thread(self._walls.log, self._session)
                    raise PlatformError(f"the Python session does not start: {why}; {log[-300:]}")
                if time.monotonic() > deadline:
                    raise TransientError("no Python session is free on this machine", retry_after_seconds=60)
        except BaseException:
            await self._end()
            raise

    async def _open(self) -> None:
        self._broker = Broker(self._door(), self._functions, clean=self._clean)
        await self._broker.start()

    async def _end(self) -> None:
        if self._broker is not None:
            await self._broker.close()
            self._broker = None
        await asyncio.to_thread(self._walls.remove, self._session)
        # The empty folder stays: it says that this number is used up.
        await asyncio.to_thread(_empty, self._door())


def described(functions: Registry) -> dict[str, Any]:
    """What the module inside builds its functions from."""
    return {
        name: {
            "about": function.about,
            "parameters": [
                {"name": key, "kind": str(p.kind), "required": p.required, "default": None if p.required else p.default}
                for key, p in function.parameters.items()
            ],
        }
        for name, function in functions.items()
    }


def _latest(folder: Path) -> int:
    found = (_DOOR.fullmatch(path.name) for path in folder.glob("door-*"))
    return max((int(match[1]) for match in found if match), default=0)


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)


def _said(ended: str, seconds: float, interrupted: bool) -> tuple[str, bool]:
    match ended:
        case "ok":
            return "Done", True
        case "interrupted" if interrupted:
            return f"Interrupted after {seconds:g} s, its time limit; variables are kept", False
        case "interrupted":
            return "It raised KeyboardInterrupt; variables are kept", False
        case "exit":
            return "It called exit; variables are kept", True
        case _:
            return "It raised an exception; variables are kept", False


def _told(asked: list[Asked]) -> str:
    if not asked:
        return ""
    shown = [f"{each.function}{' (refused or failed)' if each.failed else ''}" for each in asked[:12]]
    more = f" and {len(asked) - 12} more" if len(asked) > 12 else ""
    return f" It called {', '.join(shown)}{more}."


def _source(asked: list[Asked]) -> str:
    sources = list(dict.fromkeys(each.source for each in asked if not each.failed))
    rest = f", made from {'; '.join(sources[:8])}" if sources else ""
    return f"output of your code in the sandbox{rest}"
