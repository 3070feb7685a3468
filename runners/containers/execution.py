"""One run of a job in its container: made or found again, watched against its caps, ended with all that it started.

The engine is needed to start a container and to ask how it ended. In between, this process watches by itself: the
container's first process by its descriptor, its control group, its folders. So the caps hold while the engine is away.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from bot.errors import PlatformError, UserError
from runners import joblog, outputs, processes
from runners.activity import Silence
from runners.cgroup import Cgroup, group_of
from runners.containers.engine import Engine, EngineAway, State
from runners.containers.plan import ENDED, OUTPUT, PIPES, RELEASE, with_gpus
from runners.containers.runner import give
from runners.events import Events
from runners.gpus import Gpu
from runners.job import JobSpec, read_json
from runners.layout import LOG, SCRATCH, WORK, write_json
from runners.outcome import Ending
from runners.redactedlog import RedactedLog

CONTAINER = "container.json"
"""In the job's folder: which container was made for it and, from then on, that its script has ended."""
_GIB = 2**30
_LOOK_SECONDS = 0.25
_DISK_LOOK_SECONDS = 1.0
_UNSEEN_LOOK_SECONDS = 1.0
"""Where the container's process cannot be seen from here, its engine is asked so often."""
_ENGINE_PATIENCE_SECONDS = 60.0
"""How long an engine that does not answer is asked again before the job counts as lost."""
_END_SECONDS = 10.0
_NEAR_CAP = 0.95
_CLASSIFIED_TAIL_BYTES = 64 << 10

T = TypeVar("T")


class ContainerExecution:
    """`run` once; then `ending` holds the evidence and `peak_bytes` the memory."""

    def __init__(
        self,
        folder: Path,
        spec: JobSpec,
        plan: Mapping[str, Any],
        events: Events,
        interruption: Callable[[Ending], Ending],
        started_at: float,
        engine: Engine,
        chosen: Sequence[Gpu] = (),
    ) -> None:
        """`started_at` (Unix seconds) is when the job began, which may be a supervisor ago; `interruption` is asked at
        every look, and marks the ending when the job shall not go on; `chosen` are the GPUs that the job has."""
        self.ending = Ending(return_code=None, sandboxed=False)
        self.peak_bytes = 0
        self._folder, self._work = folder, folder / WORK
        self._caps = spec.caps
        self._gpus = tuple(chosen)
        self._name, self._config = str(plan["name"]), with_gpus(plan, chosen)
        self._events, self._interruption, self._engine = events, interruption, engine
        self._deadline = started_at + spec.caps.timeout_seconds
        self._log = RedactedLog(folder / LOG, int(plan["log_bytes"]))
        self._group: Cgroup | None = None
        self._process: int | None = None
        """Descriptor of the container's first process; None when it cannot be seen from here."""
        self._pipes: dict[str, int] = {}
        self._known: dict[str, Any] = read_json(folder / CONTAINER) or {}
        self._next_look = self._next_disk_look = self._next_state_look = 0.0
        self._silence = Silence(folder, self._used_seconds)

    def run(self) -> None:
        """Start the job, or find it running, and stay until nothing of it is left."""
        try:
            self._open_pipes()
            if self._find_or_start():
                self._watch_until_it_ends()
                self._ask_how_it_ended()
        except (OSError, PlatformError, UserError) as error:
            self._give_up(str(error))
        except SystemExit:
            # The container is left to the next supervisor; what it has printed so far is stored here.
            self._writing_log(self._log.close)
            raise
        self._clear_away()

    def look_now(self) -> None:
        """Somebody has sent a signal: ask at once whether the job shall go on."""
        self._next_look = 0.0

    # starting

    def _open_pipes(self) -> None:
        for name in (OUTPUT, ENDED, RELEASE):
            # For both directions, so that opening waits for nobody and the other side's end is no end of file.
            self._pipes[name] = os.open(self._folder / PIPES / name, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._events.watch(self._pipes[OUTPUT], self._on_output)
        # The word itself stays in the pipe: a supervisor that dies now has not taken it from the next.
        self._events.wake_once(self._pipes[ENDED])

    def _find_or_start(self) -> bool:
        """Whether there is, or was, a container to watch."""
        state = self._persistently(lambda: self._engine.state(self._name))
        if state is None and self._known:
            self.ending = replace(self.ending, lost="its container has gone from the engine")
            return False
        if state is None:
            self._persistently(lambda: self._engine.create(self._name, self._config))
            state = self._state()
        if not self._known:
            self._note(id=state.identity, gpus=[gpu.uuid for gpu in self._gpus])
        if self._gpus and not state.given_gpus:
            raise PlatformError("the engine took no notice of the request for GPUs; dockerd with NVIDIA's toolkit does")
        if state.status in ("created", "configured", "initialized"):
            self._persistently(lambda: self._engine.start(self._name))
            self._note(started=True)
            state = self._state()
        self._see(state)
        return True

    def _state(self) -> State:
        state = self._persistently(lambda: self._engine.state(self._name))
        if state is None:
            raise PlatformError("its container has gone from the engine")
        return state

    def _see(self, state: State) -> None:
        """Take hold of the container's first process and its control group, where they can be seen from here."""
        if not state.pid:
            return
        try:
            process = os.pidfd_open(state.pid)
        except OSError:
            return
        group = None
        with contextlib.suppress(OSError):
            group = group_of(state.pid, state.identity)
        if group is None:
            # In another process namespace the number belongs to somebody else.
            os.close(process)
            return
        self._group, self._process = group, process
        self._events.wake_once(process)

    def _note(self, **facts: Any) -> None:
        self._known |= facts
        write_json(self._folder / CONTAINER, self._known)

    # listening

    def _listen(self, seconds: float) -> None:
        """Until something happens, `seconds` at most."""
        self._writing_log(lambda: self._log.settle(time.monotonic()))
        self._events.wait(seconds)

    def _on_output(self, data: bytes) -> None:
        self._writing_log(lambda: self._log.write(data))

    def _writing_log(self, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            self.ending = replace(self.ending, disk_over=f"the log cannot be written: {error.strerror}")

    # watching

    def _watch_until_it_ends(self) -> None:
        while not self._container_has_ended():
            now = time.monotonic()
            if now >= self._next_look:
                self._next_look = now + _LOOK_SECONDS
                self._look(now)
            if time.time() >= self._deadline and not self.ending.was_cut_short:
                self.ending = replace(self.ending, timed_out_after_seconds=self._caps.timeout_seconds)
            if self.ending.was_cut_short:
                self._end(now + _END_SECONDS)
                return
            if _readable(self._pipes[ENDED]):
                self._let_it_end(now + _END_SECONDS)
                return
            until_deadline = max(0.01, self._deadline - time.time())
            self._listen(min(self._next_look - time.monotonic(), until_deadline))

    def _container_has_ended(self) -> bool:
        if self._process is not None:
            return _readable(self._process)
        now = time.monotonic()
        if now < self._next_state_look:
            return False
        self._next_state_look = now + _UNSEEN_LOOK_SECONDS
        state = self._persistently(lambda: self._engine.state(self._name))
        return state is None or state.ended

    def _look(self, now: float) -> None:
        self.ending = self._interruption(self.ending)
        self._measure()
        self._silence.look()
        if now >= self._next_disk_look:
            self._look_at_disk()
            # A folder with very many files takes long to walk; the walks then take a twentieth of the time.
            self._next_disk_look = now + max(_DISK_LOOK_SECONDS, 20 * (time.monotonic() - now))

    def _measure(self) -> None:
        if self._group is None:
            return
        # The kernel kills one process; a job that has lost one in silence must not go on as if it were whole.
        self.ending = replace(self.ending, oom_kills=self._group.oom_kills(), pids_refused=self._group.pids_refused())
        largest = processes.largest_peak_bytes(self._group.processes())
        self.peak_bytes = max(self.peak_bytes, self._group.private_bytes(), largest)
        if self.ending.oom_kills:
            self.peak_bytes = max(self.peak_bytes, self._group.peak_bytes() or 0)

    def _used_seconds(self) -> float | None:
        return processes.cpu_seconds(self._group.processes()) if self._group is not None else None

    def _look_at_disk(self) -> None:
        used = outputs.used_bytes(self._work) + outputs.used_bytes(self._folder / SCRATCH)
        if used > self._caps.disk_gib * _GIB:
            words = f"the job's folder holds {used / _GIB:.3g} GiB, its cap is {self._caps.disk_gib:g} GiB"
            self.ending = replace(self.ending, disk_over=words)

    # ending

    def _let_it_end(self, deadline: float) -> None:
        """The script has ended and its container waits: ask its control group, then let it go with the exit code."""
        self._measure()
        self._note(script_ended=True, peak_bytes=self.peak_bytes, oom_kills=self.ending.oom_kills)
        os.write(self._pipes[RELEASE], b"\n")
        if not self._wait_for_the_end(deadline):
            self._end(deadline + _END_SECONDS)

    def _end(self, deadline: float) -> None:
        """The first process takes all others along. Through its descriptor where this user may, or its engine."""
        if self._process is not None:
            try:
                signal.pidfd_send_signal(self._process, signal.SIGKILL)
            except ProcessLookupError:
                return
            except PermissionError:
                self._persistently(lambda: self._engine.kill(self._name))
        else:
            self._persistently(lambda: self._engine.kill(self._name))
        if not self._wait_for_the_end(deadline):
            raise PlatformError(f"its container did not end within {_END_SECONDS:g} s of being killed")

    def _wait_for_the_end(self, deadline: float) -> bool:
        while not self._container_has_ended():
            if time.monotonic() > deadline:
                return False
            # The pipe must go on being read: a full one would keep the script from ending.
            self._listen(0.05)
        return True

    def _ask_how_it_ended(self) -> None:
        # A supervisor before this one may have ended it, because somebody wanted that.
        self.ending = self._interruption(self.ending)
        if self.ending.was_cut_short:
            return
        state = self._final_state(time.monotonic() + _END_SECONDS)
        if state is None:
            self.ending = replace(self.ending, lost="its container has gone from the engine")
            return
        self.peak_bytes = max(self.peak_bytes, int(self._known.get("peak_bytes", 0)))
        oom_kills = max(self.ending.oom_kills, int(self._known.get("oom_kills", 0)))
        self.ending = replace(self.ending, return_code=state.exit_code, oom_kills=oom_kills)
        if not oom_kills:
            self.ending = replace(self.ending, memory_over=self._memory_evidence(state))
        if not self._known.get("script_ended") and not self.ending.memory_over:
            said = f": {state.error}" if state.error else ""
            words = f"its container was ended from outside, with exit code {state.exit_code}{said}"
            self.ending = replace(self.ending, lost=words)

    def _final_state(self, deadline: float) -> State | None:
        """The engine learns of the end a moment after the kernel."""
        while True:
            state = self._persistently(lambda: self._engine.state(self._name))
            if state is None or state.ended or time.monotonic() > deadline:
                return state
            self._listen(0.02)

    def _memory_evidence(self, state: State) -> str:
        """Where no counter could be read in time, what else says that memory was the cause."""
        if state.oom_killed:
            return "the engine says OOMKilled"
        cap = self._caps.memory_gib * _GIB
        if state.exit_code == 128 + signal.SIGKILL and self.peak_bytes >= _NEAR_CAP * cap:
            return f"exit code 137, and memory had reached {self.peak_bytes / cap:.0%} of its cap"
        return ""

    def _persistently(self, act: Callable[[], T]) -> T:
        """Ask again while the engine is away, until somebody wants the job to end or patience does.

        Raises: EngineAway, PlatformError, UserError.
        """
        deadline = time.monotonic() + _ENGINE_PATIENCE_SECONDS
        while True:
            try:
                return act()
            except EngineAway as error:
                self.ending = self._interruption(self.ending)
                if time.time() >= self._deadline and not self.ending.was_cut_short:
                    self.ending = replace(self.ending, timed_out_after_seconds=self._caps.timeout_seconds)
                if self.ending.was_cut_short:
                    raise
                if time.monotonic() > deadline:
                    raise EngineAway(f"{error}, for {_ENGINE_PATIENCE_SECONDS:g} s now") from error
            self._listen(_LOOK_SECONDS)

    def _give_up(self, why: str) -> None:
        """Something of ours or of the engine's failed; the container, should there be one, must not go on."""
        if self._process is not None:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self._process, signal.SIGKILL)
        if self.ending.was_cut_short:
            return
        if self._known.get("started"):
            self.ending = replace(self.ending, lost=why)
        else:
            self.ending = replace(self.ending, start_error=f"the job could not be started: {why}")

    def _clear_away(self) -> None:
        while self._events.wait(0):
            continue
        if os.getuid() == 0:
            give(self._work, os.getuid(), os.getgid())
        for note in outputs.disarm(self._work):
            self._on_output(f"[postdoc: {note}]\n".encode())
        self._writing_log(self._log.close)
        shutil.rmtree(self._folder / SCRATCH, ignore_errors=True)
        tail = joblog.tail_text(self._folder / LOG, _CLASSIFIED_TAIL_BYTES)
        self.ending = replace(self.ending, log_tail=tail)


def _readable(descriptor: int) -> bool:
    """A process' descriptor is readable when the process has ended."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
