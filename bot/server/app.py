"""The FastAPI application: the webhook that stores before it answers, and read-only views of the journals."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import AsyncIterator, Iterator

import sqlalchemy.exc
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from bot import __version__
from bot.config import Settings
from bot.conversation.github import GitHubApp, OnWrite
from bot.errors import PostdocError, TransientError
from bot.loop import workflows
from bot.loop.actions import performer
from bot.loop.database import open_database
from bot.loop.engine import Engine, Point
from bot.loop.inbox import Inbox
from bot.loop.journal import Journal
from bot.loop.leases import INBOX, POLL_SECONDS, Leases
from bot.loop.world import World
from bot.server.api import api_routes
from bot.server.handlers import Handlers
from bot.server.watcher import Watcher
from bot.server.webhook import webhook_routes
from runners.job import Runner
from runners.local import LocalRunner

log = logging.getLogger("postdoc.server")

FIRST_SWEEP_SECONDS, SWEEP_SECONDS = 0.3, 300.0
INBOX_RETRY_SECONDS = 2.0
FIRST_PRUNE_SECONDS, PRUNE_SECONDS = 600.0, 86400.0


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
        folder.mkdir(parents=True, exist_ok=True)
        database_url = settings.database_url or f"sqlite:///{folder / 'postdoc.sqlite'}"
        database = open_database(database_url)
        self.inbox, self.journal = Inbox(database), Journal(database)
        self.app = GitHubApp(
            app_id=settings.app_id, private_key=settings.key(), base_url=settings.github_url, on_write=on_write
        )
        self.runner = runner or LocalRunner(folder / "jobs", python=settings.job_python, slots=settings.job_slots)
        self.world = World(
            app=self.app,
            runner=self.runner,
            data_folder=folder,
            model_folders=(*settings.model_folders, folder / "models"),
            benchmark_folders=settings.benchmark_folders,
            known_secrets=settings.secrets(),
            train_memory_gib=settings.job_memory_gib,
            cpu_threads=settings.job_threads,
        )
        self.leases = Leases(database, folder / "executors", seconds=settings.lease_seconds)
        self.engine = Engine(
            self.journal,
            self.leases,
            performer(self.world),
            database_url=database.url.render_as_string(hide_password=False),
            at=at,
        )
        self.app.may_write = self.leases.check_write
        self.watcher = Watcher(self.world, self.engine, settings.check_update_seconds)
        self.arrived = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._handlers: Handlers | None = None
        self._started = False

    @property
    def ready(self) -> bool:
        """True while deliveries can be stored and are acted upon."""
        return self._started and self.leases.reachable

    async def start(self) -> None:
        await self.app.__aenter__()
        if isinstance(self.runner, LocalRunner):
            await asyncio.to_thread(self.runner.sweep)
        await self.engine.start()
        work = (self._read_inbox(), self.watcher.watch(), self._ask_for_missed_deliveries(), self._prune())
        self._tasks = [asyncio.create_task(each) for each in work]
        self._started = True

    async def drain(self, limit_seconds: float) -> None:
        """Be ready for nothing more, and let actions in progress end, up to the limit. `stop` comes after."""
        self._started = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if not await self.engine.drain(limit_seconds):
            log.warning("an action took longer than %.0f s to end and is left to whoever takes over", limit_seconds)

    async def stop(self) -> None:
        await self.drain(0.0)
        await self.engine.stop()
        await self.app.__aexit__(None, None, None)

    def abandon(self) -> None:
        """From any thread, before the process ends at once: write nothing more, and let others take over."""
        self.leases.abandon()

    async def _is_mine(self, name: str) -> bool:
        """True when this process is the one of several that does `name`; waits a little when it is not."""
        if self.leases.holds(name):
            return True
        with contextlib.suppress(TransientError):
            if await asyncio.to_thread(self.leases.acquire, name):
                return True
        await asyncio.sleep(POLL_SECONDS)
        return False

    async def _ask_for_missed_deliveries(self) -> None:
        """What was sent while nobody listened did not arrive, and GitHub does not send it again unasked."""
        turn, due = (0, 0), 0.0
        pauses: Iterator[float] = iter(())
        while True:
            await asyncio.sleep(FIRST_SWEEP_SECONDS)
            lease = self.leases.lease(INBOX)
            if lease is None or not self.leases.holds(INBOX):
                continue
            if turn != (lease.fence, self.leases.outages):
                # After every time that nobody could listen: at once, and again for what was asked for before the
                # socket listened. Later looks are for a network that was down.
                turn = (lease.fence, self.leases.outages)
                due, pauses = 0.0, itertools.chain((5.0,), itertools.repeat(SWEEP_SECONDS))
            if time.monotonic() < due:
                continue
            due = time.monotonic() + next(pauses)
            try:
                missed = await self.app.redeliver_missed()
            except PostdocError as error:
                log.warning("deliveries that were missed could not be asked for: %s", error)
                continue
            if missed:
                log.warning("asked again for %d deliveries that had not arrived", missed)

    async def _prune(self) -> None:
        """Finished workflows would fill the disk within years."""
        for pause in itertools.chain((FIRST_PRUNE_SECONDS,), itertools.repeat(PRUNE_SECONDS)):
            await asyncio.sleep(pause)
            if self.leases.holds(INBOX):
                try:
                    await workflows.prune(self.settings.keep_days)
                except Exception:
                    log.exception("finished workflows could not be pruned")

    async def _read_inbox(self) -> None:
        """Hand stored deliveries to the handlers in the order they arrived; one process of several does."""
        while True:
            if not await self._is_mine(INBOX):
                continue
            self.arrived.clear()
            try:
                await self._read_unhandled()
            except TransientError as error:
                # Not handled, so it stays first in line: what a person asked for is never dropped for an outage.
                log.warning("deliveries have to wait: %s", error)
                await asyncio.sleep(INBOX_RETRY_SECONDS)
                continue
            except Exception:
                log.exception("the inbox could not be read")
                await asyncio.sleep(INBOX_RETRY_SECONDS)
                continue
            with contextlib.suppress(TimeoutError):
                # The time-out is for deliveries stored by another process on the same database.
                await asyncio.wait_for(self.arrived.wait(), timeout=POLL_SECONDS)

    async def _read_unhandled(self) -> None:
        for delivery in await asyncio.to_thread(self.inbox.unhandled):
            if not self.leases.holds(INBOX):
                return
            try:
                if self._handlers is None:
                    login = await self.app.login()
                    self._handlers = Handlers(self.engine, app_login=login, label=self.settings.label)
                outcome = await self._handlers.handle(delivery)
            except TransientError:
                raise
            except Exception as error:
                log.exception("delivery %s could not be handled", delivery.delivery_id)
                outcome = f"error: {type(error).__name__}"
            await asyncio.to_thread(self.inbox.mark_handled, delivery.seq, outcome)


def create_app(bot: Bot) -> FastAPI:
    """The application around `bot`."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await bot.start()
        yield
        await bot.stop()

    app = FastAPI(title="Postdoc", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    for kind in (TransientError, sqlalchemy.exc.TimeoutError):
        app.add_exception_handler(kind, _unavailable)
    for routes in (webhook_routes, api_routes):
        app.include_router(routes(bot))
    return app


async def _unavailable(_: Request, error: Exception) -> Response:
    """Nothing was stored, so nothing is acknowledged: the sender keeps it and sends it again."""
    log.warning("a request was answered 503: %s", error)
    body = {"error": "the database cannot be used now; nothing was stored, send it again"}
    return JSONResponse(body, status_code=503, headers={"Retry-After": "10"})
