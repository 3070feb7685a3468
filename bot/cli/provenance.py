"""Commands on where a model comes from: its lineage, and the fingerprints that published models are known by."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bot.cli.common import DONE, FAILED, JsonFile, check_json, say, write_json
from bot.errors import UserError


def lineage(
    model: Annotated[Path, typer.Argument(metavar="DIR", help="The model's folder.")],
    base: Annotated[Path, typer.Option("--base", help="Folder of the model that it is said to be trained from.")],
    published: Annotated[
        list[Path] | None, typer.Option("--published", help="Fingerprints of published models; may be repeated.")
    ] = None,
    adapter: Annotated[Path | None, typer.Option("--adapter", help="Folder of the adapter that was trained.")] = None,
    json_file: JsonFile = None,
) -> int:
    """Say whether a model's weights descend from its base.

    Exit code 1 where they do not: the base itself, another model, an adapter that was not merged, a swapped template.
    """
    from bot.evaluation.lineage.check import lineage as checked
    from bot.evaluation.lineage.published import read_table

    check_json(json_file)
    for name, folder in (("DIR", model), ("--base", base), ("--adapter", adapter)):
        if folder is not None and not folder.is_dir():
            raise UserError(f"{name} {folder}: there is no such folder. Name a model's folder on this machine.")
    known = [each for file in published or () for each in read_table(file)]
    found = checked(model, base, published=known, adapter=adapter)
    lines = [f"{found.verdict}: {found.reason}"]
    if found.adapter is not None:
        lines.append(f"the adapter explains {100 * found.adapter['explained']:.0f} % of the change")
    lines += [
        f"{change.file}, {change.key}: {change.before or 'nothing'} became {change.after or 'nothing'}"
        f"{f' ({change.consequence})' if change.consequence else ''}"
        for change in found.changes
    ]
    lines += [f"note: {note}" for note in found.notes]
    say(lines, json_file)
    write_json(json_file, found.as_dict())
    return DONE if found.verdict.counts else FAILED


def fingerprint(
    model: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a published model.")],
    name: Annotated[str, typer.Option("--name", help="What it is called where it is published: OWNER/NAME.")],
    add: Annotated[Path, typer.Option("--add", metavar="FILE", help="Table that it is put into, made where missing.")],
    revision: Annotated[str, typer.Option("--revision", help="Its commit.")] = "",
) -> None:
    """Take a published model's fingerprint, so that it is known again when somebody submits it as their own.

    A server reads every table in the folder `fingerprints` of its data folder.
    """
    from bot.evaluation.lineage.published import add_to_table, fingerprint_of

    if not model.is_dir():
        raise UserError(f"DIR {model}: there is no such folder. Name a model's folder on this machine.")
    try:
        taken = fingerprint_of(model, name, revision)
    except UserError as error:
        raise UserError(f"DIR {model}: {error}. Name the folder of a model saved as safetensors.") from error
    count = add_to_table(add, taken)
    values = sum(len(probe.values) for probe in taken.probes)
    say([f"{name}: {values:,} values of {len(taken.probes)} matrices", f"{add} holds {count}"], None)


COMMANDS = (lineage, fingerprint)
