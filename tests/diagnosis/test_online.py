"""A run judged while it goes on: silent on every prefix of a healthy one, early on a faulty one, and cheap."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from bot.diagnosis import diagnose, read_folder
from bot.diagnosis.online import ONLINE_RULES, diagnosis_of, first_noticed, observations_of
from bot.domain.diagnosis import Severity, Symptom

TRACES = Path(__file__).parent / "traces"
HEALTHY = sorted(folder.name for folder in TRACES.glob("healthy*"))


@pytest.mark.parametrize("name", HEALTHY)
def test_no_prefix_of_a_healthy_run_is_blamed(name: str) -> None:
    assert first_noticed(read_folder(TRACES / name), every=3) == {}


@pytest.mark.parametrize(
    ("name", "symptom", "share"),
    [("divergence-jump", Symptom.DIVERGENCE, 0.3), ("nan_inf-fp16", Symptom.NAN_INF, 0.1)],
)
def test_fault_that_training_shows_is_noticed_early(name: str, symptom: Symptom, share: float) -> None:
    run = read_folder(TRACES / name)
    step, found = first_noticed(run)[symptom]
    assert step <= share * run.last_step and found.certain_at is not None and found.certain_at <= step


def test_rows_of_a_stream_are_judged_like_those_of_a_folder() -> None:
    folder = TRACES / "nan_inf-weight"
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    text = (folder / "recipe.yaml").read_text()
    stream = diagnosis_of(observations_of(text, rows[:10]))
    assert [d.symptom for d in stream.diagnoses] == [Symptom.NAN_INF]
    assert diagnosis_of(observations_of(text, rows[:2])).healthy and diagnosis_of(observations_of(text, [])).healthy


def test_nothing_about_the_end_is_said_before_it(folder: Any, build: Any) -> None:
    metrics = build.curve(build.noisy([2.4 - 0.01 * i for i in range(150)], noise=0.02), entropy=lambda _, loss: loss)
    run = read_folder(folder(metrics=metrics))
    assert not any(d.severity is not Severity.ADVICE for d in diagnosis_of(run.until(150)).diagnoses)


def test_five_hundred_steps_are_judged_in_milliseconds(build: Any) -> None:
    rows = build.curve(build.noisy(build.decay(6, 0.1, 500)), entropy=0.5, mean_token_accuracy=0.9)
    seen = observations_of(build.recipe, rows)
    started = time.process_time()
    for _ in range(5):
        seen.memo.clear()
        diagnosis_of(seen)
    # Measured at 4 to 6 ms, and as much again to read the rows; a monitor asks at every record.
    assert (time.process_time() - started) / 5 < 0.1


def test_rules_that_may_speak_early_are_known() -> None:
    assert {Symptom.NAN_INF, Symptom.DIVERGENCE} <= {rule.symptom for rule in ONLINE_RULES}


def test_run_that_was_ended_on_its_way_is_judged_like_one_that_goes_on(tmp_path: Path) -> None:
    """Of a healthy run's first steps a plateau is said where they are taken for a whole run."""
    blamed = dict.fromkeys(("stopped", "succeeded"), 0)
    for name in HEALTHY:
        rows = [json.loads(line) for line in (TRACES / name / "metrics.jsonl").read_text().splitlines()]
        for state in blamed:
            for last in range(6, 20):
                (folder := tmp_path / f"{name}-{state}-{last}").mkdir()
                for file in ("recipe.yaml", "setup.json", "data_audit.json", "train.jsonl"):
                    if (TRACES / name / file).exists():
                        shutil.copy(TRACES / name / file, folder)
                kept = "".join(json.dumps(row) + "\n" for row in rows if row["step"] <= last)
                (folder / "metrics.jsonl").write_text(kept)
                (folder / "job.json").write_text(json.dumps({"state": state}))
                (folder / "goal.json").write_text(json.dumps({"target": 0.9}))
                blamed[state] += not diagnose(folder).healthy
    assert blamed["stopped"] == 0 < blamed["succeeded"]
