"""The FastAPI application: the webhook that stores before it answers, and read-only views of the journals."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI

from bot import __version__
from bot.config import Settings
from bot.conversation.github import GitHubApp, OnWrite, Pacing
from bot.conversation.policy import Policy
from bot.domain.fold import experiment_of
from bot.loop.actions import performer
from bot.loop.database import open_database
from bot.loop.engine import Engine, Point
from bot.loop.inbox import Inbox
from bot.loop.journal import Journal
from bot.loop.treasury import Treasury
from bot.loop.world import World
from bot.server.api import api_routes
from bot.server.deliveries import pull_deliveries, sweep_deliveries
from bot.server.handlers import Handlers
from bot.server.reader import InboxReader
from bot.server.watcher import Watcher
from bot.server.webhook import Admission, webhook_routes
from runners.job import Runner
from runners.local import LocalRunner


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
        self.inbox, self.journal, self.treasury = Inbox(database), Journal(database), Treasury(database)
        self.app = GitHubApp(
            app_id=settings.app_id, private_key=settings.key(), base_url=settings.github_url, on_write=on_write,
            pacing=Pacing(settings.write_pause_seconds, settings.writes_per_hour),
        )  # fmt: skip
        self.runner = runner or LocalRunner(folder / "jobs", python=settings.job_python, slots=settings.job_slots)
        self.world = World(
            app=self.app,
            runner=self.runner,
            treasury=self.treasury,
            data_folder=folder,
            model_folders=(*settings.model_folders, folder / "models"),
            benchmark_folders=settings.benchmark_folders,
            known_secrets=settings.secrets(),
            train_memory_gib=settings.job_memory_gib,
            cpu_threads=settings.job_threads,
        )
        self.engine = Engine(self.journal, performer(self.world), database_url=database_url, at=at)
        self.watcher = Watcher(self.world, self.engine, settings.check_update_seconds)
        self.admission = Admission(settings.allowed_accounts)
        self.arrived = asyncio.Event()
        """Set when the inbox holds something new."""
        self.reader = InboxReader(self.inbox, Handlers(self.engine, self.app, label=settings.label), self.arrived)
        self._tasks: list[asyncio.Task[None]] = []
        self.ready = False

    async def start(self) -> None:
        await self.app.__aenter__()
        if isinstance(self.runner, LocalRunner):
            await asyncio.to_thread(self.runner.sweep)
        await asyncio.to_thread(self._restore_treasury)
        await self.engine.start()
        fetch = pull_deliveries if self.settings.pull else sweep_deliveries
        work = (self.reader.run(), self.watcher.watch(), fetch(self))
        self._tasks = [asyncio.create_task(each) for each in work]
        self.ready = True

    def _restore_treasury(self) -> None:
        """What a crash left unsettled, and all of it after the journals were rebuilt."""
        for goal_id in self.journal.goals():
            x = experiment_of(goal_id, self.journal.read(goal_id))
            self.treasury.restore(x, Policy.from_dict(x.policy).usd_per_hour)

    async def stop(self) -> None:
        self.ready = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.engine.stop()
        await asyncio.to_thread(self.inbox.close)
        await self.app.__aexit__(None, None, None)


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
