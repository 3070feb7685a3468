"""The first process of a session: it runs what the bot sends, one piece after the other, in one namespace.

    python -m postdoc

What a piece prints, its child processes included, goes to the file that the bot names, where the bot reads it.
"""

from __future__ import annotations

import ast
import contextlib
import linecache
import os
import signal
import sys
import traceback
from types import FrameType
from typing import Any

from . import _link

_UNUSABLE = 71
"""Exit code of a session in which nothing can be run any more."""
_MOST_TOLD = 8 << 10
"""Bytes of a traceback."""


class Session:
    """Variables that stay, and what came of each piece."""

    def __init__(self) -> None:
        self._namespace: dict[str, Any] = {"__name__": "__main__", "__builtins__": __builtins__}
        self._done: dict[int, str] = {}
        self._running: int | None = None
        self._link = _link.session()
        self._link.interrupt = self._interrupt

    def serve(self) -> None:
        """Until the process ends."""
        while True:
            with contextlib.suppress(KeyboardInterrupt):  # one that came when the piece had just ended
                self._serve_one(self._link.requests.get())

    def _serve_one(self, request: dict[str, Any]) -> None:
        number = request["run"]
        if number not in self._done:
            self._done[number] = self._run(number, request["code"], request["output"])
        with contextlib.suppress(OSError):  # the bot has gone; it asks for the same number when it is back
            self._link.send({"done": number, "ended": self._done[number]})

    def _interrupt(self, number: int) -> None:
        if number == self._running:
            os.kill(os.getpid(), signal.SIGINT)

    def _run(self, number: int, code: str, output: str) -> str:
        signal.signal(signal.SIGINT, self._on_interrupt)
        try:
            os.makedirs(os.path.dirname(output), exist_ok=True)
            kept = os.dup(1), os.dup(2)
            file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        except OSError as error:
            # Its folder or its descriptors are gone through an earlier piece: the bot begins a session anew.
            os.write(2, f"no output can be written to {output}: {error.strerror}\n".encode())
            os._exit(_UNUSABLE)
        try:
            os.dup2(file, 1)
            os.dup2(file, 2)
            # Anew each time: the piece before may have closed or replaced them.
            sys.stdout = open(1, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False)  # noqa: SIM115
            sys.stderr = open(2, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False)  # noqa: SIM115
            return self._executed(number, code)
        except BaseException:  # no room for a line, or an interrupt that came at the very end
            return "error"
        finally:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):  # a full disk, or what the piece has put in its place
                    stream.flush()
            try:
                os.dup2(kept[0], 1)
                os.dup2(kept[1], 2)
                for descriptor in (file, *kept):
                    os.close(descriptor)
            except OSError:  # the piece has closed what is not its own
                os._exit(_UNUSABLE)

    def _executed(self, number: int, code: str) -> str:
        name = f"<call {number}>"
        linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
        self._running = number
        try:
            tree = ast.parse(code, name)
            last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
            exec(compile(tree, name, "exec"), self._namespace)  # noqa: S102
            if isinstance(last, ast.Expr):
                value = eval(compile(ast.Expression(last.value), name, "eval"), self._namespace)
                if value is not None:
                    print(repr(value))
            return "ok"
        except KeyboardInterrupt:
            _say("KeyboardInterrupt\n")
            return "interrupted"
        except SystemExit as ended:
            _say(f"SystemExit: {ended.code!r:.200}\n")
            return "exit"
        except BaseException as error:
            _say(_told(error))
            return "error"
        finally:
            self._running = None

    def _on_interrupt(self, _number: int, _frame: FrameType | None) -> None:
        if self._running is not None:
            raise KeyboardInterrupt


def _told(error: BaseException) -> str:
    """The traceback without our own frames."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    try:
        return "".join(traceback.format_exception(type(error), error, trace, limit=-30))
    except Exception:  # its own text may raise
        return f"{type(error).__name__}\n"


def _say(words: str) -> None:
    """At the end of the output, also where the file is as large as it may be: its last part makes room then."""
    told = words.encode("utf-8", errors="replace")[-_MOST_TOLD:]
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
    with contextlib.suppress(OSError):
        size = os.fstat(2).st_size
        written = 0
        with contextlib.suppress(OSError):
            written = os.write(2, told)
        if written < len(told):
            os.ftruncate(2, max(0, size - len(told)))
            os.write(2, told)


if __name__ == "__main__":
    Session().serve()
