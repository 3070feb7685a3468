"""How good the diagnosis is on the committed traces: every bar with its interval, and others' rules beside it.

The traces are real runs with injected faults and healthy ones (`postdoc zoo`); figures are told of those that nothing
was tuned on. Where the committed traces hold none of those, the heading says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bot.zoo.proof import scored
from bot.zoo.traces import read_traces

_ZOO = Path(__file__).resolve().parent.parent / "zoo"
TRACES = (_ZOO / "traces.tar.xz", _ZOO / "held_out.tar.xz", _ZOO / "healthy.tar.xz")
"""What rules were tuned on, what they were not, and healthy runs over varied configurations."""
BARS: dict[str, float] = {
    "recall": 0.95, "precision": 0.98, "top1": 0.90, "line": 0.85, "steps_saved": 0.50, "repair_1": 0.80,
    "repair_3": 0.95,
}  # fmt: skip
MEDIAN_DETECTION, FALSE_ABORTS = 0.05, 0


def measure() -> tuple[list[str], dict[str, Any]]:
    """Lines to print, and what they were made of."""
    # The replayed logs are in each archive.
    result, told = scored(list({trace.name: trace for path in TRACES for trace in read_traces(path)}.values()))
    found = result["summary"]
    lines = [f"The zoo: {result['traces']['all']} traces, {result['traces']['healthy']} of them healthy", *told]
    for name, bar in BARS.items():
        value = found.get(name)
        if value is not None:
            lines.append(f"  {name:<18} {value:8.3g}  {value / bar:5.2f} of the floor {bar:g}")
    detection = found["median_detection_fraction"]
    if detection is not None:
        lines.append(f"  {'detection':<18} {detection:8.3g}  {detection / MEDIAN_DETECTION:5.2f} of the bar 0.05")
    lines.append(f"  {'false aborts':<18} {found['false_aborts']:8d}  of {found['healthy']} healthy runs (bar 0)")
    return lines, result
