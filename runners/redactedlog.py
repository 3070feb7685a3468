"""A job's log with known shapes of secrets taken out before a byte of it is stored.

Looking for them is slow (some megabytes a second) and a script can print very fast, so what was just printed waits in
memory and is looked through a little at a time. A log past its cap drops its oldest part; what is dropped while it
waits costs nothing, so that a flood of output costs no more than the cap's worth of it.

Not covered: exact values that look like nothing in particular. The bot alone knows those, and takes them out of what
it reads.
"""

from __future__ import annotations

import string
import time
from pathlib import Path

from runners.joblog import DEFAULT_CAP_BYTES, CappedLog

_PIECE_BYTES = 64 << 10
_CONTEXT_CHARACTERS = 4 << 10
"""Kept in memory of what was stored last: a secret that began there goes on here. A private key has 3,300 characters
(RSA of 4,096 bits in PEM)."""
_LONGEST_HELD_BACK = 4 << 10
_FIRST_LOOK_SECONDS = 0.1
"""What is printed waits so long before it is stored, so that the next line can show that a secret was parted."""
_LOOK_SECONDS = 0.25
_BUDGET_SECONDS = 0.1
"""For one look, so that looking takes less than a third of a processor while the job runs."""

_OF_A_TOKEN = (string.ascii_letters + string.digits + "_-./+=%:@\\").encode("ascii")


class RedactedLog:
    """Takes what a job prints; `settle` is called now and then, `close` at the end."""

    def __init__(self, path: Path, cap_bytes: int = DEFAULT_CAP_BYTES) -> None:
        self._log = CappedLog(path, cap_bytes)
        self._cap_bytes = cap_bytes
        self._waiting = bytearray()
        self._context = ""
        self._next_look = 0.0

    def write(self, data: bytes) -> None:
        """Take what was printed; nothing is stored yet."""
        if not self._waiting:
            self._next_look = max(self._next_look, time.monotonic() + _FIRST_LOOK_SECONDS)
        self._waiting += data
        if self._log.size + len(self._waiting) > self._cap_bytes:
            self._drop_oldest()

    def settle(self, now: float) -> None:
        """Store what has waited long enough.

        Raises: OSError when it cannot be written.
        """
        if not self._waiting or now < self._next_look:
            return
        started = time.monotonic()
        while self._waiting and time.monotonic() - started < _BUDGET_SECONDS:
            # More than one piece: it is still printing, so the last line may not be whole.
            piece = self._next_piece(flowing=len(self._waiting) > _PIECE_BYTES)
            if not piece:
                break
            self._store(piece)
        self._next_look = time.monotonic() + _LOOK_SECONDS

    def close(self) -> None:
        """Store all that waits.

        Raises: OSError when it cannot be written.
        """
        try:
            while self._waiting:
                whole = len(self._waiting) <= _PIECE_BYTES
                self._store(bytes(self._waiting) if whole else self._next_piece(flowing=True))
        finally:
            self._waiting.clear()
            self._log.close()

    def _next_piece(self, *, flowing: bool) -> bytes:
        """The oldest part of what waits, up to a place where no secret is likely to be parted."""
        piece = bytes(self._waiting[:_PIECE_BYTES])
        line = max(piece.rfind(b"\n", 0, -1), piece.rfind(b"\r", 0, -1)) + 1
        if flowing and line > len(piece) - _LONGEST_HELD_BACK:
            return piece[:line]
        # At the end stands perhaps the first half of a token whose other half is still to be written.
        token = len(piece.rstrip(_OF_A_TOKEN))
        return piece[:token] if token >= len(piece) - _LONGEST_HELD_BACK else piece

    def _store(self, piece: bytes) -> None:
        del self._waiting[: len(piece)]
        self._log.write(self._redacted(piece))

    def _redacted(self, piece: bytes) -> bytes:
        # Imported here because it takes as long as a job's whole start, and a job that has printed nothing needs none.
        from bot.domain.redaction import MARK, secret_spans

        text = self._context + piece.decode("utf-8", "surrogateescape")
        border = len(self._context)
        parts, position = [], border
        for start, end in secret_spans(text):
            if end > border:
                parts += [text[position : max(start, border)], MARK]
                position = end
        parts.append(text[position:])
        self._context = text[-_CONTEXT_CHARACTERS:]
        return "".join(parts).encode("utf-8", "surrogateescape")

    def _drop_oldest(self) -> None:
        """As the log itself does when it meets its cap: half of it goes, first what is stored."""
        kept = self._cap_bytes // 2
        excess = max(0, len(self._waiting) - kept)
        self._log.drop(keep_bytes=max(0, kept - len(self._waiting)), unseen_bytes=excess)
        if excess:
            # A secret may begin in what goes and end in what stays.
            behind = self._waiting[max(0, excess - _CONTEXT_CHARACTERS) : excess]
            self._context = behind.decode("utf-8", "surrogateescape")
            del self._waiting[:excess]
