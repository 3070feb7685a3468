"""What every backend does with a job: one list, tried on each backend that this machine can run."""

from __future__ import annotations

import importlib
import json
import pkgutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bot.domain.redaction import redact
from runners.job import Caps, FailureKind, Fault, JobId, JobSpec, JobState, JobStatus, Runner
from tests.runners import harnesses

NAMES = sorted(module.name for module in pkgutil.iter_modules(harnesses.__path__))


def _kind(name: str) -> Any:
    return importlib.import_module(f"{harnesses.__name__}.{name}").Harness


PARAMS = [
    pytest.param(
        name, marks=[pytest.mark.slow, pytest.mark.timeout(300)] if getattr(_kind(name), "slow", False) else []
    )
    for name in NAMES
]
JOB = JobId("job")
TOKEN = "ghp_" + "A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8"


@pytest.fixture(params=PARAMS)
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    kind = _kind(request.param)
    if why := kind.missing():
        pytest.skip(f"{request.param}: {why}")
    made = kind(tmp_path)
    yield made
    made.close()
    assert made.left_over() == []


@pytest.fixture
def runner(harness: Any) -> Runner:
    return harness.runner()


def ended(harness: Any, runner: Runner, job_id: JobId = JOB) -> JobStatus:
    return wait(lambda: (status := runner.status(job_id)) and status.state.ended and status, harness.seconds)


def running(harness: Any, runner: Runner, mark: str = "under way", job_id: JobId = JOB) -> None:
    """Until the script itself has spoken: a container that starts is not yet a script that runs."""
    wait(lambda: runner.status(job_id) and mark in runner.log_tail(job_id), harness.seconds)


def wait(condition: Callable[[], Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.05)
    return found


UNDER_WAY = "import time\nprint('under way', flush=True)\n"


def test_job_that_succeeds_brings_its_outputs_metrics_and_log(harness, runner, script, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "tiny"}')
    rows = tmp_path / "rows.jsonl"
    rows.write_text("a row\n")
    spec = script(
        "import json, os, pathlib, sys\n"
        "pathlib.Path('out/deep').mkdir(parents=True)\n"
        "pathlib.Path('out/deep/weights.bin').write_bytes(bytes(range(256)))\n"
        "with open('out/metrics.jsonl', 'w') as file:\n"
        "    for step in range(3):\n"
        "        file.write(json.dumps({'step': step, 'loss': 1.0 / (step + 1)}) + '\\n')\n"
        "print(open('data/rows.jsonl').read(), open(sys.argv[1] + '/config.json').read(), os.environ['GREETING'])\n",
        argv=("{python}", "script.py", "{mount:init}"),
        files={"data/rows.jsonl": str(rows)},
        mounts={"init": str(model)},
        environment={"GREETING": "hello there"},
    )
    runner.launch(spec)
    status = ended(harness, runner)
    assert (status.state, status.exit_code, status.failure, status.fault) == (JobState.SUCCEEDED, 0, None, Fault.NONE)
    assert status.started_at <= status.ended_at
    assert (runner.folder(JOB) / "out" / "deep" / "weights.bin").read_bytes() == bytes(range(256))
    assert (runner.folder(JOB) / "data" / "rows.jsonl").read_text() == "a row\n"
    assert [row["loss"] for row in runner.metrics(JOB)] == [1.0, 0.5, pytest.approx(1 / 3)]
    assert [row["step"] for row in runner.metrics(JOB, after=2)] == [2]
    assert "a row" in runner.log_tail(JOB)
    assert '"model_type": "tiny"' in runner.log_tail(JOB)
    assert "hello there" in runner.log_tail(JOB)
    assert list(runner.jobs()) == [JOB]


def test_script_that_fails_is_blamed_with_its_last_words(harness, runner, script):
    runner.launch(
        script("import os\nos.mkdir('out')\nopen('out/partial', 'w').write('kept')\nraise ValueError('no such column')")
    )
    status = ended(harness, runner)
    assert (status.state, status.failure, status.exit_code) == (JobState.FAILED, FailureKind.SCRIPT_ERROR, 1)
    assert status.fault is Fault.SCRIPT
    assert "no such column" in " ".join(status.evidence)
    assert (runner.folder(JOB) / "out" / "partial").read_text() == "kept"


def test_memory_past_the_cap_is_oom_and_the_scripts_fault(harness, runner, script):
    runner.launch(script(f"{UNDER_WAY}held = []\nwhile True: held.append(bytearray(8 << 20))",
                         caps=Caps(memory_gib=0.25, timeout_seconds=60)))  # fmt: skip
    status = ended(harness, runner)
    assert (status.state, status.failure) == (JobState.FAILED, FailureKind.OOM)
    assert status.fault is Fault.SCRIPT
    assert status.evidence


def test_job_past_its_time_out_is_ended(harness, runner, script):
    runner.launch(script(f"{UNDER_WAY}time.sleep(600)", caps=Caps(memory_gib=1, timeout_seconds=3)))
    status = ended(harness, runner)
    assert (status.state, status.failure) == (JobState.FAILED, FailureKind.TIMEOUT)
    assert status.fault is Fault.SCRIPT


SAVES = (
    "import json, os, time\n"
    "os.makedirs('out/checkpoint-7')\n"
    "print('under way', flush=True)\n"
    "while not os.path.exists('out/checkpoint_now'): time.sleep(0.02)\n"
    "open('out/checkpoint-7/weights', 'w').write('kept')\n"
    "open('out/latest', 'w').write('checkpoint-7')\n"
    "os.unlink('out/checkpoint_now')\n"
    "time.sleep(600)\n"
)


def test_job_that_is_to_end_makes_a_checkpoint_first_where_it_can_be_asked(harness, runner, script):
    runner.launch(script(SAVES, checkpoints="out"))
    running(harness, runner)
    most = runner.checkpoint_first(JOB)
    assert (most > 0) == getattr(harness, "hears", True)
    if most:
        wait(lambda: runner.checkpoint_is_made(JOB), harness.seconds)
    assert runner.cancel(JOB).state is JobState.CANCELLED
    if most:
        assert (runner.folder(JOB) / "out" / "checkpoint-7" / "weights").read_text() == "kept"
        assert (runner.folder(JOB) / "out" / "latest").read_text() == "checkpoint-7"


def test_silence_of_a_running_job_is_told(harness, runner, script):
    runner.launch(script(f"{UNDER_WAY}time.sleep(600)"))
    running(harness, runner)
    wait(lambda: runner.status(JOB).seconds_since_output is not None, harness.seconds)
    runner.cancel(JOB)


def test_cancelled_job_is_gone_and_stays_cancelled(harness, runner, script):
    runner.launch(script(f"{UNDER_WAY}time.sleep(600)"))
    running(harness, runner)
    assert runner.cancel(JOB).state is JobState.CANCELLED
    assert runner.cancel(JOB).state is JobState.CANCELLED
    assert harness.runner().status(JOB).state is JobState.CANCELLED
    assert runner.status(JOB).fault is Fault.NONE


def test_lost_machine_is_the_platforms_fault(harness, runner, script):
    runner.launch(script(f"{UNDER_WAY}time.sleep(600)"))
    running(harness, runner)
    harness.lose_machine(JOB)
    status = ended(harness, runner)
    assert (status.state, status.fault) == (JobState.LOST, Fault.PLATFORM)
    assert status.evidence


def test_checkpoint_of_a_lost_machine_is_at_hand_for_the_next_attempt(harness, runner, script):
    runner.launch(script(
        "import os, time\n"
        "os.makedirs('out/checkpoint-20')\n"
        "open('out/checkpoint-20/trainer_state.json', 'w').write('{\"global_step\": 20}')\n"
        "open('out/latest', 'w').write('checkpoint-20')\n"
        "time.sleep(2)\nprint('under way', flush=True)\ntime.sleep(600)\n",
        checkpoints="out",
    ))  # fmt: skip
    running(harness, runner)
    if hasattr(harness, "checkpoint_is_away"):
        wait(lambda: harness.checkpoint_is_away(JOB), harness.seconds)
    harness.lose_machine(JOB)
    assert ended(harness, runner).state is JobState.LOST
    kept = runner.folder(JOB) / "out"
    assert (kept / "latest").read_text() == "checkpoint-20"
    assert json.loads((kept / "checkpoint-20" / "trainer_state.json").read_text()) == {"global_step": 20}


def test_job_submitted_twice_and_at_once_runs_once(harness, runner, script):
    spec = script(
        "import os, time\nos.makedirs('out', exist_ok=True)\nopen('out/runs', 'a').write('x')\ntime.sleep(0.5)"
    )
    other = harness.runner()
    threads = [threading.Thread(target=each.launch, args=(spec,)) for each in (runner, other, runner)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first = ended(harness, runner)
    assert first.state is JobState.SUCCEEDED
    assert runner.launch(spec) == first
    assert (runner.folder(JOB) / "out" / "runs").read_text() == "x"
    assert harness.launches(JOB) == 1


def test_bot_that_restarts_finds_its_running_job_again(harness, runner, script):
    runner.launch(script(f"{UNDER_WAY}time.sleep(3)\nimport os\nos.mkdir('out')\nopen('out/end', 'w').write('well')"))
    running(harness, runner)
    again = harness.runner()
    swept = again.sweep()
    assert (swept.lost, swept.started) == ((), ())
    assert ended(harness, again).state is JobState.SUCCEEDED
    assert (again.folder(JOB) / "out" / "end").read_text() == "well"
    assert harness.launches(JOB) == 1


def test_log_of_200_mb_keeps_its_end_and_little_else(harness, script):
    runner = harness.runner(log_bytes=4 << 20)
    runner.launch(script("import sys\nline = b'x' * 1023 + b'\\n'\n"
                         "for _ in range(200 * 1024): sys.stdout.buffer.write(line)\n"
                         "print('the very end', flush=True)"))  # fmt: skip
    assert ended(harness, runner).state is JobState.SUCCEEDED
    assert runner.log_tail(JOB, 1) == "the very end"
    stored = sum(path.stat().st_size for path in runner.folder(JOB).parent.glob("log*"))
    assert stored <= 4 << 20


def test_log_that_is_no_utf8_can_be_read(harness, runner, script):
    runner.launch(script("import sys\nsys.stdout.buffer.write(b'before \\xff\\xfe\\x00 after\\n')"))
    ended(harness, runner)
    text = runner.log_tail(JOB)
    assert text.startswith("before ")
    assert text.endswith(" after")


def test_100000_steps_of_progress_arrive_whole_and_in_order(harness, runner, script):
    runner.launch(script("import os\nos.mkdir('out')\nwith open('out/metrics.jsonl', 'w') as file:\n"
                         "    for step in range(1, 100_001):\n"
                         "        file.write('{\"step\": %d, \"loss\": 1.5}\\n' % step)"))  # fmt: skip
    assert ended(harness, runner).state is JobState.SUCCEEDED
    assert [row["step"] for row in runner.metrics(JOB)] == list(range(1, 100_001))


def test_progress_can_be_followed_while_the_job_runs(harness, runner, script):
    runner.launch(script(
        "import os, time\nos.mkdir('out')\nfile = open('out/metrics.jsonl', 'w')\n"
        "file.write('{\"step\": 1, \"loss\": 2.0}\\n'); file.flush()\nprint('under way', flush=True)\ntime.sleep(600)"
    ))  # fmt: skip
    wait(lambda: runner.status(JOB) and runner.metrics(JOB), harness.seconds)
    # What was logged may arrive before the word that the job runs.
    wait(lambda: runner.status(JOB).state is JobState.RUNNING, harness.seconds)
    assert runner.metrics(JOB) == [{"step": 1, "loss": 2.0}]
    runner.cancel(JOB)


def test_outputs_that_did_not_arrive_are_no_success(harness, runner, script):
    if not harness.loses_outputs:
        return  # they are where the script wrote them
    harness.lose_outputs(JOB)
    runner.launch(script("import os\nos.mkdir('out')\nopen('out/model', 'w').write('weights')"))
    status = ended(harness, runner)
    assert (status.state, status.failure, status.fault) == (JobState.FAILED, FailureKind.PLATFORM, Fault.PLATFORM)
    assert "did not arrive" in " ".join(status.evidence)


def test_secret_in_a_log_is_not_stored(harness, script):
    known = "an exact value that only the bot knows"
    runner = harness.runner(redact=lambda text: redact(text, (known,)))
    runner.launch(script(f"print('a token {TOKEN} in a line')\nprint('the end')"))
    assert ended(harness, runner).state is JobState.SUCCEEDED
    assert TOKEN not in runner.log_tail(JOB)
    assert runner.log_tail(JOB, 1) == "the end"
    mirror = runner.folder(JOB).parent
    assert not [path for path in mirror.glob("*.txt") if TOKEN.encode() in path.read_bytes()]


def test_unknown_job_is_none(runner: Runner, script: Callable[..., JobSpec]) -> None:
    assert runner.status(JobId("never-launched")) is None
    assert runner.cancel(JobId("never-launched")) is None
    assert runner.log_tail(JobId("never-launched")) == ""


def test_kinds_of_machine_are_named(runner: Runner) -> None:
    assert runner.flavors()[0].name
