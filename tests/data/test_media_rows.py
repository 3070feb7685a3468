"""Rows with images and recordings: found again byte for byte, and never read as text."""

from __future__ import annotations

import base64
import random

import pytest

from bot.data.audit import audit
from bot.data.rows import item_of, segments
from bot.data.scan import scan


def media(seed: int, size: int = 400) -> bytes:
    return random.Random(seed).randbytes(size)


def encoded(seed: int) -> str:
    return base64.b64encode(media(seed)).decode()


@pytest.mark.parametrize(
    "value", [encoded(3), media(3), {"bytes": media(3), "path": "a.png"}, f"data:image/png;base64,{encoded(3)}"]
)
def test_one_image_is_the_same_in_every_form(value: object) -> None:
    assert segments({"image": value, "label": "cat"}) == segments({"image": encoded(3), "label": "cat"})
    assert segments({"image": value}) != segments({"image": encoded(4)})


def test_scan_finds_an_image_of_the_benchmark_in_the_training_rows() -> None:
    items = [item_of({"image": encoded(seed), "label": "cat"}, str(seed)) for seed in range(5)]
    clean = scan([{"image": encoded(seed), "label": "cat"} for seed in range(10, 40)], items)
    assert clean.verdict == "clean" and clean.unscannable == 0
    shared = scan([{"image": encoded(seed), "label": "dog"} for seed in (10, 3)], items)
    assert [(match.row, match.eval_id, match.kind) for match in shared.flagged] == [(1, "3", "exact")]


def test_audit_counts_classes_and_repetitions_and_sees_no_secret_in_bytes() -> None:
    key = base64.b64encode(b"x" * 50 + b"AKIA" + b"A" * 60).decode()
    rows = [{"image": encoded(seed), "label": "cat" if seed % 2 else "dog"} for seed in range(20)]
    found = audit([*rows, rows[0], {"image": "AKIA" + "A" * 40 + key, "label": "dog"}])
    assert found.classes == 2 and found.exact_duplicates == 1 and found.near_duplicates == 0
    assert found.sensitive == {} and found.empty_rows == 0


def test_word_in_a_column_called_image_is_text() -> None:
    assert [text for _, text in segments({"image": "a cat on a mat"})] == ["a cat on a mat"]
