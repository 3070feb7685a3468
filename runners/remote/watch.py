"""Ending a job on this machine before its time: for what a judge sees in it, or because somebody asks; in both cases
with a checkpoint first, where there is one to make."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from runners.checkpoints import CHECKPOINT_FIRST, CHECKPOINT_SECONDS, ask_for_checkpoint, checkpoint_is_made
from runners.job import JobId, JobState, JobStatus, read_json
from runners.layout import write_json
from runners.local import LocalRunner

log = logging.getLogger("postdoc.wrapper")

Judge = Callable[[Path, JobStatus], Mapping[str, Any] | None]
"""What a running job, whose working directory is given, is to be ended for, as plain data; `worth_saving` in it asks
for a checkpoint before that. None while it may go on. Called at every look."""
_VERDICT = "verdict.json"
"""In the job's folder, so that a wrapper that takes over does not take a doomed run for one that somebody stopped."""


def verdict_on(folder: Path) -> dict[str, Any] | None:
    """What the job in this folder was ended for."""
    return read_json(folder / _VERDICT)


class Watch:
    """Of one job."""

    def __init__(self, job_id: JobId, runner: LocalRunner, judge: Judge | None) -> None:
        """`judge` looks on where the job's specification wants that."""
        self._job_id, self._runner, self._judge = job_id, runner, judge
        self._verdict = verdict_on(runner.root / job_id)
        self._end_at: float | None = None
        """When the job is ended at the latest: it has been asked for a checkpoint."""

    @property
    def judges(self) -> bool:
        spec = self._runner.spec(self._job_id) if self._judge is not None else None
        return spec is not None and spec.monitor == "abort"

    def told(self, status: JobStatus) -> JobStatus:
        """The status with the verdict on the job, unless the job came to its end by itself."""
        ours = not status.state.ended or status.state is JobState.CANCELLED
        return replace(status, watched=self.judges, judged=self._verdict if ours else None)

    def look(self, status: JobStatus) -> bool:
        """Let the judge look at a running job, and end it when that is due. True when he has just found something."""
        found = None
        if status.state is JobState.RUNNING and self._verdict is None and self.judges:
            found = self._judged(status)
        if found is not None:
            write_json(self._runner.root / self._job_id / _VERDICT, found)
            self._verdict = dict(found)
            self.end(first=bool(found.get("worth_saving")))
        elif self._end_at is not None and (time.monotonic() >= self._end_at or self._is_made()):
            self._runner.cancel(self._job_id)
        return found is not None

    def heed(self, wish: bytes | None) -> None:
        """What stands in the store's `cancel`."""
        if wish is not None:
            self.end(first=wish == CHECKPOINT_FIRST)

    def end(self, *, first: bool) -> None:
        """End the job, with `first` once it has made a checkpoint."""
        if not first:
            self._runner.cancel(self._job_id)
        elif self._end_at is None:
            asked = ask_for_checkpoint(self._runner.folder(self._job_id))
            self._end_at = time.monotonic() + (CHECKPOINT_SECONDS if asked else 0.0)

    def _is_made(self) -> bool:
        return checkpoint_is_made(self._runner.folder(self._job_id))

    def _judged(self, status: JobStatus) -> Mapping[str, Any] | None:
        assert self._judge is not None
        try:
            return self._judge(self._runner.folder(self._job_id), status)
        except Exception:  # what looks on must never end what it looks at
            log.exception("the run could not be judged")
            return None
