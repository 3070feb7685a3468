"""How long a job has said nothing, and whether it has done nothing meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runners import processes
from runners.activity import FILE, Silence, cpu_share, last_output_at, seconds_since_output
from runners.layout import LOG, WORK


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / WORK / "out").mkdir(parents=True)
    return tmp_path


def written(path: Path, ago: float) -> None:
    path.write_text("{}\n")
    os.utime(path, (time.time() - ago,) * 2)


def test_the_later_of_log_and_metrics_counts_and_nothing_from_before_the_start(folder: Path) -> None:
    now = time.time()
    assert seconds_since_output(folder, None, now) is None
    assert seconds_since_output(folder, now - 50, now) == pytest.approx(50, abs=0.2)
    written(folder / LOG, 40)
    written(folder / WORK / "out" / "metrics.jsonl", 20)
    assert seconds_since_output(folder, now - 50, now) == pytest.approx(20, abs=2)
    assert seconds_since_output(folder, now - 10, now) == pytest.approx(10, abs=0.2)


def test_a_link_in_place_of_the_metrics_tells_nothing_of_what_it_leads_to(folder: Path) -> None:
    written(folder / "elsewhere", 0)
    (folder / WORK / "out" / "metrics.jsonl").symlink_to(folder / "elsewhere")
    os.utime(folder / WORK / "out" / "metrics.jsonl", (time.time() - 500,) * 2, follow_symlinks=False)
    assert time.time() - last_output_at(folder) > 400


def test_share_of_a_core_is_measured_while_the_job_is_silent_and_forgotten_when_it_speaks(folder: Path) -> None:
    used = iter([10.0, 10.5, 11.0])
    silence = Silence(folder, lambda: next(used), silent_seconds=-1, look_seconds=0)
    silence.look()
    assert cpu_share(folder) is None  # one look is no measurement
    time.sleep(0.05)
    silence.look()
    share = cpu_share(folder)
    assert share is not None and share > 0
    written(folder / LOG, 0)
    assert cpu_share(folder) is None
    silence.look()
    assert cpu_share(folder) is None


def test_a_job_that_speaks_is_not_measured(folder: Path) -> None:
    written(folder / LOG, 0)
    silence = Silence(folder, lambda: pytest.fail("nobody need count"), silent_seconds=60, look_seconds=0)
    silence.look()
    assert not (folder / FILE).exists()


def test_processor_time_is_that_of_the_processes_named() -> None:
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    idle = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        deadline = time.monotonic() + 60
        while processes.cpu_seconds([busy.pid]) < processes.cpu_seconds([idle.pid]) + 0.3:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        for process in (busy, idle):
            process.kill()
            process.wait()
    assert processes.cpu_seconds([busy.pid]) == 0.0
