"""The webhook: a delivery is stored, and only then acknowledged."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from bot.conversation.events import acts_on
from bot.errors import TransientError
from bot.server.machine_news import RUN_EVENTS

if TYPE_CHECKING:
    from bot.server.app import Bot

LARGEST_BODY_BYTES = 25 * 1024 * 1024
"""GitHub sends no larger payload: https://docs.github.com/en/webhooks/webhook-events-and-payloads"""
MOST_BYTES_ARRIVING = 256 * 1024 * 1024
"""In all the bodies that are being read; more are turned away."""
BODY_SECONDS = 10.0
"""GitHub gives up after as long: https://docs.github.com/en/webhooks/using-webhooks/best-practices-for-using-webhooks"""
_EVENT = re.compile(r"[a-z0-9_]{1,100}")
_DELIVERY = re.compile(r"[A-Za-z0-9_.:-]{1,200}")


class Admission:
    """Which deliveries are taken in: events somebody acts on, from accounts the server is for."""

    def __init__(self, allowed: tuple[str, ...]) -> None:
        self._allowed = frozenset(name.lower() for name in allowed)
        self.ignored: Counter[str] = Counter()
        """How many were left out, by `event` or `account`."""

    def refusal(self, event: str, payload: Any | bytes) -> str | None:
        """Why this is acknowledged and not stored; None when it is stored. `payload` is parsed, or the raw body."""
        if not acts_on(event):
            return self._ignore("event", "nobody acts on this event")
        if not self._allowed:
            return None
        if isinstance(payload, bytes):
            try:
                payload = json.loads(payload)
            except (ValueError, RecursionError):
                payload = None
        if not _names(payload) & self._allowed:
            return self._ignore("account", "the account is not on this server's list")
        return None

    def _ignore(self, what: str, reason: str) -> str:
        self.ignored[what] += 1
        return reason


def _names(payload: Any) -> set[str]:
    """`owner` and `owner/repo` that the payload is about, in lower case."""
    if not isinstance(payload, dict):
        return set()
    repository, installation = payload.get("repository"), payload.get("installation")
    if isinstance(repository, dict):
        full_name = str(repository.get("full_name", "")).lower()
        return {full_name, full_name.partition("/")[0]}
    account = installation.get("account") if isinstance(installation, dict) else None
    return {str(account.get("login", "")).lower()} if isinstance(account, dict) else set()


def webhook_routes(bot: Bot) -> APIRouter:
    """`POST /webhook`, where GitHub delivers."""
    secret = bot.settings.webhook_secret.get_secret_value().encode()
    arriving = _Arriving()

    # A plain route: this is the one that has to keep up with GitHub, and FastAPI's reading of parameters costs a third.
    async def webhook(request: Request) -> Response:
        try:
            body = await arriving.body(request)
        except _TurnedAway as away:
            return away.answer
        headers = request.headers
        expected = "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(expected.encode(), headers.get("x-hub-signature-256", "").encode()):
            return _answer(401, error="the signature does not match")
        event, delivery_id = headers.get("x-github-event", ""), headers.get("x-github-delivery", "")
        if not (_EVENT.fullmatch(event) and _DELIVERY.fullmatch(delivery_id)):
            return _answer(400, error="X-GitHub-Event and X-GitHub-Delivery are required")
        if event in RUN_EVENTS:
            await asyncio.to_thread(bot.machine_news.note, event, body)
            return _answer(202, stored=False, ignored="a run is looked at anew; nothing has to be kept")
        if (reason := bot.admission.refusal(event, body)) is not None:
            return _answer(202, stored=False, ignored=reason)
        try:
            new = await bot.inbox.receive(delivery_id, event, body)
        except TransientError as error:
            return _answer(503, error=str(error))
        bot.arrived.set()
        return _answer(202, stored=new)

    router = APIRouter()
    router.add_route("/webhook", webhook, methods=["POST"])
    return router


def _answer(status: int, **said: object) -> Response:
    # Sent again by whoever sent it: GitHub itself does not, so the sweep asks it to.
    headers = {"Retry-After": "1"} if status == 503 else None
    return Response(json.dumps(said), status, headers, media_type="application/json")


class _TurnedAway(Exception):
    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.answer = _answer(status, error=reason)


class _Arriving:
    """Reads bodies within limits of size, time, and memory for all of them together."""

    def __init__(self) -> None:
        self._bytes = 0

    async def body(self, request: Request) -> bytes:
        """Raises: _TurnedAway."""
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for chunk in request.stream():
                    size += len(chunk)
                    self._bytes += len(chunk)
                    if size > LARGEST_BODY_BYTES:
                        raise _TurnedAway(413, "the payload is larger than GitHub ever sends")
                    if self._bytes > MOST_BYTES_ARRIVING:
                        raise _TurnedAway(503, "too many deliveries arrive at once")
                    chunks.append(chunk)
        except TimeoutError:
            raise _TurnedAway(408, "the payload did not arrive in time") from None
        except ClientDisconnect:
            raise _TurnedAway(400, "the payload did not arrive whole") from None
        finally:
            self._bytes -= size
        return b"".join(chunks) if len(chunks) != 1 else chunks[0]
