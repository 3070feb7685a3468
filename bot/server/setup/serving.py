"""`postdoc serve --setup`: the setup pages served until an App is there; then the caller serves the App itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from pathlib import Path

import uvicorn

from bot.config import SetupSettings
from bot.errors import SettingsError
from bot.server.setup.pages import SetupDesk, create_setup_app

GOODBYE_SECONDS = 0.5
"""For the last page to arrive before the server that sends it ends."""


def serve_setup(settings: SetupSettings, listening: socket.socket) -> bool:
    """Serve `/setup` on the socket, and close it. True when an App was registered, False when the process was ended.

    Raises: SettingsError when the App's keys could not be kept.
    """
    with listening:
        return _serve(settings, listening)


def _serve(settings: SetupSettings, listening: socket.socket) -> bool:
    _require_writable(settings.data_folder)

    def done() -> None:
        asyncio.get_running_loop().call_later(GOODBYE_SECONDS, lambda: setattr(server, "should_exit", True))

    desk = SetupDesk(settings, on_done=done)
    # No access log: GitHub's code comes in an address.
    config = uvicorn.Config(
        create_setup_app(desk), access_log=False, log_level="warning", log_config=None, timeout_graceful_shutdown=3,
        ws="none", lifespan="off", proxy_headers=False,
    )  # fmt: skip
    server = uvicorn.Server(config)
    address, port = listening.getsockname()[:2]
    host = f"[{address}]" if ":" in address else address
    seen = host if settings.loopback else socket.gethostname()
    print(
        f"postdoc: no GitHub App is set up yet. Open http://{seen}:{port}/setup to register one. "
        f"A browser on another machine is asked for this token, once: {desk.token}",
        file=sys.stderr, flush=True,
    )  # fmt: skip
    signal.signal(signal.SIGTERM, lambda *_: None)
    server.run(sockets=[listening])
    if desk.app is None:
        return False
    kept = settings.data_folder / "app"
    print(f"postdoc: the App {desk.app.name} is registered; its keys lie in {kept}", file=sys.stderr, flush=True)
    return True


def _require_writable(folder: Path) -> None:
    """GitHub shows the App's key once; find out before that whether it can be kept."""
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        raise SettingsError(f"POSTDOC_DATA_FOLDER: {folder} cannot be written, and the App's keys are kept there.")
