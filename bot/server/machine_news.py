"""`workflow_run` and `workflow_job`: GitHub has news of a run that may be one of our jobs.

They are hints and no facts: whatever they say, the runner asks GitHub itself. So they are neither stored nor asked for
again, and a busy repository's own runs, which come along, cost nothing but their reading.
"""

from __future__ import annotations

import json
from typing import Any

from runners.github_actions.backend import TITLE, ActionsRunner
from runners.job import JobId, Runner

RUN_EVENTS = frozenset({"workflow_run", "workflow_job"})


class MachineNews:
    """Has the runner look at the job that a delivery is about."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner if isinstance(runner, ActionsRunner) else None

    def note(self, event: str, body: bytes) -> None:
        """Never raises, whatever a payload holds."""
        if self._runner is None:
            return
        try:
            payload = json.loads(body)
        except (ValueError, RecursionError):
            return
        found = payload.get(event) if isinstance(payload, dict) else None
        if not isinstance(found, dict):
            return
        if event == "workflow_run":
            title = found.get("display_title")
            if isinstance(title, str) and title.startswith(TITLE):
                self._runner.refresh(JobId(title.removeprefix(TITLE)))
            return
        repository: Any = payload.get("repository")
        run_id = found.get("run_id")
        if isinstance(repository, dict) and isinstance(run_id, int):
            self._runner.refresh_run(str(repository.get("full_name")), run_id)
