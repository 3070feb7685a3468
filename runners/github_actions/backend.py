"""Jobs on GitHub Actions machines: one `workflow_dispatch` for each job, a wrapper on the machine that takes it.

The run is started on the default branch's workflow file, with the commit to train as an input, and carries the job's id
in its name, by which a dispatch that was interrupted is found again. What the job is given and what it says travel
through its store, which the bot's own server keeps (`STORE` in the job's folder); GitHub itself is asked only whether
the run waits, goes or has ended, and by whom. The wrapper outlives the workflow's own process, so a run that has ended
on GitHub is no lost job as long as the wrapper renews its lease.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bot.errors import PlatformError, UserError
from runners.github_actions.api import ActionsApi, RunSeen, why_waiting
from runners.github_actions.artifact import has_ended, import_artifact
from runners.job import FailureKind, Flavor, JobId, JobSpec, JobStatus, Swept, read_json
from runners.layout import SPEC, read_status, write_json
from runners.remote.runner import RemoteRunner, Seen, Sighting
from runners.remote.sealing import new_key
from runners.remote.store import CANCEL, SEAL, STATUS, FolderStore, check_key

log = logging.getLogger("postdoc.actions")

STORE = "store"
"""Folder of the job's folder that its wrapper reads and writes through the server."""
TITLE = "postdoc "
"""What a run's name begins with; the job's id follows. The workflow file says `run-name: postdoc ${{ inputs.job }}`."""
MARGIN_MINUTES = 15
"""Over the job's own time-out, for fetching its inputs and sending its outputs."""
_INTENT = "dispatching.json"
_LISTED_SECONDS = 12.0
"""How long a run that GitHub has accepted may take to appear in its list."""
_FORCE_AFTER_SECONDS = 120.0
_ARTIFACT_TRIES = 20


@dataclass(slots=True)
class _Memory:
    """Of one job, in this process."""

    sighting: Sighting | None = None
    asked_at: float = float("-inf")
    stale: bool = False
    machine: str = ""
    artifact_tries: int = 0


@dataclass(frozen=True, slots=True)
class Dispatching:
    """How this server's jobs are started."""

    server_url: str
    """Where machines reach the server, without a slash at the end."""
    workflow: str = "postdoc-train.yml"
    label: str = "postdoc"
    queue_seconds: float = 3600.0
    look_seconds: float = 30.0
    """Longest time between two questions about one run; webhooks make it shorter."""
    again_seconds: float = 2.0
    """Shortest time between two such questions."""


class ActionsBackend:
    """The backend of a RemoteRunner with the same root."""

    name = "actions"
    poll_seconds = 0.5
    isolates = True
    """The machine runs a job in its own sandbox, or refuses it there."""
    hears = True

    def __init__(
        self,
        root: Path,
        api: ActionsApi,
        token_of: Callable[[str], str],
        dispatching: Dispatching,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._root, self._api, self._token_of, self._clock = root.resolve(), api, token_of, clock
        self._settings = dispatching
        self._memories: dict[JobId, _Memory] = {}
        self._jobs: dict[tuple[str, int], JobId] = {}
        self._asked_to_end: dict[int, float] = {}

    # the protocol

    def store(self, job_id: JobId) -> FolderStore:
        return _OwnFolder(self._root / job_id / STORE)

    def omitted(self, spec: JobSpec) -> frozenset[str]:
        return frozenset(name for name in spec.mounts if spec.origins.get(name, "").startswith("hub:"))

    def submit(self, spec: JobSpec) -> Mapping[str, Any]:
        repository = spec.labels.get("repository", "")
        if not repository:
            raise UserError(f"job {spec.job_id} names no repository whose machines could take it (label `repository`)")
        store = self.store(spec.job_id)
        if store.read(SEAL) is None:
            store.write(SEAL, new_key())
        run = self._existing(spec.job_id, repository) or self._dispatched(spec, repository)
        return {"repository": repository, "run": run.id, "page": run.page, "label": self._label(spec),
                "dispatched_at": self._clock()}  # fmt: skip

    def look(self, job_id: JobId, handle: Mapping[str, Any]) -> Sighting:
        """As GitHub said last, asked again when it is due. GitHub's own outages end no job."""
        memory = self._memories.setdefault(job_id, _Memory())
        self._jobs[handle["repository"], handle["run"]] = job_id
        wait = self._settings.again_seconds if memory.stale else self._settings.look_seconds
        if memory.sighting is not None and time.monotonic() - memory.asked_at < wait:
            return memory.sighting
        memory.asked_at, memory.stale = time.monotonic(), False
        try:
            memory.sighting = self._seen(job_id, handle, memory)
        except PlatformError as error:
            log.warning("job %s: %s", job_id, error)
            if memory.sighting is None or memory.sighting.seen in (Seen.ENDED, Seen.GONE):
                return Sighting(Seen.RUNNING, detail=f"GitHub cannot be asked now: {error}")
        except UserError as error:
            # The App was taken from the repository, say; what the wrapper says still counts.
            memory.sighting = Sighting(Seen.GONE, str(error), machine_may_live=True)
        return memory.sighting

    def cancel(self, job_id: JobId, handle: Mapping[str, Any]) -> None:
        """GitHub may be out of reach: the wrapper hears of it through the store, and a sweep ends what still waits."""
        try:
            self._end_run(handle["repository"], handle["run"])
        except PlatformError as error:
            log.warning("job %s: its run cannot be cancelled now: %s", job_id, error)
        self.refresh(job_id)

    def orphans(self, known: frozenset[JobId]) -> Sequence[str]:
        """Runs that go on for a job that has ended here, or that nobody here knows."""
        ended = []
        for repository in self._repositories(known):
            try:
                runs = self._api.started(repository, self._settings.workflow)
            except UserError:
                continue  # the App was taken from it, or it has no such workflow
            for run in runs:
                job_id = JobId(run.title.removeprefix(TITLE))
                if run.status == "completed" or not run.title.startswith(TITLE) or self._is_under_way(job_id, known):
                    continue
                self._end_run(repository, run.id)
                ended.append(f"{repository} run {run.id} ({job_id})")
        return ended

    def flavors(self) -> Sequence[Flavor]:
        return (Flavor(self._settings.label),)

    # beyond the protocol

    def refresh(self, job_id: JobId | None = None) -> None:
        for known, memory in list(self._memories.items()):
            if job_id in (None, known):
                memory.stale = True

    def close(self) -> None:
        self._api.close()

    def job_of(self, repository: str, run_id: int) -> JobId | None:
        """The job of a run that was looked at."""
        return self._jobs.get((repository, run_id))

    def forget(self, job_id: JobId) -> None:
        self._memories.pop(job_id, None)
        self._jobs = {place: known for place, known in self._jobs.items() if known != job_id}

    # starting

    def _label(self, spec: JobSpec) -> str:
        return spec.hardware.flavor or self._settings.label

    def _existing(self, job_id: JobId, repository: str) -> RunSeen | None:
        """A run that an earlier, interrupted call has started. GitHub may need some seconds to list it."""
        deadline = time.monotonic() + (_LISTED_SECONDS if (self._root / job_id / _INTENT).exists() else 0)
        while True:
            title = TITLE + job_id
            found = [run for run in self._api.started(repository, self._settings.workflow) if run.title == title]
            if found or time.monotonic() >= deadline:
                return found[-1] if found else None
            time.sleep(min(1.0, self._settings.again_seconds))

    def _dispatched(self, spec: JobSpec, repository: str) -> RunSeen:
        minutes = math.ceil(spec.caps.timeout_seconds / 60) + MARGIN_MINUTES
        inputs = {
            "job": spec.job_id, "sha": spec.labels.get("sha", ""),
            "label": self._label(spec), "timeout_minutes": str(minutes),
            "store": f"{self._settings.server_url}/runs/{spec.job_id}/store", "token": self._token_of(spec.job_id),
        }  # fmt: skip
        write_json(self._root / spec.job_id / _INTENT, {"at": self._clock()})
        run = self._api.dispatch(repository, self._settings.workflow, inputs)
        run = run or self._existing(spec.job_id, repository)
        if run is None:
            raise PlatformError(f"GitHub has accepted job {spec.job_id} and does not list its run yet")
        return run

    # looking

    def _seen(self, job_id: JobId, handle: Mapping[str, Any], memory: _Memory) -> Sighting:
        repository = handle["repository"]
        run = self._api.run(repository, handle["run"])
        if run is None:
            return Sighting(Seen.GONE, f"GitHub knows no run {handle['run']} any more", machine_may_live=True)
        if run.status == "completed":
            return self._completed(job_id, handle, run, memory)
        if run.status != "in_progress":
            return self._waiting(job_id, handle)
        if not memory.machine:
            memory.machine = self._api.machine_of(repository, run.id)
        return Sighting(Seen.RUNNING, machine=memory.machine)

    def _waiting(self, job_id: JobId, handle: Mapping[str, Any]) -> Sighting:
        label, waited = handle["label"], self._clock() - handle["dispatched_at"]
        why = why_waiting(label, self._api.machines(handle["repository"]))
        if waited <= self._settings.queue_seconds:
            return Sighting(Seen.WAITING, why)
        self._end_run(handle["repository"], handle["run"])
        minutes = self._settings.queue_seconds / 60
        why = f"no machine took it within {minutes:g} minutes: {why}. {handle['page']}".strip()
        return Sighting(Seen.ENDED, why, failure=FailureKind.PLATFORM)

    def _completed(self, job_id: JobId, handle: Mapping[str, Any], run: RunSeen, memory: _Memory) -> Sighting:
        self._bring_artifact(job_id, handle, memory)
        cancelled = run.conclusion == "cancelled"
        if cancelled:
            # By a person on GitHub, who cannot know of the wrapper that goes on.
            self.store(job_id).write(CANCEL, b"")
        words = f"its workflow run ended as {run.conclusion or 'completed'}: {run.page}"
        failure = FailureKind.PLATFORM if run.conclusion == "startup_failure" else None
        return Sighting(
            Seen.ENDED, words, machine=memory.machine, failure=failure, cancelled=cancelled, machine_may_live=True
        )

    def _bring_artifact(self, job_id: JobId, handle: Mapping[str, Any], memory: _Memory) -> None:
        """The second way home, for outputs that the store lacks. Raises: PlatformError while waiting is worth it."""
        store = self.store(job_id)
        if has_ended(store.read(STATUS)) or memory.artifact_tries >= _ARTIFACT_TRIES:
            return
        memory.artifact_tries += 1
        spec = JobSpec.from_dict(read_json(self._root / job_id / SPEC) or {})
        limit = int(spec.caps.disk_gib * 1.05 * 2**30) + (1 << 20)
        place = self._root / job_id / "artifact.zip"
        try:
            if not self._api.artifact(handle["repository"], handle["run"], f"postdoc-{job_id}", place, limit):
                return
            import_artifact(place, store, limit)
        except UserError as error:
            log.warning("job %s: its artifact cannot be had: %s", job_id, error)
            memory.artifact_tries = _ARTIFACT_TRIES
        finally:
            place.unlink(missing_ok=True)

    # ending

    def _end_run(self, repository: str, run_id: int) -> None:
        """Ask for the run's end, and insist when that was asked for a while ago."""
        asked_at = self._asked_to_end.setdefault(run_id, self._clock())
        force = self._clock() - asked_at > _FORCE_AFTER_SECONDS
        with contextlib.suppress(UserError):
            self._api.cancel(repository, run_id, force=force)

    def _is_under_way(self, job_id: JobId, known: frozenset[JobId]) -> bool:
        status = read_status(self._root / job_id) if job_id in known else None
        return job_id in known and (status is None or not status.state.ended)

    def _repositories(self, known: frozenset[JobId]) -> Sequence[str]:
        specs = (read_json(self._root / job_id / SPEC) or {} for job_id in known)
        named = {str(spec.get("labels", {}).get("repository", "")) for spec in specs} - {""}
        return sorted(named) or self._api.repositories()


class ActionsRunner(RemoteRunner):
    """The Runner protocol over GitHub Actions."""

    def __init__(self, root: Path, backend: ActionsBackend, **options: Any) -> None:
        """`options` are RemoteRunner's own."""
        super().__init__(root, backend, **options)
        self.actions = backend

    def refresh(self, job_id: JobId | None = None) -> None:
        self.actions.refresh(job_id)
        super().refresh(job_id)

    def close(self) -> None:
        """Give up the connection to GitHub; the jobs go on."""
        self.actions.close()

    def refresh_run(self, repository: str, run_id: int) -> None:
        """GitHub has news of this run."""
        job_id = self.actions.job_of(repository, run_id)
        if job_id is not None:
            self.refresh(job_id)

    def sweep(self) -> Swept:
        swept = super().sweep()
        for job_id in self.jobs():
            status = read_status(self.root / job_id)
            if status is not None and status.state.ended:
                shutil.rmtree(self.root / job_id / STORE, ignore_errors=True)
        return swept

    def _end(self, folder: Path, status: JobStatus) -> JobStatus:
        """What has come home is in the mirror: its packed form, as large as a model, is kept no longer."""
        ended = super()._end(folder, status)
        self.actions.forget(JobId(folder.name))
        shutil.rmtree(folder / STORE, ignore_errors=True)
        return ended


class _OwnFolder(FolderStore):
    """On this machine's own disk: what is already there is linked instead of copied."""

    def fetch(self, key: str, path: Path) -> bool:
        path.unlink(missing_ok=True)
        try:
            os.link(self.folder / check_key(key), path)
        except FileNotFoundError:
            return False
        except OSError:
            return super().fetch(key, path)
        return True

    def push(self, path: Path, key: str) -> None:
        target = self.folder / check_key(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            os.link(path, target)
        except OSError:
            super().push(path, key)
