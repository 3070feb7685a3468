"""What a job of this machine meets, whatever sandbox tier it runs in: one list, tried on each tier that is there."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bot.errors import UserError
from runners.bubblewrap import interpreter
from runners.job import Caps, FailureKind, JobId, JobState
from runners.local import LocalRunner
from runners.tier import Tier

REPOSITORY = Path(__file__).resolve().parents[2]


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
    spec = script("import time\nprint('started')\ntime.sleep(60)", caps=Caps(memory_gib=1, timeout_seconds=0.5))
    status = finish(runner, spec)
    assert (status.state, status.failure) == (JobState.FAILED, FailureKind.TIMEOUT)
    assert status.evidence == ("killed at its time-out of 0.5 s",)
    assert 0.5 <= status.seconds < 10
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
    assert status.seconds < 20


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
    assert status.seconds < 20


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


# walls


def test_job_has_no_network(runner, tier, script, finish):
    if not tier.isolates_network:
        pytest.skip(tier.reason)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = (
            "import json, socket\n"
            "def attempt(work):\n"
            "  try:\n"
            "    work()\n"
            "  except OSError as error:\n"
            "    return type(error).__name__\n"
            "  return 'reached'\n"
            "own = socket.create_server(('127.0.0.1', 0))\n"
            "json.dump({'outside': attempt(lambda: socket.create_connection(('192.0.2.1', 80), 3)),\n"
            "           'names': attempt(lambda: socket.getaddrinfo('example.org', 80)),\n"
            f"           'host': attempt(lambda: socket.create_connection(('127.0.0.1', {port}), 3)),\n"
            "           'own': attempt(lambda: socket.create_connection(\n"
            "               own.getsockname(), 3))}, open('out.json', 'w'))\n"
        )
        assert finish(runner, script(code)).state is JobState.SUCCEEDED
    assert output(runner) == {"outside": "OSError", "names": "gaierror", "host": "ConnectionRefusedError",
                              "own": "reached"}  # fmt: skip


def test_job_sees_no_file_of_the_host(runner, tier, script, finish, tmp_path):
    if not tier.isolates_files:
        pytest.skip(tier.reason)
    secret = tmp_path / "secret.pem"
    secret.write_text("key")
    finish(runner, script("open('mine', 'w').write('x')", "neighbour"))
    places = [
        secret, REPOSITORY / "pyproject.toml", REPOSITORY / "runners/local.py", Path(__file__), Path.home() / ".ssh",
        runner.folder(JobId("neighbour")), runner.folder(JobId("job")).parent, "/etc/shadow", "/etc/hostname", "/sys",
        "/proc/1/root/etc/shadow", Path.home(), "/home", "/var", "/run", "/opt",
    ]  # fmt: skip
    # The interpreter itself may lie below one of these, as in /opt/python or a home's .venv.
    needed = [Path(folder) for folder in interpreter().folders]
    looked_at = [place for place in places if not any(Path(place) in folder.parents for folder in needed)]
    code = (
        "import json, os, sys\n"
        "def readable(path):\n"
        "  try:\n"
        "    return bool(os.listdir(path)) if os.path.isdir(path) else bool(open(path).read(1))\n"
        "  except OSError:\n"
        "    return False\n"
        f"paths = {[str(path) for path in looked_at]!r}\n"
        "json.dump({'seen': [p for p in paths if readable(p)], 'root': sorted(os.listdir('/')),\n"
        "           'processes': [p for p in os.listdir('/proc') if p.isdigit()], 'uid': os.getuid(),\n"
        "           'caps': [l for l in open('/proc/self/status') if l.startswith('CapEff')],\n"
        "           'home': os.listdir('/tmp')}, open('out.json', 'w'))\n"
    )
    assert finish(runner, script(code)).state is JobState.SUCCEEDED
    seen = output(runner)
    assert seen["seen"] == []
    assert seen["processes"] == ["1", "2"]
    assert seen["uid"] == 1000
    assert seen["caps"][0].split()[1].strip("0") == ""


def test_job_cannot_change_the_host(runner, tier, script, finish, tmp_path):
    if not tier.isolates_files:
        pytest.skip(tier.reason)
    model = tmp_path / "model"
    model.mkdir()
    (model / "weights").write_text("kept")
    code = (
        "import json, os, sys\n"
        "def writable(path, flags=os.O_WRONLY | os.O_NONBLOCK):\n"
        "  try:\n"
        "    os.close(os.open(path, flags))\n"
        "  except OSError:\n"
        "    return False\n"
        "  return True\n"
        "mount = sys.argv[1]\n"
        "new = [mount, sys.prefix, sys.base_prefix, '/usr', '/', '/etc', '/dev', '/mounts', '/job/..']\n"
        "found = [place for place in new if writable(place + '/new', os.O_WRONLY | os.O_CREAT)]\n"
        "kernel = [os.path.join(parent, name) for top in os.listdir('/proc') if not top.isdigit()\n"
        "          and top not in ('self', 'thread-self')\n"
        "          for parent, _, names in os.walk('/proc/' + top) for name in names]\n"
        "kernel += ['/proc/sysrq-trigger', mount + '/weights', '/etc/passwd', '/usr/bin/env']\n"
        "assert len(kernel) > 100\n"
        "found += [path for path in kernel if writable(path)]\n"
        "open('/tmp/scratch', 'w').write('allowed')\n"
        "open('/dev/shm/scratch', 'w').write('allowed')\n"
        "try:\n"
        "  os.unlink(mount + '/weights')\n"
        "except OSError:\n"
        "  pass\n"
        "json.dump(found, open('out.json', 'w'))\n"
    )
    spec = script(code, argv=("{python}", "script.py", "{mount:init}"), mounts={"init": str(model)})
    assert finish(runner, spec).state is JobState.SUCCEEDED
    assert output(runner) == []
    assert (model / "weights").read_text() == "kept"


def test_job_cannot_make_a_user_namespace_of_its_own(runner, tier, script, finish):
    if not tier.isolates_files:
        pytest.skip(tier.reason)
    code = "import ctypes\nraise SystemExit(0 if ctypes.CDLL(None).unshare(0x10000000) else 3)"
    assert finish(runner, script(code)).exit_code == 0


def test_job_inherits_nothing_of_the_environment(runner, script, finish, monkeypatch):
    monkeypatch.setenv("POSTDOC_CANARY", "canary-value-7f3a")
    monkeypatch.setenv("HF_TOKEN", "canary-value-7f3a")
    code = (
        "import json, os\n"
        "seen = []\n"
        "for pid in ['self', str(os.getppid())]:\n"
        "  try:\n"
        "    seen.append(open(f'/proc/{pid}/environ', errors='replace').read())\n"
        "  except OSError:\n"
        "    pass\n"
        "json.dump({'environ': dict(os.environ), 'raw': seen}, open('out.json', 'w'))\n"
    )
    spec = script(code, environment={"SEED": "3"}, caps=Caps(memory_gib=1, timeout_seconds=60, cpu_threads=2))
    assert finish(runner, spec).state is JobState.SUCCEEDED
    seen = output(runner)
    assert "canary-value-7f3a" not in json.dumps(seen)
    assert seen["environ"]["SEED"] == "3"
    assert seen["environ"]["OMP_NUM_THREADS"] == seen["environ"]["MKL_NUM_THREADS"] == "2"
    assert seen["environ"]["HF_HUB_OFFLINE"] == seen["environ"]["TRANSFORMERS_OFFLINE"] == "1"


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


def test_job_that_ends_takes_its_background_processes_along(runner, script, finish):
    spec = script(TREE.replace("time.sleep(60)", "while not os.path.exists('beat'):\n  time.sleep(0.01)"))
    status = finish(runner, spec)
    beat = runner.folder(spec.job_id) / "beat"
    size = beat.stat().st_size
    assert status.state is JobState.SUCCEEDED
    time.sleep(0.15)
    assert beat.stat().st_size == size


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
