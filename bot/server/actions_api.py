"""The runner's port to GitHub Actions over the bot's own connection: same gates, same credentials, same caches.

The runner works in threads and the connection on an event loop, so the calls pass through a loop of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from bot.conversation.github import GitHubApp, Gone, Refused
from bot.conversation.github.workflow_runs import WorkflowRuns
from bot.errors import PlatformError, TransientError, UserError
from runners.github_actions.api import ActionsMachine, RunSeen

T = TypeVar("T")
_CALL_SECONDS, _DOWNLOAD_SECONDS = 300.0, 3600.0
_MOST_REPOSITORIES = 50
"""That are looked through for jobs which nobody here remembers."""


class GitHubActions:
    """`runners.github_actions.api.ActionsApi`. Blocks; never called on the server's own loop."""

    def __init__(self, app: GitHubApp) -> None:
        self._app = app
        self._installations: dict[str, int] = {}
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def started(self, repository: str, workflow: str) -> Sequence[RunSeen]:
        async def ask() -> list[RunSeen]:
            return [_seen(row) for row in await (await self._of(repository)).runs(workflow)]

        return self._wait(ask(), missing=_no_workflow(repository, workflow))

    def dispatch(self, repository: str, workflow: str, inputs: Mapping[str, str]) -> RunSeen | None:
        async def ask() -> RunSeen | None:
            place = await self._of(repository)
            sha = inputs.get("sha") or (await place.default_branch())[1]
            told = await place.dispatch(workflow, {**inputs, "sha": sha})
            return None if told is None else RunSeen(int(told["workflow_run_id"]), "", "queued", "", told["html_url"])

        return self._wait(ask(), missing=_no_workflow(repository, workflow))

    def run(self, repository: str, run_id: int) -> RunSeen | None:
        async def ask() -> RunSeen | None:
            found = await (await self._of(repository)).run(run_id)
            return None if found is None else _seen(found)

        return self._wait(ask())

    def machine_of(self, repository: str, run_id: int) -> str:
        async def ask() -> str:
            jobs = await (await self._of(repository)).jobs(run_id)
            return next((str(job["runner_name"]) for job in jobs if job.get("runner_name")), "")

        return self._wait(ask())

    def machines(self, repository: str) -> Sequence[ActionsMachine] | None:
        async def ask() -> list[ActionsMachine] | None:
            rows = await (await self._of(repository)).machines()
            return None if rows is None else [_machine(row) for row in rows]

        return self._wait(ask())

    def cancel(self, repository: str, run_id: int, *, force: bool) -> None:
        async def ask() -> None:
            await (await self._of(repository)).cancel_run(run_id, force=force)

        self._wait(ask())

    def artifact(self, repository: str, run_id: int, name: str, path: Path, limit_bytes: int) -> bool:
        async def ask() -> bool:
            return await (await self._of(repository)).artifact(run_id, name, path, limit_bytes)

        return self._wait(ask(), seconds=_DOWNLOAD_SECONDS)

    def repositories(self) -> Sequence[str]:
        async def ask() -> list[str]:
            found: list[str] = []
            for each in await self._app.installations():
                if not each.suspended and len(found) < _MOST_REPOSITORIES:
                    found += [str(row["full_name"]) for row in await self._app.installation_repositories(each.id)]
            return found[:_MOST_REPOSITORIES]

        return self._wait(ask())

    def close(self) -> None:
        """End the loop and its connections; the next call begins a new one."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None:
            with contextlib.suppress(Exception):
                asyncio.run_coroutine_threadsafe(self._app.close(), loop).result(5)
            loop.call_soon_threadsafe(loop.stop)

    async def _of(self, repository: str) -> WorkflowRuns:
        """Raises: UserError where the App is not installed."""
        owner, _, name = repository.partition("/")
        if repository not in self._installations:
            self._installations[repository] = await self._app.installation_of(owner, name)
        return WorkflowRuns(self._app, self._installations[repository], owner, name)

    def _wait(self, call: Coroutine[Any, Any, T], *, missing: str = "", seconds: float = _CALL_SECONDS) -> T:
        """The call's result. Raises: PlatformError, UserError; `missing` is what a 404 means."""
        future = asyncio.run_coroutine_threadsafe(call, self._running_loop())
        try:
            return future.result(seconds)
        except TimeoutError as error:
            future.cancel()
            raise PlatformError("GitHub did not answer in time") from error
        except TransientError as error:
            raise PlatformError(str(error)) from error
        except Gone as gone:
            self._installations.clear()  # it may have been moved to another installation
            raise UserError(str(gone)) from gone
        except Refused as refused:
            raise UserError(missing if missing and refused.status == 404 else str(refused)) from refused

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=_run, args=(self._loop,), name="github-actions", daemon=True).start()
            return self._loop


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()


def _seen(row: Mapping[str, Any]) -> RunSeen:
    return RunSeen(
        int(row["id"]), str(row.get("display_title") or ""), str(row.get("status") or ""),
        str(row.get("conclusion") or ""), str(row.get("html_url") or ""),
    )  # fmt: skip


def _machine(row: Mapping[str, Any]) -> ActionsMachine:
    labels = frozenset(str(label["name"]).lower() for label in row.get("labels") or ())
    return ActionsMachine(str(row["name"]), labels, row.get("status") == "online", bool(row.get("busy")))


def _no_workflow(repository: str, workflow: str) -> str:
    return (
        f"`.github/workflows/{workflow}` is not on the default branch of {repository}. Put Postdoc's workflow file "
        "`templates/workflows/postdoc-train.yml` there, and write `/postdoc resume`."
    )
