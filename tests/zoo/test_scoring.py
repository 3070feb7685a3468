"""Figures from hand-made readings, whose right answers can be counted on fingers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bot.zoo.reading import Answer, Reading, looked_at
from bot.zoo.scoring import Judged, lines, median_interval, ratio_interval, score, summary
from bot.zoo.traces import Truth

FAULTY = Truth(
    healthy=False, labels=("plateau", "frozen"), line_keys=("learning_rate", "max_steps"), severity="gross",
    shows="training", steps=400, seed=3, held_out="seed", doomed=True, fault=2,
)  # fmt: skip
HEALTHY = Truth(healthy=True, seed=3, held_out="seed", steps=400)


def said(
    truth: Truth,
    *answers: tuple[str, str | None],
    noticed: int | None = None,
    aborted: int | None = None,
    tier: str = "",
) -> Judged:
    found = tuple(Answer(label, key) for label, key in answers)
    seen = {answer.label: noticed for answer in found} if noticed is not None else {}
    return Judged("run-0", truth, Reading(found, seen, aborted, tier))


def test_recall_counts_any_finding_and_label_only_the_first() -> None:
    found = summary([
        said(FAULTY, ("plateau", "learning_rate")),
        said(FAULTY, ("overfit", "max_steps"), ("plateau", "learning_rate")),
        said(FAULTY, ("unknown", None)),
        said(FAULTY),
    ])  # fmt: skip
    assert (found["recall"], found["top1"], found["line"], found["abstention"]) == (0.75, 0.25, 0.5, 0.25)
    low, high = found["intervals"]["recall"]
    assert 0.3 < low < 0.75 < high < 0.96


def test_equivalent_label_and_key_are_right() -> None:
    one = said(FAULTY, ("frozen", "max_steps"))
    assert one.named and one.located
    assert not said(FAULTY, ("frozen", "warmup_steps")).located


def test_file_is_a_line_where_no_key_is_blamed() -> None:
    truth = Truth(healthy=False, labels=("frozen",), line_keys=("train.py",))
    assert Judged("run", truth, Reading((Answer("frozen", None, "train.py"),))).located
    assert not Judged("run", truth, Reading((Answer("frozen", "learning_rate", "recipe.yaml"),))).located


def test_fault_outside_of_the_experiment_blames_no_line() -> None:
    truth = Truth(healthy=False, labels=("extraction_fail",))
    assert said(truth, ("extraction_fail", None)).located
    assert not said(truth, ("extraction_fail", "learning_rate")).located


def test_precision_and_false_aborts_are_about_healthy_runs() -> None:
    found = summary([
        said(FAULTY, ("plateau", "learning_rate")),
        said(HEALTHY, ("plateau", "learning_rate")),
        said(HEALTHY, aborted=30),
        said(HEALTHY),
    ])  # fmt: skip
    assert (found["precision"], found["healthy"], found["false_aborts"]) == (0.5, 3, 1)
    assert found["healthy_flagged"] == pytest.approx(1 / 3, abs=1e-4)


def test_healthy_run_that_missed_its_target_may_be_told_so_and_nothing_else() -> None:
    short = replace(HEALTHY, labels=("plateau", "unknown"), line_keys=("max_steps",))
    longer, slower = ("plateau", "max_steps"), ("plateau", "learning_rate")
    found = summary([
        said(FAULTY, slower), said(short, longer), said(short), said(short, slower), said(short, longer, slower),
        said(HEALTHY, longer), said(short, ("unknown", None)),
    ])  # fmt: skip
    assert found["told_short"] == 0.4  # of five that missed their target
    assert found["precision"] == 0.25  # the fault, of that and three false alarms
    assert found["healthy_flagged"] == 0.5


def test_aborts_of_healthy_runs_are_told_of_those_that_tuning_saw_as_well() -> None:
    seen = replace(HEALTHY, held_out="", seed=0)
    found = score([said(FAULTY, ("plateau", "learning_rate")), said(HEALTHY), said(seen, aborted=30)])
    assert (found["summary"]["false_aborts"], found["summary"]["healthy"]) == (0, 1)
    assert (found["every_healthy"]["false_aborts"], found["every_healthy"]["healthy"]) == (1, 2)
    assert any("every healthy run: 1 of 2 aborted" in line for line in lines(found))


def test_time_to_detection_is_that_of_a_right_label_in_long_runs() -> None:
    short = Truth(healthy=False, labels=("plateau",), shows="training", steps=100, severity="gross")
    found = summary([
        said(FAULTY, ("plateau", "learning_rate"), noticed=20),
        said(FAULTY, ("overfit", "learning_rate"), noticed=4),
        said(FAULTY, ("frozen", "learning_rate"), noticed=40),
        said(short, ("plateau", "learning_rate"), noticed=1),
    ])  # fmt: skip
    assert (found["median_detection_fraction"], found["long_runs"]) == (0.1, 3)


def test_steps_saved_are_those_of_doomed_runs_that_only_training_shows() -> None:
    before = Truth(healthy=False, labels=("truncation",), shows="data", steps=100, doomed=True)
    mild = Truth(healthy=False, labels=("plateau",), shows="training", steps=100)
    found = summary([said(FAULTY, aborted=100), said(FAULTY), said(before, aborted=0), said(mild, aborted=10)])
    assert (found["steps_saved"], found["doomed"]) == (0.375, 2)


def test_runs_that_preflight_refused_are_neither_detected_nor_saved_while_they_train() -> None:
    found = summary([said(FAULTY, noticed=0, aborted=0, tier="preflight"), said(FAULTY, noticed=8, aborted=100)])
    assert (found["steps_saved"], found["doomed"], found["long_runs"]) == (0.75, 1, 1)
    assert summary([said(FAULTY, aborted=0, tier="preflight")])["steps_saved"] is None


def test_interval_of_a_median_lies_between_the_order_statistics_that_hold_it() -> None:
    # Binomial(20, 1/2): P(X <= 5) = .0207, so the 6th smallest and the 6th largest.
    assert median_interval([n / 20 for n in range(20)]) == [0.25, 0.7]
    assert median_interval([0.3, 0.1, 0.2]) == [0.1, 0.3]
    assert median_interval([]) is None


def test_interval_of_the_steps_saved_holds_them() -> None:
    same = ratio_interval([(50, 100)] * 10)
    assert same == [0.5, 0.5]
    low, high = ratio_interval([(100, 100)] * 5 + [(0, 100)] * 5) or (0.0, 0.0)
    assert 0.1 <= low < 0.4 and 0.6 < high <= 0.9
    assert ratio_interval([]) is None


def test_whole_held_out_faults_are_told_apart_and_unknown_is_right_there() -> None:
    truth = Truth(healthy=False, labels=("tokenizer",), neighbours=("divergence",), severity="gross", held_out="fault")
    found = score([
        said(truth, ("unknown", None)), said(truth, ("divergence", None)), said(truth), said(truth, ("overfit", None)),
        said(FAULTY, ("plateau", "learning_rate")),
    ])  # fmt: skip
    assert found["held_out_faults"]["top1"] == 0.5
    assert found["held_out_faults"]["recall"] == 0.75
    assert found["summary"]["top1"] == 1.0
    assert found["summary"]["faulty"] == 1


def test_figures_leave_out_what_was_tuned_on_and_what_was_replayed() -> None:
    tuned = Truth(healthy=False, labels=("plateau",), severity="gross", seed=0)
    replayed = Truth(healthy=False, labels=("oom",), severity="gross", held_out="seed", replayed=True)
    found = score([said(tuned), said(replayed, ("oom", None)), said(FAULTY, ("plateau", "learning_rate"))])
    assert (found["summary"]["faulty"], found["tuned"]["faulty"], found["replayed"]["faulty"]) == (1, 1, 1)
    assert (found["summary"]["recall"], found["tuned"]["recall"]) == (1.0, 0.0)


def test_traces_of_tuning_alone_are_scored_and_said_to_be() -> None:
    found = score([said(Truth(healthy=False, labels=("plateau",), severity="gross", seed=0))])
    assert found["summary"]["faulty"] == 1
    assert found["split"].startswith("all")


def test_two_faults_want_both_names() -> None:
    truth = Truth(healthy=False, labels=("plateau",), second=("truncation",), severity="gross", held_out="seed")
    found = score([
        said(truth, ("plateau", None), ("truncation", None)), said(truth, ("truncation", None)), said(truth)
    ])["pairs"]  # fmt: skip
    assert (found["n"], found["both_named"]) == (3, pytest.approx(1 / 3, abs=1e-4))
    assert found["either_first"] == pytest.approx(2 / 3, abs=1e-4)


def test_label_table_says_what_was_said_instead() -> None:
    found = score([said(FAULTY, ("overfit", "max_steps")), said(FAULTY), said(HEALTHY, ("overfit", "max_steps"))])
    assert found["labels"]["plateau"] == {
        "recall": 0.0, "precision": None, "n": 2, "instead": {"overfit": 1, "nothing": 1}
    }  # fmt: skip
    assert found["labels"]["overfit"]["precision"] == 0.0
    assert len(found["wrong"]) == 3


def test_nothing_to_count_is_no_number() -> None:
    found = summary([])
    assert found["recall"] is None and found["steps_saved"] is None and found["median_detection_fraction"] is None
    result = score([said(HEALTHY)])
    assert any("recall -" in line for line in lines(result))


def test_early_steps_are_all_looked_at_and_later_ones_evenly() -> None:
    found = looked_at(list(range(1, 1001)), 80)
    assert found[:40] == list(range(1, 41))
    assert found[-1] == 1000 and len(found) == 80 and found == sorted(set(found))
    assert looked_at([1, 2, 3], 80) == [1, 2, 3]


def test_traces_are_only_read_and_never_written(tmp_path: Path) -> None:
    from bot.zoo.reading import read_trace
    from bot.zoo.replayed import replayed_traces

    trace = next(replayed_traces())
    folder = trace.write(tmp_path / trace.name)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert "truth.json" not in before
    read_trace(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
