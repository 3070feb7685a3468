"""What the chart and graph drawings share: escaped text, estimated text widths, and the refusal to draw."""

from __future__ import annotations

from html import escape

# Advance widths of a common sans-serif face in units of the font size; there is no font to measure with on a server.
_NARROW = frozenset("iIl.,:;'|!()[]{}ft jr-")
_WIDE = frozenset("mwMWOQGD@%&—")
FONT_SIZE = 12.0


class CannotDraw(Exception):
    """The text is not a drawing we know how to make; the message says why, and the source is shown as code."""


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
