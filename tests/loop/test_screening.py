"""Rows are screened for paraphrases where the owner names a model, and nothing passes unscreened where that fails."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bot.data.rows import Item
from bot.errors import TransientError
from bot.loop.screening import Embeddings, screened
from tests.fakes.encoder import random_encoder

ITEM = Item("sheep", "How many sheep are left on the meadow when all but nine have run away?", "9")
OTHER = {
    "prompt": "Name the commonest gas of the air that surrounds the whole of our planet.",
    "completion": "nitrogen",
}
REWORDED = {
    "prompt": "When all sheep but nine have run away, how many are left, and on which meadow?",
    "completion": "nine",
}


@pytest.mark.slow
async def test_reworded_row_is_found_by_embeddings_alone(tmp_path: Path) -> None:
    model = random_encoder(tmp_path, (ITEM.prompt, OTHER["prompt"], REWORDED["prompt"]))
    assert (await screened([OTHER, REWORDED], [ITEM], None)).verdict == "clean"
    report = await screened([OTHER, REWORDED], [ITEM], Embeddings(str(model), 0.7))
    assert (1, "sheep", "paraphrase") in {(match.row, match.eval_id, match.kind) for match in report.flagged}
    assert (await screened([], [ITEM], Embeddings(str(model), 0.7))).verdict == "clean"


async def test_rows_wait_while_the_model_cannot_be_had(tmp_path: Path) -> None:
    with pytest.raises(
        TransientError, match=r"cannot be screened for paraphrases \(POSTDOC_SCAN_EMBEDDINGS\)"
    ) as raised:
        await screened([OTHER], [ITEM], Embeddings(str(tmp_path / "absent"), 0.8, python=sys.executable))
    assert raised.value.retry_after_seconds
