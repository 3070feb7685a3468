"""One job's store on Hugging Face Jobs as the bot sees it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bot.errors import PlatformError, TransientError, UserError
from runners.hf_jobs.hub import Hub
from runners.job import read_json
from runners.remote import store as names
from runners.remote.store import FolderStore


@contextlib.contextmanager
def unattended() -> Iterator[None]:
    """While a job is looked at, nobody waits who could set a token right; the job itself goes on."""
    try:
        yield
    except (UserError, TransientError) as error:
        raise PlatformError(str(error)) from error


class HubStore:
    """One job's store as the bot sees it: what the log has brought lies here, what is large in the repository."""

    def __init__(self, hub: Hub, spool: Path, folder: str, send_inputs: Callable[[Path], None]) -> None:
        """`spool` takes what the log brings, `folder` is the job's in the runs repository."""
        self._hub, self._here, self._folder, self._send_inputs = hub, FolderStore(spool), folder, send_inputs

    def read(self, key: str) -> bytes | None:
        return self._here.read(key)

    def write(self, key: str, content: bytes) -> None:
        self._here.write(key, content)

    def names(self, prefix: str) -> Sequence[str]:
        if prefix != names.CHECKPOINTS:
            return self._here.names(prefix)
        with unattended():
            found = self._hub.files(f"{self._folder}/{prefix.rstrip('/')}")
        return sorted(path.removeprefix(f"{self._folder}/") for path in found if path.endswith(".tar"))

    def fetch(self, key: str, path: Path) -> bool:
        revision = "main"
        if key == names.OUTPUTS:
            # What the wrapper itself committed, whatever anybody has put there since.
            revision = str((read_json(self._here.folder / names.OUTPUTS_NOTE) or {}).get("revision", "main"))
        with unattended():
            return self._hub.fetch(f"{self._folder}/{key}", path, revision)

    def push(self, path: Path, key: str) -> None:
        assert key == names.INPUTS, "the container brings the rest"
        self._send_inputs(path)
