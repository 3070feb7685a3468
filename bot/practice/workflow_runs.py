"""The life of workflow runs: dispatched, taken by a machine, completed or cancelled, and told to the Apps.

Of concurrency groups there is GitHub's rule: one run of a group goes, one waits, and a newer one takes the place of the
one that waits (https://docs.github.com/en/actions/concepts/workflows-and-actions/concurrency).
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import workflow_files
from .actions_model import Artifact, Machine, WorkflowFile, WorkflowJob, WorkflowRun
from .model import Repository, User
from .replies import ApiError
from .shapes import actions as shapes

if TYPE_CHECKING:
    from .forge import Forge

ARTIFACT_DAYS = 90
CONCLUSIONS = ("success", "failure", "cancelled", "timed_out", "skipped", "neutral", "action_required")


def dispatch(
    forge: Forge, repository: Repository, actor: User, file: WorkflowFile, ref: str, inputs: Mapping[str, Any]
) -> WorkflowRun:
    """Raises: ApiError 422."""
    name = ref.removeprefix("refs/heads/")
    commit = repository.git.branch(name)
    if commit is None:
        raise ApiError(422, f"No ref found for: {ref}")
    number = sum(run.file is file for run in repository.actions.runs) + 1
    context = {"github.run_number": str(number), "github.ref_name": name}
    plan = workflow_files.planned(repository, file, commit, inputs, context)
    now = forge.clock()
    run = WorkflowRun(
        forge.next_id("workflow_run"), repository, file, number, plan.title, "workflow_dispatch", name, commit, actor,
        dict(plan.inputs), plan.group, now, now,
    )  # fmt: skip
    run.jobs = [WorkflowJob(forge.next_id("workflow_job"), run, each, labels, now, now) for each, labels in plan.jobs]
    _take_place_in_group(forge, run)
    repository.actions.runs.append(run)
    emit_run(forge, run, "requested")
    for job in run.jobs if run.status == "queued" else ():
        emit_job(forge, job, "queued")
    return run


def _take_place_in_group(forge: Forge, run: WorkflowRun) -> None:
    others = [r for r in run.repository.actions.runs if r.group == run.group and r.status != "completed"]
    if not run.group or not others:
        return
    run.status = "pending"
    for other in others:
        if other.status == "pending":
            complete(forge, other, "cancelled")


def next_job(forge: Forge, machine: Machine) -> WorkflowJob | None:
    """The oldest job that this machine may take, taken."""
    if not machine.online or machine.busy:
        return None
    for run in machine.repository.actions.runs:
        for job in run.jobs if run.status in ("queued", "in_progress") else ():
            if job.status == "queued" and machine.serves(job.labels):
                job.status, job.machine, job.started_at = "in_progress", machine, forge.clock()
                emit_job(forge, job, "in_progress")
                if run.status == "queued":
                    run.status, run.updated_at = "in_progress", forge.clock()
                    emit_run(forge, run, "in_progress")
                return job
    return None


def finish(forge: Forge, job: WorkflowJob, conclusion: str) -> None:
    """A machine says how its job ended; said again, it changes nothing."""
    if job.status == "completed":
        return
    _complete_job(forge, job, conclusion)
    if all(each.status == "completed" for each in job.run.jobs):
        order = ("cancelled", "failure", "timed_out", "success")
        conclusions = {each.conclusion for each in job.run.jobs}
        complete(forge, job.run, next((each for each in order if each in conclusions), "success"))


def cancel(forge: Forge, run: WorkflowRun, *, force: bool) -> None:
    """Raises: ApiError 409 for a run that has completed."""
    if run.status == "completed":
        raise ApiError(409, "Cannot cancel a workflow run that is completed.")
    run.cancel, run.updated_at = "force-cancel" if force else "cancel", forge.clock()
    if force or run.status in ("queued", "pending"):
        complete(forge, run, "cancelled")


def complete(forge: Forge, run: WorkflowRun, conclusion: str) -> None:
    for job in run.jobs:
        if job.status != "completed":
            _complete_job(forge, job, conclusion)
    run.status, run.conclusion, run.updated_at = "completed", conclusion, forge.clock()
    emit_run(forge, run, "completed")
    waiting = [r for r in run.repository.actions.runs if run.group and r.group == run.group and r.status == "pending"]
    for each in waiting[:1]:
        each.status = "queued"
        for job in each.jobs:
            emit_job(forge, job, "queued")


def lose(forge: Forge, machine: Machine) -> None:
    """The machine stops answering; what GitHub concludes minutes later is concluded here at once."""
    machine.online = False
    for run in list(machine.repository.actions.runs):
        for job in run.jobs:
            if job.machine is machine and job.status == "in_progress":
                finish(forge, job, "failure")


def add_machine(forge: Forge, repository: Repository, name: str, labels: tuple[str, ...]) -> Machine:
    machine = Machine(forge.next_id("machine"), repository, name, labels, f"machine_{secrets.token_hex(20)}")
    repository.actions.machines.append(machine)
    return machine


def keep_artifact(forge: Forge, run: WorkflowRun, name: str, content: bytes) -> Artifact:
    """Raises: ApiError 409 for a name that the run has used."""
    if any(each.name == name for each in run.artifacts):
        raise ApiError(409, f"Failed to CreateArtifact: an artifact named {name} already exists on the workflow run")
    number, now = forge.next_id("artifact"), forge.clock()
    folder = Path(forge.root) / ".artifacts"
    folder.mkdir(exist_ok=True)
    path = folder / f"{number}.zip"
    path.write_bytes(content)
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    expires = now + timedelta(days=ARTIFACT_DAYS)
    artifact = Artifact(number, run, name, path, digest, len(content), now, expires)
    run.artifacts.append(artifact)
    return artifact


def _complete_job(forge: Forge, job: WorkflowJob, conclusion: str) -> None:
    job.status, job.conclusion, job.completed_at = "completed", conclusion, forge.clock()
    emit_job(forge, job, "completed")


def emit_run(forge: Forge, run: WorkflowRun, action: str) -> None:
    payload = {"workflow": shapes.workflow(forge, run.repository, run.file), "workflow_run": shapes.run(forge, run)}
    forge.emit(run.repository, "workflow_run", action, run.actor, lambda: payload)


def emit_job(forge: Forge, job: WorkflowJob, action: str) -> None:
    forge.emit(
        job.run.repository, "workflow_job", action, job.run.actor, lambda: {"workflow_job": shapes.job(forge, job)}
    )
