"""What a person sees of the gym: goals under way in a table that changes, ended ones as lines that stay, a summary."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bot.gym.report import Result
from bot.practice.narration import activity_of
from bot.practice.terminal import duration

if TYPE_CHECKING:
    from bot.gym.pursuing import Pursued

_ALIGNED = (
    ("goal", "left"), ("kind", "left"), ("method", "left"), ("seed", "right"), ("reached", "left"),
    ("runs", "right"), ("value", "right"), ("target", "right"), ("training", "right"),
)  # fmt: skip


class Board:
    """Use as a context manager, so that the terminal is left as it was."""

    def __init__(self, console: Console, goals: int) -> None:
        """`goals`: how many there are in all, every seed counted."""
        self.console, self._goals, self._ended = console, goals, 0
        live = console.is_terminal and not console.is_dumb_terminal
        self._live = Live(console=console, auto_refresh=False, transient=True) if live else None
        self._shown = ""

    def __enter__(self) -> Board:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.update(Text(""), refresh=True)
            self._live.stop()

    def say(self, text: str) -> None:
        self.console.print(Text(text), soft_wrap=True, highlight=False)

    def ended(self, result: Result) -> None:
        """A goal has ended: one line that stays."""
        self._ended += 1
        value = "-" if result.value is None else _number(result.value)
        line = Text.assemble(
            f"[{self._ended}/{self._goals}] ",
            (f"{_reached(result)} ", "green" if result.reached else "red"),
            f"{result.name} seed {result.seed}: {value} of {_number(result.target)} after {_runs(result)}, "
            f"{result.trainer_seconds:.0f} s of training",
            "" if result.reached else f" ({result.state}: {result.reason or 'no reason given'})",
        )
        self.console.print(line, soft_wrap=True, highlight=False)

    def under_way(self, goals: Sequence[Pursued]) -> None:
        """What goes on now, on a terminal that can redraw."""
        if self._live is None:
            return
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for name in ("goal", "run", "best", "target", "now"):
            table.add_column(name, header_style="bold")
        for goal in goals:
            x = goal.experiment if goal.story.events else None
            activity = activity_of(x, None) if x is not None else None
            best = x.best_run if x is not None else None
            value = _number(best.score.value) if best is not None and best.score is not None else ""
            runs = str(len(x.runs)) if x is not None else "0"
            now = activity.what if activity is not None else "waiting for the bot"
            table.add_row(goal.task.name, runs, value, _number(goal.task.target), now)
        shown = repr([tuple(column.cells) for column in table.columns])
        if shown != self._shown:
            self._shown = shown
            self._live.update(table, refresh=True)


def final_table(results: Sequence[Result]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name, side in _ALIGNED:
        table.add_column(name, justify=side, header_style="bold", no_wrap=True)  # type: ignore[arg-type]
    for result in sorted(results, key=lambda r: (r.kind, r.name, r.seed)):
        value = "" if result.value is None else _number(result.value)
        table.add_row(
            result.name, result.kind, result.method or "any", str(result.seed), _reached(result), str(len(result.runs)),
            value, _number(result.target), duration(result.trainer_seconds),
        )  # fmt: skip
    return table


def summary_lines(summary: dict[str, Any]) -> list[str]:
    """The figures in words."""
    if summary["first"] is None:
        return ["No goal has ended."]
    mean = summary["restricted_mean_runs"]
    within = "" if mean["ci_low"] is None else f" (95 % interval {mean['ci_low']:.2f} to {mean['ci_high']:.2f})"
    lines = [
        f"{summary['goals']} goals, {summary['seeds']} seed{'s' if summary['seeds'] > 1 else ''}: "
        f"reached at the first run {_percent(summary['first'])}, after iteration {_percent(summary['after'])}",
        f"mean runs to the target, counted to {mean['horizon']}: {mean['value']:.2f}{within}",
        f"{duration(summary['trainer_seconds'])} of training, {duration(summary['seconds'])} of pursuing",
    ]
    if (against := summary.get("against")) is not None:
        ends = "" if against["ci_low"] is None else f" ({against['ci_low']:.2f} to {against['ci_high']:.2f})"
        further = against.get("further_runs_ratio")
        after = "" if further is None else f"; without the first run, which all policies share: {further:.2f}"
        lines.append(f"runs as a share of {against['policy']}'s: {against['runs_ratio']:.2f}{ends}{after}")
    return lines


def _reached(result: Result) -> str:
    return "at once" if result.reached_first else "reached" if result.reached else "missed"


def _runs(result: Result) -> str:
    return f"{len(result.runs)} run{'s' if len(result.runs) != 1 else ''}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _number(value: float) -> str:
    return f"{value:.3f}"
