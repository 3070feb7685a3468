"""Jobs on Hugging Face Jobs: a container each, billed by the minute, found again by its labels.

What travels lies in one private *runs repository*: `code/` our own code, once for each version, `jobs/ID/` a job's
packed inputs, its checkpoints and outputs. Everything small comes back through the job's log (`wire`). The container
is given one token, as an encrypted secret: it should open that repository and nothing else (`postdoc doctor --hub`
looks), and the script does not see it (`container`).

https://huggingface.co/docs/huggingface_hub/guides/jobs
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from bot.errors import PlatformError, TransientError, UserError
from runners.hf_jobs import bootstrap
from runners.hf_jobs.container import LAST_WORDS
from runners.hf_jobs.hub import Hub, label
from runners.hf_jobs.package import code_archive, sha256_of
from runners.hf_jobs.prices import Prices
from runners.hf_jobs.store import HubStore, unattended
from runners.hf_jobs.stream import Reader, Spool
from runners.hf_jobs.wire import Signer
from runners.job import FailureKind, Flavor, JobId, JobSpec, read_json
from runners.layout import SPEC, read_status, write_json
from runners.remote import store as names
from runners.remote.runner import Seen, Sighting
from runners.remote.store import Store

TOKEN_VARIABLE = "POSTDOC_RUNS_TOKEN"
JOB_LABEL, OWNER_LABEL = "postdoc-job", "postdoc-owner"
JOB_UID = 10001
"""Whom a script runs as inside its container, where that one starts as root."""
GRACE_SECONDS = 1200.0
"""Beyond a job's own time-out, for fetching its inputs and for its outputs to leave. The supervisor inside keeps the
job's own; this is the platform's, for a container in which nothing works any more."""
LEASE_SECONDS = 900.0
"""Of silence in the log of a running job, after which its machine counts as lost: its wrapper speaks every minute."""
_POLL_SECONDS = 5.0
_DRAIN_SECONDS = 60.0
_GONE = ("COMPLETED", "CANCELED", "ERROR", "DELETED")
_INPUTS_NOTE = "inputs.json"
_ORIGIN_JOB = re.compile(r"job:([a-z0-9-]+)/")


@dataclass(frozen=True, slots=True)
class Machine:
    """What every job is given."""

    image: str
    """With its digest, so that the same job finds the same libraries."""
    flavor: str
    runs_token: str
    """The jobs' own: it should open the runs repository and nothing else."""
    uid: int = JOB_UID


class HubJobs:
    """The `Backend` of `RemoteRunner`."""

    name = "hf_jobs"

    def __init__(
        self,
        hub: Hub,
        machine: Machine,
        root: Path,
        *,
        poll_seconds: float = _POLL_SECONDS,
        drain_seconds: float = _DRAIN_SECONDS,
    ) -> None:
        """`root` is the folder of the jobs' mirrors; `drain_seconds` how long the log of an ended job is waited for
        before its last words are read from the repository."""
        self.hub, self.machine = hub, machine
        self.poll_seconds = poll_seconds
        self._drain_seconds = drain_seconds
        self._root = root.resolve()
        self._readers: dict[JobId, Reader] = {}
        self._ended_since: dict[JobId, float] = {}
        self.prices = Prices(hub.hardware)

    hears = False
    """Its store is the job's log, which goes one way: who wants a job to end has the platform end it."""

    @property
    def isolates(self) -> bool:
        """A container of its own keeps a job from this machine and from other jobs. It does not keep it from the
        network: `JobSpec.network` cannot be enforced where the platform's kernel refuses a network namespace."""
        return True

    @cached_property
    def owner(self) -> str:
        """Whose jobs these are among all in the account: this folder's, whatever bot works on it."""
        path = self._root / ".hf-owner.json"
        known = read_json(path)
        if known is None:
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_json(path, known := {"owner": uuid4().hex[:16]})
        return str(known["owner"])

    # what travels

    def store(self, job_id: JobId) -> Store:
        return HubStore(
            self.hub, self.spool_folder(job_id), self.folder_in_repository(job_id), partial(self.push_inputs, job_id)
        )

    def spool_folder(self, job_id: JobId) -> Path:
        folder = self._root / ".hf-spool" / job_id
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return folder

    def folder_in_repository(self, job_id: JobId) -> str:
        return f"jobs/{job_id}"

    def omitted(self, spec: JobSpec) -> frozenset[str]:
        """A model that anybody may fetch from the Hub, and what an earlier job has left in the runs repository."""
        return frozenset(name for name, origin in spec.origins.items() if name in spec.mounts and self._far(origin))

    def _far(self, origin: str) -> bool:
        if match := _ORIGIN_JOB.match(origin):
            return self._outputs_note(JobId(match[1])) is not None
        name, at, revision = origin.removeprefix("hub:").rpartition("@")
        return bool(origin.startswith("hub:") and at) and self.hub.is_public_model(name, revision)

    def _outputs_note(self, job_id: JobId) -> dict[str, Any] | None:
        """Of an earlier job of this bot whose outputs came home whole."""
        done = read_status(self._root / job_id) if (self._root / job_id / SPEC).is_file() else None
        note = read_json(self.spool_folder(job_id) / names.OUTPUTS_NOTE) if done and done.state.ended else None
        return note if note and note.get("revision") else None

    def push_inputs(self, job_id: JobId, archive: Path) -> None:
        """In one commit with our own code, which the repository mostly has already."""
        code, digest = code_archive()
        path, code_path = f"{self.folder_in_repository(job_id)}/{names.INPUTS}", f"code/{digest[:16]}.tar"
        revision = self.hub.commit(f"Inputs of job {job_id}", {path: archive, code_path: code})
        note = {"inputs": [path, revision, sha256_of(archive)], "code": [revision, digest, code_path]}
        write_json(self.spool_folder(job_id) / _INPUTS_NOTE, note)

    # the platform

    def submit(self, spec: JobSpec) -> Mapping[str, Any]:
        own = {JOB_LABEL: label(spec.job_id), OWNER_LABEL: self.owner}
        # The answer to an earlier attempt may have been lost together with the bot that waited for it.
        there = self.hub.jobs(own)
        if there:
            return {"id": there[0].id, "signed_as": self._signed_as(spec.job_id)}
        labels = {f"postdoc-{key}": label(value) for key, value in spec.labels.items() if value} | own
        timeout = int(spec.caps.timeout_seconds + GRACE_SECONDS)
        handle = self.hub.run(
            **self.container(self._config(spec), self.flavor_for(spec)),
            timeout=timeout,
            labels=labels | {"name": label(f"postdoc-{spec.job_id}")},
        )
        return {"id": handle, "signed_as": self._signed_as(spec.job_id)}

    def container(self, config: Mapping[str, Any], flavor: str) -> dict[str, Any]:
        """What starts our own code in a container; also a scheduled one's."""
        starter = Path(bootstrap.__file__).read_text(encoding="utf-8")
        return {
            "image": self.machine.image,
            "command": ["python", "-c", starter, json.dumps(config)],
            "secrets": {TOKEN_VARIABLE: self.machine.runs_token},
            "env": {},
            "flavor": flavor,
        }

    def shared_config(self) -> dict[str, Any]:
        return {
            "endpoint": self.hub.endpoint, "repository": self.hub.repository, "variable": TOKEN_VARIABLE,
            "uid": self.machine.uid,
        }  # fmt: skip

    def _config(self, spec: JobSpec) -> dict[str, Any]:
        note = read_json(self.spool_folder(spec.job_id) / _INPUTS_NOTE)
        if note is None:
            raise PlatformError(f"the inputs of job {spec.job_id} are not in the runs repository")
        digests = {}
        for match in filter(None, map(_ORIGIN_JOB.match, spec.origins.values())):
            if (outputs := self._outputs_note(JobId(match[1]))) is not None:
                digests[match[1]] = outputs["sha256"]
        return self.shared_config() | note | {
            "job": spec.job_id, "folder": self.folder_in_repository(spec.job_id), "scheduled": False,
            "signed_as": self._signed_as(spec.job_id), "origins": digests,
        }  # fmt: skip

    def _signed_as(self, job_id: JobId) -> str:
        return f"{self.owner}/{job_id}"

    def flavor_for(self, spec: JobSpec) -> str:
        """Raises: UserError when there is no such machine, or it has too few GPUs."""
        wanted = spec.hardware.flavor or self.machine.flavor
        if spec.hardware.nodes > 1:
            raise UserError("Hugging Face Jobs runs a job on one machine: ask for one node and more GPUs.")
        offered = {flavor.name: flavor for flavor in self.flavors()}
        if wanted not in offered:
            raise UserError(f"Hugging Face Jobs has no machine {wanted!r}: write one of {', '.join(offered)}.")
        if offered[wanted].gpus < spec.hardware.gpus:
            enough = [name for name, flavor in offered.items() if flavor.gpus >= spec.hardware.gpus]
            raise UserError(
                f"{wanted} has {offered[wanted].gpus} GPUs and the job asks for {spec.hardware.gpus}: write one of "
                f"{', '.join(enough) or 'fewer GPUs'}."
            )
        return wanted

    def look(self, job_id: JobId, handle: Mapping[str, Any]) -> Sighting:
        with unattended():
            found = self.hub.job(str(handle["id"]))
        if found is None or found.status.stage == "DELETED":
            return Sighting(Seen.GONE, "the Hub does not know it any more")
        stage, message = str(found.status.stage), str(found.status.message or "").strip()
        if stage == "SCHEDULING":
            return Sighting(Seen.WAITING, f"waiting for a {found.flavor} machine" + (f": {message}" if message else ""))
        cost, reader = self._cost(found), self._reader(job_id, handle)
        if stage not in _GONE:
            return Sighting(Seen.RUNNING, machine=str(found.flavor), cost_usd=cost)
        if not self._heard_out(job_id, reader):
            return Sighting(Seen.RUNNING, "its last words are being read", str(found.flavor), cost)
        return _ending(stage, message, reader.spool.last_line, str(found.flavor), cost)

    def _heard_out(self, job_id: JobId, reader: Reader) -> bool:
        """Whether everything that an ended job said has been read; after a while, from the repository."""
        since = self._ended_since.setdefault(job_id, time.monotonic())
        if not reader.finished.is_set():
            if time.monotonic() - since < self._drain_seconds:
                return False
            reader.stop()
            self._read_last_words(job_id, reader.spool)
        self._readers.pop(job_id, None)
        self._ended_since.pop(job_id, None)
        return True

    def _read_last_words(self, job_id: JobId, spool: Spool) -> None:
        target = self.spool_folder(job_id) / LAST_WORDS
        if self.hub.fetch(f"{self.folder_in_repository(job_id)}/{LAST_WORDS}", target):
            for line in target.read_text(encoding="utf-8").splitlines():
                spool.take(line)

    def _reader(self, job_id: JobId, handle: Mapping[str, Any]) -> Reader:
        reader = self._readers.get(job_id)
        if reader is None:
            # From the handle, because another machine may have submitted it.
            signer = Signer(self.machine.runs_token, str(handle["signed_as"]))
            spool, there = Spool(self.spool_folder(job_id), signer), str(handle["id"])
            reader = self._readers[job_id] = Reader(spool, lambda: self.hub.log(there), f"job {job_id}")
        return reader

    def _cost(self, found: Any) -> float | None:
        """So far: running seconds times what a second of that machine costs."""
        per_hour = self.prices.usd_per_hour(str(found.flavor))
        seconds = found.durations.running_secs if found.durations is not None else None
        if seconds is None and found.started_at is not None:
            ended = found.finished_at.timestamp() if found.finished_at is not None else time.time()
            seconds = ended - found.started_at.timestamp()
        return None if per_hour is None or seconds is None else round(per_hour * seconds / 3600, 6)

    def cancel(self, job_id: JobId, handle: Mapping[str, Any]) -> None:
        try:
            found = self.hub.job(str(handle["id"]))
            if found is not None and found.status.stage not in _GONE:
                self.hub.cancel(str(handle["id"]))
        except PlatformError as error:
            # It costs money until it ends: this has to be tried again.
            raise TransientError(str(error)) from error

    def orphans(self, known: frozenset[JobId]) -> Sequence[str]:
        names_known = {label(job_id) for job_id in known}
        ended = []
        for job in self.hub.jobs({OWNER_LABEL: self.owner}, ("RUNNING", "SCHEDULING")):
            name = str((job.labels or {}).get(JOB_LABEL, ""))
            # Asked again, because one may have been launched since `known` was made.
            if name not in names_known and name not in {
                label(path.parent.name) for path in self._root.glob(f"*/{SPEC}")
            }:
                self.hub.cancel(job.id)
                ended.append(f"{name} ({job.id})")
        self._forget_the_read()
        return ended

    def _forget_the_read(self) -> None:
        """What was read of an ended job's log lies in its mirror too."""
        for folder in (self._root / ".hf-spool").glob("*"):
            status = read_status(self._root / folder.name)
            if status is not None and status.state.ended:
                for piece in (*folder.glob(f"{names.LOG}*"), *folder.glob(f"{names.METRICS}*")):
                    piece.unlink(missing_ok=True)

    # prices

    def flavors(self) -> Sequence[Flavor]:
        """The default first. Raises: PlatformError, UserError."""
        offered = self.prices.flavors()
        return sorted(offered, key=lambda flavor: flavor.name != self.machine.flavor)


def _ending(stage: str, message: str, last_line: str, flavor: str, cost: float | None) -> Sighting:
    """Of a container that has ended; how its job did is the wrapper's to say, if it still could."""
    said = f"Hugging Face Jobs: {stage}" + (f", {message}" if message else "")
    detail = said + (f"; last line: {last_line[:300]}" if last_line else "")
    out_of_memory = stage == "ERROR" and re.search(r"\boom|out of memory", message, re.IGNORECASE)
    return Sighting(
        Seen.ENDED, detail, flavor, cost, failure=FailureKind.OOM if out_of_memory else None,
        cancelled=stage == "CANCELED",
    )  # fmt: skip
