"""Jobs forked from a process that has its imports behind it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bot.practice.warm import Ended, Warm


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    with Warm(("json", "yaml")) as found:
        yield found


def ended(warm: Warm, folder: Path, text: str, *words: str, **limits: float) -> tuple[Ended, str]:
    script = folder / "script.py"
    script.write_text(text)
    job = warm.start([str(script), *words], cwd=folder, log=folder / "log.txt", **limits)  # type: ignore[arg-type]
    found = job.wait(30)
    assert found is not None
    return found, (folder / "log.txt").read_text()


def test_script_runs_as_if_python_had_been_started_on_it(warm: Warm, tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("WORD = 'beside'")
    text = "import os, sys, beside\nprint(sys.argv[1:], os.getcwd(), __name__, beside.WORD)"
    done, log = ended(warm, tmp_path, text, "--config", "recipe.yaml")
    assert done.exit_code == 0
    assert log == f"['--config', 'recipe.yaml'] {tmp_path} __main__ beside\n"


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("import sys; sys.exit(2)", 2, ""),
        ("import sys; sys.exit('in words')", 1, "in words"),
        ("raise KeyError('text')", 1, "KeyError: 'text'"),
        ("import os; os.kill(os.getpid(), 9)", -9, ""),
    ],
)
def test_every_way_to_end_is_told(warm: Warm, tmp_path: Path, text: str, code: int, said: str) -> None:
    done, log = ended(warm, tmp_path, text)
    assert done.exit_code == code
    assert said in log


def test_one_job_changes_nothing_for_the_next(warm: Warm, tmp_path: Path) -> None:
    ended(warm, tmp_path, "import os, sys; os.environ['LEFT'] = 'over'; sys.path.append('/left')")
    done, log = ended(warm, tmp_path, "import os, sys; assert 'LEFT' not in os.environ and '/left' not in sys.path")
    assert done.exit_code == 0, log


def test_limits_count_from_what_is_held_already(warm: Warm, tmp_path: Path) -> None:
    done, log = ended(warm, tmp_path, "data = bytearray(1 << 30)", address_space_gib=0.5)
    assert done.exit_code == 1
    assert "MemoryError" in log
    writes = "open('large', 'wb').write(bytes(2 << 20))"
    done, log = ended(warm, tmp_path, writes, file_size_mib=1)
    assert done.exit_code == 1
    assert "File too large" in log


def test_job_can_be_killed_and_dies_with_the_process(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import time\ntime.sleep(60)")
    with Warm(("json",)) as warm:
        first = warm.start([str(script)], cwd=tmp_path, log=tmp_path / "log.txt")
        assert first.wait(0.05) is None
        first.kill()
        killed = first.wait(60)
        assert killed is not None
        assert killed.exit_code == -9
        second = warm.start([str(script)], cwd=tmp_path, log=tmp_path / "log.txt")
        assert second.wait(0.2) is None
        pid = second.pid
    assert pid is not None
    deadline = time.monotonic() + 60
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
