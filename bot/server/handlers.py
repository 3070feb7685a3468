"""From a webhook to the journal: which goal an event is about, and what it means there.

GitHub is asked only what the event cannot tell: whose branch an unknown pull request has, and who put the label on an
issue whose opening has not arrived.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bot.conversation import events as hooks
from bot.conversation.github import GitHubApp, Refused
from bot.conversation.messages import boxes_ticked
from bot.domain.experiment import Event, EventKind, NewEvent
from bot.domain.goal import GoalId
from bot.errors import PostdocError
from bot.loop.engine import Engine
from bot.loop.inbox import Delivery
from bot.server import happenings
from bot.server.goal_index import GoalIndex

LARGE_BODY_BYTES = 256 * 1024
"""A larger body is parsed in a thread, so that the server goes on answering."""
_BOXES: dict[str, tuple[str, tuple[str, ...]]] = {"stop": ("stop", ()), "hour": ("budget", ("+1h",))}
"""Box of the sticky comment -> the command that ticking it stands for."""

Meaning = tuple[GoalId, Sequence[NewEvent]]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a delivery turned out to be."""

    occurrence: hooks.Occurrence | None
    reason: str = ""
    """Why nothing is done, when there is no occurrence."""
    lane: str = ""
    """Occurrences of one lane are acted on one after another, in the order they arrived: a goal is a lane."""


Observe = Callable[[hooks.Occurrence], Awaitable[None]]
"""Told of every event, for what a repository needs besides its goals."""


def goal_of_check(event: hooks.CheckRunAction | hooks.CheckRunRerequested) -> GoalId | None:
    """Our checks carry their goal in the external id; a check of the repository's own matters carries none."""
    goal_id = "/".join(event.external_id.split("/")[:2])
    full_name, mark, number = goal_id.rpartition("#")
    return GoalId(goal_id) if mark and number.isdigit() and full_name == event.where.full_name else None


class Handlers:
    """Reads a delivery, and appends what it means. `load` comes first."""

    def __init__(self, engine: Engine, app: GitHubApp, *, label: str, observe: Observe | None = None) -> None:
        self._engine, self._app, self._label, self._observe = engine, app, label, observe
        self._goals = GoalIndex(engine.journal, app)
        self._reactions: set[asyncio.Task[None]] = set()

    async def load(self) -> None:
        """Raises: TransientError while GitHub cannot be asked who we are."""
        await self._goals.load()

    async def read(self, delivery: Delivery) -> Reading:
        """What the delivery says. Never raises."""
        try:
            if len(delivery.body) > LARGE_BODY_BYTES:
                payload = await asyncio.to_thread(json.loads, delivery.body)
            else:
                payload = json.loads(delivery.body)
        except (ValueError, RecursionError):
            return Reading(None, "odd: the body is not JSON")
        occurrence, reason = hooks.parse_event(delivery.event, payload, delivery.delivery_id)
        match occurrence:
            case None:
                return Reading(None, reason)
            case hooks.Push():
                return Reading(occurrence, lane=f"{occurrence.where.full_name} {occurrence.ref}")
            case hooks.InstallationChanged():
                return Reading(occurrence, lane=f"installation {occurrence.installation_id}")
            case hooks.CheckRunAction() | hooks.CheckRunRerequested():
                return Reading(occurrence, lane=goal_of_check(occurrence) or occurrence.where.full_name)
        full_name = occurrence.where.full_name
        pull = getattr(occurrence, "pull", None)
        if pull is not None:
            self._goals.learn(full_name, pull)
        return Reading(occurrence, lane=self._goals.place(full_name, occurrence.number))

    async def act(self, event: hooks.Occurrence) -> str | None:
        """Append what the event means; returns why nothing was done, None when something was.

        Raises: TransientError when GitHub or the database has to be asked again later.
        """
        found = await self._meaning(event)
        added = await self._engine.append(found[0], list(found[1])) if found is not None else 0
        if self._observe is not None:
            # After the goal, which an outage in what follows must not keep waiting.
            await self._observe(event)
        if found is None:
            return "about no goal"
        return None if added else "nothing new"

    async def told(self, event: str, payload: Mapping[str, Any]) -> str | None:
        """The same for what no delivery told, but somebody who went and looked. `load` need not have come before."""
        if not self._goals.login:
            await self.load()
        reading = await self.read(Delivery(0, "looked", event, json.dumps(payload).encode()))
        return reading.reason if reading.occurrence is None else await self.act(reading.occurrence)

    async def _meaning(self, event: hooks.Occurrence) -> Meaning | None:
        match event:
            case hooks.IssueOpened() | hooks.IssueLabeled():
                return self._on_goal(event)
            case hooks.IssueEdited():
                return await self._on_edit(event)
            case hooks.CommentCreated() | hooks.CommentEdited():
                return await self._on_comment(event)
            case hooks.PullRequestClosed() | hooks.PullRequestReopened() | hooks.PullRequestSynchronized():
                return await self._on_pull_request(event)
            case hooks.CheckRunAction() | hooks.CheckRunRerequested():
                return await self._on_check(event)
        return None

    # Issues

    def _on_goal(self, event: hooks.IssueOpened | hooks.IssueLabeled) -> Meaning | None:
        """An issue with our label is a goal. Who may open one is asked when its contract is read, of whoever acted."""
        labels = {*event.issue.labels, *([event.label] if isinstance(event, hooks.IssueLabeled) else [])}
        if self._label not in labels or event.sender.is_bot or event.issue.on_pull_request or not event.issue.is_open:
            return None
        opened = happenings.goal_opened(event.where, event.issue, event.sender, event.where.delivery_id)
        return GoalId(f"{event.where.full_name}#{event.number}"), [opened]

    async def _on_edit(self, event: hooks.IssueEdited) -> Meaning | None:
        if event.sender.is_bot:
            return None
        goal_id = await self._goals.goal(event.where.full_name, event.number)
        if goal_id is None:
            return await self._early(event.where, event.issue)
        before = None
        if event.title_before is not None or event.body_before is not None:
            title = event.issue.title if event.title_before is None else event.title_before
            before = (title, event.issue.body if event.body_before is None else event.body_before)
        known = await self._journal(goal_id)
        return goal_id, happenings.goal_edited(known, event.issue, event.sender, before=before)

    async def _early(self, where: hooks.Where, issue: hooks.IssueText) -> Meaning | None:
        """A goal whose opening has not arrived (yet): the issue itself tells all but who put the label on it."""
        if issue.on_pull_request or not issue.is_open or self._label not in issue.labels:
            return None
        repository = self._app.repository(where.installation_id, where.owner, where.repository)
        try:
            found = await repository.labelled_by(issue.number, self._label)
        except Refused:
            return None  # the issue is gone, or we may not see it any more
        by = hooks.Person(*found) if found is not None else issue.author
        if by.is_bot:
            return None
        opened = happenings.goal_opened(where, issue, by, where.delivery_id)
        return GoalId(f"{where.full_name}#{issue.number}"), [opened]

    # Comments

    async def _on_comment(self, event: hooks.CommentCreated | hooks.CommentEdited) -> Meaning | None:
        if event.sender.is_bot:
            return None
        if event.author.is_bot:
            events = self._ticked(event)
        elif event.sender.id != event.author.id:
            return None  # somebody else's edit of a person's comment never speaks for that person
        else:
            before = event.before or "" if isinstance(event, hooks.CommentEdited) else ""
            events = happenings.commands_in(
                event.body, before=before, comment_id=event.comment_id, author=event.author, number=event.number,
                head_sha=event.head_sha, place=event.place,
            )  # fmt: skip
        if not events:
            return None
        self._acknowledge(event)
        if event.on_pull_request:
            goal_id = await self._goals.asked(event.where, event.number)
        else:
            goal_id = await self._goals.goal(event.where.full_name, event.number)
        if goal_id is not None:
            return goal_id, events
        opened = await self._early(event.where, event.issue) if event.issue is not None else None
        if opened is not None:
            return opened[0], [*opened[1], *events]
        conversation = happenings.conversation_opened(event.where, event.number)
        return GoalId(f"{event.where.full_name}#{event.number}"), [conversation, *events]

    def _acknowledge(self, event: hooks.CommentCreated | hooks.CommentEdited) -> None:
        """Eyes on the comment, at once: the answer may have to wait for an action that is under way.

        Nothing depends on it, so it is not waited for; the answer brings a reaction of its own.
        """
        if event.author.is_bot or event.place is hooks.CommentPlace.REVIEW:
            return  # a ticked box is its own acknowledgement, and GitHub has no reactions on a review's body
        repository = self._app.repository(event.where.installation_id, event.where.owner, event.where.repository)

        async def react() -> None:
            with contextlib.suppress(PostdocError):
                await repository.react_to_comment(event.comment_id, "eyes", place=event.place)

        task = asyncio.create_task(react(), name=f"acknowledge {event.comment_id}")
        self._reactions.add(task)
        task.add_done_callback(self._reactions.discard)

    async def settle(self) -> None:
        """Wait for the acknowledgements that are under way."""
        await asyncio.gather(*self._reactions, return_exceptions=True)

    def _ticked(self, event: hooks.CommentCreated | hooks.CommentEdited) -> list[NewEvent]:
        """A box that a person ticked in one of our own comments is that person's command."""
        if not isinstance(event, hooks.CommentEdited) or event.author.login != self._goals.login:
            return []
        ticked = boxes_ticked(event.body) - boxes_ticked(event.before or "")
        return [
            happenings.box_ticked(
                *_BOXES[box], comment_id=event.comment_id, at=event.updated_at, author=event.sender, number=event.number
            )
            for box in sorted(ticked)
            if box in _BOXES
        ]

    # The pull request

    async def _on_pull_request(
        self, event: hooks.PullRequestClosed | hooks.PullRequestReopened | hooks.PullRequestSynchronized
    ) -> Meaning | None:
        goal_id = await self._goals.goal(event.where.full_name, event.number)
        if goal_id is None or event.sender.login == self._goals.login:
            return None
        known, by, at = await self._journal(goal_id), event.sender.login, event.pull.updated_at
        match event:
            case hooks.PullRequestSynchronized():
                return goal_id, happenings.head_moved(known, before=event.before, after=event.after, by=by, at=at)
            case hooks.PullRequestClosed():
                at = event.pull.closed_at or at
                return goal_id, happenings.pull_request_closed(known, merged=event.merged, by=by, at=at)
            case hooks.PullRequestReopened():
                return goal_id, happenings.pull_request_reopened(known, by=by, at=at)

    # Checks

    async def _on_check(self, event: hooks.CheckRunAction | hooks.CheckRunRerequested) -> Meaning | None:
        """A button is its presser's command; GitHub's own Re-run button is the wish to go on."""
        goal_id = goal_of_check(event)
        if goal_id is None or event.sender.is_bot:
            return None
        proposed = next((e for e in await self._journal(goal_id) if e.kind is EventKind.PROPOSED), None)
        if proposed is None:
            return None
        match event:
            case hooks.CheckRunAction(identifier="agree"):
                verb, args = "run", [event.head_sha]
            case hooks.CheckRunAction():
                verb, *args = event.identifier.split() or [""]
            case hooks.CheckRunRerequested():
                verb, args = "resume", []
        pressed = happenings.button_pressed(
            verb, args, delivery_id=event.where.delivery_id, check_run_id=event.check_run_id, author=event.sender,
            number=int(proposed.data["pull_request"]), head_sha=event.head_sha,
        )  # fmt: skip
        return goal_id, [pressed]

    async def _journal(self, goal_id: GoalId) -> Sequence[Event]:
        return await asyncio.to_thread(self._engine.journal.read, goal_id)
