"""What a job may ask for and what is copied in for it: every name, path and number of a specification is checked here
before anything is written."""

from __future__ import annotations

import math
import os
import re
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from bot.errors import UserError
from runners.job import Caps, JobSpec

_JOB_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,119}")
_MOUNT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PLACEHOLDER = re.compile(r"\{(python|job|mount:[^{}]*)\}")


def check_job_id(job_id: str) -> None:
    """Raises: UserError."""
    if not _JOB_ID.fullmatch(job_id):
        raise UserError(f"job id {job_id!r}: write up to 120 lowercase letters, digits and hyphens, no hyphen first")


def check(spec: JobSpec, root: Path) -> None:
    """Check everything in a specification; `root` is the folder that holds all jobs.

    Raises: UserError, which names the field and says what to write instead.
    """
    check_job_id(spec.job_id)
    if not spec.argv:
        raise UserError(f"job {spec.job_id}: argv is empty; write the command to run")
    for word in spec.argv:
        _check_text(f"job {spec.job_id}: argv", word)
    for target, source in spec.files.items():
        _check_target(target)
        _check_source(target, source)
    for name, source in spec.mounts.items():
        _check_mount(name, source, root)
    for match in _PLACEHOLDER.finditer("\0".join(spec.argv)):
        kind, _, name = match[1].partition(":")
        if kind == "mount" and name not in spec.mounts:
            raise UserError(f"argv names {match[0]}, but the job's mounts are: {', '.join(spec.mounts) or 'none'}")
    for name, value in spec.environment.items():
        if not _VARIABLE.fullmatch(name):
            raise UserError(f"environment variable {name!r}: write letters, digits and underscores")
        _check_text(f"environment variable {name}", value)
    _check_caps(spec.caps)
    for name, least in (("gpus", 0), ("nodes", 1)):
        value = getattr(spec.hardware, name)
        if not isinstance(value, int) or value < least:
            raise UserError(f"hardware.{name} is {value!r}; write a whole number, at least {least}")


def substitute(argv: tuple[str, ...], python: str, job: str, mounts: Mapping[str, str]) -> list[str]:
    """The command with `{python}`, `{job}` and `{mount:NAME}` replaced; any other brace stays as it is."""
    values = {"python": python, "job": job} | {f"mount:{name}": path for name, path in mounts.items()}
    return [_PLACEHOLDER.sub(lambda match: values[match[1]], word) for word in argv]


def copy_in(files: Mapping[str, str], work: Path) -> None:
    """Copy every file and folder of the specification into a fresh folder. Never a link: a job may write to its copy.

    Raises: UserError when a source has gone, or a symbolic link in it leads out of it.
    """
    work.mkdir(parents=True)
    for target, source in sorted(files.items(), key=lambda item: len(PurePosixPath(item[0]).parts)):
        destination = work / target
        try:
            destination.parent.mkdir(parents=True, exist_ok=True)
            if stat.S_ISDIR(os.lstat(source).st_mode):
                _copy_folder(target, Path(source), destination)
            else:
                _copy_file(Path(source), destination)
        except (FileNotFoundError, NotADirectoryError, FileExistsError, IsADirectoryError, PermissionError) as error:
            raise UserError(f"{target}: {source} cannot be copied into the job: {error.strerror}") from error


def mount_point(name: str, source: str) -> tuple[str, str, str]:
    """Of a mount: the folder to bind, where it appears under /mounts, and the path in the job that stands for it.

    The Hub's cache keeps a model as links from `snapshots/REVISION/` to `blobs/`; there the whole repository folder is
    bound, or the links would lead nowhere (https://huggingface.co/docs/huggingface_hub/guides/manage-cache).
    """
    real = Path(source).resolve()
    place = f"/mounts/{name}"
    repository = real.parent.parent
    if real.parent.name == "snapshots" and (repository / "blobs").is_dir():
        return str(repository), place, f"{place}/snapshots/{real.name}"
    return str(real), place, place


def _check_text(where: str, text: str) -> None:
    if not isinstance(text, str) or "\0" in text:
        raise UserError(f"{where}: {text!r} is not text, or holds a zero byte")


def _check_target(target: str) -> None:
    parts = target.split("/")
    if not target or "\0" in target or target.startswith("/") or any(part in ("", ".", "..") for part in parts):
        raise UserError(f"file {target!r}: write a path relative to the job's folder, without '.', '..' or a final '/'")


def _check_source(target: str, source: str) -> None:
    if not os.path.isabs(source) or "\0" in source:
        raise UserError(f"file {target}: the source {source!r} must be an absolute path")
    try:
        mode = os.lstat(source).st_mode
    except OSError as error:
        raise UserError(f"file {target}: {source} cannot be read: {error.strerror}") from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UserError(f"file {target}: {source} must be a file or a folder, not a link or a device")


def _check_mount(name: str, source: str, root: Path) -> None:
    if not _MOUNT_NAME.fullmatch(name):
        raise UserError(f"mount {name!r}: write up to 64 letters, digits, underscores and hyphens")
    if not os.path.isabs(source) or not os.path.isdir(source):
        raise UserError(f"mount {name}: {source!r} must be the absolute path of a folder that exists")
    bound = Path(mount_point(name, source)[0])
    if bound == root or bound in root.parents:
        raise UserError(f"mount {name}: {source} holds the folders of all jobs; name the one folder that is needed")


def _check_caps(caps: Caps) -> None:
    for name in ("memory_gib", "pids", "file_size_gib", "disk_gib", "timeout_seconds", "cpu_threads"):
        value = getattr(caps, name)
        if not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
            raise UserError(f"caps.{name} is {value!r}; write a number above zero")


def _copy_file(source: Path, destination: Path) -> None:
    descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as reading:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise UserError(f"{source} is not a regular file")
        with open(destination, "xb") as writing:
            shutil.copyfileobj(reading, writing, 1 << 20)
            os.fchmod(writing.fileno(), mode & 0o777 | 0o600)


def _copy_folder(target: str, source: Path, destination: Path) -> None:
    real = source.resolve()
    for parent, folders, files in os.walk(source):
        place = destination / os.path.relpath(parent, source)
        place.mkdir(parents=True, exist_ok=True)
        for name in folders + files:
            path = Path(parent, name)
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                _copy_link(target, path, real, place / name)
            elif stat.S_ISREG(mode):
                _copy_file(path, place / name)
            elif not stat.S_ISDIR(mode):
                raise UserError(f"{target}: {path} is neither a file nor a folder")


def _copy_link(target: str, link: Path, real_source: Path, destination: Path) -> None:
    leads_to = os.readlink(link)
    resolved = link.resolve()
    if os.path.isabs(leads_to) or not (resolved == real_source or real_source in resolved.parents):
        raise UserError(
            f"{target}: {link} is a symbolic link that leads out of the folder; copy the file there instead"
        )
    destination.symlink_to(leads_to)
