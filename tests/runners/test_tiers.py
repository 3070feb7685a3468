"""What a job of this machine meets, whatever sandbox tier it runs in: one list, tried on each tier that is there."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bot.errors import UserError
from runners.job import Caps, FailureKind, JobId, JobState
from runners.local import LocalRunner
from runners.tier import Tier


def wait_for(condition: Callable[[], Any], timeout_seconds: float = 20.0) -> Any:
    deadline = time.monotonic() + timeout_seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)
    return found


def output(runner: LocalRunner, job_id: str = "job", name: str = "out.json") -> Any:
    return json.loads((runner.folder(JobId(job_id)) / name).read_text())


# ending well


def test_job_that_succeeds_leaves_outputs_times_and_peak_memory(runner, tier, script, finish):
    before = time.time()
    spec = script(
        "import json, os, sys\n"
        "json.dump({'argv': sys.argv[1:], 'cwd': os.getcwd(), 'row': open('data/rows.txt').read(),\n"
        "           'weights': open(sys.argv[2] + '/w').read()}, open('out.json', 'w'))\n",
        argv=("{python}", "script.py", "{job}", "{mount:init}", "{not ours}"),
    )
    model = Path(spec.files["script.py"]).parent / "model"
    model.mkdir()
    (model / "w").write_text("weights")
    rows = model.parent / "rows.txt"
    rows.write_text("a row")
    spec = script(
        Path(spec.files["script.py"]).read_text(), argv=spec.argv, mounts={"init": str(model)},
        files={"data/rows.txt": str(rows)},
    )  # fmt: skip

    status = finish(runner, spec)

    assert (status.state, status.exit_code, status.failure, status.evidence) == (JobState.SUCCEEDED, 0, None, ())
    assert status.tier == tier.tier
    assert before <= status.started_at <= status.ended_at <= time.time()
    assert status.peak_memory_gib > 0.001
    wrote = output(runner)
    assert wrote["argv"] == [wrote["cwd"], wrote["argv"][1], "{not ours}"]
    assert (wrote["row"], wrote["weights"]) == ("a row", "weights")
    owner = (runner.folder(spec.job_id) / "out.json").stat().st_uid
    assert owner == os.getuid()


def test_unknown_job_is_none(runner):
    assert runner.status(JobId("never-launched")) is None
    assert runner.cancel(JobId("never-launched")) is None
    assert runner.log_tail(JobId("never-launched")) == ""
    assert list(runner.jobs()) == []


def test_log_holds_both_streams_and_the_tail_its_last_lines(runner, script, finish):
    finish(runner, script("import sys\nfor i in range(50):\n  print('out', i)\n  print('err', i, file=sys.stderr)"))
    assert runner.log_tail(JobId("job"), 3).splitlines() == ["err 48", "out 49", "err 49"]
    assert runner.log_tail(JobId("job"), 0) == ""
    assert len(runner.log_tail(JobId("job"), 1000).splitlines()) == 100


def test_same_id_launched_twice_runs_once(runner, script, finish):
    spec = script("open('runs', 'a').write('x')")
    first = finish(runner, spec)
    assert runner.launch(spec) == first
    assert (runner.folder(spec.job_id) / "runs").read_text() == "x"


def test_same_id_launched_from_many_threads_runs_once(runner, script):
    spec = script("import time\nopen('runs', 'a').write('x')\ntime.sleep(0.2)")
    threads = [threading.Thread(target=runner.launch, args=(spec,)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert runner.wait(spec.job_id, 60).state is JobState.SUCCEEDED
    assert (runner.folder(spec.job_id) / "runs").read_text() == "x"


def test_job_outlives_the_thread_that_launched_it(runner, script):
    spec = script("import time\ntime.sleep(0.3)")
    thread = threading.Thread(target=runner.launch, args=(spec,))
    thread.start()
    thread.join()
    assert runner.wait(spec.job_id, 60).state is JobState.SUCCEEDED


def test_job_changing_its_input_leaves_the_original_alone(runner, script, finish, tmp_path):
    original = tmp_path / "train.jsonl"
    original.write_text("row\n")
    status = finish(runner, script("open('data.jsonl', 'a').write('more')", files={"data.jsonl": str(original)}))
    assert status.state is JobState.SUCCEEDED
    assert original.read_text() == "row\n"


# failing, by evidence


def test_job_that_raises_is_a_script_error_with_its_traceback(runner, script, finish):
    status = finish(runner, script("raise ValueError('no such column: answer')"))
    assert (status.state, status.failure, status.exit_code) == (JobState.FAILED, FailureKind.SCRIPT_ERROR, 1)
    assert "stderr: ValueError: no such column: answer" in status.evidence
    assert runner.log_tail(JobId("job")).splitlines()[-1] == "ValueError: no such column: answer"


def test_exit_code_is_the_scripts_own(runner, script, finish):
    status = finish(runner, script("raise SystemExit(7)"))
    assert (status.state, status.failure, status.exit_code) == (JobState.FAILED, FailureKind.SCRIPT_ERROR, 7)


def test_command_that_does_not_exist_is_a_script_error(runner, script, finish):
    status = finish(runner, script("", argv=("no-such-program",)))
    assert (status.state, status.failure, status.exit_code) == (JobState.FAILED, FailureKind.SCRIPT_ERROR, 127)
    assert "no-such-program: No such file" in runner.log_tail(JobId("job"))


def test_job_that_kills_itself_is_a_signal(runner, script, finish):
    status = finish(runner, script("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)"))
    assert (status.state, status.failure, status.exit_code) == (JobState.FAILED, FailureKind.SIGNAL, 139)
    assert "SIGSEGV" in status.evidence[0]


def test_job_past_its_time_is_killed_as_a_timeout(runner, script, finish):
    spec = script("import time\nprint('started')\ntime.sleep(60)", caps=Caps(memory_gib=1, timeout_seconds=2))
    status = finish(runner, spec)
    assert (status.state, status.failure) == (JobState.FAILED, FailureKind.TIMEOUT)
    assert status.evidence == ("killed at its time-out of 2 s",)
    assert 2 <= status.seconds < 50
    assert runner.log_tail(JobId("job")) == "started"


def test_job_past_its_memory_is_out_of_memory(runner, tier, script, finish):
    code = "held = []\nfor _ in range(40):\n  held.append(bytearray(b'x') * (8 << 20))\nprint('never')"
    status = finish(runner, script(code, caps=Caps(memory_gib=0.0625, timeout_seconds=60)))
    assert (status.state, status.failure) == (JobState.FAILED, FailureKind.OOM)
    assert "never" not in runner.log_tail(JobId("job"))
    if tier.tier is Tier.BUBBLEWRAP_CGROUP:
        assert status.evidence[0].startswith("oom_kill counter")
        assert status.peak_memory_gib == pytest.approx(0.0625, rel=0.1)


def test_job_whose_children_together_pass_its_memory_is_out_of_memory(runner, script, finish):
    code = (
        "import os, time\n"
        "for _ in range(4):\n"
        "  if os.fork() == 0:\n"
        "    held = bytearray(b'x') * (24 << 20)\n"
        "    time.sleep(60)\n"
        "time.sleep(60)\n"
    )
    status = finish(runner, script(code, caps=Caps(memory_gib=0.0625, timeout_seconds=60)))
    # No single process is past the cap, and the parent would have gone on.
    assert (status.state, status.failure) == (JobState.FAILED, FailureKind.OOM)
    assert status.seconds < 50


def test_job_that_hides_the_death_of_a_child_is_no_success(runner, tier, script, finish):
    if tier.tier is not Tier.BUBBLEWRAP_CGROUP:
        pytest.skip("without a control group the child sees a MemoryError of its own and may handle it")
    code = (
        "import subprocess, sys\n"
        "subprocess.run([sys.executable, '-S', '-c', 'x = bytearray(200 << 20); x[::4096] = x[::4096]'])\n"
        "print('all well')\n"
    )
    status = finish(runner, script(code, caps=Caps(memory_gib=0.0625, timeout_seconds=60)))
    assert (status.state, status.failure) == (JobState.FAILED, FailureKind.OOM)


def test_job_with_too_many_processes_is_stopped(runner, script, finish):
    code = "import os, time\nfor _ in range(60):\n  if os.fork() == 0:\n    time.sleep(60)\ntime.sleep(60)\n"
    status = finish(runner, script(code, caps=Caps(memory_gib=1, pids=24, timeout_seconds=60)))
    assert (status.state, status.failure) == (JobState.FAILED, FailureKind.PROCESS_LIMIT)
    assert status.seconds < 50


def test_file_past_its_size_is_a_full_disk(runner, script, finish):
    code = "with open('big', 'wb') as f:\n  for _ in range(64):\n    f.write(bytes(1 << 20))"
    status = finish(runner, script(code, caps=Caps(memory_gib=1, file_size_gib=8 / 1024, timeout_seconds=60)))
    assert (status.state, status.failure) == (JobState.FAILED, FailureKind.DISK_FULL)
    assert (runner.folder(JobId("job")) / "big").stat().st_size == 8 << 20


def test_folder_past_its_size_is_a_full_disk(runner, script, finish):
    code = (
        "import time\n"
        "for i in range(8):\n"
        "  with open(f'part{i}', 'wb') as f:\n"
        "    f.write(bytes(4 << 20))\n"
        "time.sleep(60)\n"
    )
    status = finish(runner, script(code, caps=Caps(memory_gib=1, disk_gib=16 / 1024, timeout_seconds=60)))
    assert (status.state, status.failure) == (JobState.FAILED, FailureKind.DISK_FULL)
    assert "its cap is 0.015625 GiB" in status.evidence[0]


# at work


def test_job_may_use_torch(runner, script, finish):
    code = "import torch\nx = torch.ones(8, 8)\nassert (x @ x).sum() == 512\nprint('product', torch.get_num_threads())"
    status = finish(runner, script(code, caps=Caps(memory_gib=4, timeout_seconds=110)), timeout_seconds=115)
    assert status.state is JobState.SUCCEEDED, runner.log_tail(JobId("job"))
    assert runner.log_tail(JobId("job")) == "product 1"


# ending early

TREE = (
    "import os, subprocess, sys, time\n"
    "if os.fork() == 0:\n"
    "  os.setsid()\n"
    "  if os.fork():\n"
    "    os._exit(0)\n"
    "  open('grandchild', 'w').write('up')\n"
    "  while True:\n"
    "    open('beat', 'a').write('.')\n"
    "    time.sleep(0.02)\n"
    "time.sleep(60)\n"
)


def test_cancel_ends_grandchildren_in_sessions_of_their_own(runner, script):
    spec = script(TREE)
    runner.launch(spec)
    beat = runner.folder(spec.job_id) / "beat"
    wait_for(beat.exists)
    status = runner.cancel(spec.job_id)
    size = beat.stat().st_size
    assert (status.state, status.failure) == (JobState.CANCELLED, None)
    time.sleep(0.15)  # seven beats of a survivor
    assert beat.stat().st_size == size
    assert runner.status(spec.job_id) == status
    assert runner.cancel(spec.job_id) == status


def test_cancel_after_the_end_changes_nothing(runner, script, finish):
    status = finish(runner, script("print('done')"))
    assert runner.cancel(JobId("job")) == status


def test_supervisor_killed_is_lost_once_and_nothing_runs_on(runner, script):
    spec = script(TREE)
    runner.launch(spec)
    beat = runner.folder(spec.job_id) / "beat"
    wait_for(beat.exists)
    os.kill(json.loads((runner.folder(spec.job_id).parent / "lease.json").read_text())["pid"], 9)
    status = wait_for(lambda: (now := runner.status(spec.job_id)).state.ended and now)
    assert (status.state, status.failure) == (JobState.LOST, FailureKind.PLATFORM)
    size = beat.stat().st_size
    time.sleep(0.15)
    assert beat.stat().st_size == size
    assert runner.status(spec.job_id) == status
    assert runner.launch(spec) == status, "a lost job is not started again behind its caller's back"


# asking for the wrong thing


@pytest.mark.parametrize("target", ["/etc/x", "../x", "a/../../x", "", ".", "a//b", "a/", "./a", "a\0b"])
def test_target_outside_the_jobs_folder_is_refused(runner, script, tmp_path, target):
    spec = script("", files={target: str(tmp_path / "job.py")})
    with pytest.raises(UserError, match="relative to the job's folder"):
        runner.launch(spec)
    assert runner.status(spec.job_id) is None
    assert list(runner.jobs()) == []


@pytest.mark.parametrize("job_id", ["", "Job", "a/b", "..", "-a", "a" * 121, "a\n", "é"])
def test_job_id_that_is_no_plain_name_is_refused(runner, script, job_id):
    from dataclasses import replace

    with pytest.raises(UserError, match="lowercase letters"):
        runner.launch(replace(script(""), job_id=JobId(job_id)))
    with pytest.raises(UserError, match="lowercase letters"):
        runner.folder(JobId(job_id))
