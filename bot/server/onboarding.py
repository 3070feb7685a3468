"""When onboarding pull requests are opened: as installations come in, and a few an hour, so that an organisation with a
thousand repositories does not find a thousand pull requests.

Nothing is stored. At start-up every installation is walked through, and what is due is read from GitHub; that also
brings in what a dead process was about to do. The pull requests of the last hour that the walk comes across count
towards the hour's number, so a restart does not begin it anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, replace
from typing import Any

from bot.conversation import events as hooks
from bot.conversation.commands import parse_commands
from bot.conversation.github import GitHubApp, Refused, StaleHead
from bot.conversation.permissions import permission_reaches
from bot.errors import PostdocError, TransientError
from bot.loop.onboarding import BRANCH, Answer, Offer, Standing, offer_configuration

log = logging.getLogger("postdoc.onboarding")

HOUR_SECONDS = 3600.0
RETRY_SECONDS = 30.0
_SETTLED = (Standing.CONFIGURED, Standing.ACCEPTED)


@dataclass(frozen=True, slots=True)
class _Wish:
    installation_id: int
    full_name: str
    asked_by: int = 0
    """The comment in which a person asked; such a wish waits for no hour."""
    not_before: float = 0.0


class Onboarding:
    """A queue of repositories to look at, and the one task that works it off."""

    def __init__(
        self, app: GitHubApp, offer: Offer, *, per_hour: int = 6, clock: Callable[[], float] = time.time
    ) -> None:
        self._app, self._offer, self._per_hour, self._clock = app, offer, per_hour, clock
        self._walks: dict[int, None] = {}
        """Installations whose repositories are to be listed, in order."""
        self._wishes: dict[_Wish, None] = {}
        """In order."""
        self._opened: dict[int, dict[str, float]] = defaultdict(dict)
        """Installation -> repository -> when its pull request was opened, if that was in the last hour."""
        self._settled: set[str] = set()
        """Repositories that are known to be configured: a cache, nothing depends on it."""
        self._paused: dict[int, float] = {}
        """Installation -> when GitHub may be asked about it again."""
        self._changed = asyncio.Event()

    async def note(self, event: hooks.Occurrence) -> None:
        """Queue what an event makes due. Raises: TransientError, to be asked again."""
        match event:
            case hooks.InstallationChanged(action="created" | "unsuspend" | "new_permissions_accepted"):
                self._walks[event.installation_id] = None
            case hooks.InstallationChanged(action="added"):
                self._wish(_Wish(event.installation_id, name) for name in event.repositories)
            case hooks.InstallationChanged(action="deleted" | "suspend"):
                self._forget(event.installation_id)
            case hooks.InstallationChanged(action="removed"):
                self._forget(event.installation_id, frozenset(event.repositories))
            case hooks.CommentCreated():
                if await self._asks(event):
                    self._wish([_Wish(event.where.installation_id, event.where.full_name, event.comment_id)])
        self._changed.set()

    async def run(self, may_work: Callable[[], bool] = lambda: True) -> None:
        """Work until cancelled, while `may_work` says so: of several processes, one does."""
        listed = False
        while True:
            if not may_work():
                listed = False  # whoever did it last may not have come to the end
                await asyncio.sleep(1.0)
                continue
            self._changed.clear()
            if not listed and not (listed := await self._list_installations()):
                await asyncio.sleep(RETRY_SECONDS)
                continue
            walk, wish = self._next_walk(), self._next_wish()
            if walk is not None:
                await self._for(walk, self._walk(walk))
            elif wish is not None:
                await self._for(wish.installation_id, self._look(wish))
            else:
                if waiting := sum(not wish.not_before for wish in self._wishes):
                    log.info(
                        "%d repositories wait for their onboarding pull request: at most %d an hour are opened "
                        "(POSTDOC_ONBOARDING_PER_HOUR)", waiting, self._per_hour,
                    )  # fmt: skip
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), timeout=self._seconds_to_wait())

    async def _for(self, installation_id: int, work: Coroutine[Any, Any, None]) -> None:
        """Do an installation's work; while GitHub cannot be asked about it, the others' goes on."""
        try:
            await work
        except TransientError as error:
            log.warning("onboarding of installation %d has to wait: %s", installation_id, error)
            self._paused[installation_id] = self._clock() + (error.retry_after_seconds or RETRY_SECONDS)
        except Exception:
            log.exception("onboarding of installation %d failed", installation_id)

    # The queue

    def _wish(self, wishes: Iterable[_Wish]) -> None:
        self._wishes |= dict.fromkeys(wishes)

    def _forget(self, installation_id: int, names: frozenset[str] | None = None) -> None:
        """Drop what was waiting for repositories that the App can no longer see."""
        for wish in list(self._wishes):
            if wish.installation_id == installation_id and (names is None or wish.full_name in names):
                del self._wishes[wish]
        if names is None:
            self._walks.pop(installation_id, None)
        else:
            self._settled -= names

    def _next_walk(self) -> int | None:
        return next((each for each in self._walks if self._reachable(each)), None)

    def _next_wish(self) -> _Wish | None:
        """What may be looked at now: what a person asked for first."""
        now = self._clock()
        may = [wish for wish in self._wishes if wish.not_before <= now and self._reachable(wish.installation_id)]
        asked = next((wish for wish in may if wish.asked_by), None)
        return asked or next((wish for wish in may if self._room(wish.installation_id)), None)

    def _reachable(self, installation_id: int) -> bool:
        return self._paused.get(installation_id, 0.0) <= self._clock()

    def _room(self, installation_id: int) -> bool:
        since = self._clock() - HOUR_SECONDS
        kept = {name: at for name, at in self._opened[installation_id].items() if at > since}
        self._opened[installation_id] = kept
        return len(kept) < self._per_hour

    def _seconds_to_wait(self) -> float | None:
        """Until the first installation that is waited for has room and can be asked; None when nothing waits."""
        now = self._clock()
        ends = [self._paused.get(each, 0.0) for each in self._walks]
        for wish in self._wishes:
            opened = self._opened[wish.installation_id]
            room = now if wish.asked_by or self._room(wish.installation_id) else min(opened.values()) + HOUR_SECONDS
            ends.append(max(room, wish.not_before, self._paused.get(wish.installation_id, 0.0)))
        return max(0.05, min(ends) - now) if ends else None

    # The work

    async def _list_installations(self) -> bool:
        try:
            found = await self._app.installations()
        except PostdocError as error:
            log.warning("the App's installations cannot be listed: %s", error)
            return isinstance(error, Refused)
        self._walks |= dict.fromkeys(each.id for each in found if not each.suspended)
        return True

    async def _walk(self, installation_id: int) -> None:
        """List one installation's repositories; what can be told from the list alone is not asked again."""
        self._walks.pop(installation_id)
        try:
            rows = await self._app.installation_repositories(installation_id)
        except TransientError:
            self._walks[installation_id] = None
            raise
        except Refused as refused:
            log.warning("the repositories of installation %d cannot be listed: %s", installation_id, refused)
            return
        due = [row for row in rows if not (row["fork"] or row.get("archived") or row.get("disabled"))]
        self._wish(_Wish(installation_id, row["full_name"]) for row in due)

    async def _look(self, wish: _Wish) -> None:
        self._wishes.pop(wish)
        try:
            answer = await offer_configuration(
                self._app, wish.installation_id, wish.full_name, self._offer, asked_by=wish.asked_by
            )
        except TransientError:
            self._wishes = {wish: None} | self._wishes
            raise
        except (Refused, StaleHead) as error:
            # One repository's trouble is not another's.
            log.warning("%s could not be offered a configuration: %s", wish.full_name, error)
            if not wish.not_before:
                # Once more with another token: this one may be older than the repository's place in the installation.
                self._wishes[replace(wish, not_before=self._clock() + HOUR_SECONDS)] = None
            return
        self._remember(wish, answer)

    def _remember(self, wish: _Wish, answer: Answer) -> None:
        if answer.standing in _SETTLED:
            self._settled.add(wish.full_name)
        if answer.opened_at is not None:
            at = self._clock() if answer.opened_now else answer.opened_at
            self._opened[wish.installation_id][wish.full_name] = at
        if answer.opened_now:
            log.info("%s: onboarding pull request #%d is open", wish.full_name, answer.pull_request)
        elif answer.standing is Standing.UNFIT:
            log.info("%s is not offered a configuration: %s", wish.full_name, answer.why)
        elif answer.standing is Standing.BLOCKED:
            log.warning("%s cannot be offered a configuration: %s", wish.full_name, answer.why)

    async def _asks(self, event: hooks.CommentCreated) -> bool:
        """Whether somebody who may write commands something on our closed onboarding pull request."""
        full_name = event.where.full_name
        if not event.on_pull_request or full_name in self._settled or event.sender.is_bot:
            return False
        if event.sender.id != event.author.id or not parse_commands(event.body):
            return False
        repository = self._app.repository(event.where.installation_id, event.where.owner, event.where.repository)
        try:
            pull_request = await repository.pull_request(event.number)
            ours = pull_request["head"]["ref"] == BRANCH and pull_request["user"]["login"] == await self._app.login()
            if not ours or pull_request["state"] != "closed" or pull_request["merged"]:
                return False
            return permission_reaches(await repository.permission(event.sender.login, event.sender.id), "write")
        except Refused:
            return False
