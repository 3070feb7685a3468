"""A job's log: stdout and stderr together in one file that never grows past its cap and keeps the end."""

from __future__ import annotations

import os
import re
from pathlib import Path

DEFAULT_CAP_BYTES = 16 << 20
_NOTE = re.compile(rb"\[postdoc: ([0-9,]+) earlier bytes dropped, [^\n]*\]\n")
_LINE_BYTES = 512
"""A guess of a line's length, to decide how much of the file's end to read."""


class CappedLog:
    """Appends to `path`; when the cap is met, the older half goes and a line says how much went."""

    def __init__(self, path: Path, cap_bytes: int = DEFAULT_CAP_BYTES) -> None:
        self._path = path
        self._cap_bytes = cap_bytes
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - kept open for as long as the job runs
        self._size = self._file.tell()
        self._dropped = 0
        self._note_bytes = 0

    @property
    def size(self) -> int:
        """Bytes in the file now."""
        return self._size

    def write(self, data: bytes) -> None:
        if len(data) > self._cap_bytes // 4:
            quarter = self._cap_bytes // 4
            for start in range(0, len(data), quarter):
                self.write(data[start : start + quarter])
            return
        if self._size + len(data) > self._cap_bytes:
            self.drop(keep_bytes=self._cap_bytes // 2)
        self._file.write(data)
        self._size += len(data)

    def close(self) -> None:
        self._file.close()

    def drop(self, keep_bytes: int, unseen_bytes: int = 0) -> None:
        """Keep the file's last whole lines, at most `keep_bytes` of them. `unseen_bytes` are dropped with the others
        and never came to be written."""
        kept = _read_end(self._path, keep_bytes) if keep_bytes else b""
        newline = kept.find(b"\n") + 1
        kept = kept[newline:]
        self._dropped += self._size - self._note_bytes - len(kept) + unseen_bytes
        note = f"[postdoc: {self._dropped:,} earlier bytes dropped, the log's cap is {self._cap_bytes:,} bytes]\n"
        self._note_bytes = len(note)
        replacement = self._path.with_name(self._path.name + ".new")
        self._file.close()
        replacement.write_bytes(note.encode() + kept)
        # By renaming, so that somebody who reads meanwhile sees the old file or the new one, never half of one.
        os.replace(replacement, self._path)
        self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115
        self._size = self._file.tell()


def read_since(path: Path, position: int, limit_bytes: int) -> tuple[bytes, int]:
    """What was written after `position`, counted from the log's very first byte, at most `limit_bytes` of it, and the
    position behind it. Bytes that the cap has dropped meanwhile are skipped."""
    try:
        with open(path, "rb") as file:
            first = file.readline(_LINE_BYTES)
            note = _NOTE.fullmatch(first)
            dropped = int(note[1].replace(b",", b"")) if note else 0
            start = len(first) if note else 0
            position = max(position, dropped)
            file.seek(start + position - dropped)
            data = file.read(limit_bytes)
    except FileNotFoundError:
        return b"", position
    return data, position + len(data)


def tail(path: Path, lines: int) -> str:
    """The last lines as a terminal would show them: of a progress bar that redraws itself, only the last state."""
    if lines <= 0:
        return ""
    size = _LINE_BYTES * lines
    while True:
        data = _read_end(path, size)
        complete = len(data) < size
        if complete or data.count(b"\n") > lines:
            break
        size *= 4
    text = data.decode("utf-8", errors="replace").replace("\r\n", "\n")
    shown = [_overwritten(line) for line in text.removesuffix("\n").split("\n")]
    return "\n".join(shown[-lines:])


def tail_text(path: Path, size: int) -> str:
    """The last `size` bytes as text."""
    return _read_end(path, size).decode("utf-8", errors="replace")


def _overwritten(line: str) -> str:
    return line.rstrip("\r").rpartition("\r")[2]


def _read_end(path: Path, size: int) -> bytes:
    try:
        with open(path, "rb") as file:
            length = file.seek(0, os.SEEK_END)
            file.seek(max(0, length - size))
            return file.read(size)
    except FileNotFoundError:
        return b""
