"""The monitor beside running jobs: what it sees in their curves, and the ending of those that are doomed.

That a job is to be ended is written into its goal's journal first. Whoever watches then asks the script for a
checkpoint and ends the job, however often the process is killed in between. A job whose wrapper judges it itself
(`JobStatus.watched`) is only given advice here; its verdict comes with its status.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bot.conversation import messages
from bot.conversation.policy import Policy
from bot.diagnosis.monitor import Judgement
from bot.diagnosis.watching import Pace, Quiet, total_steps, verdict, watched
from bot.domain.experiment import EventKind, Experiment, Job, JobRole, NewEvent
from bot.errors import UserError
from bot.loop.actions.specs import Trained, arm_of
from bot.loop.actions.traces import output_json
from bot.loop.world import World
from runners.job import JobId, JobStatus

log = logging.getLogger("postdoc.monitor")

ADVISE_SECONDS = 10.0
"""Between two looks for what is only advice: the engine takes milliseconds, and many jobs may run."""
MOST_ROWS = 20_000
"""Of a longer curve the last are judged; a rule that needs its beginning then says nothing."""


@dataclass(slots=True)
class Monitor:
    """One for each process; it remembers nothing that the journal or a job's own files do not say."""

    world: World
    _seen: dict[str, int] = field(default_factory=dict)
    """Job -> rows that have been judged."""
    _advised_at: dict[str, float] = field(default_factory=dict)
    _advice: dict[str, str] = field(default_factory=dict)
    _end_at: dict[str, float] = field(default_factory=dict)
    """Job -> until when it may make the checkpoint that it was asked for."""
    _pace: dict[str, Pace] = field(default_factory=dict)

    async def look(
        self,
        x: Experiment,
        job: Job,
        rows: Sequence[Mapping[str, Any]],
        setup: Mapping[str, Any],
        status: JobStatus,
    ) -> NewEvent | None:
        """The event that ends this job, where it has to be; None while it goes on."""
        how = Policy.from_dict(x.policy).monitor
        if how == "off" or job.stopped is not None or job.role not in (JobRole.TRAIN, JobRole.ABLATE):
            return None
        now = time.monotonic()
        step = int(rows[-1].get("step", len(rows))) if rows else 0
        # The job began by the machine's clock, and paces are taken by this one.
        self._pace.setdefault(job.job_id, Pace(now - (self.world.clock() - job.launched_at))).see(step, now)
        advise = now - self._advised_at.get(job.job_id, float("-inf")) >= ADVISE_SECONDS
        quiet = Quiet(status.seconds_since_output or 0.0, status.cpu_share)
        if self._seen.get(job.job_id) == len(rows) and rows and not (quiet.worth_saying and advise):
            return None
        self._seen[job.job_id] = len(rows)
        found = await asyncio.to_thread(self._judged, x, job, rows, setup, advise, quiet)
        if advise:
            self._advised_at[job.job_id] = now
        if found is None:
            if advise:
                self._advice.pop(job.job_id, None)
            return None
        # Of a watched job: whoever stands beside it sees the same, and ends it.
        if not found.tier.ends or how == "advise" or status.watched:
            would_end = found.tier.ends and how == "advise"
            self._advice[job.job_id] = messages.monitor_advice(found.diagnoses, would_end=would_end)
            return None
        return self._ending(x, job, found, setup)

    def advice(self, job: Job) -> str:
        """What is seen in a job that goes on, for its check."""
        return self._advice.get(job.job_id, "")

    def _judged(
        self,
        x: Experiment,
        job: Job,
        rows: Sequence[Mapping[str, Any]],
        setup: Mapping[str, Any],
        advise: bool,
        quiet: Quiet,
    ) -> Judgement | None:
        trained = (
            Trained.of_arm(*arm_of(x, job.run)) if job.role is JobRole.ABLATE else Trained.of_run(x.runs[job.run - 1])
        )
        audit = output_json(self.world.runner.folder(JobId(job.job_id)), "out/data_audit.json")
        try:
            return watched(trained.recipe, rows[-MOST_ROWS:], setup=setup, audit=audit, advise=advise, quiet=quiet)
        except UserError:
            return None  # the script has refused that recipe already
        except Exception:  # a curve that a rule cannot read must not end what watches every goal's jobs
            log.exception("job %s could not be judged", job.job_id)
            return None

    def _ending(self, x: Experiment, job: Job, found: Judgement, setup: Mapping[str, Any]) -> NewEvent:
        pace, now = self._pace[job.job_id], time.monotonic()
        return monitored(x, job, verdict(found, setup, pace.left_seconds(found.step, total_steps(setup), now)))

    async def end(self, x: Experiment, job: Job) -> None:
        """Ask a job that was judged to be doomed for a checkpoint, and end it once that is made or takes too long."""
        runner, job_id, now = self.world.runner, JobId(job.job_id), time.monotonic()
        if job_id not in self._end_at:
            worth = bool((job.stopped or {}).get("worth_saving"))
            most = await asyncio.to_thread(runner.checkpoint_first, job_id) if worth else 0.0
            self._end_at[job_id] = now + most
            with contextlib.suppress(Exception):
                await self._tell(x, job)
            if most:
                return
        if now >= self._end_at[job_id] or await asyncio.to_thread(runner.checkpoint_is_made, job_id):
            await asyncio.to_thread(runner.cancel, job_id)

    async def _tell(self, x: Experiment, job: Job) -> None:
        run = x.runs[job.run - 1] if job.role is JobRole.TRAIN else None
        if run is None or run.check_run_id is None or job.stopped is None:
            return
        title, summary = messages.stopping_check(job.stopped)
        await self.world.repository(x).update_check(run.check_run_id, output={"title": title, "summary": summary})


def monitored(x: Experiment, job: Job, found: Mapping[str, Any]) -> NewEvent:
    """What a job is ended for, whoever judged it, with what that saves at the price of its machine."""
    seconds = found.get("saved_seconds")
    about = {"job_id": job.job_id, "role": str(job.role), "run": job.run}
    saved = {"saved_usd": round(seconds / 3600 * x.price_of(job), 4) if seconds is not None else None}
    return NewEvent(EventKind.MONITORED, f"job/{job.job_id}/monitored", {**found, **about, **saved})
