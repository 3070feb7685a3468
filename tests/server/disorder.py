"""A network between forge and bot that loses, repeats, delays and overtakes deliveries, by a seed.

It stands where the App's webhook address points. What it loses it answers with 502, so the forge records it as failed;
what it holds back it has acknowledged already, as a proxy with a queue would. Repetitions come under the same id and
under new ones: a signature covers the body alone.
"""

from __future__ import annotations

import json
import random
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from heapq import heappop, heappush
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

from bot.conversation.events import acts_on


class Disorder:
    def __init__(self, target: str, seed: int, *, copies: int) -> None:
        self._target, self._copies = target, copies
        self._random = random.Random(seed)
        self._lock = threading.Condition()
        self._waiting: list[tuple[float, int, dict[str, str], bytes]] = []
        self._count = 0
        self._lost: set[str] = set()
        """Those that the bot wants and has to ask for."""
        self._passed: set[str] = set()
        self._busy = False
        self._over = False
        self.forwarded = 0
        """Deliveries that reached the bot."""
        self.repeated = 0
        self.dropped = 0
        self.overtaken = 0
        """Those that reached it after one that came later."""

    def take(self, headers: dict[str, str], body: bytes) -> int:
        """What becomes of one delivery; the status that its sender sees."""
        guid = headers["X-GitHub-Delivery"]
        with self._lock:
            if guid not in self._lost and self._random.random() < 0.3:
                if acts_on(headers["X-GitHub-Event"], json.loads(body).get("action")):
                    self._lost.add(guid)
                self.dropped += 1
                return 502
            self._passed.add(guid)
            copies = 1 + self._random.randint(0, 2 * self._copies)
            for copy in range(copies):
                # Most arrive at once; some come when a person has long seen what happened and done the next thing.
                delay = self._random.choice((0.0, 0.02, 0.1, 0.3)) * self._random.random()
                again = {"X-GitHub-Delivery": str(uuid.uuid4())} if copy and self._random.random() < 0.5 else {}
                self._count += 1
                heappush(self._waiting, (time.monotonic() + delay, self._count, headers | again, body))
            self.repeated += copies - 1
            self._lock.notify()
        return 202

    def forward(self) -> None:
        """Hand on what is due until the end."""
        latest = 0
        with httpx.Client(timeout=20, trust_env=False) as client:
            while True:
                with self._lock:
                    self._busy = False
                    self._lock.notify_all()
                    while not self._over and (not self._waiting or self._waiting[0][0] > time.monotonic()):
                        self._lock.wait(self._waiting[0][0] - time.monotonic() if self._waiting else None)
                    if self._over:
                        return
                    _, number, headers, body = heappop(self._waiting)
                    self._busy = True
                answer = client.post(self._target, content=body, headers=headers)
                assert answer.status_code == 202, answer.text
                self.forwarded += 1
                self.overtaken += number < latest
                latest = max(latest, number)

    @property
    def quiet(self) -> bool:
        """Nothing is on its way, and nothing that was lost is still missing."""
        with self._lock:
            return not self._waiting and not self._busy and self._lost <= self._passed

    def end(self) -> None:
        with self._lock:
            self._over = True
            self._lock.notify()


@contextmanager
def disorder(target: str, seed: int, *, copies: int) -> Iterator[tuple[str, Disorder]]:
    """(the address to deliver to, what happens there). `copies` is how often one is repeated, on average."""
    found = Disorder(target, seed, copies=copies)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            kept = {name: value for name, value in self.headers.items() if name.lower().startswith("x-")}
            self.send_response(found.take(kept, body))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threads = [threading.Thread(target=each, daemon=True) for each in (server.serve_forever, found.forward)]
    for thread in threads:
        thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/webhook", found
    finally:
        server.shutdown()
        found.end()
        for thread in threads:
            thread.join(timeout=20)
        server.server_close()
