"""The engine: turns each goal's journal until it waits, one durable workflow for each action.

Each action runs as the DBOS workflow `<goal>/<n>`, n being the length of the journal it was decided from. Its argument
is the action itself, so a workflow that a killed process left behind is finished exactly as it was decided, and the
same decision taken twice is the same workflow. What an action did is appended to the journal under keys, in the same
step; an action that is replayed after its effect but before its checkpoint finds the effect by its hidden key.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from dbos import DBOS, DBOSConfig, SetWorkflowID, WorkflowHandleAsync

from bot.domain.experiment import Event, EventKind, Experiment, NewEvent, State
from bot.domain.fold import experiment_of
from bot.domain.goal import GoalId
from bot.errors import TransientError, UserError
from bot.loop.journal import Journal
from bot.loop.policy import Action, next_action

log = logging.getLogger("postdoc.engine")

Perform = Callable[[Experiment, Action], Awaitable[list[NewEvent]]]
"""Carries out one action and says what happened. Must be safe to repeat."""
Point = Callable[[str, GoalId, Action], Awaitable[None]]
"""Called at `decided`, `performed` and `recorded`; tests end the process there."""

FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 60.0
GIVE_UP_AFTER_SECONDS = 6 * 3600.0
"""An outage longer than this stops the goal with an apology instead of waiting unseen."""


class Engine:
    """Performs actions until every goal waits. One engine for each process, because DBOS is one for each process."""

    def __init__(
        self,
        journal: Journal,
        perform: Perform,
        *,
        database_url: str,
        at: Point | None = None,
    ) -> None:
        self.journal = journal
        self._perform, self._at = perform, at
        self._database_url = database_url
        self._tasks: dict[GoalId, asyncio.Task[None]] = {}
        self._again: set[GoalId] = set()
        self._recovering: dict[GoalId, list[str]] = {}
        self._held: set[GoalId] = set()
        self.waiting: dict[GoalId, Experiment] = {}
        """Goals that have been turned and wait for the world, as they then stood."""
        self._stopping = False

        # DBOS finds a workflow by its registered name when it recovers one, so both are registered before launch.
        @DBOS.step(name="perform_and_record")
        async def step(goal_id: str, n: int, decided: dict[str, Any]) -> int:
            return await self._perform_and_record(GoalId(goal_id), n, Action.from_dict(decided))

        @DBOS.workflow(name="action", max_recovery_attempts=None)
        async def workflow(goal_id: str, n: int, decided: dict[str, Any]) -> int:
            return await step(goal_id, n, decided)

        self._workflow = workflow

    async def start(self) -> None:
        """Launch DBOS (which recovers what a killed process left) and turn every goal that is not waiting."""
        config = DBOSConfig(
            name="postdoc",
            system_database_url=self._database_url,
            # Pinned: with the default source hash, an edit would strand every workflow of the version before.
            application_version="1",
            log_level="WARNING",
        )
        DBOS(config=config)
        await asyncio.to_thread(DBOS.launch)
        for status in await DBOS.list_workflows_async(status=["PENDING", "ENQUEUED"]):
            goal_id = GoalId(status.workflow_id.rpartition("/")[0])
            self._recovering.setdefault(goal_id, []).append(status.workflow_id)
        for goal_id in await asyncio.to_thread(self.journal.goals):
            self.turn(goal_id)

    async def stop(self) -> None:
        """Let the action in progress end, start no other."""
        self._stopping = True
        for task in list(self._tasks.values()):
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await asyncio.to_thread(DBOS.destroy, workflow_completion_timeout_sec=10)

    async def append(self, goal_id: GoalId, events: list[NewEvent]) -> int:
        """Record what the world did and turn the goal. Returns how many events were new."""
        added = await asyncio.to_thread(self.journal.append, goal_id, events)
        if added:
            self.turn(goal_id)
        return len(added)

    async def experiment(self, goal_id: GoalId) -> Experiment:
        events = await asyncio.to_thread(self.journal.read, goal_id)
        return experiment_of(goal_id, events)

    def turn(self, goal_id: GoalId) -> None:
        """See to it that the goal is looked at, now or right after the action it is busy with."""
        if self._stopping or goal_id in self._held:
            return
        if goal_id in self._tasks:
            self._again.add(goal_id)
            return
        task = asyncio.create_task(self._turn(goal_id), name=f"turn {goal_id}")
        self._tasks[goal_id] = task
        task.add_done_callback(lambda _: self._tasks.pop(goal_id, None))

    def hold(self, goal_id: GoalId) -> None:
        """Do not turn this goal until it is let go: somebody is putting its journal together."""
        self._held.add(goal_id)

    def let_go(self, goal_id: GoalId) -> None:
        """Turn a goal that was held."""
        self._held.discard(goal_id)
        self.turn(goal_id)

    async def act(self, goal_id: GoalId) -> bool:
        """Perform the next action of a goal that is held, and no other; False when that brought nothing new."""
        experiment = await self.experiment(goal_id)
        action = next_action(experiment)
        if action is None:
            return False
        await self._run(goal_id, experiment.length, action)
        return (await self.experiment(goal_id)).length > experiment.length

    async def forget(self, goal_id: GoalId) -> None:
        """Drop what is left of this goal's workflows: its journal was lost, and their numbers will be used again."""
        left = await DBOS.list_workflows_async(workflow_id_prefix=f"{goal_id}/", load_input=False, load_output=False)
        if left:
            await DBOS.delete_workflows_async([status.workflow_id for status in left])

    async def _turn(self, goal_id: GoalId) -> None:
        for workflow_id in self._recovering.pop(goal_id, ()):
            # What the process before was doing comes first: events that arrived since may have moved the journal on,
            # and the same effect decided under another number would run beside it.
            handle: WorkflowHandleAsync[int] = await DBOS.retrieve_workflow_async(workflow_id)
            await handle.get_result(polling_interval_sec=0.1)
        while not self._stopping:
            self._again.discard(goal_id)
            experiment = await self.experiment(goal_id)
            action = next_action(experiment)
            if action is None:
                if goal_id in self._again:
                    continue
                self.waiting[goal_id] = experiment
                return
            self.waiting.pop(goal_id, None)
            await self._run(goal_id, experiment.length, action)

    async def _run(self, goal_id: GoalId, n: int, action: Action) -> None:
        await self._reach("decided", goal_id, action)
        with SetWorkflowID(f"{goal_id}/{n}"):
            handle = await DBOS.start_workflow_async(self._workflow, goal_id, n, action.as_dict())
        await handle.get_result(polling_interval_sec=0.1)
        await self._reach("recorded", goal_id, action)

    async def _perform_and_record(self, goal_id: GoalId, n: int, action: Action) -> int:
        # The journal as it stood when this was decided: a replay then sees what the first attempt saw, and names what
        # it makes by the same keys, whatever has arrived since.
        journal = await asyncio.to_thread(self.journal.read, goal_id)
        if len(journal) < n:
            log.error(
                "goal %s: action %s was decided on a journal that is lost; it is left alone", goal_id, action.kind
            )
            return 0
        before = experiment_of(goal_id, journal[:n])
        try:
            events = await self._patiently(goal_id, journal[:n], action)
        except UserError as error:
            events = [_crash(before, str(error))]
        except Exception:
            reference = secrets.token_hex(4)
            log.exception("goal %s, action %s failed; reference %s", goal_id, action.kind, reference)
            events = [_crash(before, "something in Postdoc itself broke", reference)]
        await self._reach("performed", goal_id, action)
        added = await asyncio.to_thread(self.journal.append, goal_id, events)
        if not added and next_action(await self.experiment(goal_id)) == action:
            # Nothing new and the same decision again would turn for ever.
            log.error("goal %s: action %s changed nothing", goal_id, action.kind)
            stuck = _crash(before, f"the step “{action.kind.replace('_', ' ')}” came to nothing", f"n{n}")
            await asyncio.to_thread(self.journal.append, goal_id, [stuck])
        return len(added)

    async def _patiently(self, goal_id: GoalId, journal: Sequence[Event], action: Action) -> list[NewEvent]:
        """Perform, waiting out what may pass. Each attempt gets an experiment of its own to work on."""
        wait, waited = FIRST_RETRY_SECONDS, 0.0
        while True:
            try:
                return await self._perform(experiment_of(goal_id, journal), action)
            except TransientError as error:
                if waited >= GIVE_UP_AFTER_SECONDS:
                    raise
                pause = max(wait, error.retry_after_seconds or 0.0)
                log.warning("goal %s, action %s: %s; again in %.0f s", goal_id, action.kind, error, pause)
                await asyncio.sleep(pause)
                waited, wait = waited + pause, min(wait * 2, LONGEST_RETRY_SECONDS)

    async def _reach(self, point: str, goal_id: GoalId, action: Action) -> None:
        if self._at is not None:
            await self._at(point, goal_id, action)


def _crash(experiment: Experiment, error: str, reference: str | None = None) -> NewEvent:
    if experiment.crash is not None:
        # Even the ending failed: end without telling anybody rather than try for ever.
        ended = {"state": str(State.NEEDS_HUMAN), "reason": experiment.crash, "head_sha": None}
        return NewEvent(EventKind.ENDED, f"ended/{experiment.length}", ended)
    data = {"error": error, "reference": reference}
    return NewEvent(EventKind.CRASHED, f"crashed/{experiment.length}", data)
