"""`make bench`, or some of it: `make bench ARGS="acknowledgement writes"`.

Nothing here is asserted; machines differ, and the README says on which one its figures were printed.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from tests.bench import acknowledgement, gym, hardware, pursuits, runners, scan, verdicts, writes, zoo
from tests.bench.printing import machine

PARTS = ("acknowledgement", "writes", "pursuits", "runners", "hardware", "gym", "zoo", "statistics", "scan")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[], help="All of them by default.")
    parser.add_argument("--repeat", type=int, default=3, help="Rounds, or pursuits.")
    parser.add_argument("--goal", type=int, default=1, help="Of the demo's goals.")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    started = time.monotonic()
    print(f"{machine()}; median (range) of {arguments.repeat}\n")
    results: dict[str, Any] = {"machine": machine()}
    for part in arguments.parts or PARTS:
        lines, results[part] = {
            "acknowledgement": lambda: acknowledgement.measure(arguments.repeat),
            "writes": lambda: writes.measure(arguments.repeat),
            "runners": lambda: runners.measure(arguments.repeat),
            "hardware": hardware.measure,
            "gym": gym.measure,
            "zoo": zoo.measure,
            "scan": lambda: scan.measure(arguments.repeat),
            "statistics": verdicts.measure,
            "pursuits": lambda: pursuits.measure(arguments.goal, arguments.repeat),
        }[part]()
        print("\n".join(lines) + "\n", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))
    print(f"{time.monotonic() - started:.0f} s in all")


if __name__ == "__main__":
    main()
