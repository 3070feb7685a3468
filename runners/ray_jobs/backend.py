"""Jobs on a Ray cluster, through its job submission API: Ray finds the machine, the wrapper there does the rest.

A job of the bot is one Ray job of the same id, so submitting it twice finds the first. What the machines run of ours
travels once, as a package that is named by its content; what a job reads and writes lies on a storage that the bot and
every node can write to. Each node needs Python with Ray and what training imports, and bubblewrap.

Not covered: Ray's own walls. Whoever reaches the dashboard may run anything on the cluster; keep it on a network that
the jobs' sandboxes are not on.
"""

from __future__ import annotations

import hashlib
import io
import math
import shlex
import time
import zipfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from bot.domain.redaction import redact
from bot.errors import PlatformError, UserError
from runners.job import FailureKind, Flavor, JobId, JobSpec
from runners.ray_jobs.dashboard import Dashboard, Machine
from runners.ray_jobs.demand import Demand, could_start, waiting_words
from runners.remote.runner import Seen, Sighting
from runners.remote.store import CANCEL, OUTPUTS, OUTPUTS_NOTE, FolderStore

OWNER, JOB = "postdoc", "postdoc-job"
"""Keys of a Ray job's metadata: which bot it belongs to, and its id."""
CPU_FLAVOR = "cpu"
DRIVER_CPUS = 0.1
"""Of the small process that gathers the machines of a job that trains on several."""
_STOP_SECONDS = 60
"""What the wrapper is given to end the job and bring home what there is, instead of Ray's 3 seconds."""
_ORPHAN_SECONDS = 120.0
"""A job this young may have been submitted by a process of ours after the list of known jobs was made."""
_START_TIMEOUT = "failed to start within"
"""Ray gives up on a job that has waited for its resources for 15 minutes (RAY_JOB_START_TIMEOUT_SECONDS)."""
_SETTLE_SECONDS = 5.0
"""Ray's watch over a job that has ended goes on for a second, and would end the next one of the same id."""
_PACKAGES = Path(__file__).resolve().parents[2]


class RayJobs:
    """A `Backend` of `RemoteRunner`."""

    name = "ray"
    isolates = True
    hears = True

    def __init__(
        self,
        dashboard: Dashboard,
        storage: Path,
        owner: str,
        *,
        python: Path | None = None,
        jobs_folder: str = "~/.postdoc/jobs",
        hub: bool = False,
        poll_seconds: float = 2.0,
        orphan_seconds: float = _ORPHAN_SECONDS,
    ) -> None:
        """`storage` is the same path on every node; `owner` is this bot's own mark and nobody else's; `python` is the
        interpreter on the nodes (the one that PATH finds when None); `jobs_folder` lies on a node's own disk; `hub`
        says that the nodes fetch models from the Hub by themselves."""
        self.poll_seconds = poll_seconds
        self._dashboard = dashboard
        self._storage = storage
        self._owner = owner
        self._python = python
        self._jobs_folder = jobs_folder
        self._hub = hub
        self._orphan_seconds = orphan_seconds

    def store(self, job_id: JobId) -> FolderStore:
        folder = self._storage / job_id
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PlatformError(f"the storage {self._storage} cannot be used: {error.strerror}") from error
        return FolderStore(folder)

    def omitted(self, spec: JobSpec) -> frozenset[str]:
        return frozenset(
            name for name, origin in spec.origins.items() if name in spec.mounts and self._is_there(origin)
        )

    def _is_there(self, origin: str) -> bool:
        """Whether a node finds it without us: on the Hub, or among what an earlier job left in the storage."""
        kind, _, rest = origin.partition(":")
        if kind == "hub":
            return self._hub
        left = self._storage / rest.partition("/")[0]
        return kind == "job" and all((left / name).is_file() for name in (OUTPUTS, OUTPUTS_NOTE))

    def submit(self, spec: JobSpec) -> Mapping[str, Any]:
        if spec.hardware.nodes > 1 and not spec.trusted:
            raise UserError(
                f"job {spec.job_id} would train on {spec.hardware.nodes} machines, whose processes must reach each "
                "other, so no wall stands between it and the network. Only scripts that ship with Postdoc may: use "
                "the shipped script, or one machine"
            )
        request = self._request(spec)
        handle = {"request": request}
        if self._dashboard.job(spec.job_id) is not None:
            return handle
        self._ship_code()
        try:
            self._dashboard.submit(request)
        except PlatformError:
            # Another process of ours may have been quicker, or the answer was lost on its way.
            if self._dashboard.job(spec.job_id) is None:
                raise
        return handle

    def look(self, job_id: JobId, handle: Mapping[str, Any]) -> Sighting:
        job = self._dashboard.job(job_id)
        if job is None:
            return Sighting(Seen.GONE, "the cluster has no trace of it: its head was restarted, or its record deleted")
        match job["status"]:
            case "PENDING":
                if self.store(job_id).read(CANCEL) is not None:
                    # Ray takes nothing out of its queue; when the turn comes, the wrapper finds the wish and ends.
                    return Sighting(Seen.ENDED, "called off while it waited")
                return Sighting(Seen.WAITING, self._waiting_words(job, Demand.of(handle["request"])))
            case "RUNNING":
                return Sighting(Seen.RUNNING, machine=self._machine_of(job))
            case "SUCCEEDED":
                return Sighting(Seen.ENDED, machine=self._machine_of(job))
            case "STOPPED":
                return Sighting(Seen.GONE, "it was stopped on the cluster", self._machine_of(job), cancelled=True)
        message = str(job.get("message") or "")
        if _START_TIMEOUT in message and could_start(Demand.of(handle["request"]), self._dashboard.machines()):
            return self._wait_anew(handle["request"], since=(job.get("end_time") or 0) / 1000)
        words = redact(_last_line(message)) or "it failed on the cluster"
        return Sighting(Seen.GONE, words, self._machine_of(job), failure=FailureKind.PLATFORM)

    def cancel(self, job_id: JobId, handle: Mapping[str, Any]) -> None:
        self._dashboard.stop(job_id)

    def orphans(self, known: frozenset[JobId]) -> Sequence[str]:
        ended = []
        for job in self._dashboard.jobs():
            metadata = job.get("metadata") or {}
            ours = metadata.get(OWNER) == self._owner and job["status"] in ("PENDING", "RUNNING")
            old = time.time() - (job.get("start_time") or 0) / 1000 >= self._orphan_seconds
            if ours and old and job["submission_id"] not in known:
                self._dashboard.stop(job["submission_id"])
                ended.append(f"Ray job {job['submission_id']}")
        return ended

    def flavors(self) -> Sequence[Flavor]:
        """One for each kind of machine, GPUs first; Ray knows no prices."""
        kinds: dict[str, Flavor] = {}
        for machine in self._dashboard.machines().alive:
            if not machine.cpus and not machine.gpus:
                continue
            flavor = _flavor(machine)
            known = kinds.get(flavor.name)
            if known is None or (flavor.gpus, flavor.memory_gib) > (known.gpus, known.memory_gib):
                kinds[flavor.name] = flavor
        found = sorted(kinds.values(), key=lambda each: (-each.gpus, -each.gpu_memory_gib, each.name))
        return found or (Flavor(CPU_FLAVOR),)

    # submitting

    def _request(self, spec: JobSpec) -> dict[str, Any]:
        several = spec.hardware.nodes > 1
        request: dict[str, Any] = {
            "submission_id": spec.job_id,
            "entrypoint": self._entrypoint(spec),
            "runtime_env": {
                "working_dir": f"gcs://{self._package[0]}",
                "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(_STOP_SECONDS)},
            },
            "metadata": {**spec.labels, OWNER: self._owner, JOB: spec.job_id},
            "entrypoint_num_cpus": DRIVER_CPUS if several else spec.caps.cpu_threads,
        }
        if not several:
            request["entrypoint_memory"] = math.ceil(spec.caps.memory_gib * 2**30)
            request["entrypoint_num_gpus"] = spec.hardware.gpus
            request["entrypoint_resources"] = self._flavor_resource(spec.hardware.flavor)
        return request

    def _ship_code(self) -> None:
        name, content = self._package
        if not self._dashboard.has_package(name):
            self._dashboard.put_package(name, content)

    def _entrypoint(self, spec: JobSpec) -> str:
        several = spec.hardware.nodes > 1
        words = [str(self._python or "python"), "-m", "runners.ray_jobs.train" if several else "runners.remote.wrapper"]
        words += ["--job", spec.job_id, "--store", str(self._storage / spec.job_id), "--jobs", self._jobs_folder]
        if several:
            words += ["--nodes", str(spec.hardware.nodes), "--gpus", str(spec.hardware.gpus)]
            words += ["--cpus", str(spec.caps.cpu_threads), "--memory-gib", f"{spec.caps.memory_gib:g}"]
            for name in self._flavor_resource(spec.hardware.flavor):
                words += ["--resource", name]
        else:
            # Ray says how many run on a node; the wrapper's own queue must not say it again.
            words += ["--slots", "64", "--tethered", "--clean"]
        return "exec " + shlex.join(words)

    def _flavor_resource(self, flavor: str) -> dict[str, float]:
        """A trace of the resource that only machines of this kind have."""
        if flavor in ("", CPU_FLAVOR):
            return {}
        offered = {name for machine in self._dashboard.machines().alive for name in machine.resources or {}}
        kind = f"accelerator_type:{flavor}"
        return {flavor if flavor in offered else kind: 0.001}

    @cached_property
    def _package(self) -> tuple[str, bytes]:
        content = code_package()
        return f"_ray_pkg_{hashlib.sha256(content).hexdigest()[:32]}.zip", content

    # looking

    def _machine_of(self, job: Mapping[str, Any]) -> str:
        node_id = job.get("driver_node_id")
        found = [machine.address for machine in self._dashboard.machines().alive if machine.node_id == node_id]
        return found[0] if found else ""

    def _waiting_words(self, job: Mapping[str, Any], demand: Demand) -> str:
        waiting = [other for other in self._dashboard.jobs() if other["status"] == "PENDING"]
        before = sum((other.get("start_time") or 0) < (job.get("start_time") or 0) for other in waiting)
        return waiting_words(demand, self._dashboard.machines(), before)

    def _wait_anew(self, request: Mapping[str, Any], since: float) -> Sighting:
        """A new place in line for a job that Ray has given up on, at `since`, although the cluster could run it."""
        again = Sighting(Seen.WAITING, "waits for a machine; Ray's own patience ended, so it waits anew")
        if time.time() - since < _SETTLE_SECONDS:
            return again
        self._ship_code()
        try:
            self._dashboard.forget(request["submission_id"])
            self._dashboard.submit(request)
        except PlatformError:
            # Another process of ours did the same at the same time.
            found = self._dashboard.job(request["submission_id"])
            if found is None or found["status"] == "FAILED":
                raise
        return again


def code_package() -> bytes:
    """What a node runs of ours, as a zip whose bytes depend on nothing but the files'."""
    files = [*(_PACKAGES / "runners").rglob("*.py"), *(_PACKAGES / "bot" / "domain").rglob("*.py")]
    files += [_PACKAGES / "bot" / "__init__.py", _PACKAGES / "bot" / "errors.py"]
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(files):
            info = zipfile.ZipInfo(path.relative_to(_PACKAGES).as_posix(), (1980, 1, 1, 0, 0, 0))
            info.external_attr = 0o644 << 16
            archive.writestr(info, path.read_bytes())
    return content.getvalue()


def _flavor(machine: Machine) -> Flavor:
    return Flavor(
        name=machine.gpu_kind or ("gpu" if machine.gpus else CPU_FLAVOR),
        gpus=int(machine.gpus),
        gpu_model=machine.gpu_kind,
        gpu_memory_gib=machine.gpu_memory_gib,
        memory_gib=machine.memory_gib,
        cpus=machine.cpus,
    )


def _last_line(message: str) -> str:
    """Of what Ray says about a failed job, which ends with the last lines of its log."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
