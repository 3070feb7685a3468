"""The process that stands around one container. It outlives the bot; the container outlives it, and the next supervisor
of the same job takes the container over, with the time-out still counted from the job's start.

    python -m runners.containers.supervisor JOB_FOLDER
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from pathlib import Path

from bot.errors import PlatformError, UserError
from runners import gpus, slots, supervisor
from runners.containers.engine import Engine
from runners.containers.execution import CONTAINER, ContainerExecution
from runners.containers.plan import PIPES
from runners.gpus import GpuPlace
from runners.job import read_json
from runners.layout import read_status
from runners.outcome import Ending
from runners.supervisor import Supervisor


class ContainerSupervisor(Supervisor):
    """One job from its place in the queue to its last word, begun here or taken over."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._leaving = False
        self._engine = Engine(str(self._plan["url"]))
        known = read_status(folder)
        if known is not None:
            self._status = known

    def run(self) -> None:
        try:
            super().run()
        finally:
            # After the last word: a container that is gone without one would be a lost job.
            if not self._leaving:
                with contextlib.suppress(PlatformError, UserError):
                    self._engine.remove(str(self._plan["name"]))
                shutil.rmtree(self._folder / PIPES, ignore_errors=True)

    def _new_execution(self) -> ContainerExecution:
        assert self._status.started_at is not None
        return ContainerExecution(
            self._folder,
            self._spec,
            self._plan,
            self._events,
            self._interruption,
            self._status.started_at,
            self._engine,
            self._taken.gpus,
        )

    def _wait_for_turn(self) -> Ending | None:
        made = read_json(self._folder / CONTAINER)
        if made is None:
            return super()._wait_for_turn()
        # It runs already. Its slot may have gone to another job meanwhile; then there is one too many for a while.
        slots.take_slot(self._root, int(self._plan["slots"]))
        if made.get("gpus"):
            self._taken = gpus.take_again(GpuPlace.from_dict(self._plan["gpus"]["place"]), made["gpus"])
        return None

    def _interruption(self, ending: Ending) -> Ending:
        ending = super()._interruption(ending)
        if ending.shutdown_signal is not None:
            # The supervisor shall stop, which says nothing about the container: it is left for the next one.
            self._leaving = True
            sys.exit(0)
        return ending


def main() -> None:
    supervisor.main(ContainerSupervisor, again=True)


if __name__ == "__main__":
    main()
