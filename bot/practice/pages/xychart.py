"""Reads and draws Mermaid's `xychart-beta`: a title, two axes, and lines or bars."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

from bot.drawing import clipped, number, picture, text, text_width, tick_words, ticks
from bot.practice.pages.refusal import CannotDraw

MOST_VALUES = 1_000
MOST_SERIES = 8
# Beyond this many values the dots of a line would merge into it.
MOST_DOTS = 60
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"^({_NUMBER})\s*-->\s*({_NUMBER})$")
_SERIES = re.compile(r'^(line|bar)\s*(?:"([^"]*)"|([^\[\]"]*?))\s*\[(.*)\]$')
_TITLED = re.compile(r'^(?:"([^"]*)"\s*)?(.*)$')


@dataclass(frozen=True, slots=True)
class Series:
    kind: str
    # line or bar
    name: str
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Axis:
    title: str = ""
    low: float | None = None
    high: float | None = None
    categories: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Chart:
    title: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]


def parse(lines: list[str]) -> Chart:
    """A chart from its statements, the first of which is `xychart-beta`.

    Raises:
        CannotDraw: naming the statement that is not understood.
    """
    if "horizontal" in lines[0].lower().split():
        raise CannotDraw("does not draw horizontal charts.")
    chart = Chart("", Axis(), Axis(), ())
    for line in lines[1:]:
        word, _, rest = line.partition(" ")
        match word:
            case "title":
                chart = replace(chart, title=rest.strip().strip('"'))
            case "x-axis":
                chart = replace(chart, x=_axis(rest.strip()))
            case "y-axis":
                chart = replace(chart, y=_axis(rest.strip()))
            case _ if match := _SERIES.match(line):
                chart = replace(chart, series=(*chart.series, _series(match)))
            case "accTitle:" | "accDescr:":
                continue
            case _:
                raise CannotDraw(f"does not understand this line of the chart: {line[:60]}")
    if not chart.series:
        raise CannotDraw("found no line or bar in this chart.")
    if len(chart.series) > MOST_SERIES:
        raise CannotDraw(f"draws at most {MOST_SERIES} lines and bars in one chart.")
    return chart


def _axis(words: str) -> Axis:
    titled = _TITLED.match(words)
    title, rest = (titled[1] or "", titled[2].strip()) if titled else ("", words)
    if not rest:
        return Axis(title)
    if rest.endswith("]") and "[" in rest:
        bare, _, inside = rest[:-1].partition("[")
        categories = tuple(item.strip().strip('"') for item in _split(inside))
        return Axis(title or bare.strip(), categories=categories[:MOST_VALUES])
    if span := _RANGE.match(rest):
        return _checked(Axis(title, float(span[1]), float(span[2])))
    if span := re.match(rf"^(.*?)\s+({_NUMBER})\s*-->\s*({_NUMBER})$", rest):
        return _checked(Axis(title or span[1].strip(), float(span[2]), float(span[3])))
    return Axis(title or rest)


def _checked(axis: Axis) -> Axis:
    if not (math.isfinite(axis.low or 0) and math.isfinite(axis.high or 0)):
        raise CannotDraw("needs finite ends of an axis.")
    return axis


def _split(inside: str) -> list[str]:
    return re.findall(r'\s*"[^"]*"|[^,]+', inside) if inside.strip() else []


def _series(match: re.Match[str]) -> Series:
    values: list[float] = []
    for item in _split(match[4]):
        try:
            value = float(item)
        except ValueError:
            raise CannotDraw(f"needs numbers in a {match[1]}, not “{item.strip()[:40]}”.") from None
        if not math.isfinite(value):
            raise CannotDraw(f"needs finite numbers in a {match[1]}.")
        values.append(value)
    if not values or len(values) > MOST_VALUES:
        raise CannotDraw(f"needs between 1 and {MOST_VALUES:,} values in a {match[1]}.")
    return Series(match[1], (match[2] or match[3] or "").strip(), tuple(values))


def _value_range(chart: Chart) -> tuple[float, float]:
    values = [value for series in chart.series for value in series.values]
    low, high = min(values), max(values)
    if any(series.kind == "bar" for series in chart.series):
        low, high = min(low, 0.0), max(high, 0.0)
    pad = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    low = low - pad if low != 0 else low
    high = high + pad
    if chart.y.low is not None and chart.y.high is not None:
        low, high = sorted((chart.y.low, chart.y.high))
    return (low, high) if high > low else (low - 1.0, high + 1.0)


@dataclass(frozen=True, slots=True)
class _Frame:
    left: float
    top: float
    right: float
    bottom: float
    low: float
    high: float
    count: int

    def y(self, value: float) -> float:
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.bottom - share * (self.bottom - self.top)

    def band(self) -> float:
        return (self.right - self.left) / self.count


def drawn(chart: Chart, *, narrow: bool) -> str:
    """The chart as SVG, for a wide column or for a telephone's."""
    width, height = (340.0, 250.0) if narrow else (640.0, 320.0)
    low, high = _value_range(chart)
    marks = ticks(low, high, 4 if narrow else 5) or [low, high]
    words = tick_words(marks)
    names = [series.name for series in chart.series if series.name]
    legend = names if len(chart.series) > 1 else []
    left = max(text_width(word) for word in words) + 14 + (18 if chart.y.title else 0)
    top = 12 + (24 if chart.title else 0) + (18 if legend else 0)
    count = max(len(chart.x.categories), *(len(series.values) for series in chart.series))
    bottom = height - 26 - (20 if chart.x.title else 0)
    right = width - max(16.0, text_width(_last_word(chart)) + 14)
    frame = _Frame(left, top, right, bottom, low, high, count)
    parts = [
        *([text(width / 2, 20, clipped(chart.title, width - 16, 14), kind="mm-title")] if chart.title else []),
        *_legend(chart, width, top),
        *_y_axis(chart, frame, marks, words),
        *_x_axis(chart, frame),
        *_bars(chart, frame),
        *_lines(chart, frame),
    ]
    return picture(width, height, "mm-narrow" if narrow else "mm-wide", description(chart), "".join(parts))


def description(chart: Chart) -> str:
    """The chart in words, for those who do not see it."""
    kinds = {"line": "Line", "bar": "Bar"}
    parts = [f"{kinds[chart.series[0].kind]} chart" + (f": {chart.title}" if chart.title else "")]
    for index, series in enumerate(chart.series):
        values = series.values
        name = series.name or chart.y.title or f"series {index + 1}"
        parts.append(
            f"{name}: {len(values)} values, first {values[0]:g}, last {values[-1]:g}, "
            f"lowest {min(values):g}, highest {max(values):g}"
        )
    return ". ".join(parts)


def _legend(chart: Chart, width: float, top: float) -> list[str]:
    if len(chart.series) < 2 or not any(series.name for series in chart.series):
        return []
    parts: list[str] = []
    x = 12.0
    for index, series in enumerate(chart.series):
        name = clipped(series.name or f"series {index + 1}", 140)
        if x + text_width(name) + 24 > width:
            break
        place = f'x="{number(x)}" y="{number(top - 19)}" width="10" height="10"'
        parts.append(f'<rect class="mm-fill mm-s{index + 1}" {place} rx="2"/>')
        parts.append(text(x + 15, top - 10, name, anchor="start"))
        x += text_width(name) + 32
    return parts


def _y_axis(chart: Chart, frame: _Frame, marks: list[float], words: list[str]) -> list[str]:
    parts: list[str] = []
    for mark, word in zip(marks, words, strict=True):
        y = frame.y(mark)
        parts.append(f'<path class="mm-grid" d="M{number(frame.left)} {number(y)}H{number(frame.right)}"/>')
        parts.append(text(frame.left - 7, y + 4, word, anchor="end"))
    if chart.y.title:
        middle = (frame.top + frame.bottom) / 2
        words_fit = clipped(chart.y.title, frame.bottom - frame.top)
        parts.append(text(15, middle, words_fit, kind="mm-text mm-axis-title", turned=True))
    return parts


def _x_axis(chart: Chart, frame: _Frame) -> list[str]:
    parts = [f'<path class="mm-axis" d="M{number(frame.left)} {number(frame.bottom)}H{number(frame.right)}"/>']
    for x, word in _x_marks(chart, frame):
        parts.append(f'<path class="mm-axis" d="M{number(x)} {number(frame.bottom)}v4"/>')
        parts.append(text(x, frame.bottom + 18, word))
    if chart.x.title:
        middle = (frame.left + frame.right) / 2
        parts.append(
            text(
                middle,
                frame.bottom + 38,
                clipped(chart.x.title, frame.right - frame.left),
                kind="mm-text mm-axis-title",
            )
        )
    return parts


def _x_marks(chart: Chart, frame: _Frame) -> list[tuple[float, str]]:
    if chart.x.low is not None and chart.x.high is not None and chart.x.low != chart.x.high:
        return _range_marks(chart, frame, chart.x.low, chart.x.high)
    labels = list(chart.x.categories) or [str(index + 1) for index in range(frame.count)]
    widest = max(text_width(label) for label in labels) + 10
    room = frame.right - frame.left
    longest_fit = max(frame.band() - 6, 64.0)
    every = max(1, math.ceil(min(widest, longest_fit + 6) * len(labels) / room))
    return [
        (frame.left + (index + 0.5) * frame.band(), clipped(label, longest_fit if every == 1 else room / 4))
        for index, label in enumerate(labels)
        if index % every == 0
    ]


def _range_marks(chart: Chart, frame: _Frame, first: float, last: float) -> list[tuple[float, str]]:
    low, high = min(first, last), max(first, last)
    about = max(2, int((frame.right - frame.left) / 80))
    marks = ticks(low, high, about)
    # Values stand in the middle of their bands, so the axis' ends do too.
    start, end = frame.left + frame.band() / 2, frame.right - frame.band() / 2
    return [
        (start + (mark - first) / (last - first) * (end - start), word)
        for mark, word in zip(marks, tick_words(marks), strict=True)
    ]


def _bars(chart: Chart, frame: _Frame) -> list[str]:
    bars = [(index, series) for index, series in enumerate(chart.series) if series.kind == "bar"]
    if not bars:
        return []
    parts: list[str] = []
    each = frame.band() * 0.7 / len(bars)
    zero = frame.y(max(frame.low, min(frame.high, 0.0)))
    for place, (index, series) in enumerate(bars):
        for position, value in enumerate(series.values):
            x = frame.left + position * frame.band() + frame.band() * 0.15 + place * each
            y, length = min(frame.y(value), zero), abs(frame.y(value) - zero)
            corner = f'x="{number(x)}" y="{number(y)}" width="{number(max(each - 1, 0.8))}"'
            size = f'height="{number(max(length, 0.5))}"'
            parts.append(f'<rect class="mm-fill mm-s{index + 1}" {corner} {size}><title>{value:g}</title></rect>')
            if len(bars) == 1 and frame.band() >= 36:
                parts.append(text(x + each / 2, max(y - 5, frame.top + 2), f"{value:g}", kind="mm-text mm-value"))
    return parts


def _lines(chart: Chart, frame: _Frame) -> list[str]:
    parts: list[str] = []
    for index, series in enumerate(chart.series):
        if series.kind != "line":
            continue
        points = [
            (frame.left + (position + 0.5) * frame.band(), frame.y(value))
            for position, value in enumerate(series.values)
        ]
        path = "L".join(f"{number(x)} {number(y)}" for x, y in points)
        parts.append(f'<path class="mm-line mm-s{index + 1}" d="M{path}"/>')
        if len(points) <= MOST_DOTS:
            for (x, y), value in zip(points, series.values, strict=True):
                dot = f'cx="{number(x)}" cy="{number(y)}" r="2.6"'
                parts.append(f'<circle class="mm-fill mm-s{index + 1}" {dot}><title>{value:g}</title></circle>')
        if word := _last_word(chart):
            x, y = points[-1]
            parts.append(text(x + 7, y + 4, word, anchor="start", kind="mm-text mm-value"))
    return parts


def _last_word(chart: Chart) -> str:
    """The last value of a chart's only line, to stand beside its end: it is what most readers look for."""
    only = chart.series[0]
    return f"{only.values[-1]:.4g}" if len(chart.series) == 1 and only.kind == "line" else ""
