"""What the runner for GitHub Actions asks of GitHub, as a port: the bot's server fills it with its own connection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class RunSeen:
    """A run as GitHub shows it now."""

    id: int
    title: str
    status: str
    """requested, queued, pending, waiting, in_progress or completed."""
    conclusion: str = ""
    """Once it has completed: success, failure, cancelled, timed_out, startup_failure ..."""
    page: str = ""


@dataclass(frozen=True, slots=True)
class ActionsMachine:
    name: str
    labels: frozenset[str]
    online: bool
    busy: bool


class ActionsApi(Protocol):
    """What is asked of GitHub. Raises: PlatformError when it cannot be asked now; UserError when its no is final."""

    def started(self, repository: str, workflow: str) -> Sequence[RunSeen]:
        """The App's own recent runs of the workflow file, the newest first."""
        ...

    def dispatch(self, repository: str, workflow: str, inputs: Mapping[str, str]) -> RunSeen | None:
        """None where GitHub does not say which run it is."""
        ...

    def run(self, repository: str, run_id: int) -> RunSeen | None: ...

    def machine_of(self, repository: str, run_id: int) -> str:
        """Name of the machine that took the run's job; empty while none has."""
        ...

    def machines(self, repository: str) -> Sequence[ActionsMachine] | None:
        """The repository's own; None where they may not be seen."""
        ...

    def cancel(self, repository: str, run_id: int, *, force: bool) -> None: ...

    def artifact(self, repository: str, run_id: int, name: str, path: Path, limit_bytes: int) -> bool: ...

    def repositories(self) -> Sequence[str]:
        """Where the App is installed, for jobs that nobody here remembers."""
        ...

    def close(self) -> None: ...


def why_waiting(label: str, machines: Sequence[ActionsMachine] | None) -> str:
    """What a person who waits wants to know about the machines with this label."""
    if machines is None:
        return (
            f"waiting for a machine with the label {label} (which ones are online is hidden: the App lacks the "
            "permission `administration: read`)"
        )
    fitting = [machine for machine in machines if label.lower() in machine.labels]
    online = [machine for machine in fitting if machine.online]
    if online:
        names = ", ".join(machine.name for machine in online[:5])
        return f"waiting for {names}" + (", busy now" if all(machine.busy for machine in online) else "")
    if fitting:
        return f"no machine with the label {label} is online: {', '.join(m.name for m in fitting[:5])} is offline"
    return (
        f"no machine of the repository has the label {label}; those of its organization cannot be seen from here, and "
        "may take it"
    )
