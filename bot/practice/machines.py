"""The practice forge's own door for the machines that execute workflow jobs; GitHub's is private and not imitated.

    POST /practice/machines/next                       the next job for this machine, taken: 200, or 204 for none
    GET  /practice/machines/jobs/{job}                 {"status", "cancel"}: whether somebody wants it to end
    POST /practice/machines/jobs/{job}/finish          {"conclusion": "success"}
    PUT  /practice/machines/runs/{run}/artifacts/{name}   a zip archive
    GET  /practice/artifacts/{artifact}                where GitHub keeps archives on another host: a signed address

A machine shows the token that it was registered with (`Forge.add_machine`).
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from . import workflow_files, workflow_runs
from .actions_model import Artifact, Machine, WorkflowJob, WorkflowRun
from .replies import ApiError
from .shapes import accounts, repositories
from .shapes import actions as shapes

if TYPE_CHECKING:
    from .forge import Forge

ADDRESS_SECONDS = 60
"""https://docs.github.com/en/rest/actions/artifacts#download-an-artifact: the address expires after 1 minute."""
DOOR = "/practice/machines"


def artifact_address(forge: Forge, artifact: Artifact) -> str:
    until = int(forge.clock().timestamp()) + ADDRESS_SECONDS
    return f"{forge.base_url}/practice/artifacts/{artifact.id}?se={until}&sig={_signature(forge, artifact.id, until)}"


def _signature(forge: Forge, number: int, until: int) -> str:
    return hmac.new(forge.machine_secret, f"{number} {until}".encode(), hashlib.sha256).hexdigest()


def routes(forge: Forge) -> list[Route]:
    door = _Door(forge)
    return [
        Route(f"{DOOR}/next", door.take, methods=["POST"]),
        Route(DOOR + "/jobs/{job:int}", door.look, methods=["GET"]),
        Route(DOOR + "/jobs/{job:int}/finish", door.finish, methods=["POST"]),
        Route(DOOR + "/runs/{run:int}/artifacts/{name}", door.keep, methods=["PUT"]),
        Route("/practice/artifacts/{artifact:int}", door.download, methods=["GET"]),
    ]


class _Door:
    def __init__(self, forge: Forge) -> None:
        self._forge = forge

    async def take(self, request: Request) -> Response:
        with self._forge.lock:
            machine = self._machine(request)
            job = workflow_runs.next_job(self._forge, machine) if machine is not None else None
            if machine is None:
                return _unknown()
            return Response(status_code=204) if job is None else JSONResponse(self._described(job))

    def _described(self, job: WorkflowJob) -> dict[str, Any]:
        run = job.run
        return {
            "job": shapes.job(self._forge, job),
            "run": shapes.run(self._forge, run),
            "workflow": workflow_files.text_at(run.repository, run.file, run.head_sha),
            "event": {
                "inputs": run.inputs,
                "ref": f"refs/heads/{run.head_branch}",
                "workflow": run.file.path,
                "repository": repositories.repository(self._forge, run.repository),
                "sender": accounts.user(self._forge, run.actor),
            },
        }

    async def look(self, request: Request) -> Response:
        with self._forge.lock:
            job = self._job(request)
            return _unknown() if job is None else JSONResponse({"status": job.status, "cancel": job.run.cancel})

    async def finish(self, request: Request) -> Response:
        said = await request.json()
        with self._forge.lock:
            job = self._job(request)
            if job is None:
                return _unknown()
            if said.get("conclusion") not in workflow_runs.CONCLUSIONS:
                return JSONResponse({"message": f"conclusion: one of {workflow_runs.CONCLUSIONS}"}, 422)
            workflow_runs.finish(self._forge, job, said["conclusion"])
            return JSONResponse({"status": job.status, "conclusion": job.conclusion})

    async def keep(self, request: Request) -> Response:
        content = await request.body()
        with self._forge.lock:
            machine = self._machine(request)
            run = self._run(machine, request.path_params["run"]) if machine is not None else None
            if run is None:
                return _unknown()
            try:
                kept = workflow_runs.keep_artifact(self._forge, run, request.path_params["name"], content)
            except ApiError as error:
                return JSONResponse(error.body, error.status)
            return JSONResponse({"id": kept.id, "digest": kept.digest}, 201)

    async def download(self, request: Request) -> Response:
        """An expired or altered address is refused as the storage service refuses it, not as GitHub would."""
        number, until = request.path_params["artifact"], request.query_params.get("se", "")
        given = request.query_params.get("sig", "")
        expected = _signature(self._forge, number, int(until)) if until.isdecimal() else ""
        if not expected or not hmac.compare_digest(expected, given):
            return PlainTextResponse("AuthenticationFailed", 403)
        if "authorization" in request.headers:
            return PlainTextResponse("Only one form of authentication may be used", 400)
        with self._forge.lock:
            stored = [a for r in self._forge.repositories.values() for a in r.actions.artifacts if a.id == number]
            if self._forge.clock().timestamp() > int(until):
                return PlainTextResponse("AuthenticationFailed: Signature not valid in the specified time frame", 403)
        if not stored:
            return PlainTextResponse("BlobNotFound", 404)
        return FileResponse(stored[0].path, media_type="application/zip")

    def _machine(self, request: Request) -> Machine | None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        machines = (each for stored in self._forge.repositories.values() for each in stored.actions.machines)
        return next((each for each in machines if hmac.compare_digest(each.token.encode(), given.encode())), None)

    def _job(self, request: Request) -> WorkflowJob | None:
        machine = self._machine(request)
        if machine is None:
            return None
        job = machine.repository.actions.job(request.path_params["job"])
        return job if job is not None and job.machine is machine else None

    def _run(self, machine: Machine, number: int) -> WorkflowRun | None:
        run = machine.repository.actions.run(number)
        return run if run is not None and any(job.machine is machine for job in run.jobs) else None


def _unknown() -> Response:
    return JSONResponse({"message": "no machine with this token, or nothing of its own"}, 401)
