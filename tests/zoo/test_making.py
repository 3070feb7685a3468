"""Real runs: made, stopped, gone on with, and the same once more."""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bot.diagnosis import diagnose
from bot.practice.tiny_base import build, cached_path
from bot.zoo.faults import FAULTS
from bot.zoo.job_folder import recipe_text
from bot.zoo.making import Making
from bot.zoo.plan import fault_case
from bot.zoo.repairs import PLAYBOOK, repaired
from bot.zoo.running import Keeper
from bot.zoo.traces import read_traces, trace_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
CASE = dataclasses.replace(fault_case(FAULTS[1], "gross", 4), setting=("sft", "last", False))


@pytest.fixture(scope="module")
def base() -> Path:
    from bot.practice.tiny_base import Configuration

    return build(cached_path(), Configuration(), lambda step, loss: None)


@pytest.fixture(scope="module")
def made(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Making:
    folder = tmp_path_factory.mktemp("zoo")
    told: list[str] = []
    assert Making.opened(folder).make([CASE.control()], told.append, base=base) == 0
    again = Making.opened(folder)
    assert again.make([CASE.control(), CASE], told.append, base=base) == 0
    assert [line.split(":")[0].split(" ", 1)[1] for line in told] == [CASE.control().description, CASE.description]
    return again


def test_faulty_run_loses_to_its_control_and_both_are_kept(made: Making) -> None:
    archive, size, census = made.packed([CASE.control(), CASE])
    assert census["kept"] == 2 and 0 < size < 200_000
    truths = {trace.truth.case: trace.truth for trace in read_traces(archive) if not trace.truth.replayed}
    assert truths[CASE.control().description].healthy
    faulty = truths[CASE.description]
    assert faulty.labels[0] == "divergence" and faulty.doomed
    assert faulty.value is not None and faulty.control is not None and faulty.value < 0.5 < faulty.control


def test_second_making_leaves_the_same_curve(made: Making, base: Path, tmp_path: Path) -> None:
    other = Making.opened(tmp_path)
    other.make([CASE], lambda line: None, base=base)
    for name in ("metrics.jsonl", "evaluation.json", "recipe.yaml", "train.jsonl", "data_audit.json"):
        first = made.folder / "raw" / CASE.name / name
        assert (tmp_path / "raw" / CASE.name / name).read_bytes() == first.read_bytes(), name


def test_nothing_is_left_but_what_is_kept(made: Making) -> None:
    assert list((made.folder / "work").iterdir()) == []
    assert not list(made.folder.rglob("*.safetensors"))


def test_process_that_sleeps_is_waited_for_until_the_limit_and_blamed_on_it(base: Path, tmp_path: Path) -> None:
    """Two real processes over gloo: one does not come, and the other's own traceback says so."""
    case, folder = fault_case(FAULTS[42], "gross", 0), tmp_path / "run"
    specimen = case.specimen()
    with Keeper(tmp_path, base) as keeper:
        outcome = keeper.run(specimen, folder)
    assert outcome.state == "failed" and 0 < outcome.steps < specimen.steps // 2
    trace = trace_of(specimen, outcome, folder, case.name)
    assert b"Timed out waiting 30000ms for" in trace.files["log.txt"]
    first = diagnose(trace.write(tmp_path / "trace")).diagnoses[0]
    assert (first.symptom, first.key) == ("nccl_timeout", "ddp_timeout")
    assert first.line is not None and "ddp_timeout: 30" in recipe_text(specimen.recipe).splitlines()[first.line - 1]


def trainers_below(folder: Path) -> list[int]:
    """Processes of training scripts that work somewhere in the folder."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (
                place.joinpath("cwd").resolve().is_relative_to(folder)
                and b"train.py" in (place / "cmdline").read_bytes()
            ):
                found.append(int(place.name))
    return found


def waited_for(condition: Callable[[], bool], seconds: float = 120.0) -> bool:
    until = time.monotonic() + seconds
    while not (holds := condition()) and time.monotonic() < until:
        time.sleep(0.2)
    return holds


def test_ended_making_leaves_no_process_and_no_result(base: Path, tmp_path: Path) -> None:
    """Nor of two processes that were started by a launcher, which are nobody's forks."""
    words = [sys.executable, "-m", "bot", "zoo", "--make", str(tmp_path), "--only", "42,gross,seed0"]
    making = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert waited_for(lambda: len(trainers_below(tmp_path)) > 2)
        making.terminate()
        assert making.wait(60) == 130
    finally:
        making.kill()
    assert waited_for(lambda: not trainers_below(tmp_path), 30)
    assert not Making.opened(tmp_path).done


def test_playbook_repairs_a_rate_that_is_a_hundred_times_too_high(made: Making, base: Path) -> None:
    with Keeper(made.folder / "cache", base) as keeper:
        attempts = repaired(keeper, made, CASE, PLAYBOOK)
    assert attempts[0].changes.keys() == {"learning_rate"}
    assert attempts[-1].repaired, attempts
