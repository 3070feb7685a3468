"""Check runs and check suites."""

from __future__ import annotations

from .. import checks
from ..model import CheckRun, CheckSuite
from ..replies import ApiError, Reply, not_found
from ..routing import Call, Routes
from ..shapes import checks as shapes

routes = Routes()
READ = ("checks:read",)
WRITE = ("checks:write",)


def _run(call: Call) -> CheckRun:
    for run in call.repository.check_runs:
        if run.id == call.number("id"):
            return run
    raise not_found()


def _suite(call: Call) -> CheckSuite:
    for suite in call.repository.suites:
        if suite.id == call.number("id"):
            return suite
    raise not_found()


def resolved_sha(call: Call) -> str:
    """The commit that the path's `ref` names. Raises: ApiError 422."""
    sha = call.repository.git.resolve(call.params["ref"])
    if sha is None:
        raise ApiError(422, f"No commit found for SHA: {call.params['ref']}")
    return sha


@routes.post("/repos/{owner}/{repo}/check-runs", needs=WRITE)
def create_run(call: Call) -> Reply:
    checks.require_check_app(call.actor)
    name, sha = call.required_text("name"), call.required_text("head_sha")
    run = checks.create(call.forge, call.actor, call.repository, name, sha, call.body)
    return Reply(201, shapes.check_run(call.forge, run))


@routes.get("/repos/{owner}/{repo}/check-runs/{id}", needs=READ)
def get_run(call: Call) -> Reply:
    return Reply(body=shapes.check_run(call.forge, _run(call)))


@routes.patch("/repos/{owner}/{repo}/check-runs/{id}", needs=WRITE)
def update_run(call: Call) -> Reply:
    run = _run(call)
    checks.update(call.forge, call.actor, run, call.body)
    return Reply(body=shapes.check_run(call.forge, run))


@routes.get("/repos/{owner}/{repo}/check-runs/{id}/annotations", needs=READ)
def list_annotations(call: Call) -> Reply:
    run = _run(call)
    return Reply(body=[shapes.annotation(call.forge, run, each) for each in call.page(run.annotations)])


@routes.post("/repos/{owner}/{repo}/check-runs/{id}/rerequest", needs=WRITE)
def rerequest_run(call: Call) -> Reply:
    checks.rerequest(call.forge, call.actor.account, _run(call))
    return Reply(201, {})


def _filtered(call: Call, runs: list[CheckRun]) -> Reply:
    name, status, app = call.query.get("check_name"), call.query.get("status"), call.query.get("app_id")
    found = [
        run
        for run in runs
        if name in (None, run.name) and status in (None, run.status) and app in (None, str(run.suite.app.id))
    ]
    if call.query.get("filter", "latest") == "latest":
        latest = {(run.suite.app.id, run.name): run for run in found}
        found = list(latest.values())
    shown = [shapes.check_run(call.forge, run) for run in call.page(found)]
    return Reply(body={"total_count": len(found), "check_runs": shown})


@routes.get("/repos/{owner}/{repo}/commits/{ref:path}/check-runs", needs=READ)
def list_runs_for_ref(call: Call) -> Reply:
    sha = resolved_sha(call)
    return _filtered(call, [run for run in call.repository.check_runs if run.suite.head_sha == sha])


@routes.get("/repos/{owner}/{repo}/commits/{ref:path}/check-suites", needs=READ)
def list_suites_for_ref(call: Call) -> Reply:
    sha = resolved_sha(call)
    app = call.query.get("app_id")
    found = [s for s in call.repository.suites if s.head_sha == sha and app in (None, str(s.app.id))]
    shown = [shapes.check_suite(call.forge, suite) for suite in call.page(found)]
    return Reply(body={"total_count": len(found), "check_suites": shown})


@routes.get("/repos/{owner}/{repo}/check-suites/{id}", needs=READ)
def get_suite(call: Call) -> Reply:
    return Reply(body=shapes.check_suite(call.forge, _suite(call)))


@routes.get("/repos/{owner}/{repo}/check-suites/{id}/check-runs", needs=READ)
def list_runs_of_suite(call: Call) -> Reply:
    return _filtered(call, list(_suite(call).runs))
