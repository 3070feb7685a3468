"""One run of a job inside its walls: started, watched against its caps, ended with everything that it started."""

from __future__ import annotations

import json
import os
import resource
import selectors
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from runners import bubblewrap, gpus, joblog, kernel, landlock, outputs, processes, seccomp
from runners.activity import Silence
from runners.cgroup import Cgroup, Hierarchy
from runners.events import Events
from runners.gpus import Gpu
from runners.job import JobSpec
from runners.layout import LOG, SCRATCH, WORK
from runners.outcome import Ending
from runners.redactedlog import RedactedLog
from runners.tier import Tier, limits

_GIB = 2**30
_LOOK_SECONDS = 0.25
"""How often the caps that no kernel counter announces are looked after, and whether somebody wants the job to end."""
_DISK_LOOK_SECONDS = 1.0
_SWARM_LOOK_SECONDS = 0.05
"""How often the machine's number of processes is read where no control group caps them: one that forks without end
makes thousands in a second, and what looks on must be quicker than it grows."""
_LAST_IN_LINE = 10
"""Niceness of such a job where its supervisor may not go before others, and is root, whose processes nothing caps."""
_TREE_END_SECONDS = 10.0
_SANDBOX_PROCESSES = 2
"""bubblewrap itself: the one outside that waits, and the first process inside."""
_CLASSIFIED_TAIL_BYTES = 64 << 10


class Execution:
    """`run` once; then `ending` holds the evidence and `peak_bytes` the memory."""

    def __init__(
        self,
        folder: Path,
        spec: JobSpec,
        plan: Mapping[str, Any],
        events: Events,
        interruption: Callable[[Ending], Ending],
        chosen: Sequence[Gpu] = (),
    ) -> None:
        """`interruption` is asked at every look, and marks the ending when the job shall not go on; `chosen` are the
        GPUs that the job has."""
        self.ending = Ending(return_code=None, sandboxed=plan["tier"] != Tier.PLAIN)
        self.peak_bytes = 0
        self._folder = folder
        self._work = folder / WORK
        self._caps = spec.caps
        self._plan = plan
        self._tier = Tier(plan["tier"])
        self._events = events
        self._interruption = interruption
        self._gpus = tuple(chosen)
        hierarchy = plan["hierarchy"]
        self._group = Cgroup(Hierarchy.from_dict(hierarchy), plan["group"]) if hierarchy else None
        self._log = RedactedLog(folder / LOG, int(plan["log_bytes"]))
        self._process: subprocess.Popen[bytes] | None = None
        self._report = b""
        self._inside: int | None = None
        """Process descriptor of the first process inside the sandbox: its end is the end of the whole tree."""
        self._next_look = 0.0
        self._processes_at_start = 0
        self._niceness = 0
        self._next_disk_look = 0.0
        self._silence = Silence(folder, self._used_seconds)

    def run(self) -> None:
        """Start the job and stay until nothing of it is left. The calling thread must live as long."""
        try:
            self._make_group()
            self._start()
            self._watch_until_it_ends()
        except OSError as error:
            what = "the job could not be started" if self._process is None else "the job could not be watched"
            self.ending = replace(self.ending, start_error=f"{what}: {error}")
        self._clear_away()

    def look_now(self) -> None:
        """Somebody has sent a signal: ask at once whether the job shall go on."""
        self._next_look = 0.0

    # starting

    def _make_group(self) -> None:
        if self._group is None:
            return
        if self._group.exists():
            self._group.kill()
            self._group.remove()
        self._group.create(int(self._caps.memory_gib * _GIB), self._caps.pids + _SANDBOX_PROCESSES)

    def _start(self) -> None:
        """Start the job from this thread: the kernel ties the job's life to the thread that forks it."""
        if self._group is None:
            self._processes_at_start = processes.count_on_machine()
            self._niceness = os.getpriority(os.PRIO_PROCESS, 0)
            if not kernel.go_before_others() and os.getuid() == 0:
                self._niceness = max(self._niceness, _LAST_IN_LINE)
        if self._tier is Tier.PLAIN:
            kernel.adopt_orphans()
        argv: list[str] = list(self._plan["argv"])
        passed: list[int] = []
        if self.ending.sandboxed:
            argv = bubblewrap.with_gpus(argv, self._gpu_words())
            report_reading, report_writing = os.pipe2(os.O_CLOEXEC)
            passed.append(report_writing)
            argv[1:1] = ["--json-status-fd", str(report_writing)]
            self._events.watch(report_reading, self._on_report)
        if self._plan.get("seccomp") and (program := seccomp.program_file()) is not None:
            passed.append(program)
            argv[1:1] = ["--seccomp", str(program)]
        reading, writing = os.pipe2(os.O_CLOEXEC)
        self._events.watch(reading, self._on_output)
        try:
            self._spawn(argv, writing, passed)
        finally:
            for descriptor in (writing, *passed):
                os.close(descriptor)

    def _gpu_words(self) -> list[str]:
        if not self._gpus:
            return []
        words = gpus.walls(self._gpus, self._plan["gpus"]["place"]["root"])
        for name, value in gpus.environment(self._gpus).items():
            words += ["--setenv", name, value]
        return words

    def _spawn(self, argv: list[str], output: int, passed: list[int]) -> None:
        try:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._work,
                env=self._plan["environment"] | (gpus.environment(self._gpus) if self._gpus else {}),
                pass_fds=passed,
                start_new_session=True,
                preexec_fn=self._confinement(os.getpid()),
            )
        except subprocess.SubprocessError as error:
            raise OSError(f"it could not be confined, {LOG} says why") from error
        except OSError as error:
            if self.ending.sandboxed or error.filename != argv[0]:
                raise
            # Inside the sandbox a command that is not there is the script's failure; without one it is the same.
            self._on_output(f"postdoc: {argv[0]}: {error.strerror}\n".encode())
            self.ending = replace(self.ending, return_code=127)
            return
        self._events.wake_once(os.pidfd_open(self._process.pid))

    def _confinement(self, supervisor: int) -> Callable[[], None]:
        """What the new process does to itself between fork and exec."""
        chosen = limits(self._caps, self._tier)

        def confine() -> None:
            try:
                kernel.die_with(supervisor)
                # When the whole machine runs out of memory, the kernel takes the job and not the bot.
                with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
                    file.write("500")
                if self._group is not None:
                    self._group.enter()
                else:
                    # However many they become, who looks after them comes first.
                    os.setpriority(os.PRIO_PROCESS, 0, self._niceness)
                if self._plan["leaves_network"]:
                    kernel.leave_network()
                for name, value in chosen.items():
                    which = getattr(resource, name)
                    hard = resource.getrlimit(which)[1]
                    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
                    resource.setrlimit(which, (value, value))
                if self._plan.get("landlock") is not None:
                    landlock.restrict(self._plan["landlock"], landlock.ALL_WRITES)
            except OSError as error:
                # All that the parent learns of an exception here is that there was one.
                os.write(2, f"postdoc: the job could not be confined: {error}\n".encode())
                raise

        return confine

    # listening

    def _on_output(self, data: bytes) -> None:
        self._writing_log(lambda: self._log.write(data))

    def _writing_log(self, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            self.ending = replace(self.ending, disk_over=f"the log cannot be written: {error.strerror}")

    def _on_report(self, data: bytes) -> None:
        """One JSON object a line: `child-pid` when the sandbox stands, `exit-code` when the script has ended."""
        *lines, self._report = (self._report + data).split(b"\n")
        for line in lines:
            said = json.loads(line)
            if "exit-code" in said:
                self.ending = replace(self.ending, reported_exit_code=said["exit-code"])
            elif "child-pid" in said:
                try:
                    self._inside = os.pidfd_open(said["child-pid"])
                except ProcessLookupError:
                    continue

    # watching

    def _watch_until_it_ends(self) -> None:
        deadline = time.monotonic() + self._caps.timeout_seconds
        while self._process is not None and self._process.poll() is None:
            now = time.monotonic()
            if now >= self._next_look:
                self._next_look = now + _LOOK_SECONDS
                self._look(now)
            if now >= deadline and not self.ending.was_cut_short:
                self.ending = replace(self.ending, timed_out_after_seconds=self._caps.timeout_seconds)
            if self.ending.was_cut_short:
                self._kill()
            self._writing_log(lambda: self._log.settle(time.monotonic()))
            pause = min(self._next_look, max(deadline, now + 0.01)) - time.monotonic()
            self._events.wait(pause if self._group is not None else min(pause, _SWARM_LOOK_SECONDS))
            if self._swarms():
                self.look_now()

    def _look(self, now: float) -> None:
        ending = self._interruption(self.ending)
        if self.ending.was_cut_short:
            # Evidence is collected once; after the blow only the end is waited for.
            return
        self.ending = ending
        if self._group is not None:
            # The kernel kills one process; a job that has lost one in silence must not go on as if it were whole.
            self.ending = replace(self.ending, oom_kills=self._group.oom_kills())
            self.peak_bytes = max(self.peak_bytes, self._group.private_bytes())
        else:
            self._look_at_tree()
        self._silence.look()
        if now >= self._next_disk_look:
            self._look_at_disk()
            # A folder with very many files takes long to walk; the walks then take a twentieth of the time.
            self._next_disk_look = now + max(_DISK_LOOK_SECONDS, 20 * (time.monotonic() - now))

    def _swarms(self) -> bool:
        """Whether so many processes have come to be on this machine that it is worth counting the job's."""
        if self._group is not None:
            return False
        return processes.count_on_machine() > self._processes_at_start + self._caps.pids

    def _look_at_tree(self) -> None:
        """What a control group would count, where there is none."""
        tree = self._tree()
        count = len(tree) - (_SANDBOX_PROCESSES if self.ending.sandboxed else 0)
        if count > self._caps.pids:
            words = f"{count} processes at once, the cap is {self._caps.pids}"
            self.ending = replace(self.ending, processes_over=words)
        cap = self._caps.memory_gib * _GIB
        held = processes.private_bytes(tree)
        if held > cap:
            held = processes.proportional_bytes(tree)
        self.peak_bytes = max(self.peak_bytes, held)
        if held > cap:
            words = f"{held / _GIB:.3g} GiB held by all processes, the cap is {self._caps.memory_gib:g} GiB"
            self.ending = replace(self.ending, memory_over=words)
        if self._process is not None:
            processes.reap_adopted(keep=self._process.pid)

    def _used_seconds(self) -> float:
        return processes.cpu_seconds(self._group.processes() if self._group is not None else self._tree())

    def _look_at_disk(self) -> None:
        used = outputs.used_bytes(self._work) + outputs.used_bytes(self._folder / SCRATCH)
        if used > self._caps.disk_gib * _GIB:
            words = f"the job's folder holds {used / _GIB:.3g} GiB, its cap is {self._caps.disk_gib:g} GiB"
            self.ending = replace(self.ending, disk_over=words)

    # ending

    def _tree(self) -> list[int]:
        return processes.descendants(os.getpid())

    def _kill(self) -> None:
        if self._group is not None:
            self._group.kill()
        if self.ending.sandboxed and self._process is not None:
            # Its death takes the first process inside along, and with that one the whole process namespace.
            self._process.kill()
        else:
            processes.kill_all(self._tree)

    def _clear_away(self) -> None:
        """Nothing of the job is left running, and everything that it said and did is written down."""
        if self._process is not None:
            if self._process.poll() is None:
                self._kill()
            code = self._process.wait()
            self.ending = replace(self.ending, return_code=code)
        while self._events.wait(0):
            continue
        self._wait_for_the_tree()
        while self._events.wait(0):
            continue
        self._take_last_measures()
        for note in outputs.disarm(self._work):
            self._on_output(f"[postdoc: {note}]\n".encode())
        self._writing_log(self._log.close)
        _remove(self._folder / SCRATCH)
        tail = joblog.tail_text(self._folder / LOG, _CLASSIFIED_TAIL_BYTES)
        self.ending = replace(self.ending, log_tail=tail)

    def _wait_for_the_tree(self) -> None:
        if not self.ending.sandboxed:
            processes.kill_all(self._tree)
        elif self._inside is not None:
            selector = selectors.DefaultSelector()
            selector.register(self._inside, selectors.EVENT_READ)
            selector.select(_TREE_END_SECONDS)

    def _take_last_measures(self) -> None:
        # Of the largest single process; the looks above may have missed a short peak.
        largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        self.peak_bytes = max(self.peak_bytes, largest)
        if self._group is None or not self._group.exists():
            return
        self._group.kill()
        self.ending = replace(self.ending, oom_kills=self._group.oom_kills(), pids_refused=self._group.pids_refused())
        if self.ending.oom_kills:
            self.peak_bytes = max(self.peak_bytes, self._group.peak_bytes() or 0)
        self._group.remove()


def _remove(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        # Imported here because most jobs leave it empty, and every job waits for the imports of this module.
        import shutil

        shutil.rmtree(folder, ignore_errors=True)
