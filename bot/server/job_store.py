"""`/runs/{job}/store`: the store of a job on another machine, for the wrapper that runs there.

    GET  /runs/{job}/store?prefix=metrics/     {"names": [...]}
    GET  /runs/{job}/store/{key}               the file; with `Range` the rest of it
    PUT  /runs/{job}/store/{key}               the file, whole, or in pieces (`uploads.py`)

The bearer token is the job's own. It reads what the job is given, writes what a job says, and only while the job is
under way; inputs may hold a benchmark's items, which travel this way and no other. Not covered: what a wrapper that
was taken over says of its own job, which nobody else could contradict.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from fastapi import APIRouter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response

from bot.errors import UserError
from bot.server import uploads
from bot.server.run_tokens import RunTokens
from bot.server.uploads import Turned
from runners.github_actions.backend import STORE
from runners.job import JobSpec, read_json
from runners.layout import SPEC, read_status
from runners.remote.store import (
    CANCEL,
    CHECKPOINTS,
    INPUTS,
    LOG,
    METRICS,
    OUTPUTS,
    OUTPUTS_NOTE,
    SEAL,
    STATUS,
    FolderStore,
    check_key,
)

if TYPE_CHECKING:
    from bot.server.app import Bot

READ = frozenset({INPUTS, CANCEL, SEAL, STATUS})
NOTE_BYTES, PIECE_BYTES = 256 << 10, 16 << 20
"""Largest status and largest piece of metrics or log; wrappers send pieces of about 1 MiB."""
MOST_PIECES = 20_000
KEPT_CHECKPOINTS = 2
REQUESTS_A_SECOND, BURST = 50.0, 300.0
"""For one job. A job with much to say sends a status, a piece of metrics and one of log twice a second."""
_KNOWN_JOBS = 10_000
_JOB = re.compile(r"[a-z0-9][a-z0-9-]{0,119}")
_PIECE = re.compile(r"(?:metrics/\d{8}\.jsonl|log/\d{8}\.txt)")
_CHECKPOINT = re.compile(r"checkpoints/\d{1,12}\.tar")


class JobStores:
    """The stores below the folder of a runner whose jobs are on other machines."""

    def __init__(self, root: Path, tokens: RunTokens, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._root, self._tokens, self._clock = root, tokens, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """Job -> (requests that it may still make, when that was counted)."""
        self._writing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def answer(self, job_id: str, key: str, request: Request) -> Response:
        """One request, in every case answered."""
        try:
            folder = await self._admitted(job_id, request)
            if request.method == "PUT":
                return await self._put(folder, key, request)
            return await asyncio.to_thread(self._get, folder, key, request)
        except Turned as turned:
            received = {} if turned.received is None else {"received": turned.received}
            headers = {"Retry-After": "1"} if turned.status in (429, 507) else None
            return JSONResponse({"error": str(turned), **received}, turned.status, headers)
        except _Closed as closed:
            return JSONResponse({"error": str(closed), "closed": True}, closed.status)
        except ClientDisconnect:
            return JSONResponse({"error": "the file did not arrive whole"}, 400)
        except FileNotFoundError:
            return JSONResponse({"error": "the job has ended meanwhile", "closed": True}, 410)

    async def _admitted(self, job_id: str, request: Request) -> Path:
        """The job's folder, for whoever holds the job's token while the job is under way. Raises: Turned, _Closed."""
        if not _JOB.fullmatch(job_id) or not self._tokens.accepts(job_id, request.headers.get("authorization", "")):
            raise Turned(401, "a bearer token made for this job is needed")
        self._count(job_id)
        folder = self._root / job_id
        if not await asyncio.to_thread((folder / SPEC).is_file):
            raise _Closed(404, "there is no such job here")
        status = await asyncio.to_thread(read_status, folder)
        if status is not None and status.state.ended:
            raise _Closed(410, f"the job has ended: {status.state}")
        return folder

    def _count(self, job_id: str) -> None:
        now = self._clock()
        left, at = self._left.pop(job_id, (BURST, now))
        left = min(BURST, left + (now - at) * REQUESTS_A_SECOND)
        self._left[job_id] = (max(0.0, left - 1), now)
        if len(self._left) > _KNOWN_JOBS:
            self._left.popitem(last=False)
        if left < 1:
            raise Turned(429, f"at most {REQUESTS_A_SECOND:g} requests a second are taken")

    # reading

    def _get(self, folder: Path, key: str, request: Request) -> Response:
        if not key:
            prefix = request.query_params.get("prefix", "")
            if prefix not in (METRICS, LOG, CHECKPOINTS):
                raise Turned(400, f"a prefix is one of {METRICS}, {LOG} and {CHECKPOINTS}")
            return JSONResponse({"names": FolderStore(folder / STORE).names(prefix)})
        if key not in READ:
            raise Turned(403, "a job reads its inputs, its own status and whether it shall end")
        path = folder / STORE / key
        try:
            found = path.stat()
        except FileNotFoundError:
            return JSONResponse({"error": "there is no such file", "missing": True}, 404)
        return FileResponse(path, stat_result=found, media_type="application/octet-stream")

    # writing

    async def _put(self, folder: Path, key: str, request: Request) -> Response:
        try:
            check_key(key)
        except UserError as error:
            raise Turned(400, str(error)) from error
        limit = await asyncio.to_thread(_limit, folder, key)
        content_range = request.headers.get("content-range")
        lock = self._writing.setdefault(f"{folder.name}/{key}", asyncio.Lock())
        async with lock:
            # One after the other: of a broken connection the rest may still be on its way to the disk.
            return await self._received(folder / STORE / key, request, limit, content_range)

    async def _received(self, target: Path, request: Request, limit: int, content_range: str | None) -> Response:
        if content_range is None:
            await uploads.receive_whole(target, request.stream(), limit)
        else:
            piece = uploads.piece_of(content_range, request.headers.get("repr-digest", ""))
            if piece.total > limit:
                raise Turned(413, f"at most {limit:,} bytes of this are taken")
            received = await uploads.receive_piece(target, request.stream(), piece)
            if received is not None:
                return JSONResponse({"received": received}, 202)
        if target.parent.name == CHECKPOINTS.strip("/"):
            await asyncio.to_thread(_drop_old, target.parent)
        return JSONResponse({"stored": True}, 201)


class _Closed(Exception):
    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def _limit(folder: Path, key: str) -> int:
    """How large this file may be. Raises: Turned 403 for what is not the job's to write, 413 for too many."""
    if key in (STATUS, OUTPUTS_NOTE):
        return NOTE_BYTES
    if _PIECE.fullmatch(key):
        if int(Path(key).stem) > MOST_PIECES:
            raise Turned(413, f"at most {MOST_PIECES:,} pieces are taken")
        return PIECE_BYTES
    if key == OUTPUTS or _CHECKPOINT.fullmatch(key):
        # What is packed takes a little more room than what lay on the job's disk.
        disk_gib = JobSpec.from_dict(read_json(folder / SPEC) or {}).caps.disk_gib
        return int(disk_gib * 1.05 * 2**30) + (1 << 20)
    raise Turned(403, "a job writes its status, metrics, log, checkpoints and outputs")


def _drop_old(folder: Path) -> None:
    """All but the newest checkpoints, and what came of older ones: each may be as large as a model."""
    newest = sorted((int(path.stem) for path in folder.glob("[0-9]*.tar")), reverse=True)[:KEPT_CHECKPOINTS]
    for path in folder.iterdir():
        step = path.name.removeprefix(".").partition(".")[0]
        if step.isdecimal() and int(step) < newest[-1]:
            path.unlink(missing_ok=True)


def store_routes(bot: Bot) -> APIRouter:
    """The endpoints over the bot's runner; where its jobs need no store they know no job."""
    return routes_of(JobStores(bot.settings.data_folder.resolve() / "jobs", bot.run_tokens))


def routes_of(stores: JobStores) -> APIRouter:
    router = APIRouter()

    @router.get("/runs/{job_id}/store")
    async def names(job_id: str, request: Request) -> Response:
        """The keys that begin with `?prefix=`."""
        return await stores.answer(job_id, "", request)

    @router.get("/runs/{job_id}/store/{key:path}")
    async def read(job_id: str, key: str, request: Request) -> Response:
        """A file that the job is given."""
        return await stores.answer(job_id, key, request)

    @router.put("/runs/{job_id}/store/{key:path}", status_code=201)
    async def write(job_id: str, key: str, request: Request) -> Response:
        """A file that the job says."""
        return await stores.answer(job_id, key, request)

    return router
