"""One event, answered: from the lock to the last word, by the server's own rooms.

The order is the point. What was kept is put back before anything is heard; what is missing is looked for before or
after the event itself, as the order of people's words asks; and the lock is given back only when nothing is due, no job
runs here and nobody has rung.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from bot.conversation.github import GitHubApp, OnWrite, Pacing, Refs, Refused, WorkflowApp
from bot.domain.experiment import Experiment, Job
from bot.domain.goal import GoalId
from bot.errors import LeaseLost, PostdocError, SettingsError, TransientError
from bot.loop.actions.specs import trained_model
from bot.loop.engine import Point
from bot.loop.leases import INBOX
from bot.loop.record import key_of
from bot.server.app import Bot
from bot.serverless.happening import Happening
from bot.serverless.leaving import ON_THIS_MACHINE, end_jobs
from bot.serverless.ledger import Ledger, Loaded
from bot.serverless.lock import Lock
from bot.serverless.report import Outcome, Report
from bot.serverless.settings import RespondSettings
from runners.job import Runner

log = logging.getLogger("postdoc.respond")

T = TypeVar("T")
POLL_SECONDS = 0.1
RETRY_SECONDS, LONGEST_RETRY_SECONDS = 1.0, 60.0
WIDER_LOOK_EVERY, CLOSE_LOOK_EVERY = 6, 30
"""Of the looks while a job runs: at the whole repository, and closely at all of it."""
LAST_WORDS_SECONDS = 120.0
"""Before the time is up: for ending jobs, saying so and giving the lock back."""
LAST_WORDS_SHARE = 0.1
CANCELLED_SECONDS = 4.0
"""For the action under way when the workflow run is cancelled; GitHub kills 10 s after its first signal:
https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-cancellation"""
PERMISSIONS = "contents: write, issues: write, pull-requests: write, checks: write"


class Responder(Bot):
    """The bot in a workflow's job. One use: `respond`."""

    settings: RespondSettings

    def __init__(
        self,
        settings: RespondSettings,
        *,
        runner: Runner | None = None,
        at: Point | None = None,
        on_write: OnWrite | None = None,
    ) -> None:
        super().__init__(settings, runner=runner, at=at, on_write=on_write)
        owner, name = settings.repository.split("/")
        app = self.workflow
        run = settings.run or f"{socket.gethostname()} process {os.getpid()}"
        refs = Refs(app, 0, owner, name, paced=False)
        self.lock = Lock(refs, run, seconds=settings.lock_seconds, now=app.github_time)
        self.ledger = Ledger(
            Refs(app, 0, owner, name), self.lock, self.record, self.journal, self.treasury, self.runner,
            settings.data_folder.resolve(),
        )  # fmt: skip
        app.may_write = self._check_write
        self._began = time.monotonic()
        minutes = settings.minutes * 60
        self._deadline = self._began + minutes - min(LAST_WORDS_SECONDS, minutes * LAST_WORDS_SHARE)
        self._cancelled = asyncio.Event()
        self._looks = 0

    # In place of what a server has

    @property
    def workflow(self) -> WorkflowApp:
        assert isinstance(self.app, WorkflowApp)
        return self.app

    def _github(self, on_write: OnWrite | None) -> GitHubApp:
        settings = self.settings
        return WorkflowApp(
            settings.github_token.get_secret_value(),
            settings.repository,
            login=settings.bot_login,
            base_url=settings.github_url,
            on_write=on_write,
            on_answer=self.metrics.github_answered,
            pacing=Pacing(settings.write_pause_seconds, settings.writes_per_hour),
            known_secrets=settings.secrets(),
        )

    def _seal_keys(self) -> Sequence[bytes]:
        key = self.settings.journal_key
        return [key_of(key.get_secret_value() if key is not None else "")]

    def _place(self) -> dict[str, Any]:
        async def kept_file(goal_id: GoalId, path: str) -> bytes | None:
            return await self.ledger.kept_file(goal_id, path)

        return {
            "buttons": False,
            "machine": "this workflow's own machine",
            "lasting": not self.settings.machine_is_thrown_away,
            "kept_file": kept_file,
        }

    async def _keep(self, goal_id: GoalId, doing: dict[str, Any] | None) -> None:
        await self.ledger.keep(goal_id, doing)

    def _check_write(self) -> None:
        self.leases.check_write()
        self.lock.check()

    # From the lock to the last word

    def cancel(self) -> None:
        """The workflow run was cancelled: end what runs here, keep what is known, go. From the loop's own thread."""
        self._cancelled.set()

    async def respond(self, happening: Happening) -> Report:
        """Raises: SettingsError when the token may not do what it takes, TransientError when GitHub is away."""
        async with self.app:
            try:
                other = await self._patiently(lambda: self.lock.acquire(self.settings.lock_seconds * 3))
            except Refused as refused:
                raise SettingsError(_permissions_problem(refused)) from refused
            if other:
                return Report(Outcome.ANSWERED_ELSEWHERE, f"{other} is at work here and has looked since")
            renewing = asyncio.create_task(self.lock.keep(), name="renew the lock")
            try:
                return await self._respond(happening)
            finally:
                renewing.cancel()
                await asyncio.gather(renewing, return_exceptions=True)
                if self.lock.held:
                    with contextlib.suppress(PostdocError):
                        await self.lock.release(rung=True)
                shutil.rmtree(self.settings.memory_folder, ignore_errors=True)

    async def _respond(self, happening: Happening) -> Report:
        loaded = await self._patiently(lambda: self.ledger.load(self.settings.repository, self.app.github_time()))
        await self._start(loaded)
        report = Report(Outcome.HANDLED, problems=[_refusal(*each) for each in loaded.refused.items()])
        try:
            await self._hear(happening)
            report.outcome, report.why = await self._go_on()
        except LeaseLost as error:
            report.outcome, report.why = Outcome.LOST, str(error)
        finally:
            report.goals = await self._told()
            await self._end(report.outcome)
        return report

    async def _start(self, loaded: Loaded) -> None:
        self.workflow.began_at = self.ledger.began_at
        if self.lock.died_at is not None and self.settings.machine_is_thrown_away:
            self.watcher.alive_until = self.lock.died_at
        for goal_id, why in loaded.refused.items():
            log.error(_refusal(goal_id, why))
            self.engine.unreadable[goal_id] = why
        for goal_id, (n, action) in loaded.doing.items():
            self.engine.continues(goal_id, n, action)
        await asyncio.to_thread(_forget_the_dead, self.settings)
        await asyncio.to_thread(self.runner.sweep)
        await asyncio.to_thread(self._restore_treasury)
        await self.engine.start()
        await asyncio.to_thread(self.leases.acquire, INBOX)
        await asyncio.to_thread(self.rebuilder.begin)
        if loaded.book:
            self.rebuilder.done = True  # what is missing is looked for all the same, but halts are known
        await self._patiently(self.handlers.load)
        if self.lock.standing.released_at:
            self.reconciler.looked(self.settings.repository, self.lock.standing.released_at)
        self._tasks = [asyncio.create_task(self.watcher.watch(), name="watch jobs")]
        self._started = True

    async def _hear(self, happening: Happening) -> None:
        """The event, and what no event told: the process of an earlier one may have been left out by GitHub, which
        keeps one waiting process of a concurrency group and drops the others."""
        if happening.is_new_comment:
            # Comments are obeyed in the order in which they were written; this one may not be the oldest unheard.
            await self._look()
        if happening.name:
            why = await self._patiently(lambda: self.handlers.told(happening.name, happening.payload))
            log.info("%s: %s", happening.name, why or "heard")
        if not happening.is_new_comment:
            await self._look()

    async def _go_on(self) -> tuple[Outcome, str]:
        """Until nothing is due and no job runs, or the time is up."""
        looked_at = time.monotonic()
        while True:
            if self.lock.lost:
                raise LeaseLost(f"{self.lock.lost} has taken over this repository")
            if self._cancelled.is_set():
                return Outcome.CANCELLED, await self._leave("the workflow run was cancelled", CANCELLED_SECONDS)
            if time.monotonic() >= self._deadline:
                why = f"the workflow's {self.settings.minutes:g} minutes ended before this goal did"
                return Outcome.OUT_OF_TIME, await self._leave(why, LAST_WORDS_SECONDS / 2)
            if self._at_rest():
                await self.handlers.settle()
                if await self._patiently(self._given_back):
                    return Outcome.HANDLED, ""
            elif time.monotonic() - looked_at >= self.settings.look_seconds:
                await self._look_around()
                looked_at = time.monotonic()
            await self._pause(POLL_SECONDS)

    async def _given_back(self) -> bool:
        """Give the lock back, with everything kept; whoever has rung is looked for first."""
        if rung := await self.lock.rung():
            await self._look()
            await self.lock.answer(rung)
            return False
        await self.ledger.keep_all()
        return self._at_rest() and await self.lock.release()

    def _at_rest(self) -> bool:
        return not self.engine.busy and not self._running()

    def _running(self) -> list[tuple[Experiment, Job]]:
        return [(x, job) for x in self.engine.waiting.values() for job in x.running_jobs]

    # Looking

    async def _look_around(self) -> None:
        """While a job runs here: what people say to its goal now, and by and by all that happened."""
        self._looks += 1
        try:
            rung = await self.lock.rung()
            if rung or self._looks % WIDER_LOOK_EVERY == 0:
                await self._look(closely=self._looks % CLOSE_LOOK_EVERY == 0)
                if rung:
                    await self.lock.answer(rung)
            for goal_id in {x.goal_id for x, _ in self._running()}:
                await self.reconciler.look_at(goal_id)
        except LeaseLost:
            raise
        except PostdocError as error:
            log.warning("what people did could not be looked at: %s", error)

    async def _look(self, *, closely: bool = False) -> None:
        """Goals that no journal knows, and what changed in the others."""
        try:
            await self.rebuilder.rebuild()
            await self.reconciler.look_at_all(closely=closely)
        except LeaseLost:
            raise
        except PostdocError as error:
            log.warning("GitHub could not be compared with the journals: %s", error)

    # Ending

    async def _leave(self, why: str, limit_seconds: float) -> str:
        """End the jobs that end with this machine, say so where there is time, and start nothing more."""
        for task in self._tasks:
            task.cancel()  # what is ended here must not be seen as ended, and started again, before it is said why
        await asyncio.gather(*self._tasks, return_exceptions=True)
        cancelled, here = self._cancelled.is_set(), self.runner.name in ON_THIS_MACHINE
        if not cancelled and here and self.settings.machine_is_thrown_away:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limit_seconds):
                    await self._end_jobs(why, again=True)
                    while self.engine.busy and not self.lock.lost:
                        await self._pause(POLL_SECONDS)
        if not await self.engine.drain(limit_seconds):
            log.warning("an action was not over in time; the next process carries it on")
        if cancelled and here:
            await self._end_jobs(why, again=False)  # whoever cancels a workflow run wants nothing of it to go on
        return why

    async def _end_jobs(self, why: str, *, again: bool) -> None:
        elapsed = time.monotonic() - self._began
        await end_jobs(self.engine, self.runner, why, again_since=time.time() - elapsed / 2 if again else None)

    async def _end(self, outcome: Outcome) -> None:
        if outcome is Outcome.LOST:
            self.abandon()
        elif self.lock.held:
            try:
                async with asyncio.timeout(LAST_WORDS_SECONDS / 2):
                    await self._patiently(self.ledger.keep_all, give_up=outcome is Outcome.CANCELLED)
            except (PostdocError, TimeoutError) as error:
                log.warning("what came last is not kept, and will be found by looking: %s", error)
        await self.stop()

    async def _told(self) -> list[dict[str, Any]]:
        goals = []
        for goal_id in sorted(self.ledger.changed):
            x = await self.engine.experiment(goal_id)
            model = trained_model(self.world, x, x.best_run.n) if x.best_run is not None else None
            where: dict[str, Any] = {
                "goal_id": goal_id,
                "state": str(x.state),
                "pull_request": x.pull_request,
                "runs": len(x.runs),
            }
            running = [job.job_id for job in x.running_jobs]
            goals.append(where | {"running": running, "model": str(model) if model and model.is_dir() else None})
        return goals

    # Waiting

    async def _patiently(self, ask: Callable[[], Awaitable[T]], *, give_up: bool = False) -> T:
        """The answer, outages waited out for as long as there is time. Raises: TransientError once there is none."""
        pause = RETRY_SECONDS
        while True:
            try:
                return await ask()
            except TransientError as error:
                wait = max(pause, error.retry_after_seconds or 0.0)
                if give_up or self._cancelled.is_set() or time.monotonic() + wait >= self._deadline:
                    raise
                log.warning("%s; again in %.0f s", error, wait)
                await self._pause(wait)
                pause = min(pause * 2, LONGEST_RETRY_SECONDS)

    async def _pause(self, seconds: float) -> None:
        if self._cancelled.is_set():
            await asyncio.sleep(min(seconds, POLL_SECONDS))
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._cancelled.wait(), seconds)


def _refusal(goal_id: GoalId, why: str) -> str:
    number = goal_id.rpartition("#")[2]
    return (
        f"goal {goal_id} is left alone: the journal on refs/postdoc/{number} is refused, because {why}. Put a genuine "
        "commit back on that ref, or delete it: the goal is then brought back from its pull request"
    )


def _permissions_problem(refused: Refused) -> str:
    return f"The workflow's token may not do what this takes ({refused}). Give its job `permissions: {PERMISSIONS}`."


def _forget_the_dead(settings: RespondSettings) -> None:
    """Databases and lock files of processes that were killed on this machine."""
    folder = settings.data_folder.resolve()
    for path in [*settings.memory_folder.parent.glob("*-*"), *(folder / "executors").glob("*-*")]:
        number = path.name.partition("-")[0]
        if not number.isdigit() or Path(f"/proc/{number}").exists():
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
