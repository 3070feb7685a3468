"""How a figure is printed: median, range over the rounds, and the ratio to its bar."""

from __future__ import annotations

import contextlib
import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path


def figure(name: str, values: Sequence[float], bar: float, *, at_least: bool = False) -> str:
    """One line. `at_least`: the bar is a floor, so a ratio below 1 misses it; otherwise one above 1 does."""
    middle = statistics.median(values)
    spread = f"({min(values):.3g} to {max(values):.3g})"
    kind = "floor" if at_least else "bar"
    return f"  {name:<18} {middle:8.3g}  {spread:<20} {middle / bar:5.2f} of the {kind} {bar:g}"


def machine() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.split(':')[1].strip()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
