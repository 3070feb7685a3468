"""A machine of the practice forge that executes the workflow file that it is sent, by the stepper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actions import prepare
from bot.practice.actions_model import Machine as Registered
from bot.practice.forge import Forge
from tests.actions.conftest import ACTION, ROOT, TEMPLATES, ready_environment
from tests.actions.judge import Judge
from tests.actions.stepper import JobRun, Machine
from tests.fakes.actions_machine import ActionsMachine


class SteppingMachine(ActionsMachine):
    """Executes the workflow file instead of what its step would do."""

    def __init__(self, url: str, machine: Registered, folder: Path, *, judge: Judge, forge: Forge) -> None:
        super().__init__(url, machine, folder)
        self.jobs = folder / ".postdoc" / "jobs"
        self.runs: list[JobRun] = []
        self._url, self._judge, self._forge = url, judge, forge

    def _execute(self, told: dict[str, Any]) -> None:
        repository, number = self.machine.repository.full_name, int(told["run"]["id"])
        stepper = Machine(self.folder / "machine", self._judge, {ACTION: ROOT}, {"HOME": str(self.folder)})
        ready_environment(stepper.folder / "tools", prepare.requirements(True))
        run = stepper.run(
            TEMPLATES / "postdoc-train.yml", "workflow_dispatch", told["event"], sha=told["event"]["inputs"]["sha"],
            repository=repository, server=self._url, run_id=number,
            token=self._forge.workflow_token(repository, {"contents": "read"}).token,
        )  # fmt: skip
        self.runs.append(run)
        for artifact in run.artifacts.iterdir():
            self._keep(number, artifact.name, artifact)
        self._door.post(f"/jobs/{told['job']['id']}/finish", json={"conclusion": run.conclusion})
