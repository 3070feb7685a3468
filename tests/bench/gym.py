"""The gym: goals reached at the first run and after iteration, and runs beside a policy of random edits.

Where `make gym` has left its reports in .gym (or $GYM), those are printed: every task, five seeds, four policies. Else
one task of each kind is pursued here with one seed, which says less and comes without intervals.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bot.gym.report import as_json, read_report, read_results
from bot.gym.table import summary_lines
from bot.gym.task_file import SHIPPED, load_tasks

BAR_FIRST, BAR_AFTER, BAR_RATIO = 0.60, 0.95, 1 / 3
"""Of goals, of goals, and of random's runs."""
POLICIES = ("random", "tpe", "none", "playbook")


def measure(seeds: int = 1) -> tuple[list[str], dict[str, Any]]:
    """Lines to print, and what they were made of."""
    folder = Path(os.environ.get("GYM", ".gym"))
    if (folder / "playbook.json").is_file():
        return printed(folder, f"Gym, from the reports in {folder}")
    with tempfile.TemporaryDirectory(prefix="postdoc-bench-") as made:
        pursue(Path(made), seeds)
        return printed(Path(made), "Gym, one task of each kind (`make gym` pursues all of them with five seeds)")


def pursue(folder: Path, seeds: int) -> None:
    """Reports of two policies on the first task of each kind."""
    kinds = {task.kind: task.name for task in reversed(load_tasks(SHIPPED))}
    only = [word for name in sorted(kinds.values()) for word in ("--only", name)]
    for policy in ("random", "playbook"):
        report = ["--json", str(folder / f"{policy}.json"), "--policy", policy, "--seeds", str(seeds)]
        subprocess.run([sys.executable, "-m", "bot", "gym", *only, *report], check=True, stdout=subprocess.DEVNULL)


def printed(folder: Path, title: str) -> tuple[list[str], dict[str, Any]]:
    """The reports that lie in `folder`, the playbook's against random's."""
    found = {policy: read_report(folder / f"{policy}.json") for policy in POLICIES if _there(folder, policy)}
    if "random" in found and "playbook" in found:
        found["playbook"] = as_json("playbook", read_results(found["playbook"]), found["random"])
    lines = [title]
    for policy, report in found.items():
        lines += [f"  {policy}:", *(f"    {line}" for line in summary_lines(report["summary"]))]
    lines += [f"  bars: {100 * BAR_FIRST:.0f} % at the first run, {100 * BAR_AFTER:.0f} % after iteration, "
              f"{BAR_RATIO:.2f} of random's runs"]  # fmt: skip
    return lines, {policy: report["summary"] for policy, report in found.items()}


def _there(folder: Path, policy: str) -> bool:
    return (folder / f"{policy}.json").is_file()
