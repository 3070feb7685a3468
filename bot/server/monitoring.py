"""The monitor beside running jobs: what it sees in their curves, and the ending of those that are doomed.

That a job is to be ended is written into its goal's journal first. Whoever watches then asks the script for a
checkpoint and ends the job, however often the process is killed in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bot.conversation import messages
from bot.conversation.policy import Policy
from bot.diagnosis.monitor import Judgement, judged
from bot.domain.experiment import EventKind, Experiment, Job, JobRole, NewEvent
from bot.errors import UserError
from bot.loop.actions.specs import Trained, arm_of
from bot.loop.actions.traces import output_json
from bot.loop.world import World
from runners.checkpoints import ask_for_checkpoint, checkpoint_is_made
from runners.job import JobId

log = logging.getLogger("postdoc.monitor")

ADVISE_SECONDS = 10.0
"""Between two looks for what is only advice: the engine takes milliseconds, and many jobs may run."""
CHECKPOINT_SECONDS = 60.0
"""A job that has made no checkpoint by then is ended without one."""
FAR = frozenset({"actions", "hf_jobs", "ray"})
"""Runners whose jobs do not see the folder on this machine: what they saved by themselves has left theirs already."""
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
    _asked_at: dict[str, float] = field(default_factory=dict)
    """Job -> when its checkpoint was asked for."""
    _first: dict[str, tuple[float, int]] = field(default_factory=dict)
    """Job -> (when its first logged step was seen, that step)."""

    async def look(
        self, x: Experiment, job: Job, rows: Sequence[Mapping[str, Any]], setup: Mapping[str, Any]
    ) -> NewEvent | None:
        """The event that ends this job, where it has to be; None while it goes on."""
        how = Policy.from_dict(x.policy).monitor
        if how == "off" or job.stopped is not None or job.role not in (JobRole.TRAIN, JobRole.ABLATE):
            return None
        if rows:
            self._first.setdefault(job.job_id, (time.monotonic(), int(rows[-1].get("step", 0))))
        now = time.monotonic()
        advise = now - self._advised_at.get(job.job_id, float("-inf")) >= ADVISE_SECONDS
        if self._seen.get(job.job_id) == len(rows) and rows:
            return None
        self._seen[job.job_id] = len(rows)
        found = await asyncio.to_thread(self._judged, x, job, rows, setup, advise)
        if advise:
            self._advised_at[job.job_id] = now
        if found is None:
            if advise:
                self._advice.pop(job.job_id, None)
            return None
        if not found.tier.ends or how == "advise":
            self._advice[job.job_id] = messages.monitor_advice(found.diagnoses, would_end=found.tier.ends)
            return None
        return self._ending(x, job, found, setup)

    def advice(self, job: Job) -> str:
        """What is seen in a job that goes on, for its check."""
        return self._advice.get(job.job_id, "")

    def _judged(
        self, x: Experiment, job: Job, rows: Sequence[Mapping[str, Any]], setup: Mapping[str, Any], advise: bool
    ) -> Judgement | None:
        trained = (
            Trained.of_arm(*arm_of(x, job.run)) if job.role is JobRole.ABLATE else Trained.of_run(x.runs[job.run - 1])
        )
        audit = output_json(self.world.runner.folder(JobId(job.job_id)), "out/data_audit.json")
        try:
            return judged(trained.recipe, rows[-MOST_ROWS:], setup=setup, audit=audit, advise=advise)
        except UserError:
            return None  # the script has refused that recipe already
        except Exception:  # a curve that a rule cannot read must not end what watches every goal's jobs
            log.exception("job %s could not be judged", job.job_id)
            return None

    def _ending(self, x: Experiment, job: Job, found: Judgement, setup: Mapping[str, Any]) -> NewEvent:
        total = setup.get("max_steps")
        total = int(total) if isinstance(total, int | float) and total > 0 else None
        seconds = self._left_seconds(job, found.step, total)
        data = {
            "job_id": job.job_id,
            "role": str(job.role),
            "run": job.run,
            "tier": str(found.tier),
            "step": found.step,
            "worth_saving": found.worth_saving,
            "total_steps": total,
            "diagnoses": [each.as_dict() for each in found.diagnoses],
            "signals": [asdict(each) for each in found.signals],
            "saved_seconds": round(seconds, 1) if seconds is not None else None,
            "saved_usd": round(seconds / 3600 * x.price_of(job), 4) if seconds is not None else None,
            "device": "GPU" if setup.get("gpus") else "machine",
        }
        return NewEvent(EventKind.MONITORED, f"job/{job.job_id}/monitored", data)

    def _left_seconds(self, job: Job, step: int, total: int | None) -> float | None:
        """What the steps that are left would have taken; the reservation's rest where no pace is known yet."""
        if total is None:
            return None
        since, first = self._first.get(job.job_id, (time.monotonic(), step))
        if step > first:
            return (time.monotonic() - since) / (step - first) * max(0, total - step)
        began = self.world.clock() - job.launched_at
        return began / step * max(0, total - step) if step > 0 else None

    async def end(self, x: Experiment, job: Job) -> None:
        """Ask a job that was judged to be doomed for a checkpoint, and end it once that is made or takes too long."""
        folder = self.world.runner.folder(JobId(job.job_id))
        now = time.monotonic()
        if job.job_id not in self._asked_at:
            self._asked_at[job.job_id] = now
            worth = bool((job.stopped or {}).get("worth_saving")) and self.world.runner.name not in FAR
            asked = worth and await asyncio.to_thread(ask_for_checkpoint, folder)
            with contextlib.suppress(Exception):
                await self._tell(x, job)
            if asked:
                return
        late = now - self._asked_at[job.job_id] > CHECKPOINT_SECONDS
        if late or await asyncio.to_thread(checkpoint_is_made, folder):
            await asyncio.to_thread(self.world.runner.cancel, JobId(job.job_id))

    async def _tell(self, x: Experiment, job: Job) -> None:
        run = x.runs[job.run - 1] if job.role is JobRole.TRAIN else None
        if run is None or run.check_run_id is None or job.stopped is None:
            return
        title, summary = messages.stopping_check(job.stopped)
        await self.world.repository(x).update_check(run.check_run_id, output={"title": title, "summary": summary})
