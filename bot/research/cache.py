"""Answers kept on disk under their address, with the moment they were fetched.

One file an answer: a line of JSON about it, then its bytes. It appears whole or not at all, and a file that cannot be
read is an answer that is not there.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

MOST_BYTES = 1 << 30
_CHECK_EVERY = 50


@dataclass(frozen=True, slots=True)
class Kept:
    url: str
    """Where the answer came from in the end, after redirects."""
    content_type: str
    fetched_at: float
    """Seconds since the epoch."""
    body: bytes


class Cache:
    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES) -> None:
        self._folder, self._most_bytes = folder, most_bytes
        self._written = 0

    def find(self, key: str) -> Kept | None:
        try:
            head, _, body = self._path(key).read_bytes().partition(b"\n")
            about = json.loads(head)
            if about["key"] != key or about["size"] != len(body):
                return None
            return Kept(str(about["url"]), str(about["content_type"]), float(about["fetched_at"]), body)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep(self, key: str, kept: Kept) -> None:
        """Failing to keep something is no failure: it is asked for again."""
        about = {
            "key": key, "url": kept.url, "content_type": kept.content_type, "fetched_at": kept.fetched_at,
            "size": len(kept.body),
        }  # fmt: skip
        path = self._path(key)
        partial = path.with_name(f".{uuid.uuid4().hex}")
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                partial.write_bytes(json.dumps(about).encode() + b"\n" + kept.body)
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
        self._written += 1
        if self._written % _CHECK_EVERY == 1:
            self._make_room()

    def _path(self, key: str) -> Path:
        name = sha256(key.encode()).hexdigest()
        return self._folder / name[:2] / name[2:40]

    def _make_room(self) -> None:
        """The oldest go first."""
        files = sorted(self._files(), key=lambda file: file[1].st_mtime, reverse=True)
        room = self._most_bytes
        for path, stat in files:
            room -= stat.st_size
            if room < 0:
                with suppress(OSError):
                    path.unlink()

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self._folder.glob("*/*"):
            with suppress(OSError):
                yield path, path.stat()
