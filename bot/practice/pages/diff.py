"""A patch as rows with line numbers, the few rows around a commented line, and which lines a suggestion replaces."""

from __future__ import annotations

import re
from dataclasses import dataclass

_HUNK = re.compile(r"^@@ -(\d+)(?:,\d+)? \+(\d+)(?:,\d+)? @@(.*)$")
# A file with a longer patch is folded until the reader asks for it.
LONG_PATCH_ROWS = 400


@dataclass(frozen=True, slots=True)
class Row:
    kind: str
    # hunk, add, del or same
    old: int | None
    new: int | None
    text: str

    @property
    def sign(self) -> str:
        return {"add": "+", "del": "-"}.get(self.kind, "")

    @property
    def places(self) -> tuple[tuple[str, int], ...]:
        """Where a review comment can sit on this row: its side and line."""
        if self.kind == "hunk":
            return ()
        right = (("RIGHT", self.new),) if self.new is not None else ()
        left = (("LEFT", self.old),) if self.old is not None else ()
        return (*right, *left)

    @property
    def side(self) -> str:
        return "LEFT" if self.kind == "del" else "RIGHT"

    @property
    def line(self) -> int | None:
        return self.old if self.kind == "del" else self.new


def rows(patch: str) -> list[Row]:
    """The rows of a unified diff's hunks (GitHub's `patch`, or a review comment's `diff_hunk`)."""
    found: list[Row] = []
    old = new = 0
    for line in patch.split("\n"):
        if match := _HUNK.match(line):
            old, new = int(match[1]), int(match[2])
            found.append(Row("hunk", None, None, line))
        elif line.startswith("+"):
            found.append(Row("add", None, new, line[1:]))
            new += 1
        elif line.startswith("-"):
            found.append(Row("del", old, None, line[1:]))
            old += 1
        elif line.startswith("\\") or not line:
            continue  # "\ No newline at end of file", or the end of the text
        else:
            found.append(Row("same", old, new, line[1:]))
            old, new = old + 1, new + 1
    return found


def excerpt(diff_hunk: str, count: int) -> list[Row]:
    """The last rows of a review comment's hunk: the commented lines and a little before them."""
    return [row for row in rows(diff_hunk) if row.kind != "hunk"][-max(count, 1) :]


def commented_lines(diff_hunk: str, count: int) -> tuple[str, ...]:
    """The text of the `count` lines of the new file that a comment stands on: the end of its hunk."""
    new_side = [row.text for row in rows(diff_hunk) if row.kind in ("add", "same")]
    return tuple(new_side[-count:])
