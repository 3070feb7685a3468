"""Commands on a data set alone: how its columns would be read, what its rows are like, whether it may be trained on."""

from __future__ import annotations

import asyncio
import os
import tempfile
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bot.cli.common import DONE, FAILED, JsonFile, Seed, check_json, say, write_json
from bot.errors import UserError

if TYPE_CHECKING:
    from bot.conversation.policy import Policy

Data = Annotated[
    str, typer.Argument(help="A file or folder of rows, or a data set of the Hub: hf:OWNER/NAME[@REVISION].")
]


def map_data(
    data: Data,
    method: Annotated[str, typer.Option("--method", help="sft, dpo, grpo, classify ...")] = "sft",
    column: Annotated[
        list[str] | None, typer.Option("--column", help="PART=EXPRESSION, as the recipe's data_PART_column.")
    ] = None,
    json_file: JsonFile = None,
) -> int:
    """Say which columns of a data set a method would train on, with the evidence for each.

    What the data leave open is asked, with the lines of recipe.yaml that would answer. The data set's private files are
    read with POSTDOC_HUB_TOKEN.
    """
    from bot.data.columns import LOOKED_AT, ROLES, map_columns

    check_json(json_file)
    if method not in ROLES:
        raise UserError(f"The method {method} is not known. Write one of {', '.join(ROLES)}.")
    named = _named(column or [])
    with tempfile.TemporaryDirectory() as folder:
        rows, features = _rows(data, Path(folder), LOOKED_AT)
    found = map_columns(rows, method, features, named)
    write_json(json_file, found.as_dict())
    if found.question is not None:
        say(["cannot tell: " + found.question.sentence()], json_file)
        return DONE
    lines = [f"{line}    # {use.evidence}" for line, use in zip(found.lines(), found.uses, strict=True)]
    say([*lines, *found.notes, f"from the first {found.rows} rows"], json_file)
    return DONE


def audit_data(data: Data, json_file: JsonFile = None) -> int:
    """Measure a data set: empty and repeated rows, lengths, languages, classes, secrets, abuse, checkable answers.

    The data set's private files are read with POSTDOC_HUB_TOKEN.
    """
    from bot.data.audit import audit_file

    check_json(json_file)
    with tempfile.TemporaryDirectory() as folder:
        found = audit_file(_place(data, Path(folder)))
    verdicts = found.verdicts()
    write_json(json_file, found.as_dict() | {"verdicts": [verdict.as_dict() for verdict in verdicts]})
    lengths = found.answer_characters
    lines = [
        f"{found.rows:,} rows, {found.distinct_prompts:,} distinct prompts, "
        f"{found.exact_duplicates:,} exact and {found.near_duplicates:,} near repetitions",
        f"answers: median {lengths.p50:,} characters, 95th percentile {lengths.p95:,}, longest {lengths.max:,}",
        *(f"{verdict.action}: {verdict.reason}" for verdict in verdicts),
    ]
    say(lines, json_file)
    return DONE


def check_data(
    train: Annotated[Path, typer.Option("--train", help="Rows that would be trained on: JSON lines.")],
    benchmark: Annotated[
        str, typer.Option("--benchmark", help="What the model is measured on: a benchmark's name, or its YAML file.")
    ],
    validation: Annotated[Path | None, typer.Option("--validation", help="Rows held out for validation.")] = None,
    scripts: Annotated[
        Path | None, typer.Option("--scripts", help="Folder of the experiment's own scripts; every file is read.")
    ] = None,
    data: Annotated[
        list[Path] | None, typer.Option("--data", help="What the rows were built from; may be repeated.")
    ] = None,
    base: Annotated[Path | None, typer.Option("--base", help="Folder of the model to start from.")] = None,
    policy: Annotated[Path | None, typer.Option("--policy", help="The policy, a .github/postdoc.yml.")] = None,
    kept: Annotated[
        Path | None, typer.Option("--kept", help="Folder for the rows without those that the policy has left out.")
    ] = None,
    seed: Seed = 0,
    json_file: JsonFile = None,
) -> int:
    """Say whether a training set may be trained on: rows and scripts free of the benchmark's items, licences that fit.

    All splits of the benchmark are looked for, and none of their text is told. Exit code 1 where something forbids it.
    """
    from bot.cli.tools import benchmark_named
    from bot.loop.file_gates import TrainingFiles, gates_of, write_kept

    check_json(json_file)
    for name, path in (("--train", train), ("--validation", validation)):
        if path is not None and not path.is_file():
            raise UserError(f"{name} {path}: there is no such file. Name a file with one JSON object per line.")
    for name, path in (("--scripts", scripts), ("--base", base)):
        if path is not None and not path.is_dir():
            raise UserError(f"{name} {path}: there is no such folder.")
    files = TrainingFiles(train, validation, scripts, {str(path): path for path in data or ()}, base)
    found = gates_of(files, benchmark_named(benchmark), _policy(policy), seed)
    if kept is not None and found.blocked is None:
        write_kept(files, found.contamination, kept)
    say([*found.said(), *([f"blocked: {found.blocked}"] if found.blocked else [])], json_file)
    write_json(json_file, found.as_dict())
    return FAILED if found.blocked else DONE


def _policy(path: Path | None) -> Policy:
    """Raises: UserError."""
    from bot.conversation.policy import read_policy

    try:
        found, problems = read_policy(path.read_bytes() if path is not None else b"")
    except OSError as error:
        raise UserError(f"--policy {path}: {error.strerror}. Name a policy file.") from error
    if found is None:
        raise UserError(f"{path}:{problems[0]}")
    return found


def _named(columns: list[str]) -> dict[str, str]:
    from bot.data.columns import WORDS_OF_ROLES

    named = {}
    for each in columns:
        role, sign, expression = each.partition("=")
        if not sign or role not in WORDS_OF_ROLES:
            raise UserError(f"--column {each} is not PART=EXPRESSION. Parts are {', '.join(WORDS_OF_ROLES)}.")
        named[role] = expression.strip()
    return named


def _rows(data: str, folder: Path, most: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """(the first rows, what the file says of its columns)"""
    from bot.data.rows import class_names, data_files, read_rows

    place = _place(data, folder)
    features = {
        name: {"_type": "ClassLabel", "names": names}
        for file in data_files(place)[:1] for name, names in class_names(file).items()
    }  # fmt: skip
    return list(islice(read_rows(place), most)), features


def _place(data: str, folder: Path) -> Path:
    """Where the rows lie; those of the Hub are fetched into `folder`."""
    if not data.startswith("hf:"):
        return Path(data)
    return asyncio.run(_fetched(data, folder))


async def _fetched(data: str, folder: Path) -> Path:
    from bot.domain.data_source import HubSource, parse_source
    from bot.loop import hub

    source = parse_source(data)
    assert isinstance(source, HubSource)
    token = os.environ.get("POSTDOC_HUB_TOKEN") or os.environ.get("HF_TOKEN") or ""
    place = folder / "rows"
    await hub.fetch(await hub.resolve(source, token), place, token)
    return place
