"""What people did on GitHub as journal events, each under the key of the happening itself.

A key is made of what GitHub says about the happening (a comment's id, a commit, the moment of an edit), never of the
delivery that told of it. So a happening that is told twice, under another delivery id, out of order, or by somebody
who went and looked, is one event. Whatever appends such events makes them here.

`known` is the goal's journal so far. GitHub's moments are whole seconds; where two happenings share one, the order of
arrival decides unless the payload itself tells which came first.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from bot.conversation.commands import parse_commands
from bot.conversation.events import CommentPlace, IssueText, Person, Where
from bot.domain.experiment import Event, EventKind, NewEvent


def goal_opened(where: Where, issue: IssueText, by: Person, delivery_id: str = "") -> NewEvent:
    """`by` opened the issue with our label, or put the label on it; whether they may is asked later."""
    data = {
        "owner": where.owner,
        "repository": where.repository,
        "issue": issue.number,
        "title": issue.title,
        "body": issue.body,
        "author": by.login,
        "author_id": by.id,
        "installation_id": where.installation_id,
        "delivery_id": delivery_id,
        "updated_at": issue.updated_at,
    }
    return NewEvent(EventKind.GOAL_OPENED, "opened", data)


def conversation_opened(where: Where, number: int) -> NewEvent:
    """Commands were written where there is no goal. A goal may still be opened there later."""
    data = {
        "owner": where.owner,
        "repository": where.repository,
        "issue": number,
        "installation_id": where.installation_id,
    }
    return NewEvent(EventKind.CONVERSATION_OPENED, "conversation", data)


def goal_edited(
    known: Sequence[Event], issue: IssueText, by: Person, *, before: tuple[str, str] | None = None
) -> list[NewEvent]:
    """The text that `issue` has now; nothing when it is known already or older than what is.

    `before` is (title, body) before the edit where the payload tells, which orders two edits of one second.
    """
    last = next((e for e in reversed(known) if e.kind in (EventKind.GOAL_OPENED, EventKind.GOAL_EDITED)), None)
    if last is not None:
        standing = (last.data["title"], last.data["body"])
        at = last.data.get("updated_at", 0.0)
        older = issue.updated_at < at or (issue.updated_at == at and before not in (None, standing))
        if older or standing == (issue.title, issue.body):
            return []
    key = f"edited/{issue.updated_at:.0f}/{_digest(issue.title, issue.body)}"
    # There and back within one second is two edits of one text and one moment.
    same = sum(event.key == key or event.key.startswith(f"{key}/") for event in known)
    key += f"/{same + 1}" if same else ""
    data = {"title": issue.title, "body": issue.body, "by": by.login, "by_id": by.id, "updated_at": issue.updated_at}
    return [NewEvent(EventKind.GOAL_EDITED, key, data)]


def commands_in(
    body: str,
    *,
    before: str = "",
    comment_id: int,
    author: Person,
    number: int,
    head_sha: str | None = None,
    place: str = CommentPlace.ISSUE,
) -> list[NewEvent]:
    """The commands of a comment that its earlier text did not hold.

    The key counts equal commands within the comment, so that it stays the same while lines around it are edited.
    """
    held = Counter((item.verb, item.args) for item in parse_commands(before)) if before else Counter()
    count: Counter[tuple[str, tuple[str, ...]]] = Counter()
    events = []
    for item in parse_commands(body):
        same = (item.verb, item.args)
        count[same] += 1
        if count[same] > held[same]:
            key = f"{comment_id}/{_digest(item.verb, *item.args)}/{count[same]}"
            events.append(
                _command(
                    item.verb,
                    item.args,
                    key,
                    comment_id=comment_id,
                    author=author,
                    number=number,
                    head_sha=head_sha,
                    place=place,
                )
            )
    return events


def box_ticked(verb: str, args: Sequence[str], *, comment_id: int, at: float, author: Person, number: int) -> NewEvent:
    """A box in one of our comments, ticked by the edit of the moment `at`. It is answered without a reaction."""
    key = f"tick/{comment_id}/{at:.0f}/{verb}"
    return _command(verb, args, key, comment_id=0, author=author, number=number, head_sha=None, place="box")


def button_pressed(
    verb: str, args: Sequence[str], *, delivery_id: str, check_run_id: int, author: Person, number: int, head_sha: str
) -> NewEvent:
    """A button of one of our checks. GitHub gives the press no id or moment of its own, so the delivery names it."""
    key = f"button/{check_run_id}/{delivery_id}"
    return _command(verb, args, key, comment_id=0, author=author, number=number, head_sha=head_sha, place="check")


def _command(
    verb: str,
    args: Sequence[str],
    key: str,
    *,
    comment_id: int,
    author: Person,
    number: int,
    head_sha: str | None,
    place: str,
) -> NewEvent:
    data = {
        "verb": verb,
        "args": list(args),
        "author": author.login,
        "author_id": author.id,
        "comment_id": comment_id,
        "number": number,
        "head_sha": head_sha,
        "place": place,
    }
    return NewEvent(EventKind.COMMAND, f"command/{key}", data)


def head_moved(known: Sequence[Event], *, before: str, after: str, by: str, at: float = 0.0) -> list[NewEvent]:
    """The branch stands at `after`; nothing when a later push is known.

    A branch that comes back to a commit it has left (a forced push) has moved again.
    """
    moves = [event for event in known if event.kind is EventKind.HEAD_MOVED]
    if any(move.data.get("at", 0.0) > at > 0.0 for move in moves):
        return []
    same_second = [move.data for move in moves if move.data.get("at", 0.0) == at]
    follows = not same_second or before == same_second[-1]["head_sha"]
    if not follows and any(move.get("before") == after for move in same_second):
        return []  # one of the known pushes came on top of this one
    key = f"head/{after}"
    there = next((move for move in moves if move.key == key), None)
    if there is not None and 0.0 < there.data.get("at", 0.0) < at:
        key = f"{key}/{at:.0f}"
    data = {"head_sha": after, "before": before, "by": by, "at": at}
    return [NewEvent(EventKind.HEAD_MOVED, key, data)]


def pull_request_closed(known: Sequence[Event], *, merged: bool, by: str, at: float) -> list[NewEvent]:
    """`at` is the pull request's `closed_at`."""
    if not merged and _state_changed_after(known, at):
        return []
    data = {"merged": merged, "by": by, "at": at}
    return [NewEvent(EventKind.PULL_REQUEST_CLOSED, f"closed/{at:.0f}", data)]


def pull_request_reopened(known: Sequence[Event], *, by: str, at: float) -> list[NewEvent]:
    """`at` is the pull request's `updated_at`. What was merged stays merged."""
    merged = any(event.kind is EventKind.PULL_REQUEST_CLOSED and event.data["merged"] for event in known)
    if merged or _state_changed_after(known, at):
        return []
    return [NewEvent(EventKind.PULL_REQUEST_REOPENED, f"reopened/{at:.0f}", {"by": by, "at": at})]


def _state_changed_after(known: Sequence[Event], at: float) -> bool:
    changes = (EventKind.PULL_REQUEST_CLOSED, EventKind.PULL_REQUEST_REOPENED)
    return any(event.data.get("at", 0.0) > at for event in known if event.kind in changes)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()[:12]
