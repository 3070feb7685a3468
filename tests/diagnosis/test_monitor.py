"""The monitor ends a run that cannot come back, and no other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bot.diagnosis.monitor import doomed
from bot.domain.diagnosis import Symptom

TRACES = Path(__file__).parent / "traces"
RECIPE = "learning_rate: 1.0e-03\nmax_length: 64\n"


def rows(*values: tuple[object, object]) -> list[dict[str, object]]:
    return [{"step": 10 * n, "loss": loss, "grad_norm": norm} for n, (loss, norm) in enumerate(values, start=1)]


@pytest.mark.parametrize(
    "lost", [("NaN", "NaN"), (None, None), (0.0, "NaN"), ("NaN", "Infinity")], ids=["text", "null", "hidden", "inf"]
)
def test_weights_that_are_no_numbers_any_more_end_the_run_on_a_line(lost: tuple[object, object]) -> None:
    found = doomed(RECIPE, rows((2.0, 1.0), (1.9, 1.1), lost, lost, lost))
    assert found is not None
    assert (found.symptom, found.line) == (Symptom.NAN_INF, 1)


def test_two_skipped_steps_of_fp16_and_a_loss_that_jumps_go_on() -> None:
    assert doomed(RECIPE, rows((2.0, "Infinity"), (2.0, "Infinity"), (1.8, 1.0))) is None
    assert doomed(RECIPE, rows((2.0, 1.0), (90.0, 300.0), (80.0, 200.0), (70.0, 100.0))) is None
    assert doomed(RECIPE, rows(("NaN", "NaN"), ("NaN", "NaN"))) is None
    assert doomed(RECIPE, []) is None


def test_no_prefix_of_a_healthy_trace_is_ended() -> None:
    folders = sorted(TRACES.glob("healthy*"))
    assert len(folders) >= 5
    for folder in folders:
        recipe = (folder / "recipe.yaml").read_text()
        history = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for end in range(1, len(history) + 1, 7):
            assert doomed(recipe, history[:end]) is None, folder.name


def test_every_trace_with_lasting_nans_is_ended_before_its_end() -> None:
    ended = {}
    for folder in sorted(TRACES.glob("nan_inf*")):
        recipe = (folder / "recipe.yaml").read_text()
        history = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        found = (end for end in range(1, len(history) + 1) if doomed(recipe, history[:end]) is not None)
        ended[folder.name] = next(found, None) or len(history)
        assert ended[folder.name] < len(history), ended
