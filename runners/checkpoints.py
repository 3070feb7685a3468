"""Asking a training script for a checkpoint now: a file that its callback looks for after each step.

A job on another machine is asked through its store: what stands in the file `cancel` says that it shall make one before
it ends, and its wrapper sees to both.
"""

from __future__ import annotations

from pathlib import Path

REQUEST = Path("out") / "checkpoint_now"
"""Below the job's working directory; the script takes it away once the checkpoint is whole."""
CHECKPOINT_SECONDS = 60.0
"""A job that has made no checkpoint by then is ended without one."""
FAR_SECONDS = 300.0
"""A job on another machine is given so long to make one, to end, and to send home what it has."""
CHECKPOINT_FIRST = b"checkpoint"
"""The content of `cancel` in a store that asks for a checkpoint before the end; an older wrapper ends at once."""


def ask_for_checkpoint(folder: Path) -> bool:
    """Put the request into the working directory of a job that runs on this machine; False where it cannot be put."""
    path = folder / REQUEST
    if path.parent.is_symlink() or not path.parent.is_dir():
        return False
    try:
        with path.open("x", encoding="ascii"):  # never through a link that the script may have put there
            pass
    except FileExistsError:
        return not path.is_symlink()
    except OSError:
        return False
    return True


def checkpoint_is_made(folder: Path) -> bool:
    """Whether nothing that was asked for is still to come."""
    return not (folder / REQUEST).exists()
