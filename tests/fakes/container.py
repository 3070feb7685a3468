"""The first process of a fake Hub's container: it runs the command, and when either ends, nothing that was started in
there goes on. A real container has a process namespace for that.

    python container.py   with {"command": [...], "environment": {...}, "folder": "..."} on standard input
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from runners import kernel, processes


def main() -> int:
    given = json.load(sys.stdin)
    kernel.adopt_orphans()
    if hidden_from_others() is not None:
        show_interpreter()

    def end(*_: object) -> None:
        processes.kill_all(lambda: processes.descendants(os.getpid()))
        os._exit(137)

    signal.signal(signal.SIGTERM, end)
    try:
        process = subprocess.Popen(given["command"], env=given["environment"], cwd=given["folder"],
                                   stdin=subprocess.DEVNULL)  # fmt: skip
    except OSError as error:
        print(f"exec {given['command'][0]}: {error.strerror}", flush=True)
        return 127
    code = process.wait()
    processes.kill_all(lambda: processes.descendants(os.getpid()))
    return code if code >= 0 else 128 - code


def hidden_from_others() -> Path | None:
    """The folder above the interpreter that only its owner may walk through; an image's stands in the open."""
    here = Path(sys.base_prefix).resolve()
    return next((path for path in reversed(here.parents) if not path.stat().st_mode & 0o001), None)


def show_interpreter() -> None:
    """In a file system view of this process's own, put an open folder in the hidden one's place, with nothing but the
    interpreter in it. Raises: OSError, subprocess.SubprocessError where this user may not."""
    hidden, prefix = hidden_from_others(), Path(sys.base_prefix).resolve()
    assert hidden is not None
    if ctypes.CDLL(None, use_errno=True).unshare(0x00020000) != 0:  # CLONE_NEWNS
        raise OSError(ctypes.get_errno(), "unshare")
    held = tempfile.mkdtemp()
    for words in (
        ["mount", "--make-rprivate", "/"],
        ["mount", "--bind", str(prefix), held],
        ["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(hidden)],
        ["mkdir", "-p", str(prefix)],
        ["mount", "--bind", held, str(prefix)],
        ["umount", held],
    ):
        subprocess.run(words, check=True, capture_output=True, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    os.rmdir(held)


if __name__ == "__main__":
    sys.exit(main())
