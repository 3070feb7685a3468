"""Folders that are kept under the name of their content, and appear whole or not at all."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def kept_folder(folder: Path) -> Iterator[Path]:
    """A fresh folder to fill, which becomes `folder` at the end of the block; what another process put there stays."""
    partial = folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:8]}")
    partial.mkdir(parents=True)
    try:
        yield partial
        try:
            partial.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
