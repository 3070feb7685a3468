"""The research rooms as functions for code in the sandbox: papers, data sets, documentation, code of others.

Which hosts are asked, and what may stand in a query, is `bot.research.web.Web`'s to say, for every one of these. A
benchmark's rows are not shown: they would be read by whoever writes the training data.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bot.brain.agent.functions import Answer, Function, Kind, Parameter
from bot.brain.agent.goal_functions import shortened
from bot.data.evaluation_sets import showing_refusal, training_refusal
from bot.errors import UserError
from bot.research import datasets, docs, viewer
from bot.research.code import Code
from bot.research.datasets import Seen
from bot.research.installed import PACKAGES, Installed
from bot.research.papers.citations import citations_of, references_of
from bot.research.papers.links import links_of
from bot.research.papers.model import Paper, Section
from bot.research.papers.reading import read_paper
from bot.research.papers.recipe import extract
from bot.research.papers.search import Catalogue
from bot.research.papers.search import search as search_papers
from bot.research.ranking import LicenceGate, Ranked, Wanted, find
from bot.research.web import Web

MOST_SECTION = 40_000
"""Characters of a paper's section."""
MOST_RESULTS = 300
"""Cells of results tables."""
_PAPER = Parameter(Kind.TEXT, "An arXiv identifier: 2305.18290.", characters=100)
_WORDS = Parameter(Kind.TEXT, "A few words.", characters=200)
_NAME = Parameter(Kind.TEXT, "owner/name.", characters=200)
_WORD = Parameter(Kind.TEXT, default="", characters=60, pattern=r"[A-Za-z0-9+#<>._ -]*")


def _limit(most: int, default: int = 10) -> Parameter:
    return Parameter(Kind.WHOLE, default=default, least=1, most=most)


@dataclass(frozen=True, slots=True)
class Library:
    """What the functions ask."""

    web: Web
    installed: Installed = field(default_factory=Installed)
    """The libraries that jobs run with."""
    code: Code | None = None
    """None: public code is not asked for here."""
    licence: LicenceGate = lambda _licence: (True, "")
    clock: Callable[[], float] = lambda: 0.0


def research_functions(library: Library) -> dict[str, Function]:
    """`papers.*`, `datasets.*`, `docs.*` and, where there is somebody to ask, `code.*`."""
    return {
        **_papers(_Papers(library.web)),
        **_datasets(_Datasets(library)),
        **_docs(_Docs(library.installed)),
        **(_code(library.code) if library.code is not None else {}),
    }


def _papers(told: _Papers) -> dict[str, Function]:
    return {
        "papers.search": Function(
            "Papers on Hugging Face and arXiv: {hits: [{id, title, abstract, year, code, ...}], notes}.",
            told.search, {"query": _WORDS, "limit": _limit(30)},
        ),
        "papers.read": Function(
            "A paper: its abstract and the titles of its sections; with `section`, words of a title, that section.",
            told.read, {"paper": _PAPER, "section": Parameter(Kind.TEXT, default="", characters=200)},
        ),
        "papers.recipe": Function(
            "What a paper says that it trained with: {stages: [{method, values: [{key, value, trl, quote, section}], "
            "conflicts}], base_models, datasets, results}. Each value with its quote; what is not there is not said.",
            told.recipe, {"paper": _PAPER},
        ),
        "papers.citations": Function(
            "Who cites a paper, with the sentences.", told.citations, {"paper": _PAPER, "limit": _limit(100, 20)}
        ),
        "papers.references": Function(
            "Whom a paper cites, with the sentences.", told.references, {"paper": _PAPER, "limit": _limit(100, 20)}
        ),
        "papers.links": Function("Models, data sets and code that belong to a paper.", told.links, {"paper": _PAPER}),
    }  # fmt: skip


class _Papers:
    def __init__(self, web: Web) -> None:
        self._web = web

    async def search(self, query: str, limit: int) -> Answer:
        found = await search_papers(self._web, query, limit=limit, catalogues=[Catalogue.HUB, Catalogue.ARXIV])
        sources = "; ".join(dict.fromkeys(hit.source for hit in found.hits)) or "no catalogue"
        hits = [{**shortened(asdict(hit)), "abstract": hit.abstract[:1500]} for hit in found.hits]
        return Answer({"hits": hits, "notes": list(found.notes)}, sources[:250])

    async def read(self, paper: str, section: str) -> Answer:
        read = await read_paper(self._web, paper)
        if not section:
            return Answer(_outline(read), read.source)
        chosen = read.section(section)
        if chosen is None:
            titles = ", ".join(each.title for each in read.sections[:40])
            raise UserError(f"{paper} has no section {section!r}. Its sections are {titles}.")
        return Answer(_section(chosen), f"{read.source}, {chosen.where}")

    async def recipe(self, paper: str) -> Answer:
        read = await read_paper(self._web, paper)
        found = (await asyncio.to_thread(extract, read)).as_dict()
        more = len(found["results"]) - MOST_RESULTS
        found["results"] = found["results"][:MOST_RESULTS]
        found["notes"] = [*found["notes"], *([f"{more} further results are left out"] if more > 0 else [])]
        return Answer(shortened(found), read.source)

    async def citations(self, paper: str, limit: int) -> Answer:
        found = await citations_of(self._web, paper, limit=limit)
        return Answer(shortened(asdict(found)), found.source)

    async def references(self, paper: str, limit: int) -> Answer:
        found = await references_of(self._web, paper, limit=limit)
        return Answer(shortened(asdict(found)), found.source)

    async def links(self, paper: str) -> Answer:
        found = await links_of(self._web, paper)
        return Answer(shortened(asdict(found)), found.source)


def _outline(paper: Paper) -> dict[str, Any]:
    sections = [
        {"title": each.title, "level": each.level, "paragraphs": len(each.paragraphs), "tables": len(each.tables)}
        for each in paper.sections
    ]
    caution = [paper.form.caution] if paper.form.caution else []
    return {"title": paper.title, "abstract": paper.abstract, "form": str(paper.form), "sections": sections,
            "notes": [*paper.notes, *caution]}  # fmt: skip


def _section(section: Section) -> dict[str, Any]:
    text = "\n\n".join((*section.paragraphs, *(f"[footnote] {note}" for note in section.notes)))
    tables = [{"label": table.label, "caption": table.caption, "rows": [list(row) for row in table.rows[:200]]}
              for table in section.tables[:20]]  # fmt: skip
    cut = f"… ({len(text):,} characters)" if len(text) > MOST_SECTION else ""
    return {"title": section.title, "text": text[:MOST_SECTION] + cut, "tables": tables,
            "captions": list(section.captions)}  # fmt: skip


def _datasets(told: _Datasets) -> dict[str, Function]:
    return {
        "datasets.find": Function(
            "Data sets for a method, ranked with reasons: [{id, refused, reasons, licences, rows, columns}].",
            told.find,
            {"words": _WORDS,
             "method": Parameter(Kind.TEXT, default="sft", characters=30, pattern="[a-z]+"),
             "language": _WORD, "task": _WORD,
             "least_rows": Parameter(Kind.WHOLE, default=200, least=1, most=1e9)},
        ),
        "datasets.search": Function(
            "Data sets of the Hub, the most downloaded first.",
            told.search,
            {"query": _WORDS, "task": _WORD, "language": _WORD, "licence": _WORD, "size": _WORD, "limit": _limit(50)},
        ),
        "datasets.look": Function(
            "One data set: licence, size, splits, columns with their types, and its first rows.",
            told.look, {"dataset": _NAME},
        ),
        "datasets.rows": Function(
            "Rows of a split.",
            told.rows,
            {"dataset": _NAME, "config": Parameter(Kind.TEXT, characters=120),
             "split": Parameter(Kind.TEXT, characters=80),
             "start": Parameter(Kind.WHOLE, default=0, least=0, most=1e9), "count": _limit(100)},
        ),
        "datasets.statistics": Function(
            "The viewer's statistics of each column of a split.",
            told.statistics,
            {"dataset": _NAME, "config": Parameter(Kind.TEXT, characters=120),
             "split": Parameter(Kind.TEXT, characters=80)},
        ),
    }  # fmt: skip


class _Datasets:
    def __init__(self, library: Library) -> None:
        self._of = library

    async def find(self, words: str, method: str, language: str, task: str, least_rows: int) -> Answer:
        wanted = Wanted(method, words, language, task, least_rows=least_rows)
        ranked = await find(
            self._of.web, wanted, now=self._of.clock(), refuses=training_refusal, licence=self._of.licence
        )
        return Answer([_ranked(each) for each in ranked], "the Hugging Face Hub's data sets")

    async def search(self, query: str, task: str, language: str, licence: str, size: str, limit: int) -> Answer:
        found = await datasets.search(
            self._of.web, query, task=task, language=language, licence=licence, size=size, limit=limit
        )
        return Answer([shortened(asdict(each)) for each in found], "the Hugging Face Hub's data sets")

    async def look(self, dataset: str) -> Answer:
        _permitted(dataset)
        seen = await datasets.look(self._of.web, await datasets.information(self._of.web, dataset))
        return Answer(_seen(seen), seen.dataset.url)

    async def rows(self, dataset: str, config: str, split: str, start: int, count: int) -> Answer:
        _permitted(dataset, config, split)
        found = await viewer.rows(self._of.web, dataset, config, split, offset=start, length=count)
        return Answer([shortened(row) for row in found.rows], found.source)

    async def statistics(self, dataset: str, config: str, split: str) -> Answer:
        _permitted(dataset, config, split)
        found = await viewer.statistics(self._of.web, dataset, config, split)
        return Answer(shortened(asdict(found)), found.source)


def _permitted(dataset: str, config: str = "", split: str = "") -> None:
    """Raises: UserError for what a benchmark is scored on."""
    if why := showing_refusal(dataset, config, split):
        raise UserError(f"{dataset} is not shown: {why}")


def _ranked(each: Ranked) -> dict[str, Any]:
    rows = each.seen.rows
    return {
        "id": each.dataset.id,
        "refused": each.refused,
        "score": round(each.score, 2),
        "reasons": [reason.sentence for reason in each.reasons],
        "licences": list(each.dataset.licences),
        "rows": each.seen.training_rows,
        "columns": sorted(rows.features) if rows is not None else [],
        "problem": each.seen.problem,
    }


def _seen(seen: Seen) -> dict[str, Any]:
    rows, size = seen.rows, seen.size
    return {
        "dataset": shortened(asdict(seen.dataset)),
        "size": shortened(asdict(size)) if size is not None else None,
        "config": rows.config if rows is not None else None,
        "split": rows.split if rows is not None else None,
        "features": shortened(rows.features) if rows is not None else {},
        "first_rows": [shortened(row) for row in rows.rows[:10]] if rows is not None else [],
        "problem": seen.problem,
    }


def _docs(told: _Docs) -> dict[str, Function]:
    return {
        "docs.signature": Function(
            f"What a class or function of {', '.join(PACKAGES)} takes as it is installed: trl.SFTConfig.",
            told.signature, {"name": Parameter(Kind.TEXT, characters=200, pattern=r"[A-Za-z_][A-Za-z0-9_.]*")},
        ),
        "docs.search": Function(
            "What the installed docstrings say about some words: [{name, text, source}].",
            told.search, {"query": _WORDS, "limit": _limit(20, 8)},
        ),
        "docs.unknown": Function(
            "Which of these keyword arguments the installed class or function does not take, with what was meant.",
            told.unknown,
            {"name": Parameter(Kind.TEXT, characters=200, pattern=r"[A-Za-z_][A-Za-z0-9_.]*"),
             "keywords": Parameter(Kind.TEXTS, characters=80, many=100)},
        ),
    }  # fmt: skip


class _Docs:
    """Read from files, in a thread; nothing is imported."""

    def __init__(self, installed: Installed) -> None:
        self._installed = installed

    async def signature(self, name: str) -> Answer:
        found = await asyncio.to_thread(self._installed.signature, name)
        return Answer(shortened(asdict(found)), found.source)

    async def search(self, query: str, limit: int) -> Answer:
        hits: Sequence[docs.Hit] = await asyncio.to_thread(docs.search_docs, query, self._installed, limit=limit)
        return Answer([shortened(asdict(hit)) for hit in hits], "docstrings of the installed libraries")

    async def unknown(self, name: str, keywords: Sequence[str]) -> Answer:
        found = await asyncio.to_thread(docs.unknown_keywords, name, keywords, self._installed)
        return Answer([asdict(each) for each in found], f"the installed {name}")


def _code(code: Code) -> dict[str, Function]:
    async def search(words: str, language: str, repository: str, limit: int) -> Answer:
        hits = await code.search(words, language=language, repository=repository, limit=limit)
        return Answer([shortened(asdict(hit)) for hit in hits], "code of public repositories on GitHub")

    async def read(repository: str, path: str, revision: str) -> Answer:
        found = await code.read(repository, path, revision=revision)
        told: Mapping[str, Any] = {**asdict(found), "text": found.text[:MOST_SECTION]}
        return Answer(dict(told), found.source)

    return {
        "code.search": Function(
            "Files of public repositories that hold some words.",
            search,
            {"words": _WORDS, "language": _WORD, "repository": Parameter(Kind.TEXT, default="", characters=200),
             "limit": _limit(30)},
        ),
        "code.read": Function(
            "A file of a public repository.",
            read,
            {"repository": _NAME, "path": Parameter(Kind.TEXT, characters=300),
             "revision": Parameter(Kind.TEXT, default="", characters=120)},
        ),
    }  # fmt: skip
