"""Which traceback of a log is its end: not those that were generated, quoted or caught, in whatever form they stand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bot.diagnosis import diagnose
from bot.diagnosis.logs import last_crash
from bot.domain.diagnosis import Symptom

CRASH = (
    "Traceback (most recent call last):\n"
    '  File "/job/run.py", line 88, in main\n'
    "    trainer.train()\n"
    "RuntimeError: the size of tensor a must match the size of tensor b\n"
)
GENERATED = 'Traceback (most recent call last):\n  File "main.py", line 1, in <module>\nMemoryError: boo\n'
RECORDS = "".join(f"{{'loss': {2 - i / 10}, 'epoch': {i / 10}}}\n" for i in range(4))


def marked(text: str, mark: str) -> str:
    return "".join(f"{mark}{line}\n" for line in text.rstrip("\n").split("\n"))


@pytest.mark.parametrize(
    "log",
    [
        RECORDS + "Completion: " + GENERATED,
        RECORDS + "[sample 12] " + GENERATED,
        RECORDS + "| " + GENERATED.replace("\n", "\n| ") + "\n",
        RECORDS + "\n".join(f"│ {line:<60} │" for line in GENERATED.split("\n")),
        RECORDS + "    " + GENERATED.replace("\n", "\n    "),
        RECORDS + json.dumps({"completion": GENERATED}) + "\n",
        RECORDS + "Why does this fail?\n```\n" + GENERATED + "```\n",
        RECORDS + "Traceback (most recent call last): is what Python prints first.\n",
        RECORDS + "Traceback (most recent call last):\nis what Python prints first.\n",
        GENERATED + RECORDS,
        GENERATED + "step 10 | loss 2.31\nstep 20 | loss 2.28\nstep 30 | loss 2.27\n",
        GENERATED + " 10%|#   | 10/100 [00:10<01:30,  1.00s/it]\r 11%|#   | 11/100 [00:11<01:29,  1.00s/it]\n",
        GENERATED + "sample text\n" * 500,
    ],
    ids=[
        "mid-line", "bracketed", "quoted", "table", "indented", "json", "fenced", "in prose", "named in prose",
        "caught", "caught by another trainer", "under a bar that went on", "far from the end",
    ],
)  # fmt: skip
def test_traceback_in_a_text_is_no_crash(log: str) -> None:
    assert last_crash(log) is None


@pytest.mark.parametrize(
    "log",
    [
        CRASH,
        marked(CRASH, "[rank3]: "),
        marked(CRASH, "[default0]:[rank0]: "),
        marked(CRASH, "3: "),
        marked(CRASH, "(TaskRunner pid=4711) "),
        "".join(f"2026-11-02T10:00:{i:02d}.0{i}Z {line}\n" for i, line in enumerate(CRASH.rstrip().split("\n"))),
        "  5%|5    | 5/100 [00:30<09:30,  6.00s/it]" + CRASH + "  5%|5    | 5/100 [00:31<09:40,  6.10s/it]\n",
        CRASH.replace("\n", "\r\n"),
        CRASH + "wandb: Synced 5 files\n" * 40,
        "```\nprint(1)\n```\n" + CRASH,
        GENERATED.replace("\n", "\n> ") + "\n" + CRASH,
    ],
    ids=["bare", "rank", "launcher and rank", "srun", "ray", "times", "behind a bar", "windows", "tracker",
         "behind a fence", "both"],
)  # fmt: skip
def test_traceback_of_the_process_is_its_crash(log: str) -> None:
    crash = last_crash(RECORDS + log)
    assert crash is not None and crash.symptom is Symptom.SCRIPT_ERROR
    assert crash.exception.startswith("RuntimeError: the size of tensor a") and crash.where == "run.py:88 in main"


def test_memory_that_ran_out_in_a_text_is_none() -> None:
    assert last_crash("CUDA out of memory, retrying with half of the batch\n" + RECORDS) is None
    crash = last_crash(
        RECORDS + "slurmstepd: error: Detected 1 oom_kill event\nOut of memory: Killed process 7 (python)\n"
    )
    assert crash is not None and crash.symptom is Symptom.OOM


def test_run_that_came_to_its_end_did_not_crash(tmp_path: Path, build: Any) -> None:
    history = build.curve(build.noisy(build.decay(2.0, 1.0, 60)))
    log = "last sample:\n" + CRASH
    (tmp_path / "log.txt").write_text(log)
    for record, expected in (({}, [Symptom.SCRIPT_ERROR]), ({"step": 60, "train_runtime": 9.0, "train_loss": 1.2}, [])):
        told = {"global_step": 60, "max_steps": 60, "log_history": [*history, record]}
        (tmp_path / "trainer_state.json").write_text(json.dumps(told))
        assert [d.symptom for d in diagnose(tmp_path).diagnoses] == expected
    (tmp_path / "job.json").write_text(json.dumps({"state": "failed"}))
    assert [d.symptom for d in diagnose(tmp_path).diagnoses] == [Symptom.SCRIPT_ERROR]
