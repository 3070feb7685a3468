"""The files through which a step speaks (GITHUB_OUTPUT, GITHUB_ENV, ...), read as the runner reads them.

https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands#environment-files
"""

from __future__ import annotations

from pathlib import Path

FILES = ("GITHUB_OUTPUT", "GITHUB_ENV", "GITHUB_PATH", "GITHUB_STEP_SUMMARY", "GITHUB_STATE")
BLOCKED = frozenset({"NODE_OPTIONS"})
"""Names that GITHUB_ENV may not set."""


class FileCommandError(Exception):
    """The runner fails the step with these words."""


def pairs(path: Path) -> dict[str, str]:
    """`name=value` lines and `name<<END ... END` blocks; of `=` and `<<` the one that comes first decides.

    Raises: FileCommandError for a bare line and for a block without an end.
    """
    lines = path.read_text(encoding="utf-8-sig").replace("\r\n", "\n").split("\n")
    found: dict[str, str] = {}
    index = 0
    while index < len(lines):
        line = lines[index]
        index += 1
        if not line:
            continue
        equals, heredoc = line.find("="), line.find("<<")
        if equals >= 0 and (heredoc < 0 or equals < heredoc):
            name, value = line[:equals], line[equals + 1 :]
        elif heredoc >= 0:
            name, mark = line[:heredoc], line[heredoc + 2 :]
            if not name or not mark:
                raise FileCommandError(f"Invalid format {line!r}. Name and delimiter must not be empty")
            value, index = _block(lines, index, mark)
        else:
            raise FileCommandError(f"Invalid format {line!r}")
        if not name:
            raise FileCommandError(f"Invalid format {line!r}. Name must not be empty")
        found[name] = value
    return found


def _block(lines: list[str], index: int, mark: str) -> tuple[str, int]:
    for end in range(index, len(lines)):
        if lines[end] == mark:
            return "\n".join(lines[index:end]), end + 1
    raise FileCommandError(f"Invalid value. Matching delimiter not found {mark!r}")


def path_entries(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line]
