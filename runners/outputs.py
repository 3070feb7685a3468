"""Reading what a job wrote, without trusting it: a job can leave a symbolic link to our own files, a pipe that never
answers or a program with the set-user-id bit. Not covered: what stands in the files."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from bot.errors import UserError

DEFAULT_LIMIT_BYTES = 64 << 20


def read_output(folder: Path, relative: str, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> bytes:
    """The content of a regular file below a job's folder, safe also while the job runs.

    Raises: FileNotFoundError when there is no such file; UserError when something else than a regular file stands
    there, when the way to it leads through a symbolic link, or when it is larger than `limit_bytes`.
    """
    with _opened(folder, relative) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit_bytes:
            raise UserError(f"{relative} is {size:,} bytes long; at most {limit_bytes:,} are read")
        return file.read(limit_bytes)


def read_ends(folder: Path, relative: str, head_bytes: int, tail_bytes: int) -> tuple[bytes, bytes, int]:
    """The beginning and the end of such a file, of any size, and that size in bytes; a file that fits into both
    together comes whole as its beginning. Raises: as `read_output`."""
    with _opened(folder, relative) as file:
        size = os.fstat(file.fileno()).st_size
        if size <= head_bytes + tail_bytes:
            return file.read(size), b"", size
        head = file.read(head_bytes)
        file.seek(size - tail_bytes)
        return head, file.read(tail_bytes), size


@contextlib.contextmanager
def _opened(folder: Path, relative: str) -> Iterator[BinaryIO]:
    parts = PurePosixPath(relative).parts
    if not parts or relative.startswith("/") or ".." in parts:
        raise UserError(f"{relative!r} is not a path below the job's folder")
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for index, part in enumerate(parts):
            # Step by step and never through a link: a check of the whole path could be true only when it is made.
            last = index == len(parts) - 1
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | (0 if last else os.O_DIRECTORY)
            below = _open_below(part, flags, descriptor, relative)
            os.close(descriptor)
            descriptor = below
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UserError(f"{relative} in the job's folder is not a regular file")
        with os.fdopen(os.dup(descriptor), "rb") as file:
            yield file
    finally:
        os.close(descriptor)


def _open_below(part: str, flags: int, descriptor: int, relative: str) -> int:
    try:
        return os.open(part, flags, dir_fd=descriptor)
    except FileNotFoundError:
        raise FileNotFoundError(f"{relative} is not in the job's folder") from None
    except OSError as error:
        raise UserError(f"{relative} in the job's folder cannot be read as a plain file: {error.strerror}") from error


def disarm(folder: Path) -> list[str]:
    """Remove what could mislead or endanger a later reader; one line for each thing removed or changed.

    Called when no process of the job is left. Links that stay inside the folder are kept: trainers make them.
    """
    notes: list[str] = []
    real = os.path.realpath(folder)
    for parent, folders, files in os.walk(folder):
        for name in folders + files:
            path = os.path.join(parent, name)
            try:
                note = _disarm_one(path, real)
            except OSError as error:
                note = f"could not be checked ({error.strerror})"
            if note:
                notes.append(f"{os.path.relpath(path, folder)}: {note}")
    return notes


def _disarm_one(path: str, real_folder: str) -> str | None:
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        target = os.path.realpath(path)
        if target == real_folder or target.startswith(real_folder + os.sep):
            return None
        os.unlink(path)
        return "removed, a symbolic link that leads out of the job's folder"
    if stat.S_ISDIR(mode) or stat.S_ISREG(mode):
        wanted = stat.S_IMODE(mode) & 0o777 | (0o700 if stat.S_ISDIR(mode) else 0o600)
        if wanted != stat.S_IMODE(mode):
            os.chmod(path, wanted)
        return "set-user-id or set-group-id bit cleared" if mode & (stat.S_ISUID | stat.S_ISGID) else None
    os.unlink(path)
    return "removed, neither a file nor a folder"


def used_bytes(folder: Path) -> int:
    """Space that the files below `folder` take on disk; files that vanish meanwhile count nothing."""
    total = 0
    stack = [os.fspath(folder)]
    while stack:
        try:
            with os.scandir(stack.pop()) as entries:
                for entry in entries:
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        stack.append(entry.path)
        except OSError:
            continue
    return total
