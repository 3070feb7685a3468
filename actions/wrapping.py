"""The wrapper of a dispatched job with the monitor in it: a doomed run ends although its server is away.

    python -m actions.wrapping --job JOB_ID --store FOLDER_OR_ADDRESS --jobs FOLDER

The server is told in the job's status what the run was ended for, and does not judge it once more.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bot.diagnosis.watching import Pace, Quiet, total_steps, verdict, watched
from bot.errors import UserError
from runners.job import JobStatus
from runners.metrics import METRICS, metric_rows
from runners.outputs import read_output
from runners.remote import wrapper

RECIPE, SETUP, AUDIT = "recipe.yaml", "out/setup.json", "out/data_audit.json"
MOST_ROWS = 20_000
"""Of a longer curve the last are judged; a rule that needs its beginning then says nothing."""


class Monitor:
    """Of one job. A `wrapper.Judge`."""

    def __init__(self) -> None:
        self._pace: Pace | None = None
        self._seen: tuple[int, bool, bool] | None = None
        """Rows that have been judged, and whether setup and audit were there."""
        self._rows: list[dict[str, Any]] = []
        self._size = 0

    def __call__(self, folder: Path, status: JobStatus) -> Mapping[str, Any] | None:
        rows = self._logged(folder)
        setup, audit = _object(folder, SETUP), _object(folder, AUDIT)
        quiet = Quiet(status.seconds_since_output or 0.0, status.cpu_share)
        now, step = time.time(), int(rows[-1]["step"]) if rows else 0
        self._pace = self._pace or Pace(status.started_at or now)
        self._pace.see(step, now)
        seen = (len(rows), bool(setup), bool(audit))
        if seen == self._seen and not quiet.worth_saying:
            return None
        self._seen = seen
        try:
            recipe = read_output(folder, RECIPE).decode("utf-8", "replace")
            found = watched(recipe, rows, setup=setup, audit=audit, advise=False, quiet=quiet)
        except (OSError, UserError):
            return None  # it is no recipe that can be judged, and the script has the word on it
        if found is None or not found.tier.ends:
            return None  # what is only advice the server says, from what it is sent
        return verdict(found, setup, self._pace.left_seconds(found.step, total_steps(setup), now))

    def _logged(self, folder: Path) -> list[dict[str, Any]]:
        """The logged steps, parsed anew only where the file has grown."""
        try:
            size = os.stat(folder / METRICS, follow_symlinks=False).st_size
        except OSError:
            return self._rows
        if size != self._size:
            self._rows, self._size = metric_rows(folder)[-MOST_ROWS:], size
        return self._rows


def _object(folder: Path, path: str) -> dict[str, Any]:
    """A JSON object that the running script wrote; empty while it has not."""
    try:
        found = json.loads(read_output(folder, path))
    except (OSError, UserError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


if __name__ == "__main__":
    sys.exit(wrapper.main(judge=Monitor()))
