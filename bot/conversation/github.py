"""The narrow port to GitHub: every call Postdoc makes, made so that making it twice changes nothing.

`GitHubApp` is the App; `Repository` is one repository as one installation sees it. A create first looks for what an
earlier, interrupted attempt may have left (a comment's hidden key, a check run's external id, a commit's trailer), so
that a replayed action edits instead of saying the same thing again.

Every text that is written passes `redaction` here, at the one door that all of them leave by.

Raw requests are used instead of githubkit's typed models: the models cost about 190 MiB of memory once parsed, and a
server of another version then fails on a field we never read.
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import urllib.parse
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import httpx
from githubkit import AppAuthStrategy, GitHub, Response
from githubkit.exception import GitHubException, GraphQLFailed, RequestError, RequestFailed, RequestTimeout

from bot.conversation.redaction import redact, redacted_bytes
from bot.errors import PostdocError, TransientError

OnWrite = Callable[[str], Awaitable[None]]
"""Called with `METHOD path` after each request that changed something."""


class StaleHead(PostdocError):
    """The branch has moved since it was read; nothing was committed."""


class Refused(PostdocError):
    """GitHub understood the request and said no (403, 404 on a write, 422). `status` is its code."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"GitHub answered {status}: {message}")
        self.status = status


@dataclass(frozen=True, slots=True)
class InlineComment:
    """A review comment on one line of the pull request's own side; `line` None attaches it to the file."""

    path: str
    line: int | None
    body: str


class _Connections(httpx.AsyncBaseTransport):
    """One pool of connections for every client, and one for each event loop.

    githubkit keeps its client in a context variable, so that any task but the one that entered it makes a client for
    each call and closes it: closing such a client must not close the connections. And DBOS runs the workflows that it
    recovers on a loop of its own, where the connections of the server's loop cannot be used.
    """

    def __init__(self) -> None:
        self._pools: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncHTTPTransport] = WeakKeyDictionary()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        loop = asyncio.get_running_loop()
        if loop not in self._pools:
            self._pools[loop] = httpx.AsyncHTTPTransport(trust_env=False)
        return await self._pools[loop].handle_async_request(request)

    async def aclose(self) -> None:
        return None

    async def close(self) -> None:
        """Close the connections of the loop that this runs on; another loop's end with it."""
        pool = self._pools.pop(asyncio.get_running_loop(), None)
        if pool is not None:
            await pool.aclose()


class GitHubApp:
    """The App on one GitHub server.

    `base_url` is the REST root: `https://api.github.com`, or `https://HOST/api/v3` on GitHub Enterprise Server.
    """

    def __init__(
        self,
        *,
        app_id: str,
        private_key: str,
        base_url: str = "https://api.github.com",
        on_write: OnWrite | None = None,
        known_secrets: Sequence[str] = (),
    ) -> None:
        self._known_secrets = tuple(known_secrets)
        self._connections = _Connections()
        self._github = GitHub(
            AppAuthStrategy(app_id, private_key),
            base_url=base_url,
            http_cache=False,  # its in-memory SQLite costs 8 to 11 ms a call
            auto_retry=False,  # the durable step retries
            async_transport=self._connections,
            timeout=httpx.Timeout(20.0),
            user_agent="postdoc",
            trust_env=False,
        )
        self._installations: dict[int, GitHub[Any]] = {}
        self._on_write = on_write
        self._login: str | None = None
        self._asked: Counter[str] = Counter()
        self.writes = 0

    async def __aenter__(self) -> GitHubApp:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._connections.close()

    async def login(self) -> str:
        """The App's own account name, `<slug>[bot]`."""
        if self._login is None:
            app = (await self._request(self._github, "GET", "/app")).json()
            self._login = f"{app['slug']}[bot]"
        return self._login

    async def redeliver_missed(self, *, limit: int = 300) -> int:
        """Ask again for the App's deliveries that never arrived, newest first; returns how many.

        GitHub does not retry by itself and keeps deliveries for three days:
        https://docs.github.com/en/webhooks/using-webhooks/automatically-redelivering-failed-deliveries-for-a-github-app-webhook
        """
        arrived: set[str] = set()
        missed: dict[str, int] = {}
        cursor, seen = None, 0
        while seen < limit:
            params = {"per_page": 100} | ({"cursor": cursor} if cursor else {})
            response = await self._request(self._github, "GET", "/app/hook/deliveries", params=params)
            rows = response.json()
            for row in rows:
                seen += 1
                if 200 <= row["status_code"] < 300:
                    arrived.add(row["guid"])
                else:
                    missed.setdefault(row["guid"], row["id"])
            cursor = _cursor(response.headers.get("link", ""))
            if not rows or cursor is None:
                break
        # At most twice by one process: a delivery that is refused again and again is not a missed one.
        lost = [(guid, each) for guid, each in missed.items() if guid not in arrived and self._asked[guid] < 2]
        for guid, delivery_id in reversed(lost):
            self._asked[guid] += 1
            await self._request(self._github, "POST", f"/app/hook/deliveries/{delivery_id}/attempts")
        return len(lost)

    def repository(self, installation_id: int, owner: str, name: str) -> Repository:
        return Repository(self, installation_id, owner, name)

    async def call(
        self, installation_id: int, method: str, path: str, *, json: Any = None, params: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response[Any, Any]:  # fmt: skip
        """One REST request as an installation.

        Raises: TransientError for what may pass (network, 5xx, rate limits), Refused for every other refusal.
        """
        client = self._installation(installation_id)
        return await self._request(client, method, path, json=json, params=params, headers=headers)

    async def graphql(self, installation_id: int, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        client = self._installation(installation_id)
        try:
            answer: dict[str, Any] = await client.graphql.arequest(query, self._clean(variables))
        except GraphQLFailed as error:
            errors = error.response.errors or []
            text = "; ".join(str(item.message) for item in errors)
            if any(str(item.type) == "STALE_DATA" for item in errors) or "expected branch" in text.lower():
                raise StaleHead(text) from error
            raise Refused(422, text) from error
        except GitHubException as error:
            raise _translated(error) from error
        await self._wrote("POST /graphql")
        return answer

    def _installation(self, installation_id: int) -> GitHub[Any]:
        if installation_id not in self._installations:
            client = self._github.with_auth(self._github.auth.as_installation(installation_id))
            self._installations[installation_id] = client
        return self._installations[installation_id]

    async def _request(self, client: GitHub[Any], method: str, path: str, **options: Any) -> Response[Any, Any]:
        if options.get("json") is not None:
            options["json"] = self._clean(options["json"])
        try:
            response = await client.arequest(method, path, **{k: v for k, v in options.items() if v is not None})
        except GitHubException as error:
            raise _translated(error) from error
        if method != "GET":
            await self._wrote(f"{method} {path}")
        return response

    def _clean(self, value: Any, name: str = "") -> Any:
        """A copy of what is about to be sent without secrets; `contents` is a file of a commit, in base64."""
        if isinstance(value, str):
            if name == "contents":
                return base64.b64encode(redacted_bytes(base64.b64decode(value), self._known_secrets)).decode()
            return redact(value, self._known_secrets)
        if isinstance(value, Mapping):
            return {key: self._clean(content, key) for key, content in value.items()}
        return [self._clean(content) for content in value] if isinstance(value, (list, tuple)) else value

    async def _wrote(self, what: str) -> None:
        self.writes += 1
        if self._on_write is not None:
            await self._on_write(what)


def _translated(error: GitHubException) -> PostdocError:
    if isinstance(error, RequestTimeout):
        return TransientError("GitHub did not answer in time")
    if isinstance(error, RequestFailed):
        response = error.response
        status, message = response.status_code, _message(response)
        wait = _retry_after(response)
        # https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api
        limited = status == 429 or (status == 403 and (wait is not None or "rate limit" in message.lower()))
        if limited:
            return TransientError(f"GitHub's rate limit: {message}", retry_after_seconds=wait or 60.0)
        if status >= 500 or status == 401:
            return TransientError(f"GitHub answered {status}: {message}")
        return Refused(status, message)
    if isinstance(error, RequestError) and isinstance(error.exc, GitHubException):
        return _translated(error.exc)  # the request for an installation token was refused inside of another request
    if isinstance(error, RequestError):
        return TransientError(f"GitHub could not be reached: {error.exc}")
    return TransientError(f"GitHub client: {error}")


def _cursor(link: str) -> str | None:
    """The `cursor` of the next page, from a Link header."""
    for part in link.split(","):
        if 'rel="next"' in part:
            query = urllib.parse.urlsplit(part.partition("<")[2].partition(">")[0]).query
            return next(iter(urllib.parse.parse_qs(query).get("cursor", [])), None)
    return None


def _message(response: Response[Any, Any]) -> str:
    try:
        body = response.json()
    except ValueError:
        return "(no message)"
    if not isinstance(body, dict):
        return "(no message)"
    details = "; ".join(
        str(item.get("message", item) if isinstance(item, dict) else item) for item in body.get("errors") or ()
    )
    return f"{body.get('message', '(no message)')}{': ' + details if details else ''}"


def _retry_after(response: Response[Any, Any]) -> float | None:
    headers = response.headers
    if "retry-after" in headers:
        return float(headers["retry-after"])
    if headers.get("x-ratelimit-remaining") == "0" and "x-ratelimit-reset" in headers:
        now = datetime.datetime.now(datetime.UTC).timestamp()
        return max(1.0, float(headers["x-ratelimit-reset"]) - now)
    return None


_COMMIT = """
mutation($input: CreateCommitOnBranchInput!) {
  createCommitOnBranch(input: $input) { commit { oid } }
}
"""
_READY = """
mutation($id: ID!) {
  markPullRequestReadyForReview(input: {pullRequestId: $id}) { pullRequest { isDraft } }
}
"""


class Repository:
    """One repository through one installation. Every method may raise TransientError or Refused."""

    def __init__(self, app: GitHubApp, installation_id: int, owner: str, name: str) -> None:
        self._app, self._installation_id = app, installation_id
        self.owner, self.name = owner, name
        self._root = f"/repos/{owner}/{name}"

    async def _call(self, method: str, path: str, **options: Any) -> Any:
        response = await self._app.call(self._installation_id, method, self._root + path, **options)
        return response.json() if response.content else None

    async def _get_or_none(self, path: str, **options: Any) -> Any:
        try:
            return await self._call("GET", path, **options)
        except Refused as refused:
            if refused.status in (404, 409):  # 409: an empty repository has no refs
                return None
            raise

    async def _pages(self, path: str, *, limit: int = 30) -> list[Any]:
        found: list[Any] = []
        for page in range(1, limit + 1):
            rows = await self._call("GET", path, params={"per_page": 100, "page": page})
            found.extend(rows)
            if len(rows) < 100:
                break
        return found

    # Reading

    async def default_branch(self) -> tuple[str, str]:
        """(name, sha of its head)."""
        name = (await self._call("GET", ""))["default_branch"]
        return name, await self.branch_head(name) or ""

    async def branch_head(self, branch: str) -> str | None:
        ref = await self._get_or_none(f"/git/ref/heads/{branch}")
        return ref["object"]["sha"] if ref else None

    async def file(self, path: str, ref: str) -> bytes | None:
        """The file's bytes at `ref`, None when there is none (or a folder lies there)."""
        try:
            response = await self._app.call(
                self._installation_id, "GET", f"{self._root}/contents/{path}", params={"ref": ref},
                headers={"Accept": "application/vnd.github.raw+json"},
            )  # fmt: skip
        except Refused as refused:
            if refused.status == 404:
                return None
            raise
        if response.headers.get("content-type", "").startswith("application/json") and isinstance(
            response.json(), list
        ):
            return None
        content: bytes = response.content
        return content

    async def folder(self, path: str, ref: str) -> list[str]:
        """Paths of the files directly in a folder; empty when there is none."""
        rows = await self._get_or_none(f"/contents/{path}", params={"ref": ref})
        return [row["path"] for row in rows if row["type"] == "file"] if isinstance(rows, list) else []

    async def issue(self, number: int) -> dict[str, Any]:
        found: dict[str, Any] = await self._call("GET", f"/issues/{number}")
        return found

    async def pull_request(self, number: int) -> dict[str, Any]:
        found: dict[str, Any] = await self._call("GET", f"/pulls/{number}")
        return found

    async def permission(self, login: str, user_id: int) -> str:
        """`admin`, `maintain`, `write`, `triage`, `read` or `none`, asked now.

        The answer counts only when it is about the same numeric account: a login can be renamed and taken over.
        """
        found = await self._get_or_none(f"/collaborators/{login}/permission")
        if not found or (found.get("user") or {}).get("id") != user_id:
            return "none"
        return str(found.get("role_name") or found["permission"])

    # Issues and comments

    async def upsert_comment(self, number: int, key_line: str, body: str, *, known_id: int | None = None) -> int:
        """Write `body` as the one comment on issue `number` whose first line is `key_line`; returns its id."""
        comment_id = known_id or await self._comment_with(number, key_line)
        if comment_id is not None:
            try:
                await self._call("PATCH", f"/issues/comments/{comment_id}", json={"body": body})
                return comment_id
            except Refused as refused:
                if refused.status != 404:  # deleted by a person: say it again in a new one
                    raise
        created = await self._call("POST", f"/issues/{number}/comments", json={"body": body})
        return int(created["id"])

    async def _comment_with(self, number: int, key_line: str) -> int | None:
        login = await self._app.login()
        for comment in await self._pages(f"/issues/{number}/comments"):
            if comment["user"]["login"] == login and _first_line(comment["body"]) == key_line:
                return int(comment["id"])
        return None

    async def react_to_issue(self, number: int, content: str) -> None:
        await self._call("POST", f"/issues/{number}/reactions", json={"content": content})

    async def react_to_comment(self, comment_id: int, content: str) -> None:
        await self._call("POST", f"/issues/comments/{comment_id}/reactions", json={"content": content})

    async def close_issue(self, number: int, *, completed: bool) -> None:
        reason = "completed" if completed else "not_planned"
        await self._call("PATCH", f"/issues/{number}", json={"state": "closed", "state_reason": reason})

    # Branches and commits

    async def create_branch(self, branch: str, sha: str) -> str:
        """The branch's head: `sha` when it was made now, what stands there when it existed."""
        head = await self.branch_head(branch)
        if head is not None:
            return head
        try:
            await self._call("POST", "/git/refs", json={"ref": f"refs/heads/{branch}", "sha": sha})
        except Refused as refused:
            head = await self.branch_head(branch)
            if head is None:
                raise refused
            return head
        return sha

    async def commit(
        self, branch: str, *, expected_head: str, message: str, key: str, files: Mapping[str, bytes | None]
    ) -> str:
        """Commit `files` (None deletes) on `branch`; returns the new head.

        `key` goes into a trailer; when the branch's head already carries it, that head is the answer.
        Raises: StaleHead when the branch stands elsewhere.
        """
        trailer = f"Postdoc-Key: {key}"
        headline, _, rest = message.partition("\n")
        body = f"{rest.strip()}\n{trailer}" if rest.strip() else trailer
        head = await self.branch_head(branch)
        if head is None:
            raise Refused(404, f"branch {branch} is gone")
        if trailer in (await self._call("GET", f"/git/commits/{head}"))["message"].splitlines():
            return head
        if head != expected_head:
            raise StaleHead(f"{branch} is at {head[:12]}, not {expected_head[:12]}")
        changes = {
            "additions": [
                {"path": path, "contents": base64.b64encode(data).decode()}
                for path, data in files.items()
                if data is not None
            ],
            "deletions": [{"path": path} for path, data in files.items() if data is None],
        }
        variables = {
            "input": {
                "branch": {"repositoryNameWithOwner": f"{self.owner}/{self.name}", "branchName": branch},
                "message": {"headline": headline, "body": body},
                "expectedHeadOid": expected_head,
                "fileChanges": changes,
            }
        }
        answer = await self._app.graphql(self._installation_id, _COMMIT, variables)
        return str(answer["createCommitOnBranch"]["commit"]["oid"])

    # Pull requests and reviews

    async def open_pull_request(self, *, branch: str, base: str, title: str, body: str, draft: bool) -> int:
        """The number of the open pull request from `branch`, opened now if there is none."""
        head = f"{self.owner}:{branch}"
        found = await self._call("GET", "/pulls", params={"head": head, "state": "all"})
        if found:
            return int(found[0]["number"])
        payload = {"head": branch, "base": base, "title": title, "body": body, "draft": draft}
        return int((await self._call("POST", "/pulls", json=payload))["number"])

    async def mark_ready(self, number: int) -> None:
        """Take the pull request out of draft; REST has no call for it."""
        pull_request = await self.pull_request(number)
        if pull_request["draft"] and pull_request["state"] == "open":
            await self._app.graphql(self._installation_id, _READY, {"id": pull_request["node_id"]})

    async def review(
        self, number: int, *, sha: str, key_line: str, body: str, comments: Sequence[InlineComment]
    ) -> int:
        """Post one review of type COMMENT with all its inline comments; returns its id.

        A comment that GitHub will not place (its line is not in the diff) moves into the review's body, because
        losing it would be worse than losing its place.
        """
        login = await self._app.login()
        for review in await self._pages(f"/pulls/{number}/reviews"):
            if review["user"]["login"] == login and _first_line(review["body"]) == key_line:
                return int(review["id"])
        placed = [c for c in comments if c.line is not None]
        loose = [c for c in comments if c.line is None]
        try:
            return await self._post_review(number, sha, _with_loose(body, loose), placed)
        except Refused as refused:
            if refused.status != 422 or not placed:
                raise
            return await self._post_review(number, sha, _with_loose(body, comments), [])

    async def _post_review(self, number: int, sha: str, body: str, comments: Sequence[InlineComment]) -> int:
        payload = {
            "commit_id": sha,
            "event": "COMMENT",
            "body": body,
            "comments": [{"path": c.path, "line": c.line, "side": "RIGHT", "body": c.body} for c in comments],
        }
        return int((await self._call("POST", f"/pulls/{number}/reviews", json=payload))["id"])

    # Check runs

    async def create_check(self, *, name: str, sha: str, external_id: str, output: Mapping[str, str]) -> int:
        """The id of the check run with this external id on `sha`, created in progress if there is none."""
        found = await self._call("GET", f"/commits/{sha}/check-runs", params={"check_name": name, "per_page": 100})
        for check in found["check_runs"]:
            if check["external_id"] == external_id:
                return int(check["id"])
        payload = {
            "name": name,
            "head_sha": sha,
            "external_id": external_id,
            "status": "in_progress",
            "started_at": _now(),
            "output": dict(output),
        }
        return int((await self._call("POST", "/check-runs", json=payload))["id"])

    async def update_check(
        self, check_run_id: int, *, output: Mapping[str, Any], conclusion: str | None = None,
        actions: Sequence[Mapping[str, str]] = (),
    ) -> None:  # fmt: skip
        payload: dict[str, Any] = {"output": dict(output)}
        if conclusion is not None:
            payload |= {"status": "completed", "conclusion": conclusion, "completed_at": _now()}
        if actions:
            payload["actions"] = [dict(action) for action in actions]
        await self._call("PATCH", f"/check-runs/{check_run_id}", json=payload)


def _first_line(body: str | None) -> str:
    return (body or "").partition("\n")[0].strip()


def _with_loose(body: str, comments: Sequence[InlineComment]) -> str:
    parts = [body]
    for comment in comments:
        place = comment.path if comment.line is None else f"{comment.path}, line {comment.line}"
        # A body has one hidden key, its own.
        key_line, _, rest = comment.body.partition("\n")
        parts.append(f"**{place}**\n\n{rest if key_line.startswith('<!-- postdoc:') else comment.body}")
    return "\n\n".join(parts)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
