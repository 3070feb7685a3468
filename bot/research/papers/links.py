"""What the Hub links to a paper: models, data sets, Spaces, and its code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bot.research.errors import Malformed, NotFound
from bot.research.papers.reading import arxiv_id
from bot.research.papers.search import bare_id, code_in
from bot.research.web import Page, Web


@dataclass(frozen=True, slots=True)
class Repository:
    id: str
    downloads: int | None
    likes: int | None


@dataclass(frozen=True, slots=True)
class Links:
    paper: str
    models: tuple[Repository, ...]
    datasets: tuple[Repository, ...]
    spaces: tuple[Repository, ...]
    code: tuple[str, ...]
    source: str
    fetched_at: float


async def links_of(web: Web, reference: str) -> Links:
    """Repositories that name this paper on their cards, most downloaded first, and its code.

    Raises: NotFound where the Hub knows neither the paper nor a repository that names it.
    """
    identifier = bare_id(arxiv_id(reference))
    page = await web.get(f"https://huggingface.co/api/arxiv/{identifier}/repos")
    answer = page.json()
    if not isinstance(answer, Mapping):
        raise Malformed(f"{page.url} did not answer with repositories")
    try:
        about = await web.get(f"https://huggingface.co/api/papers/{identifier}")
        code = _code(about)
    except NotFound:
        code = ()
    models, datasets, spaces = (_repositories(answer.get(kind, []), page) for kind in ("models", "datasets", "spaces"))
    return Links(identifier, models, datasets, spaces, code, page.url, page.fetched_at)


def _code(page: Page) -> tuple[str, ...]:
    answer = page.json()
    if not isinstance(answer, Mapping):
        raise Malformed(f"{page.url} did not answer with a paper")
    linked = [value for key in ("githubRepo", "projectPage") if isinstance(value := answer.get(key), str) and value]
    return tuple(dict.fromkeys((*linked, *code_in(str(answer.get("summary") or "")))))


def _repositories(value: Any, page: Page) -> tuple[Repository, ...]:
    if not isinstance(value, list) or not all(
        isinstance(each, Mapping) and isinstance(each.get("id"), str) for each in value
    ):
        raise Malformed(f"{page.url} names a repository without its id")
    found = [Repository(each["id"], _count(each.get("downloads")), _count(each.get("likes"))) for each in value]
    return tuple(sorted(found, key=lambda each: -(each.downloads or 0)))


def _count(value: object) -> int | None:
    return value if isinstance(value, int) else None
