"""Papers by words: Hugging Face papers, arXiv and Semantic Scholar, each asked through its documented interface."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from lxml import etree

from bot.research.errors import Malformed, Refused, ResearchError
from bot.research.papers.tex_math import plain
from bot.research.web import Page, Web

MOST_HITS = 50
_ATOM = {"atom": "http://www.w3.org/2005/Atom", "opensearch": "http://a9.com/-/spec/opensearch/1.1/"}
_CODE = re.compile(r"https?://(?:www\.)?(?:github\.com|gitlab\.com)/[\w.-]+/[\w.-]+")


class Catalogue(StrEnum):
    HUB = "huggingface.co"
    ARXIV = "export.arxiv.org"
    SCHOLAR = "api.semanticscholar.org"


@dataclass(frozen=True, slots=True)
class Hit:
    """One paper that a catalogue knows."""

    id: str
    """arXiv's identifier without its version; Semantic Scholar's own where arXiv has none."""
    title: str
    abstract: str
    year: int | None
    authors: tuple[str, ...]
    source: str
    fetched_at: float
    catalogues: tuple[str, ...]
    citations: int | None = None
    upvotes: int | None = None
    code: tuple[str, ...] = ()
    """Repositories that the catalogue links, and those that the abstract names."""


@dataclass(frozen=True, slots=True)
class Found:
    """Hits, best first, and what could not be asked."""

    hits: tuple[Hit, ...]
    notes: tuple[str, ...]


async def search(
    web: Web, query: str, *, limit: int = 10, catalogues: Sequence[Catalogue] = (Catalogue.HUB, Catalogue.ARXIV)
) -> Found:
    """Papers of several catalogues, merged by their identifiers; a paper that two catalogues name stands higher.

    Raises: ResearchError where no catalogue answered: the first's.
    """
    found: list[list[Hit]] = []
    problems: list[ResearchError] = []
    for catalogue in catalogues:
        try:
            found.append(await _SEARCHES[catalogue](web, query, min(limit, MOST_HITS)))
        except ResearchError as error:
            problems.append(error)
    if problems and not found:
        raise problems[0]
    return Found(tuple(_merged(found)[:limit]), tuple(str(problem) for problem in problems))


def _merged(lists: list[list[Hit]]) -> list[Hit]:
    """Reciprocal rank fusion (Cormack et al. 2009, https://doi.org/10.1145/1571941.1572114), k = 60."""
    scores: dict[str, float] = {}
    best: dict[str, Hit] = {}
    for hits in lists:
        for rank, hit in enumerate(hits, start=1):
            scores[hit.id] = scores.get(hit.id, 0.0) + 1 / (60 + rank)
            known = best.get(hit.id)
            best[hit.id] = hit if known is None else _joined(known, hit)
    return sorted(best.values(), key=lambda hit: -scores[hit.id])


def _joined(first: Hit, second: Hit) -> Hit:
    return replace(
        first,
        abstract=first.abstract or second.abstract,
        catalogues=tuple(dict.fromkeys(first.catalogues + second.catalogues)),
        citations=first.citations if first.citations is not None else second.citations,
        upvotes=first.upvotes if first.upvotes is not None else second.upvotes,
        code=tuple(dict.fromkeys(first.code + second.code)),
    )


async def hub_papers(web: Web, query: str, limit: int = 10) -> list[Hit]:
    """https://huggingface.co/docs/hub/api: `GET /api/papers/search`."""
    page = await web.get("https://huggingface.co/api/papers/search", params={"q": query, "limit": str(limit)})
    return [_hub_hit(each, page) for each in rows(page.json(), page)][:limit]


def _hub_hit(row: Mapping[str, Any], page: Page) -> Hit:
    inner = row.get("paper")
    paper: Mapping[str, Any] = inner if isinstance(inner, Mapping) else row
    summary = text_of(paper, "summary", page, missing="")
    repository = paper.get("githubRepo")
    linked = (repository,) if isinstance(repository, str) and repository else ()
    published = text_of(paper, "publishedAt", page, missing="")
    return Hit(
        bare_id(text_of(paper, "id", page)),
        plain(text_of(paper, "title", page, missing="") or text_of(row, "title", page)),
        plain(summary), _year(published), names_of(paper.get("authors")),
        page.url, page.fetched_at, (Catalogue.HUB.value,),
        upvotes=paper["upvotes"] if isinstance(paper.get("upvotes"), int) else None,
        code=tuple(dict.fromkeys((*linked, *code_in(summary)))),
    )  # fmt: skip


async def arxiv_papers(web: Web, query: str, limit: int = 10) -> list[Hit]:
    """https://info.arxiv.org/help/api/user-manual.html: `GET /api/query`, an Atom feed."""
    words = re.findall(r"[\w.-]+", query)
    if not words:
        raise Refused("A search needs at least one word.")
    params = {
        "search_query": " AND ".join(f"all:{word}" for word in words[:12]), "start": "0", "max_results": str(limit),
        "sortBy": "relevance",
    }  # fmt: skip
    page = await web.get("https://export.arxiv.org/api/query", params=params)
    feed = feed_of(page)
    hits = []
    for entry in feed.findall("atom:entry", _ATOM):
        identifier = entry.findtext("atom:id", "", _ATOM)
        if "/api/errors" in identifier:
            said = plain(entry.findtext("atom:summary", "", _ATOM))[:200]
            raise Refused(f"arXiv cannot answer this search: {said}")
        hits.append(_arxiv_hit(entry, identifier, page))
    return hits[:limit]


def _arxiv_hit(entry: Any, identifier: str, page: Page) -> Hit:
    found = re.search(r"/abs/(.+)\Z", identifier)
    title = plain(entry.findtext("atom:title", "", _ATOM))
    if found is None or not title:
        raise Malformed("arXiv's answer names a paper without identifier or title")
    summary = plain(entry.findtext("atom:summary", "", _ATOM))
    authors = tuple(plain(each.text or "") for each in entry.findall("atom:author/atom:name", _ATOM))
    year = _year(entry.findtext("atom:published", "", _ATOM))
    return Hit(
        bare_id(found[1]),
        title,
        summary,
        year,
        authors,
        page.url,
        page.fetched_at,
        (Catalogue.ARXIV.value,),
        code=code_in(summary),
    )


def feed_of(page: Page) -> Any:
    """An Atom feed, without entities and without anything it might point to. Raises: Malformed."""
    if b"<!DOCTYPE" in page.body[:2048].upper() or b"<!ENTITY" in page.body.upper():
        raise Malformed(f"{page.url} is refused: its XML declares a document type")
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(page.body, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise Malformed(f"{page.url} is no XML") from error
    if root is None or root.tag != f"{{{_ATOM['atom']}}}feed":
        raise Malformed(f"{page.url} is no Atom feed")
    return root


async def scholar_papers(web: Web, query: str, limit: int = 10) -> list[Hit]:
    """https://api.semanticscholar.org/api-docs/graph: `GET /graph/v1/paper/search`."""
    params = {"query": query, "limit": str(limit), "fields": SCHOLAR_FIELDS}
    page = await web.get("https://api.semanticscholar.org/graph/v1/paper/search", params=params)
    answer = page.json()
    if not isinstance(answer, Mapping):
        raise Malformed(f"{page.url} did not answer with papers")
    # Without any hit the answer has no `data` at all.
    found = rows(answer.get("data", []), page)
    return [hit for each in found if (hit := scholar_hit(each, page)) is not None][:limit]


SCHOLAR_FIELDS = "title,abstract,year,externalIds,citationCount,authors"


def scholar_hit(row: Mapping[str, Any], page: Page) -> Hit | None:
    """A paper as Semantic Scholar tells it; None for one that it knows nothing of but the title's absence."""
    title = row.get("title")
    if not isinstance(title, str) or not title:
        return None
    outside = row.get("externalIds")
    arxiv = outside.get("ArXiv") if isinstance(outside, Mapping) else None
    identifier = arxiv or row.get("paperId") or ""
    abstract = row.get("abstract") or ""
    count = row.get("citationCount")
    year = row.get("year")
    return Hit(
        bare_id(str(identifier)), plain(title), plain(str(abstract)), year if isinstance(year, int) else None,
        names_of(row.get("authors")), page.url, page.fetched_at, (Catalogue.SCHOLAR.value,),
        citations=count if isinstance(count, int) else None, code=code_in(str(abstract)),
    )  # fmt: skip


_SEARCHES = {Catalogue.HUB: hub_papers, Catalogue.ARXIV: arxiv_papers, Catalogue.SCHOLAR: scholar_papers}


def rows(value: Any, page: Page) -> list[Mapping[str, Any]]:
    """A list of objects. Raises: Malformed."""
    if not isinstance(value, list) or not all(isinstance(each, Mapping) for each in value):
        raise Malformed(f"{page.url} did not answer with a list of papers")
    return value


def text_of(row: Mapping[str, Any], key: str, page: Page, *, missing: str | None = None) -> str:
    value = row.get(key, missing)
    if value is None and missing is not None:
        return missing
    if not isinstance(value, str) or (missing is None and not value):
        raise Malformed(f"{page.url} names a paper without its {key}")
    return value


def names_of(authors: Any) -> tuple[str, ...]:
    known = authors if isinstance(authors, list) else []
    return tuple(each["name"] for each in known if isinstance(each, Mapping) and isinstance(each.get("name"), str))


def bare_id(identifier: str) -> str:
    return re.sub(r"v\d{1,2}\Z", "", identifier)


def code_in(text: str) -> tuple[str, ...]:
    """Repositories that a text names."""
    return tuple(dict.fromkeys(found.rstrip(".,;)") for found in _CODE.findall(text)))


def _year(date: str) -> int | None:
    return int(date[:4]) if date[:4].isdigit() else None
