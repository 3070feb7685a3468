"""The runs repository as a job's container sees it, and the mounts that the container fetches by itself."""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bot.errors import PlatformError
from runners.hf_jobs.package import sha256_of
from runners.remote import store as names

MODEL_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "README.md", "LICENSE*")


@dataclass(frozen=True, slots=True)
class Runs:
    """The runs repository as a job sees it."""

    repository: str
    endpoint: str
    token: str

    def download(self, path: str, target: Path, revision: str = "main") -> bool:
        """False when it is not there. Raises: PlatformError."""
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import RemoteEntryNotFoundError

        place = target.with_name(f".{target.name}.fetched")
        try:
            found = hf_hub_download(
                self.repository, path, revision=revision, token=self.token, endpoint=self.endpoint, local_dir=place
            )
            os.replace(found, target)
        except RemoteEntryNotFoundError:
            return False
        except Exception as error:
            raise PlatformError(f"{path} cannot be fetched from {self.repository}: {error}") from error
        finally:
            shutil.rmtree(place, ignore_errors=True)
        return True

    def commit(self, message: str, files: Mapping[str, Path | bytes], delete: Sequence[str] = ()) -> str:
        """The new commit. Raises: PlatformError."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

        adds = [CommitOperationAdd(path, content) for path, content in files.items()]
        gone = [CommitOperationDelete(path) for path in delete]
        try:
            api = HfApi(endpoint=self.endpoint, token=self.token)
            return str(api.create_commit(self.repository, [*adds, *gone], commit_message=message).oid)
        except Exception as error:
            raise PlatformError(f"{self.repository} does not take {', '.join(files)}: {error}") from error


class Origins:
    """Fetches the mounts that did not travel with the job."""

    def __init__(self, runs: Runs, digests: Mapping[str, str], folder_of: Callable[[str], str]) -> None:
        """`digests` has the SHA-256 that the bot verified of each earlier job's outputs, by job."""
        self._runs, self._digests, self._folder_of = runs, digests, folder_of

    def __call__(self, origin: str, folder: Path) -> None:
        """`hub:OWNER/NAME@REVISION` or `job:ID/PATH`. Raises: PlatformError."""
        kind, _, rest = origin.partition(":")
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.parent.mkdir(parents=True, exist_ok=True)
        if kind == "hub" and "@" in rest:
            name, _, revision = rest.rpartition("@")
            self._from_hub(name, revision, partial)
        elif kind == "job" and "/" in rest:
            job_id, _, path = rest.partition("/")
            self._from_job(job_id, path, partial)
        else:
            raise PlatformError(f"{origin!r} is no place that this machine can fetch from")
        os.replace(partial, folder)

    def _from_hub(self, name: str, revision: str, folder: Path) -> None:
        from huggingface_hub import snapshot_download

        try:
            snapshot_download(
                name, revision=revision, local_dir=folder, allow_patterns=list(MODEL_FILES), token=False,
                endpoint=self._runs.endpoint,
            )  # fmt: skip
        except Exception as error:
            raise PlatformError(f"{name} cannot be fetched from the Hub: {error}") from error
        shutil.rmtree(folder / ".cache", ignore_errors=True)

    def _from_job(self, job_id: str, path: str, folder: Path) -> None:
        archive = folder.with_name(f"{folder.name}.tar")
        place = f"{self._folder_of(job_id)}/{names.OUTPUTS}"
        if not self._runs.download(place, archive):
            raise PlatformError(f"{place} is not in the runs repository")
        if sha256_of(archive) != self._digests.get(job_id):
            raise PlatformError(f"{place} in the runs repository is not what job {job_id} left there")
        folder.mkdir()
        try:
            with tarfile.open(archive, "r:") as tar:
                for member in tar:
                    inside = PurePosixPath(member.name)
                    if inside.is_relative_to(path) and member.isreg():
                        member.name = inside.relative_to(path).as_posix()
                        tar.extract(member, folder, filter="data")
        except (tarfile.TarError, OSError) as error:
            raise PlatformError(f"{place} cannot be unpacked: {error}") from error
        finally:
            archive.unlink(missing_ok=True)
