"""What every command says and takes: exit codes, shared options, one line for a mistake, JSON for a program."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bot.errors import UserError

if TYPE_CHECKING:
    from bot.practice.terminal import Screen

DONE, FAILED, WRONG_WORDS, INTERRUPTED = 0, 1, 2, 130

JsonFile = Annotated[str | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON; - is stdout.")]
Require = Annotated[
    str | None, typer.Option("--require", metavar="met", help="Exit with 1 unless the goal is met and confirmed.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Decides the items, the data and the training.")]


def end_as_by_ctrl_c() -> None:
    """SIGTERM and SIGHUP end the command as Ctrl-C does: in order, with nothing left running."""
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.default_int_handler)


def complain(text: str, code: int) -> int:
    print(f"postdoc: {' '.join(text.split())}", file=sys.stderr)
    return code


def write_json(target: str | None, value: Any) -> None:
    if target is None:
        return
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    if target == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    try:
        Path(target).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--json {target}: {error.strerror}. Name a file that can be written, or - .") from error


def check_json(target: str | None) -> None:
    """Find out before minutes of work that the file cannot be written."""
    if target not in (None, "-") and not Path(str(target)).absolute().parent.is_dir():
        raise UserError(f"--json {target}: there is no folder {Path(str(target)).parent}. Make it first.")


def say(lines: Sequence[str], json_file: str | None) -> None:
    """The result for people; on stderr where stdout is taken by the JSON."""
    print("\n".join(lines), file=sys.stderr if json_file == "-" else sys.stdout)


def empty_folder(folder: Path) -> Path:
    """What `--folder` names, made where it is not there. Raises: UserError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken = any(folder.iterdir())
    except OSError as error:
        raise UserError(f"--folder {folder}: {error.strerror}. Name a folder that can be made.") from error
    if taken:
        raise UserError(f"--folder {folder} is not empty. Name a new one.")
    return folder.resolve()


def screen(json_file: str | None) -> Screen:
    from bot.practice.terminal import Screen, new_console

    return Screen(new_console(to_stderr=json_file == "-"))
