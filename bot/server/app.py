"""The FastAPI application: the webhook that stores before it answers, and read-only views of the journals."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import itertools
import logging
import secrets
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI, Header, HTTPException, Request, Response
from fastapi.responses import JSONResponse

from bot import __version__
from bot.config import Settings
from bot.conversation.github import GitHubApp, OnWrite
from bot.domain.goal import GoalId
from bot.errors import PostdocError, TransientError
from bot.loop.actions import performer
from bot.loop.engine import Engine, Point
from bot.loop.journal import Journal, open_database
from bot.loop.world import World
from bot.server.handlers import Handlers
from bot.server.watcher import Watcher
from runners.job import Runner
from runners.local import LocalRunner

log = logging.getLogger("postdoc.server")

FIRST_SWEEP_SECONDS, SWEEP_SECONDS = 0.3, 300.0
INBOX_RETRY_SECONDS = 2.0
LARGEST_BODY_BYTES = 25 * 1024 * 1024
"""GitHub sends no larger payload: https://docs.github.com/en/webhooks/webhook-events-and-payloads"""


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
        self.journal = Journal(open_database(database_url))
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
            for delivery in await asyncio.to_thread(self.journal.unhandled):
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
                await asyncio.to_thread(self.journal.mark_handled, delivery.seq, outcome)
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

    @app.post("/webhook", status_code=202)
    async def webhook(
        request: Request,
        x_hub_signature_256: str = Header(default=""),
        x_github_event: str = Header(default="", max_length=100),
        x_github_delivery: str = Header(default="", max_length=200),
    ) -> JSONResponse:
        body = await _body(request)
        expected = (
            "sha256="
            + hmac.new(bot.settings.webhook_secret.get_secret_value().encode(), body, hashlib.sha256).hexdigest()
        )
        if not hmac.compare_digest(expected.encode(), x_hub_signature_256.encode()):
            return JSONResponse({"error": "the signature does not match"}, status_code=401)
        if not x_github_event or not x_github_delivery:
            return JSONResponse({"error": "X-GitHub-Event and X-GitHub-Delivery are required"}, status_code=400)
        new = await asyncio.to_thread(bot.journal.receive, x_github_delivery, x_github_event, body)
        bot.arrived.set()
        return JSONResponse({"stored": new}, status_code=202)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok", "version": __version__}

    @app.get("/readyz")
    async def readyz() -> Response:
        return JSONResponse({"ready": bot.ready}, status_code=200 if bot.ready else 503)

    @app.get("/api/goals")
    async def goals(authorization: str = Header(default="")) -> list[dict[str, Any]]:
        _may_read(bot.settings, authorization)
        found = []
        for goal_id in await asyncio.to_thread(bot.journal.goals):
            x = await bot.engine.experiment(goal_id)
            found.append({"goal_id": goal_id, "state": x.state, "pull_request": x.pull_request, "runs": len(x.runs)})
        return found

    @app.get("/api/goals/{owner}/{repository}/{issue}/events")
    async def events(
        owner: str, repository: str, issue: int, after: int = -1, authorization: str = Header(default="")
    ) -> dict[str, Any]:
        """The goal's journal after event `after`, and the running job's progress."""
        _may_read(bot.settings, authorization)
        goal_id = GoalId(f"{owner}/{repository}#{issue}")
        journal = await asyncio.to_thread(bot.journal.read, goal_id)
        return {"events": [asdict(e) for e in journal if e.seq > after], "progress": bot.watcher.progress.get(goal_id)}

    return app


async def _body(request: Request) -> bytes:
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > LARGEST_BODY_BYTES:
            raise HTTPException(413, "the payload is larger than GitHub ever sends")
        chunks.append(chunk)
    return b"".join(chunks)


def _may_read(settings: Settings, authorization: str) -> None:
    """The journals hold private issues: only loopback, or the holder of the token, may read them."""
    if settings.api_token is None:
        if settings.loopback:
            return
        raise HTTPException(403, "Set POSTDOC_API_TOKEN to read /api on an address that others can reach.")
    token = settings.api_token.get_secret_value()
    if not secrets.compare_digest(authorization.encode(), f"Bearer {token}".encode()):
        raise HTTPException(401, "A bearer token is needed.")
