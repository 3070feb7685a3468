"""Puts what the API says about an issue or a pull request into the order in which it happened."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bot.practice.pages.api import Api
from bot.practice.pages.diff import Row, commented_lines, excerpt
from bot.practice.pages.markdown import Setting, render

# Beyond these lines a comment's hunk says where it stands without filling the screen.
MOST_HUNK_ROWS = 14

_SUGGESTION = re.compile(r"^ {0,3}(?:```+|~~~+)[ \t]*suggestion\b", re.MULTILINE)
EVENT_SENTENCES = {
    "closed": "closed this",
    "reopened": "reopened this",
    "merged": "merged this",
    "ready_for_review": "marked this as ready for review",
    "convert_to_draft": "marked this as a draft",
    "converted_to_draft": "marked this as a draft",
    "head_ref_deleted": "deleted the branch",
    "head_ref_restored": "restored the branch",
    "head_ref_force_pushed": "force-pushed the branch",
    "locked": "locked the conversation",
    "unlocked": "unlocked the conversation",
    "pinned": "pinned this",
    "review_dismissed": "dismissed a review",
}


@dataclass(frozen=True, slots=True)
class Comment:
    """Anything with an author, a time and Markdown: a description, a comment, a review or an inline comment."""

    kind: str
    # issue, comment, review or inline: which API a change to it goes to
    id: int
    login: str
    is_bot: bool
    when: str
    edited: bool
    body: str
    html: str
    anchor: str
    may_edit: bool
    may_delete: bool
    association: str
    reactions: tuple[tuple[str, int], ...]

    @property
    def key(self) -> str:
        return f"{self.kind}-{self.id}"


@dataclass(frozen=True, slots=True)
class Thread:
    """An inline comment and its answers, on a line of a file."""

    path: str
    side: str
    line: int | None
    start_line: int | None
    outdated: bool
    rows: tuple[Row, ...]
    comments: tuple[Comment, ...]
    suggests: bool
    # whether the first comment holds a suggestion
    refusal: str
    # why this reader cannot commit it now; empty when they can

    @property
    def root(self) -> Comment:
        return self.comments[0]

    @property
    def place(self) -> str:
        if self.line is None:
            return "file" if not self.outdated else "outdated"
        return f"lines {self.start_line} to {self.line}" if self.start_line else f"line {self.line}"


@dataclass(frozen=True, slots=True)
class Item:
    """One entry of a conversation."""

    kind: str
    # comment, review, thread, commits or event
    when: str
    key: str
    comment: Comment | None = None
    state: str = ""
    # of a review
    threads: tuple[Thread, ...] = ()
    commits: tuple[dict[str, Any], ...] = ()
    event: dict[str, Any] = field(default_factory=dict)
    sentence: str = ""


@dataclass(frozen=True, slots=True)
class Reader:
    """Who reads, where: decides what may be edited and how references become links."""

    repository: str
    login: str | None
    may_write: bool
    head_ref: str = "HEAD"
    commits: frozenset[str] = frozenset()
    suggestion_refusal: Callable[[int, str], str | None] | None = None
    # asks the forge why a person cannot commit a comment's suggestion

    def comment(self, kind: str, raw: dict[str, Any], lines: tuple[str, ...] | None = None) -> Comment:
        """A comment as it is shown to this reader."""
        user = raw.get("user") or {"login": "ghost", "type": "User"}
        own = self.login is not None and user["login"] == self.login
        number = raw["number"] if kind == "issue" else raw["id"]
        may_edit = own or self.may_write
        setting = Setting(
            repository=self.repository,
            ref=self.head_ref,
            tick_form=f"tick-{kind}-{number}" if may_edit and kind != "review" else "",
            commits=self.commits,
            suggestion_lines=lines,
            anchor=f"{kind}{number}",
        )
        created, updated = raw.get("created_at") or raw.get("submitted_at") or "", raw.get("updated_at")
        counts = raw.get("reactions") or {}
        names = ("+1", "-1", "laugh", "hooray", "confused", "heart", "rocket", "eyes")
        return Comment(
            kind=kind,
            id=number,
            login=user["login"],
            is_bot=user.get("type") == "Bot",
            when=created,
            edited=kind in ("comment", "inline") and bool(updated) and updated != created,
            body=raw.get("body") or "",
            html=render(raw.get("body") or "", setting),
            anchor={"comment": "issuecomment-", "inline": "discussion_r", "review": "pullrequestreview-"}.get(
                kind, "issue-"
            )
            + str(number),
            may_edit=may_edit,
            may_delete=may_edit and kind in ("comment", "inline"),
            association=_association(raw.get("author_association")),
            reactions=tuple((name, counts[name]) for name in names if counts.get(name)),
        )

    def threads(self, comments: list[dict[str, Any]]) -> list[Thread]:
        """Inline comments gathered under the first one of each thread, oldest first."""
        roots = [raw for raw in comments if not raw.get("in_reply_to_id")]
        return [
            self._thread(root, [raw for raw in comments if raw.get("in_reply_to_id") == root["id"]]) for root in roots
        ]

    def _thread(self, root: dict[str, Any], replies: list[dict[str, Any]]) -> Thread:
        line, start = root.get("line"), root.get("start_line")
        count = line - start + 1 if line and start else 1
        hunk = root.get("diff_hunk") or ""
        outdated = line is None and root.get("subject_type") != "file"
        on_right = (root.get("side") or "RIGHT") == "RIGHT"
        lines = commented_lines(hunk, count) if hunk and on_right else None
        suggests = bool(_SUGGESTION.search(root.get("body") or "")) and on_right
        return Thread(
            path=root["path"],
            side=root.get("side") or "RIGHT",
            line=line,
            start_line=start,
            outdated=outdated,
            rows=tuple(excerpt(hunk, min(max(count, 4), MOST_HUNK_ROWS))) if root.get("subject_type") != "file" else (),
            comments=(
                self.comment("inline", root, lines),
                *(self.comment("inline", reply, lines) for reply in replies),
            ),
            suggests=suggests,
            refusal=self._refusal(root["id"]) if suggests else "",
        )

    def _refusal(self, comment_id: int) -> str:
        if self.login is None or self.suggestion_refusal is None:
            return "Sign in to commit this suggestion."
        try:
            return self.suggestion_refusal(comment_id, self.login) or ""
        except KeyError:  # deleted while the page was made
            return "This comment is gone."


def _association(name: str | None) -> str:
    return {"OWNER": "Owner", "MEMBER": "Member", "COLLABORATOR": "Collaborator", "CONTRIBUTOR": "Contributor"}.get(
        name or "", ""
    )


async def issue_items(api: Api, reader: Reader, number: int) -> list[Item]:
    """The timeline of an issue after its description."""
    comments, events = await asyncio.gather(
        api.all(f"/repos/{reader.repository}/issues/{number}/comments"), _events(api, reader.repository, number)
    )
    return in_order([*_comment_items(reader, comments), *events])


async def pull_items(
    api: Api, reader: Reader, number: int, commits: list[dict[str, Any]], inline: list[dict[str, Any]]
) -> list[Item]:
    """The timeline of a pull request after its description."""
    at = f"/repos/{reader.repository}"
    comments, reviews, events = await asyncio.gather(
        api.all(f"{at}/issues/{number}/comments"),
        api.all(f"{at}/pulls/{number}/reviews"),
        _events(api, reader.repository, number),
    )
    items = [*_comment_items(reader, comments), *events, *_review_items(reader, reviews, inline)]
    items.extend(
        Item("commits", commit["commit"]["committer"]["date"], f"commit-{commit['sha']}", commits=(commit,))
        for commit in commits
    )
    return in_order(items)


def in_order(items: list[Item]) -> list[Item]:
    """By time; what happened in the same second stays in the order of its kind, and neighbouring commits join."""
    rank = {"commits": 0, "event": 1, "comment": 2, "review": 3, "thread": 4}
    joined: list[Item] = []
    for item in sorted(items, key=lambda item: (item.when, rank[item.kind])):
        if item.kind == "commits" and joined and joined[-1].kind == "commits":
            before = joined.pop()
            item = Item("commits", before.when, before.key, commits=(*before.commits, *item.commits))
        joined.append(item)
    return joined


def _comment_items(reader: Reader, comments: list[dict[str, Any]]) -> list[Item]:
    shown = [reader.comment("comment", raw) for raw in comments]
    return [Item("comment", comment.when, comment.key, comment=comment) for comment in shown]


def _review_items(reader: Reader, reviews: list[dict[str, Any]], inline: list[dict[str, Any]]) -> list[Item]:
    items: list[Item] = []
    owner = {raw["id"]: raw.get("pull_request_review_id") for raw in inline}
    threads = reader.threads(inline)
    placed: set[int] = set()
    for raw in reviews:
        own = tuple(thread for thread in threads if owner.get(thread.root.id) == raw["id"])
        placed.update(thread.root.id for thread in own)
        if not raw.get("body") and not own and raw["state"] == "COMMENTED":
            continue  # the empty review that GitHub makes around a single answer
        comment = reader.comment("review", raw)
        items.append(Item("review", comment.when, comment.key, comment=comment, state=raw["state"], threads=own))
    items.extend(
        Item("thread", thread.root.when, f"thread-{thread.root.id}", threads=(thread,))
        for thread in threads
        if thread.root.id not in placed
    )
    return items


async def _events(api: Api, repository: str, number: int) -> list[Item]:
    found = await api.find(f"/repos/{repository}/issues/{number}/timeline", per_page=100)
    if found is None:
        found = await api.find(f"/repos/{repository}/issues/{number}/events", per_page=100) or []
    items = []
    for event in found:
        sentence = _event_sentence(event)
        if sentence and event.get("created_at"):
            key = f"event-{event.get('id') or event['created_at']}"
            items.append(Item("event", event["created_at"], key, event=event, sentence=sentence))
    return items


def _event_sentence(event: dict[str, Any]) -> str:
    name = event.get("event")
    match name:
        case "labeled" | "unlabeled":
            return "added the label" if name == "labeled" else "removed the label"
        case "assigned" | "unassigned":
            who = (event.get("assignee") or {}).get("login", "somebody")
            return f"{name} {who}"
        case "renamed":
            change = event.get("rename") or {}
            return f"changed the title from “{change.get('from', '')}” to “{change.get('to', '')}”"
        case "review_requested" | "review_request_removed":
            who = (event.get("requested_reviewer") or {}).get("login", "somebody")
            return f"{'asked' if name == 'review_requested' else 'no longer asks'} {who} for a review"
        case "closed" if event.get("state_reason") == "not_planned":
            return "closed this as not planned"
        case _:
            return EVENT_SENTENCES.get(str(name), "")
