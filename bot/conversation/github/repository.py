"""What Postdoc writes into one repository, made so that writing it twice changes nothing.

A create first looks for what an earlier, interrupted attempt may have left: a comment's hidden key, a check run's
external id, a commit's trailer. So a replayed action edits instead of saying the same thing again.
"""

from __future__ import annotations

import base64
import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bot.conversation.github.errors import Dropped, Gone, Refused, StaleHead
from bot.conversation.github.fitting import (
    PULL_REQUEST_TITLE_CHARACTERS,
    batches,
    fitted,
    fitted_actions,
    fitted_output,
    line_of,
)
from bot.conversation.github.limits import Urgency
from bot.conversation.github.reading import Reader
from bot.errors import UserError

COMMIT = """
mutation($input: CreateCommitOnBranchInput!) {
  createCommitOnBranch(input: $input) { commit { oid } }
}
"""
READY = """
mutation($id: ID!) {
  markPullRequestReadyForReview(input: {pullRequestId: $id}) { pullRequest { isDraft } }
}
"""
MINIMIZE = """
mutation($id: ID!) {
  minimizeComment(input: {subjectId: $id, classifier: OUTDATED}) { minimizedComment { isMinimized } }
}
"""


_NO_PULLS = (
    "GitHub Actions may not open pull requests in this repository. An administrator allows it under Settings, Actions, "
    "General, “Allow GitHub Actions to create and approve pull requests”; then write `/postdoc resume` here"
)


@dataclass(frozen=True, slots=True)
class InlineComment:
    """A review comment on one line of the pull request's own side; `line` None attaches it to the file."""

    path: str
    line: int | None
    body: str


class Repository(Reader):
    """One repository through one installation. Every method may raise TransientError, Refused or Gone."""

    # Issues and comments

    async def upsert_comment(self, number: int, key_line: str, body: str, *, known_id: int | None = None) -> int:
        """Write `body` as the one comment on issue `number` whose first line is `key_line`; returns its id."""
        comment_id = known_id or await self._comment_with(number, key_line)
        if comment_id is not None:
            try:
                await self._call("PATCH", f"/issues/comments/{comment_id}", json={"body": fitted(body)})
                return comment_id
            except Gone:
                raise
            except Refused as refused:
                if refused.status != 404:  # deleted by a person: say it again in a new one
                    raise
        created = await self._call("POST", f"/issues/{number}/comments", json={"body": fitted(body)})
        return int(created["id"])

    async def _comment_with(self, number: int, key_line: str) -> int | None:
        login = await self._app.login()
        for comment in await self.comments(number):
            if (comment["user"] or {}).get("login") == login and _first_line(comment["body"]) == key_line:
                return int(comment["id"])
        return None

    async def minimize(self, node_id: str) -> None:
        """Fold a comment away as outdated."""
        await self._app.graphql(self._installation_id, MINIMIZE, {"id": node_id})

    async def react_to_issue(self, number: int, content: str) -> None:
        path = f"/issues/{number}/reactions"
        await self._call("POST", path, json={"content": content}, urgency=Urgency.ANSWER)

    async def react_to_comment(self, comment_id: int, content: str, *, place: str = "issue") -> None:
        """`place` is `issue` (a conversation) or `review_comment` (a line of the diff)."""
        kind = "pulls" if place == "review_comment" else "issues"
        path = f"/{kind}/comments/{comment_id}/reactions"
        await self._call("POST", path, json={"content": content}, urgency=Urgency.ANSWER)

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

        `key` goes into a trailer; when one of the branch's newest commits already carries it, that commit is the
        answer, also where somebody has pushed on top of it. Raises: StaleHead when the branch stands elsewhere.
        """
        trailer = f"Postdoc-Key: {key}"
        headline, _, rest = message.partition("\n")
        body = f"{rest.strip()}\n{trailer}" if rest.strip() else trailer
        head = await self.branch_head(branch)
        if head is None:
            raise Refused(404, f"branch {branch} is gone")
        login = await self._app.login()
        for commit in await self._call("GET", "/commits", params={"sha": head, "per_page": 30}):
            by_us = (commit["author"] or {}).get("login") == login  # null for an address without an account
            if by_us and trailer in commit["commit"]["message"].splitlines():
                return str(commit["sha"])
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
        answer = await self._app.graphql(self._installation_id, COMMIT, variables)
        return str(answer["createCommitOnBranch"]["commit"]["oid"])

    # Pull requests and reviews

    async def open_pull_request(self, *, branch: str, base: str, title: str, body: str, draft: bool) -> int:
        """The number of the open pull request from `branch`, opened now if there is none."""
        found = await self.pull_requests(state="all", head=f"{self.owner}:{branch}")
        if found:
            return int(found[0]["number"])
        title = line_of(title, PULL_REQUEST_TITLE_CHARACTERS)
        payload = {"head": branch, "base": base, "title": title, "body": fitted(body), "draft": draft}
        try:
            return int((await self._call("POST", "/pulls", json=payload))["number"])
        except Refused as refused:
            if refused.status == 403 and "not permitted to create" in str(refused):
                raise UserError(_NO_PULLS) from refused
            raise

    async def mark_ready(self, number: int) -> None:
        """Take the pull request out of draft; REST has no call for it."""
        pull_request = await self.pull_request(number)
        if pull_request["draft"] and pull_request["state"] == "open":
            await self._app.graphql(self._installation_id, READY, {"id": pull_request["node_id"]})

    async def review(
        self, number: int, *, sha: str, key_line: str, body: str, comments: Sequence[InlineComment]
    ) -> int:
        """Post one review of type COMMENT with all its inline comments; returns its id.

        A comment that GitHub will not place (its line is not in the diff) moves into the review's body, because
        losing it would be worse than losing its place.
        """
        login = await self._app.login()
        for review in await self._pages(f"/pulls/{number}/reviews"):
            if (review["user"] or {}).get("login") == login and _first_line(review["body"]) == key_line:
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
            "body": fitted(body),
            "comments": [{"path": c.path, "line": c.line, "side": "RIGHT", "body": fitted(c.body)} for c in comments],
        }
        return int((await self._call("POST", f"/pulls/{number}/reviews", json=payload))["id"])

    # Check runs

    async def create_check(
        self, *, name: str, sha: str, external_id: str, output: Mapping[str, Any], conclusion: str | None = None,
        actions: Sequence[Mapping[str, str]] = (), annotations: Sequence[Mapping[str, Any]] = (),
        details_url: str | None = None,
    ) -> int:  # fmt: skip
        """The id of the check run with this external id on `sha`, created if there is none.

        Without a `conclusion` it is in progress; with one it is created completed, in one write. An existing one is
        left as it is unless it lacks the conclusion or some of the annotations.
        """
        params = {"check_name": name, "filter": "all"}
        for check in await self._pages(f"/commits/{sha}/check-runs", params, within="check_runs"):
            if check["external_id"] == external_id:
                check_run_id = int(check["id"])
                told = int((check.get("output") or {}).get("annotations_count") or 0)
                if (conclusion is not None and check["conclusion"] != conclusion) or told < len(annotations):
                    await self.update_check(
                        check_run_id, output=output, conclusion=conclusion, actions=actions,
                        annotations=annotations[told:], cosmetic=False,
                    )  # fmt: skip
                return check_run_id
        payload = {"name": name, "head_sha": sha, "external_id": external_id, "started_at": _now()}
        payload |= {"details_url": details_url} if details_url else {}
        first, *others = batches(annotations) if annotations else [[]]
        payload |= _state(conclusion, output, actions, first) | ({} if conclusion else {"status": "in_progress"})
        check_run_id = int((await self._call("POST", "/check-runs", json=payload))["id"])
        for batch in others:
            await self._patch_check(check_run_id, _state(None, output, (), batch))
        return check_run_id

    async def update_check(
        self, check_run_id: int, *, output: Mapping[str, Any], conclusion: str | None = None,
        actions: Sequence[Mapping[str, str]] = (), annotations: Sequence[Mapping[str, Any]] = (),
        cosmetic: bool | None = None,
    ) -> bool:  # fmt: skip
        """Show the check run's new state; annotations are appended to those it has.

        An update that only shows progress is cosmetic unless it is said not to be: where the budget of writes runs
        low it is left out, and the answer is False.
        """
        if cosmetic is None:
            cosmetic = conclusion is None and not actions and not annotations
        first, *others = batches(annotations) if annotations else [[]]
        try:
            urgency = Urgency.COSMETIC if cosmetic else Urgency.WORK
            await self._patch_check(check_run_id, _state(conclusion, output, actions, first), urgency)
        except Dropped:
            return False
        for batch in others:
            await self._patch_check(check_run_id, _state(None, output, (), batch))
        return True

    async def _patch_check(
        self, check_run_id: int, payload: Mapping[str, Any], urgency: Urgency = Urgency.WORK
    ) -> None:
        await self._call("PATCH", f"/check-runs/{check_run_id}", json=dict(payload), urgency=urgency)


def _state(
    conclusion: str | None, output: Mapping[str, Any], actions: Sequence[Mapping[str, str]],
    annotations: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:  # fmt: skip
    """The part of a check run's payload that creating and updating share."""
    shown = fitted_output(output) | ({"annotations": list(annotations)} if annotations else {})
    payload: dict[str, Any] = {"output": shown}
    if conclusion is not None:
        payload |= {"status": "completed", "conclusion": conclusion, "completed_at": _now()}
    if actions:
        payload["actions"] = fitted_actions(actions)
    return payload


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
