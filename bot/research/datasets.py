"""Data sets of the Hugging Face Hub, found by task, language, licence, size and columns.

The Hub is asked by its documented address (https://huggingface.co/docs/hub/api#get-apidatasets) through `Web`, with
the parameters that `huggingface_hub.HfApi.list_datasets` sends: that client has no time-out, follows redirects to any
host and sleeps on a rate limit, so it judges the tests and does not carry the requests.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bot.research import viewer
from bot.research.errors import Malformed, Refused, ResearchError
from bot.research.viewer import Rows, Size, Split
from bot.research.web import Page, Web

BASE = "https://huggingface.co/api/datasets"
MOST_FOUND = 100
_EXPAND = (
    "cardData", "createdAt", "description", "disabled", "downloads", "gated", "lastModified", "likes", "private",
    "sha", "tags",
)  # fmt: skip
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9._-]{1,96})?")
_TRAIN = ("train", "training")


@dataclass(frozen=True, slots=True)
class Dataset:
    id: str
    sha: str
    licences: tuple[str, ...]
    languages: tuple[str, ...]
    tasks: tuple[str, ...]
    size_categories: tuple[str, ...]
    """As its author wrote them: `10K<n<100K`."""
    downloads: int
    """In the last 30 days."""
    likes: int
    gated: bool
    private: bool
    modified_at: float | None
    """Seconds since the epoch."""
    description: str
    source: str
    fetched_at: float

    @property
    def url(self) -> str:
        return f"https://huggingface.co/datasets/{self.id}"


@dataclass(frozen=True, slots=True)
class Seen:
    """A data set with what the viewer showed of it. `problem` is one sentence where it showed less."""

    dataset: Dataset
    size: Size | None = None
    rows: Rows | None = None
    problem: str = ""

    @property
    def training_rows(self) -> int | None:
        """Of the split that was looked at; of the whole where that is not known."""
        if self.size is None:
            return None
        if self.rows is not None:
            here = (self.rows.config, self.rows.split)
            return next((each.rows for each in self.size.splits if (each.config, each.name) == here), self.size.rows)
        return self.size.rows


async def search(
    web: Web, query: str = "", *, task: str = "", language: str = "", licence: str = "", size: str = "",
    author: str = "", limit: int = 20,
) -> list[Dataset]:  # fmt: skip
    """Public data sets, the most downloaded first. `size` is one of the Hub's categories, `10K<n<100K`.

    Raises: Refused, Busy, Malformed.
    """
    named = {"language": language, "size_categories": size, "task_categories": task, "license": licence}
    filters = [f"{key}:{value}" for key, value in named.items() if value]
    params: dict[str, str | Sequence[str]] = {"sort": "downloads", "limit": str(max(1, min(limit, MOST_FOUND)))}
    params["expand"] = _EXPAND
    if filters:
        params["filter"] = filters
    if author:
        params["author"] = author
    if query:
        params["search"] = query
    page = await web.get(BASE, params=params)
    answer = page.json()
    if not isinstance(answer, list):
        raise Malformed("The Hub's list of data sets is none.")
    found = [_dataset(page, each) for each in answer[:MOST_FOUND]]
    return [each for each in found if not each.private]


async def information(web: Web, dataset: str) -> Dataset:
    """One data set by its id. Raises: NotFound, Refused (gated or private included), Busy, Malformed."""
    if not _ID.fullmatch(dataset):
        raise Refused(f"`{dataset[:80]}` is no name of a data set: write it as `owner/name`.")
    try:
        page = await web.get(f"{BASE}/{dataset}", params={"expand": _EXPAND})
    except Refused as error:
        if error.status in (401, 403):
            raise Refused(f"The Hub shows no data set `{dataset}` to the public: it does not exist, or is private.",
                          status=error.status, code=error.code) from error  # fmt: skip
        raise
    return _dataset(page, page.json())


async def look(web: Web, dataset: Dataset) -> Seen:
    """Its size and the first rows of its training split; where the viewer shows less, its `problem` says why."""
    try:
        there = await viewer.splits(web, dataset.id)
        split = training_split(there)
        if split is None:
            return Seen(dataset, problem="The viewer lists no split of it.")
        first = await viewer.first_rows(web, dataset.id, split.config, split.name)
        return Seen(dataset, await viewer.size(web, dataset.id), first)
    except ResearchError as error:
        return Seen(dataset, problem=str(error))


def training_split(splits: Sequence[Split]) -> Split | None:
    """The split called train, of the configuration called default or named first; else the first one."""
    ordered = sorted(splits, key=lambda each: (each.name not in _TRAIN, each.config not in ("default", "main")))
    return ordered[0] if ordered else None


def _dataset(page: Page, each: Any) -> Dataset:
    if not isinstance(each, dict) or not isinstance(each.get("id"), str):
        raise Malformed("The Hub described a data set without its `id`.")
    tags = each.get("tags") or []
    if not isinstance(tags, list):
        raise Malformed(f"The Hub's `tags` of {each['id']} are no list.")
    tagged = {key: _tagged(tags, key) for key in ("license", "language", "task_categories", "size_categories")}
    source = f"https://huggingface.co/datasets/{each['id']}"
    return Dataset(
        id=each["id"],
        sha=str(each.get("sha") or ""),
        licences=tagged["license"],
        languages=tagged["language"],
        tasks=tagged["task_categories"],
        size_categories=tagged["size_categories"],
        downloads=_count(each, "downloads"),
        likes=_count(each, "likes"),
        gated=bool(each.get("gated")),
        private=bool(each.get("private")) or bool(each.get("disabled")),
        modified_at=_moment(each.get("lastModified")),
        description=" ".join(str(each.get("description") or "").split())[:2000],
        source=source,
        fetched_at=page.fetched_at,
    )


def _tagged(tags: Sequence[Any], key: str) -> tuple[str, ...]:
    return tuple(tag.partition(":")[2] for tag in tags if isinstance(tag, str) and tag.startswith(f"{key}:"))


def _count(each: Mapping[str, Any], key: str) -> int:
    value = each.get(key) or 0
    if isinstance(value, bool) or not isinstance(value, int):
        raise Malformed(f"The Hub's `{key}` of {each['id']} is no number.")
    return value


def _moment(value: Any) -> float | None:
    try:
        return datetime.fromisoformat(str(value)).timestamp() if value else None
    except ValueError:
        raise Malformed(f"The Hub wrote a moment as `{str(value)[:40]}`.") from None
