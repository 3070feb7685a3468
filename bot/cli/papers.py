"""Commands on papers: find them, read one, and read the recipe that it tells."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bot.cli.common import DONE, JsonFile, check_json, say, write_json

if TYPE_CHECKING:
    from bot.research.papers.model import Paper
    from bot.research.papers.recipe import PaperRecipe, Stage
    from bot.research.web import Web


def paper(
    reference: Annotated[
        str,
        typer.Argument(metavar="ARXIV_ID|FILE", help="2305.18290, an address, or a file: HTML, LaTeX, tar.gz, PDF."),
    ],
    recipe: Annotated[
        bool, typer.Option("--recipe", help="Its hyperparameters by stage, each with its quote.")
    ] = False,
    section: Annotated[str, typer.Option("--section", help="Print the section whose title holds these words.")] = "",
    json_file: JsonFile = None,
) -> int:
    """Read a paper by section, or the recipe that it tells.

    A file is read without the network. Every value comes with the sentence or cell it stands in.
    """
    from dataclasses import asdict

    from bot.errors import UserError
    from bot.research.papers.recipe import extract

    check_json(json_file)
    read = _read(reference)
    if recipe:
        found = extract(read)
        say(_recipe_lines(found), json_file)
        write_json(json_file, found.as_dict())
        return DONE
    if section:
        chosen = read.section(section)
        if chosen is None:
            raise UserError(f"--section {section}: the paper has none of that name. Leave it out to see all titles.")
        beside = (
            *(f"[footnote] {note}" for note in chosen.notes),
            *(f"[table] {each.caption}" for each in chosen.tables),
        )
        say([chosen.where, "", *chosen.paragraphs, *beside], json_file)
        write_json(json_file, asdict(chosen))
        return DONE
    say(_outline(read), json_file)
    write_json(json_file, asdict(read))
    return DONE


def papers(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="A few words.")],
    limit: Annotated[int, typer.Option("--limit", min=1, max=50, help="At most this many.")] = 10,
    scholar: Annotated[bool, typer.Option("--scholar", help="Ask Semantic Scholar too.")] = False,
    json_file: JsonFile = None,
) -> int:
    """Find papers on Hugging Face and arXiv."""
    from dataclasses import asdict

    from bot.research.papers.search import Catalogue, search

    check_json(json_file)
    catalogues = [Catalogue.HUB, Catalogue.ARXIV, *([Catalogue.SCHOLAR] if scholar else [])]
    found = asyncio.run(search(_web(), query, limit=limit, catalogues=catalogues))
    lines = [f"{hit.id:<14} {hit.year or '':<5} {hit.title}" for hit in found.hits] or ["nothing found"]
    say([*lines, *(f"note: {note}" for note in found.notes)], json_file)
    write_json(json_file, asdict(found))
    return DONE


def _read(reference: str) -> Paper:
    from bot.research.papers.reading import read_file, read_paper

    path = Path(reference)
    if path.exists():
        return read_file(path)
    return asyncio.run(read_paper(_web(), reference))


def _web() -> Web:
    from bot.config import cache_folder
    from bot.research.web import Web

    return Web(cache_folder() / "research")


def _outline(read: Paper) -> list[str]:
    lines = [read.title, f"{read.form.value} · {read.source}", ""]
    for section in read.sections:
        tables = f" · {len(section.tables)} tables" if section.tables else ""
        lines.append(f"{'  ' * section.level}{section.title} ({len(section.paragraphs)} paragraphs{tables})")
    return [*lines, *(f"note: {note}" for note in read.notes)]


def _recipe_lines(found: PaperRecipe) -> list[str]:
    lines = [found.title, f"{found.form} · {found.source}"]
    lines += [f"base model: {model.name}" for model in found.base_models]
    for stage in found.stages:
        lines += ["", stage.method, *_stage_lines(stage)]
    lines += ["", *(f"data: {each.name}{f' ({each.hub_id})' if each.hub_id else ''}" for each in found.datasets)]
    lines.append(
        f"{len(found.results)} results of tables, {len(found.left_out)} values left out; --json FILE has them all"
    )
    return [*lines, *(f"note: {note}" for note in found.notes)]


def _stage_lines(stage: Stage) -> list[str]:
    lines = []
    for each in stage.values:
        model = f" [{each.variant}]" if each.variant else ""
        about = "about " if each.approximate else ""
        lines.append(f"  {each.key}{model}: {about}{each.value}    “{_short(each.quote)}” ({each.evidence[0].section})")
    for conflict in stage.conflicts:
        said = " or ".join(str(value) for value, _ in conflict.values)
        lines.append(f"  {conflict.key}: the paper says {said}; none is taken")
    return lines


def _short(quote: str) -> str:
    return quote if len(quote) <= 110 else quote[:107] + "..."


COMMANDS = (paper, papers)
