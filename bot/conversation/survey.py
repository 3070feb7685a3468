"""Going and looking: what GitHub holds now, in the shape in which its webhooks would have told it.

Rows are GitHub's own JSON. What changed is asked for by repository, so that a hundred goals cost no more than one.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bot.conversation.github import GitHubApp, Refused

Json = dict[str, Any]

MOST_PAGES = 10
"""Of 100 rows each; what lies beyond is left for the next look."""
MOST_VERSIONS = 12
"""Versions of one file that are looked through."""

_EDITORS = """
query($id: ID!) {
  node(id: $id) {
    ... on IssueComment { author { login } userContentEdits(first: 100) { totalCount nodes { editor { login } } } }
    ... on PullRequestReviewComment {
      author { login } userContentEdits(first: 100) { totalCount nodes { editor { login } } }
    }
    ... on PullRequestReview { author { login } userContentEdits(first: 100) { totalCount nodes { editor { login } } } }
  }
}
"""


@dataclass(frozen=True, slots=True)
class Touched:
    """What changed in a repository since a moment."""

    numbers: frozenset[int]
    """Issues and pull requests that changed, or whose comments did."""
    heads: Mapping[str, str]
    """Branch -> commit it stands at, for every branch whose name begins as ours do."""


class Survey:
    """One repository through one installation. Every method may raise TransientError or Refused."""

    def __init__(self, app: GitHubApp, installation_id: int, full_name: str) -> None:
        self._app, self.installation_id, self.full_name = app, installation_id, full_name
        self._root = f"/repos/{full_name}"

    async def _get(self, path: str, /, **params: Any) -> Any:
        # Asked conditionally: what has not changed costs nothing of the hourly limit.
        path = self._root + path
        response = await self._app.call(self.installation_id, "GET", path, params=params or None, conditional=True)
        return response.json() if response.content else None

    async def _found(self, path: str, /, **params: Any) -> Any:
        """None where GitHub says that there is nothing (any more)."""
        try:
            return await self._get(path, **params)
        except Refused as refused:
            if refused.status in (404, 409, 410, 422):
                return None
            raise

    async def _pages(self, path: str, /, **params: Any) -> list[Json]:
        rows: list[Json] = []
        for page in range(1, MOST_PAGES + 1):
            found = await self._get(path, per_page=100, page=page, **params)
            rows += found
            if len(found) < 100:
                break
        return rows

    async def touched(self, since: float, prefix: str) -> Touched:
        """What changed since `since` (Unix seconds), and the heads of all branches that begin with `prefix`."""
        moment = stamp(since)
        numbers = {int(row["number"]) for row in await self._pages("/issues", state="all", since=moment)}
        numbers |= {_last_part(row["issue_url"]) for row in await self._pages("/issues/comments", since=moment)}
        numbers |= {_last_part(row["pull_request_url"]) for row in await self._pages("/pulls/comments", since=moment)}
        refs = await self._get(f"/git/matching-refs/heads/{prefix}")  # GitHub describes no pages for this list
        heads = {row["ref"].removeprefix("refs/heads/"): row["object"]["sha"] for row in refs}
        return Touched(frozenset(numbers), heads)

    # Issues and pull requests

    async def issue(self, number: int) -> Json | None:
        """None when it was deleted, or moved to another repository."""
        found: Json | None = await self._found(f"/issues/{number}")
        if found is None or found.get("number") != number or not _within(found["repository_url"], self.full_name):
            return None
        return found

    async def labelled_issues(self, label: str) -> list[Json]:
        """Open issues that carry the label, pull requests left out."""
        rows = await self._pages("/issues", state="open", labels=label)
        return [row for row in rows if "pull_request" not in row]

    async def labelled(self, number: int, label: str) -> tuple[Json, float] | None:
        """(account, Unix seconds) of who put the label on the issue first; None when nobody did."""
        for event in await self._pages(f"/issues/{number}/events"):
            if event["event"] == "labeled" and event.get("label", {}).get("name") == label and event.get("actor"):
                return event["actor"], moment(event["created_at"])
        return None

    async def pull(self, number: int) -> Json | None:
        found: Json | None = await self._found(f"/pulls/{number}")
        return found

    async def pulls(self, since: float) -> list[Json]:
        """Open pull requests, and the closed ones that changed since `since`."""
        rows = await self._pages("/pulls", state="open")
        for page in range(1, MOST_PAGES + 1):
            found = await self._get("/pulls", state="closed", sort="updated", direction="desc", per_page=100, page=page)
            rows += [row for row in found if moment(row["updated_at"]) >= since]
            if len(found) < 100 or moment(found[-1]["updated_at"]) < since:
                break
        return rows

    # What people said

    async def comments(self, number: int) -> list[Json]:
        return await self._pages(f"/issues/{number}/comments")

    async def latest_comments(self) -> list[Json]:
        """Of the whole repository's conversations, the newest first."""
        return await self._pages("/issues/comments", sort="created", direction="desc")

    async def review_comments(self, number: int) -> list[Json]:
        return await self._pages(f"/pulls/{number}/comments")

    async def reviews(self, number: int) -> list[Json]:
        return await self._pages(f"/pulls/{number}/reviews")

    async def wholly_own(self, row: Json) -> bool:
        """Whether a comment or review was never changed by anybody but its author.

        Whoever can write to the repository can edit others' comments, and REST does not tell who did.
        """
        try:
            answer = await self._app.graphql(self.installation_id, _EDITORS, {"id": row["node_id"]})
        except Refused:
            return False
        node = answer.get("node") or {}
        edits, author = node.get("userContentEdits"), (node.get("author") or {}).get("login")
        if edits is None:
            return author is not None
        editors = [(edit.get("editor") or {}).get("login") for edit in edits["nodes"]]
        return author is not None and len(editors) == edits["totalCount"] and set(editors) <= {author}

    # What stands on a branch

    async def commit(self, sha: str) -> Json | None:
        found: Json | None = await self._found(f"/commits/{sha}")
        return found

    async def head(self, branch: str) -> str | None:
        found = await self._found(f"/git/ref/heads/{branch}")
        return str(found["object"]["sha"]) if found else None

    async def versions(self, path: str, sha: str) -> list[str]:
        """Commits up to `sha` that touched the file, newest first."""
        rows = await self._found("/commits", sha=sha, path=path, per_page=MOST_VERSIONS) or []
        return [str(row["sha"]) for row in rows]

    async def checks(self, sha: str) -> frozenset[str]:
        """External ids of the check runs on a commit."""
        found = await self._found(f"/commits/{sha}/check-runs", per_page=100) or {"check_runs": []}
        return frozenset(row["external_id"] for row in found["check_runs"] if row.get("external_id"))


async def installations(app: GitHubApp) -> list[Json]:
    """Where the App is installed."""
    return await app.installation_rows()


async def repositories(app: GitHubApp, installation_id: int) -> list[Json]:
    """The repositories that an installation covers."""
    return await app.installation_repositories(installation_id)


async def gone(app: GitHubApp, installation_id: int, full_name: str) -> str | None:
    """Why we cannot act in this repository any more, as the end of a sentence; None while we can.

    Only GitHub's own plain answer counts: an outage, a limit or a missing permission is no farewell.
    """
    installation = await app.installation_row(installation_id)
    if installation is None:
        return "the App was uninstalled"
    if installation.get("suspended_at"):
        return "the App's installation was suspended"
    try:
        await app.call(installation_id, "GET", f"/repos/{full_name}")
    except Refused as refused:
        if refused.status in (404, 410):
            return f"the repository {full_name} is gone, or was taken from the App"
        raise
    return None


def moment(text: object) -> float:
    """Unix seconds of one of GitHub's ISO timestamps; 0 for none."""
    return datetime.datetime.fromisoformat(str(text)).timestamp() if text else 0.0


def stamp(seconds: float) -> str:
    """GitHub's ISO form of Unix seconds."""
    return datetime.datetime.fromtimestamp(max(0.0, seconds), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _last_part(url: str) -> int:
    return int(url.rpartition("/")[2])


def _within(url: str, full_name: str) -> bool:
    return url.lower().endswith(f"/repos/{full_name.lower()}")
