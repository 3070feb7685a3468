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
    data_prompt_column       column with the question, or auto
    data_completion_column   column with the answer, or auto
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

Columns may hold text, or chat messages as {"role", "content"}; a `messages` column is split before its last assistant
turn. Rows are written in TRL's conversational formats: prompt and completion; for dpo and reward prompt, chosen and
rejected (dpo takes prompt and completion where nothing is rejected). Others are plain: text for pretrain, text and
label for classify, image and label for vision, audio and text for speech. A class that is a number gets its name where
the source tells it: in a Parquet file that `datasets` wrote, or in a column beside it (label_text, label_name). Images
are PNG or JPEG and recordings WAV, in Parquet, as base64, or as the name of a file beside the rows; they are written as
base64. build.json lists sources, columns with the evidence for them, and how many rows were dropped for which reason.

Rows are read from .jsonl, .json (one list, or lines), .csv, .tsv (with a header) and .parquet files. Only the standard
library is needed, and pyarrow for Parquet: `uv run --with pyarrow data/prepare.py ...`.

Exit code 2 and one line on stderr: the recipe or the data must change.
"""

import argparse
import base64
import binascii
import csv
import hashlib
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

Json = dict[str, Any]

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
MESSAGES = "messages"
# Names that public instruction sets use, the more specific first.
PROMPT_NAMES = ("prompt", "instruction", "question", "query", "input", "problem", "user", "request", "source")
COMPLETION_NAMES = (
    "completion", "response", "answer", "output", "solution", "assistant", "chosen", "reply", "target", "label",
)  # fmt: skip
CHOSEN_NAMES = ("chosen", "preferred", "accepted", "chosen_response", "response_chosen")
REJECTED_NAMES = ("rejected", "dispreferred", "rejected_response", "response_rejected")
TEXT_NAMES = ("text", "content", "document", "sentence", "article", "body", "review")
LABEL_NAMES = ("label", "labels", "class", "category", "fine_label", "sentiment", "intent", "target")
IMAGE_NAMES = ("image", "img", "picture", "photo", "file_name")
AUDIO_NAMES = ("audio", "speech", "recording", "file_name")
TRANSCRIPT_NAMES = ("text", "sentence", "transcription", "transcript", "normalized_text")
NAMES = {
    "prompt": PROMPT_NAMES, "completion": COMPLETION_NAMES, "chosen": CHOSEN_NAMES, "rejected": REJECTED_NAMES,
    "text": TEXT_NAMES, "label": LABEL_NAMES, "image": IMAGE_NAMES, "audio": AUDIO_NAMES,
}  # fmt: skip
PAIR = ("prompt", "completion")
COLUMNS = {
    "sft": PAIR, "distill": PAIR, "rft": PAIR, "synthetic": PAIR, "grpo": PAIR,
    "dpo": ("prompt", "chosen", "rejected"), "reward": ("prompt", "chosen", "rejected"), "pretrain": ("text",),
    "classify": ("text", "label"), "vision": ("image", "label"), "speech": ("audio", "text"),
}  # fmt: skip
"""Method -> columns of its rows; the first one is what no validation row shares with a training row."""
BEGINNINGS = {"image": (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"), "audio": (b"RIFF",)}
NAMING_SUFFIXES = ("_text", "_name", "_names", "_str")
"""A column `label_text` beside `label` holds the names of its classes."""
MOST_RECORDS = 2_000_000
LOOKED_AT = 200
"""Rows that automatic detection looks at."""
DEFAULTS = {
    "method": "sft",
    "data_sources": None,
    "data_prompt_column": "auto",
    "data_completion_column": "auto",
    "data_chosen_column": "auto",
    "data_rejected_column": "auto",
    "data_text_column": "auto",
    "data_label_column": "auto",
    "data_image_column": "auto",
    "data_audio_column": "auto",
    "data_deduplicate": True,
    "data_max_rows": None,
    "data_validation_rows": 0,
    "seed": 0,
}


def main() -> None:
    arguments = parse_arguments()
    recipe = read_recipe(arguments.config)
    files = source_files(arguments.inputs, recipe)
    dropped: Counter[str] = Counter()
    classes: dict[str, list[str]] = {}
    records, sources = read_sources(files, arguments.inputs, dropped, classes)
    columns = choose_columns(records, recipe)
    if "label" in columns:
        records = named_classes(records, columns, classes)
    rows = [row for row in (as_row(record, columns, dropped) for record in records) if row]
    if not rows:
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
        fail(f"no row is left of {len(records)} with the columns {describe(columns)}: dropped {reasons}")
    repeated = len(rows) - len({key_of(row) for row in rows})
    if recipe["data_deduplicate"]:
        rows = list({key_of(row): row for row in reversed(rows)}.values())[::-1]  # the first of each stays
        dropped["duplicate"] += repeated
    if recipe["method"] != "pretrain":  # its rows may be the lines of one article, which belong together
        random.Random(f"prepare/{recipe['seed']}").shuffle(rows)
    limit = recipe["data_max_rows"]
    if limit is not None and len(rows) > limit:
        dropped["over data_max_rows"] += len(rows) - limit
        rows = rows[:limit]
    train, validation = split_off(rows, recipe["data_validation_rows"], dropped)
    folder = Path(arguments.output)
    folder.mkdir(parents=True, exist_ok=True)
    digest = write_rows(folder / "train.jsonl", train)
    (folder / "validation.jsonl").unlink(missing_ok=True)
    if validation:
        write_rows(folder / "validation.jsonl", validation)
    build = {
        "sources": sources,
        "rows": len(train),
        "validation_rows": len(validation),
        "dropped": dict(dropped),
        "repeated_rows": repeated,
        "distinct_prompts": len({asked(row) for row in train}),
        "columns": columns,
        "sha256": digest,
    }
    if "label" in columns:
        build["labels"] = dict(Counter(row["label"] for row in train).most_common())
    (folder / "build.json").write_text(json.dumps(build, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{len(train)} rows to train on, {len(validation)} to validate with; dropped: {dict(dropped) or 'none'}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="the recipe (flat YAML)")
    parser.add_argument("--inputs", help="folder with copies of the sources (default: read data_sources)")
    parser.add_argument("--output", default="data", help="folder for train.jsonl, validation.jsonl and build.json")
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
    if recipe["method"] not in COLUMNS:
        fail(f"method: {recipe['method']} is not known; write one of {', '.join(COLUMNS)}")
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


def read_sources(
    files: list[Path], inputs: str | None, dropped: Counter[str], classes: dict[str, list[str]]
) -> tuple[list[Json], list[Json]]:
    """(records, what was read). Lines that are no JSON object are dropped and counted, unless nothing else is there.

    `classes` gets the names of a column's classes where a file tells them.
    """
    records: list[Json] = []
    sources = []
    for path in files:
        before = len(records)
        for record in records_of(path, dropped, classes):
            if isinstance(record, dict):
                records.append({key: with_file(value, path.parent) for key, value in record.items()})
                if len(records) > MOST_RECORDS:  # a few kilobytes of Parquet can claim any number
                    fail(f"more than {MOST_RECORDS:,} rows; name fewer files in data_sources")
            else:
                dropped["not an object"] += 1
        name = path.relative_to(inputs).as_posix() if inputs and Path(inputs).is_dir() else path.as_posix()
        sources.append({"path": name, "rows": len(records) - before, "sha256": digest_of(path)})
    if not records:
        fail(f"{', '.join(map(str, files))} holds no JSON object; every line must be one, such as "
             '{"prompt": "...", "completion": "..."}')  # fmt: skip
    return records, sources


def with_file(value: object, folder: Path) -> object:
    """The bytes of an image or a recording that is named by its file; anything else as it is.

    Only files inside the folder of the rows: a data set has no business anywhere else.
    """
    suffixes = (".png", ".jpg", ".jpeg", ".wav")
    if not isinstance(value, str) or not value.lower().endswith(suffixes) or len(value) > 1000:
        return value
    path = (folder / value).resolve()
    return path.read_bytes() if path.is_relative_to(folder.resolve()) and path.is_file() else value


def records_of(path: Path, dropped: Counter[str], classes: dict[str, list[str]]) -> Iterator[object]:
    """What the file holds, row by row; lines that cannot be read are counted."""
    kind = path.suffix.lower()
    if kind == ".parquet":
        yield from parquet_rows(path, classes)
        return
    text = path.read_bytes().decode("utf-8", errors="replace").lstrip("\ufeff")
    if kind in {".csv", ".tsv"}:
        yield from table_rows(text, "\t" if kind == ".tsv" else ",", dropped)
        return
    if kind == ".json":
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
            yield from rows if isinstance(rows, list) else [rows]
            return
    for line in filter(str.strip, text.split("\n")):
        try:
            yield json.loads(line)
        except (ValueError, RecursionError):
            dropped["not JSON"] += 1


def table_rows(text: str, separator: str, dropped: Counter[str]) -> Iterator[object]:
    csv.field_size_limit(2**27)
    try:
        for row in csv.DictReader(text.splitlines(keepends=True), delimiter=separator, strict=True):
            if None in row or None in row.values():
                dropped["not as many cells as the header"] += 1
            else:
                yield row
    except csv.Error:
        dropped["not readable as a table"] += 1


def parquet_rows(path: Path, classes: dict[str, list[str]]) -> Iterator[object]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        fail(f"reading {path} needs pyarrow: run `uv run --with pyarrow data/prepare.py ...`, or convert it to JSONL")
    try:
        with parquet.ParquetFile(path) as file:
            classes |= class_names((file.schema_arrow.metadata or {}).get(b"huggingface"))
            for batch in file.iter_batches(batch_size=1024):
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


def choose_columns(records: list[Json], recipe: Json) -> Json:
    """{column of a row: column of the data, ..., "evidence"}, or {"messages", "evidence"}."""
    looked = records[:LOOKED_AT]
    seen = Counter(column for record in looked for column in record)
    wanted = COLUMNS[recipe["method"]]
    named = {column: recipe[f"data_{column}_column"] or "auto" for column in wanted}
    names = ", ".join(seen)
    for column, name in named.items():
        if name != "auto" and not any(name in record for record in records):
            fail(f"data_{column}_column: {name} is not a column of the data; the columns are {names}")
    found = {column: name if name != "auto" else guess(column, recipe, seen, named) for column, name in named.items()}
    if recipe["method"] == "dpo" and found["rejected"] is None:
        return choose_columns(records, recipe | {"method": "sft"})  # the script samples what is rejected
    if wanted == PAIR and MESSAGES in seen and set(named.values()) == {"auto"}:
        return {MESSAGES: MESSAGES, "evidence": f"{seen[MESSAGES]} of the first {len(looked)} rows have it"}
    whole = [starts_with_a_question(one, found) for one in looked if one.get(str(found.get("chosen")))]
    if found.get("prompt", "") is None and whole and all(whole):
        found["prompt"] = found["chosen"]  # both answers are whole conversations, which begin with it
    missing = [f"data_{column}_column" for column, name in found.items() if name is None]
    if missing:
        fail(f"cannot tell which column to use; the columns are {names}: name one of them in {' and '.join(missing)}")
    if "auto" not in named.values():
        return found | {"evidence": "named in the recipe"}
    filled = sum(all(is_filled(record.get(name)) for name in found.values()) for record in looked)
    all_of_them = {1: "it is", 2: "both are"}.get(len(wanted), "all are")
    columns = found | {"evidence": f"found by name; {all_of_them} filled in {filled} of the first {len(looked)} rows"}
    alpaca = found.get("prompt") == "instruction" and "input" not in found.values()
    if alpaca and any(record.get("input") for record in looked):
        columns["input"] = "input"  # Alpaca's format: the input belongs to the instruction
    return columns


def guess(column: str, recipe: Json, seen: Counter[str], named: dict[str, str]) -> str | None:
    """The column of the data that its name says is this one."""
    names = TRANSCRIPT_NAMES if (recipe["method"], column) == ("speech", "text") else NAMES[column]
    return first_of(names, seen, besides={name for name in named.values() if name != "auto"})


def is_filled(value: object) -> bool:
    return value == 0 or bool(value)  # the class 0 is one


def starts_with_a_question(record: Json, found: Json) -> bool:
    turns = [as_messages(record.get(str(found[column])), "assistant") or [] for column in ("chosen", "rejected")]
    return all(len(one) > 1 and one[0]["role"] != "assistant" for one in turns)


def first_of(names: tuple[str, ...], seen: Counter[str], besides: set[str]) -> str | None:
    """The first of `names` among the columns, in any letter case."""
    by_name = {column.lower(): column for column in seen if column not in besides}
    return next((by_name[name] for name in names if name in by_name), None)


def describe(columns: Json) -> str:
    return " and ".join(str(name) for key, name in columns.items() if key in NAMES or key == MESSAGES)


def named_classes(records: list[Json], columns: Json, classes: dict[str, list[str]]) -> list[Json]:
    """The records with the names of their classes in place of numbers, where the data tells them."""
    column = columns["label"]
    beside = next((column + suffix for suffix in NAMING_SUFFIXES if any(column + suffix in one for one in records)), "")
    names = classes.get(column, [])
    if not beside and not names:
        return records
    columns["classes"] = f"named in {beside}" if beside else f"{len(names)} names in the Parquet file"
    found = []
    for record in records:
        value = record.get(column)
        name = record.get(beside) if beside else None
        if name is None and isinstance(value, int) and names:
            name = names[value] if 0 <= value < len(names) else None  # -1 is how test sets hide their classes
        elif name is None:
            name = value
        found.append(record | {column: name})
    return found


# --- Rows -----------------------------------------------------------------------------------------------------------


def as_row(record: Json, columns: Json, dropped: Counter[str]) -> Json | None:
    """The record with the columns that the method trains on, or None with the reason counted."""
    if MESSAGES in columns:
        turns = as_messages(record.get(MESSAGES), "user")
        answers = [index for index, turn in enumerate(turns or []) if turn["role"] == "assistant"]
        if not turns or not answers or answers[-1] == 0:
            dropped["messages without an answer"] += 1
            return None
        return {"prompt": turns[: answers[-1]], "completion": turns[answers[-1] : answers[-1] + 1]}
    row: Json = {}
    for column, name in columns.items():
        if column not in NAMES:
            continue
        value = record.get(name)
        if column in BEGINNINGS:
            row[column] = as_base64(value, column)
        elif column in ("text", "label"):
            row[column] = as_text(value)
        elif column in ("chosen", "rejected"):
            turns = as_messages(value, "assistant")
            row[column] = turns and turns[-1:]
        elif name == columns.get("chosen"):
            row[column] = (as_messages(value, "user") or [])[:-1] or None
        else:
            row[column] = as_messages(value, "user" if column == "prompt" else "assistant")
        if row[column] is None:
            no_media = "no PNG or JPEG in image" if column == "image" else "no WAV in audio"
            dropped[no_media if column in BEGINNINGS and is_filled(value) else f"empty {column}"] += 1
            return None
    extra = record.get(columns.get("input", ""))
    if isinstance(extra, str) and extra.strip():
        row["prompt"][-1]["content"] += f"\n\n{extra}"
    if "chosen" in row and row["chosen"] == row["rejected"]:
        dropped["chosen equals rejected"] += 1
        return None
    return row


def as_text(value: object) -> str | None:
    """A text or a class; None when it is absent or empty."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int | float):
        return str(value)
    return value if isinstance(value, str) and value.strip() else None


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
    if isinstance(value, list):
        turns = [
            {"role": str(turn["role"]), "content": turn["content"]}
            for turn in value
            if isinstance(turn, dict) and turn.get("role") and isinstance(turn.get("content"), str)
        ]
        complete = len(turns) == len(value) and any(turn["content"].strip() for turn in turns)
        return turns if complete else None
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    return [{"role": role, "content": value}] if isinstance(value, str) and value.strip() else None


def key_of(row: Json) -> str:
    """Equal for rows that would train the same thing; white space around a text does not make it another one."""
    return json.dumps([
        [[turn["role"], turn["content"].strip()] for turn in value] if isinstance(value, list) else value.strip()
        for value in row.values()
    ])  # fmt: skip


def asked(row: Json) -> str:
    """What the row starts from: a prompt, a text, an image or a recording."""
    return json.dumps(next(iter(row.values())))


def split_off(rows: list[Json], wanted: int, dropped: Counter[str]) -> tuple[list[Json], list[Json]]:
    """(train, validation): no prompt is on both sides, and each validation prompt is there once."""
    prompts = sorted({asked(row) for row in rows}, key=lambda prompt: hash_of(f"validation {prompt}"))
    # A tenth at most: in a file of few distinct prompts a fixed number would take what there is to learn from. By hash,
    # not by the order of rows: there the first ones are those that are repeated most.
    aside = set(prompts[: min(wanted, len(prompts) // 10)])
    train = [row for row in rows if asked(row) not in aside]
    validation = list({asked(row): row for row in rows if asked(row) in aside}.values())
    if repeated := len(rows) - len(train) - len(validation):
        dropped["repeats a validation prompt"] += repeated
    return train, validation


def hash_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def write_rows(path: Path, rows: list[Json]) -> str:
    """Writes `rows` and returns the file's SHA-256."""
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def fail(message: str) -> NoReturn:
    """The person's words or data are wrong: one line that says what to write instead."""
    print(f"prepare.py: {message}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
