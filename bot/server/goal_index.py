"""Which goal an issue or a pull request belongs to."""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict

from bot.conversation.events import PullText, Where
from bot.conversation.github import GitHubApp, Refused
from bot.domain.experiment import EventKind
from bot.domain.goal import GoalId
from bot.loop.journal import Journal

_BRANCH = re.compile(r"postdoc/([1-9][0-9]{0,9})-.*")
KNOWN_STRANGERS = 10_000
"""Pull requests remembered as nobody's, so that each is asked about once."""

Place = tuple[str, int]
"""(full name of the repository, number)."""


class GoalIndex:
    """Read from the journals once; a pull request that is newer tells its goal by the name of its branch.

    Nothing is asked of the other processes on the same database: what one of them proposed is found by its branch too.
    """

    def __init__(self, journal: Journal, app: GitHubApp) -> None:
        self._journal, self._app = journal, app
        self._pulls: dict[Place, GoalId] = {}
        self._strangers: OrderedDict[Place, None] = OrderedDict()
        self._login = ""

    async def load(self) -> None:
        """Read every journal. Raises: TransientError while GitHub does not tell the App's own name."""
        self._login = await self._app.login()
        await asyncio.to_thread(self._read_journals)

    def _read_journals(self) -> None:
        for goal_id in self._journal.goals():
            for event in self._journal.read(goal_id):
                if event.kind is EventKind.PROPOSED:
                    self._pulls[goal_id.rpartition("#")[0], int(event.data["pull_request"])] = goal_id

    @property
    def login(self) -> str:
        """The App's own account."""
        return self._login

    def place(self, full_name: str, number: int) -> GoalId:
        """The goal as far as it is known without asking anybody: a number of its own until it is."""
        return self._pulls.get((full_name, number)) or GoalId(f"{full_name}#{number}")

    def learn(self, full_name: str, pull: PullText) -> None:
        """A branch of ours names its goal. Not a fork's, and not one that a person gave such a name."""
        branch = _BRANCH.fullmatch(pull.head_ref)
        if branch is not None and not pull.from_fork and pull.author.login == self._login:
            self._pulls[full_name, pull.number] = GoalId(f"{full_name}#{branch[1]}")
            self._strangers.pop((full_name, pull.number), None)

    async def goal(self, full_name: str, number: int) -> GoalId | None:
        """The goal whose issue or pull request this is; None when no journal knows it."""
        goal_id = self.place(full_name, number)
        return goal_id if await asyncio.to_thread(self._journal.read, goal_id) else None

    async def asked(self, where: Where, number: int) -> GoalId | None:
        """As `goal`, asking GitHub for the branch of a pull request that no event has told of yet."""
        place = (where.full_name, number)
        if place in self._pulls or place in self._strangers:
            return await self.goal(*place)
        repository = self._app.repository(where.installation_id, where.owner, where.repository)
        try:
            found = await repository.pull_request(number)
        except Refused:
            found = None
        if found is not None:
            self.learn(where.full_name, PullText.of(found, where.full_name))
        if place not in self._pulls:
            self._strangers[place] = None
            while len(self._strangers) > KNOWN_STRANGERS:
                self._strangers.popitem(last=False)
        return await self.goal(*place)
