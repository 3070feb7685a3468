"""Files of a job's store as they arrive: streamed to disk, in pieces where they are large, whole before they count.

A partial file keeps what has arrived under the digest of what it is to become, so that a broken connection, another
process or a restart of the server goes on where it stopped, and never mixes two files.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_RANGE = re.compile(r"bytes (?:(\d{1,15})-(\d{1,15})|\*)/(\d{1,15})")
_DIGEST = re.compile(r"sha-256=:([A-Za-z0-9+/]{43}=):")
_CHUNK_BYTES = 1 << 20
KEPT_FREE_BYTES = 1 << 30
"""Of the server's disk, whatever jobs send: the journal lies there too."""


class Turned(Exception):
    """The file is not taken, with this HTTP status; `received` says how much of it there is."""

    def __init__(self, status: int, why: str, received: int | None = None) -> None:
        super().__init__(why)
        self.status, self.received = status, received


@dataclass(frozen=True, slots=True)
class Piece:
    """What `Content-Range` and `Repr-Digest` say. `start` is None for the question of how much has arrived."""

    start: int | None
    end: int
    """One past the last byte."""
    total: int
    digest: str
    """SHA-256 of the whole file, in hex."""


def piece_of(content_range: str, repr_digest: str) -> Piece:
    """Raises: Turned 400."""
    found, digest = _RANGE.fullmatch(content_range), _DIGEST.fullmatch(repr_digest)
    if found is None or digest is None:
        raise Turned(
            400, "a piece needs `Content-Range: bytes A-B/TOTAL` and `Repr-Digest: sha-256=:...:` of the whole"
        )
    try:
        name = base64.b64decode(digest[1]).hex()
    except (binascii.Error, ValueError):
        raise Turned(400, "the digest is no base64") from None
    total = int(found[3])
    if found[1] is None:
        return Piece(None, 0, total, name)
    start, end = int(found[1]), int(found[2]) + 1
    if not start < end <= total:
        raise Turned(400, "the piece does not lie within the whole")
    return Piece(start, end, total, name)


async def receive_whole(target: Path, body: AsyncIterator[bytes], limit: int) -> None:
    """Replace `target` by the body. Raises: Turned 413, 507."""
    partial = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    await asyncio.to_thread(target.parent.mkdir, exist_ok=True)
    require_room(target.parent, 0)
    file = await asyncio.to_thread(open, partial, "xb")
    try:
        with file:
            await _append(file, body, limit, lambda: Turned(413, f"at most {limit:,} bytes of this are taken"))
        await asyncio.to_thread(os.replace, partial, target)
    finally:
        await asyncio.to_thread(partial.unlink, True)


async def receive_piece(target: Path, body: AsyncIterator[bytes], piece: Piece) -> int | None:
    """Append the piece to what has arrived: how much there is now, None when that was the last and `target` is whole.

    What came before a connection broke is kept. Raises: Turned 416 for a piece that does not follow on, 422 when the
    whole is not what its digest says, 507.
    """
    partial = target.with_name(f".{target.name}.{piece.digest[:32]}.part")
    await asyncio.to_thread(target.parent.mkdir, exist_ok=True)
    received = await asyncio.to_thread(_size, partial)
    if piece.start is None:
        return received
    if piece.start != received:
        raise Turned(416, f"{received:,} bytes have arrived; the next piece begins there", received)
    require_room(target.parent, piece.total - received)
    with await asyncio.to_thread(open, partial, "ab") as file:
        long = f"the piece is longer than its range of {piece.end - piece.start:,} bytes"
        await _append(file, body, piece.end - piece.start, lambda: Turned(400, long))
        received = file.tell()
    if received < piece.total:
        return received
    if await asyncio.to_thread(_sha256, partial) != piece.digest:
        await asyncio.to_thread(partial.unlink, True)
        raise Turned(422, "what has arrived is not what its digest says; send it again", 0)
    await asyncio.to_thread(os.replace, partial, target)
    return None


def require_room(folder: Path, wanted: int) -> None:
    """Raises: Turned 507."""
    if shutil.disk_usage(folder).free - wanted < KEPT_FREE_BYTES:
        raise Turned(507, "the server's disk has no room for this now")


async def _append(file: IO[bytes], body: AsyncIterator[bytes], limit: int, refusal: Callable[[], Turned]) -> None:
    """Write the body behind what is there, and nothing of what goes beyond `limit`; on disk when this returns, or
    raises because the sender went away."""
    written, waiting = 0, bytearray()
    try:
        async for chunk in body:
            written += len(chunk)
            if written > limit:
                raise refusal()
            waiting += chunk
            if len(waiting) >= _CHUNK_BYTES:
                await asyncio.to_thread(file.write, bytes(waiting))
                waiting.clear()
    finally:
        file.write(waiting)
        await asyncio.to_thread(_flush, file)


def _flush(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
