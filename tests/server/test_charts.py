"""Curves as SVG: well formed and within their frame whatever a training script logs."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.domain.experiment import Run, Score
from bot.domain.goal import Goal
from bot.server.pages.charts import LARGEST_VALUE, MOST_POINTS, Line, curves, meter, strip, values_by_run
from bot.server.pages.curve_files import CurveFiles
from tests.server.pages_world import score

GOAL = Goal(title="t", base_model="m", benchmark="b", target=0.9)
VALUES = st.none() | st.floats(-LARGEST_VALUE, LARGEST_VALUE, allow_nan=False)


def drawings(markup: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(each) for each in re.findall(r"<svg.*?</svg>", markup, re.DOTALL)]


@given(st.lists(st.tuples(st.integers(0, 10**11), VALUES), min_size=1, max_size=60))
def test_whatever_is_logged_is_drawn_inside_the_frame(points: list[tuple[int, float | None]]) -> None:
    found = drawings(curves("Loss", [Line("loss", sorted(points, key=lambda point: point[0]))]))
    assert len(found) == (2 if any(y is not None for _, y in points) else 0)
    for drawing in found:
        width, height = float(drawing.get("width", 0)), float(drawing.get("height", 0))
        numbers = re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", ElementTree.tostring(drawing, encoding="unicode"))
        assert all(-1 <= float(x) <= width + 1 and -1 <= float(y) <= height + 1 for x, y in numbers)
        assert "nan" not in ElementTree.tostring(drawing, encoding="unicode").lower().replace("not a number", "")


def test_gap_breaks_the_line_and_is_marked() -> None:
    [wide, _] = drawings(curves("Loss", [Line("loss", [(1, 3.0), (2, 2.0), (3, None), (4, None), (5, 1.0), (6, 0.9)])]))
    paths = [str(each.get("class")) for each in wide.iter() if each.get("class") in ("line s1", "gap")]
    assert sorted(paths) == ["gap", "gap", "line s1", "line s1"]
    assert "2 not a number" in str(wide.get("aria-label"))


def test_values_show_interval_baseline_and_target() -> None:
    runs = [Run(n, "", "", "", score=Score(**score(value))) for n, value in ((1, 0.2), (2, 0.97), (3, 0.5))]
    runs.insert(1, Run(9, "", "", "", failure="it failed"))
    [wide, narrow] = drawings(values_by_run(runs, Score(**score(0.1)), 0.9))
    for drawing in (wide, narrow):
        assert len([each for each in drawing.iter() if each.get("class") == "whisker"]) == 3
        assert "base model 10.0 %" in "".join(drawing.itertext()) and "target 90 %" in "".join(drawing.itertext())
    assert values_by_run(runs[:1], None, None) == ""


@pytest.mark.parametrize("share", [None, 0.0, 0.5, 1.0, 7.0, float("inf"), float("nan")])
def test_meter_never_runs_over(share: float | None) -> None:
    used = re.findall(r'class="used" width="([\d.]+)"', meter(share))
    assert all(0 <= float(width) <= 100 for width in used)


def test_strip_is_said_in_words() -> None:
    [drawing] = drawings(strip(Score(**score(0.1)), Score(**score(1.0)), GOAL))
    assert drawing.get("aria-label") == "On a scale from 0 to 100 %: target 90 %, base model 10.0 %, best run 100.0 %"
    prose = replace(GOAL, metric="perplexity", target=25.0)
    numbers = {"ci_low": 30.0, "ci_high": 50.0, "metric": "perplexity"}
    [drawing] = drawings(strip(Score(**score(0.1) | numbers | {"value": 40.0}), None, prose))
    assert drawing.get("aria-label") == "On a scale from 1 to 44: target 25, base model 40.00"


def log(folder: Path, rows: list[Any]) -> None:
    (folder / "out").mkdir(parents=True, exist_ok=True)
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    (folder / "out" / "metrics.jsonl").write_text(text)


def test_curves_are_thinned_and_what_cannot_be_drawn_is_counted(tmp_path: Path) -> None:
    rows: list[Any] = [{"step": i, "loss": 1 / i} for i in range(1, 4_001)]
    rows += [
        {"step": 10**400, "loss": 1.0},
        {"step": 4_001, "loss": 10**400},
        {"step": 4_002, "loss": "NaN"},
        "{",
        "[1]",
    ]
    rows += [{"step": 4_003, "loss": 1e300}, {"step": True, "loss": [1]}, {"step": -1, "loss": {"a": 1}}]
    log(tmp_path, rows)
    found = CurveFiles().read([(None, "x"), (tmp_path / "none", "x"), (tmp_path, "out/metrics.jsonl")])["loss"]
    assert len(found.line.points) <= MOST_POINTS
    assert found.missing == 5
    assert len(drawings(curves("Loss", [found.line]))) == 2


def test_file_is_read_again_only_when_it_has_grown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = CurveFiles()
    log(tmp_path, [{"step": 1, "loss": 1.0}])
    place = [(tmp_path, "out/metrics.jsonl")]
    assert files.read(place)["loss"].logged == 1
    first = files.read(place)
    assert files.read(place) is first
    log(tmp_path, [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}])
    monkeypatch.setattr("bot.server.pages.curve_files.SHARE_OF_TIME", 1e9)
    assert files.read(place)["loss"].logged == 2


def test_link_out_of_the_job_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.jsonl"
    secret.write_text('{"step": 1, "loss": 1.0}\n')
    (tmp_path / "job" / "out").mkdir(parents=True)
    (tmp_path / "job" / "out" / "metrics.jsonl").symlink_to(secret)
    assert CurveFiles().read([(tmp_path / "job", "out/metrics.jsonl")]) == {}
