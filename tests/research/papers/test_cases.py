"""Short texts and tables in many shapes: what must be said of each, and that nothing else is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from bot.research.papers.html import read_html
from bot.research.papers.model import Form, Paper, Section, Table
from bot.research.papers.pdf import read_pdf
from bot.research.papers.recipe import extract
from tests.research.papers.pdf_writer import pdf_of

CASES = yaml.safe_load((Path(__file__).parent / "own" / "cases.yaml").read_text(encoding="utf-8"))
APART = [case for case in CASES if case.get("apart")]


def paper_of(case: dict[str, Any]) -> Paper:
    if "html" in case:
        return read_html(case["html"], id="x", source="x", fetched_at=0)
    if "pdf" in case:
        return read_pdf(pdf_of(case["pdf"]), id="x", source="x", fetched_at=0)
    sections = tuple(
        Section(
            each.get("title", "Training details"),
            1 + len(each.get("path", ())),
            tuple(each.get("text", ())),
            tuple(table_of(table) for table in each.get("tables", ())),
            path=tuple(each.get("path", ())),
            notes=tuple(each.get("notes", ())),
        )
        for each in case["sections"]
    )
    return Paper("x", case.get("paper", "A Paper"), case.get("abstract", ""), sections, "x", 0.0, Form.HTML)


def table_of(said: dict[str, Any]) -> Table:
    return Table(tuple(tuple(str(cell) for cell in row) for row in said["rows"]), 0, said.get("caption", ""), "Table 1")


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_a_case_tells_what_it_says_and_no_more(case: dict[str, Any]) -> None:
    found = extract(paper_of(case))
    told = {
        stage.method: {f"{each.key}{f'[{each.variant}]' if each.variant else ''}": each.value for each in stage.values}
        for stage in found.stages
        if stage.values
    }
    wanted = {
        stage: {key: pytest.approx(value) if isinstance(value, int | float) else value for key, value in values.items()}
        for stage, values in case["told"].items()
    }
    assert told == wanted, [(each.key, each.said, each.reason) for each in found.left_out]


@pytest.mark.parametrize("case", APART, ids=[case["name"] for case in APART])
def test_no_paragraph_of_a_case_tells_anything_by_itself(case: dict[str, Any]) -> None:
    """Two wrong values of one key would hide each other as a conflict."""
    for section in case["sections"]:
        for paragraph in section.get("text", ()):
            found = extract(paper_of({**case, "sections": [{**section, "text": [paragraph], "tables": []}]}))
            told = [(each.key, each.value) for stage in found.stages for each in stage.values]
            assert told == [], paragraph


def test_the_cases_are_many() -> None:
    assert len(CASES) >= 180
    assert len({case["name"] for case in CASES}) == len(CASES)
