"""Rows of a data set, read one at a time from JSONL, Parquet or a folder of them, and the text inside each.

A row may have any of TRL's shapes (prompt/completion, messages, text, chosen/rejected, question/answer and the like);
text in columns of other names is read too, so that nothing hides under a new column name.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from bot.errors import UserError

Row = Mapping[str, Any]

PROMPT_COLUMNS = frozenset(
    {
        "prompt",
        "question",
        "instruction",
        "input",
        "problem",
        "query",
        "context",
        "system",
        "user",
        "human",
        "passage",
        "sentence",
    }
)
ANSWER_COLUMNS = frozenset(
    {
        "completion",
        "completions",
        "response",
        "responses",
        "output",
        "answer",
        "answers",
        "solution",
        "chosen",
        "rejected",
        "reference",
        "target",
        "label",
        "assistant",
        "final_answer",
    }
)
# Columns that name a row instead of being part of what is learned.
_NAMING_COLUMNS = frozenset(
    {"id", "uuid", "role", "type", "name", "source", "url", "split", "task", "hash", "idx", "index"}
)
MEDIA_COLUMNS = frozenset({"image", "images", "img", "audio"})
_ANSWERING_ROLES = frozenset({"assistant", "gpt", "model", "bot"})
_SHORTEST_MEDIA = 32
"""Characters of base64 below which a column called `image` holds a word."""
_SUFFIXES = (".jsonl", ".ndjson", ".parquet")


class Part(StrEnum):
    PROMPT = "prompt"
    TEXT = "text"
    """A column whose name does not say which side it is on, `text` for example."""
    ANSWER = "answer"


class Segment(NamedTuple):
    part: Part
    text: str


@dataclass(frozen=True, slots=True)
class Item:
    """One evaluation item, as much of it as training data can leak."""

    id: str
    prompt: str
    reference: str = ""
    choices: tuple[str, ...] = ()
    """Where they stand in a column of their own."""


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Every row of `path`: a JSONL or Parquet file, or all such files of a folder in the order of their names.

    Raises: UserError, naming file and line, for what cannot be read.
    """
    for file in data_files(path):
        yield from _parquet_rows(file) if file.suffix == ".parquet" else _jsonl_rows(file)


class Shard(NamedTuple):
    """A part of a file that can be read by itself."""

    file: Path
    start: int
    """First byte of JSONL, first row group of Parquet."""
    end: int


def shards(path: Path, size: int) -> Iterator[Shard]:
    """Every row of `path` is in one of these, in the order of `read_rows`. `size` is in bytes of JSONL.

    Raises: UserError as `read_rows` does.
    """
    for file in data_files(path):
        if file.suffix == ".parquet":
            yield from (Shard(file, group, group + 1) for group in range(_row_groups(file)))
        else:
            total = file.stat().st_size
            yield from (Shard(file, start, min(start + size, total)) for start in range(0, total, size))


def read_shard(shard: Shard) -> Iterator[dict[str, Any]]:
    """The rows that begin in a shard. Raises: UserError, whose line numbers count from the shard's beginning."""
    if shard.file.suffix == ".parquet":
        yield from _parquet_rows(shard.file, range(shard.start, shard.end))
        return
    with shard.file.open("rb") as lines:
        if shard.start:
            lines.seek(shard.start - 1)
            lines.readline()
        number = 0
        while (place := lines.tell()) < shard.end and (line := lines.readline()):
            number += 1
            try:
                text = line.decode("utf-8-sig" if place == 0 else "utf-8")
            except UnicodeDecodeError:
                raise UserError(f"{shard.file} is not UTF-8 text. Save it as UTF-8.") from None
            if text.strip():
                yield _row(text, shard.file, number)


def data_files(path: Path) -> list[Path]:
    """The files that `path` stands for. Raises: UserError when there are none."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix in _SUFFIXES and file.is_file())
        if not files:
            raise UserError(f"The folder {path} holds no .jsonl or .parquet file.")
        return files
    if not path.is_file():
        raise UserError(f"There is no file {path}. Name a .jsonl or .parquet file, or a folder of them.")
    if path.suffix not in _SUFFIXES:
        raise UserError(f"{path} is neither .jsonl nor .parquet. Write one JSON object per line into a .jsonl file.")
    return [path]


def read_items(path: Path) -> list[Item]:
    """Evaluation items of `path`: objects with `prompt` and `reference`, or rows of any training shape.

    An item without an `id` gets its 0-based place. Raises: UserError as `read_rows` does, or when nothing is in there.
    """
    items = [item_of(row, str(index)) for index, row in enumerate(read_rows(path))]
    if not items:
        raise UserError(f"{path} holds no evaluation item, so there is nothing to scan for.")
    return items


def item_of(row: Row, default_id: str) -> Item:
    parts = segments(row)
    asking = Part.PROMPT if any(part is Part.PROMPT for part, _ in parts) else Part.TEXT
    prompt = "\n".join(text for part, text in parts if part is asking)
    reference = "\n".join(text for part, text in parts if part is Part.ANSWER)
    name = row.get("id")
    return Item(default_id if name is None or name == "" else str(name), prompt, reference, _choices(row))


def _choices(row: Row) -> tuple[str, ...]:
    """The column `choices` or `options`: texts, or ARC's {"text": [...], "label": [...]}."""
    value = next((row[name] for name in ("choices", "options") if name in row), None)
    if isinstance(value, Mapping):
        value = value.get("text") or list(value.values())
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, (list, tuple)) else ()


def segments(row: Row) -> list[Segment]:
    """All text of a row: prompt columns first, then columns of unknown side, then answers; a chat's turns in order."""
    columns: dict[Part, list[Segment]] = {Part.PROMPT: [], Part.TEXT: [], Part.ANSWER: []}
    for column, value in row.items():
        name = str(column).lower()
        if name in MEDIA_COLUMNS and (digests := _media(value)):
            columns[Part.PROMPT] += [Segment(Part.PROMPT, digest) for digest in digests]
        elif name not in _NAMING_COLUMNS:
            part = Part.PROMPT if name in PROMPT_COLUMNS else Part.ANSWER if name in ANSWER_COLUMNS else Part.TEXT
            _collect(value, part, columns[part], depth=0)
    return [*columns[Part.PROMPT], *columns[Part.TEXT], *columns[Part.ANSWER]]


def _media(value: Any) -> list[str]:
    """For each image or recording of a column a digest, in place of text: the same file is found again, and no pattern
    for secrets or words looks into its bytes. [] for a column that holds something else."""
    values = value if isinstance(value, list) else [value]
    contents = [one.get("bytes") if isinstance(one, Mapping) else one for one in values]
    found = [_content(one) for one in contents]
    return [_letters(one) for one in found if one is not None] if None not in found else []


def _content(value: Any) -> bytes | None:
    """Bytes, or base64 of them with or without `data:...;base64,`; None for a text."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str) or len(value) < _SHORTEST_MEDIA:
        return None
    try:
        return base64.b64decode(value.partition("base64,")[2] or value, validate=True)
    except (binascii.Error, ValueError):
        return None


def _letters(content: bytes) -> str:
    """Eight words of eight letters: as long as the runs of words that a scan looks for, and never a number."""
    digest = hashlib.sha256(content).hexdigest().translate(str.maketrans("0123456789abcdef", "ghijklmnopabcdef"))
    return " ".join(digest[place : place + 8] for place in range(0, 64, 8))


# Rows nested deeper than any data format are cut here, before Python's own limit.
_DEEPEST = 12


def _collect(value: Any, part: Part, found: list[Segment], depth: int) -> None:
    match value:
        case str():
            if value.strip():
                found.append(Segment(part, value))
        case bool() | None:
            return
        case int() | float():
            if part is not Part.TEXT:
                found.append(Segment(part, str(value)))
        case Mapping() if depth < _DEEPEST:
            _collect_mapping(value, part, found, depth)
        case list() | tuple() if depth < _DEEPEST:
            if value and isinstance(value[0], (int, float)) and len(value) > 1:
                return  # Token ids or an embedding, not text.
            for inner in value:
                _collect(inner, part, found, depth + 1)


def _collect_mapping(value: Mapping[str, Any], part: Part, found: list[Segment], depth: int) -> None:
    role = value.get("role", value.get("from"))
    content = value.get("content", value.get("value"))
    if isinstance(role, str) and content is not None:
        answering = role.lower() in _ANSWERING_ROLES
        _collect(content, Part.ANSWER if answering else Part.PROMPT, found, depth + 1)
        return
    for key, inner in value.items():
        if str(key).lower() not in _NAMING_COLUMNS:
            _collect(inner, part, found, depth + 1)


def _jsonl_rows(file: Path) -> Iterator[dict[str, Any]]:
    number = 0
    try:
        with file.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _row(line, file, number)
    except UnicodeDecodeError:
        raise UserError(f"{file} is not UTF-8 text after line {number}. Save it as UTF-8.") from None
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.") from error


def _row(line: str, file: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise UserError(f"Line {number} of {file} is not JSON. Write one JSON object per line.") from None
    if not isinstance(row, dict):
        raise UserError(f"Line {number} of {file} is a JSON {type(row).__name__}. Write one JSON object per line.")
    return row


def _parquet_rows(file: Path, groups: range | None = None) -> Iterator[dict[str, Any]]:
    """Rows of all row groups, or of those in `groups`."""
    parquet = _pyarrow_parquet(file)
    try:
        with parquet.ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=1024, row_groups=None if groups is None else list(groups)):
                yield from batch.to_pylist()
    except (OSError, ValueError) as error:  # pyarrow's own errors derive from these two.
        raise UserError(f"{file} is not a readable Parquet file: {error}.") from error


def class_names(file: Path) -> dict[str, list[str]]:
    """Column -> names of its classes, as the `datasets` library writes them into Parquet; {} for another file."""
    if file.suffix != ".parquet":
        return {}
    try:
        metadata = _pyarrow_parquet(file).read_schema(file).metadata or {}
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        return {name: list(one["names"]) for name, one in features.items() if one.get("_type") == "ClassLabel"}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _row_groups(file: Path) -> int:
    try:
        with _pyarrow_parquet(file).ParquetFile(file) as table:
            return int(table.num_row_groups)
    except (OSError, ValueError) as error:
        raise UserError(f"{file} is not a readable Parquet file: {error}.") from error


def _pyarrow_parquet(file: Path) -> Any:
    try:
        return import_module("pyarrow.parquet")  # Only a job's environment is sure to have it.
    except ImportError:
        raise UserError(
            f"Reading {file} needs pyarrow, which is not installed here. "
            "Install it with `pip install pyarrow`, or convert the file to .jsonl."
        ) from None
