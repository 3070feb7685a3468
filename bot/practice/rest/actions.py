"""GitHub Actions: workflow files, their runs and jobs, self-hosted machines, artifacts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from .. import workflow_files, workflow_runs
from ..actions_model import Artifact, WorkflowFile, WorkflowRun
from ..machines import artifact_address
from ..model import Role
from ..replies import ApiError, Reply, not_found
from ..routing import Call, Routes
from ..shapes import actions as shapes
from ..shapes.accounts import stamp

routes = Routes()
READ, WRITE = ("actions:read",), ("actions:write",)
_ROOT = "/repos/{owner}/{repo}/actions"
T = TypeVar("T")


def _listed(call: Call, name: str, items: list[T], shape: Callable[[T], dict[str, Any]]) -> Reply:
    return Reply(body={"total_count": len(items), name: [shape(each) for each in call.page(items)]})


def _file(call: Call) -> WorkflowFile:
    workflow_files.learn(call.forge, call.repository)
    found = workflow_files.named(call.repository, call.params["workflow_id"])
    if found is None:
        raise not_found()
    return found


def _run(call: Call) -> WorkflowRun:
    found = call.repository.actions.run(call.number("run_id"))
    if found is None:
        raise not_found()
    return found


def _artifact(call: Call) -> Artifact:
    number = call.number("artifact_id")
    for found in call.repository.actions.artifacts:
        if found.id == number:
            return found
    raise not_found()


# Workflow files and what starts them


@routes.get(_ROOT + "/workflows", needs=READ)
def list_workflows(call: Call) -> Reply:
    workflow_files.learn(call.forge, call.repository)
    files = list(call.repository.actions.files.values())
    return _listed(call, "workflows", files, lambda file: shapes.workflow(call.forge, call.repository, file))


@routes.get(_ROOT + "/workflows/{workflow_id}", needs=READ)
def get_workflow(call: Call) -> Reply:
    return Reply(body=shapes.workflow(call.forge, call.repository, _file(call)))


@routes.post(_ROOT + "/workflows/{workflow_id}/dispatches", needs=WRITE)
def dispatch(call: Call) -> Reply:
    file, ref = _file(call), call.required_text("ref")
    inputs: dict[str, Any] = call.value("inputs", dict) or {}
    run = workflow_runs.dispatch(call.forge, call.repository, call.actor.account, file, ref, inputs)
    if not call.value("return_run_details", bool, False):
        return Reply(204)
    url, html = shapes.run_address(call.forge, run)
    return Reply(body={"workflow_run_id": run.id, "run_url": url, "html_url": html})


# Runs and jobs


def _asked_for(call: Call, runs: list[WorkflowRun]) -> list[WorkflowRun]:
    """Newest first, as the query narrows them; of `created` only `>=` is understood."""
    query = call.query
    found = list(reversed(runs))
    if actor := query.get("actor"):
        found = [run for run in found if run.actor.login == actor]
    if event := query.get("event"):
        found = [run for run in found if run.event == event]
    if branch := query.get("branch"):
        found = [run for run in found if run.head_branch == branch]
    if status := query.get("status"):
        found = [run for run in found if status in (run.status, run.conclusion)]
    if (created := query.get("created", "")).startswith(">="):
        found = [run for run in found if stamp(run.created_at) >= created.removeprefix(">=")]
    return found


@routes.get(_ROOT + "/workflows/{workflow_id}/runs", needs=READ)
def list_runs_of(call: Call) -> Reply:
    file = _file(call)
    runs = _asked_for(call, [run for run in call.repository.actions.runs if run.file is file])
    return _listed(call, "workflow_runs", runs, lambda run: shapes.run(call.forge, run))


@routes.get(_ROOT + "/runs", needs=READ)
def list_runs(call: Call) -> Reply:
    runs = _asked_for(call, call.repository.actions.runs)
    return _listed(call, "workflow_runs", runs, lambda run: shapes.run(call.forge, run))


@routes.get(_ROOT + "/runs/{run_id}", needs=READ)
def get_run(call: Call) -> Reply:
    return Reply(body=shapes.run(call.forge, _run(call)))


@routes.post(_ROOT + "/runs/{run_id}/cancel", needs=WRITE)
def cancel(call: Call) -> Reply:
    workflow_runs.cancel(call.forge, _run(call), force=False)
    return Reply(202, {})


@routes.post(_ROOT + "/runs/{run_id}/force-cancel", needs=WRITE)
def force_cancel(call: Call) -> Reply:
    workflow_runs.cancel(call.forge, _run(call), force=True)
    return Reply(202, {})


@routes.get(_ROOT + "/runs/{run_id}/jobs", needs=READ)
def list_jobs(call: Call) -> Reply:
    return _listed(call, "jobs", _run(call).jobs, lambda job: shapes.job(call.forge, job))


@routes.get(_ROOT + "/jobs/{job_id}", needs=READ)
def get_job(call: Call) -> Reply:
    found = call.repository.actions.job(call.number("job_id"))
    if found is None:
        raise not_found()
    return Reply(body=shapes.job(call.forge, found))


# Artifacts


def _by_name(call: Call, artifacts: list[Artifact]) -> Reply:
    wanted = call.query.get("name")
    found = [each for each in artifacts if wanted in (None, each.name)]
    return _listed(call, "artifacts", found, lambda each: shapes.artifact(call.forge, each))


@routes.get(_ROOT + "/artifacts", needs=READ)
def list_artifacts(call: Call) -> Reply:
    return _by_name(call, call.repository.actions.artifacts[::-1])


@routes.get(_ROOT + "/runs/{run_id}/artifacts", needs=READ)
def list_artifacts_of(call: Call) -> Reply:
    return _by_name(call, _run(call).artifacts)


@routes.get(_ROOT + "/artifacts/{artifact_id}", needs=READ)
def get_artifact(call: Call) -> Reply:
    return Reply(body=shapes.artifact(call.forge, _artifact(call)))


@routes.get(_ROOT + "/artifacts/{artifact_id}/{archive_format}", needs=READ)
def download_artifact(call: Call) -> Reply:
    """To where the archive lies, for one minute. Even a public one is shown to nobody without a token."""
    found = _artifact(call)
    if call.actor.user is None:
        raise ApiError(401, "Requires authentication")
    if call.params["archive_format"] != "zip":
        raise not_found()
    if found.expires_at <= call.forge.clock():
        raise ApiError(410, "Artifact has expired")
    return Reply(302, headers={"location": artifact_address(call.forge, found)})


@routes.delete(_ROOT + "/artifacts/{artifact_id}", needs=WRITE)
def delete_artifact(call: Call) -> Reply:
    found = _artifact(call)
    found.run.artifacts.remove(found)
    found.path.unlink(missing_ok=True)
    return Reply(204)


# Machines


@routes.get(_ROOT + "/runners", needs=("administration:read",), role=Role.ADMIN)
def list_machines(call: Call) -> Reply:
    wanted = call.query.get("name")
    found = [each for each in call.repository.actions.machines if wanted in (None, each.name)]
    return _listed(call, "runners", found, shapes.machine)
