"""Secrets that a job prints are looked for before they are stored, however they arrive and however much there is."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from runners.joblog import read_since
from runners.redactedlog import RedactedLog

TOKEN = "ghp_" + "A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8"
KEY = (
    "-----BEGIN RSA PRIVATE KEY-----\n"
    + "".join(f"{'MIIEow' if line == 0 else 'q1W2e3'}{'R4t5Y6u7I8o9' * 4}\n" for line in range(48))
    + "-----END RSA PRIVATE KEY-----\n"
)


def stored(path: Path, pieces: Iterable[bytes], *, settling: bool = True, cap_bytes: int = 16 << 20) -> bytes:
    """What the file holds when the pieces came one by one, each looked through before the next."""
    log = RedactedLog(path, cap_bytes)
    for piece in pieces:
        log.write(piece)
        if settling:
            log._next_look = 0.0
            log.settle(time.monotonic())
    log.close()
    return path.read_bytes()


@pytest.mark.parametrize("cut", range(1, len(TOKEN), 5))
@pytest.mark.parametrize("settling", [True, False])
def test_token_that_arrives_in_two_pieces_is_found(tmp_path, cut, settling):
    line = f"token {TOKEN} is set\n".encode()
    found = stored(tmp_path / "log", [line[: 6 + cut], line[6 + cut :]], settling=settling)
    assert found == b"token [redacted] is set\n"


@pytest.mark.parametrize("before", range(65536 - 64, 65536 + 8, 8))
def test_token_on_the_border_of_what_is_looked_through_at_once_is_found(tmp_path, before):
    text = "word " * (before // 5) + " " * (before % 5)
    found = stored(tmp_path / "log", [f"{text}{TOKEN} end\n".encode()], settling=False)
    assert TOKEN[8:].encode() not in found
    assert found.endswith(b"[redacted] end\n")


def test_private_key_is_gone_line_by_line(tmp_path):
    found = stored(tmp_path / "log", [b"a key:\n", *(line.encode() for line in KEY.splitlines(True)), b"the end\n"])
    assert b"R4t5" not in found
    assert found.startswith(b"a key:\n[redacted]")
    assert found.endswith(b"the end\n")


def test_token_that_a_terminal_wrapped_is_found_when_both_lines_come_together(tmp_path):
    found = stored(tmp_path / "log", [f"{TOKEN[:30]}\n{TOKEN[30:]}\n".encode()])
    assert TOKEN[6:30].encode() not in found and TOKEN[30:].encode() not in found


def test_line_of_a_megabyte_without_a_break_hides_no_token(tmp_path):
    found = stored(tmp_path / "log", [b"x" * 300_000 + b" " + TOKEN.encode() + b" " + b"y" * 700_000])
    assert TOKEN[6:].encode() not in found
    assert len(found) > 1_000_000


def test_bytes_that_are_no_text_stay_as_they_are(tmp_path):
    content = bytes(range(256)) * 300 + "ä€😀".encode() * 30_000
    assert stored(tmp_path / "log", [content[i : i + 7001] for i in range(0, len(content), 7001)]) == content


def test_what_was_printed_is_stored_within_half_a_second_while_the_job_goes_on(tmp_path):
    log = RedactedLog(tmp_path / "log")
    log.write(b"step 1\nstep 2 is under w")
    log.settle(time.monotonic())
    assert (tmp_path / "log").read_bytes() == b"", "the next line may show what this one was"
    log.settle(time.monotonic() + 0.11)
    assert (tmp_path / "log").read_bytes() == b"step 1\nstep 2 is under "
    log.close()
    assert (tmp_path / "log").read_bytes() == b"step 1\nstep 2 is under w"


def test_flood_keeps_its_end_and_costs_no_more_than_the_cap(tmp_path):
    log = RedactedLog(tmp_path / "log", cap_bytes=1 << 20)
    started = time.process_time()
    for number in range(1600):
        log.write(b"%07d " % number + b"x" * 63 * 1024 + b" " + TOKEN.encode() + b"\n")
        log.settle(0.0)
    log.write(b"the end\n")
    log.close()
    found = (tmp_path / "log").read_bytes()
    assert len(found) <= 1 << 20 and found.endswith(b"the end\n")
    assert b"earlier bytes dropped" in found.partition(b"\n")[0]
    assert TOKEN[8:].encode() not in found
    assert time.process_time() - started < 6, "100 MB at three megabytes a second would have been half a minute"


def test_secret_half_of_which_was_dropped_is_found_by_what_was_before(tmp_path):
    for shift in range(0, 48, 6):
        path = tmp_path / f"log{shift}"
        log = RedactedLog(path, cap_bytes=8192)
        log.write(b"a" * (4096 + shift - 24) + b" " + TOKEN.encode() + b" " + b"b b " * 1020)
        log.write(b"c c " * 10)
        log.close()
        assert not any(TOKEN[i : i + 10].encode() in path.read_bytes() for i in range(len(TOKEN) - 10)), shift


def test_reader_that_follows_gets_every_byte_once_until_the_cap_drops_some(tmp_path):
    path = tmp_path / "log"
    log = RedactedLog(path, cap_bytes=4096)
    seen, position = b"", 0
    for number in range(300):
        log.write(b"line %04d\n" % number)
        log._next_look = 0.0
        log.settle(time.monotonic())
        data, position = read_since(path, position, 1 << 20)
        seen += data
    log.close()
    assert seen + read_since(path, position, 1 << 20)[0] == b"".join(b"line %04d\n" % n for n in range(300))


def test_log_that_cannot_be_written_says_so_and_does_not_grow_in_memory(tmp_path):
    log = RedactedLog(tmp_path / "log")
    log.write(b"x\n")
    log._log._file.close()
    with pytest.raises(ValueError, match="closed file"):
        log.close()
    assert not log._waiting
