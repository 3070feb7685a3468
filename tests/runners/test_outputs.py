"""Reading what a job wrote while it may still be writing, and may mean harm."""

from __future__ import annotations

import contextlib
import os

import pytest

from bot.errors import UserError
from runners.outputs import disarm, read_output, used_bytes


@pytest.fixture
def work(tmp_path):
    (tmp_path / "secret").write_text("key")
    (tmp_path / "work/out").mkdir(parents=True)
    (tmp_path / "work/out/metrics.jsonl").write_text('{"loss": 1}\n')
    return tmp_path / "work"


def test_regular_file_is_read(work):
    assert read_output(work, "out/metrics.jsonl") == b'{"loss": 1}\n'


def test_missing_file_is_file_not_found(work):
    for path in ("out/none.json", "none/metrics.jsonl"):
        with pytest.raises(FileNotFoundError, match="not in the job's folder"):
            read_output(work, path)


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../secret", "out/../../secret"])
def test_path_out_of_the_folder_is_refused(work, path):
    with pytest.raises(UserError, match="not a path below"):
        read_output(work, path)


@pytest.mark.timeout(20)
def test_link_pipe_or_folder_in_place_of_a_file_is_refused(work):
    (work / "out/link").symlink_to("../../secret")
    (work / "elsewhere").symlink_to("..")
    os.mkfifo(work / "out/pipe")
    for path in ("out/link", "elsewhere/secret", "out/pipe", "out", "out/metrics.jsonl/x"):
        with pytest.raises(UserError, match=r"regular file|plain file"):
            read_output(work, path)


def test_file_past_the_limit_is_refused_with_both_sizes(work):
    with pytest.raises(UserError, match="12 bytes long; at most 11 are read"):
        read_output(work, "out/metrics.jsonl", limit_bytes=11)


def test_reading_leaves_no_descriptor_open(work):
    before = len(os.listdir("/proc/self/fd"))
    for path in ("out/metrics.jsonl", "out", "none"):
        with contextlib.suppress(UserError, FileNotFoundError):
            read_output(work, path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_disarm_keeps_what_is_harmless_and_names_what_it_removed(work):
    (work / "out/latest").symlink_to("metrics.jsonl")
    (work / "out/home").symlink_to("/root")
    (work / "loop").symlink_to("loop")
    os.mkfifo(work / "pipe")
    assert sorted(note.partition(":")[0] for note in disarm(work)) == ["out/home", "pipe"]
    assert sorted(os.listdir(work)) == ["loop", "out"]
    assert sorted(os.listdir(work / "out")) == ["latest", "metrics.jsonl"]
    assert disarm(work) == []


def test_used_bytes_counts_space_on_disk_and_not_holes(work):
    (work / "out/solid").write_bytes(b"x" * 300_000)
    with open(work / "out/hole", "wb") as file:
        file.truncate(1 << 30)
    assert 300_000 <= used_bytes(work) < 1_000_000
    assert used_bytes(work / "none") == 0
