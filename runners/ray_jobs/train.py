"""One training run on several machines of a Ray cluster: Ray Train gathers the machines and says which is which, and on
each of them the script runs under a supervisor in its sandbox, as on a single one.

    python -m runners.ray_jobs.train --job JOB --store FOLDER --jobs FOLDER --nodes 2 --gpus 8 --cpus 8 --memory-gib 64

The script is started on every machine with MASTER_ADDR, MASTER_PORT and NODE_RANK, as torchrun reads them, and with the
network, because its processes must reach each other. The first machine alone talks to the job's store: metrics, log,
checkpoints, outputs and the last word; the others leave word of how they ended beside it. Whoever fails, all end, and
the last word names the machine that did. Nothing is tried again here: a lost machine loses the job, and the bot's next
attempt resumes from the last checkpoint.

Not covered: machines that come and go while it trains.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from bot.errors import PlatformError, UserError
from runners.job import FailureKind, JobId, JobSpec, JobState, JobStatus
from runners.local import LocalRunner
from runners.ray_jobs.demand import counted
from runners.remote.origins import fetch_origin
from runners.remote.store import CANCEL, STATUS, Store, open_store
from runners.remote.wrapper import Wrapper

_WORDS = "machines/"
"""Keys of the store under which the machines but the first say how they ended."""
_RENEW_SECONDS = 3.0
_WORDS_SECONDS = 15.0
"""How long the first machine waits for the others' words before it gives its own about a failure."""
_GRACE_SECONDS = 10.0
"""What a script is left to end by itself after another machine's has failed."""
_BLAME = (
    FailureKind.OOM,
    FailureKind.DISK_FULL,
    FailureKind.PROCESS_LIMIT,
    FailureKind.TIMEOUT,
    FailureKind.PLATFORM,
    FailureKind.SIGNAL,
    FailureKind.SCRIPT_ERROR,
)
"""The likelier cause first: where one machine runs out of memory, the others fail with a closed connection."""
_SIOCGIFADDR = 0x8915


class _OtherMachine:
    """The job's store as every machine but the first uses it: it reads what all read and says how it fares."""

    def __init__(self, store: Store, rank: int) -> None:
        self._store = store
        self._key = f"{_WORDS}{rank}.json"

    def read(self, key: str) -> bytes | None:
        if key == STATUS:
            return self._store.read(self._key)
        if key == CANCEL and _ended(_word(self._store.read(STATUS))):
            return b""  # the first one's last word is everybody's
        return self._store.read(key)

    def write(self, key: str, content: bytes) -> None:
        if key == STATUS:
            self._store.write(self._key, content)

    def names(self, prefix: str) -> Sequence[str]:
        return ()

    def fetch(self, key: str, path: Path) -> bool:
        return self._store.fetch(key, path)

    def push(self, path: Path, key: str) -> None:
        """Outputs and checkpoints are the first machine's."""


class _Machine(Wrapper):
    """One of several."""

    def __init__(self, *given: Any, rank: int, count: int, meeting: Mapping[str, Any], **more: Any) -> None:
        super().__init__(*given, renew_seconds=_RENEW_SECONDS, tethered=True, **more)
        self._rank, self._count, self._meeting = rank, count, meeting
        self._failed_at: float | None = None

    def _fetched(self, place: Path) -> JobSpec:
        spec = super()._fetched(place)
        own = {
            "MASTER_ADDR": str(self._meeting["address"]),
            "MASTER_PORT": str(self._meeting["port"]),
            "NODE_RANK": str(self._rank),
        }
        if interface := self._meeting.get("interface"):
            own |= {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": interface}
        return replace(spec, network=True, environment={**spec.environment, **own})

    def _send_news(self, status: JobStatus) -> None:
        super()._send_news(status)
        if self._rank == 0 and not status.state.ended and self._another_failed():
            self._failed_at = self._failed_at or time.monotonic()
            if time.monotonic() - self._failed_at > _GRACE_SECONDS:
                self.stop()

    def _finish(self, status: JobStatus) -> JobStatus:
        return super()._finish(self._judged(status) if self._rank == 0 else status)

    def _others(self) -> dict[int, dict[str, Any]]:
        words = {rank: _word(self._store.read(f"{_WORDS}{rank}.json")) for rank in range(1, self._count)}
        return {rank: word for rank, word in words.items() if word is not None}

    def _another_failed(self) -> bool:
        return any(_ended(word) and word["state"] != JobState.SUCCEEDED for word in self._others().values())

    def _judged(self, own: JobStatus) -> JobStatus:
        """The last word about all machines: of several failures, the one that is likelier to have caused the rest."""
        cancelled = own.state is JobState.CANCELLED and self._failed_at is None
        if own.state is JobState.SUCCEEDED or cancelled or self._store.read(CANCEL) is not None:
            return own
        before = self._others()
        deadline = time.monotonic() + _WORDS_SECONDS
        while time.monotonic() < deadline and sum(map(_ended, self._others().values())) < self._count - 1:
            time.sleep(0.2)
        after = self._others()
        failures = [(0, own)] if own.state is JobState.FAILED else []
        for rank in range(1, self._count):
            word = after.get(rank)
            if word is not None and _ended(word):
                told = JobStatus.from_dict(word)
                failures += [(rank, told)] if told.state is JobState.FAILED else []
            elif word is None or word["at"] == before.get(rank, {}).get("at"):
                failures.append((rank, _silent(self._job_id)))
        rank, worst = min(failures, key=lambda pair: _cause(pair[1]), default=(0, own))
        evidence = (f"on machine {rank + 1} of {self._count}", *worst.evidence)
        return replace(
            own, state=JobState.FAILED, failure=worst.failure, exit_code=worst.exit_code, evidence=evidence
        )  # fmt: skip


def _cause(status: JobStatus) -> int:
    return _BLAME.index(status.failure) if status.failure in _BLAME else len(_BLAME)


def _word(content: bytes | None) -> dict[str, Any] | None:
    try:
        word = json.loads(content or b"")
    except ValueError:
        return None
    return word if isinstance(word, dict) and "state" in word else None


def _ended(word: Mapping[str, Any] | None) -> bool:
    return word is not None and JobState(word["state"]).ended


def _silent(job_id: JobId) -> JobStatus:
    evidence = (f"it has been silent for {_WORDS_SECONDS:g} s",)
    return JobStatus(job_id, JobState.FAILED, failure=FailureKind.PLATFORM, evidence=evidence)


def interface_of(address: str) -> str:
    """Name of the network interface that has the address; empty when none has."""
    if address.startswith("127."):
        return "lo"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(asking.fileno(), _SIOCGIFADDR, struct.pack("256s", os.fsencode(name)[:15]))
            except OSError:
                continue  # it has no address
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return ""


def on_machine(config: dict[str, Any]) -> None:
    """Runs on each machine, in a worker of Ray Train. What becomes of the script is told through the store."""
    import ray.util
    from ray.train import get_context
    from ray.train.collective import broadcast_from_rank_zero

    rank, count = get_context().get_world_rank(), get_context().get_world_size()
    address = str(ray.util.get_node_ip_address())
    with socket.socket() as free:
        free.bind((address, 0))
        meeting = broadcast_from_rank_zero({"address": address, "port": free.getsockname()[1]})
    store = open_store(config["store"])
    # A folder for each: on one machine two of them would take each other's job for their own.
    jobs = Path(config["jobs"]).expanduser() / f"machine-{rank}"
    machine = _Machine(
        JobId(config["job"]),
        store if rank == 0 else _OtherMachine(store, rank),
        LocalRunner(jobs, Path(config["python"]) if config["python"] else None, slots=64),
        resolve=partial(fetch_origin, stores=Path(config["store"]).parent),
        rank=rank,
        count=count,
        meeting=meeting | {"interface": interface_of(address)},
    )
    machine.run()
    machine.clean()


def train(given: argparse.Namespace, store: Store) -> None:
    """Wait for the machines and for the end. Raises: PlatformError when a machine or Ray itself breaks."""
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    # As a module of that name, which the workers can import; this one is called __main__.
    from runners.ray_jobs.train import on_machine

    resources = {"CPU": given.cpus, "memory": given.memory_gib * 2**30, **dict.fromkeys(given.resource, 0.001)}
    if given.gpus:
        resources["GPU"] = given.gpus
    trainer = TorchTrainer(
        on_machine,
        train_loop_config={
            "job": given.job,
            "store": given.store,
            "jobs": given.jobs,
            "python": str(given.python) if given.python else "",
        },
        # One process for each machine: those of its GPUs are the launcher's matter, inside the sandbox.
        scaling_config=ScalingConfig(
            num_workers=given.nodes,
            use_gpu=given.gpus > 0,
            resources_per_worker=resources,
            placement_strategy="STRICT_SPREAD",
        ),
        # The processes that train make a group of their own; this one only shows that the machines reach each other.
        torch_config=TorchConfig(backend="gloo"),
        run_config=RunConfig(name=given.job, storage_path=str(Path(given.store) / "ray-train")),
    )
    wanted = counted(given.gpus, "GPU") if given.gpus else counted(given.cpus, "CPU core")
    _tell_queued(store, given.job, f"waits for {given.nodes} machines with {wanted} each")
    try:
        ray.init(log_to_driver=True)
        trainer.fit()
    except Exception as error:
        raise PlatformError(f"Ray Train ended: {' '.join(str(error).split())[-300:]}") from error


def _tell_queued(store: Store, job: str, detail: str) -> None:
    status = JobStatus(JobId(job), JobState.QUEUED, detail=detail)
    store.write(STATUS, json.dumps(status.as_dict() | {"at": time.time()}).encode())


def _on_stop(store: Store) -> None:
    """The machines are told through the store; while there are none, there is nothing to wait for."""
    word = _word(store.read(STATUS))
    if word is None or word["started_at"] is None:
        sys.exit(128 + signal.SIGTERM)
    store.write(CANCEL, b"")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m runners.ray_jobs.train")
    parser.add_argument("--job", required=True)
    parser.add_argument("--store", required=True, help="the job's folder on the shared storage")
    parser.add_argument("--jobs", required=True, help="where jobs live on a machine's own disk")
    parser.add_argument("--python", type=Path, help="interpreter of the jobs' environment")
    parser.add_argument("--nodes", type=int, required=True)
    parser.add_argument("--gpus", type=int, default=0, help="on each machine")
    parser.add_argument("--cpus", type=float, default=1.0, help="on each machine")
    parser.add_argument("--memory-gib", type=float, default=1.0, help="on each machine")
    parser.add_argument("--resource", action="append", default=[], help="that each machine must have")
    given = parser.parse_args(arguments)
    try:
        store = open_store(given.store)
        if _ended(word := _word(store.read(STATUS))):
            return 0
        signal.signal(signal.SIGTERM, lambda _number, _frame: _on_stop(store))
        train(given, store)
        word = _word(store.read(STATUS))
    except (UserError, PlatformError) as error:
        print(f"postdoc: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    print(f"postdoc: job {given.job} {word['state'] if word else 'left no word'}")
    return 0 if word is not None and word["state"] == JobState.SUCCEEDED else 1


if __name__ == "__main__":
    os.environ["RAY_TRAIN_V2_ENABLED"] = "1"
    sys.exit(main())
