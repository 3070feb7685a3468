"""The `postdoc` command, and others of ours, as processes of their own: without the step's secrets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from actions.workflow_commands import others_words
from bot.errors import PlatformError, UserError

_ROOT = Path(__file__).resolve().parent.parent
_SECRET = ("GITHUB_TOKEN", "GH_TOKEN", "ACTIONS_RUNTIME_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_TOKEN")
_FILES = ("GITHUB_ENV", "GITHUB_OUTPUT", "GITHUB_PATH", "GITHUB_STATE", "GITHUB_STEP_SUMMARY")
"""Files through which a process could speak for the step."""
_END_SECONDS = 6.0
"""GitHub gives a cancelled step 7.5 s after its SIGINT before it insists."""


def clean_environment(added: Mapping[str, str] | None = None) -> dict[str, str]:
    """The step's environment without its inputs, tokens and file commands."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("INPUT_") and name not in _SECRET and name not in _FILES
    }
    return kept | dict(added or {})


def postdoc(words: Sequence[str], folder: Path, added: Mapping[str, str] | None = None) -> int:
    """Run `postdoc WORDS` in `folder`; what it says goes to the log. Returns its exit code.

    Raises: KeyboardInterrupt once the command has ended, when the step is cancelled.
    """
    sys.stdout.flush()
    with others_words():
        process = subprocess.Popen(
            [sys.executable, "-m", "bot", *words],
            cwd=folder,
            env=clean_environment(added),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            preexec_fn=_hear_interrupts,
        )
        try:
            return process.wait()
        except KeyboardInterrupt:
            end(process)
            raise


def answer_of(module: str, request: Mapping[str, Any], names: Collection[str] = ()) -> dict[str, Any] | None:
    """What a process of ours, `python -m MODULE`, answers to a request; both are JSON. None when it was ended first.

    It reads what a job or others wrote, so it gets nothing of the step's environment but what `names` has.
    """
    wanted = {"PATH", "LANG", "HOME", "TMPDIR", *names}
    kept = {key: value for key, value in os.environ.items() if key in wanted}
    done = subprocess.run(
        [sys.executable, "-P", "-m", module], input=json.dumps(request), capture_output=True, text=True, cwd="/",
        env=kept | {"PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        found = json.loads(done.stdout)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def expect_success(code: int, what: str) -> None:
    """Raises: UserError for exit code 2, PlatformError for any other but 0. The command has said why."""
    if code == 2:
        raise UserError(f"{what} refused: the log says what to write instead.")
    if code != 0:
        raise PlatformError(f"{what} failed with exit code {code}: the log says why.")


def end(process: subprocess.Popen[bytes]) -> None:
    """As Ctrl-C ends it, in order; without mercy when that takes too long."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def interrupt_on_termination() -> None:
    """SIGTERM, and a SIGINT that a background shell has set to be ignored, end the step as Ctrl-C would."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)


def _hear_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
