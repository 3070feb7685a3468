"""Whom research may ask: the hosts, which of their paths, how often, and what kind of answer is read.

Nothing that is read can add to this list. Paths are those of the documented interfaces alone, so that a search cannot
be turned into a visit of somebody's own page.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_REPO = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9._-]{1,96})?"
_OWNED = r"[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100}"
_COMMIT = r"[0-9a-f]{40}"
_REVISION = rf"({_COMMIT}|[A-Za-z0-9._-]{{1,60}}|refs%2Fconvert%2Fparquet)"
_FILE = r"([A-Za-z0-9_][A-Za-z0-9_.@+=-]{0,99}/){0,6}[A-Za-z0-9_.][A-Za-z0-9_.@+=-]{0,99}"
_ARXIV = r"([0-9]{4}\.[0-9]{4,5}|[a-z-]{2,16}(\.[A-Z]{2})?/[0-9]{7})(v[0-9]{1,2})?"
_PAPER = (
    rf"({_COMMIT}|(ARXIV|arXiv|ArXiv):{_ARXIV}|CorpusId:[0-9]{{1,12}}|DOI:10\.[0-9]{{4,9}}/[A-Za-z0-9./()_-]{{1,80}})"
)


@dataclass(frozen=True, slots=True)
class Host:
    pause_seconds: float
    """Between the beginnings of two requests."""
    paths: re.Pattern[str]
    """What a request's path must be, whole."""
    content_types: tuple[str, ...] = ("application/json", "text/")
    """How an answer's content type begins."""
    free_parts: re.Pattern[str] | None = None
    """Parts of a path that are identifiers by their form, and are not read as words."""


_FIXED_IDS = re.compile(rf"(?<=/)({_COMMIT})(?=/|$)")

HOSTS: Mapping[str, Host] = {
    # 1,000 calls in five minutes without an account: https://huggingface.co/docs/hub/rate-limits
    "huggingface.co": Host(
        0.3,
        re.compile(
            rf"/api/(datasets|models|papers/search|daily_papers|papers/{_ARXIV}|(datasets|models)/{_REPO}"
            rf"|(datasets|models)/{_REPO}/(revision/{_REVISION}|parquet|leaderboard)"
            rf"|arxiv/{_ARXIV}/repos)"
            rf"|/papers/{_ARXIV}(\.md)?"
            rf"|/(datasets/)?{_REPO}/(resolve|raw)/{_REVISION}/{_FILE}"
            r"|/docs/(trl|transformers|datasets|peft|accelerate|hub|evaluate)(/[A-Za-z0-9._-]{1,60}){0,5}"
        ),
        ("application/json", "text/", "application/octet-stream"),
        _FIXED_IDS,
    ),
    # https://huggingface.co/docs/dataset-viewer/openapi
    "datasets-server.huggingface.co": Host(
        0.3, re.compile(r"/(splits|first-rows|rows|statistics|size|parquet|is-valid|info|search|filter)")
    ),
    # "no more than one request every three seconds": https://info.arxiv.org/help/api/tou.html
    "export.arxiv.org": Host(
        3.0,
        re.compile(rf"/api/query|/(abs|html|pdf|e-print|src)/{_ARXIV}"),
        ("application/", "text/", "image/x-eprint"),
    ),
    "arxiv.org": Host(
        3.0, re.compile(rf"/(abs|html|pdf|e-print|src)/{_ARXIV}(\.pdf)?"), ("application/", "text/", "binary/")
    ),
    # Asked through the App as a rule; this bounds what may be asked of it.
    "api.github.com": Host(
        0.2, re.compile(rf"/search/code|/repos/{_OWNED}(/contents(/[A-Za-z0-9_.@+=,()%~-]{{1,100}}){{0,12}})?")
    ),
    "ar5iv.labs.arxiv.org": Host(3.0, re.compile(rf"/html/{_ARXIV}"), ("text/html",)),
    # One a second with a key, less without: https://www.semanticscholar.org/product/api
    "api.semanticscholar.org": Host(
        1.1,
        re.compile(
            rf"/graph/v1/(paper/search(/match|/bulk)?|paper/{_PAPER}(/citations|/references)?|snippet/search)"
            rf"|/recommendations/v1/papers/forpaper/{_PAPER}"
        ),
        free_parts=_FIXED_IDS,
    ),
}  # fmt: skip
