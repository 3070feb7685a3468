"""The committed traces: real runs, small, silent about their faults, and what the diagnosis makes of them."""

from __future__ import annotations

import re
import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from bot.diagnosis import diagnose
from bot.zoo.proof import scored
from bot.zoo.reading import read_trace
from bot.zoo.traces import MOST_BYTES, TRUTH, Trace, read_traces

ARCHIVE = Path(__file__).with_name("traces.tar.xz")
ARCHIVES = sorted(Path(__file__).parent.glob("*.tar.xz"))
# Regressions only: the bars themselves are printed by `make bench` and stand in README.md.
FLOORS = {"recall": 0.9, "precision": 0.95, "top1": 0.85, "line": 0.8}
SECONDS_PER_TRACE = 0.5
MOST_SCORED = 32


@cache
def traces() -> list[Trace]:
    return read_traces(ARCHIVE)


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    """Over a part that takes seconds, drawn by digest; `make bench` scores them all."""
    single = [trace for trace in traces() if not trace.truth.replayed]
    return scored(single[:: -(-len(single) // MOST_SCORED)], looks=16)[0]


def test_archives_are_small_enough_to_be_committed() -> None:
    assert sum(archive.stat().st_size for archive in ARCHIVES) <= MOST_BYTES


def test_traces_are_runs_of_every_method_and_healthy_ones() -> None:
    truths = [trace.truth for trace in traces()]
    assert {"sft", "dpo", "grpo"} <= {truth.method for truth in truths}
    assert sum(truth.healthy for truth in truths) >= 10
    assert len({truth.fault for truth in truths if truth.fault}) >= 40


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda path: path.name)
def test_nothing_that_may_be_seen_names_a_fault_or_this_machine(archive: Path) -> None:
    for trace in read_traces(archive):
        assert re.fullmatch(r"run-[0-9a-f]{12}", trace.name)
        seen = b"".join(content for name, content in trace.files.items() if name != TRUTH).decode()
        for word in ("/root", "/tmp/", "/home/", "inject", "severity", "gross", trace.truth.case or "\0"):
            assert word not in seen, (trace.truth.case, word)


def test_faulty_traces_lost_something_against_their_control() -> None:
    for trace in traces():
        truth = trace.truth
        if not truth.healthy and not truth.replayed:
            assert truth.labels and truth.control is not None, truth.case
            assert truth.value is None or truth.value < truth.control or truth.fault in (10, 21), truth.case


def test_diagnosis_does_not_fall_below_what_it_reached(result: dict[str, Any]) -> None:
    for name, floor in FLOORS.items():
        assert result["summary"][name] >= floor, name


@pytest.mark.parametrize(
    ("fault", "labels", "where"),
    [
        (11, {"plateau"}, {"lr_scheduler_type", "lr_scheduler_kwargs"}),
        (16, {"all_labels_masked"}, {"train.py"}),
        (27, {"adapter_unused"}, {None}),
        (37, {"clipped_completions"}, {"max_completion_length"}),
        (42, {"nccl_timeout"}, {"ddp_timeout"}),
        (40, {"eval_prompt_mismatch", "template_mismatch"}, {None}),
    ],
)
def test_faults_that_were_taken_for_others_are_named_on_their_line(
    tmp_path: Path, fault: int, labels: set[str], where: set[str | None]
) -> None:
    found = [t for t in traces() if t.truth.fault == fault and t.truth.severity == "gross" and not t.truth.second]
    assert found
    for trace in found:
        first = diagnose(trace.write(tmp_path / trace.name)).diagnoses[0]
        blamed = first.key or (first.file if first.file != "recipe.yaml" else None)
        assert first.symptom in labels and blamed in where, trace.truth.case


def test_nothing_is_noticed_before_it_could_be_seen(tmp_path: Path) -> None:
    """A fault of the script's own batches leaves data and recipe as they were: only steps show it."""
    trace = next(t for t in traces() if t.truth.fault == 16 and not t.truth.second)
    reading = read_trace(trace.write(tmp_path / trace.name))
    assert min(dict(reading.noticed or {}).values()) > 0 and (reading.aborted or 0) > 0


def test_monitor_ends_no_healthy_run(result: dict[str, Any]) -> None:
    assert result["summary"]["false_aborts"] == 0
    assert result["tuned"]["false_aborts"] == 0


def test_diagnosis_is_better_than_published_rules_and_chance(result: dict[str, Any]) -> None:
    for name, baseline in result["baselines"].items():
        assert result["summary"]["top1"] > (baseline["top1"] or 0), name


def test_trace_is_scored_in_well_under_a_second(tmp_path: Path) -> None:
    chosen = traces()[:: -(-len(traces()) // 6)]
    folders = [trace.write(tmp_path / trace.name) for trace in chosen]
    began = time.process_time()
    for folder in folders:
        read_trace(folder)
    assert (time.process_time() - began) / len(folders) < SECONDS_PER_TRACE
