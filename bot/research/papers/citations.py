"""Who cites a paper and whom it cites, with the sentences and the reasons, by Semantic Scholar's graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bot.research.errors import Malformed
from bot.research.papers.reading import arxiv_id
from bot.research.papers.search import SCHOLAR_FIELDS, Hit, bare_id, rows, scholar_hit
from bot.research.papers.tex_math import plain
from bot.research.web import Web


@dataclass(frozen=True, slots=True)
class Citation:
    """One paper at the other end of a citation."""

    paper: Hit
    contexts: tuple[str, ...]
    """Sentences in which it is cited."""
    intents: tuple[str, ...]
    """`methodology`, `background`, `result`."""
    influential: bool


@dataclass(frozen=True, slots=True)
class Citations:
    paper: str
    citations: tuple[Citation, ...]
    source: str
    fetched_at: float
    withheld: bool
    """The publisher keeps the list from being shown."""


async def citations_of(web: Web, reference: str, *, limit: int = 50) -> Citations:
    """Papers that cite this one."""
    return await _asked(web, reference, "citations", "citingPaper", limit)


async def references_of(web: Web, reference: str, *, limit: int = 50) -> Citations:
    """Papers that this one cites."""
    return await _asked(web, reference, "references", "citedPaper", limit)


async def _asked(web: Web, reference: str, side: str, key: str, limit: int) -> Citations:
    identifier = bare_id(arxiv_id(reference))
    page = await web.get(
        f"https://api.semanticscholar.org/graph/v1/paper/ARXIV:{identifier}/{side}",
        params={"fields": f"contexts,intents,isInfluential,{SCHOLAR_FIELDS}", "limit": str(min(limit, 1000))},
    )
    answer = page.json()
    if not isinstance(answer, Mapping) or "data" not in answer:
        raise Malformed(f"{page.url} did not answer with {side}")
    if answer["data"] is None:
        return Citations(identifier, (), page.url, page.fetched_at, withheld=True)
    found = []
    for row in rows(answer["data"], page):
        other = row.get(key)
        hit = scholar_hit(other, page) if isinstance(other, Mapping) else None
        if hit is not None:
            found.append(
                Citation(hit, _texts(row.get("contexts")), _texts(row.get("intents")), row.get("isInfluential") is True)
            )
    found.sort(key=lambda each: (not each.influential, -(each.paper.citations or 0)))
    return Citations(identifier, tuple(found), page.url, page.fetched_at, withheld=False)


def _texts(value: object) -> tuple[str, ...]:
    return tuple(plain(each) for each in value if isinstance(each, str)) if isinstance(value, list) else ()
