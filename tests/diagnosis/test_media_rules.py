"""Recordings, pictures and classified texts: what the audits of their scripts count, and nothing of tokens."""

from __future__ import annotations

from typing import Any

import pytest

from bot.diagnosis import preflight
from bot.domain.diagnosis import Diagnosis, Severity, Symptom

SPEECH = "method: speech\ninit_from: openai/whisper-small\ndata_sources: data/calls\n"
VISION = "method: vision\ninit_from: microsoft/resnet-50\ndata_sources: data/leaves\n"
CLASSIFY = "method: classify\ninit_from: google-bert/bert-base-uncased\ndata_sources: data/reviews\n"
HEARD = {"window_seconds": 30.0, "longer_than_window": 0, "texts_too_long": 0, "silent_rows": 0}


def speech(dropped: int = 0, **audio: int) -> dict[str, Any]:
    return {"rows": 1000, "dropped_rows": dropped, "truncated_rows": 0, "audio": HEARD | audio}


def vision(uniform: int = 0, contradicting: int = 0) -> dict[str, Any]:
    return {"rows": 1000, "dropped_rows": 0, "distinct_prompts": 800, "contradicting_images": contradicting,
            "images": {"sampled": 200, "uniform": uniform}}  # fmt: skip


@pytest.mark.parametrize(
    ("recipe", "audit", "symptom", "severity", "said"),
    [
        (SPEECH, speech(700, longer_than_window=690, texts_too_long=20), Symptom.TRUNCATION, Severity.HARMFUL,
         "700 of 1000 recordings (70 %) are left out whole: 690 are longer than the 30 s that the model hears, and "
         "the texts of 20 are longer than it can write."),
        (SPEECH, speech(80, longer_than_window=80), Symptom.TRUNCATION, Severity.ADVICE, "80 of 1000"),
        (SPEECH, speech(silent_rows=300), Symptom.LABEL_NOISE, Severity.HARMFUL, "300 of 1000 (30 %) recordings"),
        (SPEECH, speech(silent_rows=1000), Symptom.LABEL_NOISE, Severity.FATAL, "1000 of 1000 (100 %) recordings"),
        (VISION, vision(uniform=20), Symptom.LABEL_NOISE, Severity.ADVICE, "20 of 200 (10 %) sampled pictures"),
        (VISION, vision(contradicting=200), Symptom.LABEL_NOISE, Severity.HARMFUL, "200 of 800 (25 %) distinct"),
        (CLASSIFY, {"rows": 1000, "contradicting_texts": 250, "empty_texts": 0}, Symptom.LABEL_NOISE, Severity.HARMFUL,
         "250 of 1000 (25 %) distinct texts stand under several classes."),
        (CLASSIFY, {"rows": 1000, "contradicting_texts": 1, "empty_texts": 90}, Symptom.LABEL_NOISE, Severity.ADVICE,
         "90 of 1000 (9 %) texts are empty"),
    ],
)  # fmt: skip
def test_media_that_teach_nothing_are_named_with_their_source(
    folder: Any, recipe: str, audit: dict[str, Any], symptom: Symptom, severity: Severity, said: str
) -> None:
    found: tuple[Diagnosis, ...] = preflight(folder(recipe, audit=audit)).diagnoses
    assert [(each.symptom, each.severity, each.key, each.line) for each in found] == [
        (symptom, severity, "data_sources", 3)
    ]
    assert said in found[0].cause


@pytest.mark.parametrize(
    ("recipe", "audit", "said"),
    [
        (SPEECH, speech(silent_rows=50), "50 of 1000 recordings"),
        (VISION, vision(10, 40), "40 of 800 distinct pictures"),
        (CLASSIFY, {"rows": 1000, "contradicting_texts": 9}, "9 of 1000 distinct texts"),
    ],
)
def test_few_are_ruled_out_with_their_numbers(folder: Any, recipe: str, audit: dict[str, Any], said: str) -> None:
    report = preflight(folder(recipe, audit=audit))
    assert not report.diagnoses
    assert any(said in line for line in report.ruled_out), report.ruled_out
