"""Rows held against a benchmark's items: by their words, and by embeddings where the server's owner names a model."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bot.data.detectors import ItemLike
from bot.data.paraphrases import ModelEmbedder, find_paraphrases
from bot.data.scan import ScanReport, scan
from bot.errors import PlatformError, TransientError, UserError

_RETRY_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Embeddings:
    """The model that rows are screened for paraphrases with."""

    model: str
    """A folder, or OWNER/NAME."""
    cosine: float
    """From which on a row gives an item away. No value suits every model."""
    python: str = sys.executable
    """Of an environment that has torch and transformers."""


async def screened(
    rows: Sequence[Mapping[str, Any]], items: Sequence[ItemLike], embeddings: Embeddings | None
) -> ScanReport:
    """Raises: TransientError while there are no embeddings to be had: nothing passes unscreened."""
    report = await asyncio.to_thread(scan, rows, items)
    if embeddings is None or not rows:
        return report
    return await asyncio.to_thread(_with_paraphrases, report, rows, items, embeddings)


def _with_paraphrases(
    report: ScanReport, rows: Sequence[Mapping[str, Any]], items: Sequence[ItemLike], embeddings: Embeddings
) -> ScanReport:
    try:
        with ModelEmbedder(embeddings.model, python=embeddings.python) as embed:
            found = find_paraphrases(rows, items, embed, threshold=embeddings.cosine)
    except (UserError, PlatformError) as error:
        why = f"rows cannot be screened for paraphrases (POSTDOC_SCAN_EMBEDDINGS): {error}"
        raise TransientError(why, retry_after_seconds=_RETRY_SECONDS) from error
    return report.with_matches(found.matches)
