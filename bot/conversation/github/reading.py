"""What one repository holds, as one installation sees it. What is polled is asked for conditionally."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from bot.conversation.github.answers import read_json
from bot.conversation.github.errors import Gone, Refused

if TYPE_CHECKING:
    from bot.conversation.github.client import GitHubApp

ROLES = ("admin", "maintain", "write", "triage", "read", "none")


@dataclass(frozen=True, slots=True)
class CommitSeen:
    """A commit as GitHub shows it. `login` and `user_id` are the author's account, None where it knows none."""

    sha: str
    message: str
    login: str | None
    user_id: int | None
    verified: bool
    parents: tuple[str, ...]


class Reader:
    """Every method may raise TransientError, Refused, and Gone once the repository is out of reach for good."""

    def __init__(self, app: GitHubApp, installation_id: int, owner: str, name: str) -> None:
        self._app, self._installation_id = app, installation_id
        self.owner, self.name = owner, name
        self._root = f"/repos/{quoted(owner)}/{quoted(name)}"

    @property
    def page(self) -> str:
        """The repository's page in a browser."""
        return f"{self._app.server.html}/{self.owner}/{self.name}"

    async def _response(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return await self._app.call(self._installation_id, method, self._root + path, **options)
        except Refused as refused:
            await self._require_repository(refused, path)
            raise

    async def _require_repository(self, refused: Refused, path: str) -> None:
        """Raises: Gone when what was refused was not found because the repository itself is not there."""
        if refused.status not in (404, 410) or isinstance(refused, Gone):
            return
        if path:
            try:
                await self._app.call(self._installation_id, "GET", self._root, conditional=True)
                return
            except Refused as other:
                if other.status not in (404, 410):
                    raise
        where = f"{self.owner}/{self.name}"
        raise Gone(404, f"{where} is out of reach: deleted, moved, or taken from the App") from refused

    async def _call(self, method: str, path: str, **options: Any) -> Any:
        response = await self._response(method, path, **options)
        return read_json(response) if response.content else None

    async def _get_or_none(self, path: str, **options: Any) -> Any:
        try:
            return await self._call("GET", path, **options)
        except Gone:
            raise
        except Refused as refused:
            if refused.status in (404, 409):  # 409: an empty repository has no refs
                return None
            raise

    async def _pages(
        self, path: str, params: Mapping[str, Any] | None = None, *, within: str | None = None
    ) -> list[Any]:
        try:
            return await self._app.pages(
                self._installation_id, self._root + path, params=params, within=within, conditional=True
            )
        except Refused as refused:
            await self._require_repository(refused, path)
            raise

    # Code

    async def describe(self) -> dict[str, Any]:
        """The repository itself: `default_branch`, `archived`, `private`, `fork`, `permissions` ..."""
        found: dict[str, Any] = await self._call("GET", "", conditional=True)
        return found

    async def default_branch(self) -> tuple[str, str]:
        """(name, sha of its head)."""
        name = (await self.describe())["default_branch"]
        return name, await self.branch_head(name) or ""

    async def branch_head(self, branch: str) -> str | None:
        """The commit that the branch stands at, None when there is no such branch."""
        ref = await self._get_or_none(f"/git/ref/heads/{quoted(branch)}", conditional=True)
        return ref["object"]["sha"] if isinstance(ref, dict) else None

    async def commit_at(self, sha: str) -> CommitSeen | None:
        """The commit, with whose account it is and whether its signature is good; None when there is none."""
        try:
            found = await self._call("GET", f"/commits/{quoted(sha)}", conditional=True)
        except Gone:
            raise
        except Refused as refused:
            if refused.status in (404, 409, 422):
                return None
            raise
        author, commit = found.get("author") or {}, found["commit"]
        return CommitSeen(
            sha=found["sha"],
            message=commit["message"],
            login=author.get("login"),
            user_id=author.get("id"),
            verified=bool((commit.get("verification") or {}).get("verified")),
            parents=tuple(parent["sha"] for parent in found.get("parents") or ()),
        )

    async def file(self, path: str, ref: str) -> bytes | None:
        """The file's bytes at `ref`, None when there is none (or a folder lies there)."""
        accept = {"Accept": "application/vnd.github.raw+json"}
        try:
            response = await self._response(
                "GET", f"/contents/{quoted(path)}", params={"ref": ref}, headers=accept, conditional=True
            )
        except Gone:
            raise
        except Refused as refused:
            if refused.status == 404:
                return None
            raise
        return None if _is_folder(response) else response.content

    async def folder(self, path: str, ref: str) -> list[str]:
        """Paths of the files directly in a folder; empty when there is none."""
        rows = await self._get_or_none(f"/contents/{quoted(path)}", params={"ref": ref})
        return [row["path"] for row in rows if row["type"] == "file"] if isinstance(rows, list) else []

    async def entry(self, path: str, ref: str) -> dict[str, Any] | None:
        """`type` (file, dir, symlink or submodule), `size` and `sha` of what lies at `path`; None when nothing does.

        Asked of the folder, because a file's own answer follows a symbolic link without saying so:
        https://docs.github.com/en/rest/repos/contents#get-repository-content
        """
        parent = path.strip("/").rpartition("/")[0]
        rows = await self._get_or_none(f"/contents/{quoted(parent)}" if parent else "/contents", params={"ref": ref})
        if not isinstance(rows, list):
            return None
        found: dict[str, Any] | None = next((row for row in rows if row["path"] == path.strip("/")), None)
        if found is None and len(rows) >= 1_000:  # the most that a folder's answer lists
            direct = await self._get_or_none(f"/contents/{quoted(path)}", params={"ref": ref})
            found = {"type": "dir", "size": 0, "sha": "", "path": path} if isinstance(direct, list) else direct
        return found

    # Conversations

    async def issue(self, number: int) -> dict[str, Any]:
        found: dict[str, Any] = await self._call("GET", f"/issues/{number}", conditional=True)
        return found

    async def labelled_by(self, number: int, label: str) -> tuple[int, str, str] | None:
        """(id, login, account type) of whoever put `label` on the issue last; None when nobody is known to have."""
        found = None
        for row in await self._pages(f"/issues/{number}/events"):
            if row["event"] == "labeled" and (row.get("label") or {}).get("name") == label and row.get("actor"):
                found = (int(row["actor"]["id"]), str(row["actor"]["login"]), str(row["actor"].get("type", "User")))
        return found

    async def issues(
        self, *, labels: Sequence[str] = (), state: str = "open", since: str | None = None
    ) -> list[dict[str, Any]]:
        """Issues that carry all `labels`, without the pull requests that GitHub lists among them.

        `state` is open, closed or all; `since` an ISO time: what changed then or later.
        """
        params = {"state": state} | ({"labels": ",".join(labels)} if labels else {})
        rows = await self._pages("/issues", params | ({"since": since} if since else {}))
        return [row for row in rows if "pull_request" not in row]

    async def comments(self, number: int, *, since: str | None = None) -> list[dict[str, Any]]:
        """The conversation, oldest first: `user` with id and type, `body`, `created_at`, `updated_at`.

        `since` is an ISO time: what was written or edited then or later.
        """
        return await self._pages(f"/issues/{number}/comments", {"since": since} if since else None)

    async def pull_request(self, number: int) -> dict[str, Any]:
        found: dict[str, Any] = await self._call("GET", f"/pulls/{number}", conditional=True)
        return found

    async def pull_request_or_none(self, number: int) -> dict[str, Any] | None:
        """None when that number is an issue's."""
        found: dict[str, Any] | None = await self._get_or_none(f"/pulls/{number}")
        return found

    async def pull_requests(self, *, state: str = "open", head: str | None = None) -> list[dict[str, Any]]:
        """Pull requests, newest first. `state` is open, closed or all; `head` is `owner:branch`, whole."""
        return await self._pages("/pulls", {"state": state} | ({"head": head} if head else {}))

    async def permission(self, login: str, user_id: int) -> str:
        """`admin`, `maintain`, `write`, `triage`, `read` or `none`, asked now and never remembered.

        The answer counts only when it is about the same numeric account: a login can be renamed and taken over.
        """
        found = await self._get_or_none(f"/collaborators/{quoted(login)}/permission")
        if not found or (found.get("user") or {}).get("id") != user_id:
            return "none"
        role = str(found.get("role_name"))
        # An organization's own roles have names of their own; `permission` is then the role that they build on.
        return role if role in ROLES else str(found["permission"])


def _is_folder(response: httpx.Response) -> bool:
    """Whether raw contents were asked for and a folder's listing came."""
    if not response.headers.get("content-type", "").startswith("application/json"):
        return False
    try:
        return isinstance(response.json(), list)
    except ValueError:
        return False


def quoted(path: str) -> str:
    """A path or name from outside as part of a URL: `#`, `?` and `%` stay letters of it.

    Raises: Refused for `.` and `..`, which would lead out of the repository.
    """
    if any(part in (".", "..") for part in path.split("/")):
        raise Refused(404, "there is no such path")
    return urllib.parse.quote(path, safe="/")
