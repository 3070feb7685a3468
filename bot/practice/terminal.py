"""The live display: what happened as lines that stay, what goes on now as one line at the bottom that changes in place.

On a terminal it is drawn with rich, at most a few times a second and only where something changed; anywhere else the
same words come as plain lines, with the progress of a long job every few seconds. Colours are the terminal's own and
lie on labels alone, so that light and dark backgrounds both stay readable.
"""

from __future__ import annotations

import re
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bot.practice.narration import Activity, Entry, Tone

WIDEST = 100
LABEL_WIDTH = 10
CLOCK_WIDTH = 5
TEXT_START = CLOCK_WIDTH + 2 + LABEL_WIDTH + 1
SHORTEST_BAR, LONGEST_BAR = 8, 28
BESIDE_BAR = 60
"""Columns that the name, the step, the loss and the time left take beside the bar."""
PLAIN_PROGRESS_SECONDS = 5.0
_TOGETHER = re.compile(r"(?<=\b[np]) (?==)|(?<=[np] =) |(?<=\d) (?=%)")
STYLES = {
    Tone.PLAIN: "bold",
    Tone.QUIET: "dim",
    Tone.GOOD: "bold green",
    Tone.WARN: "bold magenta",
    Tone.BAD: "bold red",
}


@dataclass(slots=True)
class Screen:
    """Where a person watches. Use as a context manager, so that the terminal is left as it was."""

    console: Console = field(default_factory=lambda: new_console())
    clock: Callable[[], float] = time.time
    started_at: float = 0.0
    """Unix seconds that the shown times count from; set when the screen is entered, unless it is given."""
    _live: Live | None = None
    _shown: str = ""
    _said_at: float = 0.0

    def __enter__(self) -> Screen:
        self.started_at = self.started_at or self.clock()
        self.open_live()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close_live()

    @property
    def rich(self) -> bool:
        """True on a terminal that can redraw a line."""
        return self.console.is_terminal and not self.console.is_dumb_terminal

    @property
    def width(self) -> int:
        return min(self.console.width, WIDEST)

    def open_live(self) -> None:
        """Begin the line that changes, on a terminal that can draw it."""
        if self.rich and self._live is None:
            self._shown = ""
            self._live = Live(console=self.console, auto_refresh=False, transient=True)
            self._live.start()

    def close_live(self) -> None:
        """End the line that changes; what is printed from here on stays."""
        if self._live is not None:
            self._live.update(Text(""), refresh=True)
            self._live.stop()
            self._live = None

    # Lines that stay

    def heading(self, title: str, note: str = "") -> None:
        self._print(Text(title, style="bold"))
        if note:
            self._paragraph(note, 2)

    def addresses(self, rows: Iterable[tuple[str, str]]) -> None:
        """Addresses and paths, one to a line and never broken, so that a terminal can open them."""
        listed = list(rows)
        longest = max((len(name) for name, _ in listed), default=0)
        for name, address in listed:
            self._print(Text.assemble("  ", (f"{name:<{longest}}", "dim"), "  ", address))

    def blank(self) -> None:
        self._print(Text(""))

    def note(self, text: str) -> None:
        self._paragraph(text, 0)

    def say(self, label: str, text: str, details: Sequence[str] = (), tone: Tone = Tone.PLAIN) -> None:
        """Something that happened just now."""
        self.tell([Entry(self.clock(), label, text, tuple(details), tone)])

    def tell(self, entries: Iterable[Entry], *, goal: str = "") -> None:
        """Entries of a journal; `goal` names whose they are where there are several."""
        for entry in entries:
            for line in self._lines(entry, goal):
                self._print(line)

    def table(self, table: Table) -> None:
        self._print(table)

    def _lines(self, entry: Entry, goal: str) -> list[Text]:
        clock = elapsed(entry.at - self.started_at)
        text = f"{goal} {entry.text}" if goal else entry.text
        if not self.rich:
            first = Text(f"{clock:>{CLOCK_WIDTH}}  {entry.label}: {text}")
            return [first, *(Text(" " * (CLOCK_WIDTH + 4) + detail) for detail in entry.details)]
        quiet = "dim" if entry.tone is Tone.QUIET else ""
        room = max(20, self.width - TEXT_START)
        lines: list[Text] = []
        for piece in _wrapped(text, room):
            head = f"{clock:>{CLOCK_WIDTH}}  " if not lines else " " * (CLOCK_WIDTH + 2)
            label = f"{entry.label:<{LABEL_WIDTH}} " if not lines else " " * (LABEL_WIDTH + 1)
            lines.append(Text.assemble((head, "dim"), (label, STYLES[entry.tone]), (piece, quiet)))
        for detail in entry.details:
            lines += [Text(" " * TEXT_START + piece, style="dim") for piece in _wrapped(detail, room)]
        return lines

    def _paragraph(self, text: str, indent: int) -> None:
        pieces = _wrapped(text, self.width - indent) if self.rich else [text]
        for piece in pieces:
            self._print(Text(" " * indent + piece))

    def _print(self, what: RenderableType) -> None:
        self.console.print(what, soft_wrap=isinstance(what, Text), highlight=False, markup=False)

    # The line that changes

    def show(self, activity: Activity | None) -> None:
        """What goes on now; nothing is drawn when it looks the same as before."""
        if self._live is None:
            self._show_plainly(activity)
            return
        line = self._activity_line(activity) if activity is not None else Text("")
        if line.plain != self._shown:
            self._shown = line.plain
            self._live.update(Group(Text(""), line) if activity is not None else Text(""), refresh=True)

    def _show_plainly(self, activity: Activity | None) -> None:
        now = self.clock()
        if self.rich or activity is None or not activity.step or now - self._said_at < PLAIN_PROGRESS_SECONDS:
            return
        self._said_at = now
        clock = elapsed(now - self.started_at)
        self._print(Text(f"{clock:>{CLOCK_WIDTH}}  {activity.what}: {_numbers(activity)}"))

    def _activity_line(self, activity: Activity) -> Text:
        line = Text.assemble(" " * (CLOCK_WIDTH + 2), (f"{activity.what}  ", "bold"))
        if activity.step and activity.total_steps:
            width = max(SHORTEST_BAR, min(LONGEST_BAR, self.console.width - BESIDE_BAR))
            filled = round(width * min(1.0, activity.step / activity.total_steps))
            # Two characters, so that the bar can be read where there is no colour.
            line.append("━" * filled, "green")
            line.append("─" * (width - filled), "dim")
            line.append("  ")
        if activity.step:
            line.append(_numbers(activity))
        elif activity.since is not None:
            line.append(f"{max(0.0, self.clock() - activity.since):.0f} s", "dim")
        line.truncate(max(20, self.console.width - 1), overflow="ellipsis")
        return line


def _numbers(activity: Activity) -> str:
    """`64/100 · loss 1.314 · 4 s left`."""
    total = f"/{activity.total_steps}" if activity.total_steps else ""
    parts = [f"{activity.step}{total}"]
    if activity.loss is not None:
        parts.append(f"loss {activity.loss:.3f}")
    if activity.eta_seconds is not None:
        parts.append(f"{duration(activity.eta_seconds)} left")
    return " · ".join(parts)


def new_console(*, to_stderr: bool = False) -> Console:
    """A console for people: rich on a terminal, and elsewhere plain lines that nothing breaks."""
    stream = sys.stderr if to_stderr else sys.stdout
    if stream.isatty():
        return Console(file=stream, highlight=False)
    return Console(file=stream, highlight=False, force_terminal=False, no_color=True, width=160)


def elapsed(seconds: float) -> str:
    """`0:07`, `12:40`, `1:02:03`."""
    whole = max(0, int(seconds))
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def duration(seconds: float) -> str:
    """`8 s`, `3 min`, `2.5 h`."""
    if seconds < 100:
        return f"{max(0.0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width`, except where one word is longer; `n = 200` and `90 %` stay together."""
    held = _TOGETHER.sub("\u00a0", text)
    lines = textwrap.wrap(held, width, break_long_words=False, break_on_hyphens=False)
    return [line.replace("\u00a0", " ") for line in lines] or [""]
