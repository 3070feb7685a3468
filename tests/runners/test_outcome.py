"""How an ending is read: one table of what the supervisor saw and what it makes of it."""

from __future__ import annotations

from typing import Any

import pytest

from runners.job import FailureKind, JobState
from runners.outcome import Ending, outcome

TRACEBACK = "Traceback (most recent call last):\n  File 'train.py', line 3\n"


def boxed(**seen: Any) -> Ending:
    return Ending(**{"return_code": 1, "sandboxed": True, "reported_exit_code": 1, **seen})


@pytest.mark.parametrize(
    ("ending", "state", "failure", "exit_code", "evidence"),
    [
        (boxed(return_code=0, reported_exit_code=0), JobState.SUCCEEDED, None, 0, ""),
        (boxed(), JobState.FAILED, FailureKind.SCRIPT_ERROR, 1, "exit code 1"),
        (boxed(return_code=-9, reported_exit_code=None, cancelled=True), JobState.CANCELLED, None, 137, None),
        (boxed(cancelled=True, oom_kills=1), JobState.CANCELLED, None, 1, None),
        (boxed(shutdown_signal=15), JobState.LOST, FailureKind.PLATFORM, 1, "told to stop by SIGTERM"),
        (boxed(timed_out_after_seconds=3600.0, oom_kills=1), JobState.FAILED, FailureKind.TIMEOUT, 1, "3600 s"),
        (boxed(reported_exit_code=137, oom_kills=2), JobState.FAILED, FailureKind.OOM, 137, "oom_kill counter 2"),
        (boxed(return_code=0, reported_exit_code=0, oom_kills=1), JobState.FAILED, FailureKind.OOM, 0, "counter 1"),
        (boxed(memory_over="5 GiB held"), JobState.FAILED, FailureKind.OOM, 1, "5 GiB held"),
        (boxed(processes_over="99 processes"), JobState.FAILED, FailureKind.PROCESS_LIMIT, 1, "99 processes"),
        (boxed(disk_over="40 GiB"), JobState.FAILED, FailureKind.DISK_FULL, 1, "40 GiB"),
        (boxed(pids_refused=4), JobState.FAILED, FailureKind.PROCESS_LIMIT, 1, "pids.events max 4"),
        (boxed(return_code=0, reported_exit_code=0, pids_refused=4), JobState.SUCCEEDED, None, 0, ""),
        (boxed(reported_exit_code=137), JobState.FAILED, FailureKind.SIGNAL, 137, "SIGKILL"),
        (boxed(reported_exit_code=153), JobState.FAILED, FailureKind.DISK_FULL, 153, "SIGXFSZ"),
        (boxed(reported_exit_code=None, log_tail="bwrap: Can't mount proc\n"), JobState.FAILED, FailureKind.PLATFORM,
         None, "bwrap: Can't mount proc"),
        (boxed(return_code=-9, reported_exit_code=None), JobState.FAILED, FailureKind.PLATFORM, None, "ended with -9"),
        (boxed(start_error="the job could not be started: no space"), JobState.FAILED, FailureKind.PLATFORM, None,
         "no space"),
        (Ending(return_code=-11, sandboxed=False), JobState.FAILED, FailureKind.SIGNAL, 139, "SIGSEGV"),
        (Ending(return_code=0, sandboxed=False), JobState.SUCCEEDED, None, 0, ""),
        (Ending(return_code=None, sandboxed=False, cancelled=True), JobState.CANCELLED, None, None, None),
    ],
)  # fmt: skip
def test_ending_is_read_by_the_strongest_evidence(ending, state, failure, exit_code, evidence):
    result = outcome(ending)
    assert (result.state, result.failure, result.exit_code) == (state, failure, exit_code)
    if evidence:
        assert any(evidence in words for words in result.evidence)
    else:
        assert result.evidence == ()


@pytest.mark.parametrize(
    ("last_line", "failure"),
    [
        ("MemoryError", FailureKind.OOM),
        ("MemoryError: Unable to allocate 8.00 GiB for an array", FailureKind.OOM),
        (
            "RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory",
            FailureKind.OOM,
        ),
        ("RuntimeError: DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes", FailureKind.OOM),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", FailureKind.OOM),
        ("RuntimeError: CUDA error: out of memory", FailureKind.OOM),
        ("OSError: [Errno 12] Cannot allocate memory", FailureKind.OOM),
        ("terminate called after throwing an instance of 'std::bad_alloc'", FailureKind.OOM),
        ("OSError: [Errno 28] No space left on device", FailureKind.DISK_FULL),
        ("OSError: [Errno 27] File too large", FailureKind.DISK_FULL),
        ("BlockingIOError: [Errno 11] Resource temporarily unavailable", FailureKind.PROCESS_LIMIT),
        ("RuntimeError: can't start new thread", FailureKind.PROCESS_LIMIT),
        ("ValueError: unsupported loss 'MemoryErrorLoss'", FailureKind.SCRIPT_ERROR),
        ("KeyError: 'answer'", FailureKind.SCRIPT_ERROR),
    ],
)
def test_last_words_of_a_failed_job_name_its_kind(last_line, failure):
    result = outcome(boxed(log_tail=f"step 1\n{TRACEBACK}{last_line}\n"))
    assert result.failure is failure
    assert result.evidence[0] == "exit code 1"
    assert result.evidence[1].startswith("stderr: ")


def test_error_that_was_handled_before_the_last_traceback_is_not_blamed():
    log = f"{TRACEBACK}MemoryError\nretrying with a smaller batch\n{TRACEBACK}KeyError: 'answer'\n"
    assert outcome(boxed(log_tail=log)).failure is FailureKind.SCRIPT_ERROR


def test_of_two_errors_in_one_traceback_the_last_is_blamed():
    log = f"{TRACEBACK}MemoryError\nDuring handling, another occurred:\nOSError: [Errno 28] No space left on device\n"
    assert outcome(boxed(log_tail=log)).failure is FailureKind.DISK_FULL


def test_words_of_a_job_that_succeeded_mean_nothing():
    assert outcome(boxed(return_code=0, reported_exit_code=0, log_tail="MemoryError\n")).state is JobState.SUCCEEDED
