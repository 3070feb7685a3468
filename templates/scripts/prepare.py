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
    data_prompt_column       column with the question, or auto
    data_completion_column   column with the answer, or auto
    data_deduplicate         true drops every repetition of a row (default true)
    data_max_rows            at most so many rows, validation rows included (default: all)
    data_validation_rows     so many distinct prompts, at most a tenth of them, are set aside for eval_loss (default 0)
    seed                     decides the order of the rows (default 0)

Columns may hold text, or chat messages as {"role", "content"}; a `messages` column is split before its last assistant
turn. Rows are written in TRL's conversational prompt-completion format. build.json lists sources, columns with the
evidence for them, and how many rows were dropped for which reason.

Rows are read from .jsonl, .json (one list, or lines), .csv, .tsv (with a header) and .parquet files. Only the standard
library is needed, and pyarrow for Parquet: `uv run --with pyarrow data/prepare.py ...`.

Exit code 2 and one line on stderr: the recipe or the data must change.
"""

import argparse
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
MOST_RECORDS = 2_000_000
LOOKED_AT = 200
"""Rows that automatic detection looks at."""
DEFAULTS = {
    "data_sources": None,
    "data_prompt_column": "auto",
    "data_completion_column": "auto",
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
    records, sources = read_sources(files, arguments.inputs, dropped)
    columns = choose_columns(records, recipe)
    rows = [row for row in (as_row(record, columns, dropped) for record in records) if row]
    if not rows:
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
        fail(f"no row is left of {len(records)} with the columns {describe(columns)}: dropped {reasons}")
    repeated = len(rows) - len({key_of(row) for row in rows})
    if recipe["data_deduplicate"]:
        rows = list({key_of(row): row for row in reversed(rows)}.values())[::-1]  # the first of each stays
        dropped["duplicate"] += repeated
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
        "distinct_prompts": len({json.dumps(row["prompt"]) for row in train}),
        "columns": columns,
        "sha256": digest,
    }
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
            fail(f"unknown key {key}; the keys for data are {', '.join(k for k in DEFAULTS if k != 'seed')}")
    for key in ("data_max_rows", "data_validation_rows", "seed"):
        value = recipe[key]
        if value is None and DEFAULTS[key] is not None:
            recipe[key] = DEFAULTS[key]
        elif value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
            fail(f"{key} needs a whole number, not {value!r}")
    if recipe["data_max_rows"] == 0:
        fail("data_max_rows: 0 leaves nothing to train on; write a number above 0, or null for all rows")
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


def read_sources(files: list[Path], inputs: str | None, dropped: Counter[str]) -> tuple[list[Json], list[Json]]:
    """(records, what was read). Lines that are no JSON object are dropped and counted, unless nothing else is there."""
    records: list[Json] = []
    sources = []
    for path in files:
        before = len(records)
        for record in records_of(path, dropped):
            if isinstance(record, dict):
                records.append(record)
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


def records_of(path: Path, dropped: Counter[str]) -> Iterator[object]:
    """What the file holds, row by row; lines that cannot be read are counted."""
    kind = path.suffix.lower()
    if kind == ".parquet":
        yield from parquet_rows(path)
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


def parquet_rows(path: Path) -> Iterator[object]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        fail(f"reading {path} needs pyarrow: run `uv run --with pyarrow data/prepare.py ...`, or convert it to JSONL")
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                yield from batch.to_pylist()
    except (ArrowException, OSError, ValueError) as error:
        fail(f"{path} is not a readable Parquet file: {' '.join(str(error).split())[:200]}")


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- Columns --------------------------------------------------------------------------------------------------------


def choose_columns(records: list[Json], recipe: Json) -> Json:
    """{"prompt", "completion", "evidence"}, or {"messages", "evidence"}."""
    seen = Counter(column for record in records[:LOOKED_AT] for column in record)
    prompt, completion = recipe["data_prompt_column"] or "auto", recipe["data_completion_column"] or "auto"
    names = ", ".join(seen)
    for key, column in (("data_prompt_column", prompt), ("data_completion_column", completion)):
        if column != "auto" and not any(column in record for record in records):
            fail(f"{key}: {column} is not a column of the data; the columns are {names}")
    if "auto" not in (prompt, completion):
        return {"prompt": prompt, "completion": completion, "evidence": "named in the recipe"}
    looked = records[:LOOKED_AT]
    if prompt == completion == "auto" and MESSAGES in seen:
        return {MESSAGES: MESSAGES, "evidence": f"{seen[MESSAGES]} of the first {len(looked)} rows have it"}
    found_prompt = prompt if prompt != "auto" else first_of(PROMPT_NAMES, seen, besides=completion)
    found_completion = completion if completion != "auto" else first_of(COMPLETION_NAMES, seen, besides=prompt)
    missing = [
        key
        for key, column in (("data_prompt_column", found_prompt), ("data_completion_column", found_completion))
        if column is None
    ]
    if missing:
        fail(f"cannot tell which column to use; the columns are {names}: name one of them in {' and '.join(missing)}")
    filled = sum(bool(record.get(str(found_prompt)) and record.get(str(found_completion))) for record in looked)
    evidence = f"found by name; both are filled in {filled} of the first {len(looked)} rows"
    columns = {"prompt": found_prompt, "completion": found_completion, "evidence": evidence}
    if found_prompt == "instruction" and found_completion != "input" and any(record.get("input") for record in looked):
        columns["input"] = "input"  # Alpaca's format: the input belongs to the instruction
    return columns


def first_of(names: tuple[str, ...], seen: Counter[str], besides: str) -> str | None:
    """The first of `names` among the columns, in any letter case."""
    by_name = {column.lower(): column for column in seen if column != besides}
    return next((by_name[name] for name in names if name in by_name), None)


def describe(columns: Json) -> str:
    return " and ".join(str(columns[key]) for key in ("messages", "prompt", "completion") if key in columns)


# --- Rows -----------------------------------------------------------------------------------------------------------


def as_row(record: Json, columns: Json, dropped: Counter[str]) -> Json | None:
    """The record as {"prompt": [...], "completion": [...]}, or None with the reason counted."""
    if MESSAGES in columns:
        turns = as_messages(record.get(MESSAGES), "user")
        answers = [index for index, turn in enumerate(turns or []) if turn["role"] == "assistant"]
        if not turns or not answers or answers[-1] == 0:
            dropped["messages without an answer"] += 1
            return None
        prompt: list[Json] | None = turns[: answers[-1]]
        completion: list[Json] | None = turns[answers[-1] : answers[-1] + 1]
    else:
        prompt = as_messages(record.get(columns["prompt"]), "user")
        completion = as_messages(record.get(columns["completion"]), "assistant")
        extra = record.get(columns.get("input", ""))
        if prompt and isinstance(extra, str) and extra.strip():
            prompt[-1]["content"] += f"\n\n{extra}"
    if prompt is None or completion is None:
        dropped["empty prompt" if prompt is None else "empty completion"] += 1
        return None
    return {"prompt": prompt, "completion": completion}


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
    return json.dumps([[turn["role"], turn["content"].strip()] for turn in row["prompt"] + row["completion"]])


def split_off(rows: list[Json], wanted: int, dropped: Counter[str]) -> tuple[list[Json], list[Json]]:
    """(train, validation): no prompt is on both sides, and each validation prompt is there once."""
    prompts = sorted({json.dumps(row["prompt"]) for row in rows}, key=lambda prompt: hash_of(f"validation {prompt}"))
    # A tenth at most: in a file of few distinct prompts a fixed number would take what there is to learn from. By hash,
    # not by the order of rows: there the first ones are those that are repeated most.
    aside = set(prompts[: min(wanted, len(prompts) // 10)])
    train = [row for row in rows if json.dumps(row["prompt"]) not in aside]
    validation = list({json.dumps(row["prompt"]): row for row in rows if json.dumps(row["prompt"]) in aside}.values())
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
