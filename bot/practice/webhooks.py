"""Delivers events to Apps: signed, in order for each App, recorded, never retried unless somebody asks."""

from __future__ import annotations

import hashlib
import hmac
import queue
import secrets
import ssl
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cache

import httpx

from .faults import Faults
from .model import App, Delivery

TIMEOUT_SECONDS = 10.0
KEPT_DELIVERIES = 2_000
MAX_PAYLOAD_BYTES = 25_000_000
"""Larger events are never sent, as on GitHub."""
_KEPT_RESPONSE_CHARACTERS = 2_000


@dataclass(frozen=True, slots=True)
class Event:
    """What is about to be delivered; `guid` is given only when an earlier delivery is repeated."""

    name: str
    action: str | None
    body: bytes
    installation_id: int | None = None
    repository_id: int | None = None
    guid: str | None = None
    redelivery: bool = False


class Webhooks:
    """One worker thread for each App that has a webhook, started at its first event; asleep while there is nothing."""

    def __init__(self, clock: Callable[[], datetime], faults: Faults) -> None:
        self._clock = clock
        self._faults = faults
        self._queues: dict[int, queue.SimpleQueue[Delivery | None]] = {}
        self._threads: list[threading.Thread] = []
        self._deliveries: dict[int, list[Delivery]] = {}
        self._changed = threading.Condition()
        self._waiting = 0
        self._ids = 40_000_000_000

    def send(self, app: App, event: Event) -> None:
        """Queues one event. Nothing happens for an App without a webhook address."""
        if app.webhook_url is None or len(event.body) > MAX_PAYLOAD_BYTES:
            return
        fate = None if event.redelivery else self._faults.take_webhook(event.name, event.action)
        if fate == "lose":
            return
        guid = event.guid or str(uuid.uuid4())
        for _ in range(2 if fate == "repeat" else 1):
            self._enqueue(self._new_delivery(app, event, guid), reachable=fate != "fail")

    def deliveries(self, app: App) -> list[Delivery]:
        """Finished deliveries, newest first."""
        with self._changed:
            return [delivery for delivery in reversed(self._deliveries.get(app.id, [])) if delivery.done]

    def settle(self, timeout_seconds: float = 10.0) -> bool:
        """Waits until every queued delivery has been answered; False when that took too long."""
        with self._changed:
            return self._changed.wait_for(lambda: self._waiting == 0, timeout_seconds)

    def close(self) -> None:
        for waiting in self._queues.values():
            waiting.put(None)
        for thread in self._threads:
            thread.join(timeout=TIMEOUT_SECONDS + 1)

    def _new_delivery(self, app: App, event: Event, guid: str) -> Delivery:
        with self._changed:
            self._ids += 1 + secrets.randbelow(50)
            return Delivery(
                id=self._ids,
                app=app,
                guid=guid,
                event=event.name,
                action=event.action,
                installation_id=event.installation_id,
                repository_id=event.repository_id,
                body=event.body,
                headers=_headers(app, event, guid),
                redelivery=event.redelivery,
                delivered_at=self._clock(),
            )

    def _enqueue(self, delivery: Delivery, reachable: bool) -> None:
        with self._changed:
            kept = self._deliveries.setdefault(delivery.app.id, [])
            kept.append(delivery)
            del kept[:-KEPT_DELIVERIES]
            if not reachable:
                delivery.status, delivery.status_code, delivery.done = "failed to connect to host", 502, True
                return
            self._waiting += 1
            if delivery.app.id not in self._queues:
                self._start(delivery.app.id)
            self._queues[delivery.app.id].put(delivery)

    def _start(self, app_id: int) -> None:
        waiting: queue.SimpleQueue[Delivery | None] = queue.SimpleQueue()
        self._queues[app_id] = waiting
        thread = threading.Thread(target=self._work, args=(waiting,), name=f"webhooks-{app_id}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self, waiting: queue.SimpleQueue[Delivery | None]) -> None:
        with httpx.Client(timeout=TIMEOUT_SECONDS, trust_env=False, verify=_tls()) as client:
            while (delivery := waiting.get()) is not None:
                _deliver(client, delivery)
                with self._changed:
                    delivery.done = True
                    self._waiting -= 1
                    self._changed.notify_all()


@cache
def _tls() -> ssl.SSLContext:
    """Reading the certificates takes longer than many deliveries: once for all workers."""
    return ssl.create_default_context()


def signature(secret: str, body: bytes) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def _headers(app: App, event: Event, guid: str) -> dict[str, str]:
    headers = {
        "Accept": "*/*",
        "Content-Type": "application/json",
        "User-Agent": "GitHub-Hookshot/practice",
        "X-GitHub-Delivery": guid,
        "X-GitHub-Event": event.name,
        "X-GitHub-Hook-ID": str(app.hook_id),
        "X-GitHub-Hook-Installation-Target-ID": str(app.id),
        "X-GitHub-Hook-Installation-Target-Type": "integration",
    }
    if app.webhook_secret is not None:
        headers["X-Hub-Signature-256"] = signature(app.webhook_secret, event.body)
    return headers


def _deliver(client: httpx.Client, delivery: Delivery) -> None:
    started = time.monotonic()
    assert delivery.app.webhook_url is not None
    try:
        response = client.post(delivery.app.webhook_url, content=delivery.body, headers=delivery.headers)
    except httpx.TimeoutException:
        delivery.status, delivery.status_code = "timed out", 504
    except (httpx.HTTPError, httpx.InvalidURL):
        delivery.status, delivery.status_code = "failed to connect to host", 502
    else:
        delivery.status = "OK" if response.is_success else f"Invalid HTTP Response: {response.status_code}"
        delivery.status_code = response.status_code
        delivery.response_headers = dict(response.headers)
        delivery.response_body = response.text[:_KEPT_RESPONSE_CHARACTERS]
    delivery.duration = time.monotonic() - started
