"""What outlives the machine: the goals' journals and the treasury's book, on refs of the repository.

Written before an action is carried out and when a goal comes to wait; read once, at the start. The database in the
data folder is made anew from it each time, so there is one truth.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bot.conversation.github import RefMoved, Refs
from bot.domain.evaluation import Evaluation
from bot.domain.experiment import Experiment
from bot.domain.fold import experiment_of
from bot.domain.goal import GoalId
from bot.errors import LeaseLost, UserError
from bot.loop.actions.scripts import KEPT_SCRIPTS
from bot.loop.actions.specs import kept_name
from bot.loop.actions.traces import EVALUATION, HOLDOUT, output_json
from bot.loop.journal import Journal
from bot.loop.record import NAME, BadRecord, Record
from bot.loop.treasury import Treasury
from bot.serverless.lock import Lock
from runners.job import JobId, Runner
from runners.remote.runner import RemoteRunner

log = logging.getLogger("postdoc.ledger")

SPENDING, BOOK = "spending", "spending.json"
KEPT_JOBS = "jobs"
FRESH_SECONDS = 600.0
"""Before the very first process: what was labelled this recently was meant for it, should its event be lost."""


@dataclass(slots=True)
class Loaded:
    """What was found at the start."""

    doing: dict[GoalId, tuple[int, dict[str, Any]]] = field(default_factory=dict)
    """Goals of which a process before this one was in the middle of an action: (n, the action)."""
    refused: dict[GoalId, str] = field(default_factory=dict)
    """Goals whose journal is not taken, and why."""
    book: bool = False
    """Whether the treasury's book was there."""


class Ledger:
    """Every method may raise TransientError and Refused; those that write, LeaseLost when another process wrote."""

    def __init__(
        self, refs: Refs, lock: Lock, record: Record, journal: Journal, treasury: Treasury, runner: Runner,
        data_folder: Path,
    ) -> None:  # fmt: skip
        self._refs, self._lock, self._record = refs, lock, record
        self._journal, self._treasury, self._runner = journal, treasury, runner
        self._data_folder = data_folder
        self._at: dict[str, str] = {}
        """Name of a ref -> the commit that was read or written here last."""
        self._kept: dict[GoalId, tuple[int, dict[str, Any] | None]] = {}
        """Goal -> (events, action under way) as they stand on its ref."""
        self._files: dict[GoalId, set[str]] = {}
        """Goal -> further files that were put on its ref here."""
        self._book: dict[str, Any] = {}
        self._booking = asyncio.Lock()
        self.began_at = 0.0
        """Since when the repository is looked after, in Unix seconds; 0 before `load`."""
        self.changed: set[GoalId] = set()
        """Goals of which something was written here."""

    # Reading

    async def load(self, full_name: str, now: float) -> Loaded:
        """Put every journal and the book back into the empty database."""
        found = Loaded()
        self._at = await self._refs.all()
        await self._load_book(found, now)
        numbers = sorted((name for name in self._at if name.isdigit()), key=int)
        for name in numbers:
            goal_id = GoalId(f"{full_name}#{int(name)}")
            try:
                await self._load_goal(found, goal_id, name)
            except BadRecord as error:
                found.refused[goal_id] = str(error)
        return found

    async def _load_book(self, found: Loaded, now: float) -> None:
        self.began_at = now - FRESH_SECONDS
        if (sha := self._at.get(SPENDING)) is None:
            return
        try:
            note = self._record.read_note(SPENDING, await self._refs.file(BOOK, sha) or b"")
            self.began_at = float(note["began_at"])
            await asyncio.to_thread(self._treasury.open_book, note)
        except (BadRecord, LookupError, TypeError, ValueError) as error:
            # Fail closed: without the book nobody knows what the month has spent, or whether all spending is halted.
            raise UserError(
                f"refs/postdoc/{SPENDING} is refused: {error}. Put its genuine commit back, or delete the ref: what "
                "the journals tell of spending is then taken, and `/postdoc halt` has to be said again"
            ) from error
        self._book, found.book = note, True

    async def _load_goal(self, found: Loaded, goal_id: GoalId, name: str) -> None:
        content = await self._refs.file(NAME, self._at[name])
        if content is None:
            raise BadRecord(f"refs/postdoc/{name} holds no {NAME}")
        events, doing = self._record.read_whole(goal_id, content)
        await asyncio.to_thread(self._journal.restore, goal_id, events)
        self._kept[goal_id] = (len(events), doing)
        if doing is not None:
            found.doing[goal_id] = (int(doing["n"]), dict(doing["action"]))
        if isinstance(self._runner, RemoteRunner):
            await self._find_again(self._runner, experiment_of(goal_id, events))

    async def _find_again(self, runner: RemoteRunner, x: Experiment) -> None:
        """Jobs that run on another machine and that this one has never seen."""
        for job in x.running_jobs:
            if await asyncio.to_thread(runner.status, JobId(job.job_id)) is not None:
                continue
            kept = await self.kept_file(x.goal_id, f"{KEPT_JOBS}/{job.job_id}.json")
            if kept is not None:
                await asyncio.to_thread(runner.adopt, json.loads(kept))

    async def kept_file(self, goal_id: GoalId, path: str) -> bytes | None:
        """A file that was kept for the goal beside its journal; one that is not genuine is none."""
        sha = self._at.get(_name(goal_id))
        content = await self._refs.file(path, sha) if sha is not None else None
        if content is None or path.startswith(f"{KEPT_SCRIPTS}/"):
            return content  # a script is known by its digest
        try:
            return json.dumps(self._record.read_note(f"{goal_id}/{path}", content)).encode()
        except BadRecord as error:
            log.error("goal %s: %s on its ref is refused: %s", goal_id, path, error)
            return None

    # Writing

    async def keep(self, goal_id: GoalId, doing: dict[str, Any] | None) -> None:
        """Have the goal's journal on its ref as it stands now, with the action that is about to be carried out."""
        self._lock.check()
        await self.keep_book(halts_only=doing is not None)
        events = await asyncio.to_thread(self._journal.read, goal_id)
        if self._kept.get(goal_id) == (len(events), doing):
            return
        extras = await asyncio.to_thread(self._extras, experiment_of(goal_id, events))
        content = await asyncio.to_thread(self._record.sealed, goal_id, events, doing)
        what = f"{doing['action']['kind'].replace('_', ' ')} next" if doing is not None else "waiting"
        await self._advance(_name(goal_id), {NAME: content, **extras}, f"{goal_id}: {len(events)} events, {what}")
        self._kept[goal_id] = (len(events), doing)
        self._files.setdefault(goal_id, set()).update(extras)
        self.changed.add(goal_id)

    async def keep_all(self) -> None:
        """What was appended since and led to no action yet; an action that is under way stays so."""
        for goal_id in await asyncio.to_thread(self._journal.goals):
            if (kept := self._kept.get(goal_id)) is not None:
                await self.keep(goal_id, kept[1])
        await self.keep_book()

    async def keep_book(self, *, halts_only: bool = False) -> None:
        """Have the treasury's book on its ref as it stands now. Between two actions only a halt is worth the requests:
        what is reserved follows from the journals too."""
        async with self._booking:
            book = await asyncio.to_thread(self._treasury.book) | {"began_at": self.began_at}
            if book == self._book or (halts_only and book["halts"] == self._book.get("halts", [])):
                return
            self._lock.check()
            content = self._record.sealed_note(SPENDING, book)
            await self._advance(SPENDING, {BOOK: content}, "Reserved and spent")
            self._book = book

    async def _advance(self, name: str, files: Mapping[str, bytes], message: str) -> None:
        try:
            self._at[name] = await self._refs.advance(name, self._at.get(name), files, message)
        except RefMoved as moved:
            standing = await self._refs.standing(name)
            if not self._refs.made(name, standing) or standing is None:
                self._lock.lost = self._lock.lost or "another process"
                raise LeaseLost(f"another process has written: {moved}") from moved
            # A move of ours that was not answered has arrived after all.
            self._at[name] = await self._refs.advance(name, standing, files, message)

    def _extras(self, x: Experiment) -> dict[str, bytes]:
        """Small files that the goal needs where the data folder is gone, without those that are kept already."""
        found = self._scripts(x) | self._results(x) | self._traces(x)
        known = self._files.get(x.goal_id, set())
        return {path: content for path, content in found.items() if path not in known}

    def _scripts(self, x: Experiment) -> dict[str, bytes]:
        folder = self._data_folder / KEPT_SCRIPTS
        paths = [folder / digest for digest in {*x.shipped_digests.values(), *x.recipe_digests.values()}]
        return {f"{KEPT_SCRIPTS}/{path.name}": path.read_bytes() for path in paths if path.is_file()}

    def _results(self, x: Experiment) -> dict[str, bytes]:
        """Scores by item hash: what comparing needs, and nothing of a benchmark's text."""
        found: dict[str, bytes] = {}
        written = [(job, name) for job in x.jobs.values() for name in (EVALUATION, HOLDOUT)]
        for job, name in written:
            path = kept_name(job.job_id, name)
            if x.unjudged(job) or not job.role.evaluates or not job.succeeded or path in self._files.get(x.goal_id, ()):
                continue
            result = output_json(self._runner.folder(JobId(job.job_id)), name)
            if result is None:
                continue
            try:
                kept = Evaluation.from_dict(result).public()
                kept |= {"old_tasks": result["old_tasks"]} if "old_tasks" in result else {}
                found[path] = self._note(x.goal_id, path, kept)
            except (TypeError, AttributeError):
                log.warning("goal %s: what job %s found cannot be read, so it is not kept", x.goal_id, job.job_id)
        return found

    def _traces(self, x: Experiment) -> dict[str, bytes]:
        if not isinstance(self._runner, RemoteRunner):
            return {}
        traces = {job.job_id: self._runner.trace(JobId(job.job_id)) for job in x.running_jobs}
        paths = {f"{KEPT_JOBS}/{job_id}.json": trace for job_id, trace in traces.items() if trace is not None}
        return {path: self._note(x.goal_id, path, trace) for path, trace in paths.items()}

    def _note(self, goal_id: GoalId, path: str, value: Mapping[str, Any]) -> bytes:
        return self._record.sealed_note(f"{goal_id}/{path}", value)


def _name(goal_id: GoalId) -> str:
    return goal_id.rpartition("#")[2]
