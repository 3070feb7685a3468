"""What is kept of a run: rounded, sampled, without this machine's paths, and packed the same way twice."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from bot.errors import UserError
from bot.zoo.replayed import TAILS, replayed_traces
from bot.zoo.running import Outcome
from bot.zoo.specimen import plain
from bot.zoo.traces import TRAIN_ROWS, Trace, Truth, clean_log, goal_of, pack, read_traces, rounded, sampled, trace_of


def job_folder(folder: Path) -> Path:
    (folder / "out").mkdir(parents=True)
    (folder / "data").mkdir()
    (folder / "recipe.yaml").write_text("learning_rate: 3.0e-3\n")
    (folder / "log.txt").write_text(f"  File \"{folder}/train.py\", line 3, in main\nKeyError: 'text'\n")
    metrics = [{"step": n, "loss": 1 / (3 * n), "num_tokens": 12345, "grad_norm": "NaN"} for n in range(1, 50)]
    (folder / "out" / "metrics.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in metrics) + '{"step": 50, "l'
    )
    rows = [{"prompt": f"p{n}", "completion": f"c{n}"} for n in range(1000)]
    (folder / "data" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_trace_of_a_run_is_small_and_holds_no_path(tmp_path: Path) -> None:
    folder = job_folder(tmp_path / "run-1")
    outcome = Outcome(exit_code=1, state="failed", failure="script_error", evidence=["exit code 1"])
    trace = trace_of(plain("sft", "reverse", 0), outcome, folder, "run-abc")
    metrics = [json.loads(line) for line in trace.files["metrics.jsonl"].splitlines()]
    assert len(metrics) == 49
    assert metrics[0] == {"step": 1, "loss": 0.3333, "grad_norm": "NaN"}
    assert len(trace.files["train.jsonl"].splitlines()) == TRAIN_ROWS
    assert str(tmp_path) not in b"".join(trace.files.values()).decode()
    assert 'File "/job/train.py"' in trace.files["log.txt"].decode()
    assert json.loads(trace.files["job.json"])["job_id"] == "run-abc"
    assert "evaluation.json" not in trace.files


def test_numbers_are_rounded_wherever_they_are() -> None:
    assert rounded({"a": [1.234567, {"b": 2.0}], "c": True, "d": 7, "e": "1.234567"}) == {
        "a": [1.235, {"b": 2}], "c": True, "d": 7, "e": "1.234567"
    }  # fmt: skip
    assert rounded(1.23456e-9) == 1.235e-9


def test_sample_of_equal_rows_is_the_same(tmp_path: Path) -> None:
    rows = [{"n": n} for n in range(500)]
    assert sampled(rows, 20) == sampled(list(rows), 20)
    assert sampled(rows[:5], 20) == rows[:5]


def test_log_keeps_its_end() -> None:
    text = clean_log("\n".join(f"line {n}" for n in range(900)), Path("/tmp/run-1"))
    assert text.startswith("line 700") and text.endswith("line 899")


def test_half_of_the_goals_are_in_reach_and_some_runs_have_none() -> None:
    goals = [goal_of(plain("sft", "upper", seed)) for seed in range(24)]
    assert 1 < goals.count(None) < 12
    assert len({goal["target"] for goal in goals if goal}) == 2


def test_archive_is_read_back_whole_and_made_alike_twice(tmp_path: Path) -> None:
    traces = list(replayed_traces())
    size = pack(traces, tmp_path / "a.tar.xz")
    pack(traces[::-1], tmp_path / "b.tar.xz")
    assert (tmp_path / "a.tar.xz").read_bytes() == (tmp_path / "b.tar.xz").read_bytes()
    assert size == (tmp_path / "a.tar.xz").stat().st_size
    found = read_traces(tmp_path / "a.tar.xz")
    assert {trace.name: trace.files for trace in found} == {trace.name: trace.files for trace in traces}


def test_folder_of_traces_is_read_too(tmp_path: Path) -> None:
    trace = Trace("one", {"recipe.yaml": b"a: 1\n", "truth.json": b'{"healthy": true, "labels": [], "line_keys": []}'})
    for name, content in trace.files.items():
        (tmp_path / "one").mkdir(exist_ok=True)
        (tmp_path / "one" / name).write_bytes(content)
    [found] = read_traces(tmp_path)
    assert found.files == trace.files
    assert found.truth == Truth(healthy=True)
    assert {path.name for path in found.write(tmp_path / "shown").iterdir()} == {"recipe.yaml"}


@pytest.mark.parametrize("place", ["nothing", "file", "folder"])
def test_place_without_traces_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_bytes(b"no archive")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="--traces"):
        read_traces(tmp_path / place)


def test_archive_from_elsewhere_writes_nowhere(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "bad.tar", "w") as tar:
        for name in ("../../evil/truth.json", "a/truth.json"):
            content = b'{"healthy": true}'
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        link = tarfile.TarInfo("a/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    found = read_traces(tmp_path / "bad.tar")
    assert {trace.name for trace in found} == {"evil", "a"}
    assert all("link" not in trace.files for trace in found)
    assert not (tmp_path.parent.parent / "evil").exists()


def test_truth_survives_json() -> None:
    truth = Truth(healthy=False, labels=("a", "b"), line_keys=("k",), repairs={"playbook": 1}, fault=3)
    assert Truth.from_dict(json.loads(json.dumps(truth.as_dict()))) == truth


def test_written_logs_are_of_many_kinds() -> None:
    labels = {tail.labels[0] for tail in TAILS}
    assert {"oom", "nccl_timeout", "deps", "dtype", "host_oom", "disk_full", "auth"} <= labels
    assert len({trace.name for trace in replayed_traces()}) == len(TAILS)
    assert all(trace.truth.replayed for trace in replayed_traces())
