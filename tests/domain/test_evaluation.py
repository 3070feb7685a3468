from __future__ import annotations

import json

from bot.domain.diagnosis import Diagnosis, DiagnosisReport, Evidence, Severity, Symptom
from bot.domain.evaluation import Evaluation, Sample, best_of

EVALUATION = Evaluation(
    "practice/reverse", "d1", "m", "exact_match", 0.5, 0.1, 2, "dev", 0.5, 1.0,
    samples=(Sample("h1", 1.0, "stop", "reverse ab", "ba", "ba"), Sample("h2", 0.0, "length", "reverse cd", "x", "dc")),
)  # fmt: skip


def test_evaluation_survives_json():
    assert Evaluation.from_dict(json.loads(json.dumps(EVALUATION.as_dict()))) == EVALUATION


def test_evaluation_ignores_what_a_later_evaluator_adds():
    data = EVALUATION.as_dict() | {"new": 1}
    data["samples"][0]["extracted"] = "ba"
    assert Evaluation.from_dict(data) == EVALUATION


def test_public_form_holds_no_benchmark_text():
    text = json.dumps(EVALUATION.public())
    assert "reverse ab" not in text and "ba" not in text.replace("harness_digest", "")
    assert Evaluation.from_dict(json.loads(text)).scores() == {"h1": 1.0, "h2": 0.0}


def test_termination_rate_counts_responses_that_ended_by_themselves():
    assert EVALUATION.termination_rate == 0.5
    assert Evaluation("b", "d", "m", "x", 0, 0, 1, "dev").termination_rate is None


def test_best_of_equals_is_the_earliest():
    first, second = (Evaluation("b", "d", name, "x", 0.5, 0, 1, "dev") for name in ("first", "second"))
    assert best_of([first, second]).model == "first"
    assert best_of([]) is None


def diagnosis(severity):
    return Diagnosis(
        Symptom.PLATEAU, severity, 0.8, (Evidence("loss", 5, 2.1),), "Loss stays at 2.1.", line=3, suggested=1e-3
    )


def test_diagnosis_report_survives_json():
    report = DiagnosisReport((diagnosis(Severity.FATAL), diagnosis(Severity.ADVICE)), ("oom",))
    assert DiagnosisReport.from_dict(json.loads(json.dumps(report.as_dict()))) == report


def test_report_of_nothing_but_advice_is_healthy():
    assert DiagnosisReport((diagnosis(Severity.ADVICE),)).healthy
    assert DiagnosisReport().healthy
    assert not DiagnosisReport((diagnosis(Severity.ADVICE), diagnosis(Severity.HARMFUL))).healthy
