"""The experiment's files as the model edits them: a copy in the bot's folder, of which nothing reaches the branch but
through a proposal that was checked.

Which paths there are is a list and not a pattern, so that no `..`, link, absolute path or look-alike letter can name
another file. The sandbox sees the folder and cannot write to it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from bot.errors import UserError

WRITABLE = ("train.py", "rewards.py", "recipe.yaml", "data/prepare.py")
MOST_BYTES = 256 << 10
"""Of one file."""
_BASE = ".base.json"


class Scratch:
    """`files` as they stood at the branch's head, and what has become of them since."""

    def __init__(self, folder: Path, files: Mapping[str, bytes], writable: Iterable[str] = WRITABLE) -> None:
        """A folder of the same files is gone on with; one of others is begun anew. `files` may hold more than what is
        writable; that can be read only."""
        self.folder = folder
        self.writable = tuple(writable)
        self._base = dict(files)
        self._paths = tuple(dict.fromkeys((*self.writable, *files)))
        for path in self._paths:
            if path.startswith("/") or any(part in ("", ".", "..") for part in path.split("/")) or path == _BASE:
                raise ValueError(f"{path!r} is no path below an experiment's folder")
        known = json.dumps({path: digest_of_file(content) for path, content in sorted(files.items())})
        base = folder / _BASE
        if not base.is_file() or base.read_text(encoding="utf-8") != known:
            shutil.rmtree(folder, ignore_errors=True)
            for path, content in files.items():
                self._put(path, content)
            folder.mkdir(parents=True, exist_ok=True)
            base.write_text(known, encoding="utf-8")

    @property
    def paths(self) -> tuple[str, ...]:
        """Files that are there now."""
        return tuple(path for path in self._paths if self._content(path) is not None)

    def read(self, path: str) -> str:
        """Raises: UserError."""
        content = self._content(self._known(path, self._paths, "read"))
        if content is None:
            raise UserError(f"There is no file {path} yet. There are {', '.join(self.paths) or 'none'}.")
        return content.decode("utf-8", errors="replace")

    def write(self, path: str, text: str) -> None:
        """Raises: UserError."""
        path = self._known(path, self.writable, "written")
        content = _encoded(path, text)
        self._put(path, content)

    def edited(self, path: str, old: str, new: str) -> str:
        """The file's text with the one place where `old` stands replaced. Raises: UserError."""
        content = self._content(self._known(path, self.writable, "written"))
        if content is None:
            raise UserError(f"There is no file {path} yet: make it with write_file.")
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            raise UserError(f"{path} is not UTF-8 text: write it whole with write_file.") from None
        if not old:
            raise UserError("`old` is empty: write the text to replace, or use write_file for a whole file.")
        found = text.count(old)
        if found != 1:
            raise UserError(
                f"`old` stands in {path} {found} times; it has to stand there exactly once. "
                + ("Take more of the lines around it." if found else "Read the file, and copy it with its blanks.")
            )
        return text.replace(old, new)

    def digest(self, path: str) -> str:
        """Of the file as it is; empty where there is none, or where the path is none of ours."""
        content = self._content(path) if path in self._paths else None
        return digest_of_file(content) if content is not None else ""

    def changes(self) -> dict[str, bytes]:
        """What differs from the branch's head: path -> content."""
        now = {path: self._content(path) for path in self.writable}
        return {path: content for path, content in now.items() if content not in (None, self._base.get(path))}

    def restore(self, path: str) -> None:
        """Back to what stands at the head. Raises: UserError."""
        path = self._known(path, self.writable, "written")
        if path in self._base:
            self._put(path, self._base[path])
        else:
            (self.folder / path).unlink(missing_ok=True)

    def _known(self, path: str, among: tuple[str, ...], what: str) -> str:
        if path not in among:
            raise UserError(f"{path[:120]!r} cannot be {what}. These can: {', '.join(among)}.")
        return path

    def _content(self, path: str) -> bytes | None:
        try:
            descriptor = os.open(self.folder / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            return file.read()

    def _put(self, path: str, content: bytes) -> None:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        # In one step, so that a kill or a program in the sandbox never sees half a file.
        partial = target.with_name(f".{target.name}.new")
        partial.write_bytes(content)
        partial.replace(target)


def _encoded(path: str, text: str) -> bytes:
    try:
        content = text.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(f"{path}: the text holds half of a character (a lone surrogate). Write it without.") from None
    if b"\0" in content:
        raise UserError(f"{path}: the text holds a zero byte. Write it without.")
    if len(content) > MOST_BYTES:
        raise UserError(f"{path} would hold {len(content):,} bytes; at most {MOST_BYTES:,} are taken.")
    return content


def digest_of_file(content: bytes) -> str:
    """As `Scratch.digest` has it."""
    return hashlib.sha256(content).hexdigest()
