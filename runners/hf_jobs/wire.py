"""What a job of Hugging Face Jobs says of itself in its own log, the only way out of its container that costs nothing.

A *mark* is a line `@postdoc SEQ MAC KIND JSON`. Its number lets a reader that connects again skip what it has had; its
code, made with the jobs' token, tells it from a line that the script printed. Every other line is log, and belongs to
the next mark.

Not covered: that the platform delivers every line. What is lost of metrics and log comes whole with the outputs.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import Any

PREFIX = "@postdoc "
MARK_BYTES = 3000
"""Of a mark's JSON. Container runtimes cut lines at 16 KiB (https://github.com/kubernetes/kubernetes/issues/52444)."""
STATUS, METRICS, LOG, NOTE = "status", "metrics", "log", "note"


@dataclass(frozen=True, slots=True)
class Mark:
    number: int
    """From 1, without gaps as they are sent."""
    kind: str
    data: Any


class Signer:
    """Makes and checks the marks of one job."""

    def __init__(self, token: str, job: str) -> None:
        """`job` names the job so that no other one's marks can be taken for its own."""
        self._key = hashlib.sha256(f"postdoc marks\0{token}".encode()).digest()
        self._job = job

    def line(self, mark: Mark) -> str:
        payload = json.dumps(mark.data, separators=(",", ":"))
        return f"{PREFIX}{mark.number} {self._code(mark.number, mark.kind, payload)} {mark.kind} {payload}"

    def read(self, line: str) -> Mark | None:
        """None for anything that this job's wrapper did not write."""
        words = line.removeprefix(PREFIX).split(" ", 3)
        if not line.startswith(PREFIX) or len(words) != 4 or not words[0].isascii() or not words[0].isdecimal():
            return None
        number, code, kind, payload = int(words[0]), words[1], words[2], words[3]
        if not hmac.compare_digest(code.encode(), self._code(number, kind, payload).encode()):
            return None
        return Mark(number, kind, json.loads(payload))

    def _code(self, number: int, kind: str, payload: str) -> str:
        said = f"{self._job}\0{number}\0{kind}\0{payload}".encode()
        return hmac.new(self._key, said, hashlib.sha256).hexdigest()[:32]
