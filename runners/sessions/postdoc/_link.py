"""The one way out of the sandbox: a Unix socket, over which lines of JSON go both ways.

    inside -> bot   {"hello": "session" | "calls"}
                    {"call": 7, "function": "data.rows", "arguments": {...}}
                    {"done": 3, "ended": "ok" | "error" | "interrupted" | "exit"}
    bot -> inside   {"answer": 7, "value": ..., "source": "..."} or {"answer": 7, "error": "..."}
                    {"run": 3, "code": "...", "output": "outputs/0003.txt"}
                    {"interrupt": 3}

This file runs inside, next to code that nobody trusts; the bot believes nothing of what it sends.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import queue
import socket
import threading
import time
from typing import Any

SOCKET = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "socket")
_PATIENCE_SECONDS = 600.0
"""The bot may be started anew in between; a session without one ends after so long."""
_PAUSE_SECONDS = 0.1
_CLOSED = 70
"""Exit code of a process that has closed its own way out."""


class Refused(Exception):
    """The bot does not do this; the text says why, and what to write instead."""


class Link:
    """One connection, made again where the bot has gone and come back."""

    def __init__(self, hello: str, patience_seconds: float = 0.0) -> None:
        self.pid = os.getpid()
        self.requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.interrupt: Any = lambda _number: None
        self._hello = hello
        self._patience = patience_seconds
        self._numbers = itertools.count(1)
        self._waiting: dict[int, queue.SimpleQueue[dict[str, Any]]] = {}
        self._lock = threading.Lock()
        self._connect()
        threading.Thread(target=self._listen, name="postdoc", daemon=True).start()

    def call(self, function: str, arguments: dict[str, Any]) -> Any:
        """Ask the bot, and wait for its answer. Raises: Refused."""
        number = next(self._numbers)
        box = self._waiting[number] = queue.SimpleQueue()
        try:
            self.send({"call": number, "function": function, "arguments": arguments})
            answer = box.get()
        except OSError:
            raise Refused("Postdoc is being restarted. Call again in a moment.") from None
        except TypeError as error:
            raise Refused(f"{function}: an argument is no JSON value ({error}).") from None
        finally:
            self._waiting.pop(number, None)
        if "error" in answer:
            raise Refused(answer["error"])
        return answer.get("value")

    def send(self, frame: dict[str, Any]) -> None:
        """Raises: OSError when the bot is away."""
        line = json.dumps(frame).encode() + b"\n"
        try:
            with self._lock:
                self._socket.sendall(line)
        except OSError as error:
            if error.errno in (errno.EBADF, errno.ENOTSOCK):
                os._exit(_CLOSED)  # by the code that ran here; the bot would wait for a word without end
            raise

    def _connect(self) -> None:
        deadline = time.monotonic() + self._patience
        while True:
            line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                line.connect(SOCKET)
                line.sendall(json.dumps({"hello": self._hello}).encode() + b"\n")
            except OSError:
                line.close()
                if time.monotonic() > deadline:
                    raise
                time.sleep(_PAUSE_SECONDS)
            else:
                self._socket = line
                return

    def _listen(self) -> None:
        while True:
            try:
                with self._socket.makefile("rb") as lines:
                    for line in lines:
                        self._take(json.loads(line))
            except (OSError, ValueError):
                pass
            for box in list(self._waiting.values()):
                box.put({"error": "Postdoc was restarted before it answered. Call again."})
            if not self._patience:
                return
            try:
                self._connect()
            except OSError:
                os._exit(0)

    def _take(self, frame: dict[str, Any]) -> None:
        if "answer" in frame:
            box = self._waiting.get(frame["answer"])
            if box is not None:
                box.put(frame)
        elif "interrupt" in frame:
            self.interrupt(frame["interrupt"])
        else:
            self.requests.put(frame)


_links: dict[str, Link] = {}


def session() -> Link:
    """The connection over which the bot says what to run. Raises: OSError."""
    _links["own"] = Link("session", _PATIENCE_SECONDS)
    return _links["own"]


def current() -> Link:
    """This process's connection; a process that was forked or started from a session's has one of its own."""
    link = _links.get("own")
    if link is None or link.pid != os.getpid():
        try:
            link = _links["own"] = Link("calls")
        except OSError as error:
            raise Refused(f"Postdoc cannot be reached from here ({error.strerror}).") from None
    return link
