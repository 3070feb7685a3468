"""The process around one event: the signals by which a workflow run is cancelled."""

from __future__ import annotations

import asyncio
import signal

from bot.serverless.happening import Happening
from bot.serverless.report import Report
from bot.serverless.responder import Responder
from bot.serverless.settings import RespondSettings


def responded(settings: RespondSettings, happening: Happening, responder: Responder | None = None) -> Report:
    """What came of the event. Raises: PostdocError."""
    return asyncio.run(_responded(responder or Responder(settings), happening))


async def _responded(responder: Responder, happening: Happening) -> Report:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, responder.cancel)
    return await responder.respond(happening)
