"""The FastAPI application: the webhook that stores before it answers, and read-only views of the journals."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator
from functools import partial

from fastapi import FastAPI

from bot import __version__
from bot.config import Settings
from bot.conversation.github import GitHubApp, OnWrite
from bot.conversation.redaction import redacted
from bot.errors import PostdocError, SettingsError, TransientError
from bot.loop.actions import performer
from bot.loop.database import open_database
from bot.loop.engine import Engine, Point
from bot.loop.inbox import Inbox
from bot.loop.journal import Journal
from bot.loop.world import World
from bot.server.api import api_routes
from bot.server.handlers import Handlers
from bot.server.logs import redact_logs
from bot.server.watcher import Watcher
from bot.server.webhook import webhook_routes
from runners.job import Runner
from runners.local import LocalRunner

log = logging.getLogger("postdoc.server")

FIRST_SWEEP_SECONDS, SWEEP_SECONDS = 0.3, 300.0
INBOX_RETRY_SECONDS = 2.0


class Bot:
    """Everything that runs in the server's process, started and stopped together."""

    def __init__(
        self,
        settings: Settings,
        *,
        runner: Runner | None = None,
        at: Point | None = None,
        on_write: OnWrite | None = None,
    ) -> None:
        self.settings = settings
        folder = settings.data_folder.resolve()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / ".writable").touch()
            (folder / ".writable").unlink(missing_ok=True)
        except OSError as error:
            raise SettingsError(f"POSTDOC_DATA_FOLDER: {folder} cannot be written: {error.strerror}.") from error
        database_url = settings.database_url or f"sqlite:///{folder / 'postdoc.sqlite'}"
        database = open_database(database_url)
        known_secrets = settings.secrets()
        redact_logs(known_secrets)
        self.inbox = Inbox(database)
        self.journal = Journal(database, clean=partial(redacted, known=known_secrets))
        self.app = GitHubApp(
            app_id=settings.app_id,
            private_key=settings.key(),
            base_url=settings.github_url,
            on_write=on_write,
            known_secrets=known_secrets,
        )
        self.runner = runner or LocalRunner(folder / "jobs", python=settings.job_python, slots=settings.job_slots)
        self.world = World(
            app=self.app,
            runner=self.runner,
            data_folder=folder,
            model_folders=(*settings.model_folders, folder / "models"),
            benchmark_folders=settings.benchmark_folders,
            known_secrets=known_secrets,
            train_memory_gib=settings.job_memory_gib,
            cpu_threads=settings.job_threads,
        )
        self.engine = Engine(self.journal, performer(self.world), database_url=database_url, at=at)
        self.watcher = Watcher(self.world, self.engine, settings.check_update_seconds)
        self.arrived = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.ready = False

    async def start(self) -> None:
        await self.app.__aenter__()
        if isinstance(self.runner, LocalRunner):
            await asyncio.to_thread(self.runner.sweep)
        await self.engine.start()
        work = (self._read_inbox(), self.watcher.watch(), self._ask_for_missed_deliveries())
        self._tasks = [asyncio.create_task(each) for each in work]
        self.ready = True

    async def stop(self) -> None:
        self.ready = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.engine.stop()
        await self.app.__aexit__(None, None, None)

    async def _ask_for_missed_deliveries(self) -> None:
        """What was sent while this process was away did not arrive, and GitHub does not send it again unasked."""
        # The second look catches what was asked for before the socket listened; later ones, a network that was down.
        for pause in itertools.chain((FIRST_SWEEP_SECONDS, 5.0), itertools.repeat(SWEEP_SECONDS)):
            await asyncio.sleep(pause)
            try:
                missed = await self.app.redeliver_missed()
            except PostdocError as error:
                log.warning("deliveries that were missed could not be asked for: %s", error)
                continue
            if missed:
                log.warning("asked again for %d deliveries that had not arrived", missed)

    async def _read_inbox(self) -> None:
        """Hand stored deliveries to the handlers in the order they arrived."""
        handlers: Handlers | None = None
        while True:
            self.arrived.clear()
            for delivery in await asyncio.to_thread(self.inbox.unhandled):
                try:
                    if handlers is None:
                        login = await self.app.login()
                        handlers = Handlers(self.engine, app_login=login, label=self.settings.label)
                    outcome = await handlers.handle(delivery)
                except TransientError as error:
                    # Not handled, so it stays first in line: what a person asked for is never dropped for an outage.
                    log.warning("delivery %s has to wait: %s", delivery.delivery_id, error)
                    await asyncio.sleep(INBOX_RETRY_SECONDS)
                    self.arrived.set()
                    break
                except Exception as error:
                    log.exception("delivery %s could not be handled", delivery.delivery_id)
                    outcome = f"error: {type(error).__name__}"
                await asyncio.to_thread(self.inbox.mark_handled, delivery.seq, outcome)
            with contextlib.suppress(TimeoutError):
                # The time-out is for deliveries stored by another process on the same database.
                await asyncio.wait_for(self.arrived.wait(), timeout=5.0)


def create_app(bot: Bot) -> FastAPI:
    """The application around `bot`."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await bot.start()
        yield
        await bot.stop()

    app = FastAPI(title="Postdoc", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    for routes in (webhook_routes, api_routes):
        app.include_router(routes(bot))
    return app
