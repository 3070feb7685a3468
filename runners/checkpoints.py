"""Asking a training script for a checkpoint now: a file that its callback looks for after each step."""

from __future__ import annotations

from pathlib import Path

REQUEST = Path("out") / "checkpoint_now"
"""Below the job's working directory; the script takes it away once the checkpoint is whole."""


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
