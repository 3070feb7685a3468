"""A lost database, rebuilt from GitHub: every goal that GitHub shows and no journal knows is brought back.

A goal is known by its pull request, opened by us from a branch of ours, or by its open issue with the label; one that
has no pull request is opened anew, by whoever put the label on. What was labelled before the App was installed was
never meant for it. A goal whose pull request was closed within the last months comes back for the record. A halt is
put back before any goal is.

To rebuild on purpose, stop the server, move the database away and start it again.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time

import sqlalchemy as sa

from bot.conversation.commands import VERBS, parse_commands
from bot.conversation.survey import Json, Survey, installations, moment, repositories
from bot.domain.goal import GoalId
from bot.errors import PostdocError, TransientError
from bot.loop.actions.contract import repository_policy
from bot.loop.database import metadata
from bot.loop.engine import Engine
from bot.loop.world import World
from bot.server.looking import Looker, Tell
from bot.server.restoring import Place, Restorer

log = logging.getLogger("postdoc.rebuild")

CLOSED_DAYS = 90.0
"""Goals whose pull request was closed longer ago are left to GitHub's own memory."""
_BRANCH = re.compile(r"postdoc/(\d{1,9})-([a-z0-9-]+)")

_rebuilds = sa.Table(
    "rebuilds",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("started_at", sa.Float, nullable=False),
    sa.Column("finished_at", sa.Float),
)


class Rebuilder:
    """Finds the goals that no journal knows and brings them back."""

    def __init__(self, world: World, engine: Engine, looker: Looker, tell: Tell, *, label: str, database: sa.Engine):
        self._world, self._engine = world, engine
        self._restorer = Restorer(world, engine, looker, tell, label=label)
        self._label, self._database = label, database
        self.done = True
        """Deliveries are read from here on: a goal that is not back yet must not start anew."""

    def begin(self) -> None:
        """Say whether the journals are whole: they are not when they are empty, or when a rebuild broke off."""
        self.done = self._is_whole()

    async def rebuild(self) -> int:
        """Bring back every goal that no journal knows; returns how many. One that cannot be read holds up no other.

        Raises: TransientError, Refused while GitHub does not tell where the App is installed; TransientError when a
        repository could not be looked through and the journals were lost, so that it is tried again.
        """
        found, outage = 0, None
        for installation in await installations(self._world.app):
            if installation.get("suspended_at"):
                continue
            try:
                rows = await repositories(self._world.app, int(installation["id"]))
            except PostdocError as error:
                log.warning("installation %s cannot be looked through: %s", installation["id"], error)
                outage = error if isinstance(error, TransientError) else outage
                continue
            for row in rows:
                survey = Survey(self._world.app, int(installation["id"]), row["full_name"])
                try:
                    found += await self._rebuild_repository(survey, moment(installation["created_at"]))
                except TransientError as error:
                    outage = error
        if outage is not None and not self.done:
            raise outage
        if not self.done:
            await asyncio.to_thread(self._finish)
            self.done = True
        return found

    async def _rebuild_repository(self, survey: Survey, installed_at: float) -> int:
        found, outage = 0, None
        try:
            if not self.done:
                await self._restore_halt(survey)
            places = await self._unknown(survey, installed_at)
        except TransientError:
            raise
        except PostdocError as error:
            log.warning("%s cannot be looked through for goals: %s", survey.full_name, error)
            return 0
        for place in places:
            self._engine.keep_still(place.goal_id)
            try:
                found += await self._restorer.bring_back(place)
            except TransientError as error:
                log.warning("goal %s is not back yet: %s", place.goal_id, error)
                outage = error
            except PostdocError as error:
                log.warning("goal %s is not back: %s", place.goal_id, error)
            except Exception:
                log.exception("goal %s could not be brought back", place.goal_id)
            finally:
                self._engine.let_go(place.goal_id)
        if outage is not None:
            raise outage
        return found

    async def _restore_halt(self, survey: Survey) -> None:
        """The latest `/postdoc halt` or `halt off` in the repository by somebody who may say it, wherever it stands."""
        repository = self._world.app.repository(survey.installation_id, *survey.full_name.split("/"))
        policy = None
        for row in await survey.latest_comments():
            said = [command for command in parse_commands(row["body"] or "") if command.verb == "halt"]
            person: Json | None = row["user"]
            if not said or person is None or person["type"] == "Bot":
                continue
            policy = policy or await repository_policy(self._world, repository)
            granted = await repository.permission(person["login"], person["id"])
            if not policy.allows(VERBS["halt"].tier, granted) or not await survey.wholly_own(row):
                continue
            if tuple(word.lower() for word in said[-1].args) != ("off",):
                log.warning("all spending in %s is halted again: @%s said so", survey.full_name, person["login"])
                await asyncio.to_thread(self._world.treasury.halt, survey.full_name, person["login"])
            return

    async def _unknown(self, survey: Survey, installed_at: float) -> list[Place]:
        """Goals of the repository that no journal knows, the oldest first."""
        known = {*await asyncio.to_thread(self._engine.journal.goals), *self._engine.unreadable}
        login = await self._world.app.login()
        places: dict[GoalId, Place] = {}
        for pull in await survey.pulls(time.time() - CLOSED_DAYS * 86400):
            branch = _BRANCH.fullmatch(pull["head"]["ref"])
            ours = (pull["user"] or {}).get("login") == login
            home = (pull["head"].get("repo") or {}).get("full_name") == survey.full_name
            if branch is None or not ours or not home:
                continue
            goal_id = GoalId(f"{survey.full_name}#{int(branch[1])}")
            places.setdefault(goal_id, Place(goal_id, survey, int(branch[1]), pull, branch[2], installed_at))
        for issue in await survey.labelled_issues(self._label):
            number = int(issue["number"])
            goal_id = GoalId(f"{survey.full_name}#{number}")
            places.setdefault(goal_id, Place(goal_id, survey, number, installed_at=installed_at))
        return [place for goal_id, place in sorted(places.items(), key=lambda p: p[1].issue) if goal_id not in known]

    # Whether it has to be done

    def _is_whole(self) -> bool:
        with self._database.begin() as connection:
            query = sa.select(_rebuilds.c.id).where(_rebuilds.c.finished_at.is_(None))
            if connection.execute(query).first() is not None:
                return False
            if self._engine.journal.goals():
                return True
            connection.execute(_rebuilds.insert().values(started_at=time.time()))
            return False

    def _finish(self) -> None:
        with self._database.begin() as connection:
            connection.execute(_rebuilds.update().values(finished_at=time.time()))
