"""From a webhook to the journal: which goal an event is about, and what it means there. No network, no decisions."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from bot.conversation import events as hooks
from bot.conversation.commands import new_commands, parse_commands
from bot.conversation.messages import boxes_ticked
from bot.domain.experiment import EventKind, NewEvent
from bot.domain.goal import GoalId
from bot.loop.engine import Engine
from bot.loop.inbox import Delivery

log = logging.getLogger("postdoc.handlers")


class Handlers:
    """Reads stored deliveries in the order they arrived and appends what they mean."""

    def __init__(self, engine: Engine, *, app_login: str, label: str) -> None:
        self._engine, self._app_login, self._label = engine, app_login, label
        self._pull_requests: dict[tuple[str, int], GoalId] = {}

    async def handle(self, delivery: Delivery) -> str | None:
        """Act on one delivery; returns why nothing was done, None when something was."""
        try:
            payload = json.loads(delivery.body)
        except ValueError:
            return "the body is not JSON"
        parsed = hooks.parse_event(delivery.event, payload, delivery.delivery_id)
        if parsed.occurrence is None:
            return parsed.reason
        found = await self._meaning(parsed.occurrence)
        if found is None:
            return "about no goal"
        goal_id, events = found
        added = await self._engine.append(goal_id, list(events))
        return None if added else "nothing new"

    async def told(self, event: str, payload: Mapping[str, Any]) -> str | None:
        """The same for what no delivery told, but somebody who went and looked."""
        moment = str((payload.get("pull_request") or payload.get("issue") or {}).get("updated_at"))
        return await self.handle(Delivery(0, f"looked/{moment}", event, json.dumps(payload).encode()))

    async def _meaning(self, event: hooks.Occurrence) -> tuple[GoalId, Sequence[NewEvent]] | None:
        if isinstance(event, hooks.InstallationChanged):
            return None
        full_name = event.where.full_name
        match event:
            case hooks.IssueOpened() | hooks.IssueLabeled():
                return self._on_issue(event)
            case hooks.IssueEdited():
                goal_id = await self._goal(full_name, event.number)
                if goal_id is None or event.sender.is_bot:
                    return None
                data = {"title": event.title, "body": event.body, "by": event.sender.login}
                version = hashlib.sha256(f"{event.title}\0{event.body}\0{event.where.delivery_id}".encode()).hexdigest()
                return goal_id, [NewEvent(EventKind.GOAL_EDITED, f"edited/{version[:16]}", data)]
            case hooks.CommentCreated() | hooks.CommentEdited():
                return await self._on_comment(event)
            case hooks.PullRequestClosed() | hooks.PullRequestReopened() | hooks.PullRequestSynchronized():
                return await self._on_pull_request(event)
        return None

    def _on_issue(self, event: hooks.IssueOpened | hooks.IssueLabeled) -> tuple[GoalId, Sequence[NewEvent]] | None:
        """An issue with our label is a goal. Who may open one is asked when its contract is read, of whoever acted."""
        labels = {*event.labels, *([event.label] if isinstance(event, hooks.IssueLabeled) else [])}
        if self._label not in labels or event.sender.is_bot:
            return None
        owner, _, repository = event.where.full_name.partition("/")
        goal_id = GoalId(f"{event.where.full_name}#{event.number}")
        data = {
            "owner": owner,
            "repository": repository,
            "issue": event.number,
            "title": event.title,
            "body": event.body,
            "author": event.sender.login,
            "author_id": event.sender.id,
            "installation_id": event.where.installation_id,
            "delivery_id": event.where.delivery_id,
        }
        return goal_id, [NewEvent(EventKind.GOAL_OPENED, "opened", data)]

    async def _on_comment(
        self, event: hooks.CommentCreated | hooks.CommentEdited
    ) -> tuple[GoalId, Sequence[NewEvent]] | None:
        if event.sender.is_bot:
            return None
        goal_id = await self._goal(event.where.full_name, event.number)
        if goal_id is None:
            return None
        if event.author.is_bot:
            return (goal_id, self._ticked(event)) if isinstance(event, hooks.CommentEdited) else None
        if event.sender.id != event.author.id:
            return None  # somebody else's edit of a person's comment never speaks for that person
        if isinstance(event, hooks.CommentEdited):
            commands = new_commands(event.before or "", event.body)
        else:
            commands = parse_commands(event.body)
        events = []
        for index, command in enumerate(commands):
            # Keyed by text, so that a redelivery or an edit that keeps the line is the same command.
            text = hashlib.sha256(command.text.encode()).hexdigest()[:12]
            events.append(self._command(event, command.verb, command.args, f"{event.comment_id}/{index}/{text}"))
        return goal_id, events

    def _ticked(self, event: hooks.CommentEdited) -> list[NewEvent]:
        """A box that a person ticked in one of our own comments is that person's command."""
        if event.author.login != self._app_login:
            return []
        ticked = boxes_ticked(event.body) - boxes_ticked(event.before or "")
        verbs = {"stop": ("stop", ()), "hour": ("budget", ("+1h",))}
        key = f"tick/{event.comment_id}/{event.where.delivery_id}"
        return [
            self._command(event, *verbs[box], f"{key}/{box}", comment_id=0) for box in sorted(ticked) if box in verbs
        ]

    def _command(
        self, event: hooks.CommentCreated | hooks.CommentEdited, verb: str, args: Sequence[str], key: str,
        *, comment_id: int | None = None,
    ) -> NewEvent:  # fmt: skip
        data = {
            "verb": verb,
            "args": list(args),
            "author": event.sender.login,
            "author_id": event.sender.id,
            "comment_id": event.comment_id if comment_id is None else comment_id,
            "number": event.number,
            "head_sha": event.head_sha,
        }
        return NewEvent(EventKind.COMMAND, f"command/{key}", data)

    async def _on_pull_request(
        self, event: hooks.PullRequestClosed | hooks.PullRequestReopened | hooks.PullRequestSynchronized
    ) -> tuple[GoalId, Sequence[NewEvent]] | None:
        goal_id = await self._goal(event.where.full_name, event.number)
        if goal_id is None or event.sender.login == self._app_login:
            return None
        by = event.sender.login
        match event:
            case hooks.PullRequestSynchronized():
                data = {"head_sha": event.after, "by": by}
                return goal_id, [NewEvent(EventKind.HEAD_MOVED, f"head/{event.after}", data)]
            case hooks.PullRequestClosed():
                closed = {"merged": event.merged, "by": by}
                return goal_id, [NewEvent(EventKind.PULL_REQUEST_CLOSED, f"closed/{event.where.delivery_id}", closed)]
            case hooks.PullRequestReopened():
                key = f"reopened/{event.where.delivery_id}"
                return goal_id, [NewEvent(EventKind.PULL_REQUEST_REOPENED, key, {"by": by})]

    async def _goal(self, full_name: str, number: int) -> GoalId | None:
        """The goal whose issue or pull request this is."""
        journal = self._engine.journal
        goal_id = GoalId(f"{full_name}#{number}")
        if journal.read(goal_id):
            return goal_id
        if (full_name, number) not in self._pull_requests:
            for known in journal.goals():
                for event in journal.read(known):
                    if event.kind is EventKind.PROPOSED:
                        place = (known.rpartition("#")[0], int(event.data["pull_request"]))
                        self._pull_requests[place] = known
        return self._pull_requests.get((full_name, number))
