"""Speed and memory of the demo, printed as figures and ratios with this machine's name: `make bench`.

The time outside jobs is what is left of the pursuit when every second in which some training or evaluation process ran
is taken away. Nothing here is asserted; machines differ, and the README says on which one its figures were printed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
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

BAR_SECONDS, BAR_OVERHEAD, BAR_MEMORY_MIB = 90.0, 0.15, 200.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--goal", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if not is_built(cached_path()):
        subprocess.run([sys.executable, "-m", "bot.practice.tiny_base", "--quiet"], check=True)
    results = [measured(arguments.goal, seed) for seed in range(arguments.repeat)]
    print(f"{machine()}; goal {arguments.goal}, {arguments.repeat} pursuits, median (range)\n")
    for name, bar in (("seconds", BAR_SECONDS), ("outside_jobs", BAR_OVERHEAD), ("bot_mib", BAR_MEMORY_MIB)):
        values = [result[name] for result in results]
        middle = statistics.median(values)
        spread = f"({min(values):.3g} to {max(values):.3g})"
        print(f"  {name:<14} {middle:8.3g}  {spread:<20} {middle / bar:5.2f} of the bar {bar:g}")
    states = ", ".join(f"{result['state']} after {result['runs']} runs" for result in results)
    print(f"  ended          {states}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(), "results": results}, indent=1))


def machine() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.split(':')[1].strip()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


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


if __name__ == "__main__":
    started = time.monotonic()
    main()
    print(f"\n{time.monotonic() - started:.0f} s in all")
