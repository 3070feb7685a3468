"""A whole goal with real training on a self-hosted machine: the bot dispatches, the machine executes the real workflow
file with the real composite action, and the numbers are those of this machine."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from bot.domain.experiment import State
from bot.practice.goals import practice_place
from bot.practice.world import PracticeWorld
from tests.actions.conftest import ROOT, TEMPLATES
from tests.actions.judge import Judge, missing
from tests.actions.stepping_machine import SteppingMachine
from tests.runners.test_hf_pursuit import end_local_jobs, pursued, rows

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800), pytest.mark.skipif(bool(missing()), reason=missing() or "-")]


def test_goal_is_met_on_an_actions_machine_with_the_numbers_of_this_machine(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "bot.practice.tiny_base", "--quiet"], cwd=ROOT, check=True)
    near, _ = pursued(tmp_path / "near", {}, end_local_jobs)
    plain = practice_place(0)
    path = ".github/workflows/postdoc-train.yml"
    text = (TEMPLATES / "postdoc-train.yml").read_text(encoding="utf-8")
    place = dataclasses.replace(plain, files={**plain.files, path: text})
    machines: list[SteppingMachine] = []
    judge = Judge()

    def ready(world: PracticeWorld) -> None:
        world._settings |= {"POSTDOC_RUNNER": "actions", "POSTDOC_PUBLIC_URL": world.bot_url}
        registered = world.forge.add_machine(place.full_name, "gpu-box", ("postdoc",))
        machine = SteppingMachine(world.url, registered, tmp_path / "gpu-box", judge=judge, forge=world.forge)
        machines.append(machine)
        machine.start()

    def end_jobs(_: Path) -> None:
        for machine in machines:
            machine.stop()
            machine.end_leftovers()

    try:
        far, log = pursued(tmp_path / "far", {}, end_jobs, place, ready)
    finally:
        judge.close()
    assert near.state is State.MET
    assert far.state is State.MET, log[-4000:]
    assert rows(far) == rows(near)
    [machine] = machines
    assert len(machine.taken) == len(far.jobs)
    assert [run.conclusion for run in machine.runs] == ["success"] * len(far.jobs)
    assert {job.status["machine"] for job in far.jobs.values() if job.status is not None} == {"gpu-box"}
    shown = "".join(run.log.text + run.summary for run in machine.runs)
    for told in machine.taken:
        assert told["event"]["inputs"]["token"] not in shown + log
