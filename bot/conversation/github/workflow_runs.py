"""GitHub Actions in one repository, as an installation sees it: runs of a workflow file, machines, artifacts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bot.conversation.github.answers import read_json
from bot.conversation.github.errors import Gone, Refused
from bot.conversation.github.reading import Reader, quoted
from bot.errors import TransientError

LOOKED_BACK = timedelta(days=8)
"""A run waits at most a day for a machine and lasts at most five:
https://docs.github.com/en/actions/reference/limits#existing-system-limits"""
_DOWNLOADS = 4


class WorkflowRuns(Reader):
    """Every method may raise TransientError, Refused and Gone."""

    async def dispatch(self, workflow_file: str, inputs: Mapping[str, str]) -> dict[str, Any] | None:
        """Start a run of the file as it stands on the default branch: `workflow_run_id` and `html_url`, None where an
        older server does not say which it is.

        https://docs.github.com/en/rest/actions/workflows#create-a-workflow-dispatch-event
        """
        path = f"/actions/workflows/{quoted(workflow_file)}/dispatches"
        body = {"ref": (await self.describe())["default_branch"], "inputs": dict(inputs)}
        try:
            response = await self._response("POST", path, json=body | {"return_run_details": True})
        except Refused as refused:
            if refused.status != 422 or "return_run_details" not in str(refused):
                raise
            # A GitHub Enterprise Server that does not know the wish yet.
            response = await self._response("POST", path, json=body)
        return dict(read_json(response)) if response.status_code == 200 else None

    async def runs(self, workflow_file: str) -> list[dict[str, Any]]:
        """Dispatched runs of the file in the last days that the App itself started, the newest first."""
        since = (datetime.fromtimestamp(time.time(), UTC) - LOOKED_BACK).strftime("%Y-%m-%d")
        params = {"event": "workflow_dispatch", "created": f">={since}", "actor": await self._app.login()}
        path = f"/actions/workflows/{quoted(workflow_file)}/runs"
        return await self._pages(path, params, within="workflow_runs")

    async def run(self, run_id: int) -> dict[str, Any] | None:
        """`status`, `conclusion`, `html_url`; None for a run that GitHub does not know (any more)."""
        found: dict[str, Any] | None = await self._get_or_none(f"/actions/runs/{run_id}", conditional=True)
        return found

    async def jobs(self, run_id: int) -> list[dict[str, Any]]:
        return await self._pages(f"/actions/runs/{run_id}/jobs", within="jobs")

    async def cancel_run(self, run_id: int, *, force: bool) -> None:
        """One that has ended is left as it is."""
        try:
            await self._call("POST", f"/actions/runs/{run_id}/{'force-cancel' if force else 'cancel'}")
        except Gone:
            raise
        except Refused as refused:
            if refused.status not in (404, 409):
                raise

    async def machines(self) -> list[dict[str, Any]] | None:
        """Self-hosted runners of the repository itself, those of its organization are not among them; None where the
        App may not see them (`administration: read`)."""
        try:
            return await self._pages("/actions/runners", within="runners")
        except Gone:
            raise
        except Refused as refused:
            if refused.status in (403, 404):
                return None
            raise

    async def artifact(self, run_id: int, name: str, path: Path, limit_bytes: int) -> bool:
        """Download the zip archive of the run's artifact to `path`; False when there is none.

        Its address holds for one minute, so it is asked for right before each attempt.
        """
        listed = await self._pages(f"/actions/runs/{run_id}/artifacts", {"name": name}, within="artifacts")
        found = next((row for row in listed if row["name"] == name and not row["expired"]), None)
        if found is None:
            return False
        place = f"{self._root}/actions/artifacts/{int(found['id'])}/zip"
        for attempt in range(1, _DOWNLOADS + 1):
            try:
                address = await self._app.location(self._installation_id, place)
                await self._app.download(address, path, limit_bytes)
                return True
            except Refused as refused:
                if isinstance(refused, Gone) or refused.status == 413:
                    raise
                if attempt == _DOWNLOADS:
                    raise TransientError(f"the artifact cannot be downloaded now: {refused}") from refused
            except TransientError:
                if attempt == _DOWNLOADS:
                    raise
        return False
