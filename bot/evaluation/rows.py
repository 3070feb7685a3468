"""Rows of a benchmark's files, whatever their form, and what a place in a row holds. No row is executed or rendered."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from bot.errors import UserError

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
LONGEST_FIELD = 10_000_000
_PLACE = re.compile(r"\{\{\s*([^{}]+?)\s*\}\}")

Row = Mapping[str, Any]


def rows_of(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, row) of the file, from 1. Raises: UserError that names the line."""
    reader = {".parquet": _parquet, ".csv": _table, ".tsv": _table}.get(path.suffix.lower(), _json_lines)
    try:
        yield from enumerate(reader(path), start=1)
    except UnicodeDecodeError:
        raise UserError(f"`{path.name}` is not UTF-8 text: save it as UTF-8.") from None
    except FileNotFoundError:
        raise UserError(f"There is no file `{path.name}` among the benchmark's items: correct `items.file`.") from None


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix.lower() == ".json" and text.lstrip().startswith("["):
        yield from _objects(path.name, json.loads(text))
        return
    # Not splitlines: a row may hold U+2028.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                raise UserError(f"`{path.name}` line {number} is not a JSON object; every line must be one item.")
            yield row


def _objects(name: str, values: list[Any]) -> Iterator[dict[str, Any]]:
    for number, value in enumerate(values, start=1):
        if not isinstance(value, dict):
            raise UserError(f"`{name}` holds something else than objects at place {number}; each must be one item.")
        yield value


def _table(path: Path) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(LONGEST_FIELD)
    text = io.StringIO(path.read_text(encoding="utf-8-sig"), newline="")
    yield from csv.DictReader(text, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    try:
        parquet = import_module("pyarrow.parquet")
    except ImportError:
        raise UserError(f"Reading `{path.name}` needs pyarrow. Install it with `pip install pyarrow`.") from None
    try:
        with parquet.ParquetFile(path) as file:
            # Small batches: a row may hold a recording.
            for batch in file.iter_batches(batch_size=64):
                yield from batch.to_pylist()
    except (OSError, ValueError) as error:  # pyarrow's own errors derive from these two
        if isinstance(error, FileNotFoundError):
            raise
        raise UserError(f"`{path.name}` cannot be read as Parquet: {error}") from error


def value_at(row: Row, place: str) -> Any:
    """The column called `place`, or what lies at `column.key.0` in it; None where there is nothing."""
    if place in row:
        return row[place]
    value: Any = row
    for part in place.split("."):
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


def text_of(value: Any) -> str:
    """A text as it is, a number as it is written, a list or an object as JSON."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else str(value)


def rendered(template: str, row: Row, more: Row) -> str:
    """`template` with every {{place}} filled in from `more` or the row. Raises: KeyError naming a place not there."""

    def filled(match: re.Match[str]) -> str:
        value = more[match[1]] if match[1] in more else value_at(row, match[1])
        if value is None:
            raise KeyError(match[1])
        return text_of(value)

    return _PLACE.sub(filled, template)
