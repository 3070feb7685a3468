"""The process around the application: how it ends when it is asked to.

At the first SIGTERM or SIGINT `/readyz` says no and no other action is started, while deliveries are still stored for
whoever handles them next. When the actions in progress have ended the socket closes, requests in flight are answered,
and the leases are given back. A second signal, or the limit, ends the process at once: what was stored stays stored,
and what was in progress is gone through again by whoever takes over.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any, NoReturn

import uvicorn

from bot.server.app import Bot, create_app

log = logging.getLogger("postdoc.server")

_ACTIONS_SHARE = 0.8
"""Of the limit, how much actions in progress may use; the rest is for requests in flight and for closing."""


class Server(uvicorn.Server):
    """uvicorn around a bot that drains."""

    def __init__(self, bot: Bot) -> None:
        self._limit = bot.settings.drain_seconds
        grace = max(1, round(self._limit * (1 - _ACTIONS_SHARE) / 2))
        config = uvicorn.Config(
            create_app(bot),
            host=bot.settings.host,
            port=bot.settings.port,
            access_log=False,
            log_level="warning",
            log_config=None,
            timeout_graceful_shutdown=grace,
            lifespan="on",
            ws="none",
        )
        super().__init__(config)
        self._bot = bot
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining: asyncio.Task[None] | None = None
        self._code: int | None = None
        """What the process was asked to end with."""

    def run(self, sockets: Any = None) -> None:
        """Serve until asked to end, and then end the process: 0 for SIGTERM, 130 for SIGINT.

        Returns only when serving could not begin.
        """
        super().run(sockets)
        if self._code is not None:
            # All is saved. Taking the interpreter down would cost seconds and could only hang.
            _leave(self._code)

    async def startup(self, sockets: Any = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets=sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._code is not None:
            threading.Thread(target=self._end, daemon=True).start()
            return
        self._code = 0 if sig == signal.SIGTERM else 130
        timer = threading.Timer(self._limit, self._end)
        timer.daemon = True
        timer.start()
        if self._loop is None:
            self.should_exit = True
        else:
            self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        self._draining = asyncio.ensure_future(self._drained())

    async def _drained(self) -> None:
        try:
            await self._bot.drain(self._limit * _ACTIONS_SHARE)
        finally:
            self.should_exit = True

    def _end(self) -> None:
        log.warning("ending at once; what was in progress is gone through again by whoever takes over")
        self._bot.abandon()
        _leave(self._code or 0)


def _leave(code: int) -> NoReturn:
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
