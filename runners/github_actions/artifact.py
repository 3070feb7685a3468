"""The artifact of a workflow run as the second way home of a job's outputs."""

from __future__ import annotations

import hashlib
import json
import time
import zipfile
from pathlib import Path

from bot.errors import PlatformError, UserError
from runners.job import JobStatus
from runners.remote.sealing import SEALED, unseal
from runners.remote.store import OUTPUTS, OUTPUTS_NOTE, SEAL, STATUS, Store


def has_ended(status: bytes | None) -> bool:
    """Whether a wrapper's word is its last."""
    try:
        return status is not None and JobStatus.from_dict(json.loads(status)).state.ended
    except (ValueError, LookupError, TypeError):
        return False


def import_artifact(archive: Path, store: Store, limit_bytes: int) -> None:
    """Put into the store what the wrapper would have put there: the outputs, and after them its last word.

    Raises: UserError for an archive that holds nothing of this job.
    """
    key = store.read(SEAL)
    packed = archive.with_suffix(".outputs")
    try:
        with zipfile.ZipFile(archive) as opened:
            info = opened.getinfo(SEALED)
            if info.file_size > limit_bytes:
                raise UserError(f"it holds {info.file_size:,} bytes, and the job was allowed {limit_bytes:,}")
            with opened.open(info) as sealed:
                status = unseal(sealed, key or b"", packed)
        word = json.dumps(status | {"at": time.time()}).encode()
        if not has_ended(word):
            raise UserError("it was made before the job had ended")
        with open(packed, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        note = json.dumps({"sha256": digest, "bytes": packed.stat().st_size})
        store.push(packed, OUTPUTS)
        store.write(OUTPUTS_NOTE, note.encode())
        store.write(STATUS, word)
    except (zipfile.BadZipFile, KeyError, ValueError, PlatformError) as error:
        raise UserError(f"it holds no outputs of this job: {error}") from error
    finally:
        packed.unlink(missing_ok=True)
