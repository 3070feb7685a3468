"""Processes that carry a mark in their environment, as the runner looks for its own when a job has ended."""

from __future__ import annotations

import os
import threading
from pathlib import Path

_READ_SECONDS = 2.0


def processes_with(mark: bytes, since_ticks: int) -> list[int]:
    """Those with `mark` among their variables that started at `since_ticks` (of the machine's clock) or later."""
    return [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and _started(entry) >= since_ticks and mark in _content(entry / "environ").split(b"\0")
    ]


def command_lines_with(text: str, since_ticks: int) -> list[str]:
    """Of processes that started since then, those that name `text`."""
    recent = (entry for entry in Path("/proc").iterdir() if entry.name.isdigit() and _started(entry) >= since_ticks)
    lines = (_content(entry / "cmdline").replace(b"\0", b" ").decode("utf-8", "replace") for entry in recent)
    return [line for line in lines if text in line]


def now_ticks() -> int:
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return int(uptime * os.sysconf("SC_CLK_TCK"))


def _started(entry: Path) -> int:
    try:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return -1


def _content(path: Path) -> bytes:
    """Empty where it cannot be read: the kernel lets a reader wait while it is busy with that process's memory."""
    found: list[bytes] = []

    def read() -> None:
        try:
            found.append(path.read_bytes())
        except OSError:
            return

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(_READ_SECONDS)
    return found[0] if found else b""
