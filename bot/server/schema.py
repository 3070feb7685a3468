"""The policy's JSON Schema, where editors can fetch it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from fastapi import APIRouter, Response

from bot.conversation.policy import policy_schema

if TYPE_CHECKING:
    from bot.server.app import Bot

SCHEMA_PATH = "/schema/postdoc.json"


def schema_routes(bot: Bot) -> APIRouter:
    """`GET /schema/postdoc.json`. It holds nothing of anybody's, so anybody may read it."""
    router = APIRouter()
    text = json.dumps(policy_schema(), indent=2)
    headers = {"Access-Control-Allow-Origin": "*", "Cache-Control": "public, max-age=3600"}

    @router.get(SCHEMA_PATH)
    async def schema() -> Response:
        return Response(text, media_type="application/schema+json", headers=headers)

    return router
