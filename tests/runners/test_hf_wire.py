"""What a container says through its log, told apart from what the script prints, had once however often it comes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runners.hf_jobs.container import ContainerStore
from runners.hf_jobs.runs import Runs
from runners.hf_jobs.stream import Spool
from runners.hf_jobs.wire import LOG, MARK_BYTES, METRICS, PREFIX, STATUS, Mark, Signer
from runners.job import JobId, JobState, JobStatus

SIGNER = Signer("hf_token", "owner/job")


class Said:
    """A container's store whose lines are kept, and whose repository takes everything."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lines: list[str] = []
        self.commits: list[dict[str, Any]] = []

        def commit(runs: Runs, message: str, files: dict[str, Any], delete: tuple[str, ...] = ()) -> str:
            self.commits.append(files)
            return "c1"

        monkeypatch.setattr(Runs, "commit", commit)
        runs = Runs("acme/runs", "http://127.0.0.1:1", "hf_token")
        self.store = ContainerStore(runs, "jobs/job", SIGNER, ("", "", ""), self.lines.append)

    def marks(self, kind: str) -> list[Mark]:
        return [mark for line in self.lines if (mark := SIGNER.read(line)) is not None and mark.kind == kind]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Said:
    return Said(monkeypatch)


def status(state: JobState, at: float = 1.0) -> bytes:
    return json.dumps(JobStatus(JobId("job"), state).as_dict() | {"at": at}).encode()


def pieces(spool: Path, prefix: str) -> str:
    return "".join(path.read_text() for path in sorted((spool / prefix).glob("*")))


def test_mark_is_read_by_who_shares_the_token_and_means_that_job() -> None:
    line = SIGNER.line(Mark(7, STATUS, {"state": "running"}))
    assert SIGNER.read(line) == Mark(7, STATUS, {"state": "running"})
    assert Signer("another", "owner/job").read(line) is None
    assert Signer("hf_token", "owner/another").read(line) is None
    assert SIGNER.read(line.replace("running", "succeeded")) is None
    assert SIGNER.read(line.replace(f"{PREFIX}7 ", f"{PREFIX}8 ")) is None


@pytest.mark.parametrize(
    "line", ["", PREFIX, f"{PREFIX}1", f"{PREFIX}x y z {{}}", f"{PREFIX}² a b c", "@postdocs 1 2 3"]
)
def test_line_that_is_no_mark_is_none(line: str) -> None:
    assert SIGNER.read(line) is None


def test_log_that_comes_again_and_again_is_had_once(tmp_path: Path) -> None:
    stream = [
        "===== Job started", "pip says something",
        SIGNER.line(Mark(1, STATUS, {"state": "running"})), "first", "second", SIGNER.line(Mark(2, LOG, 2)),
        SIGNER.line(Mark(3, METRICS, ['{"step": 1}', '{"step": 2}'])), "third", SIGNER.line(Mark(4, LOG, 1)),
        SIGNER.line(Mark(5, METRICS, ['{"step": 3}'])),
    ]  # fmt: skip
    for cut in range(len(stream) + 1):
        # Broken off anywhere, then from the first line again by the next life of the bot.
        folder = tmp_path / str(cut)
        for lines in (stream[:cut], stream):
            spool = Spool(folder, SIGNER)
            for line in lines:
                spool.take(line)
        assert pieces(folder, "log") == "===== Job started\npip says something\nfirst\nsecond\nthird\n"
        assert pieces(folder, "metrics") == '{"step": 1}\n{"step": 2}\n{"step": 3}\n'


def test_what_no_mark_has_claimed_is_kept_when_the_log_ends(tmp_path: Path) -> None:
    spool = Spool(tmp_path, SIGNER)
    spool.take(SIGNER.line(Mark(1, STATUS, {"state": "running"})))
    spool.take("Traceback (most recent call last):")
    spool.take("ImportError: no such thing")
    spool.end()
    assert pieces(tmp_path, "log").endswith("ImportError: no such thing\n")
    assert spool.last_line == "ImportError: no such thing"


def test_forged_mark_is_an_ordinary_line(tmp_path: Path) -> None:
    spool = Spool(tmp_path, SIGNER)
    spool.take(Signer("guessed", "owner/job").line(Mark(1, STATUS, {"state": "succeeded"})))
    spool.take(SIGNER.line(Mark(1, LOG, 1)))
    assert not (tmp_path / "status.json").exists()
    assert "succeeded" in pieces(tmp_path, "log")


def test_script_that_prints_a_mark_prints_a_line(said: Said) -> None:
    real = SIGNER.line(Mark(1, STATUS, {"state": "succeeded"}))
    said.store.write("log/00000001.txt", f"{real}\n".encode())
    said.store.flush(everything=True)
    assert said.marks(STATUS) == []
    assert said.lines[0] == f" {real}"[:MARK_BYTES]


def test_flood_of_log_is_cut_from_its_front_and_says_so(said: Said) -> None:
    for _ in range(40):
        said.store.write("log/00000001.txt", ("x" * 99 + "\n").encode() * 10_000)
        said.store.flush()
    said.store.write("log/00000001.txt", b"the very end")
    said.store.write("status.json", status(JobState.SUCCEEDED))
    printed = [line for line in said.lines if SIGNER.read(line) is None]
    assert sum(map(len, printed)) < 1_000_000
    assert printed[-1] == "the very end"
    assert any("are left out here" in line for line in printed)


def test_no_line_is_longer_than_a_container_runtime_takes(said: Said) -> None:
    said.store.write("log/00000001.txt", b"y" * 50_000 + b"\n")
    rows = [json.dumps({"step": n, "loss": 1.5, "text": "z" * 200}) for n in range(100)]
    huge = json.dumps({"step": 100, "text": "z" * 5000})
    said.store.write("metrics/00000001.jsonl", "\n".join([*rows, huge]).encode())
    said.store.flush(everything=True)
    assert max(map(len, said.lines)) < 2 * MARK_BYTES
    assert [row for mark in said.marks(METRICS) for row in mark.data] == rows


def test_sign_of_life_is_printed_once_a_minute_and_news_at_once(said: Said) -> None:
    for at in range(100):
        said.store.write("status.json", status(JobState.RUNNING, at))
    assert len(said.marks(STATUS)) == 1
    said.store.write("status.json", status(JobState.SUCCEEDED, 101))
    assert [mark.data["state"] for mark in said.marks(STATUS)] == ["running", "succeeded"]
    [words] = [files["jobs/job/last.txt"] for files in said.commits]
    last = SIGNER.read(words.decode().strip())
    assert last is not None
    assert last.data["state"] == "succeeded"


def test_progress_bar_leaves_its_last_state(said: Said) -> None:
    said.store.write("log/00000001.txt", b"10%\r50%\r100%\nunfinished")
    said.store.flush(everything=True)
    assert said.lines[:2] == ["100%", "unfinished"]
