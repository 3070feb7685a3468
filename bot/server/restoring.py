"""Bringing one goal back: its journal from its record, and what happened since from what GitHub and the runner show.

The longest genuine record on the goal's branch is put back (`bot.loop.record`). Then, before the goal goes on:

1. The action that the record's commit belongs to is finished. It was decided on this very journal, so it is found done
   wherever it was done, under the same keys.
2. What was done after it is done again, as long as there is evidence that it was: a check run, a review, a comment of
   ours, a job that the runner knows. Every action finds its own earlier effect, so this says nothing and costs nothing.
3. What people wrote since is told in the order in which they wrote it, with step 2 after each; at last what they did
   (pushes, closing).

An ending that was told on GitHub is noted, not told again.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from bot.conversation import messages
from bot.conversation.survey import Json, Survey
from bot.domain.experiment import Event, EventKind, Experiment, JobRole, NewEvent
from bot.domain.fold import experiment_of
from bot.domain.goal import GoalId
from bot.loop.action import Action, ActionKind
from bot.loop.actions.jobs import job_id_of
from bot.loop.actions.traces import EVALUATION, output_json
from bot.loop.engine import Engine
from bot.loop.policy import next_action
from bot.loop.record import NAME, BadRecord, Record
from bot.loop.world import World
from bot.server.looking import Finding, Looker, Sight, Tell
from runners.job import JobId

log = logging.getLogger("postdoc.rebuild")

MOST_STEPS = 2_000
"""Actions done again for one goal: more than any goal has, so that nothing goes round for ever."""
_FREE = frozenset(
    {
        ActionKind.RECORD_BASELINE,
        ActionKind.CHECK_DATA,
        ActionKind.CONSENT_BY_POLICY,
        ActionKind.DIAGNOSE,
        ActionKind.CONFIRM,
        ActionKind.ANSWER_COMMAND,
    }
)
"""Read what jobs left or what people asked for: done again without evidence, because they start nothing."""


@dataclass(frozen=True, slots=True)
class Place:
    """A goal that GitHub shows and no journal knows."""

    goal_id: GoalId
    survey: Survey
    issue: int
    pull: Json | None = None
    slug: str = ""
    """The last part of its branch and folder, where there is a pull request."""
    installed_at: float = 0.0

    @property
    def record_path(self) -> str:
        return f"experiments/{self.issue:04d}-{self.slug}/{NAME}"


class Restorer:
    """Brings back goals that are kept still meanwhile."""

    def __init__(self, world: World, engine: Engine, looker: Looker, tell: Tell, *, label: str) -> None:
        assert world.record is not None
        self._world, self._engine, self._looker, self._told = world, engine, looker, tell
        self._record: Record = world.record
        self._label = label

    async def bring_back(self, place: Place) -> bool:
        """False when there is nothing to bring back. Raises: TransientError, Refused."""
        closed = place.pull is not None and place.pull["state"] == "closed"
        record, sha = await self._longest_record(place) if place.pull is not None else (None, "")
        if record is None and closed:
            return False
        await self._engine.forget(place.goal_id)
        if record is None and not await self._open(place):
            return False
        # GitHub is looked at first: once the journal is back the goal goes on, whatever happens to us.
        x = experiment_of(place.goal_id, record) if record else await self._engine.experiment(place.goal_id)
        sight = await self._looker.see(x, int(place.pull["number"]) if place.pull is not None else None)
        evidence = await self._evidence(sight)
        if record is None:
            log.warning("goal %s is opened from its issue, which no delivery told of", place.goal_id)
        elif not await asyncio.to_thread(self._engine.journal.restore, place.goal_id, record):
            return False
        else:
            log.warning("goal %s is back: %d events from commit %s", place.goal_id, len(record), sha[:12])
        await asyncio.to_thread(self._world.treasury.restore, x)
        if record is not None:
            await self._finish_action(x, sha, evidence)
        await self._catch_up(place, evidence)
        for finding in await self._looker.commands(await self._engine.experiment(place.goal_id), sight):
            await self._tell(place.goal_id, finding)
            await self._catch_up(place, evidence)
        x = await self._engine.experiment(place.goal_id)
        for finding in await self._looker.changes(x, sight):
            await self._tell(place.goal_id, finding)
        await self._note_ending(await self._engine.experiment(place.goal_id), evidence)
        x = await self._engine.experiment(place.goal_id)
        await self._note_closed_issue(x, sight)
        await asyncio.to_thread(self._world.treasury.restore, x)
        return True

    async def _longest_record(self, place: Place) -> tuple[list[Event] | None, str]:
        """(events, commit) of the longest genuine record, wherever it stands: (None, "") when there is none.

        The longest, because an older one stays genuine: whoever can push can put it back on the branch, and must not
        undo a stop or a spent budget by that. What a review of ours was about is looked at too, for a branch that was
        moved back by force.
        """
        assert place.pull is not None
        survey, path = place.survey, place.record_path
        shas = [str(place.pull["head"]["sha"]), *await survey.versions(path, place.pull["head"]["sha"])]
        login = await self._world.app.login()
        for review in await survey.reviews(place.pull["number"]):
            if (review["user"] or {}).get("login") == login and review.get("commit_id"):
                shas.append(review["commit_id"])
        best: list[Event] | None = None
        found_at = ""
        repository = self._world.app.repository(survey.installation_id, *survey.full_name.split("/"))
        for sha in dict.fromkeys(shas):
            content = await repository.file(path, sha)
            if content is None:
                continue
            try:
                events = self._record.read(place.goal_id, content)
            except BadRecord as error:
                log.warning("goal %s: the record at %s is refused: %s", place.goal_id, sha[:12], error)
                continue
            if events and (best is None or len(events) > len(best)):
                best, found_at = events, sha
        return best, found_at

    async def _open(self, place: Place) -> bool:
        """Open an issue that no record tells of, as the handlers do when its label is put on."""
        issue = await place.survey.issue(place.issue)
        labelled = await place.survey.labelled(place.issue, self._label)
        if issue is None or issue["state"] != "open" or labelled is None:
            return False
        by, at = labelled
        if at < place.installed_at:
            return False
        payload = {
            "action": "labeled",
            "issue": issue,
            "label": {"name": self._label},
            "sender": by,
            "repository": {"full_name": place.survey.full_name},
            "installation": {"id": place.survey.installation_id},
        }
        return await self._told("issues", payload) is None

    async def _tell(self, goal_id: GoalId, finding: Finding) -> None:
        if isinstance(finding, NewEvent):
            await self._engine.append(goal_id, [finding])
        else:
            await self._told(*finding)

    # What was done already

    async def _evidence(self, sight: Sight) -> frozenset[str]:
        """Keys of everything that we have said about the goal."""
        login = await self._world.app.login()
        rows = [*sight.comments, *sight.reviews]
        keys = (messages.key_of(row["body"] or "") for row in rows if (row["user"] or {}).get("login") == login)
        return frozenset(key for key in keys if key)

    async def _finish_action(self, x: Experiment, sha: str, evidence: frozenset[str]) -> None:
        """What the record's commit was part of. An ending that was told is noted with the commit that carries it."""
        if not await self._note_ending(x, evidence, sha):
            await self._engine.act(x.goal_id)

    async def _catch_up(self, place: Place, evidence: frozenset[str]) -> None:
        for _ in range(MOST_STEPS):
            await self._note_ended_jobs(place.goal_id)
            x = await self._engine.experiment(place.goal_id)
            action = next_action(x)
            if await self._note_ending(x, evidence):
                continue
            if action is None or not await self._was_done(place, x, action, evidence):
                return
            if not await self._engine.act(place.goal_id):
                return

    async def _was_done(self, place: Place, x: Experiment, action: Action, evidence: frozenset[str]) -> bool:
        def said(name: str) -> bool:
            return messages.key(x.goal_id, name) in evidence

        match action.kind:
            case kind if kind in _FREE:
                return True
            case ActionKind.READ_CONTRACT:
                return said("contract")
            case ActionKind.PROPOSE:
                return place.pull is not None
            case ActionKind.ASK_CONSENT:
                return said(f"consent/{x.head_sha[:12]}")
            case ActionKind.START_RUN:
                return f"{x.goal_id}/{len(x.runs) + 1:02d}" in await place.survey.checks(x.head_sha)
            case ActionKind.LAUNCH:
                role, run = JobRole(action.args["role"]), int(action.args["run"])
                job_id = job_id_of(x, role, run, int(action.args["attempt"]), str(action.args["expects"]))
                return await asyncio.to_thread(self._world.runner.status, job_id) is not None
            case ActionKind.JUDGE:
                folder = self._world.runner.folder(JobId(str(action.args["job_id"])))
                return (await asyncio.to_thread(output_json, folder, EVALUATION) or {}).get("judged") is True
            case ActionKind.REVIEW:
                return said(f"run/{int(action.args['run']):02d}/review")
        return False

    async def _note_ending(self, x: Experiment, evidence: frozenset[str], sha: str = "") -> bool:
        """Note an ending that is due and was told already; its comment is the last thing that an ending does.

        Told endings are counted, because their names carry the length of a journal that is lost.
        """
        action = next_action(x)
        if action is None or action.kind is not ActionKind.CONCLUDE:
            return False
        names = tuple(messages.key(x.goal_id, f"{name}/") for name in ("ending", "crash"))
        told = sum(key.startswith(names) for key in evidence)
        journal = await asyncio.to_thread(self._engine.journal.read, x.goal_id)
        if told <= sum(event.kind is EventKind.ENDED for event in journal):
            return False
        await self._note_ended_jobs(x.goal_id)  # those that the ending cancelled
        ended = {"state": action.args["state"], "reason": action.args["reason"], "head_sha": sha or None}
        return await self._engine.append(x.goal_id, [NewEvent(EventKind.ENDED, f"ended/{x.length}", ended)]) > 0

    async def _note_ended_jobs(self, goal_id: GoalId) -> None:
        """The watcher's part, which waits until the goal is let go."""
        for job in (await self._engine.experiment(goal_id)).running_jobs:
            status = await asyncio.to_thread(self._world.runner.status, JobId(job.job_id))
            if status is not None and status.state.ended:
                data = {"job_id": job.job_id, "status": status.as_dict()}
                await self._engine.append(goal_id, [NewEvent(EventKind.JOB_ENDED, f"job/{job.job_id}/ended", data)])

    async def _note_closed_issue(self, x: Experiment, sight: Sight) -> None:
        action = next_action(x)
        if action is not None and action.kind is ActionKind.CLOSE_ISSUE and _is_closed(sight.issue):
            await self._engine.append(x.goal_id, [NewEvent(EventKind.ISSUE_CLOSED, f"issue-closed/{x.length}", {})])


def _is_closed(issue: Json | None) -> bool:
    return issue is None or issue["state"] == "closed"
