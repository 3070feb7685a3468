"""The figures of a report, computed by hand beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bot.errors import UserError
from bot.gym.report import Result, RunTaken, as_json, compared, read_report, read_results, restricted_mean, summary


def result(name: str, runs: int, *, reached: bool = True, seed: int = 0, stages: int = 1) -> Result:
    each = tuple(RunTaken(0.5 + 0.1 * n, {}, ("lr_too_low",), 4.0) for n in range(runs))
    return Result(
        name, "text", "sft", seed, 0.9, stages, "met" if reached else "needs_human", reached, each, 0.0, 0.95, 0.94,
        20.0, "",
    )  # fmt: skip


def test_goal_that_is_never_reached_counts_as_twelve() -> None:
    given_up = result("a", 2, reached=False)
    assert (given_up.counted_runs, given_up.reached_first) == (12, False)
    assert restricted_mean([given_up, result("b", 2)]).value == 7.0


def test_first_run_of_a_chain_is_its_last_stage() -> None:
    assert result("chain", 2, stages=2).reached_first
    assert not result("chain", 3, stages=2).reached_first
    assert not result("plain", 2).reached_first


def test_summary_has_shares_medians_and_the_restricted_mean() -> None:
    found = summary([result("a", 1), result("b", 3), result("c", 4, reached=False)])
    assert (found["first"], found["after"], found["median_runs"]) == (0.3333, 0.6667, 3)
    assert found["restricted_mean_runs"] == {"value": 5.333, "ci_low": None, "ci_high": None, "horizon": 12}
    assert found["trainer_seconds"] == 32.0


def test_interval_comes_from_the_seeds_and_holds_the_mean() -> None:
    results = [result("a", runs, seed=seed) for seed, runs in enumerate((1, 2, 5, 1, 3))]
    mean = restricted_mean(results)
    assert mean.value == 2.4
    assert mean.low is not None and mean.high is not None
    assert 1.0 <= mean.low < 2.4 < mean.high <= 5.0
    assert restricted_mean(results) == mean, "the same results give the same interval"


def test_tasks_weigh_the_same_however_many_seeds_they_have() -> None:
    assert restricted_mean([result("a", 1, seed=seed) for seed in range(3)] + [result("b", 5)]).value == 3.0


def test_comparison_is_over_the_tasks_that_both_pursued() -> None:
    ours = [result("a", 2, seed=s) for s in range(3)] + [result("only ours", 12)]
    theirs = [result("a", 8, seed=s) for s in range(3)]
    found = compared(ours, theirs, "random")
    assert (found["tasks"], found["runs_ratio"], found["ci_low"], found["ci_high"]) == (1, 0.25, 0.25, 0.25)
    assert found["further_runs_ratio"] == round(1 / 7, 3), "the first run is the same for all policies"
    chain = compared([result("c", 3, stages=2)], [result("c", 6, stages=2)], "random")
    assert chain["further_runs_ratio"] == 0.25
    assert compared([result("c", 2)], [result("c", 1)], "random")["further_runs_ratio"] is None
    with pytest.raises(UserError, match="none of these goals"):
        compared([result("x", 1)], theirs, "random")


def test_report_can_be_read_back(tmp_path: Path) -> None:
    results = [result("a", 2, seed=1), result("a", 1, seed=0), result("b", 3, reached=False)]
    path = tmp_path / "report.json"
    path.write_text(json.dumps(as_json("playbook", results)))
    content = read_report(path)
    assert sorted(read_results(content), key=lambda r: (r.name, r.seed)) == sorted(
        results, key=lambda r: (r.name, r.seed)
    )
    row = content["tasks"][0]
    assert {key: row[key] for key in ("name", "reached_first", "reached", "runs", "trainer_seconds", "target")} == {
        "name": "a", "reached_first": True, "reached": True, "runs": 1.5, "trainer_seconds": 6.0, "target": 0.9,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "said"),
    [("{", "is not JSON"), ("[]", "no report of the gym"), ('{"policy": "none", "tasks": [{}]}', "no report")],
)
def test_other_file_is_refused(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(content)
    with pytest.raises(UserError, match=said):
        read_results(read_report(path))


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_report(tmp_path / "none.json")
