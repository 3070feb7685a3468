"""Every chart that the bot can draw is one that Mermaid's own parser reads."""

from __future__ import annotations

import math
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bot.conversation.messages.charts import MOST_POINTS, Curve, xychart
from tests.judges.mermaid import MermaidParser, charts_in, node_has
from tests.world import practice_world

pytestmark = pytest.mark.skipif(not node_has("mermaid"), reason="Mermaid of tests/node is not installed")
BOT = Path(__file__).resolve().parent.parent.parent / "bot"


@pytest.fixture(scope="module")
def parser() -> Iterator[MermaidParser]:
    with MermaidParser() as found:
        yield found


@pytest.mark.parametrize(
    "line", ["line [1, NaN]", "line [1e5, 2]", "line []", "line [1, 2", "bars [1, 2]", "line [1;2]"]
)
def test_the_judge_can_say_no(parser: MermaidParser, line: str) -> None:
    chart = f'xychart-beta\n    x-axis "step" 1 --> 5\n    y-axis "loss" 0 --> 1\n    {line}\n'
    assert parser.complaint(chart) is not None
    assert parser.complaint(chart.replace(line, "line [1, 2]")) is None


@pytest.mark.parametrize(
    "values",
    [
        [1.0],
        [1.0, 1.0],
        [0.0, 0.0],
        [-1.0, -0.5, -1e-9],
        [math.nan, 1.0, 2.0],
        [math.inf, -math.inf, 3.0, 4.0],
        [1e300, -1e300],
        [5e-324, 1e-12],
        [1e15, 1e-15, -0.0],
        [None, 2.0, None, 4.0],
        [float(i % 7) for i in range(MOST_POINTS)],
        [math.sin(i) for i in range(5_000)],
        [math.nan] * 50,
        [],
    ],
    ids=lambda values: f"{len(values)} points",
)
@pytest.mark.parametrize("name", ["loss", "eval/loss-2 x_y", '"]; %%{init: {"theme": "dark"}}%%', "", "損失", "end"])
def test_chart_of_any_curve_is_read(parser: MermaidParser, values: list[float | None], name: str) -> None:
    chart = xychart(Curve(name, list(enumerate(values, start=1))))
    if sum(value is not None and math.isfinite(value) for value in values) < 2:
        assert chart == ""
        return
    [drawn] = charts_in(chart)
    assert parser.complaint(drawn) is None, drawn
    assert "%%" not in drawn


@given(
    points=st.lists(st.tuples(st.integers(-5, 10**12), st.floats(width=64) | st.none()), max_size=90),
    name=st.text(max_size=90),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_curve_makes_a_chart_that_mermaid_refuses(
    parser: MermaidParser, points: list[tuple[int, float | None]], name: str
) -> None:
    chart = xychart(Curve(name, points))
    drawn = charts_in(chart)
    assert len(drawn) == (1 if chart else 0)
    for each in drawn:
        assert parser.complaint(each) is None, each


def test_nothing_else_in_the_bot_draws(parser: MermaidParser) -> None:
    """A second place that writes Mermaid has to be judged here too."""
    grep = subprocess.run(["grep", "-rlE", "```mermaid", str(BOT)], capture_output=True, text=True, check=False)
    found = {str(Path(path).relative_to(BOT)) for path in grep.stdout.split() if path.endswith(".py")}
    assert found - {"practice/pages/mermaid.py"} == {"domain/curves.py"}


@pytest.mark.slow
def test_charts_of_a_whole_pursuit_are_read(parser: MermaidParser, tmp_path: Path) -> None:
    with practice_world(tmp_path) as world:
        world.start()
        assert world.wait_ready(60)
        issue = world.open_goal()
        assert world.until_ended(issue, 90) == "met"
        pull = world.pulls()[0]
        bodies = [review["body"] for review in world.reviews(pull["number"])]
        bodies += [pull["body"], *(comment["body"] for comment in world.comments(pull["number"]))]
        charts = [chart for body in bodies for chart in charts_in(body)]
    # Loss and gradient norm of two runs.
    assert len(charts) == 4
    assert [parser.complaint(chart) for chart in charts] == [None] * 4
