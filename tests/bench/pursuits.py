"""Speed and memory of the demo.

The time outside jobs is what is left of the pursuit when every second in which some training or evaluation process ran
is taken away.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bot.practice.demo import open_demo_issue
from bot.practice.goals import demo_goals, practice_place
from bot.practice.tiny_base import NAME, cached_path, is_built
from bot.practice.world import PracticeWorld
from tests.bench.printing import figure

BAR_SECONDS, BAR_OVERHEAD, BAR_MEMORY_MIB = 90.0, 0.15, 200.0


def measure(goal: int, repeat: int) -> tuple[list[str], list[dict[str, Any]]]:
    """Lines to print, and what they were made of."""
    if not is_built(cached_path()):
        subprocess.run([sys.executable, "-m", "bot.practice.tiny_base", "--quiet"], check=True)
    results = [measured(goal, seed) for seed in range(repeat)]
    bars = (("seconds", BAR_SECONDS), ("outside_jobs", BAR_OVERHEAD), ("bot_mib", BAR_MEMORY_MIB))
    lines = [f"Demo goal {goal}, the real bot and real training"]
    lines += [figure(name, [result[name] for result in results], bar) for name, bar in bars]
    states = ", ".join(f"{result['state']} after {result['runs']} runs" for result in results)
    return [*lines, f"  ended              {states}"], results


def measured(goal: int, seed: int) -> dict[str, Any]:
    models = {NAME: cached_path()}
    with (
        tempfile.TemporaryDirectory(prefix="postdoc-bench-") as folder,
        PracticeWorld(Path(folder), practice_place(seed), models=models) as world,
    ):
        world.start_bot()
        assert world.bot_pid is not None
        with peak_memory(world.bot_pid) as peak:
            issue = open_demo_issue(world, demo_goals(seed)[goal])
            events: list[dict[str, Any]] = []
            while not events or events[-1]["kind"] not in ("ended", "refused"):
                time.sleep(0.1)
                events += world.events(issue, after=len(events) - 1)[0]
    opened, ended = events[0]["at"], events[-1]["at"]
    inside = covered(
        [
            (event["data"]["status"]["started_at"], event["data"]["status"]["ended_at"])
            for event in events
            if event["kind"] == "job_ended" and "-data-" not in event["data"]["job_id"]
        ]
    )
    return {
        "seconds": ended - opened,
        "outside_jobs": 1 - inside / (ended - opened),
        "bot_mib": peak[0],
        "state": events[-1]["data"]["state"],
        "runs": sum(event["kind"] == "run_started" for event in events),
    }


def covered(intervals: Sequence[tuple[float, float]]) -> float:
    """Seconds in the union of the intervals."""
    total, reached = 0.0, 0.0
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


@contextlib.contextmanager
def peak_memory(pid: int) -> Iterator[list[float]]:
    """Highest resident size of a process in MiB, read four times a second."""
    found, over = [0.0], threading.Event()

    def sample() -> None:
        while not over.wait(0.25):
            with contextlib.suppress(OSError, StopIteration):
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                size = next(line for line in lines if line.startswith("VmRSS"))
                found[0] = max(found[0], int(size.split()[1]) / 1024)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()
