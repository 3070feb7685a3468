"""What every drawing of ours shares: SVG with escaped text, estimated text widths, and round numbers on an axis."""

from __future__ import annotations

import itertools
import math
from html import escape

# Advance widths of a common sans-serif face in units of the font size; there is no font to measure with on a server.
_NARROW = frozenset("iIl.,:;'|!()[]{}ft jr-")
_WIDE = frozenset("mwMWOQGD@%&—")
FONT_SIZE = 12.0


def text_width(text: str, size: float = FONT_SIZE) -> float:
    """About how wide `text` will stand, in user units; errs on the wide side."""
    ems = sum(0.34 if c in _NARROW else 0.9 if c in _WIDE or ord(c) > 0x2E80 else 0.58 for c in text)
    return ems * size


def clipped(text: str, width: float, size: float = FONT_SIZE) -> str:
    """`text`, or as much of its beginning as fits with an ellipsis."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(text + "…", size) > width:
        text = text[:-1]
    return text.rstrip() + "…"


def number(value: float) -> str:
    """A coordinate without noise digits."""
    return f"{value:.1f}".rstrip("0").rstrip(".") if value % 1 else str(int(value))


def text(x: float, y: float, words: str, *, anchor: str = "middle", kind: str = "mm-text", turned: bool = False) -> str:
    """One line of text; `turned` reads from below to above."""
    turn = f' transform="rotate(-90 {number(x)} {number(y)})"' if turned else ""
    return f'<text class="{kind}" x="{number(x)}" y="{number(y)}" text-anchor="{anchor}"{turn}>{escape(words)}</text>'


def picture(width: float, height: float, kind: str, label: str, body: str) -> str:
    """The drawing itself; `label` is what a screen reader says."""
    return (
        f'<svg class="mm {kind}" role="img" aria-label="{escape(label)}" viewBox="0 0 {number(width)} {number(height)}"'
        f' width="{number(width)}" height="{number(height)}" xmlns="http://www.w3.org/2000/svg">{body}</svg>'
    )


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round values between `low` and `high`, about as many as asked for (steps of 1, 2 or 5 times a power of ten)."""
    power = 10.0 ** math.floor(math.log10((high - low) / max(about, 1)))
    steps = [factor * power for factor in (1, 2, 5, 10)]
    step = min(steps, key=lambda step: abs((high - low) / step - about))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def tick_words(values: list[float]) -> list[str]:
    """The ticks as text, with as many decimals as tell neighbours apart."""
    largest = max((abs(value) for value in values), default=0.0)
    if largest and not 1e-4 <= largest < 1e7:
        return [f"{value:.3g}" for value in values]
    step = min((b - a for a, b in itertools.pairwise(values)), default=largest or 1.0)
    decimals = max(0, min(8, -math.floor(math.log10(step) + 1e-9))) if step > 0 else 0
    return [
        f"{value + 0.0:,.{decimals}f}".replace("-0", "0") if value == 0 else f"{value:,.{decimals}f}"
        for value in values
    ]
