"""The capped log, and its tail as a terminal would show it."""

from __future__ import annotations

import os

from runners.joblog import CappedLog, tail, tail_text


def test_log_at_its_cap_drops_the_oldest_whole_lines_and_says_how_much(tmp_path):
    path = tmp_path / "log.txt"
    log = CappedLog(path, cap_bytes=1000)
    for number in range(200):
        log.write(f"line {number:03d}\n".encode())
        assert path.stat().st_size <= 1000
    log.close()
    note, *lines = path.read_text().splitlines()
    assert lines[-1] == "line 199"
    assert lines == [f"line {number:03d}" for number in range(200 - len(lines), 200)]
    assert f"postdoc: {9 * (200 - len(lines)):,} earlier bytes" in note


def test_single_write_larger_than_the_cap_keeps_its_end(tmp_path):
    path = tmp_path / "log.txt"
    log = CappedLog(path, cap_bytes=1000)
    log.write(b"x" * 5000 + b"\nthe end\n")
    log.close()
    assert path.stat().st_size <= 1000
    assert tail(path, 1) == "the end"


def test_tail_shows_only_the_last_state_of_a_progress_bar(tmp_path):
    path = tmp_path / "log.txt"
    path.write_bytes(b"start\r\n 10%|#   |\r 50%|##  |\r100%|####|\n{'loss': 1.5}\r\n")
    assert tail(path, 10).splitlines() == ["start", "100%|####|", "{'loss': 1.5}"]


def test_tail_of_long_lines_and_broken_text_is_whole(tmp_path):
    path = tmp_path / "log.txt"
    path.write_bytes(b"first\n" + b"a" * 5000 + b"\n\xff\xfe\nlast")
    assert [len(line) for line in tail(path, 3).splitlines()] == [5000, 2, 4]
    assert tail(path, 100).startswith("first\n")


def test_tail_of_a_log_that_is_not_there_is_empty(tmp_path):
    assert tail(tmp_path / "log.txt", 5) == ""
    assert tail_text(tmp_path / "log.txt", 5) == ""


def test_reader_sees_a_whole_file_while_the_log_is_cut(tmp_path):
    path = tmp_path / "log.txt"
    log = CappedLog(path, cap_bytes=400)
    log.write(b"a line\n" * 50)
    with open(path, "rb") as reader:
        log.write(b"a line\n" * 10)
        assert reader.read() == b"a line\n" * 50
        assert os.fstat(reader.fileno()).st_ino != path.stat().st_ino
    log.close()
