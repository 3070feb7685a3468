"""A rope between a wrapper and its job: when the wrapper is gone, however it went, the job is ended too.

A job's supervisor outlives whoever started it, which is right where the machine is the bot's own. On a machine of a
cluster it is wrong: the scheduler has given the processors and GPUs of a wrapper that died to somebody else. So a
small process of its own session holds the reading end of a pipe whose writing end only the wrapper has; end of file
means that the wrapper is no more.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from bot.errors import PlatformError
from runners.job import JobId

_PACKAGES = str(Path(__file__).resolve().parent.parent.parent)
_START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from runners.remote.tether import main; main()"


class Tether:
    """From its making until `loosen`, or until this process ends."""

    def __init__(self, root: Path, job_id: JobId) -> None:
        """Raises: PlatformError when it cannot be tied: a job must not run without it."""
        reading, self._writing = os.pipe()  # neither end is inherited by other children of this process
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-S", "-c", _START, _PACKAGES, str(root), job_id],
                stdin=reading,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={"LANG": "C.UTF-8", "PATH": os.defpath},
                cwd="/",
                start_new_session=True,
                timeout=60,
                check=False,
            )
        except (OSError, subprocess.SubprocessError) as error:
            os.close(self._writing)
            raise PlatformError(f"job {job_id} could not be tied to its wrapper: {error}") from error
        finally:
            os.close(reading)
        if done.returncode != 0:
            os.close(self._writing)
            raise PlatformError(f"job {job_id} could not be tied to its wrapper: exit code {done.returncode}")

    def loosen(self) -> None:
        """The job has ended, or shall go on alone."""
        os.write(self._writing, b".")
        os.close(self._writing)


def main() -> None:
    from runners.local import LocalRunner

    root, job_id = sys.argv[1:3]
    # The second half is nobody's child: what ends the wrapper with all its children does not end this.
    if os.fork() != 0:
        os._exit(0)
    if os.read(0, 1) == b"":
        LocalRunner(Path(root)).cancel(JobId(job_id))
