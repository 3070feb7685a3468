"""Commands on what there is to train on and with: data sets of the Hub, and what the training libraries take."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from bot.cli.common import DONE, JsonFile, check_json, say, write_json
from bot.errors import UserError

if TYPE_CHECKING:
    from bot.research.datasets import Seen
    from bot.research.docs import Hit
    from bot.research.installed import Installed, Signature
    from bot.research.ranking import LicenceGate, Ranked
    from bot.research.web import Web

_CELL = 120
T = TypeVar("T")


def datasets(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="A few words, or one data set: OWNER/NAME.")],
    method: Annotated[str, typer.Option("--method", help="What it shall train: sft, dpo, grpo, classify ...")] = "sft",
    language: Annotated[str, typer.Option("--language", help="ISO 639-1 code: en, de, zh.")] = "",
    task: Annotated[str, typer.Option("--task", help="A task of the Hub's: question-answering.")] = "",
    licence: Annotated[str, typer.Option("--licence", help="Licences that are allowed, parted by commas.")] = "",
    rows: Annotated[int, typer.Option("--rows", min=1, help="Rows that are wanted at least.")] = 200,
    limit: Annotated[int, typer.Option("--limit", min=1, max=20, help="Look into so many.")] = 5,
    json_file: JsonFile = None,
) -> int:
    """Find data sets on the Hub, ranked with reasons, or look into one.

    Benchmarks are never offered for training, whatever their splits are called.
    """
    from bot.domain.methods import METHODS
    from bot.research.datasets import information, look
    from bot.research.ranking import Wanted, find

    check_json(json_file)
    if method not in METHODS:
        raise UserError(f"--method {method}: write one of {', '.join(METHODS)}.")
    web = _web()
    if re.fullmatch(r"[\w.-]+/[\w.-]+", query):

        async def looked() -> Seen:
            return await look(web, await information(web, query))

        seen = _answer(looked())
        say(_seen_lines(seen), json_file)
        write_json(json_file, _seen_json(seen))
        return DONE
    wanted = Wanted(method, query, language, task, least_rows=rows)
    gate = _gate([name.strip() for name in licence.split(",") if name.strip()])
    ranked = _answer(find(web, wanted, now=time.time(), refuses=_refusal, licence=gate, most_looked_at=limit, limit=30))
    lines = [line for each in ranked for line in _ranked_lines(each)] or ["nothing found"]
    say(lines, json_file)
    write_json(json_file, [_ranked_json(each) for each in ranked])
    return DONE


def docs(
    name: Annotated[str, typer.Argument(metavar="NAME", help="trl.SFTConfig, trl.SFTConfig.packing, or a few words.")],
    check: Annotated[
        str, typer.Option("--check", metavar="KEY,KEY", help="Say which of these keywords it does not take.")
    ] = "",
    site: Annotated[
        str, typer.Option("--site", metavar="PACKAGE", help="Search a package's site in place of what is installed.")
    ] = "",
    json_file: JsonFile = None,
) -> int:
    """Show what a class or function of the training libraries takes, or search their documentation.

    What is installed beside POSTDOC_JOB_PYTHON (this Python where that is not set) is read without being run.
    """
    from bot.research.docs import search_docs, search_site, unknown_keywords
    from bot.research.installed import PACKAGES, Installed

    check_json(json_file)
    python = os.environ.get("POSTDOC_JOB_PYTHON")
    installed = Installed(Path(python) if python else None)
    if site:
        if site not in PACKAGES:
            raise UserError(f"--site {site}: write one of {', '.join(PACKAGES)}.")
        return _said_hits(_answer(search_site(_web(), site, name)), json_file)
    if check:
        found, _ = _signature(name, installed)
        wrong = unknown_keywords(found.name, [key.strip() for key in check.split(",") if key.strip()], installed)
        say([each.why for each in wrong] or [f"{name} takes all of them"], json_file)
        write_json(json_file, [asdict(each) for each in wrong])
        return DONE
    if "." in name and name.split(".")[0] in PACKAGES and " " not in name:
        found, one = _signature(name, installed)
        say(_signature_lines(found, one), json_file)
        write_json(json_file, asdict(found))
        return DONE
    return _said_hits(search_docs(name, installed), json_file)


def _answer(asked: Coroutine[Any, Any, T]) -> T:
    """What was asked for. Raises: UserError where the words are the reason that it is not there."""
    from bot.research.errors import NotFound, Refused

    try:
        return asyncio.run(asked)
    except (NotFound, Refused) as error:
        raise UserError(str(error)) from error


def _signature(name: str, installed: Installed) -> tuple[Signature, str]:
    """Of `name`; where its last part is a parameter, of what it belongs to. Raises: UserError."""
    from bot.research.errors import NotFound

    owner, _, parameter = name.rpartition(".")
    try:
        return installed.signature(name), ""
    except NotFound as error:
        with suppress(NotFound):
            if owner.count(".") and (found := installed.signature(owner)).parameter(parameter) is not None:
                return found, parameter
        raise UserError(str(error)) from error


def _signature_lines(found: Signature, one: str) -> list[str]:
    lines = [f"{found.name} · {found.kind} · {found.source}"]
    if not one and found.doc:
        lines += ["", found.doc.split("\n\n")[0]]
    lines.append("")
    for each in found.parameters:
        if one in ("", each.name):
            default = " (has to be given)" if each.default is None else f" = {each.default}"
            lines.append(f"{each.name}: {each.annotation or '?'}{default}")
            if each.doc:
                lines.append(f"    {each.doc if one else _short(each.doc)}")
    return lines


def _said_hits(hits: list[Hit], json_file: str | None) -> int:
    lines = []
    for hit in hits:
        lines += [f"{hit.name} · {hit.source}", *([f"    {_short(hit.text)}"] if hit.text else [])]
    say(lines or ["nothing found"], json_file)
    write_json(json_file, [asdict(hit) for hit in hits])
    return DONE


def _seen_lines(seen: Seen) -> list[str]:
    dataset = seen.dataset
    lines = [
        f"{dataset.id} · {dataset.url} · {dataset.sha[:12]}",
        f"licence {', '.join(dataset.licences) or 'not stated'} · {dataset.downloads:,} downloads in 30 days"
        + (" · gated" if dataset.gated else ""),
    ]
    if (why := _refusal(dataset.id)) is not None:
        lines.append(f"not for training: {why}")
    if seen.problem:
        lines.append(seen.problem)
    if seen.size is not None:
        lines += [
            f"{each.config}/{each.name}: {each.rows:,} rows" for each in seen.size.splits if each.rows is not None
        ]
    if seen.rows is not None:
        lines.append(f"first rows of {seen.rows.config}/{seen.rows.split}:")
        for row in seen.rows.rows[:2]:
            lines += [f"    {column}: {_short(str(value))}" for column, value in row.items()]
    return lines


def _seen_json(seen: Seen) -> dict[str, object]:
    rows, size = seen.rows, seen.size
    return {
        "dataset": asdict(seen.dataset), "problem": seen.problem, "size": asdict(size) if size else None,
        "refused": _refusal(seen.dataset.id) or "",
        "rows": {"config": rows.config, "split": rows.split, "features": rows.features, "rows": rows.rows,
                 "truncated": sorted(rows.truncated), "source": rows.source, "fetched_at": rows.fetched_at}
        if rows else None,
    }  # fmt: skip


def _ranked_lines(each: Ranked) -> list[str]:
    lines = [f"{each.dataset.id} · {each.score:+.1f} · {each.dataset.url}"]
    if each.refused:
        return [f"{each.dataset.id} · not for training: {each.refused}"]
    return [*lines, *(f"    {reason.points:+.1f} {reason.sentence}" for reason in each.reasons)]


def _ranked_json(each: Ranked) -> dict[str, object]:
    return {
        "id": each.dataset.id, "url": each.dataset.url, "sha": each.dataset.sha, "score": round(each.score, 3),
        "refused": each.refused, "reasons": [asdict(reason) for reason in each.reasons],
        "rows": each.seen.training_rows, "columns": list(each.seen.rows.columns) if each.seen.rows else None,
        "fetched_at": each.dataset.fetched_at,
    }  # fmt: skip


def _refusal(repo: str) -> str | None:
    from bot.data.evaluation_sets import training_refusal

    return training_refusal(repo)


def _gate(allowed: list[str]) -> LicenceGate:
    from bot.data.licences import licence_gate

    def gate(licence: str) -> tuple[bool, str]:
        found = licence_gate(licence, allowed)
        return found.ok, found.reason

    return gate


def _web() -> Web:
    from bot.config import cache_folder
    from bot.research.web import Web

    return Web(cache_folder() / "research")


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _CELL else text[: _CELL - 3] + "..."


COMMANDS = (datasets, docs)
