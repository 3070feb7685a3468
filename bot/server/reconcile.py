"""Nothing depends on a delivery that arrives: at start-up and on a timer, GitHub is compared with the journals.

A pass asks each repository that has goals what has changed since the pass before (four requests, however many goals),
and looks closely (up to six requests) at the goals that did change; every sixth pass looks at all of them, and for
goals that no journal knows. What is found goes the way of the webhooks, under the same keys (`bot.server.looking`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from bot.conversation.events import InstallationChanged, IssueClosed, Occurrence
from bot.conversation.github import Refused
from bot.conversation.survey import Survey, Touched, gone
from bot.domain.experiment import Experiment, NewEvent
from bot.domain.goal import GoalId
from bot.errors import PostdocError
from bot.loop.actions.jobs import job_prefix
from bot.loop.engine import Engine
from bot.loop.world import World
from bot.server.looking import Finding, Looker, Tell, farewell
from bot.server.rebuild import Rebuilder
from runners.job import JobId

log = logging.getLogger("postdoc.reconcile")

CLOSE_LOOK_EVERY = 6
"""Passes. Deleted issues and lost labels show in a close look only."""
OVERLAP_SECONDS = 120.0
"""Passes overlap by this much, for clocks that differ."""
REMEMBERED_DAYS = 90.0
"""A goal that ended longer ago, and that nobody has touched since, is not looked at any more."""
FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 1.0, 300.0
NOT_LEADING_SECONDS = 0.25
BRANCHES = "postdoc/"


class Reconciler:
    """The background task of the server."""

    def __init__(self, world: World, engine: Engine, looker: Looker, rebuilder: Rebuilder, tell: Tell) -> None:
        self._world, self._engine, self._looker, self._told = world, engine, looker, tell
        self._rebuilder = rebuilder
        self._since: dict[str, float] = {}
        """Repository -> when its last pass began."""
        self._hurry = asyncio.Event()
        self._unclaimed: set[JobId] = set()
        """Running jobs that no journal wanted at the pass before."""
        self._told_of: set[JobId] = set()

    async def run(self, seconds: float, leading: Callable[[], bool]) -> None:
        """Rebuild what is lost, then compare every `seconds` until cancelled, in the one process that leads."""
        number, failures = 0, 0
        while True:
            if not leading():
                number = 0
                await asyncio.sleep(NOT_LEADING_SECONDS)
                continue
            try:
                if number % CLOSE_LOOK_EVERY == 0:
                    await self._rebuilder.rebuild()
                await self.look_at_all(closely=number % CLOSE_LOOK_EVERY == 0)
                await self._orphans()
                number, failures = number + 1, 0
            except PostdocError as error:
                failures += 1
                log.warning("GitHub could not be compared with the journals: %s", error)
            except Exception:
                failures += 1
                log.exception("comparing GitHub with the journals failed")
            retry = min(FIRST_RETRY_SECONDS * 2.0 ** min(failures, 20), LONGEST_RETRY_SECONDS)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), min(seconds, retry) if failures else seconds)
                number = 0
            self._hurry.clear()

    def looked(self, full_name: str, at: float) -> None:
        """Somebody else has compared this repository at that moment (Unix seconds): what changed since is enough."""
        self._since[full_name] = at

    async def note(self, event: Occurrence) -> None:
        """Happenings that are understood by looking: a closed issue, an App that is installed or taken away."""
        if isinstance(event, IssueClosed):
            goal_id = GoalId(f"{event.where.full_name}#{event.number}")
            if (await self._engine.experiment(goal_id)).is_goal:
                with contextlib.suppress(Refused):  # the timer says farewell to what is gone
                    await self.look_at(goal_id)
        elif isinstance(event, InstallationChanged):
            self._hurry.set()

    async def look_at_all(self, *, closely: bool) -> None:
        """One pass. What goes wrong with one repository or goal is said, and the others are looked at all the same."""
        goals: dict[tuple[int, str], list[Experiment]] = {}
        for goal_id in await asyncio.to_thread(self._engine.journal.goals):
            x = await self._engine.experiment(goal_id)
            if _is_open(x):
                goals.setdefault((x.installation_id, x.full_name), []).append(x)
        for (installation_id, full_name), experiments in goals.items():
            try:
                await self._look_at_repository(
                    Survey(self._world.app, installation_id, full_name), experiments, closely
                )
            except Refused as refused:
                await self._say_farewell(installation_id, full_name, experiments, refused)
            except PostdocError as error:
                log.warning("%s was not compared: %s", full_name, error)

    async def _look_at_repository(self, survey: Survey, experiments: list[Experiment], closely: bool) -> None:
        since = self._since.get(survey.full_name)
        began = time.time()
        if since is None or closely:
            touched = experiments
        else:
            changed = await survey.touched(since - OVERLAP_SECONDS, BRANCHES)
            touched = [x for x in experiments if _was_touched(x, changed)]
        for x in touched:
            await self.look_at(x.goal_id)
        self._since[survey.full_name] = began

    async def look_at(self, goal_id: GoalId) -> None:
        """Tell the journal of one goal what it does not know. Raises: TransientError, Refused."""
        # Nothing else may be read in between: the journal may have gone on while others were looked at.
        x = await self._engine.experiment(goal_id)
        for finding in await self._looker.findings(x, await self._looker.see(x)):
            if isinstance(finding, NewEvent):
                added = await self._engine.append(goal_id, [finding]) > 0
            else:
                added = await self._told(*finding) is None
            if added:
                log.warning("goal %s: %s had not been told", goal_id, _name(finding))

    async def _say_farewell(
        self, installation_id: int, full_name: str, experiments: list[Experiment], refused: Refused
    ) -> None:
        why = await gone(self._world.app, installation_id, full_name)
        if why is None:
            log.warning("%s was not compared: %s", full_name, refused)
            return
        for x in experiments:
            if not x.concluded and x.crash is None:
                log.warning("goal %s ends: %s", x.goal_id, why)
                await self._engine.append(x.goal_id, [farewell(x, why)])

    async def _orphans(self) -> None:
        """Running jobs that no journal wants.

        A job whose id is that of a goal of ours, and that this goal has not asked for at two passes in a row, is of a
        journal that was lost: it is said, and then ended. One of no goal that we know is said and left alone, because
        the folder may be shared with a server of which we know nothing.
        """
        wanted: set[str] = set()
        prefixes: dict[str, Experiment] = {}
        for goal_id in await asyncio.to_thread(self._engine.journal.goals):
            x = await self._engine.experiment(goal_id)
            wanted |= set(x.jobs)
            if x.is_goal:
                prefixes[job_prefix(x)] = x
        unclaimed: set[JobId] = set()
        for job_id in await asyncio.to_thread(self._world.runner.jobs):
            if job_id in wanted:
                continue
            status = await asyncio.to_thread(self._world.runner.status, job_id)
            if status is None or status.state.ended:
                continue
            owner = next((x for prefix, x in prefixes.items() if job_id.startswith(prefix)), None)
            if owner is None:
                if job_id not in self._told_of:
                    self._told_of.add(job_id)
                    log.warning("job %s runs and is of no goal known here; it is left alone", job_id)
            elif owner.goal_id in self._engine.waiting:
                if job_id in self._unclaimed:
                    log.warning("job %s is ended: goal %s has not asked for it", job_id, owner.goal_id)
                    await asyncio.to_thread(self._world.runner.cancel, job_id)
                else:
                    log.warning("job %s runs and goal %s has not asked for it", job_id, owner.goal_id)
                    unclaimed.add(job_id)
        self._unclaimed = unclaimed


def _is_open(x: Experiment) -> bool:
    """Whether anything that people do could still matter to the goal."""
    if not x.is_goal:
        return False
    if not x.concluded:
        return True
    return not x.merged and time.time() - x.last_at < REMEMBERED_DAYS * 86400


def _was_touched(x: Experiment, changed: Touched) -> bool:
    standing = changed.heads.get(x.branch)
    moved = x.pull_request is not None and not x.closed and standing not in (x.head_sha, x.unread_head)
    return moved or x.issue in changed.numbers or x.pull_request in changed.numbers


def _name(finding: Finding) -> str:
    return str(finding.kind) if isinstance(finding, NewEvent) else f"{finding.event} {finding.payload['action']}"
