"""Read-only views of the journals as JSON, and the two health probes."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import JSONResponse

from bot import __version__
from bot.domain.goal import GoalId
from bot.server.access import Access, Denied

if TYPE_CHECKING:
    from bot.server.app import Bot


def api_routes(bot: Bot) -> APIRouter:
    """`/healthz`, `/readyz` and `/api`."""
    router = APIRouter()

    @router.head("/healthz", include_in_schema=False)
    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok", "version": __version__}

    @router.head("/readyz", include_in_schema=False)
    @router.get("/readyz")
    async def readyz() -> Response:
        return JSONResponse({"ready": bot.ready}, status_code=200 if bot.ready else 503)

    @router.get("/api/goals")
    async def goals(request: Request) -> list[dict[str, Any]]:
        may_read(bot.access, request)
        found = []
        for goal_id in await asyncio.to_thread(bot.journal.goals):
            x = await bot.engine.experiment(goal_id)
            if not x.is_goal:
                continue
            found.append({"goal_id": goal_id, "state": x.state, "pull_request": x.pull_request, "runs": len(x.runs)})
        return found

    @router.get("/api/goals/{owner}/{repository}/{issue}/events")
    async def events(request: Request, owner: str, repository: str, issue: int, after: int = -1) -> dict[str, Any]:
        """The goal's journal after event `after`, and the running job's progress."""
        may_read(bot.access, request)
        goal_id = GoalId(f"{owner}/{repository}#{issue}")
        journal = await asyncio.to_thread(bot.journal.read, goal_id)
        return {"events": [asdict(e) for e in journal if e.seq > after], "progress": bot.watcher.progress.get(goal_id)}

    return router


def may_read(access: Access, request: Request) -> None:
    """Answer 401, 403 or 421 instead unless `access` lets this request look."""
    try:
        access.require(request.headers)
    except Denied as denied:
        raise HTTPException(denied.status, str(denied)) from denied
