# /// script
# requires-python = ">=3.11"
# dependencies = []
# ///
"""Builds the training set: reads rows, keeps what can be trained on, and says what it did.

    python data/prepare.py --config recipe.yaml --inputs inputs --output data
    python data/prepare.py --config recipe.yaml            # by hand: reads the recipe's data_sources themselves

Keys of the recipe that it reads:

    data_sources             files or folders of rows, separated by commas (by hand; a job finds copies in --inputs,
                             what `hf:` and `https:` name among them)
    method                   what is trained, which decides the columns of a row (default sft)
    data_messages_column     column with whole conversations, or auto
    data_prompt_column       column with the question, or auto
    data_completion_column   column with the answer, or auto
    data_system_column       column with the system message, or auto, or none
    data_tools_column        column with the tools that an answer may call, or auto, or none (sft)
    data_chosen_column       column with the better of two answers, or auto (dpo, reward)
    data_rejected_column     column with the worse one, or auto
    data_text_column         column with a text, or auto (pretrain, classify; speech: what is said in a recording)
    data_label_column        column with a class, or auto (classify, vision)
    data_image_column        column with an image, or auto (vision)
    data_audio_column        column with a recording, or auto (speech)
    data_deduplicate         true drops every repetition of a row (default true)
    data_max_rows            at most so many rows, validation rows included (default: all)
    data_validation_rows     so many distinct prompts, at most a tenth of them, are set aside for eval_loss (default 0)
    seed                     decides the order of the rows (default 0)

Columns may hold text, or conversations in many forms (columns/turns.py); a conversation is split before its last
answer. A key names a column, a field of one, or a few ways to make a value from several: `instruction + input?`,
`answers.text[0]`, `pick(answer, choices)` (columns/expressions.py lists them). With `auto` names, types and values of
the columns decide, file by file where the files are not alike; where they leave two readings open, nothing is built and
the question is put, with the lines that would answer it.

Rows are written in TRL's conversational formats: prompt and completion; for dpo and reward prompt, chosen and rejected
(dpo takes prompt and completion where nothing is rejected). Others are plain: text for pretrain, text and label for
classify, image and label for vision, audio and text for speech. A class that is a number gets its name where the source
tells it: in a Parquet file that `datasets` wrote, or in a column beside it (label_text, label_name). Images are PNG or
JPEG and recordings WAV, in Parquet, as base64, or as the name of a file beside the rows; they are written as base64.

Written to --output: train.jsonl and validation.jsonl; provenance.jsonl, a line for each row of both with its source,
its place there (the line of a text file, the row of another one, from 1) and the mapping that made it; build.json,
which lists sources, mappings with the evidence for them, and how many rows were dropped for which reason, the first of
each named. The same files and recipe give the same bytes. Rows are streamed: some 150 bytes of each stay in memory.

Rows are read from .jsonl, .json (one list, or lines), .csv, .tsv (with a header) and .parquet files. Needed are the
folder columns/ beside this file, the standard library, and pyarrow for Parquet: `uv run --with pyarrow
data/prepare.py ...`.

Exit code 2 and one line on stderr: the recipe or the data must change.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import csv
import hashlib
import heapq
import json
import os
import random
import sys
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn

from columns import (
    BESIDE,
    LOOKED_AT,
    ROLES,
    ColumnMapping,
    as_turns,
    divided,
    is_absent,
    map_columns,
    text_of_value,
    value_of,
)

Json = dict[str, Any]

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
BEGINNINGS = {"image": (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"), "audio": (b"RIFF",)}
NAMING_SUFFIXES = ("_text", "_name", "_names", "_str")
"""A column `label_text` beside `label` holds the names of its classes."""
MOST_RECORDS = 2_000_000
NAMED_DROPS = 5
"""Rows of each reason to drop that are named."""
COLUMN_KEYS = (
    "messages", "prompt", "completion", "system", "tools", "chosen", "rejected", "text", "label", "image", "audio",
)  # fmt: skip
DEFAULTS = {
    "method": "sft",
    "data_sources": None,
    **{f"data_{role}_column": "auto" for role in COLUMN_KEYS},
    "data_deduplicate": True,
    "data_max_rows": None,
    "data_validation_rows": 0,
    "seed": 0,
}


def main() -> None:
    arguments = parse_arguments()
    recipe = read_recipe(arguments.config)
    files = source_files(arguments.inputs, recipe)
    build = Build(recipe, arguments.inputs)
    mappings = choose_columns(files, recipe, build)
    folder = Path(arguments.output)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as spool:
        build.read(files, mappings, spool)
        train, validation = build.chosen_rows()
        digest = build.write_rows(spool, folder / "train.jsonl", train)
        (folder / "validation.jsonl").unlink(missing_ok=True)
        if validation:
            build.write_rows(spool, folder / "validation.jsonl", validation)
    build.write_provenance(folder / "provenance.jsonl", {"train": train, "validation": validation})
    facts = build.facts(train, validation, digest, list(dict.fromkeys(mappings)))
    said = json.dumps(facts, indent=1, ensure_ascii=False) + "\n"
    (folder / "build.json").write_text(said, encoding="utf-8", errors="replace")
    dropped = dict(build.dropped) or "none"
    print(f"{len(train)} rows to train on, {len(validation)} to validate with; dropped: {dropped}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="the recipe (flat YAML)")
    parser.add_argument("--inputs", help="folder with copies of the sources (default: read data_sources)")
    parser.add_argument("--output", default="data", help="folder for train.jsonl, build.json and the rest")
    return parser.parse_args()


# --- The recipe -----------------------------------------------------------------------------------------------------


def read_recipe(path: str) -> Json:
    """The keys that belong here. A recipe has one `key: value` a line, so a YAML library is not needed to read it."""
    recipe: Json = dict(DEFAULTS)
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        fail(f"cannot read the recipe: {error}")
    for line in lines:
        key, colon, rest = line.partition(":")
        if not colon or key.strip() != key or key.startswith("#"):
            continue
        if key in recipe:
            recipe[key] = scalar(rest)
        elif key.startswith("data_"):
            fail(f"unknown key {key}; the keys for data are {', '.join(k for k in DEFAULTS if k.startswith('data_'))}")
    for key in ("data_max_rows", "data_validation_rows", "seed"):
        value = recipe[key]
        if value is None and DEFAULTS[key] is not None:
            recipe[key] = DEFAULTS[key]
        elif value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
            fail(f"{key} needs a whole number, not {value!r}")
    if recipe["data_max_rows"] == 0:
        fail("data_max_rows: 0 leaves nothing to train on; write a number above 0, or null for all rows")
    if recipe["method"] not in ROLES:
        fail(f"method: {recipe['method']} is not known; write one of {', '.join(ROLES)}")
    if not isinstance(recipe["data_deduplicate"], bool):
        fail(f"data_deduplicate needs true or false, not {recipe['data_deduplicate']!r}")
    return recipe


def scalar(text: str) -> object:
    """A YAML scalar: quotes and a trailing comment removed, then null, a truth value, a whole number, or text."""
    text = text.strip()
    if text[:1] in {'"', "'"}:
        end = text.find(text[0], 1)
        return text[1:end] if end > 0 else text
    text = text.split(" #")[0].strip() if not text.startswith("#") else ""
    if text.lower() in {"", "null", "~"}:
        return None
    if text.lower() in {"true", "yes", "on", "false", "no", "off"}:
        return text.lower() in {"true", "yes", "on"}
    try:
        return int(text)
    except ValueError:
        return text


# --- Reading --------------------------------------------------------------------------------------------------------


def source_files(inputs: str | None, recipe: Json) -> list[Path]:
    """Every file of rows, in a stable order."""
    named = [inputs] if inputs else [part.strip() for part in str(recipe["data_sources"] or "").split(",")]
    files: list[Path] = []
    for name in filter(None, named):
        path = Path(name)
        if path.is_dir():
            files += sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        elif path.is_file():
            files.append(path)
        else:
            far = name.startswith(("hf:", "https:"))
            instead = "download it and name its folder with --inputs" if far else "write a file of rows or a folder"
            fail(f"there is no {name} on this machine; {instead}")
    if not files:
        kinds = ", ".join(SUFFIXES)
        fail(f"no {kinds} file in {inputs}" if inputs else "data_sources is missing; write a JSONL file or a folder")
    return files


def with_file(value: object, folder: Path) -> object:
    """The bytes of an image or a recording that is named by its file; anything else as it is.

    Only files inside the folder of the rows: a data set has no business anywhere else.
    """
    suffixes = (".png", ".jpg", ".jpeg", ".wav")
    if not isinstance(value, str) or not value.lower().endswith(suffixes) or len(value) > 1000:
        return value
    path = (folder / value).resolve()
    return path.read_bytes() if path.is_relative_to(folder.resolve()) and path.is_file() else value


def records_of(path: Path, dropped: Counter[str], classes: dict[str, list[str]]) -> Iterator[tuple[int, object]]:
    """(place, what stands there) of each row of the file: its line in a text file, else its number, from 1. Lines that
    cannot be read are counted."""
    kind = path.suffix.lower()
    if kind == ".parquet":
        yield from enumerate(parquet_rows(path, classes), start=1)
    elif kind in {".csv", ".tsv"}:
        yield from enumerate(table_rows(path, "\t" if kind == ".tsv" else ",", dropped), start=1)
    elif kind == ".json":
        text = path.read_bytes().decode("utf-8", errors="replace").lstrip("\ufeff")
        try:
            whole = json.loads(text)
        except (ValueError, RecursionError):
            whole = None  # lines of JSON under the shorter name, as many data sets have them
        if whole is not None:
            named = [
                whole[name]
                for name in ("data", "rows", "examples", "train")
                if isinstance(whole, dict) and name in whole
            ]
            rows = named[0] if named else whole
            yield from enumerate(rows if isinstance(rows, list) else [rows], start=1)
        else:
            yield from json_lines(path, dropped)
    else:
        yield from json_lines(path, dropped)


def json_lines(path: Path, dropped: Counter[str]) -> Iterator[tuple[int, object]]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            text = line.decode("utf-8", errors="replace").lstrip("\ufeff")
            if not text.strip():
                continue
            try:
                yield number, json.loads(text)
            except (ValueError, RecursionError):
                dropped["not JSON"] += 1


def table_rows(path: Path, separator: str, dropped: Counter[str]) -> Iterator[object]:
    csv.field_size_limit(2**27)
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as table:
        try:
            for row in csv.DictReader(table, delimiter=separator, strict=True):
                if None in row or None in row.values():
                    dropped["not as many cells as the header"] += 1
                else:
                    yield row
        except csv.Error:
            dropped["not readable as a table"] += 1


def parquet_rows(path: Path, classes: dict[str, list[str]]) -> Iterator[object]:
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # its own pool keeps 50 MiB more of what was read
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        fail(f"reading {path} needs pyarrow: run `uv run --with pyarrow data/prepare.py ...`, or convert it to JSONL")
    try:
        with parquet.ParquetFile(path) as file:
            classes |= class_names((file.schema_arrow.metadata or {}).get(b"huggingface"))
            for batch in file.iter_batches(batch_size=256):
                yield from batch.to_pylist()
    except (ArrowException, OSError, ValueError) as error:
        fail(f"{path} is not a readable Parquet file: {' '.join(str(error).split())[:200]}")


def class_names(metadata: bytes | None) -> dict[str, list[str]]:
    """Column -> names of its classes, as the `datasets` library writes them into a Parquet file."""
    try:
        features = json.loads(metadata or b"{}")["info"]["features"]
        return {name: list(one["names"]) for name, one in features.items() if one.get("_type") == "ClassLabel"}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- Columns --------------------------------------------------------------------------------------------------------


class Reading(NamedTuple):
    """How the rows of a file become rows of the method."""

    mapping: ColumnMapping
    beside: str
    """Column with the names of the classes; "" when there is none."""
    names: tuple[str, ...]
    """Of the classes, in the order of their numbers, where a Parquet file tells them."""


def choose_columns(files: list[Path], recipe: Json, build: Build) -> list[Reading]:
    """One reading for each file; files with the same columns share one, and all do where the recipe names a column."""
    named = {role: str(recipe[f"data_{role}_column"]) for role in COLUMN_KEYS
             if recipe[f"data_{role}_column"] not in (None, "auto", "none")}  # fmt: skip
    classes: list[dict[str, list[str]]] = [{} for _ in files]
    samples = [sample_of(path, known) for path, known in zip(files, classes, strict=True)]
    if not any(samples):
        fail(f"{', '.join(map(str, files))} holds no JSON object; every line must be one, such as "
             '{"prompt": "...", "completion": "..."}')  # fmt: skip
    groups: dict[object, list[int]] = {}
    for at, rows in enumerate(samples):
        alike = None if named or not rows else frozenset(name for row in rows for name in row)
        groups.setdefault(alike, []).append(at)
    readings: dict[int, Reading] = {}
    for members in groups.values():
        each = max(1, LOOKED_AT // len(members))
        rows = [row for at in members for row in samples[at][:each]]
        known = {name: names for at in members for name, names in classes[at].items()}
        readings |= dict.fromkeys(members, reading_of(rows, recipe, named, known, [files[at] for at in members]))
    return [readings[at] for at in range(len(files))]


def sample_of(path: Path, classes: dict[str, list[str]]) -> list[Json]:
    """The first rows of a file."""
    rows: list[Json] = []
    for _, record in records_of(path, Counter(), classes):
        if isinstance(record, dict):
            rows.append({key: with_file(value, path.parent) for key, value in record.items()})
        if len(rows) >= LOOKED_AT:
            break
    return rows


def reading_of(
    rows: list[Json], recipe: Json, named: dict[str, str], classes: dict[str, list[str]], files: list[Path]
) -> Reading:
    features = {name: {"_type": "ClassLabel", "names": names} for name, names in classes.items()}
    if not rows:
        return Reading(ColumnMapping(recipe["method"]), "", ())
    mapping = map_columns(rows, recipe["method"], features, named)
    if mapping.question is not None:
        question = mapping.question.sentence()
        known = "which column to use" in question or "not a column of the data" in question
        fail(question if known else f"cannot tell which column to use: {question}")
    unwanted = {role for role in ("system", "tools") if recipe[f"data_{role}_column"] == "none"}
    if recipe["method"] != "sft":
        unwanted.add("tools")  # only its script passes them on
    mapping = replace(mapping, uses=tuple(use for use in mapping.uses if use.role not in unwanted))
    label = mapping.expressions.get("label", "")
    beside = next((label + end for end in NAMING_SUFFIXES if label and any(label + end in row for row in rows)), "")
    return Reading(mapping, beside, tuple(classes.get(label, ())))


def described(reading: Reading) -> Json:
    """{part of a row: expression, ..., "evidence": one sentence, "method", "notes"}."""
    mapping = reading.mapping
    said: Json = dict(mapping.expressions)
    if reading.beside or reading.names:
        said["classes"] = f"named in {reading.beside}" if reading.beside else (
            f"{len(reading.names)} names in the Parquet file"
        )  # fmt: skip
    evidence = "; ".join(f"{use.role}: {use.evidence}" for use in mapping.uses)
    return said | {"evidence": f"in the first {mapping.rows} rows: {evidence}"}


# --- Rows -----------------------------------------------------------------------------------------------------------


NO_ANSWER = {
    "higher": "neither answer is better", "lower": "neither answer is better", "by": "neither answer is better",
    "best": "no answer is better", "worst": "no answer is better", "pick": "names none of the choices",
    "pick1": "names none of the choices", "final": "no final answer",
}  # fmt: skip
"""Function -> why a row without its value is dropped."""


def row_of(record: Json, reading: Reading) -> Json | str:
    """The record with the columns that the method trains on, or why it is dropped."""
    said = reading.mapping.expressions
    if "messages" in said:
        return split_conversation(record, said)
    if "chosen" in said:
        good, bad = (value_of(bare(said[role]), record) for role in ("chosen", "rejected"))
        if good == bad and not is_absent(good):
            return "chosen equals rejected"
    row: Json = {}
    for role, expression in said.items():
        if role in BESIDE:
            continue
        value = value_of(expression, record)
        if role == "label":
            value = class_name(value, record, reading)
        row[role] = part_of(role, value)
        if row[role] is None:
            media = role in BEGINNINGS and not is_absent(value)
            no_media = "no PNG or JPEG in image" if role == "image" else "no WAV in audio"
            function = expression.partition("(")[0] if "(" in expression else ""
            return no_media if media else NO_ANSWER.get(function, f"empty {role}")
    return with_beside(row, record, said)


def bare(expression: str) -> str:
    """The column that `rest(...)` takes its turns from."""
    return divided(expression[5:-1], ",")[0] if expression.startswith("rest(") else expression


def part_of(role: str, value: object) -> object:
    if role in BEGINNINGS:
        return as_base64(value, role)
    if role in ("text", "label"):
        return text_of_value(value)
    return as_messages(value, "user" if role == "prompt" else "assistant")


def split_conversation(record: Json, said: dict[str, str]) -> Json | str:
    """A conversation before its last answer, and that answer."""
    turns = as_messages(value_of(said["messages"], record), "user")
    answers = [index for index, turn in enumerate(turns or []) if turn["role"] == "assistant"]
    if not turns or not answers or answers[-1] == 0:
        return "messages without an answer"
    row: Json = {"prompt": turns[: answers[-1]], "completion": turns[answers[-1] : answers[-1] + 1]}
    return with_beside(row, record, said)


def with_beside(row: Json, record: Json, said: dict[str, str]) -> Json:
    """The row with its system message, unless it has one, and its tools as a text of JSON."""
    system = text_of_value(value_of(said["system"], record)) if "system" in said else None
    if system is not None and row["prompt"][0]["role"] != "system":
        row["prompt"] = [{"role": "system", "content": system}, *row["prompt"]]
    tools = value_of(said["tools"], record) if "tools" in said else None
    if not is_absent(tools) and tools != "[]":
        row["tools"] = tools if isinstance(tools, str) else json.dumps(tools, ensure_ascii=False)
    return row


def class_name(value: object, record: Json, reading: Reading) -> object:
    """The name of a class in place of its number, where the data tells it."""
    name = record.get(reading.beside) if reading.beside else None
    if name is not None:
        return name
    if isinstance(value, int) and not isinstance(value, bool) and reading.names:
        return (
            reading.names[value] if 0 <= value < len(reading.names) else None
        )  # -1 is how test sets hide their classes
    return value


def as_base64(value: object, column: str) -> str | None:
    """An image or a recording as base64; None when it is absent or in a format that the scripts do not read."""
    if isinstance(value, dict):
        value = value.get("bytes")
    if isinstance(value, str):
        try:
            value = base64.b64decode(value.partition("base64,")[2] or value, validate=True)
        except (binascii.Error, ValueError):
            return None
    if not isinstance(value, bytes) or not value.startswith(BEGINNINGS[column]):
        return None
    if column == "audio" and value[8:12] != b"WAVE":
        return None
    return base64.b64encode(value).decode()


def as_messages(value: object, role: str) -> list[Json] | None:
    """`value` as chat messages; None when it is absent, empty or not text."""
    if isinstance(value, list | dict):
        turns = as_turns([{"role": role, "content": one} for one in value] if is_texts(value) else value)
        said = turns and any(turn["content"].strip() or turn.get("tool_calls") for turn in turns)
        if turns and said:
            return turns
        return None if turns else as_messages(json.dumps(value, ensure_ascii=False) if value else None, role)
    text = text_of_value(value)
    return [{"role": role, "content": text}] if text is not None else None


def is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def key_of(row: Json) -> str:
    """Equal for rows that would train the same thing; white space around a text does not make it another one."""
    return json.dumps([
        [[turn["role"], turn["content"].strip()] for turn in value] if isinstance(value, list) else value.strip()
        for value in row.values()
    ])  # fmt: skip


def asked(row: Json) -> str:
    """What the row starts from: a prompt, a text, an image or a recording."""
    return json.dumps(next(iter(row.values())))


def short_hash(text: str) -> int:
    """The first eight bytes of the SHA-256."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


# --- The build ------------------------------------------------------------------------------------------------------


class Build:
    """What is known of the rows while they lie in a file: a few numbers of each, never the rows themselves."""

    def __init__(self, recipe: Json, inputs: str | None) -> None:
        self.recipe, self.inputs = recipe, inputs
        self.dropped: Counter[str] = Counter()
        self.first_dropped: dict[str, list[Json]] = {}
        self.sources: list[Json] = []
        self.labels: dict[int, str] = {}
        self.repeated = 0
        self.begins, self.asked = array("Q"), array("Q")
        """Of each kept row: where it begins in the file, what it asks as the hash that orders validation prompts."""
        self.files, self.places, self.maps, self.classes = array("L"), array("Q"), array("L"), array("q")

    def read(self, files: list[Path], readings: list[Reading], spool: IO[bytes]) -> None:
        """Writes every row that is kept to `spool`, in the order of the files."""
        seen: set[int] = set()
        kinds = list(dict.fromkeys(readings))
        labels: dict[str, int] = {}
        for at, (path, reading) in enumerate(zip(files, readings, strict=True)):
            rows = 0
            for place, record in records_of(path, self.dropped, {}):
                if not isinstance(record, dict):
                    self.drop("not an object", at, place)
                    continue
                rows += 1
                if sum(each["rows"] for each in self.sources) + rows > MOST_RECORDS:  # Parquet can claim any number
                    fail(f"more than {MOST_RECORDS:,} rows; name fewer files in data_sources")
                row = row_of({key: with_file(value, path.parent) for key, value in record.items()}, reading)
                if isinstance(row, str):
                    self.drop(row, at, place)
                    continue
                key = short_hash(key_of(row))
                self.repeated += key in seen
                if key in seen and self.recipe["data_deduplicate"]:
                    self.drop("duplicate", at, place)
                    continue
                seen.add(key)
                self.keep(row, spool, (at, place, kinds.index(reading)), labels)
            self.sources.append({"path": self.name_of(path), **self.origin_of(path), "rows": rows,
                                 "sha256": digest_of(path)})  # fmt: skip
        self.labels = {number: label for label, number in labels.items()}
        if not self.begins:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.dropped.items())
            said = " and ".join(dict.fromkeys(one for kind in kinds for one in kind.mapping.expressions.values()))
            total = sum(each["rows"] for each in self.sources)
            fail(f"no row is left of {total} with the columns {said}: dropped {reasons}")
        self.begins.append(spool.tell())
        if self.recipe["data_deduplicate"]:
            self.dropped["duplicate"] += 0

    def keep(self, row: Json, spool: IO[bytes], origin: tuple[int, int, int], labels: dict[str, int]) -> None:
        self.begins.append(spool.tell())
        self.asked.append(short_hash(f"validation {asked(row)}"))
        self.files.append(origin[0])
        self.places.append(origin[1])
        self.maps.append(origin[2])
        self.classes.append(labels.setdefault(row["label"], len(labels)) if "label" in row else -1)
        spool.write((json.dumps(row, ensure_ascii=False) + "\n").encode(errors="replace"))

    def drop(self, reason: str, file: int, place: int) -> None:
        self.dropped[reason] += 1
        named = self.first_dropped.setdefault(reason, [])
        if len(named) < NAMED_DROPS:
            named.append({"source": file, "row": place})

    def chosen_rows(self) -> tuple[list[int], list[int]]:
        """(train, validation) as numbers of kept rows: no prompt is on both sides, each validation prompt once."""
        rows = list(range(len(self.asked)))
        if self.recipe["method"] != "pretrain":  # its rows may be the lines of one article, which belong together
            random.Random(f"prepare/{self.recipe['seed']}").shuffle(rows)
        limit = self.recipe["data_max_rows"]
        if limit is not None and len(rows) > limit:
            self.dropped["over data_max_rows"] += len(rows) - limit
            rows = rows[:limit]
        prompts = {self.asked[row] for row in rows}
        # A tenth at most: in a file of few distinct prompts a fixed number would take what there is to learn from. By
        # hash, not by the order of rows: there the first ones are those that are repeated most.
        aside = set(heapq.nsmallest(min(self.recipe["data_validation_rows"], len(prompts) // 10), prompts))
        train = [row for row in rows if self.asked[row] not in aside]
        last = {self.asked[row]: row for row in rows if self.asked[row] in aside}
        if repeated := len(rows) - len(train) - len(last):
            self.dropped["repeats a validation prompt"] += repeated
        return train, list(last.values())

    def write_rows(self, spool: IO[bytes], path: Path, rows: list[int]) -> str:
        """Writes the rows and returns the file's SHA-256."""
        digest = hashlib.sha256()
        with path.open("wb") as file:
            for row in rows:
                spool.seek(self.begins[row])
                line = spool.read(self.begins[row + 1] - self.begins[row])
                digest.update(line)
                file.write(line)
        return digest.hexdigest()

    def write_provenance(self, path: Path, splits: dict[str, list[int]]) -> None:
        """One line for each written row, in the order of train.jsonl and then validation.jsonl: the number of its
        source in build.json, its place there, the number of the mapping that made it."""
        with path.open("w", encoding="utf-8") as file:
            for split, rows in splits.items():
                for at, row in enumerate(rows):
                    line = {"split": split, "row": at, "source": self.files[row], "source_row": self.places[row],
                            "mapping": self.maps[row]}  # fmt: skip
                    file.write(json.dumps(line) + "\n")

    def name_of(self, path: Path) -> str:
        whole = self.inputs and Path(self.inputs).is_dir()
        return path.relative_to(str(self.inputs)).as_posix() if whole else path.as_posix()

    def origin_of(self, path: Path) -> Json:
        """{"source": the line of data_sources with its commit or digest} of a file that was fetched from elsewhere."""
        parts = self.name_of(path).split("/")
        for line in filter(None, (part.strip() for part in str(self.recipe["data_sources"] or "").split(","))):
            repo = line.removeprefix("hf:").partition("@")[0].split("/")[:2]
            if line.startswith("hf:") and parts[:1] == ["hf"] and parts[1:3] == repo:
                return {"source": line}
            if line.startswith("https:") and parts[:1] == ["https"] and parts[1] in line:
                return {"source": line}
        return {}

    def facts(self, train: list[int], validation: list[int], digest: str, readings: list[Reading]) -> Json:
        columns = [described(reading) for reading in readings if reading.mapping.uses]
        found: Json = {
            "sources": self.sources,
            "rows": len(train),
            "validation_rows": len(validation),
            "dropped": dict(self.dropped),
            "first_dropped": self.first_dropped,
            "repeated_rows": self.repeated,
            "distinct_prompts": len({self.asked[row] for row in train}),
            "columns": columns[0],
            "mappings": [reading.mapping.as_dict() for reading in readings],
            "sha256": digest,
        }
        if self.labels:
            counts = Counter(self.labels[self.classes[row]] for row in train)
            found["labels"] = dict(counts.most_common())
        return found


def fail(message: str) -> NoReturn:
    """The person's words or data are wrong: one line that says what to write instead."""
    print(f"prepare.py: {message}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
