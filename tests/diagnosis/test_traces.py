"""Every recorded trace gets its label on its line, and the healthy ones stay silent, whatever files are missing."""

from __future__ import annotations

import json
import shutil
import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from bot.diagnosis import diagnose, preflight
from bot.domain.diagnosis import Diagnosis, DiagnosisReport, Severity
from bot.domain.recipe import line_of

TRACES = Path(__file__).parent / "traces"
NAMES = sorted(folder.name for folder in TRACES.iterdir() if (folder / "truth.json").exists())
# What a run that Postdoc did not make may lack. A healthy run must be silent without each of these sets of files.
ABSENT = (
    ("goal.json",),
    ("baseline.json",),
    ("data_audit.json",),
    ("train.jsonl", "eval.jsonl"),
    ("evaluation.json", "baseline.json"),
    ("evaluation.json", "baseline.json", "goal.json", "data_audit.json", "train.jsonl", "eval.jsonl", "setup.json"),
)


def truth(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((TRACES / name / "truth.json").read_text())
    return found


HEALTHY = [name for name in NAMES if truth(name)["healthy"]]
FAULTY = [name for name in NAMES if not truth(name)["healthy"]]


@cache
def report(name: str) -> DiagnosisReport:
    return diagnose(TRACES / name)


def blamed(found: DiagnosisReport) -> list[Diagnosis]:
    return [diagnosis for diagnosis in found.diagnoses if diagnosis.severity is not Severity.ADVICE]


@pytest.mark.parametrize("name", FAULTY)
def test_trace_of_a_fault_gets_its_label_first(name: str) -> None:
    found = blamed(report(name))
    assert found, f"silent; ruled out: {report(name).ruled_out}"
    assert found[0].symptom in truth(name)["labels"], found[0].cause


@pytest.mark.parametrize("name", FAULTY)
def test_trace_of_a_fault_blames_its_line(name: str) -> None:
    first = blamed(report(name))[0]
    keys = truth(name)["line_keys"]
    assert first.key in keys or (first.key is None and not keys)
    if first.key is not None:
        assert first.line == line_of((TRACES / name / "recipe.yaml").read_text(), first.key)


@pytest.mark.parametrize("name", FAULTY)
def test_trace_of_one_fault_gets_one_diagnosis(name: str) -> None:
    assert len({d.symptom for d in blamed(report(name))}) == 1


@pytest.mark.parametrize("name", FAULTY)
def test_diagnosis_carries_numbers_and_says_how_to_refute_it(name: str) -> None:
    for diagnosis in report(name).diagnoses:
        assert len([item for item in diagnosis.evidence if item.value is not None]) >= 1
        assert len(diagnosis.evidence) >= 2
        assert any(character.isdigit() for character in diagnosis.cause)
        assert diagnosis.refuted_by and 0 < diagnosis.confidence < 1
        assert "\n" not in diagnosis.cause and len(diagnosis.cause) < 600


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_trace_stays_silent(name: str) -> None:
    assert report(name).healthy, [d.cause for d in report(name).diagnoses]
    assert report(name).ruled_out


@pytest.mark.parametrize("name", HEALTHY)
@pytest.mark.parametrize("absent", ABSENT, ids=lambda files: f"without-{len(files)}-{files[0]}")
def test_healthy_trace_stays_silent_without_some_files(name: str, absent: tuple[str, ...], tmp_path: Path) -> None:
    shutil.copytree(TRACES / name, tmp_path / "run", ignore=shutil.ignore_patterns(*absent, "truth.json"))
    found = diagnose(tmp_path / "run")
    assert found.healthy, [d.cause for d in found.diagnoses]


@pytest.mark.parametrize("name", NAMES)
def test_report_survives_json_and_is_the_same_twice(name: str) -> None:
    text = json.dumps(report(name).as_dict(), allow_nan=False)
    assert DiagnosisReport.from_dict(json.loads(text)) == report(name)
    assert diagnose(TRACES / name).as_dict() == report(name).as_dict()


@pytest.mark.parametrize("name", HEALTHY)
def test_preflight_of_healthy_data_stays_silent(name: str) -> None:
    assert preflight(TRACES / name).healthy


def test_preflight_names_data_faults_without_looking_at_the_run() -> None:
    seen = {name: {str(d.symptom) for d in preflight(TRACES / name).diagnoses} for name in FAULTY}
    for name, found in seen.items():
        assert found <= set(truth(name)["labels"]), name
    before_training = {"truncation", "missing_eos", "wrong_columns", "duplicates", "label_noise"}
    named = {label for name, found in seen.items() for label in found}
    assert before_training <= named


def test_all_traces_together_take_milliseconds_each() -> None:
    started = time.process_time()
    for name in NAMES:
        diagnose(TRACES / name)
    # Measured at 10 to 25 ms each; ten times that is a rule that reads everything for every row.
    assert (time.process_time() - started) / len(NAMES) < 0.25
