"""What a script logs while it trains, read without trusting it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bot.errors import UserError
from runners.outputs import read_output

METRICS = "out/metrics.jsonl"


def metric_rows(folder: Path, path: str = METRICS) -> list[dict[str, Any]]:
    """The logged steps of a training job, oldest first. A script writes what it likes: other lines are left out."""
    try:
        content = read_output(folder, path)
    except (OSError, UserError):
        return []
    return parse_rows(content)


def parse_rows(content: bytes) -> list[dict[str, Any]]:
    """One JSON object with an integer `step` a line; whatever else stands there is left out."""
    rows = []
    for line in content.decode("utf-8", "replace").splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows
