"""What stands around a job inside its container of Hugging Face Jobs, where no wrapper can stand outside.

It is the wrapper of every far machine (`runners/remote/wrapper.py`) with two differences. Its store is the job's own
log for what is small and often (status, metrics, log) and the runs repository for what is large and rare (outputs,
checkpoints), because a repository takes few commits an hour. And the script runs as another user (`unprivileged`),
because the token is in the same container.

What the script can still do: use the network, and read its own inputs. What it cannot, where the image starts as root:
read the token, write marks into the log, change the status, reach another job's files.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bot.errors import PlatformError, UserError
from runners.hf_jobs import unprivileged
from runners.hf_jobs.package import sha256_of
from runners.hf_jobs.runs import Origins, Runs
from runners.hf_jobs.wire import LOG, MARK_BYTES, METRICS, NOTE, PREFIX, STATUS, Mark, Signer
from runners.job import FailureKind, JobId, JobSpec, JobState, JobStatus
from runners.local import LocalRunner
from runners.remote import store as names
from runners.remote.wrapper import Wrapper
from runners.tier import Tier

LAST_WORDS = "last.txt"
"""In the job's folder of the repository: the marks of its end, for a reader whom the log did not reach."""
_HEARTBEAT_SECONDS = 60.0
_FLUSH_SECONDS = 1.0
_WINDOW_BYTES = 64 << 10
"""Of log that waits to be printed; what does not fit is dropped from its front."""
_FREE_LOG_BYTES = 32 << 20
"""Of log, after which a window is printed a minute."""
_LIVE_METRICS_BYTES = 8 << 20
CHECKPOINT_SECONDS = 300.0
"""Between two checkpoints of a job that are committed: 12 an hour. The Hub limits commits to a repository."""
_PASSED_ON = ("LD_LIBRARY_PATH", "CUDA_HOME", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES")
"""Variables of the image, without which its GPU libraries are not found."""
_CONTAINER_EVENTS = (Path("/sys/fs/cgroup/memory.events"), Path("/sys/fs/cgroup/memory/memory.oom_control"))

Print = Callable[[str], None]


class ContainerStore:
    """`Store` of the wrapper. What it prints is read by `stream`."""

    def __init__(self, runs: Runs, folder: str, signer: Signer, inputs: Sequence[str], say: Print) -> None:
        """`folder` takes the outputs; `inputs` are the path, the revision and the SHA-256 of the packed job."""
        self._runs, self._folder, self._signer, self._inputs = runs, folder, signer, inputs
        self._say = say
        self._lock = threading.Lock()
        self._number = 0
        self._said: dict[str, Any] = {}
        self._said_at = float("-inf")
        self._pending = ""
        self._dropped = 0
        self._flushed_at = float("-inf")
        self._log_bytes = self._metrics_bytes = 0
        self._checkpoint = ""
        self._last_words: list[str] = []

    # what the wrapper asks for

    def read(self, key: str) -> bytes | None:
        """Nothing: who wants the job to end has the platform end it, and a container has no earlier life."""
        return None

    def names(self, prefix: str) -> Sequence[str]:
        return ()

    def fetch(self, key: str, path: Path) -> bool:
        place, revision, digest = self._inputs
        if not self._runs.download(place, path, revision):
            return False
        if sha256_of(path) != digest:
            raise UserError("the job's inputs in the runs repository are not what was sent")
        return True

    def write(self, key: str, content: bytes) -> None:
        with self._lock:
            if key == names.STATUS:
                self._write_status(json.loads(content))
            elif key.startswith(names.METRICS):
                self._write_metrics(content.decode("utf-8", "replace"))
            elif key.startswith(names.LOG):
                self._take_log(content.decode("utf-8", "replace"))
            # The note on the outputs has gone with their commit.

    def push(self, path: Path, key: str) -> None:
        if key == names.OUTPUTS:
            note = {"sha256": sha256_of(path), "bytes": path.stat().st_size}
            revision = self._runs.commit(f"Outputs of {self._folder}", {f"{self._folder}/{key}": path})
            with self._lock:
                self._mark(NOTE, note | {"revision": revision}, last=True)
            return
        before = [self._checkpoint] if self._checkpoint else []
        self._runs.commit(f"Checkpoint of {self._folder}", {f"{self._folder}/{key}": path}, delete=before)
        self._checkpoint = f"{self._folder}/{key}"

    # saying

    def flush(self, *, everything: bool = False) -> None:
        """Print the log that has come since, at most a window a second, and far less from a script that floods it."""
        pause = _FLUSH_SECONDS if self._log_bytes < _FREE_LOG_BYTES else 60.0
        if not everything and time.monotonic() - self._flushed_at < pause:
            return
        with self._lock:
            self._flush(everything)

    def _flush(self, everything: bool) -> None:
        whole = len(self._pending) if everything else self._pending.rfind("\n") + 1
        text, self._pending = self._pending[:whole], self._pending[whole:]
        if not text:
            return
        self._flushed_at = time.monotonic()
        lines = [_harmless(line) for line in text.removesuffix("\n").split("\n")]
        if self._dropped:
            lines.insert(0, f"[postdoc: {self._dropped:,} characters of the log are left out here]")
            self._dropped = 0
        parts = [part for line in lines for part in _parts(line)]
        self._log_bytes += sum(map(len, parts))
        for part in parts:
            self._say(part)
        self._mark(LOG, len(parts))

    def _take_log(self, text: str) -> None:
        self._pending += text
        if len(self._pending) > _WINDOW_BYTES:
            cut = self._pending.find("\n", len(self._pending) - _WINDOW_BYTES) + 1
            cut = cut or len(self._pending) - _WINDOW_BYTES
            self._pending, self._dropped = self._pending[cut:], self._dropped + cut

    def _write_metrics(self, rows: str) -> None:
        """In marks of some kilobytes; a row that is longer than one comes with the outputs."""
        batch: list[str] = []
        size = 0
        for row in rows.splitlines():
            length = len(json.dumps(row))
            if length > MARK_BYTES or self._metrics_bytes > _LIVE_METRICS_BYTES:
                continue
            self._metrics_bytes += length
            if size + length > MARK_BYTES:
                self._mark(METRICS, batch)
                batch, size = [], 0
            batch.append(row)
            size += length
        if batch:
            self._mark(METRICS, batch)

    def _write_status(self, status: dict[str, Any]) -> None:
        ended = JobState(status["state"]).ended
        known = {key: value for key, value in status.items() if key != "at"}
        if known == self._said and time.monotonic() - self._said_at < _HEARTBEAT_SECONDS:
            return
        if ended:
            self._flush(everything=True)
        self._mark(STATUS, status, last=ended)
        self._said, self._said_at = known, time.monotonic()
        if ended:
            words = "".join(f"{line}\n" for line in self._last_words).encode()
            self._runs.commit(f"End of {self._folder}", {f"{self._folder}/{LAST_WORDS}": words})

    def _mark(self, kind: str, data: Any, *, last: bool = False) -> None:
        self._number += 1
        line = self._signer.line(Mark(self._number, kind, data))
        if last:
            self._last_words.append(line)
        self._say(line)


def _harmless(line: str) -> str:
    """A line as a terminal would show it, and never one that looks like a mark."""
    line = line.rstrip("\r").rpartition("\r")[2]
    return f" {line}" if line.startswith(PREFIX) else line


def _parts(line: str) -> list[str]:
    return [line[start : start + MARK_BYTES] for start in range(0, len(line), MARK_BYTES)] or [""]


class ContainerWrapper(Wrapper):
    """The wrapper of a far machine, where the machine is the job's own container."""

    def __init__(self, job_id: JobId, store: ContainerStore, runner: LocalRunner, **options: Any) -> None:
        self._uid: int = options.pop("uid")
        self._variable: str = options.pop("variable")
        super().__init__(job_id, store, runner, **options)
        self._container_store = store
        self._checkpoint_due = float("-inf")
        self._kills_before = _container_kills()

    def _fetched(self, place: Path) -> JobSpec:
        """The job, behind the program that gives up root. The container is what isolates it, so that whatever it
        runs may run here."""
        spec = super()._fetched(place)
        for folder in spec.mounts.values():
            _open_to_read(Path(folder))
        program = os.path.abspath(unprivileged.__file__)
        about = (str(self._uid), str(os.getpid()), self._variable, str(self._runner.root))
        passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        return replace(
            spec,
            argv=("{python}", "-I", "-S", program, *about, *spec.argv),
            trusted=True,
            environment=passed_on | dict(spec.environment),
        )

    def _send_news(self, status: JobStatus) -> None:
        super()._send_news(status)
        self._container_store.flush()

    def _send_checkpoint(self) -> None:
        before = self._checkpoint
        if time.monotonic() >= self._checkpoint_due:
            super()._send_checkpoint()
        if self._checkpoint != before:
            self._checkpoint_due = time.monotonic() + CHECKPOINT_SECONDS

    def _finish(self, status: JobStatus) -> JobStatus:
        """What only the container's own kernel counter or our own refusal can tell is told before the last word."""
        if status.exit_code == 137 and status.failure is FailureKind.SIGNAL and _container_kills() > self._kills_before:
            evidence = ("the container's oom_kill counter rose", *status.evidence)
            status = replace(status, failure=FailureKind.OOM, evidence=evidence)
        if status.exit_code == unprivileged.REFUSED and status.failure is FailureKind.SCRIPT_ERROR:
            said = self._runner.log_tail(self._job_id, 1)
            if said.startswith("postdoc: the job is not started"):
                status = replace(status, failure=FailureKind.PLATFORM, evidence=(said,))
        return super()._finish(status)


def _open_to_read(top: Path) -> None:
    """For the user that the script becomes."""
    for path in (top, *top.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _container_kills() -> int:
    for path in _CONTAINER_EVENTS:
        try:
            words = path.read_text(encoding="ascii").split()
        except OSError:
            continue
        if "oom_kill" in words:
            return int(words[words.index("oom_kill") + 1])
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


def main(config: Mapping[str, Any], token: str, home: str) -> int:
    """Run the job that `config` names (`hf_jobs.HubJobs.submit` writes it) and say how it ended."""
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    job_id = JobId(config["job"])
    # Each execution of a scheduled job leaves its outputs in a folder of its own.
    own = f"/{os.environ.get('JOB_ID', 'unknown')}" if config["scheduled"] else ""
    runs = Runs(config["repository"], config["endpoint"], token)
    signer = Signer(token, config["signed_as"] + own)
    store = ContainerStore(runs, config["folder"] + own, signer, config["inputs"], _say)
    origins = Origins(runs, config["origins"], lambda job: f"jobs/{job}")
    runner = LocalRunner(Path(home) / "jobs", tier=Tier.PLAIN, slots=1)
    wrapper = ContainerWrapper(
        job_id, store, runner, resolve=origins, uid=int(config["uid"]), variable=config["variable"]
    )
    try:
        status = wrapper.run()
    except (PlatformError, UserError) as error:
        said = JobStatus(job_id, JobState.FAILED, failure=FailureKind.PLATFORM, evidence=(str(error),),
                         ended_at=time.time())  # fmt: skip
        with contextlib.suppress(PlatformError):
            store.write(names.STATUS, json.dumps(said.as_dict() | {"at": time.time()}).encode())
        return 1
    return 0 if status.state is JobState.SUCCEEDED else 1
