"""What the practice forge remembers of GitHub Actions: runs of workflow files, their jobs, machines and artifacts."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from .node_ids import node_id

if TYPE_CHECKING:
    from .model import Repository, User


@dataclass(slots=True, eq=False)
class WorkflowFile:
    """A file below `.github/workflows/`, known from the moment somebody names it."""

    id: int
    path: str
    name: str
    created_at: datetime

    @property
    def node_id(self) -> str:
        return node_id("W", self.id)


@dataclass(slots=True, eq=False)
class Machine:
    """A self-hosted runner of one repository."""

    id: int
    repository: Repository
    name: str
    labels: tuple[str, ...]
    token: str
    """Opens the machines' own door of the forge, and nothing of GitHub's API."""
    online: bool = True

    @property
    def busy(self) -> bool:
        jobs = (job for run in self.repository.actions.runs for job in run.jobs)
        return any(job.machine is self and job.status == "in_progress" for job in jobs)

    def serves(self, labels: tuple[str, ...]) -> bool:
        return {label.lower() for label in labels} <= {"self-hosted", *(label.lower() for label in self.labels)}


@dataclass(slots=True, eq=False)
class WorkflowRun:
    id: int
    repository: Repository
    file: WorkflowFile
    number: int
    title: str
    """What `run-name` came to; the file's name where it has none."""
    event: str
    head_branch: str
    head_sha: str
    actor: User
    inputs: dict[str, str]
    group: str
    """Of its concurrency; empty when it has none."""
    created_at: datetime
    updated_at: datetime
    status: str = "queued"
    """pending (another run of its group goes first), queued, in_progress or completed."""
    conclusion: str | None = None
    jobs: list[WorkflowJob] = field(default_factory=list)
    artifacts: list[Artifact] = field(default_factory=list)
    cancel: str = ""
    """`cancel` or `force-cancel` once somebody has asked for it."""

    @property
    def node_id(self) -> str:
        return node_id("WFR", self.id)


@dataclass(slots=True, eq=False)
class WorkflowJob:
    id: int
    run: WorkflowRun
    name: str
    labels: tuple[str, ...]
    created_at: datetime
    started_at: datetime
    status: str = "queued"
    conclusion: str | None = None
    completed_at: datetime | None = None
    machine: Machine | None = None

    @property
    def node_id(self) -> str:
        return node_id("J", self.id)


@dataclass(slots=True, eq=False)
class Artifact:
    """A zip archive that a run has left behind."""

    id: int
    run: WorkflowRun
    name: str
    path: Path
    digest: str
    size: int
    created_at: datetime
    expires_at: datetime

    @property
    def node_id(self) -> str:
        return node_id("A", self.id)


@dataclass(slots=True)
class ActionsState:
    """Of one repository."""

    files: dict[str, WorkflowFile] = field(default_factory=dict)
    """By path."""
    runs: list[WorkflowRun] = field(default_factory=list)
    machines: list[Machine] = field(default_factory=list)

    @property
    def artifacts(self) -> list[Artifact]:
        return [artifact for run in self.runs for artifact in run.artifacts]

    def run(self, run_id: int) -> WorkflowRun | None:
        return next((run for run in self.runs if run.id == run_id), None)

    def job(self, job_id: int) -> WorkflowJob | None:
        return next((job for run in self.runs for job in run.jobs if job.id == job_id), None)
