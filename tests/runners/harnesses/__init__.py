"""One module for each backend, with a class `Harness`; the contract suite finds them by their folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from runners.job import JobId, Runner


class Harness(Protocol):
    """What the contract suite needs to know of a backend to put it through its list.

    One that also has `slow = True` is tried by `make test-all` only.
    """

    seconds: float
    """How long the smallest job may take from launch to end."""
    loses_outputs: bool
    """Whether outputs travel, and so can fail to arrive."""

    @staticmethod
    def missing() -> str:
        """Why the backend cannot be tried on this machine; empty when it can."""
        ...

    def __init__(self, folder: Path) -> None:
        """Start what the backend needs: an engine, a cluster, a fake Hub."""
        ...

    def runner(self, **options: Any) -> Runner:
        """A runner over the harness' one root; a second one is the bot after its restart. Options are the runner's own;
        every harness takes `redact` and `log_bytes`."""
        ...

    def lose_machine(self, job_id: JobId) -> None:
        """Make the machine of a running job vanish without a word."""
        ...

    def lose_outputs(self, job_id: JobId) -> None:
        """Make the outputs of an ended job vanish before anybody fetched them. Called before the job ends."""
        ...

    def launches(self, job_id: JobId) -> int:
        """How many times the backend was really asked to start it."""
        ...

    def left_over(self) -> list[str]:
        """Processes, containers, jobs that are still there after `close`."""
        ...

    def close(self) -> None: ...
