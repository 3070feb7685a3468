"""A Ray cluster as its dashboard shows it: jobs, packages and machines, over the REST API of Ray's own job client
(https://docs.ray.io/en/latest/cluster/running-applications/job-submission/api.html).

Plain requests, so that the bot's process carries neither Ray nor its 290 MB.
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bot.errors import PlatformError

_TIMEOUT_SECONDS = 30.0
_MACHINES_SECONDS = 5.0
"""How long an answer about the machines is good for: every waiting job asks."""
_GPU_KIND = "accelerator_type:"


@dataclass(frozen=True, slots=True)
class Machine:
    """One node, by what Ray counts on it."""

    node_id: str
    address: str
    cpus: float
    gpus: float
    memory_gib: float
    gpu_kind: str = ""
    """As Ray's own detection names it, `A100`; empty where it found none."""
    gpu_memory_gib: float = 0.0
    """Of one GPU, where the node's agent reports it."""
    resources: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Machines:
    """The nodes that are alive, and what of them is in use."""

    alive: Sequence[Machine]
    used: Mapping[str, float]
    """`CPU` and `GPU` of all nodes together; empty where the cluster does not say."""

    def free(self, resource: str) -> float | None:
        if not self.used:
            return None
        total = sum(machine.gpus if resource == "GPU" else machine.cpus for machine in self.alive)
        return max(0.0, total - self.used.get(resource, 0.0))


class Dashboard:
    """Raises: PlatformError from every call, when the cluster cannot be reached or refuses."""

    def __init__(self, address: str, token: str = "", *, timeout_seconds: float = _TIMEOUT_SECONDS) -> None:
        """`token` is what `RAY_AUTH_MODE=token` clusters ask for."""
        self._address = address.rstrip("/")
        self._token = token
        self._timeout_seconds = timeout_seconds
        self._machines: Machines | None = None
        self._machines_at = float("-inf")

    def job(self, submission_id: str) -> dict[str, Any] | None:
        """None when the cluster has no trace of it."""
        found: dict[str, Any] | None = self._asked(f"/api/jobs/{submission_id}", missing_is_none=True)
        return found

    def jobs(self) -> list[dict[str, Any]]:
        """Those that were submitted, ended ones included; drivers that somebody started by hand are left out."""
        return [job for job in self._asked("/api/jobs/") if job.get("submission_id")]

    def submit(self, job: Mapping[str, Any]) -> None:
        self._call("POST", "/api/jobs/", json.dumps(job).encode(), "application/json")

    def stop(self, submission_id: str) -> None:
        """Nothing when there is none."""
        self._call("POST", f"/api/jobs/{submission_id}/stop", b"", missing_is_none=True)

    def forget(self, submission_id: str) -> None:
        """Delete the record of a job that has ended, so that its id can be submitted again."""
        self._call("DELETE", f"/api/jobs/{submission_id}", missing_is_none=True)

    def has_package(self, name: str) -> bool:
        """Asking also keeps it for the next ten minutes."""
        return self._call("GET", f"/api/packages/gcs/{name}", missing_is_none=True) is not None

    def put_package(self, name: str, content: bytes) -> None:
        self._call("PUT", f"/api/packages/gcs/{name}", content, "application/octet-stream")

    def machines(self) -> Machines:
        if self._machines is None or time.monotonic() - self._machines_at > _MACHINES_SECONDS:
            try:
                self._machines, self._machines_at = self._asked_machines(), time.monotonic()
            except (LookupError, TypeError, AttributeError) as error:
                raise PlatformError(
                    f"{self._address} describes its machines in a way not known here: {error!r}"
                ) from error
        return self._machines

    def _asked_machines(self) -> Machines:
        nodes = self._asked("/api/v0/nodes?detail=true&limit=10000")["data"]["result"]["result"]
        memories = self._gpu_memories() if any(node["resources_total"].get("GPU") for node in nodes) else {}
        alive = [_machine(node, memories.get(node["node_id"], 0.0)) for node in nodes if node["state"] == "ALIVE"]
        return Machines(alive, self._used())

    def _gpu_memories(self) -> dict[str, float]:
        """Of one GPU, in GiB, by node id."""
        nodes = self._asked("/nodes?view=summary")["data"]["summary"]
        found = {}
        for node in nodes:
            sizes = [gpu.get("memoryTotal") or 0 for gpu in node.get("gpus") or []]  # MiB
            if sizes:
                found[node.get("raylet", {}).get("nodeId", "")] = round(min(sizes) / 1024, 1)
        return found

    def _used(self) -> dict[str, float]:
        """By the autoscaler's last report, some seconds old; it runs in clusters of fixed size too."""
        status = (
            json.loads(self._call("GET", "/api/cluster_status") or b"{}").get("data", {}).get("clusterStatus") or {}
        )
        usage = (status.get("loadMetricsReport") or {}).get("usage") or {}
        return {name: float(usage[name][0]) for name in ("CPU", "GPU") if name in usage}

    def _asked(self, path: str, *, missing_is_none: bool = False) -> Any:
        content = self._call("GET", path, missing_is_none=missing_is_none)
        if content is None:
            return None
        try:
            return json.loads(content)
        except ValueError as error:
            raise PlatformError(
                f"{self._address} does not answer as the dashboard of a Ray cluster does; is POSTDOC_RAY_ADDRESS right?"
            ) from error

    def _call(
        self, method: str, path: str, body: bytes | None = None, kind: str = "", *, missing_is_none: bool = False
    ) -> bytes | None:
        request = urllib.request.Request(self._address + path, body, method=method)
        if kind:
            request.add_header("Content-Type", kind)
        if self._token:
            request.add_header("Authorization", f"Bearer {self._token}")
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_seconds) as answer:
                content: bytes = answer.read()
                return content
        except urllib.error.HTTPError as error:
            with error:
                if error.code == http.HTTPStatus.NOT_FOUND and missing_is_none:
                    return None
                raise PlatformError(_refusal(error)) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise PlatformError(f"the Ray cluster at {self._address} cannot be reached: {reason}") from error


def _machine(node: Mapping[str, Any], gpu_memory_gib: float) -> Machine:
    resources: Mapping[str, float] = node["resources_total"]
    kinds = [name.removeprefix(_GPU_KIND) for name in resources if name.startswith(_GPU_KIND)]
    return Machine(
        node_id=node["node_id"],
        address=node["node_ip"],
        cpus=resources.get("CPU", 0.0),
        gpus=resources.get("GPU", 0.0),
        memory_gib=round(resources.get("memory", 0.0) / 2**30, 1),
        gpu_kind=kinds[0] if kinds else "",
        gpu_memory_gib=gpu_memory_gib,
        resources=resources,
    )


def _refusal(error: urllib.error.HTTPError) -> str:
    if error.code in (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN):
        return "the Ray cluster refuses the token; set POSTDOC_RAY_TOKEN to the one that its nodes are started with"
    # Ray answers with a traceback; its last line says what is wrong.
    lines = error.read(100_000).decode("utf-8", "replace").strip().splitlines()
    return f"the Ray cluster answers {error.code}: {lines[-1][:300] if lines else error.reason}"
