"""Workflow files, runs, jobs, machines and artifacts as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..actions_model import Artifact, Machine, WorkflowFile, WorkflowJob, WorkflowRun
from ..model import Repository
from ..node_ids import node_id
from .accounts import stamp, stamp_or_none, user
from .repositories import api, page, repository, simple_commit

if TYPE_CHECKING:
    from ..forge import Forge

Json = dict[str, Any]


def workflow(forge: Forge, stored: Repository, file: WorkflowFile) -> Json:
    url, html = api(forge, stored), page(forge, stored)
    name = file.path.rpartition("/")[2]
    return {
        "id": file.id,
        "node_id": file.node_id,
        "name": file.name,
        "path": file.path,
        "state": "active",
        "created_at": stamp(file.created_at),
        "updated_at": stamp(file.created_at),
        "url": f"{url}/actions/workflows/{file.id}",
        "html_url": f"{html}/blob/{stored.default_branch}/{file.path}",
        "badge_url": f"{html}/workflows/{name}/badge.svg",
    }


def run_address(forge: Forge, found: WorkflowRun) -> tuple[str, str]:
    """(in the API, in a browser)."""
    return (
        f"{api(forge, found.repository)}/actions/runs/{found.id}",
        f"{page(forge, found.repository)}/actions/runs/{found.id}",
    )


def run(forge: Forge, found: WorkflowRun) -> Json:
    stored = found.repository
    url, html = run_address(forge, found)
    root = api(forge, stored)
    return {
        "id": found.id,
        "name": found.file.name,
        "node_id": found.node_id,
        "head_branch": found.head_branch,
        "head_sha": found.head_sha,
        "path": found.file.path,
        "display_title": found.title,
        "run_number": found.number,
        "event": found.event,
        "status": found.status,
        "conclusion": found.conclusion,
        "workflow_id": found.file.id,
        "check_suite_id": found.id + 1,
        "check_suite_node_id": node_id("CS", found.id + 1),
        "url": url,
        "html_url": html,
        "pull_requests": [],
        "created_at": stamp(found.created_at),
        "updated_at": stamp(found.updated_at),
        "actor": user(forge, found.actor),
        "run_attempt": 1,
        "referenced_workflows": [],
        "run_started_at": stamp(found.created_at),
        "triggering_actor": user(forge, found.actor),
        "jobs_url": f"{url}/jobs",
        "logs_url": f"{url}/logs",
        "check_suite_url": f"{root}/check-suites/{found.id + 1}",
        "artifacts_url": f"{url}/artifacts",
        "cancel_url": f"{url}/cancel",
        "rerun_url": f"{url}/rerun",
        "previous_attempt_url": None,
        "workflow_url": f"{root}/actions/workflows/{found.file.id}",
        "head_commit": simple_commit(stored.git.commit(found.head_sha)),
        "repository": repository(forge, stored),
        "head_repository": repository(forge, stored),
    }


def job(forge: Forge, found: WorkflowJob) -> Json:
    root, html = api(forge, found.run.repository), page(forge, found.run.repository)
    machine = found.machine
    return {
        "id": found.id,
        "run_id": found.run.id,
        "workflow_name": found.run.file.name,
        "head_branch": found.run.head_branch,
        "run_url": f"{root}/actions/runs/{found.run.id}",
        "run_attempt": 1,
        "node_id": found.node_id,
        "head_sha": found.run.head_sha,
        "url": f"{root}/actions/jobs/{found.id}",
        "html_url": f"{html}/actions/runs/{found.run.id}/job/{found.id}",
        "status": found.status,
        "conclusion": found.conclusion,
        "created_at": stamp(found.created_at),
        "started_at": stamp(found.started_at),
        "completed_at": stamp_or_none(found.completed_at),
        "name": found.name,
        "steps": [],
        "check_run_url": f"{root}/check-runs/{found.id}",
        "labels": list(found.labels),
        "runner_id": machine.id if machine else None,
        "runner_name": machine.name if machine else None,
        "runner_group_id": 1 if machine else None,
        "runner_group_name": "Default" if machine else None,
    }


def machine(found: Machine) -> Json:
    """GitHub calls it a runner."""
    fixed = [{"id": n, "name": name, "type": "read-only"} for n, name in enumerate(("self-hosted", "Linux", "X64"), 1)]
    own = [{"id": n, "name": name, "type": "custom"} for n, name in enumerate(found.labels, 10)]
    return {
        "id": found.id,
        "name": found.name,
        "os": "Linux",
        "status": "online" if found.online else "offline",
        "busy": found.busy,
        "ephemeral": False,
        "runner_group_id": 1,
        "labels": fixed + own,
    }


def artifact(forge: Forge, found: Artifact) -> Json:
    url = f"{api(forge, found.run.repository)}/actions/artifacts/{found.id}"
    number = found.run.repository.id
    return {
        "id": found.id,
        "node_id": found.node_id,
        "name": found.name,
        "size_in_bytes": found.size,
        "url": url,
        "archive_download_url": f"{url}/zip",
        "expired": found.expires_at <= forge.clock(),
        "digest": found.digest,
        "created_at": stamp(found.created_at),
        "updated_at": stamp(found.created_at),
        "expires_at": stamp(found.expires_at),
        "workflow_run": {
            "id": found.run.id,
            "repository_id": number,
            "head_repository_id": number,
            "head_branch": found.run.head_branch,
            "head_sha": found.run.head_sha,
        },
    }
