"""The engine: turns each goal's journal until it waits, one durable workflow for each action.

A goal is turned by the process that holds its lease. Each action runs as the DBOS workflow `<goal>/<n>/<fence>`, n
being the length of the journal it was decided from and fence that of the lease. Its argument is the action itself, so
an action that a killed process left behind is finished exactly as it was decided, by whoever has the lease next. What
an action did is appended to the journal under keys, in one transaction that also looks at the lease: a process that
was taken for dead writes nothing. An action that is repeated finds what it already did by its hidden key.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa
from dbos import DBOS, DBOSConfig, SetWorkflowID, WorkflowHandleAsync
from dbos import error as dbos_error

from bot.conversation.github import Gone
from bot.domain.experiment import Event, EventKind, Experiment, NewEvent, State
from bot.domain.fold import experiment_of
from bot.domain.goal import GoalId
from bot.errors import LeaseLost, PostdocError, TransientError, UserError
from bot.loop.action import Action
from bot.loop.journal import Journal
from bot.loop.leases import POLL_SECONDS, Lease, Leases
from bot.loop.policy import next_action
from bot.loop.workflows import WORKFLOW, Unfinished, unfinished, workflow_id

log = logging.getLogger("postdoc.engine")

T = TypeVar("T")
Perform = Callable[[Experiment, Action], Awaitable[list[NewEvent]]]
"""Carries out one action and says what happened. Must be safe to repeat."""
Point = Callable[[str, GoalId, Action], Awaitable[None]]
"""Called at `decided`, `performed` and `recorded`; tests end the process there."""

Keep = Callable[[GoalId, dict[str, Any] | None], Awaitable[None]]
"""Called with `{"n", "action"}` before an action is carried out, and with None when a goal comes to wait: what has to
outlive this machine is kept elsewhere by then. Raises: TransientError to be asked again, LeaseLost to stop."""

FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 60.0
GIVE_UP_AFTER_SECONDS = 6 * 3600.0
"""An outage longer than this stops the goal with an apology instead of waiting unseen."""
BUG_PAUSE_SECONDS = 5.0
_GOAL = "goal/"
"""Begins the name of a goal's lease."""


class Engine:
    """Performs actions until every goal waits. One engine for each process, because DBOS is one for each process."""

    def __init__(
        self,
        journal: Journal,
        leases: Leases,
        perform: Perform,
        *,
        database_url: str,
        at: Point | None = None,
        keep: Keep | None = None,
    ) -> None:
        self.journal, self.leases = journal, leases
        self._perform, self._at, self._keep = perform, at, keep
        self._database_url = database_url
        self._tasks: dict[GoalId, asyncio.Task[None]] = {}
        self._again: set[GoalId] = set()
        self._arrived: set[GoalId] = set()
        """Goals whose lease is ours and whose unfinished actions have not been looked for yet."""
        self._unfinished: dict[GoalId, Unfinished] = {}
        self._still: set[GoalId] = set()
        self.waiting: dict[GoalId, Experiment] = {}
        """Goals of this process that have been turned and wait for the world, as they then stood."""
        self.unreadable: dict[GoalId, str] = {}
        """Goals that this version leaves alone, and why."""
        self._acting: set[asyncio.Task[Any]] = set()
        """DBOS shields its workflows from their callers' ends, so they are ended by themselves."""
        self._draining = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None

        @DBOS.workflow(name=WORKFLOW, max_recovery_attempts=None)
        async def workflow(goal_id: str, n: int, decided: dict[str, Any]) -> int:
            return await self._act(GoalId(goal_id), n, decided)

        self._workflow = workflow

    # Starting and stopping

    async def start(self) -> None:
        """Launch DBOS, take the goals that nobody has, and turn them."""
        await asyncio.to_thread(self.leases.start)
        config = DBOSConfig(
            name="postdoc",
            system_database_url=self._database_url,
            # Pinned: with the default source hash, an edit would strand every workflow of the version before.
            application_version="1",
            # A new one for each process, so that DBOS by itself recovers nothing: leases decide who does.
            executor_id=self.leases.executor,
            sys_db_pool_size=5,
            # Its threads warn at length of every outage; ours says it once.
            log_level="ERROR",
        )
        DBOS(config=config)
        await asyncio.to_thread(DBOS.launch)
        await asyncio.to_thread(self.leases.look)
        await self._take_free()
        await self._take_in()
        self._looking = asyncio.create_task(self._look(), name="look at leases")

    async def drain(self, limit_seconds: float) -> bool:
        """Start no action and give idle goals to others at once; let actions in progress end, up to the limit.

        False when one did not.
        """
        self._draining.set()
        self.waiting.clear()
        busy = {_name(goal_id) for goal_id in self._tasks}
        with contextlib.suppress(PostdocError):
            await asyncio.to_thread(self.leases.release, *(self.leases.held - busy))
        if not self._tasks:
            return True
        _, late = await asyncio.wait(list(self._tasks.values()), timeout=limit_seconds)
        return not late

    async def stop(self) -> None:
        """End now: an action in progress is left for whoever takes the goal next."""
        self._draining.set()
        if self._looking is not None:
            self._looking.cancel()
        tasks = [*self._acting, *self._tasks.values(), *([self._looking] if self._looking else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(self.leases.stop)
        await asyncio.to_thread(DBOS.destroy)

    # The world

    async def append(self, goal_id: GoalId, events: list[NewEvent]) -> int:
        """Record what the world did and see to it that the goal is turned, here or by the process that has it.

        Returns how many events were new. Raises: TransientError when the database cannot be used.
        """

        def poke(connection: sa.Connection) -> None:
            if not self.leases.holds(_name(goal_id)):
                self.leases.poke(connection, _name(goal_id))

        added = await asyncio.to_thread(self.journal.append, goal_id, events, guard=poke)
        if added:
            self.turn(goal_id)
        return len(added)

    async def experiment(self, goal_id: GoalId) -> Experiment:
        events = await asyncio.to_thread(self.journal.read, goal_id)
        return experiment_of(goal_id, events)

    # Which goals are ours

    async def _look(self) -> None:
        """Keep the leases, and notice what other processes leave or left for this one."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                changes = await asyncio.to_thread(self.leases.look)
                for goal_id in _goals(changes.lost):
                    self.waiting.pop(goal_id, None)
                self._arrived.update(_goals(changes.gained))
                if changes.freed and not self._draining.is_set():
                    await self._take_free()
                await self._take_in()
                for goal_id in _goals(changes.poked):
                    self.turn(goal_id)
            except TransientError as error:
                log.warning("%s", error)
            except Exception:
                log.exception("looking at the leases failed")

    async def _take_free(self) -> None:
        goals = await asyncio.to_thread(self.journal.goals)
        names = [_name(goal_id) for goal_id in goals if goal_id not in self.unreadable]
        self._arrived.update(_goals(await asyncio.to_thread(self.leases.acquire_free, names)))

    async def _take_in(self) -> None:
        """Look for what the holders before were doing with the goals that have arrived, and turn them."""
        arrived = set(self._arrived)
        if arrived:
            self._unfinished |= await unfinished(arrived)
            self._arrived -= arrived
            for goal_id in arrived:
                self.turn(goal_id)

    async def _hold(self, goal_id: GoalId) -> Lease | None:
        """The goal's lease, taken if it is free; None when it is another process's."""
        name = _name(goal_id)
        if self.leases.lease(name) is None:
            if goal_id in self.unreadable:
                return None
            await asyncio.to_thread(self.leases.acquire, name)
            if self.leases.lease(name) is None:
                return None
            self._arrived.add(goal_id)
        if goal_id in self._arrived:
            self._unfinished |= await unfinished([goal_id])
            self._arrived.discard(goal_id)
        return self.leases.lease(name)

    # Turning

    def turn(self, goal_id: GoalId) -> None:
        """See to it that the goal is looked at, now or right after the action it is busy with."""
        if self._draining.is_set() or goal_id in self._still:
            return
        if goal_id in self._tasks:
            self._again.add(goal_id)
            return
        task = asyncio.create_task(self._turn(goal_id), name=f"turn {goal_id}")
        self._tasks[goal_id] = task
        task.add_done_callback(lambda _: self._tasks.pop(goal_id, None))

    def keep_still(self, goal_id: GoalId) -> None:
        """Do not turn this goal until it is let go: its journal is being put together."""
        self._still.add(goal_id)

    def let_go(self, goal_id: GoalId) -> None:
        """Turn a goal that was kept still."""
        self._still.discard(goal_id)
        self.turn(goal_id)

    async def act(self, goal_id: GoalId) -> bool:
        """Perform the next action of a goal that is kept still, and no other; False when it brought nothing new.

        Raises: TransientError when another process has the goal.
        """
        lease = await self._hold(goal_id)
        if lease is None:
            raise TransientError(f"goal {goal_id} is another process's")
        before = await self.experiment(goal_id)
        action = next_action(before)
        if action is None:
            return False
        await self._run(goal_id, before.length, action.as_dict(), lease)
        return (await self.experiment(goal_id)).length > before.length

    def continues(self, goal_id: GoalId, n: int, decided: dict[str, Any]) -> None:
        """Carry this action out before anything else is decided for the goal: its journal was kept amidst it."""
        self._unfinished[goal_id] = Unfinished(n, decided, ())

    @property
    def busy(self) -> bool:
        """True while some goal is being turned."""
        return bool(self._tasks)

    async def forget(self, goal_id: GoalId) -> None:
        """Drop what is left of this goal's workflows, which were decided on a journal that is lost."""
        left = await DBOS.list_workflows_async(workflow_id_prefix=f"{goal_id}/", load_input=False, load_output=False)
        if left:
            await DBOS.delete_workflows_async([status.workflow_id for status in left])
        self._unfinished.pop(goal_id, None)

    async def _turn(self, goal_id: GoalId) -> None:
        while not self._draining.is_set() and goal_id not in self._still:
            try:
                lease = await self._hold(goal_id)
                if lease is None or await self._turn_once(goal_id, lease):
                    return
            except LeaseLost as error:
                log.warning("goal %s: %s", goal_id, error)
                self.waiting.pop(goal_id, None)
                return
            except TransientError as error:
                log.warning("goal %s: %s", goal_id, error)
                await self._pause(FIRST_RETRY_SECONDS)
            except Exception:
                log.exception("goal %s could not be turned", goal_id)
                await self._pause(BUG_PAUSE_SECONDS)
                with contextlib.suppress(PostdocError):
                    # Under a new fence whatever was half stored counts as left behind, and is gone through again.
                    await asyncio.to_thread(self.leases.release, _name(goal_id))

    async def _turn_once(self, goal_id: GoalId, lease: Lease) -> bool:
        """Perform the next action; True when there is none."""
        self._again.discard(goal_id)
        experiment = await self.experiment(goal_id)
        if not experiment.length:
            return True
        if experiment.unreadable:
            await self._leave_alone(goal_id, f"{experiment.unreadable} ({experiment.unreadable_error})")
            return True
        if (left := self._unfinished.get(goal_id)) is not None:
            # What the holder before was doing comes first: events that arrived since may have moved the journal on,
            # and the same effect decided under another number would run beside it.
            await self._run(goal_id, left.n, left.decided | {"supersedes": list(left.workflow_ids)}, lease)
            self._unfinished.pop(goal_id, None)
            return False
        action = next_action(experiment)
        if action is None:
            if goal_id in self._again:
                return False
            if self._keep is not None:
                await self._keep(goal_id, None)
                if goal_id in self._again:
                    return False
            self.waiting[goal_id] = experiment
            return True
        self.waiting.pop(goal_id, None)
        await self._run(goal_id, experiment.length, action.as_dict(), lease)
        return False

    async def _leave_alone(self, goal_id: GoalId, why: str) -> None:
        """Give the goal to a process of a version that understands it."""
        log.error("goal %s is left alone: %s", goal_id, why)
        self.unreadable[goal_id] = why
        self._unfinished.pop(goal_id, None)
        await asyncio.to_thread(self.leases.release, _name(goal_id))

    # One action

    async def _run(self, goal_id: GoalId, n: int, decided: dict[str, Any], lease: Lease) -> None:
        try:
            action = Action.from_dict(decided)
        except ValueError as error:
            await self._leave_alone(goal_id, f"an action was decided by a newer version of Postdoc ({error})")
            raise LeaseLost("given back") from error
        if self._keep is not None:
            await self._keep(goal_id, {"n": n, "action": action.as_dict()})
        await self._reach("decided", goal_id, action)
        with SetWorkflowID(workflow_id(goal_id, n, lease.fence)):
            handle: WorkflowHandleAsync[int] = await DBOS.start_workflow_async(self._workflow, goal_id, n, decided)
        try:
            await handle.get_result(polling_interval_sec=0.1)
        except dbos_error.DBOSAwaitedWorkflowCancelledError as error:
            raise LeaseLost("another process has gone through the action") from error
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            raise LeaseLost("the action was left to whoever takes the goal next") from None
        await self._reach("recorded", goal_id, action)

    async def _act(self, goal_id: GoalId, n: int, decided: dict[str, Any]) -> int:
        """The workflow: an error when nothing was done, left unfinished when something may have been."""
        lease = self.leases.lease(_name(goal_id))
        if lease is None:
            raise LeaseLost(f"{goal_id} is another process's now")
        await self._outlast(lambda: self.leases.verify(lease))
        task = asyncio.current_task()
        assert task is not None
        self._acting.add(task)
        task.add_done_callback(self._acting.discard)
        try:
            with self.leases.acting_under(lease):
                if superseded := decided.get("supersedes"):
                    await DBOS.cancel_workflows_async(list(superseded))
                return await self._perform_and_record(goal_id, n, Action.from_dict(decided), lease)
        except LeaseLost as error:
            log.warning("goal %s, action %s: %s", goal_id, decided["kind"], error)
            raise asyncio.CancelledError from error  # DBOS then leaves the workflow as it is

    async def _perform_and_record(self, goal_id: GoalId, n: int, action: Action, lease: Lease) -> int:
        # The journal as it stood when this was decided: a replay then sees what the first attempt saw, and names what
        # it makes by the same keys, whatever has arrived since.
        journal = await self._outlast(lambda: self.journal.read(goal_id))
        if len(journal) < n:
            log.error("goal %s: action %s was decided on a journal that is lost", goal_id, action.kind)
            return 0
        before = experiment_of(goal_id, journal[:n])
        try:
            events = await self._patiently(goal_id, journal[:n], action, lease)
        except LeaseLost:
            raise
        except (UserError, Gone) as error:
            log.warning("goal %s, action %s: %s", goal_id, action.kind, error)
            events = [_crash(before, str(error))]
        except Exception:
            reference = secrets.token_hex(4)
            log.exception("goal %s, action %s failed; reference %s", goal_id, action.kind, reference)
            events = [_crash(before, "something in Postdoc itself broke", reference)]
        await self._reach("performed", goal_id, action)
        added = await self._record(goal_id, events, lease)
        if not added:
            after = experiment_of(goal_id, await self._outlast(lambda: self.journal.read(goal_id)))
            if not after.unreadable and next_action(after) == action:
                # Nothing new and the same decision again would turn for ever.
                log.error("goal %s: action %s changed nothing", goal_id, action.kind)
                stuck = _crash(before, f"the step “{action.kind.replace('_', ' ')}” came to nothing", f"n{n}")
                await self._record(goal_id, [stuck], lease)
        return len(added)

    async def _record(self, goal_id: GoalId, events: list[NewEvent], lease: Lease) -> list[Event]:
        return await self._outlast(
            lambda: self.journal.append(goal_id, events, guard=lambda connection: self.leases.fence(connection, lease))
        )

    async def _patiently(
        self, goal_id: GoalId, journal: Sequence[Event], action: Action, lease: Lease
    ) -> list[NewEvent]:
        """Perform, waiting out what may pass. Each attempt gets an experiment of its own to work on."""
        wait, waited = FIRST_RETRY_SECONDS, 0.0
        while True:
            await self._outlast(lambda: self.leases.check(lease))
            try:
                return await self._perform(experiment_of(goal_id, journal), action)
            except TransientError as error:
                if waited >= GIVE_UP_AFTER_SECONDS:
                    raise
                pause = max(wait, error.retry_after_seconds or 0.0)
                log.warning("goal %s, action %s: %s; again in %.0f s", goal_id, action.kind, error, pause)
                await self._pause(pause)
                self._leave_if_draining()
                waited, wait = waited + pause, min(wait * 2, LONGEST_RETRY_SECONDS)

    async def _outlast(self, ask: Callable[[], T]) -> T:
        """The database's answer, however long it is away: nothing of ours can be decided or given up without it."""
        told = False
        while True:
            try:
                return await asyncio.to_thread(ask)
            except TransientError as error:
                if not told:
                    log.warning("waiting: %s", error)
                told = True
                await self._pause(FIRST_RETRY_SECONDS)
                self._leave_if_draining()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._draining.wait(), timeout=seconds)

    def _leave_if_draining(self) -> None:
        """An outage is not waited out while the process is asked to end."""
        if self._draining.is_set():
            raise LeaseLost("the process is ending")

    async def _reach(self, point: str, goal_id: GoalId, action: Action) -> None:
        if self._at is not None:
            await self._at(point, goal_id, action)


def _name(goal_id: GoalId) -> str:
    return _GOAL + goal_id


def _goals(names: Iterable[str]) -> list[GoalId]:
    return [GoalId(name.removeprefix(_GOAL)) for name in names if name.startswith(_GOAL)]


def _crash(experiment: Experiment, error: str, reference: str | None = None) -> NewEvent:
    if experiment.crash is not None:
        # Even the ending failed: end without telling anybody rather than try for ever.
        ended = {"state": str(State.NEEDS_HUMAN), "reason": experiment.crash, "head_sha": None}
        return NewEvent(EventKind.ENDED, f"ended/{experiment.length}", ended)
    data = {"error": error, "reference": reference}
    return NewEvent(EventKind.CRASHED, f"crashed/{experiment.length}", data)
