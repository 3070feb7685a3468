"""Watching running jobs: their ends go into the journal, their progress onto the check run.

Progress is cosmetic: it is derived from the job's own files, so a restart loses nothing but the last update.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

from bot.conversation import messages
from bot.domain.diagnosis import verdict_in
from bot.domain.experiment import EventKind, Experiment, Job, JobRole, NewEvent
from bot.domain.goal import GoalId
from bot.errors import PostdocError
from bot.loop.actions.jobs import settle
from bot.loop.actions.traces import metrics_of, number, output_json
from bot.loop.engine import Engine
from bot.loop.reports import Reports
from bot.loop.spending import spend_of
from bot.loop.treasury import SERVER, Halt
from bot.loop.world import World
from bot.server.monitoring import Monitor, monitored
from runners.job import JobId, JobState, JobStatus

log = logging.getLogger("postdoc.watcher")

POLL_SECONDS = 0.1
PROGRESS_SECONDS = 0.5
HALT_SECONDS = 1.0
SWEEP_SECONDS = 300.0


@dataclass(slots=True)
class Watcher:
    """Polls the runner for the jobs that goals wait for."""

    world: World
    engine: Engine
    reports: Reports
    monitor: Monitor
    check_update_seconds: float = 30.0
    alive_until: float | None = None
    """When the process before this one was last known to live, where its jobs ended with its machine. Unix seconds."""
    progress: dict[GoalId, dict[str, object]] = field(default_factory=dict)
    """What the running job of each goal has come to, for the read-only views."""
    _known_halts: list[Halt] = field(default_factory=list)
    _halts_asked_at: float = float("-inf")
    _swept_at: float = field(default_factory=time.monotonic)
    _looked_at: dict[str, float] = field(default_factory=dict)
    _told_at: dict[str, float] = field(default_factory=dict)
    _first_step: dict[str, tuple[float, int]] = field(default_factory=dict)
    """Job -> (when its first step was seen, that step)."""

    async def watch(self) -> None:
        """Poll until cancelled."""
        while True:
            halts = await self._halts()
            await self._sweep()
            # An end that cannot be written down now is seen again later.
            seen = list(self.engine.waiting.items()) if self.engine.leases.reachable else []
            for goal_id, experiment in seen:
                try:
                    await self._stop_if_halted(goal_id, experiment, halts)
                    await self._look(goal_id, experiment)
                except PostdocError as error:
                    log.warning("goal %s: %s", goal_id, error)
                except Exception:
                    log.exception("goal %s: watching failed", goal_id)
            await asyncio.sleep(POLL_SECONDS)

    async def _halts(self) -> list[Halt]:
        """Asked once a second; when the database cannot say, the halts that were last known stand."""
        now = time.monotonic()
        if now - self._halts_asked_at >= HALT_SECONDS:
            self._halts_asked_at = now
            try:
                self._known_halts = await asyncio.to_thread(self.world.treasury.halts)
            except Exception as error:
                log.warning("whether spending is halted could not be read: %s", type(error).__name__)
        return self._known_halts

    async def _sweep(self) -> None:
        """End what the backend still runs for nobody, start what was only written down."""
        if time.monotonic() - self._swept_at < SWEEP_SECONDS:
            return
        self._swept_at = time.monotonic()
        try:
            swept = await asyncio.to_thread(self.world.runner.sweep)
        except PostdocError as error:
            log.warning("the runner could not be swept: %s", error)
            return
        for what in swept.ended:
            log.warning("ended an orphan of the runner: %s", what)

    async def _stop_if_halted(self, goal_id: GoalId, x: Experiment, halts: Sequence[Halt]) -> None:
        """What runs is ended; what only waits spends nothing, and is refused when it wants to."""
        if not x.running_jobs or x.stop_requested is not None:
            return
        if not any(halt.scope in (SERVER, x.full_name) for halt in halts):
            return
        # Asked again, because what was known a moment ago may have been lifted since.
        halt = await asyncio.to_thread(self.world.treasury.halted, x.full_name)
        if halt is not None:
            data = {"by": halt.by, "reason": halt.sentence()}
            await self.engine.append(goal_id, [NewEvent(EventKind.STOPPED, f"halt/{halt.at}", data)])

    async def _look(self, goal_id: GoalId, x: Experiment) -> None:
        jobs = x.running_jobs
        if not jobs:
            self.progress.pop(goal_id, None)
        for job in jobs:
            status = await asyncio.to_thread(self.world.runner.status, JobId(job.job_id))
            # A job folder that is gone is a job that is gone: the runner has forgotten it.
            status = status or self._lost(job)
            if job.stopped is None and (found := verdict_in(status.as_dict())) is not None:
                await self.engine.append(goal_id, [monitored(x, job, found)])
                job.stopped = found
            if job.stopped is not None and not status.state.ended:
                await self.monitor.end(x, job)
            elif status.state.ended:
                self.progress.pop(goal_id, None)
                data = {"job_id": job.job_id, "status": status.as_dict()}
                await self.engine.append(goal_id, [NewEvent(EventKind.JOB_ENDED, f"job/{job.job_id}/ended", data)])
                await settle(self.world, await self.engine.experiment(goal_id))
            else:
                await self._show(goal_id, x, job, status)

    def _lost(self, job: Job) -> JobStatus:
        """What it took is not known, so it counts with the most that it can have been."""
        ended = min(self.world.clock(), job.launched_at + job.reserved.get("gpu_hours", 0.0) * 3600)
        if self.alive_until is not None:
            ended = min(ended, max(self.alive_until, job.launched_at))
        gone = ("the job's folder is gone",)
        return JobStatus(JobId(job.job_id), JobState.LOST, job.launched_at, ended, evidence=gone)

    async def _show(self, goal_id: GoalId, x: Experiment, job: Job, status: JobStatus) -> None:
        now = time.monotonic()
        if now - self._looked_at.get(job.job_id, 0.0) < PROGRESS_SECONDS:
            return
        self._looked_at[job.job_id] = now
        folder = self.world.runner.folder(JobId(job.job_id))
        trains = job.role in (JobRole.TRAIN, JobRole.ABLATE)
        metrics = await asyncio.to_thread(metrics_of, folder) if trains else []
        setup = output_json(folder, "out/setup.json") or {}
        if trains and not metrics:
            # A backend that cannot be watched: what the job itself reports is all there is.
            metrics = await asyncio.to_thread(self.reports.steps, job.job_id)
            setup = {"max_steps": metrics[-1].get("max_steps")} if metrics else setup
        if trains and (ending := await self.monitor.look(x, job, metrics, setup, status)) is not None:
            await self.engine.append(goal_id, [ending])
            return
        progress = replace(
            self._progress(x, job, metrics, setup), waits=_waits(status), advice=self.monitor.advice(job)
        )
        self.progress[goal_id] = {"job_id": job.job_id, "role": str(job.role), "run": job.run} | asdict(progress)
        if job.role is not JobRole.TRAIN or now - self._told_at.get(job.job_id, now - 1e9) < self.check_update_seconds:
            return
        run = x.runs[job.run - 1]
        if run.check_run_id is None or run.reviewed or not (metrics or progress.waits):
            return
        self._told_at[job.job_id] = now
        losses = [number(row["loss"]) for row in metrics if "loss" in row]
        title = messages.check_title(run, progress)
        summary = messages.check_summary(run, progress, losses)
        await self.world.repository(x).update_check(run.check_run_id, output={"title": title, "summary": summary})

    def _progress(
        self, x: Experiment, job: Job, metrics: list[dict[str, object]], setup: dict[str, object]
    ) -> messages.Progress:
        # Its share of the reservation by the time it has run: what it would cost if it ended now.
        hours = max(0.0, self.world.clock() - job.launched_at) / 3600
        reserved = job.reserved.get("gpu_hours", 0.0)
        spent = spend_of(x).usd + (job.reserved.get("usd", 0.0) * min(1.0, hours / reserved) if reserved else 0.0)
        budget = x.ceilings.usd if x.ceilings.usd and spent else 0.0
        rows = [row for row in metrics if "loss" in row]
        step = int(str(rows[-1]["step"])) if rows else 0
        total = setup.get("max_steps")
        total_steps = int(total) if isinstance(total, int) else None
        eta = None
        if step and total_steps:
            # From the first step that was seen, because the start of a job is seconds of imports.
            since, first = self._first_step.setdefault(job.job_id, (time.monotonic(), step))
            if step > first:
                eta = max(0.0, (time.monotonic() - since) / (step - first) * (total_steps - step))
        return messages.Progress(
            step=step,
            total_steps=total_steps,
            loss=number(rows[-1]["loss"]) if rows else None,
            spent_usd=spent,
            budget_usd=budget,
            eta_seconds=eta,
            phase=str(job.role),
        )


def _waits(status: JobStatus) -> str:
    """Why a job has not begun yet, in the runner's words."""
    return status.detail if status.state is JobState.QUEUED else ""
