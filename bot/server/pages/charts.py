"""Curves and values as SVG inside the page: no script draws them, and their colours follow the page's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

from bot.conversation.messages.wording import amount
from bot.domain.experiment import Run, Score
from bot.domain.goal import Goal
from bot.drawing import number, picture, text, text_width, tick_words, ticks

MOST_POINTS = 500
"""Of one line; more would not be told apart on a screen."""
MOST_GAP_MARKS = 60
LARGEST_VALUE = 1e15
"""What lies beyond is a gap: beside it no other value could be told from zero."""


@dataclass(frozen=True, slots=True)
class Line:
    """A series over training steps; `y` None where the logged value is not a number."""

    name: str
    points: Sequence[tuple[float, float | None]]


@dataclass(frozen=True, slots=True)
class _Frame:
    left: float
    top: float
    right: float
    bottom: float
    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        return self.left + (value - self.x_low) / (self.x_high - self.x_low) * (self.right - self.left)

    def y(self, value: float) -> float:
        return self.bottom - (value - self.y_low) / (self.y_high - self.y_low) * (self.bottom - self.top)


def curves(title: str, lines: Sequence[Line]) -> Markup:
    """Lines over steps, drawn for a wide column and for a telephone's; empty when no value is a number."""
    lines = [line for line in lines if any(y is not None for _, y in line.points)]
    if not lines:
        return Markup("")
    said = ". ".join([title, *(_described(line) for line in lines)])
    return _both(lambda narrow: _curves(lines, narrow), said)


def _both(draw: Callable[[bool], str], said: str) -> Markup:
    return Markup("".join(
        picture(width, height, kind, said, draw(kind == "narrow"))
        for kind, width, height in (("wide", 720.0, 280.0), ("narrow", 340.0, 240.0))
    ))  # fmt: skip


def _described(line: Line) -> str:
    values = [y for _, y in line.points if y is not None]
    missing = len(line.points) - len(values)
    words = f"{line.name}: first {amount(values[0])}, last {amount(values[-1])}, lowest {amount(min(values))}"
    return f"{words}, {missing} not a number" if missing else words


def _curves(lines: Sequence[Line], narrow: bool) -> str:
    width, height = (340.0, 240.0) if narrow else (720.0, 280.0)
    values = [y for line in lines for _, y in line.points if y is not None]
    steps = [x for line in lines for x, _ in line.points]
    y_low, y_high = _padded(min(values), max(values))
    if min(values) >= 0:
        y_low = max(y_low, 0.0)
    marks = ticks(y_low, y_high, 4) or [y_low, y_high]
    words = tick_words(marks)
    x_low, x_high = (min(steps), max(steps)) if max(steps) > min(steps) else (min(steps) - 1, max(steps) + 1)
    left = max(text_width(word) for word in words) + 12
    frame = _Frame(left, 34.0, width - 14, height - 40, x_low, x_high, y_low, y_high)
    parts = [*_legend(lines, frame), *_rows(frame, zip(marks, words, strict=True)), *_steps(frame, narrow)]
    for index, line in enumerate(lines):
        parts += _path(frame, line, index + 1)
    return "".join(parts)


def _padded(low: float, high: float) -> tuple[float, float]:
    pad = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return low - pad, high + pad


def _legend(lines: Sequence[Line], frame: _Frame) -> Iterator[str]:
    x = frame.left
    for index, line in enumerate(lines):
        values = [y for _, y in line.points if y is not None]
        words = f"{line.name} {amount(values[-1])}"
        yield f'<rect class="fill s{index + 1}" x="{number(x)}" y="10" width="14" height="4" rx="2"/>'
        yield text(x + 20, 16, words, anchor="start", kind="word")
        x += text_width(words) + 44


def _rows(frame: _Frame, marks: Iterator[tuple[float, str]]) -> Iterator[str]:
    for value, word in marks:
        y = frame.y(value)
        yield f'<path class="grid" d="M{number(frame.left)} {number(y)}H{number(frame.right)}"/>'
        yield text(frame.left - 7, y + 4, word, anchor="end", kind="word")


def _steps(frame: _Frame, narrow: bool) -> Iterator[str]:
    yield f'<path class="axis" d="M{number(frame.left)} {number(frame.bottom)}H{number(frame.right)}"/>'
    marks = [mark for mark in ticks(frame.x_low, frame.x_high, 4 if narrow else 7) if mark % 1 == 0]
    for mark, word in zip(marks, tick_words(marks), strict=True):
        x = frame.x(mark)
        yield f'<path class="axis" d="M{number(x)} {number(frame.bottom)}v4"/>'
        yield text(min(x, frame.right - text_width(word) / 2), frame.bottom + 17, word, kind="word")
    yield text((frame.left + frame.right) / 2, frame.bottom + 35, "training step", kind="word")


def _path(frame: _Frame, line: Line, series: int) -> Iterator[str]:
    """The line with a gap, and a mark on the axis, wherever a value was not a number."""
    gaps = [x for x, y in line.points if y is None]
    every = math.ceil(len(gaps) / MOST_GAP_MARKS) or 1
    for x in gaps[::every]:
        yield f'<path class="gap" d="M{number(frame.x(x))} {number(frame.bottom)}v-7"/>'
    for piece in _pieces(line.points):
        if len(piece) == 1:
            x, y = piece[0]
            place = f'cx="{number(frame.x(x))}" cy="{number(frame.y(y))}"'
            yield f'<circle class="fill s{series}" {place} r="2.5"/>'
        else:
            path = "L".join(f"{number(frame.x(x))} {number(frame.y(y))}" for x, y in piece)
            yield f'<path class="line s{series}" d="M{path}"/>'


def _pieces(points: Sequence[tuple[float, float | None]]) -> Iterator[list[tuple[float, float]]]:
    piece: list[tuple[float, float]] = []
    for x, y in points:
        if y is not None:
            piece.append((x, y))
        elif piece:
            yield piece
            piece = []
    if piece:
        yield piece


def values_by_run(runs: Sequence[Run], baseline: Score | None, target: float | None) -> Markup:
    """Each run's value with its interval, against the base model's and the target; empty for fewer than two."""
    scored = [(run.n, run.score) for run in runs if run.score is not None]
    if len(scored) < 2:
        return Markup("")  # one value is read faster in the table
    said = ["Value by run", *(f"run {n}: {score.measure.said(score.value)}" for n, score in scored[:20])]
    if baseline is not None:
        said.append(f"base model {baseline.measure.said(baseline.value)}")
    if target is not None:
        said.append(f"target {scored[0][1].measure.said_target(target)}")
    return _both(lambda narrow: _values(scored, len(runs), baseline, target, narrow), ". ".join(said))


def _values(
    scored: Sequence[tuple[int, Score]], count: int, baseline: Score | None, target: float | None, narrow: bool
) -> str:
    width, height = (340.0, 240.0) if narrow else (720.0, 280.0)
    every = [bound for _, score in scored for bound in (score.ci_low, score.ci_high)]
    every += [baseline.value] if baseline is not None else []
    every += [target] if target is not None else []
    low, high = _padded(min(every), max(every))
    measure = scored[0][1].measure
    low, high = measure.clipped(low), measure.clipped(high)
    if high <= low:
        low, high = low - 0.05, high + 0.05
    scale, unit = (100, " %") if measure.is_share else (1, "")
    marks = ticks(low * scale, high * scale, 4) or [low * scale, high * scale]
    words = [f"{word}{unit}" for word in tick_words(marks)]
    left = max(text_width(word) for word in words) + 12
    frame = _Frame(left, 34.0, width - 14, height - 40, 0.5, count + 0.5, low, high)
    parts = list(_rows(frame, iter([(mark / scale, word) for mark, word in zip(marks, words, strict=True)])))
    x = frame.left
    for kind, level, label in (("base", baseline.value if baseline else None, "base model"), ("aim", target, "target")):
        if level is not None:
            shown = measure.said_target(level) if kind == "aim" else measure.said(level)
            parts.append(
                f'<path class="level {kind}" d="M{number(frame.left)} {number(frame.y(level))}H{frame.right}"/>'
            )
            parts.append(f'<path class="level {kind}" d="M{number(x)} 12h18"/>')
            parts.append(text(x + 24, 16, f"{label} {shown}", anchor="start", kind="word"))
            x += text_width(f"{label} {shown}") + 46
    for n, score in scored:
        middle, low_y, high_y = (number(each) for each in (frame.x(n), frame.y(score.ci_low), frame.y(score.ci_high)))
        parts.append(f'<path class="whisker" d="M{middle} {low_y}V{high_y}"/>')
        title = escape(f"run {n}: {measure.said(score.value)}")
        place = f'cx="{middle}" cy="{number(frame.y(score.value))}"'
        parts.append(f'<circle class="fill s1" {place} r="4.5"><title>{title}</title></circle>')
    parts.append(f'<path class="axis" d="M{number(frame.left)} {number(frame.bottom)}H{number(frame.right)}"/>')
    step = max(1, math.ceil(count * 26 / (frame.right - frame.left)))
    parts += [text(frame.x(n), frame.bottom + 17, str(n), kind="word") for n in range(1, count + 1, step)]
    parts.append(text((frame.left + frame.right) / 2, frame.bottom + 35, "run", kind="word"))
    return "".join(parts)


def strip(baseline: Score | None, best: Score | None, goal: Goal) -> Markup:
    """Base model, best run with its interval and target on one scale: from 0 to 100 %, or, where a metric has no end,
    from its least to the worst of the three."""
    width, middle = 320.0, 14.0
    measure, target = goal.measure, goal.target
    levels = [target, *(score.value for score in (baseline, best) if score is not None)]
    low, high = measure.low, measure.high if math.isfinite(measure.high) else 1.1 * max(levels)

    def x(level: float) -> str:
        return number(8 + min(max((level - low) / (high - low), 0.0), 1.0) * (width - 16))

    parts = [f'<path class="rail" d="M8 {middle}H{width - 8}"/>']
    if best is not None:
        start = x(baseline.value if baseline is not None else measure.clipped(min(measure.worst, high)))
        parts.append(f'<path class="gain" d="M{start} {middle}H{x(best.value)}"/>')
        parts.append(f'<path class="whisker" d="M{x(best.ci_low)} {middle}H{x(best.ci_high)}"/>')
    parts.append(f'<path class="aim" d="M{x(target)} 3V25"/>')
    if baseline is not None:
        parts.append(f'<circle class="base" cx="{x(baseline.value)}" cy="{middle}" r="4.5"/>')
    if best is not None:
        parts.append(f'<circle class="best" cx="{x(best.value)}" cy="{middle}" r="5"/>')
    said = [f"target {goal.said_target}"]
    said += [f"base model {measure.said(baseline.value)}"] if baseline is not None else []
    said += [f"best run {measure.said(best.value)}"] if best is not None else []
    scale = f"On a scale from {measure.said_target(low)} to {measure.said_target(round(high, 4))}: "
    return Markup(picture(width, 28, "strip", scale.replace("0 % to", "0 to") + ", ".join(said), "".join(parts)))


def meter(share: float | None) -> Markup:
    """How much of a ceiling is used, as a bar; nothing where there is no ceiling."""
    if share is None or not math.isfinite(share):
        return Markup("")
    filled = min(max(share, 0.0), 1.0) * 100
    tone = "full" if share >= 1 - 1e-9 else "high" if share >= 0.8 else "low"
    return Markup(
        f'<svg class="meter {tone}" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="rail" width="100" height="6"/><rect class="used" width="{number(filled)}" height="6"/></svg>'
    )
