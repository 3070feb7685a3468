"""GitHub's REST endpoints, one file for each section of its reference."""

from __future__ import annotations

from ..routing import Endpoint
from . import (
    accounts,
    actions,
    apps,
    checks,
    collaborators,
    comments,
    commits,
    contents,
    git_data,
    issues,
    labels,
    pulls,
    reactions,
    repositories,
    review_comments,
    reviews,
    search,
    statuses,
)

SECTIONS = (
    accounts,
    apps,
    collaborators,
    comments,
    issues,
    labels,
    reactions,
    review_comments,
    reviews,
    pulls,
    checks,
    statuses,
    git_data,
    commits,
    contents,
    repositories,
    search,
    actions,
)


def endpoints() -> list[Endpoint]:
    """Every endpoint, the more specific paths of a section before those they would be swallowed by."""
    return [endpoint for section in SECTIONS for endpoint in section.routes.endpoints]
