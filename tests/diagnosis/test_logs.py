"""Crash signatures: what the last lines of a log say."""

from __future__ import annotations

from typing import Any

import pytest

from bot.diagnosis import diagnose
from bot.diagnosis.logs import last_crash
from bot.domain.diagnosis import Severity, Symptom

FRAMES = """Traceback (most recent call last):
  File "/job/train.py", line 88, in main
    trainer.train()
  File "/venv/trl/trainer/sft_trainer.py", line 1438, in tokenize
    result = example[self.dataset_text_field]
"""
NVIDIA = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.1 GiB"
)


@pytest.mark.parametrize(
    ("log", "symptom", "subject"),
    [
        (FRAMES + "KeyError: 'text'\n", Symptom.WRONG_COLUMNS, "text"),
        (FRAMES + "KeyError: \"Unexpected input keys in examples: ['a']\"\n", Symptom.WRONG_COLUMNS, ""),
        (FRAMES.replace("example[", "os.environ[") + "KeyError: 'HOME'\n", Symptom.SCRIPT_ERROR, ""),
        (
            FRAMES + "ValueError: num_samples should be a positive integer value, but got num_samples=0\n",
            Symptom.TRUNCATION,
            None,
        ),
        (FRAMES + NVIDIA + "\n", Symptom.OOM, ""),
        (
            FRAMES + "RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: you tried\n",
            Symptom.OOM,
            "",
        ),
        ("MemoryError\n", Symptom.OOM, ""),
        ("[12.3] Out of memory: Killed process 4711 (python)\n", Symptom.OOM, ""),
        ("slurmstepd: error: *** JOB 1 CANCELLED AT 2026 DUE TO TIME LIMIT ***\n", Symptom.JOB_TIMEOUT, ""),
        (
            FRAMES + "TypeError: __init__() got an unexpected keyword argument 'max_len'\n",
            Symptom.SCRIPT_ERROR,
            "max_len",
        ),
        ("train.py: unknown key learning_rat; did you mean learning_rate?\n", Symptom.SCRIPT_ERROR, "learning_rat"),
        ("train.py: max_length needs at least 2 tokens, not 1\n", Symptom.SCRIPT_ERROR, "max_length"),
        (
            "prepare.py: data_prompt_column: ask is not a column of the data; the columns are q, a\n",
            Symptom.WRONG_COLUMNS,
            "data_prompt_column",
        ),
        (
            "train.py: no row is left to train on: all 9 prompts fill max_length: 6 by themselves; write more\n",
            Symptom.TRUNCATION,
            "max_length",
        ),
    ],
)
def test_end_of_log_names_its_crash(log: str, symptom: Symptom, subject: str | None) -> None:
    crash = last_crash("step 1 loss 2.0\n" + log)
    assert crash is not None and crash.symptom is symptom
    assert subject is None or crash.subject == subject


@pytest.mark.parametrize(
    "log",
    [
        "",
        "done: 100 steps, model in out/model\n",
        "UserWarning: CUDA is not available\n{'loss': 1.2}\n",
        "train.py: max_length needs at least 2 tokens\nretrying with 2\n{'loss': 1.0}\ndone\n",
    ],
)
def test_quiet_log_names_none(log: str) -> None:
    assert last_crash(log) is None


def test_exception_ignored_at_shutdown_is_no_crash() -> None:
    log = "done\nException ignored in: <function Pool.__del__>\n" + FRAMES + "KeyError: 'text'\n"
    assert last_crash(log) is None


def test_only_the_last_traceback_counts() -> None:
    log = FRAMES + "KeyError: 'text'\nretrying\n" + FRAMES + NVIDIA + "\n"
    crash = last_crash(log)
    assert crash is not None and crash.symptom is Symptom.OOM


@pytest.mark.parametrize(
    ("frame", "phase"),
    [
        ("loss.backward()", "backward"),
        ("optimizer.step()", "step"),
        ("Model.from_pretrained(name)", "load"),
        ("x, in forward", "forward"),
    ],
)
def test_out_of_memory_names_its_phase(frame: str, phase: str) -> None:
    crash = last_crash(f"{FRAMES}    {frame}\n{NVIDIA}\n")
    assert crash is not None and crash.phase == phase


def test_traceback_of_a_job_that_succeeded_is_not_a_fault(folder: Any) -> None:
    found = diagnose(folder(log=FRAMES + "KeyError: 'text'\n", job={"state": "succeeded"}))
    assert found.healthy and not found.diagnoses


def test_out_of_memory_halves_the_batch_and_hides_the_script_error(folder: Any) -> None:
    job = {"state": "failed", "failure": "oom", "evidence": ["oom_kill counter 1"], "exit_code": 137}
    (found,) = diagnose(folder(job=job, log="{'loss': 2.0}\n")).diagnoses
    assert (found.symptom, found.key, found.suggested, found.line) == (Symptom.OOM, "per_device_train_batch_size", 4, 5)
    assert found.severity is Severity.FATAL and "oom_kill counter 1" in found.cause


def test_time_limit_shortens_the_run_to_what_fits(folder: Any, build: Any) -> None:
    job = {"state": "failed", "failure": "timeout", "evidence": ["time limit of 600 s"]}
    path = folder("max_steps: 1000\nlearning_rate: 2.0e-5\n", job=job, metrics=build.curve([1.0] * 250))
    (found,) = diagnose(path).diagnoses
    assert (found.symptom, found.key, found.suggested) == (Symptom.JOB_TIMEOUT, "max_steps", 200)


def test_time_limit_that_the_recipe_sets_is_raised(folder: Any, build: Any) -> None:
    job = {"state": "failed", "failure": "timeout"}
    path = folder("max_steps: 1000\ntimeout_seconds: 600\n", job=job, metrics=build.curve([1.0] * 500))
    (found,) = diagnose(path).diagnoses
    assert (found.key, found.suggested, found.line) == ("timeout_seconds", 1440, 2)


def test_missing_column_blames_the_key_that_names_it(folder: Any) -> None:
    recipe = "data_prompt_column: answer_text\ndata_completion_column: a\n"
    log = FRAMES.replace("sft_trainer", "prepare") + "KeyError: 'a'\n"
    (found,) = diagnose(folder(recipe, log=log)).diagnoses
    assert (found.symptom, found.key, found.suggested, found.line) == (
        Symptom.WRONG_COLUMNS,
        "data_completion_column",
        "auto",
        2,
    )


def test_undetected_column_is_named_from_the_ones_that_are_there(folder: Any) -> None:
    log = (
        "prepare.py: cannot tell which column to use; the columns are question, reply_text: name one of them in "
        "data_completion_column\n"
    )
    (found,) = diagnose(
        folder("learning_rate: 1.0e-4\n", log=log, job={"state": "failed", "failure": "script_error"})
    ).diagnoses
    assert (found.key, found.suggested) == ("data_completion_column", "reply_text")


def test_refused_key_is_blamed_on_its_line(folder: Any) -> None:
    recipe = "learning_rate: 1.0e-4\nmax_seq_length: 512\n"
    log = "train.py: unknown key max_seq_length; did you mean max_length?\n"
    (found,) = diagnose(folder(recipe, log=log, job={"state": "failed", "exit_code": 2})).diagnoses
    assert (found.symptom, found.key, found.line) == (Symptom.SCRIPT_ERROR, "max_seq_length", 2)


def test_failed_job_without_a_word_is_unknown(folder: Any) -> None:
    (found,) = diagnose(folder(job={"state": "lost"})).diagnoses
    assert found.symptom is Symptom.UNKNOWN and found.severity is Severity.FATAL
