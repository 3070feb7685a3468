"""What the tests fork ends with the tests."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

WORKER = """
import os, sys
from pathlib import Path
from tests.preloaded import start

folder = Path(sys.argv[1])
with open(os.devnull, "wb") as output:
    asked = start("sleeper", [], environment=dict(os.environ, PYTHONPATH=str(folder)), folder=folder, output=output)
print(asked.pid, flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="nothing is forked here")
def test_process_ends_with_the_worker_that_asked_for_it(tmp_path: Path) -> None:
    """A worker that is over its time limit is killed, and has no chance to stop anything."""
    (tmp_path / "sleeper.py").write_text("import time\n\ndef main() -> None:\n    time.sleep(600)\n")
    words = [sys.executable, "-c", WORKER, str(tmp_path)]
    said = subprocess.run(words, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, check=False).stdout
    place = Path("/proc") / str(int(said))
    until = time.monotonic() + 30
    while place.exists() and "\nState:\tZ" not in place.joinpath("status").read_text() and time.monotonic() < until:
        time.sleep(0.05)
    assert not place.exists() or "\nState:\tZ" in place.joinpath("status").read_text()
