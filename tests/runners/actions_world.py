"""A practice forge, the server's endpoints for stores on a loopback port, and a machine that takes jobs."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from bot.config import Settings
from bot.conversation.github import GitHubApp, Pacing
from bot.conversation.github.registration import EVENTS, PERMISSIONS
from bot.domain.redaction import redact as redact_shapes
from bot.practice.actions_model import WorkflowRun
from bot.practice.auth import new_key_pair
from bot.practice.forge import Forge
from bot.practice.server import serve
from bot.server.actions_api import GitHubActions
from bot.server.job_store import JobStores, routes_of
from bot.server.machine_news import MachineNews
from bot.server.run_tokens import RunTokens
from runners.github_actions.backend import ActionsBackend, ActionsRunner, Dispatching
from runners.job import JobSpec, JobStatus
from tests.fakes.actions_machine import WORKFLOW, ActionsMachine
from tests.openapi import Recorder, available

LAB = "acme/lab"
WORKFLOW_PATH = ".github/workflows/postdoc-train.yml"
LEASE_SECONDS = 30.0
"""A wrapper that waits for a processor is not lost; who wants to see one lost calls `give_up`."""
_key = ""


class Labelled(ActionsRunner):
    """Launches with the labels that the bot gives its jobs."""

    def launch(self, spec: JobSpec) -> JobStatus:
        return super().launch(replace(spec, labels={"repository": LAB, **spec.labels}))


class ActionsWorld:
    """Everything around one root folder. `close` ends all of it."""

    def __init__(
        self,
        folder: Path,
        *,
        permissions: dict[str, str] | None = None,
        events: Sequence[str] = EVENTS,
        judged: bool = True,
    ) -> None:
        global _key
        _key = _key or new_key_pair()[0]
        self.folder, self.root = folder, folder / "mirror"
        self._stack = contextlib.ExitStack()
        self.recorder = Recorder()
        self.forge = Forge(folder / "forge")
        self._stack.callback(self.forge.close)
        self.forge.add_user("ada")
        self.forge.add_repository("acme", "lab", {"README.md": "# Lab\n", WORKFLOW_PATH: WORKFLOW}, private=True)
        self.forge.add_collaborator(LAB, "ada", "admin")
        self.refused = ""
        """Key that the server's endpoints are out of order for; `*` for all of them."""
        self.refused_downloads = 0
        """How many more downloads of an artifact are refused as if their address had expired."""
        judge = self.recorder.wrap if judged and available() else _unchanged
        self.url = self._stack.enter_context(serve(self.forge, wrap=lambda app: self._refusing(judge(app))))
        self.settings = Settings.model_validate(
            {"app_id": "1", "private_key": _key, "webhook_secret": "a-secret-for-tests"}
        )
        self.tokens = RunTokens(self.settings)
        self.stores = JobStores(self.root, self.tokens)
        self.runners: list[ActionsRunner] = []
        self.server_url = self._stack.enter_context(_served(self._application()))
        self.app = self.forge.register_app(
            slug="postdoc", permissions=permissions or PERMISSIONS, events=events, private_key_pem=_key,
            webhook_url=f"{self.server_url}/webhook",
        )  # fmt: skip
        self.forge.install_app(self.app.app_id, LAB)
        self.machines: list[ActionsMachine] = []
        self._apis: list[GitHubActions] = []

    def api(self) -> GitHubActions:
        app = GitHubApp(
            app_id=str(self.app.app_id), private_key=_key, base_url=f"{self.url}/api/v3", pacing=Pacing(0.0, 0)
        )
        self._apis.append(GitHubActions(app))
        return self._apis[-1]

    def runner(self, *, dispatching: dict[str, Any] | None = None, **options: Any) -> Labelled:
        given = {"look_seconds": 0.5, "again_seconds": 0.05} | (dispatching or {})
        settings = Dispatching(server_url=self.server_url, **given)
        self.root.mkdir(exist_ok=True)
        backend = ActionsBackend(self.root, self.api(), self.tokens.of, settings)
        backend.poll_seconds = 0.05
        runner = Labelled(self.root, backend, **{"redact": redact_shapes, "lease_seconds": LEASE_SECONDS, **options})
        self.runners.append(runner)
        return runner

    def give_up(self, lease_seconds: float = 1.0) -> None:
        """From now on a wrapper that is silent for so long counts as lost."""
        for runner in self.runners:
            runner._lease_seconds = lease_seconds

    def machine(self, *labels: str, name: str = "gpu-box") -> ActionsMachine:
        """One that takes jobs from now on."""
        registered = self.forge.add_machine(LAB, name, labels or ("postdoc",))
        machine = ActionsMachine(self.url, registered, self.folder / name)
        self.machines.append(machine)
        return machine.start()

    def runs(self, job_id: str = "job") -> list[WorkflowRun]:
        return [run for run in self.forge.runs_of(LAB) if run.title == f"postdoc {job_id}"]

    def close(self) -> None:
        self.forge.faults.clear()
        self.refused = ""
        for runner in self.runners[-1:]:
            for job_id in runner.jobs():
                runner.cancel(job_id)
        for machine in self.machines:
            machine.stop()
            machine.end_leftovers()
        for api in self._apis:
            api.close()
        self._stack.close()
        problems = self.recorder.violations()
        assert problems == [], problems

    def _refusing(self, app: ASGIApp) -> ASGIApp:
        async def serve_or_refuse(scope: Scope, receive: Receive, send: Send) -> None:
            if self.refused_downloads and scope["type"] == "http" and "/practice/artifacts/" in scope["path"]:
                self.refused_downloads -= 1
                await Response("Signature not valid in the specified time frame", 403)(scope, receive, send)
                return
            await app(scope, receive, send)

        return serve_or_refuse

    def _application(self) -> FastAPI:
        app = FastAPI()
        app.include_router(routes_of(self.stores))

        @app.middleware("http")
        async def remember(request: Request, call_next: Any) -> Any:
            if self.refused and (self.refused == "*" or request.url.path.endswith(self.refused)):
                return Response(status_code=503)
            return await call_next(request)

        @app.post("/webhook")
        async def webhook(request: Request) -> Response:
            body, event = await request.body(), request.headers["x-github-event"]
            for runner in self.runners:
                MachineNews(runner).note(event, body)
            return Response(status_code=202)

        return app


def _unchanged(app: ASGIApp) -> ASGIApp:
    return app


@contextlib.contextmanager
def _served(app: Any) -> Iterator[str]:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", access_log=False))
        thread = threading.Thread(target=server.run, args=([door],), daemon=True)
        thread.start()
        deadline = time.monotonic() + 60
        while not server.started:
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.005)
        yield f"http://127.0.0.1:{door.getsockname()[1]}"
        server.should_exit = True
        thread.join(10)
