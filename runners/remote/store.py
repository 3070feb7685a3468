"""The place through which a job and its bot talk when they share no machine: named files, one store for each job.

What lies in a job's store, and who writes it:

    inputs.tar               the bot     the packed job (`package.py`)
    cancel                   the bot     present when the job shall end; `checkpoint` inside asks for one before that
    status.json              the wrapper its JobStatus, with `at` (Unix seconds) renewed while it lives: the lease
    metrics/00000001.jsonl   the wrapper rows of metrics.jsonl since the last piece
    log/00000001.txt         the wrapper log since the last piece, redacted
    checkpoints/N.tar        the wrapper the folder `checkpoint-N`, packed; only whole ones
    outputs.tar              the wrapper the job's outputs, packed, whatever the ending
    outputs.json             the wrapper {"sha256", "bytes"} of outputs.tar, written after it
    seal.key                 the bot     what outputs are sealed with where they also travel as an artifact
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Protocol

from bot.errors import PlatformError, UserError

INPUTS, OUTPUTS, OUTPUTS_NOTE = "inputs.tar", "outputs.tar", "outputs.json"
STATUS, CANCEL, SEAL = "status.json", "cancel", "seal.key"
METRICS, LOG, CHECKPOINTS = "metrics/", "log/", "checkpoints/"
_KEY = re.compile(r"[a-z0-9][a-z0-9.-]{0,80}(/[a-z0-9][a-z0-9.-]{0,80})?")


class StoreClosed(PlatformError):
    """The job has ended as far as whoever asked for it is concerned: nothing is taken any more, nor will be."""


class Store(Protocol):
    """A missing file is None, not an error. Raises: PlatformError (or OSError) when the store cannot be reached now;
    StoreClosed where it knows that its job has ended."""

    def read(self, key: str) -> bytes | None: ...

    def write(self, key: str, content: bytes) -> None:
        """Replace in one step: a reader sees the old content or the new."""
        ...

    def names(self, prefix: str) -> Sequence[str]:
        """The keys that begin so, sorted."""
        ...

    def fetch(self, key: str, path: Path) -> bool:
        """Write the file to `path`; False when there is none. For what may not fit into memory."""
        ...

    def push(self, path: Path, key: str) -> None: ...


def check_key(key: str) -> str:
    """Raises: UserError. A key is never a way out of the store."""
    if not _KEY.fullmatch(key) or ".." in key:
        raise UserError(f"{key!r} is no name of a file in a job's store")
    return key


class FolderStore:
    """A folder that both sides can write to: a shared file system, or the server's own disk behind its endpoints."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, key: str) -> bytes | None:
        try:
            return (self.folder / check_key(key)).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, key: str, content: bytes) -> None:
        with self._replacing(key) as file:
            file.write(content)

    def names(self, prefix: str) -> Sequence[str]:
        top = (self.folder / prefix) if prefix.endswith("/") else self.folder
        if not top.is_dir():
            return []
        found = (path.relative_to(self.folder).as_posix() for path in top.iterdir() if path.is_file())
        return sorted(name for name in found if name.startswith(prefix) and not Path(name).name.startswith("."))

    def fetch(self, key: str, path: Path) -> bool:
        try:
            shutil.copyfile(self.folder / check_key(key), path)
        except FileNotFoundError:
            return False
        return True

    def push(self, path: Path, key: str) -> None:
        with open(path, "rb") as source, self._replacing(key) as file:
            shutil.copyfileobj(source, file, 1 << 20)

    @contextlib.contextmanager
    def _replacing(self, key: str) -> Iterator[IO[bytes]]:
        target = self.folder / check_key(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            with open(partial, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)


def open_store(address: str, token: str = "") -> Store:
    """The store at `address`: a folder, or `https://...` behind which the server keeps one. Raises: UserError."""
    if "://" in address:
        from runners.remote.http_store import HttpStore

        return HttpStore(address, token)
    folder = Path(address)
    if not folder.is_dir():
        raise UserError(f"{address} is not a folder of this machine: is the shared storage mounted?")
    return FolderStore(folder)
