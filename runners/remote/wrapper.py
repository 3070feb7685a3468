"""What stands around a job on another machine: it fetches the job, runs it under a supervisor of its own, and sends
home what it writes. It alone talks to the store; the script inside knows neither store nor token.

    python -m runners.remote.wrapper --job JOB_ID --store FOLDER_OR_ADDRESS --jobs FOLDER

A store's address is a folder that both sides share, or `http(s)://...` with the job's token in the file that
`POSTDOC_RUN_TOKEN_FILE` names. Started twice for one job on one machine, it finds the job under way (or ended) and goes
on from there. SIGTERM ends the job as a cancellation does, with its outputs so far brought home.

On a machine that somebody else schedules (a node of a cluster) it is started with `--tethered`, so that the job ends
with it, and `--clean`, so that nothing of a job stays there.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import logging
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from bot.errors import PlatformError, UserError
from runners import joblog
from runners.job import FailureKind, JobId, JobSpec, JobState, JobStatus
from runners.layout import LOG
from runners.local import LocalRunner
from runners.metrics import METRICS as METRICS_FILE
from runners.outputs import read_output
from runners.remote import package
from runners.remote.origins import fetch_origin
from runners.remote.runner import LATEST
from runners.remote.store import (
    CANCEL,
    CHECKPOINTS,
    INPUTS,
    METRICS,
    OUTPUTS,
    OUTPUTS_NOTE,
    SEAL,
    STATUS,
    FolderStore,
    Store,
    StoreClosed,
    open_store,
)
from runners.remote.store import LOG as LOG_PIECES
from runners.remote.tether import Tether
from runners.remote.watch import Judge, Watch
from runners.tier import Tier

log = logging.getLogger("postdoc.wrapper")

_LOOK_SECONDS = 0.5
_LEASE_RENEWED_SECONDS = 15.0
_PIECE_BYTES = 1 << 20
_LONGEST_PAUSE_SECONDS = 60.0
_SMALL_BYTES = 256 << 20
"""Outputs up to this size are sealed for the artifact in any case, larger ones only when the store would not take them:
whoever keeps artifacts is paid by their size."""
_TOKEN_FILE = "POSTDOC_RUN_TOKEN_FILE"
_LEFTOVER_SECONDS = 86400.0
"""Age at which an ended job that a wrapper left behind is removed by the next one."""

T = TypeVar("T")
Resolve = Callable[[str, Path], None]
"""Fetches what an origin names into a folder. Raises: PlatformError."""


class Wrapper:
    """One job on this machine, followed to its end."""

    def __init__(
        self,
        job_id: JobId,
        store: Store,
        runner: LocalRunner,
        *,
        resolve: Resolve,
        look_seconds: float = _LOOK_SECONDS,
        renew_seconds: float = _LEASE_RENEWED_SECONDS,
        tethered: bool = False,
        artifact: Path | None = None,
        judge: Judge | None = None,
    ) -> None:
        """`tethered`: the job ends when this process does. `artifact` is a folder that the backend keeps safe: there
        lie the outputs too, sealed, if the store fails. `judge` looks on where the job's specification wants that."""
        self._job_id = job_id
        self._store = store
        self._runner = runner
        self._resolve = resolve
        self._look_seconds, self._renew_seconds = look_seconds, renew_seconds
        self._tethered = tethered
        self._stopping = False
        self._artifact = artifact
        self._seal: bytes | None = None
        self._said: JobStatus | None = None
        self._said_at = float("-inf")
        self._metrics_bytes = 0
        self._log_position = 0
        self._pieces = {METRICS: 0, LOG_PIECES: 0}
        self._checkpoint = ""
        self._watch = Watch(job_id, runner, judge)

    def run(self) -> JobStatus:
        """Bring the job to its end and its outputs home; the status that was told last.

        Raises: PlatformError when the store cannot be reached for the first or the last word.
        """
        try:
            told = self._persistently(lambda: self._store.read(STATUS))
            if told is not None and (status := JobStatus.from_dict(json.loads(told))).state.ended:
                return status
            tether = Tether(self._runner.root, self._job_id) if self._tethered else None
            if self._artifact is not None:
                self._seal = self._persistently(lambda: self._store.read(SEAL))
            status = self._started()
            if not status.state.ended:
                status = self._follow()
            if tether is not None:
                tether.loosen()
            return self._finish(status)
        except StoreClosed as closed:
            # Given up as lost, or cancelled, while nobody could be reached: what still runs would be paid in vain.
            log.warning("%s", closed)
            status = self._runner.cancel(self._job_id) or JobStatus(self._job_id, JobState.CANCELLED)
            return replace(status, evidence=(*status.evidence, str(closed)))

    def stop(self) -> None:
        """Somebody wants this machine back: end the job. May be called from a signal handler."""
        self._stopping = True

    def clean(self) -> None:
        """Remove the job, once its outputs are home, and what wrappers that were killed have left behind."""
        self._runner.sweep()
        for job_id in self._runner.jobs():
            status = self._runner.status(job_id)
            if status is None or not status.state.ended:
                continue
            if job_id == self._job_id or time.time() - (status.ended_at or 0) > _LEFTOVER_SECONDS:
                self._runner.remove(job_id)
                for mount in (self._runner.root / ".mounts").glob(f"{job_id}.*"):
                    shutil.rmtree(mount, ignore_errors=True)

    # starting

    def _started(self) -> JobStatus:
        known = self._runner.status(self._job_id)
        if known is not None:
            return known
        if self._persistently(lambda: self._store.read(CANCEL)) is not None:
            return JobStatus(self._job_id, JobState.CANCELLED, ended_at=time.time())
        place = self._runner.root / ".inputs" / self._job_id
        try:
            self._tell(JobStatus(self._job_id, JobState.QUEUED, detail="its inputs are being fetched"))
            return self._runner.launch(self._fetched(place))
        except UserError as error:
            # This machine's words about a job that it may not run: nobody's script is to blame.
            return _failed(self._job_id, str(error))
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def _fetched(self, place: Path) -> JobSpec:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        archive = place / INPUTS
        if not self._persistently(lambda: self._store.fetch(INPUTS, archive)):
            raise UserError("the job's inputs are not in its store")
        spec = package.unpack(archive, place / "job")
        archive.unlink()
        mounts = dict(spec.mounts)
        for name, path in spec.mounts.items():
            if not path:
                # Beside the jobs; a base model is kept, because the next run starts from it too.
                origin = spec.origins[name]
                own = f"{self._job_id}.{name}" if origin.startswith("job:") else _short_hash(origin)
                folder = self._runner.root / ".mounts" / own
                self._resolve(origin, folder)
                mounts[name] = str(folder)
        for name, path in spec.mounts.items():
            if path:
                kept = self._runner.root / ".mounts" / f"{self._job_id}.{name}"
                shutil.rmtree(kept, ignore_errors=True)
                kept.parent.mkdir(exist_ok=True)
                os.replace(path, kept)
                mounts[name] = str(kept)
        return replace(spec, mounts=mounts)

    # following

    def _follow(self) -> JobStatus:
        pause, speak_at = 0.0, float("-inf")
        while True:
            status = self._runner.status(self._job_id)
            assert status is not None
            if self._stopping and not status.state.ended:
                self._runner.cancel(self._job_id)
                continue
            if not status.state.ended and self._watch.look(status):
                speak_at = self._said_at = float("-inf")
            if time.monotonic() >= speak_at or status.state.ended:
                try:
                    self._send_news(status)
                    if not status.state.ended:
                        self._watch.heed(self._store.read(CANCEL))
                    pause = 0.0
                except StoreClosed:
                    raise
                except (OSError, PlatformError) as error:
                    # Training goes on, and so does watching it: what could not be told now is told later.
                    log.warning("the store cannot be reached: %s", error)
                    pause = min(_LONGEST_PAUSE_SECONDS, max(self._look_seconds, pause) * 2)
                speak_at = time.monotonic() + pause
            if status.state.ended:
                return status
            time.sleep(self._look_seconds)

    def _send_news(self, status: JobStatus) -> None:
        self._send_metrics()
        self._send_log()
        self._send_checkpoint()
        due = time.monotonic() - self._said_at >= self._renew_seconds
        if not status.state.ended and (due or self._said is None or status.state is not self._said.state):
            self._tell(status)

    def _send_metrics(self) -> None:
        try:
            content = read_output(self._runner.folder(self._job_id), METRICS_FILE)
        except (OSError, UserError):
            return
        whole = content.rfind(b"\n") + 1
        while self._metrics_bytes < whole:
            end = min(whole, self._metrics_bytes + _PIECE_BYTES)
            end = content.rfind(b"\n", self._metrics_bytes, end) + 1 or whole
            self._send_piece(METRICS, "jsonl", content[self._metrics_bytes : end])
            self._metrics_bytes = end

    def _send_log(self) -> None:
        path = self._runner.root / self._job_id / LOG
        while True:
            data, position = joblog.read_since(path, self._log_position, _PIECE_BYTES)
            if not data:
                return
            # Without secrets of known shape already: the supervisor takes them out before it writes.
            self._send_piece(LOG_PIECES, "txt", data)
            self._log_position = position

    def _send_piece(self, prefix: str, kind: str, content: bytes) -> None:
        number = self._pieces[prefix] or len(self._store.names(prefix))
        self._store.write(f"{prefix}{number + 1:08d}.{kind}", content)
        self._pieces[prefix] = number + 1

    def _send_checkpoint(self) -> None:
        spec = self._runner.spec(self._job_id)
        if spec is None or not spec.checkpoints:
            return
        folder = self._runner.folder(self._job_id)
        try:
            newest = read_output(folder, f"{spec.checkpoints}/{LATEST}", 1024).decode("ascii", "replace").strip()
        except (OSError, UserError):
            return
        step = newest.removeprefix("checkpoint-")
        if newest == self._checkpoint or not step.isdecimal() or not newest.startswith("checkpoint-"):
            return
        archive = self._runner.root / self._job_id / "checkpoint.tar"
        try:
            with self._renewing_lease():
                before = _names_below(folder / spec.checkpoints / newest)
                package.pack_outputs(folder / spec.checkpoints, (newest,), archive)
                if not before or _names_below(folder / spec.checkpoints / newest) != before:
                    return  # a newer one was made meanwhile, and the trainer has begun to delete this one
                self._store.push(archive, f"{CHECKPOINTS}{step}.tar")
        finally:
            archive.unlink(missing_ok=True)
        self._checkpoint = newest

    # ending

    def _finish(self, status: JobStatus) -> JobStatus:
        """Outputs first, the last word after them: who reads it may rely on them."""
        spec = self._runner.spec(self._job_id)
        if spec is None:
            self._persistently(lambda: self._tell(status))
            return status
        self._persistently(lambda: self._send_news(status))
        archive = self._runner.root / self._job_id / OUTPUTS
        self._said = replace(status, state=JobState.RUNNING, failure=None, detail="its outputs are on their way")
        try:
            with self._renewing_lease():
                package.pack_outputs(self._runner.folder(self._job_id), spec.outputs, archive)
                if archive.stat().st_size <= _SMALL_BYTES:
                    self._seal_outputs(status, archive)
                self._send_outputs(archive)
            self._persistently(lambda: self._tell(status))
        except PlatformError:
            self._seal_outputs(status, archive)
            raise
        finally:
            archive.unlink(missing_ok=True)
        return status

    def _send_outputs(self, archive: Path) -> None:
        with open(archive, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        note = json.dumps({"sha256": digest, "bytes": archive.stat().st_size})
        self._persistently(lambda: self._store.push(archive, OUTPUTS))
        self._persistently(lambda: self._store.write(OUTPUTS_NOTE, note.encode()))

    def _seal_outputs(self, status: JobStatus, archive: Path) -> None:
        """Leave them for the artifact, once. It is only the second way home, so what prevents it is no failure."""
        if self._artifact is None or self._seal is None:
            return
        try:
            from runners.remote import sealing

            self._artifact.mkdir(parents=True, exist_ok=True)
            target = self._artifact / sealing.SEALED
            if not target.exists():
                sealing.seal(self._watch.told(status).as_dict(), archive, self._seal, target)
        except (ImportError, OSError, PlatformError) as error:
            log.warning("no sealed copy of the outputs could be left for the artifact: %s", error)

    @contextlib.contextmanager
    def _renewing_lease(self) -> Iterator[None]:
        """While something large is on its way, which may take longer than the lease, the last word is repeated."""
        over = threading.Event()

        def renew() -> None:
            while not over.wait(self._renew_seconds):
                if self._said is not None:
                    with contextlib.suppress(OSError, PlatformError):
                        self._tell(self._said)

        renewing = threading.Thread(target=renew, name="lease", daemon=True)
        renewing.start()
        try:
            yield
        finally:
            over.set()
            renewing.join()

    def _tell(self, status: JobStatus) -> None:
        status = self._watch.told(status)
        self._store.write(STATUS, json.dumps(status.as_dict() | {"at": time.time()}).encode())
        self._said, self._said_at = status, time.monotonic()

    def _persistently(self, act: Callable[[], T]) -> T:
        """Try for about ten minutes: an hour of training is worth more than the patience of one request."""
        pause = 0.5
        for _ in range(14):
            try:
                return act()
            except StoreClosed:
                raise
            except (OSError, PlatformError) as error:
                log.warning("the store cannot be reached: %s", error)
                time.sleep(pause)
                pause = min(_LONGEST_PAUSE_SECONDS, pause * 2)
        return act()


def _names_below(folder: Path) -> list[str]:
    return sorted(os.path.join(parent, name) for parent, _, files in os.walk(folder) for name in files)


def _failed(job_id: JobId, why: str) -> JobStatus:
    return JobStatus(job_id, JobState.FAILED, failure=FailureKind.PLATFORM, evidence=(why,), ended_at=time.time())


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def main(arguments: list[str] | None = None, judge: Judge | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m runners.remote.wrapper", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--job", required=True)
    parser.add_argument("--store", required=True, help="a shared folder, or the address of the job's store")
    parser.add_argument("--jobs", required=True, type=Path, help="where jobs live on this machine")
    parser.add_argument("--python", type=Path, help="interpreter of the jobs' environment")
    parser.add_argument("--tier", choices=[str(tier) for tier in Tier], help="the sandbox; the strongest by default")
    parser.add_argument("--slots", type=int, default=1, help="jobs at a time on this machine")
    parser.add_argument("--tethered", action="store_true", help="the job ends when this process does")
    parser.add_argument("--clean", action="store_true", help="remove the job from this machine when it is home")
    parser.add_argument("--artifact", type=Path, help="folder for a sealed copy of the outputs, should the store fail")
    parser.add_argument("--renew", type=float, default=_LEASE_RENEWED_SECONDS, help="seconds between signs of life")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    token_file = os.environ.pop(_TOKEN_FILE, "")
    token = Path(token_file).read_text(encoding="ascii").strip() if token_file else ""
    try:
        jobs = given.jobs.expanduser()
        runner = LocalRunner(jobs, given.python, Tier(given.tier) if given.tier else None, slots=given.slots)
        store = open_store(given.store, token)
        resolve = partial(fetch_origin, stores=store.folder.parent if isinstance(store, FolderStore) else None)
        wrapper = Wrapper(
            JobId(given.job), store, runner, resolve=resolve, renew_seconds=given.renew, tethered=given.tethered,
            artifact=given.artifact, judge=judge,
        )  # fmt: skip
        signal.signal(signal.SIGTERM, lambda _number, _frame: wrapper.stop())
        status = wrapper.run()
        if given.clean:
            wrapper.clean()
    except (UserError, PlatformError) as error:
        print(f"postdoc: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    print(f"postdoc: job {given.job} {status.state}" + (f" ({status.failure})" if status.failure else ""))
    return 0 if status.state is JobState.SUCCEEDED else 1


if __name__ == "__main__":
    sys.exit(main())
