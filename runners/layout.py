"""What lies in a job's folder, and how it is written so that a process killed half-way leaves the old file or the new.

ROOT/<job id>/
  spec.json        the specification; from the moment it exists, so does the job
  plan.json        how this machine runs it: command, walls, slots
  launch.lock      held while a bot prepares or starts the job
  lock             held by the supervisor for as long as it lives: the kernel's own word on whether it does
  lease.json       who the supervisor is; its age says when it last looked at the job
  status.json      what is known; missing until a supervisor has taken the job
  cancel           present when somebody wants the job to end
  log.txt          stdout and stderr, capped
  supervisor.log   the supervisor's own errors, empty as a rule
  work/            the job's working directory
  scratch/         caches, gone when the job has ended
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runners.job import JobStatus, read_json

SPEC = "spec.json"
PLAN = "plan.json"
LAUNCH_LOCK = "launch.lock"
LEASE = "lease.json"
STATUS = "status.json"
CANCEL = "cancel"
LOG = "log.txt"
WORK = "work"
SCRATCH = "scratch"


def write_json(path: Path, data: Mapping[str, Any], *, durable: bool = True) -> None:
    """Replace `path` in one step; `durable` also survives a power cut."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with open(partial, "w", encoding="utf-8") as file:
        json.dump(data, file, indent=1)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    os.replace(partial, path)
    if durable:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def read_status(folder: Path) -> JobStatus | None:
    data = read_json(folder / STATUS)
    return None if data is None else JobStatus.from_dict(data)
