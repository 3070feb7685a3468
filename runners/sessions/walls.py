"""Sessions as jobs: each in a folder of its own under a supervisor, with the walls and caps that every job has.

They have a runner of their own beside the one that trains, so that a session that waits for a language model keeps no
slot from a training job. A session outlives the bot: one that comes back finds it, with its variables, by its name.

Not covered: the processor. A session may keep one busy between two calls, for as long as it lives.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runners import outputs
from runners.job import Caps, JobId, JobSpec
from runners.local import LocalRunner
from runners.sandbox import probe
from runners.tier import Tier

_INSIDE = Path(__file__).with_name("postdoc")
CAPS = Caps(memory_gib=4.0, pids=128, file_size_gib=0.5, disk_gib=2.0, timeout_seconds=3 * 3600.0)
"""The time is of the whole session."""
SLOTS = 8
"""Sessions at once on this machine."""
OLD_SECONDS = 3600.0
"""After its end."""
DOOR = "door"
SOCKET, FUNCTIONS = "socket", "functions.json"
"""In the door's folder: where the bot listens, and what it listens for."""


class SessionWalls:
    """Sessions below `root`; a session is known by its name, a job id."""

    def __init__(
        self, root: Path, python: Path | None = None, *, tier: Tier | None = None, caps: Caps = CAPS, slots: int = SLOTS
    ) -> None:
        """`python` is the interpreter of the jobs' environment, this process's own when None."""
        self.caps = caps
        self._python = python
        self._runner = LocalRunner(root, python, tier, slots=slots)

    @property
    def problem(self) -> str:
        """Why there can be no session on this machine, as the end of a sentence; empty where there can."""
        if self._runner.isolates:
            return ""
        reasons = "; ".join(f"{report.tier}: {report.reason}" for report in probe(self._python) if not report.isolates)
        return f"this machine has no sandbox that holds code which nobody trusts ({reasons})"

    def begin(self, name: str, door: Path, functions: Mapping[str, Any], mounts: Mapping[str, Path]) -> None:
        """Start a session whose code finds `functions` in `postdoc` and the folders of `mounts` under /mounts. The
        socket has to be in `door` before; nothing else needs to.

        Raises: UserError where this machine may not run it, PlatformError where it cannot.
        """
        shutil.copytree(_INSIDE, door / _INSIDE.name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        (door / FUNCTIONS).write_text(json.dumps(functions), encoding="utf-8")
        self._remove_old()
        folders = {name: str(path) for name, path in mounts.items()} | {DOOR: str(door)}
        place = f"/mounts/{DOOR}"
        self._runner.launch(
            JobSpec(
                JobId(name),
                ("{python}", "-m", "postdoc"),
                mounts=folders,
                # After the working directory, where the session's own modules come first.
                environment={"PYTHONPATH": place, "PYTHONUNBUFFERED": ""},
                caps=self.caps,
                outputs=(),
            )
        )

    def alive(self, name: str) -> bool:
        status = self._runner.status(JobId(name))
        return status is not None and not status.state.ended

    def end(self, name: str) -> None:
        """End it with everything that it started. Raises: PlatformError."""
        self._runner.cancel(JobId(name))

    def remove(self, name: str) -> None:
        """End it, and delete what it wrote. Raises: PlatformError."""
        self.end(name)
        self._runner.remove(JobId(name))

    def why_ended(self, name: str) -> str:
        """In words, as the end of a sentence."""
        status = self._runner.status(JobId(name))
        if status is None:
            return "nothing is left of it"
        return "; ".join([str(status.failure) if status.failure else str(status.state), *status.evidence])

    def log(self, name: str) -> str:
        """The end of what it wrote outside of its outputs. Data, like these."""
        return self._runner.log_tail(JobId(name), 10).strip()[-1000:]

    def ends(self, name: str, path: str, head_bytes: int, tail_bytes: int) -> tuple[bytes, bytes, int]:
        """Beginning, end and size of a file that the session wrote. Raises: FileNotFoundError, UserError."""
        return outputs.read_ends(self._runner.folder(JobId(name)), path, head_bytes, tail_bytes)

    def _remove_old(self) -> None:
        """What nobody has closed: a session without a bot ends by itself after ten minutes, and after its time in any
        case, but its folder stays."""
        for name in self._runner.jobs():
            status = self._runner.status(name)
            if status is not None and status.state.ended and time.time() - (status.ended_at or 0) > OLD_SECONDS:
                self._runner.remove(name)
