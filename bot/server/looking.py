"""What has happened to a goal on GitHub that its journal does not tell, found by going and looking.

Each finding is put into the form of the webhook that would have told it, and meant by the same handlers, so it has the
same key: a delivery that arrives later, or that arrived meanwhile, adds nothing.

What cannot be seen afterwards is decided on the safe side. A comment that somebody else has changed speaks for nobody.
Nobody knows who ticked a box, so only the box that stops is honoured. A head that somebody pushed comes after the
commands that were written, whenever they were: consent to what stood there before never becomes consent to it. A label
that was taken off stops nothing; closing the issue does, because a person who closes it is done with it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bot.conversation.commands import PREFIX, parse_commands
from bot.conversation.github import GitHubApp
from bot.conversation.messages import boxes_ticked
from bot.conversation.survey import Json, Survey, gone, moment
from bot.domain.experiment import Event, EventKind, Experiment, NewEvent
from bot.loop.engine import Engine
from bot.loop.record import Record

log = logging.getLogger("postdoc.reconcile")

SOMEBODY = {"id": 0, "login": "somebody", "type": "User"}
"""Who did something of which GitHub does not tell who did it."""
SETTLED_SECONDS = 10.0
"""After its last event a goal's branch is taken to be seen by all of GitHub."""


class Told(NamedTuple):
    """What a webhook would have told: the event's name and its payload."""

    event: str
    payload: Json


Finding = Told | NewEvent
Tell = Callable[[str, Json], Awaitable[str | None]]
"""The handlers' way from (event, payload) to the journal; answers why nothing was added, None when something was."""


@dataclass(frozen=True, slots=True)
class Sight:
    """A goal as GitHub shows it."""

    issue: Json | None
    pull: Json | None
    comments: list[Json] = field(default_factory=list)
    """Of the issue and of the pull request's conversation; each carries the `number` it stands on."""
    review_comments: list[Json] = field(default_factory=list)
    reviews: list[Json] = field(default_factory=list)


class Looker:
    """Compares GitHub with the journals. Every method may raise TransientError or Refused."""

    def __init__(self, app: GitHubApp, engine: Engine, record: Record, label: str) -> None:
        self._app, self._engine, self._record, self._label = app, engine, record, label
        self._changed_by_others: set[str] = set()
        """Node ids of comments that speak for nobody, for good."""

    async def see(self, x: Experiment, pull: int | None = None) -> Sight:
        """Everything about the goal that a look compares: two requests, six with a pull request."""
        survey, number = self._survey(x), pull or x.pull_request
        issue = await survey.issue(x.issue)
        comments = [row | {"number": x.issue} for row in await survey.comments(x.issue)] if issue is not None else []
        if number is None:
            return Sight(issue, None, comments)
        comments += [row | {"number": number} for row in await survey.comments(number)]
        return Sight(
            issue,
            await survey.pull(number),
            comments,
            await survey.review_comments(number),
            await survey.reviews(number),
        )

    async def findings(self, x: Experiment, sight: Sight) -> list[Finding]:
        """What the journal does not tell, in the order in which it is to be told."""
        if sight.issue is None:
            return await self._without_issue(x)
        found = await self._edited(x, sight.issue)
        found += await self.commands(x, sight)
        return found + await self.changes(x, sight)

    async def changes(self, x: Experiment, sight: Sight) -> list[Finding]:
        """What was done beside writing: pushes, boxes, endings."""
        found: list[Finding] = []
        if sight.pull is not None:
            found += await self._head(x, sight.pull)
            found += await self._pull_state(x, sight.pull)
            found += await self._ticked(x, sight)
        if sight.issue is not None and not x.concluded and (sight.pull is None or sight.pull["state"] == "open"):
            found += issue_closed(x, sight.issue)
        return found

    # Words

    async def _edited(self, x: Experiment, issue: Json) -> list[Finding]:
        journal = await self._journal(x)
        kinds = (EventKind.GOAL_OPENED, EventKind.GOAL_EDITED)
        last = next(event.data for event in reversed(journal) if event.kind in kinds)
        title, body = issue["title"] or "", issue["body"] or ""
        # A restored journal holds the text as a record may carry it.
        shown = (self._record.public(title), self._record.public(body))
        if (last["title"], last["body"]) in ((title, body), shown):
            return []
        # The API does not say who edited. Only the author can, and those who may write here; the text counts as the
        # author's, whose permission is then asked.
        return self._told(x, "issues", "edited", issue["user"] or SOMEBODY, issue=issue, changes={})

    async def commands(self, x: Experiment, sight: Sight) -> list[Finding]:
        """Comments, reviews and comments on lines that hold a command, the oldest first."""
        rows = [("comment", row) for row in sight.comments]
        rows += [("line", row) for row in sight.review_comments] + [("review", row) for row in sight.reviews]
        journal = await self._journal(x)
        dated = [(_written(row), kind, row) for kind, row in rows if _commands_unknown(journal, row)]
        since = await self._since(x, sight, [at for at, _, _ in dated])
        found: list[Finding] = []
        for _, kind, row in sorted((each for each in dated if each[0] >= since), key=lambda each: each[0]):
            if await self._by_its_author(x, row):
                found += self._said(x, kind, row, sight)
        return found

    async def _since(self, x: Experiment, sight: Sight, moments: list[float]) -> float:
        """When the issue became a goal: what was said before was said to nobody. GitHub's moments are whole seconds."""
        since = float(int(x.opened_at))
        if any(at < since for at in moments) and sight.issue is not None:
            # The delivery may have come long after the label.
            labelled = await self._survey(x).labelled(x.issue, self._label)
            since = min(since, labelled[1] if labelled is not None else since)
        return since

    async def _by_its_author(self, x: Experiment, row: Json) -> bool:
        # Not by comparing when it was made and changed: GitHub's moments are whole seconds.
        node_id = str(row["node_id"])
        if node_id not in self._changed_by_others:
            if await self._survey(x).wholly_own(row):
                return True
            self._changed_by_others.add(node_id)
            log.warning("goal %s: a comment of %s that others changed is not read", x.goal_id, row["user"]["login"])
        return False

    def _said(self, x: Experiment, kind: str, row: Json, sight: Sight) -> list[Finding]:
        sender = row["user"]
        if kind == "comment":
            issue: Json = {"number": row["number"], "labels": []}
            if row["number"] != x.issue:
                issue["pull_request"] = {}
            return self._told(x, "issue_comment", "created", sender, issue=issue, comment=row)
        if kind == "line":
            return self._told(x, "pull_request_review_comment", "created", sender, pull_request=sight.pull, comment=row)
        return self._told(x, "pull_request_review", "submitted", sender, pull_request=sight.pull, review=row)

    async def _ticked(self, x: Experiment, sight: Sight) -> list[Finding]:
        """The box that stops, ticked, where no delivery told of it."""
        if x.concluded or x.stop_requested is not None:
            return []
        login = await self._app.login()
        journal = await self._journal(x)
        for row in sight.comments:
            if row["user"] is None or row["user"]["login"] != login or "stop" not in boxes_ticked(row["body"] or ""):
                continue
            at = moment(row["updated_at"])
            if not any(_tells_of_tick(event, row["id"], at) for event in journal):
                data = {"by": "somebody who ticked the box"}
                return [NewEvent(EventKind.STOPPED, f"stopped/tick/{row['id']}/{at:.0f}", data)]
        return []

    # Deeds

    async def _head(self, x: Experiment, pull: Json) -> list[Finding]:
        """A push by a person. The bot's own commits are told by the actions that make them."""
        sha, login = str(pull["head"]["sha"]), await self._app.login()
        if sha in (x.head_sha, x.unread_head) or pull["state"] != "open":
            return []
        survey = self._survey(x)
        commit = await survey.commit(sha)
        now = await self._engine.experiment(x.goal_id)
        if commit is None or now.head_sha != x.head_sha or sha == now.unread_head:
            return []  # the goal went on meanwhile: the next look compares again
        author = commit.get("author") or SOMEBODY
        if any(event.data.get("head_sha") == sha for event in await self._journal(x)):
            # Either somebody moved the branch back, or GitHub does not show our last commit everywhere yet.
            if time.time() - now.last_at < SETTLED_SECONDS or await survey.head(x.branch) != sha:
                return []
        elif author["login"] == login and _is_made_for(x, commit):
            return []
        by = SOMEBODY if author["login"] == login else author
        return self._told(x, "pull_request", "synchronize", by, before=x.head_sha, after=sha, pull_request=pull)

    async def _pull_state(self, x: Experiment, pull: Json) -> list[Finding]:
        closed, merged = pull["state"] == "closed", bool(pull.get("merged_at"))
        if closed == x.closed:
            return []
        by: Json = pull.get("merged_by") or SOMEBODY
        if closed and not merged:
            by = ((await self._survey(x).issue(pull["number"])) or {}).get("closed_by") or SOMEBODY
        return self._told(x, "pull_request", "closed" if closed else "reopened", by, pull_request=pull)

    async def _without_issue(self, x: Experiment) -> list[Finding]:
        if x.concluded or x.crash is not None:
            return []
        why = await gone(self._app, x.installation_id, x.full_name)
        return [farewell(x, why or "the issue was deleted, or moved to another repository")]

    @staticmethod
    def _told(x: Experiment, event: str, action: str, sender: Json, **parts: Any) -> list[Finding]:
        payload = {
            "action": action,
            "sender": sender,
            "repository": {"full_name": x.full_name},
            "installation": {"id": x.installation_id},
            **parts,
        }
        return [Told(event, payload)]

    async def _journal(self, x: Experiment) -> Sequence[Event]:
        return await asyncio.to_thread(self._engine.journal.read, x.goal_id)

    def _survey(self, x: Experiment) -> Survey:
        return Survey(self._app, x.installation_id, x.full_name)


def issue_closed(x: Experiment, issue: Json) -> list[Finding]:
    """A person who closes the issue of a goal that is under way says stop. Bots that tidy up say nothing."""
    by = issue.get("closed_by")
    if issue["state"] != "closed" or by is None or by["type"] == "Bot" or x.stop_requested is not None:
        return []
    data = {"verb": "stop", "args": [], "author": by["login"], "author_id": by["id"], "comment_id": 0,
            "number": x.issue, "head_sha": None}  # fmt: skip
    return [NewEvent(EventKind.COMMAND, f"command/issue-closed/{moment(issue['closed_at']):.0f}", data)]


def farewell(x: Experiment, why: str) -> NewEvent:
    """Ends a goal whose place on GitHub is gone: its jobs are ended, and it is told as far as anybody can be told."""
    return NewEvent(EventKind.CRASHED, f"gone/{x.length}", {"error": why, "reference": None})


def _commands_unknown(journal: Sequence[Event], row: Json) -> bool:
    """Whether a person's comment or review holds a command that the journal does not know."""
    user, body = row["user"], row["body"] or ""
    if user is None or user["type"] == "Bot" or user["login"].endswith("[bot]") or PREFIX not in body.lower():
        return False
    told = (event.data for event in journal if event.kind is EventKind.COMMAND)
    known = Counter((data["verb"], tuple(data["args"])) for data in told if data["comment_id"] == row["id"])
    return bool(Counter((item.verb, item.args) for item in parse_commands(body)) - known)


def _is_made_for(x: Experiment, commit: Json) -> bool:
    lines = commit["commit"]["message"].splitlines()
    return any(line.startswith(f"Postdoc-Key: {x.goal_id}/") for line in lines)


def _written(row: Json) -> float:
    return moment(row.get("created_at") or row.get("submitted_at"))


def _tells_of_tick(event: Event, comment_id: int, at: float) -> bool:
    return event.key.startswith(f"command/tick/{comment_id}/{at:.0f}/")
