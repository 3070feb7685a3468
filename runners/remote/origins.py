"""Fetching on the job's own machine what its origins name: a model of the Hub, or what an earlier job left."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

from bot.errors import PlatformError
from runners.remote import package
from runners.remote.store import OUTPUTS, OUTPUTS_NOTE, FolderStore, Store


def fetch_origin(origin: str, folder: Path, stores: Path | None = None) -> None:
    """`hub:OWNER/NAME@REVISION`, whole and once; `job:ID/PATH` from that job's outputs, where the stores of all jobs
    lie in one folder. Raises: PlatformError."""
    kind, _, rest = origin.partition(":")
    name, _, revision = rest.partition("@")
    if kind == "job" and stores is not None:
        job_id, _, path = rest.partition("/")
        _fetch_output(FolderStore(stores / job_id), job_id, path, folder)
        return
    if kind != "hub" or not name or not revision:
        raise PlatformError(f"{origin!r} is no place that this machine can fetch from")
    if (folder / "config.json").is_file():
        return
    unfinished = folder.with_name(f"{folder.name}.partial")
    try:
        from huggingface_hub import snapshot_download

        snapshot_download(name, revision=revision, local_dir=unfinished)
    except Exception as error:
        raise PlatformError(f"{name} cannot be fetched from the Hub: {error}") from error
    shutil.rmtree(unfinished / ".cache", ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(unfinished, folder)


def _fetch_output(store: Store, job_id: str, path: str, folder: Path) -> None:
    """What an earlier job left at `path`, checked against the digest that its wrapper noted."""
    archive, unfinished = folder.with_name(f"{folder.name}.tar"), folder.with_name(f"{folder.name}.partial")
    for old in (folder, unfinished):
        shutil.rmtree(old, ignore_errors=True)
    archive.parent.mkdir(parents=True, exist_ok=True)
    try:
        note = json.loads(store.read(OUTPUTS_NOTE) or b"{}")
        if not store.fetch(OUTPUTS, archive):
            raise PlatformError(f"the outputs of job {job_id} are not in the storage")
        with open(archive, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != note.get("sha256"):
                raise PlatformError(f"the outputs of job {job_id} are damaged")
        package.unpack_outputs(archive, unfinished, int(note["bytes"]))
        found = (unfinished / path).resolve()
        if not (found.is_dir() and found.is_relative_to(unfinished.resolve())):
            raise PlatformError(f"job {job_id} left no folder {path}")
        os.replace(found, folder)
    except (OSError, ValueError) as error:
        raise PlatformError(f"{path} of job {job_id} cannot be fetched: {error}") from error
    finally:
        archive.unlink(missing_ok=True)
        shutil.rmtree(unfinished, ignore_errors=True)
