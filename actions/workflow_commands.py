"""What a step tells GitHub: outputs and summary through files, annotations and masks through lines of its log.

https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

MOST_ANNOTATIONS = 10
"""GitHub shows ten errors, ten warnings and ten notices of a step and drops the rest."""
LARGEST_SUMMARY_BYTES = 1_000_000
"""GitHub refuses a summary of more than 1 MiB and then shows none of it."""


def mask(secret: str) -> None:
    """GitHub replaces it by *** in every later line; each line of it by itself, since a log has no longer unit."""
    for line in secret.splitlines():
        if line.strip():
            print(f"::add-mask::{_data(line)}", flush=True)


def annotate(level: str, message: str, *, title: str = "", file: str = "", line: int | None = None) -> None:
    """`level` is error, warning or notice."""
    given = {"file": file, "line": str(line) if line is not None and file else "", "title": title}
    properties = ",".join(f"{name}={_property(value)}" for name, value in given.items() if value)
    print(f"::{level} {properties}::{_data(message)}" if properties else f"::{level}::{_data(message)}", flush=True)


def set_outputs(values: Mapping[str, str]) -> None:
    path = os.environ.get("GITHUB_OUTPUT")
    if not path:
        return
    with open(path, "a", encoding="utf-8") as file:
        for name, value in values.items():
            # Nobody who wrote a part of the value can have guessed where it ends.
            mark = f"end-{secrets.token_hex(16)}"
            file.write(f"{name}<<{mark}\n{value}\n{mark}\n")


def add_summary(text: str) -> None:
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if path:
        with open(path, "ab") as file:
            file.write(text.encode()[:LARGEST_SUMMARY_BYTES].decode("utf-8", "ignore").encode() + b"\n")


@contextlib.contextmanager
def others_words() -> Iterator[None]:
    """Inside, what is printed may come from others (a script, a child process): no line of it is a command."""
    token = secrets.token_hex(16)
    print(f"::stop-commands::{token}", flush=True)
    try:
        yield
    finally:
        print(f"\n::{token}::", flush=True)


@contextlib.contextmanager
def group(title: str) -> Iterator[None]:
    """A part of the log that is folded away."""
    print(f"::group::{title}", flush=True)
    try:
        yield
    finally:
        print("::endgroup::", flush=True)


def read_event() -> dict[str, Any]:
    """The event that started the workflow; empty when there is none."""
    try:
        found = json.loads(Path(os.environ["GITHUB_EVENT_PATH"]).read_text(encoding="utf-8"))
    except (KeyError, OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
