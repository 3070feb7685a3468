"""Curves as text: Mermaid's xychart-beta for reviews and job summaries, a Unicode sparkline for checks.

xychart-beta has no legend and reads no exponents, and takes its points as evenly spaced: one series a chart, at most
60 points, plain decimals (https://mermaid.js.org/syntax/xyChart.html).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

MOST_POINTS = 60
_BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Curve:
    name: str
    """The metric's key: loss, eval_loss, grad_norm."""
    points: Sequence[tuple[int, float | None]]
    """(training step, value); None and not-a-number are told in the sentence and left out of the chart."""

    def finite(self) -> list[tuple[int, float]]:
        found = [(int(step), float(value)) for step, value in self.points if value is not None and math.isfinite(value)]
        return sorted(found)


def xychart(curve: Curve) -> str:
    """The chart as a fenced block; empty when fewer than two points can be drawn."""
    drawn = thinned(curve.finite(), MOST_POINTS)
    if len(drawn) < 2 or drawn[0][0] == drawn[-1][0]:
        return ""
    values = [value for _, value in drawn]
    low, high = _bounds(values)
    name = "".join(character for character in curve.name if character.isalnum() or character in " _-/")[:60] or "value"
    lines = [
        "```mermaid",
        "xychart-beta",
        f'    title "{name}"',
        f'    x-axis "step" {drawn[0][0]} --> {drawn[-1][0]}',
        f'    y-axis "{name}" {_decimal(low)} --> {_decimal(high)}',
        f"    line [{', '.join(_decimal(value) for value in values)}]",
        "```",
    ]
    return "\n".join(lines)


def sparkline(values: Sequence[float | None], width: int = 40) -> str:
    """One line of bars; `×` marks a stretch without a number."""
    if not values:
        return ""
    width = min(width, len(values))
    cells: list[float | None] = []
    for index in range(width):
        stretch = values[index * len(values) // width : (index + 1) * len(values) // width]
        finite = [value for value in stretch if value is not None and math.isfinite(value)]
        cells.append(sum(finite) / len(finite) if finite else None)
    known = [cell for cell in cells if cell is not None]
    if not known:
        return "×" * width
    low, spread = min(known), (max(known) - min(known)) or 1.0
    return "".join("×" if cell is None else _BARS[min(7, int((cell - low) / spread * 8))] for cell in cells)


def thinned(points: Sequence[tuple[int, float]], most: int) -> list[tuple[int, float]]:
    """At most `most` of the points, those that keep the curve's shape: largest triangle, three buckets (Steinarsson
    2013). Ends stay, and so does a spike, which an average would hide."""
    if len(points) <= most:
        return list(points)
    kept = [points[0]]
    inner = points[1:-1]
    buckets = [inner[i * len(inner) // (most - 2) : (i + 1) * len(inner) // (most - 2)] for i in range(most - 2)]
    for index, bucket in enumerate(buckets):
        after = buckets[index + 1] if index + 1 < len(buckets) else [points[-1]]
        mean_x = sum(x for x, _ in after) / len(after)
        mean_y = sum(y for _, y in after) / len(after)
        areas = [_area(kept[-1], point, (mean_x, mean_y)) for point in bucket]
        kept.append(bucket[areas.index(max(areas))])
    return [*kept, points[-1]]


def _area(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
    """Twice the area of the triangle."""
    return abs((a[0] - c[0]) * (b[1] - a[1]) - (a[0] - b[0]) * (c[1] - a[1]))


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = (high - low) * 0.05 or abs(high) * 0.1 or 1.0
    # A loss's axis starts at zero unless that would flatten the curve.
    floor = 0.0 if 0 <= low <= 0.5 * high else low - margin
    return floor, high + margin


def _decimal(value: float) -> str:
    """A plain decimal with six significant digits: Mermaid's grammar knows no exponent."""
    if value == 0:
        return "0"
    value = max(-1e15, min(1e15, value))
    digits = max(0, min(12, 5 - math.floor(math.log10(abs(value)))))
    text = f"{value:.{digits}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text
