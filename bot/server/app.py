"""The FastAPI application: the webhook that stores before it answers, and read-only views of the journals."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import sys
from collections.abc import AsyncIterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import sqlalchemy.exc
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from bot import __version__
from bot.brain.model.choice import BrainSettings, model_of
from bot.brain.model.talk import Model
from bot.config import Settings
from bot.conversation.events import Occurrence
from bot.conversation.github import GitHubApp, OnWrite, Pacing
from bot.conversation.policy import load_server_policy
from bot.domain.fold import experiment_of
from bot.domain.redaction import redacted
from bot.errors import SettingsError, TransientError
from bot.loop import workflows
from bot.loop.actions import performer
from bot.loop.database import open_database
from bot.loop.engine import Engine, Keep, Point
from bot.loop.inbox import Inbox
from bot.loop.journal import Journal
from bot.loop.leases import INBOX, POLL_SECONDS, Leases
from bot.loop.onboarding import Offer
from bot.loop.record import Record, seal_key
from bot.loop.reports import Reports
from bot.loop.screening import Embeddings
from bot.loop.treasury import SERVER, Treasury
from bot.loop.world import World
from bot.server.access import Access
from bot.server.api import api_routes
from bot.server.backends import runner_of
from bot.server.deliveries import pull_deliveries, sweep_deliveries
from bot.server.handlers import Handlers
from bot.server.job_store import store_routes
from bot.server.logs import redact_logs
from bot.server.looking import Looker
from bot.server.machine_news import MachineNews
from bot.server.metrics import Metrics, TimedDeliveries, metrics_routes
from bot.server.monitoring import Monitor
from bot.server.onboarding import Onboarding
from bot.server.pages import page_routes
from bot.server.pages.curve_files import CurveFiles
from bot.server.policy_check import PolicyChecks
from bot.server.progress import progress_routes
from bot.server.reader import InboxReader
from bot.server.rebuild import Rebuilder
from bot.server.reconcile import Reconciler
from bot.server.run_tokens import RunTokens
from bot.server.schema import SCHEMA_PATH, schema_routes
from bot.server.summaries import Summaries
from bot.server.watcher import Watcher
from bot.server.webhook import Admission, webhook_routes
from runners.github_actions.backend import ActionsRunner
from runners.job import Hardware, Runner
from runners.sessions.walls import SessionWalls

log = logging.getLogger("postdoc.server")

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
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / ".writable").touch()
            (folder / ".writable").unlink(missing_ok=True)
        except OSError as error:
            raise SettingsError(f"POSTDOC_DATA_FOLDER: {folder} cannot be written: {error.strerror}.") from error
        database = open_database(settings.database())
        known_secrets = settings.secrets()
        redact_logs(known_secrets)
        self.inbox, self.treasury = Inbox(database), Treasury(database)
        self.journal = Journal(database, clean=partial(redacted, known=known_secrets))
        folders = _folders(settings, folder)
        self.record = Record(self.journal, self._seal_keys(), known_secrets=known_secrets, folders=folders)
        self.reports = Reports(database)
        self.access, self.summaries, self.curves = Access(settings), Summaries(self.journal), CurveFiles()
        self.metrics = Metrics()
        self.app = self._github(on_write)
        self.run_tokens = RunTokens(settings)
        self.runner = runner or runner_of(settings, folder / "jobs", self.app, known_secrets, self.run_tokens)
        self.machine_news = MachineNews(self.runner)
        self.world = World(
            app=self.app,
            runner=self.runner,
            treasury=self.treasury,
            data_folder=folder,
            model_folders=(*settings.model_folders, folder / "models"),
            benchmark_folders=settings.benchmark_folders,
            engine_environments={
                name: folder.absolute()
                for name, folder in (("inspect", settings.inspect_environment), ("vllm", settings.vllm_environment))
                if folder is not None
            },
            known_secrets=known_secrets,
            train_memory_gib=settings.job_memory_gib,
            cpu_threads=settings.job_threads,
            hardware=Hardware(settings.job_gpus, settings.nodes(), settings.flavor()),
            hub_token=settings.hub_token.get_secret_value() if settings.hub_token else "",
            traces_dataset=settings.traces_dataset,
            hub_namespaces=settings.hub_namespaces,
            private_data_hosts=settings.private_data_hosts,
            server_policy=load_server_policy(settings.policy_file),
            record=self.record,
            search=settings.search,
            job_python=settings.job_python,
            research=settings.research,
            brain=_brain(settings),
            own_judge=_judge(settings),
            sessions=cache(lambda: SessionWalls(folder / "sessions", settings.job_python)),
            embeddings=_embeddings(settings),
            **self._place(),
        )
        self.leases = Leases(database, folder / "executors", seconds=settings.lease_seconds)
        self.engine = Engine(
            self.journal,
            self.leases,
            self.metrics.counted(performer(self.world)),
            database_url=database.url.render_as_string(hide_password=False),
            at=at,
            keep=self._keep,
        )
        self.app.may_write = self.leases.check_write
        self.watcher = Watcher(
            self.world, self.engine, self.reports, Monitor(self.world), settings.check_update_seconds
        )
        self.admission = Admission(settings.allowed_accounts)
        self.metrics.watch(self)
        schema_url = f"{settings.public_url}{SCHEMA_PATH}" if settings.public_url else None
        offer = Offer(settings.label, schema_url)
        self.onboarding = Onboarding(self.app, offer, per_hour=settings.onboarding_per_hour)
        self.policy_checks = PolicyChecks(self.app, server_policy=self.world.server_policy, label=settings.label)
        self.arrived = asyncio.Event()
        """Set when the inbox holds something new."""
        self.handlers = Handlers(self.engine, self.app, label=settings.label, observe=self._observe)
        looker = Looker(self.app, self.engine, self.record, settings.label)
        self.rebuilder = Rebuilder(
            self.world, self.engine, looker, self.handlers.told, label=settings.label, database=database
        )
        self.reconciler = Reconciler(self.world, self.engine, looker, self.rebuilder, self.handlers.told)
        self.reader = InboxReader(
            self.inbox, self.handlers, self.arrived, may_read=lambda: self.hearing, on_handled=self.metrics.handled
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._started = False

    # What differs where there is no server (bot.serverless)

    _keep: Keep | None = None
    """See `bot.loop.engine.Keep`. The database of a server outlives it, so nothing is kept elsewhere."""

    def _seal_keys(self) -> Sequence[bytes]:
        return [seal_key(pem) for pem in (self.settings.key(), *self.settings.retired_keys())]

    def _github(self, on_write: OnWrite | None) -> GitHubApp:
        settings = self.settings
        return GitHubApp(
            app_id=settings.app_id,
            private_key=settings.key(),
            base_url=settings.github_url,
            on_write=on_write,
            on_answer=self.metrics.github_answered,
            pacing=Pacing(settings.write_pause_seconds, settings.writes_per_hour),
            known_secrets=settings.secrets(),
        )

    def _place(self) -> dict[str, Any]:
        """Fields of the `World` in which it is another place."""
        return {}

    @property
    def ready(self) -> bool:
        """True while deliveries can be stored and are acted upon."""
        return self._started and self.leases.reachable

    async def start(self) -> None:
        await self.app.__aenter__()
        await asyncio.to_thread(self.runner.sweep)
        await asyncio.to_thread(self._restore_treasury)
        await self.engine.start()
        await asyncio.to_thread(self.rebuilder.begin)
        fetch = pull_deliveries if self.settings.pull else sweep_deliveries
        work = [self._warm_pages(), self._lead(), self.reader.run(), self.watcher.watch(), fetch(self), self._prune()]
        work.append(self.reconciler.run(self.settings.reconcile_seconds, lambda: self.leading))
        if self.settings.onboarding:
            work.append(self.onboarding.run(lambda: self.leading))
        self._tasks = [asyncio.create_task(each) for each in work]
        self._started = True

    def _restore_treasury(self) -> None:
        """What a crash left unsettled, and all of it after the journals were rebuilt."""
        for goal_id in self.journal.goals():
            x = experiment_of(goal_id, self.journal.read(goal_id))
            self.treasury.restore(x)

    async def _warm_pages(self) -> None:
        """Every journal is summed up once, so that the first visitor does not wait for it."""
        with contextlib.suppress(TransientError, sqlalchemy.exc.SQLAlchemyError):
            await asyncio.to_thread(self.summaries.all)

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
        await asyncio.to_thread(self.inbox.close)
        if isinstance(self.runner, ActionsRunner):
            await asyncio.to_thread(self.runner.close)
        for model in (self.world.brain, self.world.own_judge):
            if model is not None:
                await model.close()
        await self.engine.stop()  # last: with DBOS ends the pool of threads that it gave to the loop
        await self.app.__aexit__(None, None, None)

    def abandon(self) -> None:
        """From any thread, before the process ends at once: write nothing more, and let others take over."""
        self.leases.abandon()

    async def _observe(self, event: Occurrence) -> None:
        """What a repository needs besides its goals. Raises: TransientError, so that the delivery waits."""
        await self.policy_checks.note(event)
        await self.reconciler.note(event)
        if self.settings.onboarding:
            await self.onboarding.note(event)

    def halted(self) -> str | None:
        """What of all spending is halted, in a sentence; None when nothing is. Blocks for a query."""
        halts = self.treasury.halts()
        if not halts:
            return None
        server = next((halt for halt in halts if halt.scope == SERVER), None)
        if server is not None:
            return f"On this server, by @{server.by}."
        return f"In {', '.join(f'{halt.scope} by @{halt.by}' for halt in halts)}."

    @property
    def leading(self) -> bool:
        """True when this process is the one of several that reads the inbox and asks GitHub for what is missing."""
        return self.leases.holds(INBOX)

    @property
    def hearing(self) -> bool:
        """True while this process reads the inbox. A goal whose journal is lost must be back before anything is heard
        of it, or it would start anew."""
        return self.leading and self.rebuilder.done

    async def _lead(self) -> None:
        """Become the one that reads the inbox as soon as nobody else is."""
        while True:
            if not self.leading:
                with contextlib.suppress(TransientError):
                    if await asyncio.to_thread(self.leases.acquire, INBOX):
                        self.arrived.set()
            await asyncio.sleep(POLL_SECONDS)

    async def _prune(self) -> None:
        """Finished workflows and old reports would fill the disk within years."""
        for pause in itertools.chain((FIRST_PRUNE_SECONDS,), itertools.repeat(PRUNE_SECONDS)):
            await asyncio.sleep(pause)
            if self.leading:
                try:
                    await workflows.prune(self.settings.keep_days)
                    await asyncio.to_thread(self.reports.prune)
                except Exception:
                    log.exception("what is old could not be pruned")


def _brain(settings: Settings) -> Model | None:
    """Raises: SettingsError, so that a mistake in its settings shows at the start and not at the first question."""
    if not settings.brain:
        return None
    key = settings.brain_key.get_secret_value() if settings.brain_key else ""
    return model_of(
        BrainSettings(
            settings.brain, key, settings.brain_url, settings.brain_effort, settings.brain_price,
            settings.brain_context_tokens,
        )
    )  # fmt: skip


def _judge(settings: Settings) -> Model | None:
    """None where POSTDOC_BRAIN judges as well. Raises: SettingsError."""
    if not settings.judge:
        return None
    key = settings.judge_key.get_secret_value() if settings.judge_key else ""
    try:
        return model_of(BrainSettings(settings.judge, key, settings.judge_url, price=settings.judge_price))
    except SettingsError as error:
        raise SettingsError(str(error).replace("POSTDOC_BRAIN", "POSTDOC_JUDGE")) from None


def _embeddings(settings: Settings) -> Embeddings | None:
    if not settings.scan_embeddings:
        return None
    python = str(settings.job_python or sys.executable)
    return Embeddings(settings.scan_embeddings, settings.scan_cosine, python)


def _folders(settings: Settings, data_folder: Path) -> tuple[Path, ...]:
    """Places of this machine whose names a public record leaves out."""
    python = (settings.job_python.parent.parent,) if settings.job_python is not None else ()
    return (data_folder, *settings.model_folders, *settings.benchmark_folders, *python, Path(sys.prefix), Path.home())


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
    for routes in (
        webhook_routes,
        api_routes,
        metrics_routes,
        page_routes,
        schema_routes,
        progress_routes,
        store_routes,
    ):
        app.include_router(routes(bot))
    app.add_middleware(TimedDeliveries, metrics=bot.metrics)
    return app


async def _unavailable(_: Request, error: Exception) -> Response:
    """Nothing was stored, so nothing is acknowledged: the sender keeps it and sends it again."""
    log.warning("a request was answered 503: %s", error)
    body = {"error": "the database cannot be used now; nothing was stored, send it again"}
    return JSONResponse(body, status_code=503, headers={"Retry-After": "10"})
