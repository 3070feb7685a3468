"""The webhook: a delivery is stored, and only then acknowledged."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from typing import TYPE_CHECKING

from fastapi import APIRouter, Header, HTTPException, Request
from fastapi.responses import JSONResponse

if TYPE_CHECKING:
    from bot.server.app import Bot

LARGEST_BODY_BYTES = 25 * 1024 * 1024
"""GitHub sends no larger payload: https://docs.github.com/en/webhooks/webhook-events-and-payloads"""


def webhook_routes(bot: Bot) -> APIRouter:
    """`POST /webhook`, where GitHub delivers."""
    router = APIRouter()

    @router.post("/webhook", status_code=202)
    async def webhook(
        request: Request,
        x_hub_signature_256: str = Header(default=""),
        x_github_event: str = Header(default="", max_length=100),
        x_github_delivery: str = Header(default="", max_length=200),
    ) -> JSONResponse:
        body = await _body(request)
        expected = (
            "sha256="
            + hmac.new(bot.settings.webhook_secret.get_secret_value().encode(), body, hashlib.sha256).hexdigest()
        )
        if not hmac.compare_digest(expected.encode(), x_hub_signature_256.encode()):
            return JSONResponse({"error": "the signature does not match"}, status_code=401)
        if not x_github_event or not x_github_delivery:
            return JSONResponse({"error": "X-GitHub-Event and X-GitHub-Delivery are required"}, status_code=400)
        new = await asyncio.to_thread(bot.inbox.receive, x_github_delivery, x_github_event, body)
        bot.arrived.set()
        return JSONResponse({"stored": new}, status_code=202)

    return router


async def _body(request: Request) -> bytes:
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > LARGEST_BODY_BYTES:
            raise HTTPException(413, "the payload is larger than GitHub ever sends")
        chunks.append(chunk)
    return b"".join(chunks)
