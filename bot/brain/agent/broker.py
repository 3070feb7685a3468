"""The bot's end of the one socket that leads out of the sandbox.

Whoever is at the other end runs code that nobody trusts, so nothing that comes is believed: a line of JSON has one of
three known forms, or is a reason to hang up. What can be called is the registry and nothing else, with checked
arguments, only while the bot itself has code running there, and so often. An answer has a largest size. What a function
found is told to the model with the source that the function named, and not with what the sandbox says of it.

Not covered: what stands in an answer. The functions bound what may leave (`bot.research`), and what they bring is data.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from bot.brain.agent.functions import Registry, checked_arguments, checked_registry
from bot.errors import PostdocError, TransientError

_LOG = logging.getLogger(__name__)
SOCKET = "socket"
"""In the door's folder."""
MOST_LINE_BYTES = 256 << 10
MOST_ANSWER_BYTES = 1 << 20
MOST_CONNECTIONS = 8
"""Beside the session's own: processes that code there has started may ask too."""
MOST_CALLS = 200
"""Of functions, for one piece of code."""
AT_ONCE = 4
MOST_STRIKES = 40
"""Lines that are no request, and calls past the most, before the session is ended."""
FUNCTION_SECONDS = 120.0
_HELLO_SECONDS = 10.0
_SEND_SECONDS = 30.0
_ENDINGS = ("ok", "error", "interrupted", "exit")


class Asked(NamedTuple):
    """One call of a function."""

    function: str
    source: str
    failed: bool


class _NoRequest(Exception):
    """The other end sent what no honest one sends."""


@dataclass
class _Piece:
    """The code that runs."""

    number: int
    frame: Mapping[str, Any]
    ended: asyncio.Future[str]
    asked: list[Asked] = field(default_factory=list)
    calls: int = 0


class Broker:
    """One session's. Everything happens in the event loop that `start` was called in."""

    def __init__(
        self,
        door: Path,
        functions: Registry,
        *,
        clean: Callable[[Any], Any] = lambda value: value,
        function_seconds: float = FUNCTION_SECONDS,
    ) -> None:
        """`door` is a folder that the sandbox sees and cannot change. `clean` takes secrets out of a JSON value."""
        self._door = door
        self._functions = checked_registry(functions)
        self._clean = clean
        self._function_seconds = function_seconds
        self._server: asyncio.Server | None = None
        self._session: asyncio.StreamWriter | None = None
        self._connected = asyncio.Event()
        self._connections: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._answering: set[asyncio.Task[None]] = set()
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._piece: _Piece | None = None
        self._strikes = 0
        self.why_spoilt = ""
        """Why the session has to be ended; empty while it has not."""

    async def start(self) -> None:
        """Listen. Raises: OSError."""
        self._door.mkdir(parents=True, exist_ok=True, mode=0o700)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        folder = os.open(self._door, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(SOCKET, dir_fd=folder)
            # A path of any length: a socket's own name may have 107 bytes only.
            listening.bind(f"/proc/self/fd/{folder}/{SOCKET}")
        except BaseException:
            listening.close()
            raise
        finally:
            os.close(folder)
        listening.setblocking(False)
        self._server = await asyncio.start_unix_server(self._serve, sock=listening, limit=MOST_LINE_BYTES)

    async def close(self) -> None:
        """Hang up; what is being answered is left."""
        if self._server is not None:
            self._server.close()
        for writer in (*self._connections, *((self._session,) if self._session else ())):
            writer.transport.abort()
        for task in list(self._answering):
            task.cancel()
        # Those that serve end by themselves, their connections being gone; asyncio minds it when they are cancelled.
        await asyncio.gather(*self._answering, *self._serving, return_exceptions=True)
        (self._door / SOCKET).unlink(missing_ok=True)

    async def connected(self, seconds: float) -> bool:
        """Whether the session has come to the socket within that time."""
        try:
            await asyncio.wait_for(self._connected.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def begin(self, number: int, code: str, output: str) -> asyncio.Future[str]:
        """Send a piece of code; how it ended, once the session says so. One at a time."""
        assert self._piece is None, "a session runs one piece after the other"
        frame = {"run": number, "code": code, "output": output}
        self._piece = _Piece(number, frame, asyncio.get_running_loop().create_future())
        self._send_to_session(frame)
        return self._piece.ended

    def interrupt(self, number: int) -> None:
        self._send_to_session({"interrupt": number})

    def finish(self) -> list[Asked]:
        """From now on no code runs, and nothing may be called; what was called while it did."""
        piece, self._piece = self._piece, None
        return piece.asked if piece is not None else []

    # --- what comes

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= MOST_CONNECTIONS or self.why_spoilt:
            self._strike("opened too many connections")
            writer.transport.abort()
            return
        self._connections.add(writer)
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            await self._listen(reader, writer)
        except _NoRequest as error:
            self._strike(str(error))
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            pass  # it hung up, or did not say who it is
        finally:
            self._serving.discard(task)
            self._connections.discard(writer)
            if self._session is writer:
                self._session = None
                self._connected.clear()
            writer.transport.abort()

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello = await asyncio.wait_for(_frame(reader), _HELLO_SECONDS)
        if hello is None:
            return
        if hello == {"hello": "session"} and self._session is None:
            self._session = writer
            self._connections.discard(writer)
            self._connected.set()
            if self._piece is not None:
                self._send_to_session(self._piece.frame)
        elif hello != {"hello": "calls"}:
            raise _NoRequest("said something else than who it is")
        room = asyncio.Semaphore(AT_ONCE)
        while True:
            # Nothing more is read from who has not taken its answers: what waits stays in its own socket.
            await room.acquire()
            frame = await _frame(reader)
            if frame is None or writer.is_closing():
                return  # what it had sent before we hung up may still lie in the buffer
            if "done" in frame and self._session is writer:
                self._end(frame)
                room.release()
            else:
                self._begin_answer(frame, writer, room)

    def _end(self, frame: Mapping[str, Any]) -> None:
        if set(frame) != {"done", "ended"} or frame["ended"] not in _ENDINGS or not _is_number(frame["done"]):
            raise _NoRequest("told the end of its code in no known form")
        piece = self._piece
        if piece is not None and frame["done"] == piece.number and not piece.ended.done():
            piece.ended.set_result(frame["ended"])

    def _begin_answer(self, frame: Mapping[str, Any], writer: asyncio.StreamWriter, room: asyncio.Semaphore) -> None:
        if set(frame) != {"call", "function", "arguments"} or not _is_number(frame["call"]):
            raise _NoRequest("sent what is no request")
        task = asyncio.create_task(self._answer(frame, writer))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)
        task.add_done_callback(lambda _task: room.release())

    async def _answer(self, frame: Mapping[str, Any], writer: asyncio.StreamWriter) -> None:
        answer = {"answer": frame["call"], **await self._asked(frame["function"], frame["arguments"])}
        if writer.is_closing():
            return
        try:
            writer.write(json.dumps(answer, ensure_ascii=True).encode() + b"\n")
            await asyncio.wait_for(writer.drain(), _SEND_SECONDS)
        except (OSError, TimeoutError):
            writer.transport.abort()

    async def _asked(self, name: Any, given: Any) -> dict[str, Any]:
        """The rest of the answer to one call."""
        piece = self._piece
        if piece is None:
            self._strike("called functions while no code of the model ran")
            return {"error": "No code is being run, so nothing is answered."}
        piece.calls += 1
        if piece.calls > MOST_CALLS:
            self._strike("called functions without end")
            return {
                "error": f"This piece of code has made {MOST_CALLS} calls, which is the most. Ask for more at once."
            }
        function = self._functions.get(name) if isinstance(name, str) else None
        if function is None:
            return {"error": f"There is no such function. There are {', '.join(self._functions) or 'none'}."}
        source, failed = name, True
        try:
            arguments = checked_arguments(name, function.parameters, given)
            async with self._at_once:
                found = await asyncio.wait_for(function.call(**arguments), self._function_seconds)
            source = found.source
            answer = {"value": self._clean(found.value), "source": self._clean(found.source)}
            if (size := len(json.dumps(answer).encode())) > MOST_ANSWER_BYTES:
                return {
                    "error": f"The answer has {size:,} bytes; at most {MOST_ANSWER_BYTES:,} are given. Ask for less."
                }
            failed = False
            return answer
        except TransientError as error:
            wait = f" Try again in {error.retry_after_seconds:.0f} s." if error.retry_after_seconds else ""
            return {"error": self._clean(f"{name}: not now: {error}{wait}")}
        except PostdocError as error:
            return {"error": self._clean(str(error))}
        except TimeoutError:
            return {"error": f"{name} took longer than {self._function_seconds:g} s."}
        except Exception:  # a bug of ours; the sandbox learns nothing of it
            _LOG.exception("the function %s failed", name)
            return {"error": f"{name} failed inside of Postdoc; it is logged. Go another way."}
        finally:
            piece.asked.append(Asked(name, self._clean(source), failed))

    def _strike(self, why: str) -> None:
        self._strikes += 1
        if self._strikes >= MOST_STRIKES and not self.why_spoilt:
            self.why_spoilt = f"it {why}, {MOST_STRIKES} times"
            for writer in list(self._connections):
                writer.transport.abort()

    def _send_to_session(self, frame: Mapping[str, Any]) -> None:
        """Sent again when the session has come back, where it is away now."""
        if self._session is not None and not self._session.is_closing():
            self._session.write(json.dumps(frame).encode() + b"\n")


async def _frame(reader: asyncio.StreamReader) -> dict[str, Any] | None:
    """The next line as an object; None at the end of the stream. Raises: _NoRequest."""
    try:
        line = await reader.readline()
    except ValueError:
        raise _NoRequest("sent a line without an end") from None
    if not line.endswith(b"\n"):
        return None
    try:
        found = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        raise _NoRequest("sent what is no JSON") from None
    if not isinstance(found, dict):
        raise _NoRequest("sent what is no object")
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53
