"""What a pursuit asks of GitHub: writes, and our own time from an opened issue to its pull request.

The runner is scripted, so that no job takes time, and the pause between writes is off: what is left is ours. Writes are
counted at the forge.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from bot.practice.faults import Fault
from tests.bench.printing import figure
from tests.world import World, practice_world

BAR_SECONDS, BAR_OPENING_WRITES, BAR_RUN_WRITES = 2.0, 12, 6
_NUMBERS = re.compile(r"/\d+|/[0-9a-f]{40}")


def measure(repeat: int) -> tuple[list[str], list[dict[str, Any]]]:
    """Lines to print, and what they were made of."""
    results = []
    for _ in range(repeat):
        with tempfile.TemporaryDirectory(prefix="postdoc-bench-") as folder, practice_world(Path(folder)) as world:
            results.append(measured(world))
    lines = ["GitHub's share, with a scripted runner and no pause between writes"]
    for name, key, bar in (
        ("seconds to a pull", "seconds", BAR_SECONDS),
        ("writes to a pull", "opening", BAR_OPENING_WRITES),
        ("writes of a run", "run", BAR_RUN_WRITES),
    ):
        lines.append(figure(name, [result[key] for result in results], bar))
    lines += [f"  {part}: {told(results[-1][what])}" for part, what in (("to a pull", "opened"), ("a run", "ran"))]
    return lines, results


def measured(world: World) -> dict[str, Any]:
    writes: list[tuple[float, str]] = []
    take = world.forge.faults.take_request

    def counted(method: str, path: str) -> Fault | None:
        if method != "GET" and "/access_tokens" not in path and "/app/" not in path:
            writes.append((time.time(), f"{method} {_NUMBERS.sub('', path)}"))
        return take(method, path)

    world.start()
    world.wait_ready()
    world.forge.faults.take_request = counted  # type: ignore[method-assign]
    issue = world.open_goal()
    opened_at = time.time()
    writes.clear()  # the person's own
    world.until_ended(issue)
    started = [event["at"] for event in world.events(issue) if event["kind"] == "run_started"]
    pull_at = next(at for at, what in writes if what.startswith("POST") and what.endswith("/pulls"))
    opening = [what for at, what in writes if at <= pull_at]
    # From the first run's start to the second's: one whole turn of training, review and remedy.
    run = Counter(what for at, what in writes if started[0] < at <= started[1])
    updates = next((what for what in run if what.startswith("PATCH") and what.endswith("/check-runs")), None)
    beside = sum(run.values()) - (max(0, run[updates] - 1) if updates is not None else 0)
    return {
        "seconds": pull_at - opened_at, "opening": len(opening), "run": beside,
        "opened": dict(Counter(opening)), "ran": dict(run),
    }  # fmt: skip


def told(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {what.replace('/repos/acme/speller', '')}" for what, count in sorted(counts.items()))
