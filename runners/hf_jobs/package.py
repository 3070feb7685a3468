"""Our own code as one archive that a container fetches: the same bytes for the same code."""

from __future__ import annotations

import hashlib
import io
import tarfile
from functools import cache
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_SHIPPED = ("bot/__init__.py", "bot/errors.py", "bot/domain/*.py", "runners/**/*.py")
"""All that `runners` may import: tests/test_architecture.py holds it to that."""


@cache
def code_archive() -> tuple[bytes, str]:
    """An uncompressed tar and its SHA-256."""
    paths = sorted(path for pattern in _SHIPPED for path in _ROOT.glob(pattern))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in paths:
            content = path.read_bytes()
            info = tarfile.TarInfo(path.relative_to(_ROOT).as_posix())
            info.size, info.mode = len(content), 0o644
            tar.addfile(info, io.BytesIO(content))
    content = buffer.getvalue()
    return content, hashlib.sha256(content).hexdigest()


def sha256_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
