"""Unified diffs as GitHub shows them: files, hunks, which lines can be commented on, and where a line moved to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Status = Literal["added", "removed", "modified", "renamed", "copied", "changed"]
_HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
_STATUSES: dict[str, Status] = {
    "A": "added",
    "D": "removed",
    "M": "modified",
    "R": "renamed",
    "C": "copied",
    "T": "changed",
}


class DiffLine(NamedTuple):
    """One line of a patch. `old` and `new` are its numbers on the two sides, None where it does not exist."""

    kind: Literal[" ", "+", "-", "\\", "@"]
    text: str
    old: int | None
    new: int | None
    position: int
    """Lines below the file's first hunk header: the address of GitHub's older comment API."""


@dataclass(frozen=True, slots=True)
class FileDiff:
    path: str
    previous_path: str | None
    status: Status
    old_oid: str
    new_oid: str
    additions: int
    deletions: int
    patch: str | None
    """From the first `@@`, without a final newline. None for binary files, pure renames and mode changes."""
    lines: tuple[DiffLine, ...] = field(repr=False, default=())

    def find(self, side: str, line: int) -> DiffLine | None:
        """The diff's line with that number on that side, or None when the diff does not show it."""
        for candidate in self.lines:
            if candidate.kind in " +-" and (candidate.new if side == "RIGHT" else candidate.old) == line:
                return candidate
        return None

    def same_hunk(self, first: DiffLine, last: DiffLine) -> bool:
        return not any(line.kind == "@" for line in self.lines[first.position + 1 : last.position + 1])

    def hunk_until(self, last: DiffLine) -> str:
        """The hunk's text from its header down to `last`: a review comment's `diff_hunk`."""
        start = max(line.position for line in self.lines if line.kind == "@" and line.position < last.position)
        return "\n".join(line.text for line in self.lines[start : last.position + 1])


def parse_diff(output: bytes) -> Iterator[FileDiff]:
    """Reads `git diff-tree -z --raw --numstat -p --full-index`."""
    records, patches = _split(output)
    sections = iter(patches)
    for status, old_oid, new_oid, previous, path, additions, deletions in records:
        section = next(sections, "")
        if status == "T":
            section += next(sections, "")  # a type change is shown as a removal and an addition
        start = re.search(r"^@@", section, re.MULTILINE)
        patch = section[start.start() :].rstrip("\n") if start else None
        yield FileDiff(
            path=path,
            previous_path=previous,
            status=_STATUSES[status],
            old_oid=old_oid,
            new_oid=new_oid,
            additions=additions,
            deletions=deletions,
            patch=patch,
            lines=tuple(patch_lines(patch)) if patch else (),
        )


def patch_lines(patch: str) -> Iterator[DiffLine]:
    """Every line of a patch with its numbers on both sides."""
    old = new = 0
    for position, text in enumerate(patch.split("\n")):
        header = _HUNK.match(text)
        if header:
            old, new = int(header[1]), int(header[3])
            yield DiffLine("@", text, None, None, position)
        elif text.startswith("+"):
            yield DiffLine("+", text, None, new, position)
            new += 1
        elif text.startswith("-"):
            yield DiffLine("-", text, old, None, position)
            old += 1
        elif text.startswith("\\"):
            yield DiffLine("\\", text, None, None, position)
        else:
            yield DiffLine(" ", text, old, new, position)
            old, new = old + 1, new + 1


def moved_line(change: FileDiff | None, line: int) -> int | None:
    """Where a line of the old file is in the new one; None when it was changed or removed. No change: same place."""
    if change is None:
        return line
    if change.status == "removed" or change.patch is None:
        return None
    offset = 0
    for shown in change.lines:
        if shown.kind == "@":
            header = _HUNK.match(shown.text)
            assert header is not None
            # A side without lines is written with the number of the line before it.
            first = int(header[1]) + (header[2] == "0")
            if line < first:
                return line + offset
        elif shown.old == line:
            return shown.new
        elif shown.kind == "+":
            offset += 1
        elif shown.kind == "-":
            offset -= 1
    return line + offset


class _Record(NamedTuple):
    status: str
    old_oid: str
    new_oid: str
    previous: str | None
    path: str
    additions: int
    deletions: int


def _split(output: bytes) -> tuple[list[_Record], list[str]]:
    """The raw and numstat records (NUL-separated) and then the patch text, one section a file."""
    position = output.find(b"\0diff --git ")
    table, text = (output, b"") if position < 0 else (output[:position], output[position + 1 :])
    fields = [part.decode(errors="surrogateescape") for part in table.split(b"\0")]
    raw: list[tuple[str, str, str, str | None, str]] = []
    counts: list[tuple[int, int]] = []
    index = 0
    while index < len(fields):
        entry = fields[index]
        if entry.startswith(":"):
            _, _, old_oid, new_oid, status = entry[1:].split(" ")
            renamed = status[0] in "RC"
            previous = fields[index + 1] if renamed else None
            raw.append((status[0], old_oid, new_oid, previous, fields[index + 1 + renamed]))
            index += 2 + renamed
        elif "\t" in entry:
            added, removed, path = entry.split("\t", 2)
            counts.append((0 if added == "-" else int(added), 0 if removed == "-" else int(removed)))
            index += 1 if path else 3
        else:
            index += 1
    sections = re.split(r"^(?=diff --git )", text.decode(errors="replace"), flags=re.MULTILINE)
    records = [_Record(*entry, *count) for entry, count in zip(raw, counts, strict=True)]
    return records, [section for section in sections if section.startswith("diff --git ")]
