"""Curves in words, and as the charts of `bot.domain.curves`."""

from __future__ import annotations

import math

from bot.conversation.messages.wording import amount, counted
from bot.domain.curves import MOST_POINTS, Curve, sparkline, thinned, xychart
from bot.domain.inert import code

__all__ = ["MOST_POINTS", "Curve", "sparkline", "thinned", "told", "xychart"]


def told(curve: Curve) -> str:
    """The curve in one or two sentences, which must do where the chart is not drawn."""
    finite = curve.finite()
    name = code(curve.name, 60)
    lost = [step for step, value in curve.points if value is None or not math.isfinite(value)]
    missing = ""
    if lost:
        are = "is not a number" if len(lost) == 1 else "are not numbers"
        missing = f" {counted(len(lost), 'point')} of {len(curve.points):,} {are}, the first at step {min(lost):,}."
    if not finite:
        return f"{name} has no point that is a number.{missing}"
    (first_step, first), (last_step, last) = finite[0], finite[-1]
    if first_step == last_step:
        return f"{name} was {amount(first)} at step {first_step:,}.{missing}"
    verb = "stayed at" if amount(first) == amount(last) else "fell from" if last < first else "rose from"
    start = f"{amount(first)} (step {first_step:,})"
    end = f"until step {last_step:,}" if verb == "stayed at" else f"to {amount(last)} (step {last_step:,})"
    step, lowest = min(finite, key=lambda point: point[1])
    low = f"; lowest {amount(lowest)} at step {step:,}" if curve.name.endswith("loss") and step != last_step else ""
    step, highest = max(finite, key=lambda point: point[1])
    high = f"; highest {amount(highest)} at step {step:,}" if highest > 2 * max(first, last, 1e-12) else ""
    return f"{name} {verb} {start} {end}{low}{high}.{missing}"
