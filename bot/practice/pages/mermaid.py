"""Draws Mermaid's text as SVG on the server: `xychart-beta`, plain flowcharts and `stateDiagram-v2`, with no network.

Not covered: every other kind of diagram, subgraphs, composite states and styling. What cannot be drawn is shown as its
source with a note that says why.
"""

from __future__ import annotations

import re
from functools import lru_cache
from html import escape

from bot.practice.pages import graph, xychart
from bot.practice.pages.refusal import CannotDraw

# Mermaid's own limit on a diagram's text is 50,000 characters.
LONGEST_SOURCE = 50_000
_FRONT_MATTER = re.compile(r"\A\s*---\s*\n.*?\n---\s*\n", re.DOTALL)
_DIRECTIVE = re.compile(r"%%\{.*?\}%%", re.DOTALL)


@lru_cache(maxsize=256)
def figure(source: str) -> str:
    """An HTML figure with the drawing and its source folded away, or the source with a note."""
    shown = escape(source.rstrip(), quote=False)
    try:
        drawings = draw(source)
    except CannotDraw as reason:
        return (
            f'<figure class="mermaid"><figcaption class="note">Shown as text: the practice forge {escape(str(reason))}'
            f'</figcaption><pre class="code"><code>{shown}</code></pre></figure>'
        )
    return (
        f'<figure class="mermaid">{drawings}<details class="source"><summary>Source</summary>'
        f'<pre class="code"><code>{shown}</code></pre></details></figure>'
    )


def draw(source: str) -> str:
    """The SVG text of a diagram (a wide and a narrow one for charts, of which the stylesheet shows one).

    Raises:
        CannotDraw: for a kind, or a statement, that is not covered.
    """
    if len(source) > LONGEST_SOURCE:
        raise CannotDraw(f"draws diagrams of at most {LONGEST_SOURCE:,} characters.")
    lines = _statements(source)
    if not lines:
        raise CannotDraw("found no diagram in this block.")
    kind = lines[0].split()[0].lower()
    if kind in ("xychart-beta", "xychart"):
        chart = xychart.parse(lines)
        return xychart.drawn(chart, narrow=False) + xychart.drawn(chart, narrow=True)
    if kind in ("flowchart", "graph"):
        return graph.drawn(graph.parse_flowchart(lines))
    if kind in ("statediagram-v2", "statediagram"):
        return graph.drawn(graph.parse_states(lines))
    raise CannotDraw(f"does not draw diagrams of the kind “{kind[:40]}”.")


def _statements(source: str) -> list[str]:
    plain = _DIRECTIVE.sub("", _FRONT_MATTER.sub("", source.replace("\r\n", "\n")))
    lines: list[str] = []
    open_brackets = 0
    for raw in plain.split("\n"):
        line = raw.strip()
        if not line or line.startswith("%%"):
            continue
        if open_brackets > 0:
            lines[-1] += " " + line  # a list of values may stand on several lines
        else:
            lines.append(line)
        open_brackets = max(0, open_brackets + line.count("[") - line.count("]"))
    return lines
