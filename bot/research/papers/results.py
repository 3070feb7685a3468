"""Measured values from tables of results: model by benchmark, each with its row's and its column's heading."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from bot.research.papers.grids import METRIC
from bot.research.papers.model import Table
from bot.research.papers.numbers import only_number
from bot.research.papers.prose import Place
from bot.research.papers.table_shape import Row, shape_of


@dataclass(frozen=True, slots=True)
class Result:
    """One measured value of a table."""

    model: str
    benchmark: str
    value: float
    said: str
    """The cell as it stands: with its percent sign, interval or mark."""
    caption: str
    section: str
    url: str


def results_of_table(table: Table, place: Place) -> Iterator[Result]:
    """Measured values, each with its row's and its column's heading."""
    header, body = _head_and_body(table)
    if not header or shape_of(table) is not None:
        return
    labels = [
        " ".join(dict.fromkeys(row[column] for row in header if column < len(row) and row[column].strip()))
        for column in range(max(len(row) for row in header))
    ]
    across = any(METRIC.search(label) for label in labels[1:])
    down = not across and any(METRIC.search(row[0]) for row in body if row)
    if not across and not down:
        return
    for row in body:
        first = next((column for column, cell in enumerate(row) if _measured(cell) is not None and column > 0), None)
        if first is None:
            continue
        head = " ".join(dict.fromkeys(cell for cell in row[:first] if cell.strip()))
        for column in range(first, len(row)):
            value = _measured(row[column])
            if value is None or not head or only_number(head) or not labels[column].strip():
                continue
            model, benchmark = (head, labels[column]) if across else (labels[column], head)
            yield Result(model, benchmark, value, row[column], table.caption, place.section.where, place.url)


def _head_and_body(table: Table) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """Header and body; where the form marks no header, the rows before the first number are one."""
    if table.header_rows:
        return table.header, table.body
    rows = table.rows
    heads = 0
    while heads < min(3, len(rows) - 1) and not any(only_number(cell) for cell in rows[heads]):
        heads += 1
    return rows[:heads], rows[heads:]


def _measured(cell: str) -> float | None:
    """The value of a results cell: `71.2`, `71.2 ± 0.4`, `71.2 (+3.1)`, `71.2%` as written, in the table's own unit."""
    found = re.fullmatch(r"\s*(-?\d+(?:,\d{3})*(?:\.\d+)?)\s*%?\s*(?:[±(\[].*|[†‡*↑↓]+.*)?", cell)
    return float(found[1].replace(",", "")) if found else None
