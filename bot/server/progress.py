"""`POST /runs/{job}/progress`: a job tells how far it is, where its backend cannot be watched.

The bearer token is made for one job and opens nothing else: it can make a progress bar lie, no more. Results never come
this way.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bot.errors import TransientError

if TYPE_CHECKING:
    from bot.server.app import Bot

LARGEST_REPORT_BYTES = 16 * 1024
SHORTEST_PAUSE_SECONDS = 1.0
_KNOWN_JOBS = 10_000


class Report(BaseModel):
    """One report. Field names are TRL's."""

    model_config = ConfigDict(extra="ignore", strict=True)

    global_step: int = Field(ge=0, le=10**9)
    max_steps: int | None = Field(None, ge=1, le=10**9)
    loss: float | None = None
    eval_loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None

    def row(self) -> dict[str, Any]:
        """As a line of metrics.jsonl; what is not a number is left out."""
        values = {"loss": self.loss, "eval_loss": self.eval_loss, "learning_rate": self.learning_rate,
                  "grad_norm": self.grad_norm}  # fmt: skip
        finite = {name: value for name, value in values.items() if value is not None and math.isfinite(value)}
        return {"step": self.global_step, "max_steps": self.max_steps} | finite


def progress_routes(bot: Bot) -> APIRouter:
    """`POST /runs/{job}/progress`, for the wrapper around a job on another machine."""
    router = APIRouter()
    last_at: dict[str, float] = {}

    @router.post("/runs/{job_id}/progress", status_code=202)
    async def progress(job_id: str, request: Request) -> Response:
        """A report of one step: `{"global_step": 120, "max_steps": 300, "loss": 1.31}`."""
        if not bot.run_tokens.accepts(job_id, request.headers.get("authorization", "")):
            return _error(401, "a bearer token made for this job is needed")
        now = time.monotonic()
        if now - last_at.get(job_id, float("-inf")) < SHORTEST_PAUSE_SECONDS:
            return _error(429, "at most one report a second is taken", {"Retry-After": "1"})
        if len(last_at) > _KNOWN_JOBS:
            last_at.clear()
        last_at[job_id] = now
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > LARGEST_REPORT_BYTES:
                return _error(413, f"a report has at most {LARGEST_REPORT_BYTES} bytes")
        try:
            report = Report.model_validate(json.loads(body))
        except (ValueError, RecursionError, ValidationError):
            return _error(422, 'write {"global_step": 120, "max_steps": 300, "loss": 1.31}; all but the first may lack')
        try:
            await asyncio.to_thread(bot.reports.add, job_id, report.row())
        except (TransientError, sa.exc.SQLAlchemyError):
            return _error(503, "the report could not be stored now", {"Retry-After": "5"})
        return JSONResponse({"stored": True}, status_code=202)

    return router


def _error(status: int, why: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": why}, status_code=status, headers=headers)
