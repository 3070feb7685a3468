"""Charts and graphs drawn on the server."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from bot.drawing import tick_words, ticks
from bot.practice.pages import mermaid
from bot.practice.pages.refusal import CannotDraw
from bot.practice.pages.xychart import parse

SVG = "{http://www.w3.org/2000/svg}"
LOSS = """xychart-beta
    title "Training loss, run 02"
    x-axis "step" 0 --> 300
    y-axis "loss" 0 --> 4
    line [3.1, 2.0, 1.2, 0.8]
"""


def drawings(source: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(f"<all>{mermaid.draw(source)}</all>"))


def words(drawing: ElementTree.Element) -> list[str]:
    return [text.text or "" for text in drawing.iter(f"{SVG}text")]


def test_chart_is_drawn_wide_and_narrow() -> None:
    wide, narrow = drawings(LOSS)
    assert float(wide.attrib["width"]) > 600
    assert float(narrow.attrib["width"]) <= 340


def test_chart_says_titles_ticks_and_last_value() -> None:
    said = words(drawings(LOSS)[0])
    assert {"Training loss, run 02", "step", "loss", "0.8"} <= set(said)
    assert {"0", "1", "2", "3", "4", "50", "100", "300"} <= set(said)


def test_line_falls_as_its_values_do() -> None:
    path = next(item for item in drawings(LOSS)[0].iter(f"{SVG}path") if "mm-line" in item.attrib["class"])
    points = [tuple(map(float, pair.split())) for pair in re.split("[ML]", path.attrib["d"])[1:]]
    assert len(points) == 4
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert [y for _, y in points] == sorted(y for _, y in points)  # y grows downwards


def test_value_stands_at_its_tick() -> None:
    drawing = drawings("xychart-beta\n y-axis 0 --> 10\n line [5, 5]")[0]
    dot = next(drawing.iter(f"{SVG}circle"))
    tick = next(text for text in drawing.iter(f"{SVG}text") if text.text == "4")
    upper = next(text for text in drawing.iter(f"{SVG}text") if text.text == "6")
    middle = (float(tick.attrib["y"]) + float(upper.attrib["y"])) / 2 - 4
    assert float(dot.attrib["cy"]) == pytest.approx(middle, abs=0.2)


def test_bars_stand_on_zero_and_carry_values() -> None:
    drawing = drawings('xychart-beta\n x-axis [base, "run 1"]\n y-axis 0 --> 1\n bar [0.2, 0.8]\n line [0.5, 0.5]')[0]
    bars = [item for item in drawing.iter(f"{SVG}rect") if item.find(f"{SVG}title") is not None]
    small, large = (float(bar.attrib["height"]) for bar in bars)
    assert large == pytest.approx(4 * small, rel=0.01)
    assert {"base", "run 1", "0.2", "0.8"} <= set(words(drawing))


@pytest.mark.parametrize("values", ["[1]", "[0, 0, 0]", "[-3, 2e3, .5, +7]", "[1e-9, 2e-9]", "[1,\n 2,\n 3]"])
def test_odd_but_valid_values_are_drawn(values: str) -> None:
    assert len(drawings(f"xychart-beta\n line {values}")) == 2


def test_long_series_and_many_categories_stay_readable() -> None:
    categories = ", ".join(f"category number {n}" for n in range(200))
    drawing = drawings(f"xychart-beta\n x-axis [{categories}]\n line [{','.join('1' for _ in range(200))}]")[0]
    assert len([word for word in words(drawing) if word.startswith("category")]) <= 12
    assert not list(drawing.iter(f"{SVG}circle"))


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("pie\n a: 1", "does not draw diagrams of the kind"),
        ("xychart-beta horizontal\n bar [1]", "horizontal"),
        ("xychart-beta\n title x", "no line or bar"),
        ("xychart-beta\n line [1, two]", "needs numbers"),
        ("xychart-beta\n line [1, nan]", "finite"),
        ("xychart-beta\n line [1, 1e999]", "finite"),
        ("xychart-beta\n scatter [1]", "does not understand"),
        ("flowchart TD\n subgraph x\n A-->B\n end", "subgraphs"),
        ("stateDiagram-v2\n state X {\n }", "does not understand"),
        ("", "no diagram"),
        ("xychart-beta\n line [" + ",".join("1" for _ in range(2000)) + "]", "between 1 and"),
        ("x" * 60_000, "at most"),
    ],
)
def test_what_cannot_be_drawn_is_shown_as_text_with_a_reason(source: str, why: str) -> None:
    with pytest.raises(CannotDraw, match=why):
        mermaid.draw(source)
    assert 'class="note">Shown as text' in mermaid.figure(source)


def test_comments_directives_and_front_matter_are_skipped() -> None:
    source = "---\nconfig:\n  theme: dark\n---\n%% a note\n%%{init: {}}%%\nxychart-beta\n line [1, 2]\n"
    assert len(drawings(source)) == 2


def test_axis_forms() -> None:
    assert parse(["xychart-beta", 'x-axis [a, "b, c"]', "line [1]"]).x.categories == ("a", "b, c")
    bare = parse(["xychart-beta", "x-axis step 1 --> 5", "y-axis loss", "line [1]"])
    assert (bare.x.title, bare.x.low, bare.x.high, bare.y.title) == ("step", 1.0, 5.0, "loss")


def test_ticks_are_round_and_told_apart() -> None:
    assert ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert tick_words(ticks(0, 1)) == ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]
    assert tick_words([0.0, 1000.0, 2000.0]) == ["0", "1,000", "2,000"]
    assert tick_words([0.0, 1e-6, 2e-6]) == ["0", "1e-06", "2e-06"]


def test_flowchart_draws_boxes_arrows_and_labels() -> None:
    (drawing,) = drawings("flowchart LR\n A[Issue] --> B{Consent?}\n B -->|yes| C(Train)\n B -- no --> D\n C -.-> B\n")
    assert {"Issue", "Consent?", "Train", "D", "yes", "no"} <= set(words(drawing))
    assert sum("mm-edge" in path.attrib["class"] for path in drawing.iter(f"{SVG}path")) == 4
    assert sum("mm-dotted" in path.attrib["class"] for path in drawing.iter(f"{SVG}path")) == 1


def test_flowchart_on_one_line_with_groups() -> None:
    (drawing,) = drawings("graph TD; A & B --> C; C --> D;")
    assert sum("mm-edge" in path.attrib["class"] for path in drawing.iter(f"{SVG}path")) == 3


def test_layers_follow_the_arrows() -> None:
    (drawing,) = drawings("flowchart TD\n A --> B --> C\n A --> C\n C --> A")
    height = {text.text: float(text.attrib["y"]) for text in drawing.iter(f"{SVG}text")}
    assert height["A"] < height["B"] < height["C"]


def test_state_diagram_has_its_start_and_end() -> None:
    (drawing,) = drawings("stateDiagram-v2\n [*] --> A\n A --> B: go\n B --> [*]\n B : Being B")
    assert len(list(drawing.iter(f"{SVG}circle"))) == 3
    assert {"A", "Being B", "go"} <= set(words(drawing))


def test_drawing_is_described_for_those_who_do_not_see_it() -> None:
    label = drawings(LOSS)[0].attrib["aria-label"]
    assert label == "Line chart: Training loss, run 02. loss: 4 values, first 3.1, last 0.8, lowest 0.8, highest 3.1"
