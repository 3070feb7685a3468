"""A job as one file that travels: its inputs on the way out, its outputs on the way back.

What comes back was written by a script that nobody trusts. Unpacked are files, folders and links that stay inside;
names that lead out, devices and set-user-id bits are refused by `tarfile`'s own data filter (PEP 706).
"""

from __future__ import annotations

import io
import json
import os
import stat
import tarfile
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from bot.errors import PlatformError, UserError
from runners.job import JobSpec

_SPEC = "spec.json"
_FILES, _MOUNTS = "files", "mounts"


def pack(spec: JobSpec, work: Path, archive: Path, omit: Collection[str] = ()) -> None:
    """Write the job to `archive`: its specification, the working folder `work` with what was copied in, and its mounts
    but those that the other machine fetches by itself.

    Raises: UserError when a mount cannot be read.
    """
    travelling = replace(
        spec,
        files={target: f"{_FILES}/{target}" for target in spec.files},
        mounts={name: "" if name in omit else f"{_MOUNTS}/{name}" for name in spec.mounts},
    )
    with tarfile.open(archive, "w", dereference=False) as tar:
        _add_bytes(tar, _SPEC, json.dumps(travelling.as_dict()).encode())
        for target in spec.files:
            _add(tar, work / target, f"{_FILES}/{target}")
        for name, source in spec.mounts.items():
            if name not in omit:
                _add_resolved(tar, Path(source), f"{_MOUNTS}/{name}")


def unpack(archive: Path, folder: Path) -> JobSpec:
    """The job in `archive`, its files below `folder`. A mount that was left out stands as an empty path.

    Raises: PlatformError when the archive is broken.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _extract(archive, folder, None)
    try:
        spec = JobSpec.from_dict(json.loads((folder / _SPEC).read_bytes()))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise PlatformError(f"the packed job holds no readable specification: {error}") from error
    return replace(
        spec,
        files={target: str(folder / path) for target, path in spec.files.items()},
        mounts={name: str(folder / path) if path else "" for name, path in spec.mounts.items()},
    )


def pack_outputs(work: Path, names: Sequence[str], archive: Path) -> None:
    """Those of `names` below `work` that exist; a name that does not is no error, its reader will miss it."""
    with tarfile.open(archive, "w", dereference=False) as tar:
        for name in names:
            if os.path.lexists(work / name):
                _add(tar, work / name, name)


def unpack_outputs(archive: Path, work: Path, limit_bytes: int) -> None:
    """Raises: PlatformError when the archive is broken, leads out of `work` or holds more than `limit_bytes`."""
    work.mkdir(parents=True, exist_ok=True)
    _extract(archive, work, limit_bytes)


def _extract(archive: Path, folder: Path, limit_bytes: int | None) -> None:
    try:
        with tarfile.open(archive, "r:") as tar:
            total = 0
            for member in tar:
                total += member.size
                if limit_bytes is not None and total > limit_bytes:
                    raise PlatformError(f"what came back holds more than {limit_bytes:,} bytes")
                tar.extract(member, folder, filter="data")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise PlatformError(f"the archive {archive.name} cannot be unpacked: {error}") from error


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    """A file or a folder as it is: links stay links, anything that is neither is left out."""

    def plain(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
        if not (info.isreg() or info.isdir() or info.issym() or info.islnk()):
            return None
        info.uid = info.gid = 0
        info.uname = info.gname = ""
        info.mode = stat.S_IMODE(info.mode) & 0o777 | (0o700 if info.isdir() else 0o600)
        return info

    tar.add(path, name, filter=plain)


def _add_resolved(tar: tarfile.TarFile, source: Path, name: str) -> None:
    """A mount with its links followed: the Hub's cache keeps a model as links to files elsewhere."""
    if not source.is_dir():
        raise UserError(f"mount {name}: {source} is no folder")
    for parent, folders, files in os.walk(source.resolve(), followlinks=True):
        folders.sort()
        for file in sorted(files):
            path = Path(parent, file)
            inside = PurePosixPath(name, path.relative_to(source.resolve()).as_posix())
            real = path.resolve()
            if real.is_file():
                info = tar.gettarinfo(real, str(inside))
                info.type, info.mode = tarfile.REGTYPE, 0o644
                info.uid = info.gid = 0
                info.uname = info.gname = ""
                info.size = real.stat().st_size
                with open(real, "rb") as content:
                    tar.addfile(info, content)
    if not any(source.iterdir()):
        _add(tar, source, name)


def _add_bytes(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
