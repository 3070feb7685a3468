"""Read-only views of the journals as JSON, and the two health probes."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Header, HTTPException, Response
from fastapi.responses import JSONResponse

from bot import __version__
from bot.config import Settings
from bot.domain.goal import GoalId

if TYPE_CHECKING:
    from bot.server.app import Bot


def api_routes(bot: Bot) -> APIRouter:
    """`/healthz`, `/readyz` and `/api`."""
    router = APIRouter()

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok", "version": __version__}

    @router.get("/readyz")
    async def readyz() -> Response:
        return JSONResponse({"ready": bot.ready}, status_code=200 if bot.ready else 503)

    @router.get("/api/goals")
    async def goals(authorization: str = Header(default="")) -> list[dict[str, Any]]:
        may_read(bot.settings, authorization)
        found = []
        for goal_id in await asyncio.to_thread(bot.journal.goals):
            x = await bot.engine.experiment(goal_id)
            found.append({"goal_id": goal_id, "state": x.state, "pull_request": x.pull_request, "runs": len(x.runs)})
        return found

    @router.get("/api/goals/{owner}/{repository}/{issue}/events")
    async def events(
        owner: str, repository: str, issue: int, after: int = -1, authorization: str = Header(default="")
    ) -> dict[str, Any]:
        """The goal's journal after event `after`, and the running job's progress."""
        may_read(bot.settings, authorization)
        goal_id = GoalId(f"{owner}/{repository}#{issue}")
        journal = await asyncio.to_thread(bot.journal.read, goal_id)
        return {"events": [asdict(e) for e in journal if e.seq > after], "progress": bot.watcher.progress.get(goal_id)}

    return router


def may_read(settings: Settings, authorization: str) -> None:
    """The journals hold private issues: only loopback, or the holder of the token, may read them."""
    if settings.api_token is None:
        if settings.loopback:
            return
        raise HTTPException(403, "Set POSTDOC_API_TOKEN to read /api on an address that others can reach.")
    token = settings.api_token.get_secret_value()
    if not secrets.compare_digest(authorization.encode(), f"Bearer {token}".encode()):
        raise HTTPException(401, "A bearer token is needed.")
