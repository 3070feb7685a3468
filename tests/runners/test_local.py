"""What is particular to jobs on this machine: restarts of the bot, killed supervisors, slots, and what is refused."""

from __future__ import annotations

import errno
import itertools
import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bot.errors import PlatformError, UserError
from runners import local, processes, sandbox, slots
from runners.job import Caps, FailureKind, JobId, JobSpec, JobState
from runners.local import LocalRunner
from runners.tier import Tier

REPOSITORY = Path(__file__).resolve().parents[2]


def wait_for(condition: Callable[[], Any], timeout_seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + timeout_seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.005)
    return found


@pytest.fixture
def run_bot() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """A bot in a process of its own, which may be killed and never outlives the test."""
    bots = []

    def run(code: str, *arguments: object) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
        bots.append(subprocess.Popen(words, cwd=REPOSITORY))
        return bots[-1]

    yield run
    for bot in bots:
        bot.kill()
        bot.wait()


LAUNCH = """
    import json, sys, time
    from pathlib import Path
    from runners.job import JobSpec
    from runners.local import LocalRunner
    runner = LocalRunner(Path(sys.argv[1]))
    runner.tier
    spec = JobSpec.from_dict(json.loads(sys.argv[2]))
"""


# the bot goes away


def test_bot_killed_right_after_launch_finds_its_job_again(new_runner, run_bot, script):
    runner = new_runner()
    gate = "import os, time\nwhile not os.path.exists('go'):\n  time.sleep(0.01)\n"
    spec = script(gate + "open('runs', 'a').write('x')")
    bot = run_bot(
        LAUNCH + "    runner.launch(spec)\n    import os; os.kill(os.getpid(), 9)\n",
        runner.root, json.dumps(spec.as_dict()),
    )  # fmt: skip
    assert bot.wait() == -signal.SIGKILL
    assert runner.status(spec.job_id).state in (JobState.QUEUED, JobState.RUNNING)
    assert runner.sweep().started == ()
    (runner.folder(spec.job_id) / "go").touch()
    assert runner.wait(spec.job_id, 60).state is JobState.SUCCEEDED
    assert (runner.folder(spec.job_id) / "runs").read_text() == "x"


def test_bot_killed_before_the_supervisor_started_leaves_a_job_that_the_sweep_starts(new_runner, run_bot, script):
    runner = new_runner()
    spec = script("open('runs', 'a').write('x')")
    bot = run_bot(
        LAUNCH + "    import os; LocalRunner._start_if_never_started = lambda *a: os.kill(os.getpid(), 9)\n"
        "    runner.launch(spec)\n",
        runner.root, json.dumps(spec.as_dict()),
    )  # fmt: skip
    assert bot.wait() == -signal.SIGKILL
    assert runner.status(spec.job_id).state is JobState.QUEUED
    assert runner.sweep().started == (spec.job_id,)
    assert runner.wait(spec.job_id, 60).state is JobState.SUCCEEDED
    assert runner.sweep().started == ()
    assert (runner.folder(spec.job_id) / "runs").read_text() == "x"


def test_bot_killed_while_it_copies_leaves_no_job(new_runner, run_bot, script):
    runner = new_runner()
    spec = script("open('runs', 'a').write('x')")
    bot = run_bot(
        LAUNCH + "    import os; from runners import sandbox\n"
        "    sandbox.launch_plan = lambda *a: os.kill(os.getpid(), 9)\n    runner.launch(spec)\n",
        runner.root, json.dumps(spec.as_dict()),
    )  # fmt: skip
    assert bot.wait() == -signal.SIGKILL
    assert runner.status(spec.job_id) is None
    assert runner.folder(spec.job_id).is_dir()
    runner.sweep()
    assert not runner.folder(spec.job_id).exists()
    runner.launch(spec)
    assert runner.wait(spec.job_id, 60).state is JobState.SUCCEEDED


@pytest.mark.parametrize("delay_ms", [0, 5, 15, 25, 35, 50, 80])
def test_bot_killed_at_any_moment_of_the_launch_runs_the_job_exactly_once(
    new_runner, run_bot, script, tmp_path, delay_ms
):
    runner = new_runner()
    spec = script("open('runs', 'a').write('x')")
    ready = tmp_path / "ready"
    bot = run_bot(
        LAUNCH + "    Path(sys.argv[3]).touch()\n    runner.launch(spec)\n    time.sleep(60)\n",
        runner.root, json.dumps(spec.as_dict()), ready,
    )  # fmt: skip
    wait_for(ready.exists)
    time.sleep(delay_ms / 1000)
    bot.kill()
    bot.wait()
    runner.sweep()
    runner.launch(spec)
    assert runner.wait(spec.job_id, 60).state is JobState.SUCCEEDED
    assert (runner.folder(spec.job_id) / "runs").read_text() == "x"


def test_launch_leaves_no_child_of_the_bot(best_runner, script, finish):
    before = children()
    finish(best_runner, script("pass"))
    assert children() <= before


def children() -> set[str]:
    """Process ids of this process's children, dead ones that nobody has waited for included."""
    return {pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}


# the supervisor goes away


def lease_of(runner: LocalRunner, job_id: str) -> Any:
    return json.loads((runner.folder(JobId(job_id)).parent / "lease.json").read_text())


def test_supervisor_told_to_stop_ends_the_job_as_lost_not_cancelled(best_runner, script):
    spec = script("import time\nopen('up', 'w')\ntime.sleep(60)")
    best_runner.launch(spec)
    wait_for((best_runner.folder(spec.job_id) / "up").exists)
    os.kill(lease_of(best_runner, spec.job_id)["pid"], signal.SIGTERM)
    status = best_runner.wait(spec.job_id, 60)
    assert (status.state, status.failure) == (JobState.LOST, FailureKind.PLATFORM)
    assert status.evidence == ("the supervisor was told to stop by SIGTERM",)


def test_supervisor_that_does_not_answer_is_reported_and_can_be_cancelled(best_runner, script, monkeypatch):
    monkeypatch.setattr(local, "_CANCEL_SECONDS", 1.0)
    spec = script("import time\nopen('up', 'w')\ntime.sleep(60)")
    best_runner.launch(spec)
    wait_for((best_runner.folder(spec.job_id) / "up").exists)
    os.kill(lease_of(best_runner, spec.job_id)["pid"], signal.SIGSTOP)
    lease = best_runner.folder(spec.job_id).parent / "lease.json"
    os.utime(lease, (time.time() - 300, time.time() - 300))
    assert "silent for 300 s" in best_runner.status(spec.job_id).evidence[0]
    status = best_runner.cancel(spec.job_id)
    assert (status.state, status.failure) == (JobState.CANCELLED, None)
    assert "did not answer" in status.evidence[0]


def test_sandbox_killed_from_outside_blames_the_platform(best_runner, script):
    if best_runner.tier is Tier.PLAIN:
        pytest.skip("no sandbox here")
    spec = script("import time\nopen('up', 'w')\ntime.sleep(60)")
    best_runner.launch(spec)
    wait_for((best_runner.folder(spec.job_id) / "up").exists)
    supervisor = lease_of(best_runner, spec.job_id)["pid"]
    (child,) = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if parent_of(pid) == supervisor]
    os.kill(child, signal.SIGKILL)
    status = best_runner.wait(spec.job_id, 60)
    assert (status.state, status.failure, status.exit_code) == (JobState.FAILED, FailureKind.PLATFORM, None)


def parent_of(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


BEATING = "import time\nwhile True:\n  open('up', 'a').write('.')\n  time.sleep(0.01)\n"


def test_sweep_spares_live_jobs_and_counts_the_lost(new_runner, script):
    runner = new_runner(slots=4)
    live, lost = script(BEATING, "live"), script(BEATING, "lost")
    for spec in (live, lost):
        runner.launch(spec)
        wait_for((runner.folder(spec.job_id) / "up").exists)
    os.kill(lease_of(runner, lost.job_id)["pid"], signal.SIGKILL)
    wait_for(lambda: not slots.is_held(runner.folder(lost.job_id).parent / "lock"))
    another_bot = new_runner()
    swept = another_bot.sweep()
    assert (swept.started, swept.lost, swept.running) == ((), (lost.job_id,), (live.job_id,))
    assert another_bot.sweep().lost == ()
    new_runner("other-jobs").sweep()
    beat = runner.folder(live.job_id) / "up"
    size = beat.stat().st_size
    wait_for(lambda: beat.stat().st_size > size + 3)
    assert runner.status(live.job_id).state is JobState.RUNNING


def test_supervisor_started_by_hand_does_not_run_a_job_again(best_runner, script, finish):
    spec = script("open('runs', 'a').write('x')")
    status = finish(best_runner, spec)
    folder = best_runner.folder(spec.job_id).parent
    subprocess.run([sys.executable, "-m", "runners.supervisor", folder], cwd=REPOSITORY, check=True)
    assert best_runner.status(spec.job_id) == status
    assert (folder / "work/runs").read_text() == "x"
    refused = subprocess.run(
        [sys.executable, "-m", "runners.supervisor", folder / "work"], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert (refused.returncode, "usage:" in refused.stderr, "Traceback" in refused.stderr) == (1, True, False)


def test_sweep_ends_a_plain_job_whose_supervisor_was_killed(new_runner, script):
    runner = new_runner(tier=Tier.PLAIN)
    code = (
        "import os, time\n"
        "if os.fork() == 0:\n"
        "  os.setsid()\n"
        "  open('pid', 'w').write(str(os.getpid()))\n"
        "else:\n"
        "  open('parent', 'w').write(str(os.getpid()))\n"
        "time.sleep(60)\n"
    )
    spec = script(code)
    runner.launch(spec)
    pid_file = runner.folder(spec.job_id) / "pid"
    parent_file = runner.folder(spec.job_id) / "parent"
    pid = int(wait_for(lambda: pid_file.exists() and pid_file.read_text()))
    parent = int(wait_for(lambda: parent_file.exists() and parent_file.read_text()))
    os.kill(lease_of(runner, spec.job_id)["pid"], signal.SIGKILL)
    wait_for(lambda: not slots.is_held(runner.folder(spec.job_id).parent / "lock"))
    wait_for(lambda: not processes.is_running(parent))
    assert processes.is_running(pid), "nothing but the sweep ends a grandchild on this tier"
    assert runner.sweep().lost == (spec.job_id,)
    wait_for(lambda: not processes.is_running(pid))


# slots


def test_jobs_beyond_the_slots_wait_in_order_and_start_without_a_bot(new_runner, script):
    runner = new_runner(slots=1)
    order = [JobId(f"job-{number}") for number in (3, 1, 5, 2, 6, 4)]
    gate = "import os, time\nwhile not os.path.exists('go'):\n  time.sleep(0.005)\n"
    for position, job_id in enumerate(order):
        runner.launch(script(gate if position == 0 else "pass", job_id))
    wait_for(lambda: runner.status(order[0]).state is JobState.RUNNING)
    after_restart = new_runner(slots=1)
    assert after_restart.sweep().running == tuple(order)
    assert {after_restart.status(job_id).state for job_id in order[1:]} == {JobState.QUEUED}
    (runner.folder(order[0]) / "go").touch()
    ended = [after_restart.wait(job_id, 20) for job_id in order]
    assert {status.state for status in ended} == {JobState.SUCCEEDED}
    assert list(runner.jobs()) == order
    for earlier, later in itertools.pairwise(ended):
        assert earlier.ended_at <= later.started_at, "one at a time, in the order of their launch"


def test_job_that_waits_says_its_place_and_moves_up(new_runner, script):
    runner = new_runner(slots=1)
    gate = "import os, time\nwhile not os.path.exists('go'):\n  time.sleep(0.005)\n"
    names = [JobId(name) for name in ("first", "second", "third")]
    for job_id in names:
        runner.launch(script(gate, job_id))
    wait_for(lambda: runner.status(names[0]).state is JobState.RUNNING)
    assert [runner.status(job_id).detail for job_id in names] == [
        "", "next in line; 1 job is running", "2nd in line; 1 job is running",
    ]  # fmt: skip
    runner.cancel(names[1])
    assert runner.status(names[2]).detail == "next in line; 1 job is running"
    runner.cancel(names[0])
    wait_for(lambda: runner.status(names[2]).state is JobState.RUNNING)
    runner.cancel(names[2])


@pytest.mark.parametrize(
    ("number", "word"), [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (13, "13th"), (22, "22nd")]
)
def test_place_is_said_as_people_say_it(number, word):
    assert local._ordinal(number) == word


def test_queued_job_that_is_cancelled_never_runs_and_lets_the_next_one_through(new_runner, script):
    runner = new_runner(slots=1)
    hold, unwanted = script("import time\ntime.sleep(60)", "hold"), script("open('ran', 'w')", "unwanted")
    after = script("pass", "after")
    for spec in (hold, unwanted, after):
        runner.launch(spec)
    wait_for(lambda: runner.status(hold.job_id).state is JobState.RUNNING)
    status = runner.cancel(unwanted.job_id)
    assert (status.state, status.started_at, status.exit_code) == (JobState.CANCELLED, None, None)
    runner.cancel(hold.job_id)
    assert runner.wait(after.job_id, 60).state is JobState.SUCCEEDED
    assert not (runner.folder(unwanted.job_id) / "ran").exists()


def test_queued_job_whose_supervisor_was_killed_holds_nobody_up(new_runner, script):
    runner = new_runner(slots=1)
    hold, dead, after = script("import time\ntime.sleep(60)", "hold"), script("pass", "dead"), script("pass", "after")
    for spec in (hold, dead, after):
        runner.launch(spec)
    wait_for((runner.folder(dead.job_id).parent / "lease.json").exists)
    os.kill(lease_of(runner, dead.job_id)["pid"], signal.SIGKILL)
    assert wait_for(lambda: (now := runner.status(dead.job_id)).state.ended and now).state is JobState.LOST
    runner.cancel(hold.job_id)
    assert runner.wait(after.job_id, 60).state is JobState.SUCCEEDED


def test_job_written_down_and_never_started_can_be_cancelled(new_runner, script, monkeypatch):
    runner = new_runner()
    monkeypatch.setattr(LocalRunner, "_start_if_never_started", lambda *_: False)
    spec = script("open('ran', 'w')")
    assert runner.launch(spec).state is JobState.QUEUED
    assert runner.cancel(spec.job_id).state is JobState.CANCELLED
    monkeypatch.undo()
    assert runner.launch(spec).state is JobState.CANCELLED
    assert not (runner.folder(spec.job_id) / "ran").exists()


# the log


def test_log_never_passes_its_cap_and_keeps_the_end(new_runner, script, finish):
    runner = new_runner(log_bytes=64 << 10)
    finish(runner, script("for i in range(40000):\n  print('line', i)"))
    log = runner.folder(JobId("job")).parent / "log.txt"
    assert 16 << 10 < log.stat().st_size <= 64 << 10
    assert "earlier bytes dropped" in log.read_text().partition("\n")[0]
    assert runner.log_tail(JobId("job"), 2) == "line 39998\nline 39999"


def test_bots_own_secrets_go_from_what_it_reads_and_are_told_to_nobody(new_runner, script, finish):
    known = "an exact value that only the bot knows"
    runner = new_runner(redact=lambda text: text.replace(known, "[redacted]"))
    status = finish(runner, script(f"print('log: {known}')\nraise ValueError('{known}')"))
    assert known not in runner.log_tail(JobId("job"))
    assert "log: [redacted]" in runner.log_tail(JobId("job"))
    assert "ValueError: [redacted]" in " ".join(status.evidence)
    told = [path for path in runner.folder(JobId("job")).parent.glob("*.json") if known in path.read_text()]
    assert [path.name for path in told] == ["status.json"], "as the script wrote it, and nothing of it from the bot"


# what a job leaves


def test_what_a_job_leaves_is_disarmed_before_anybody_reads_it(best_runner, script, finish, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("key")
    code = (
        "import os, socket, sys\n"
        "os.mkdir('out')\n"
        "open('out/real.json', 'w').write('{}')\n"
        "os.symlink('real.json', 'out/latest.json')\n"
        "os.symlink(sys.argv[1], 'out/metrics.jsonl')\n"
        "os.symlink('/', 'out/root')\n"
        "os.mkfifo('out/pipe')\n"
        "socket.socket(socket.AF_UNIX).bind('out/socket')\n"
        "open('out/tool', 'w')\n"
        "os.chmod('out/tool', 0o6755)\n"
        "os.mkdir('out/closed')\n"
        "os.chmod('out/closed', 0)\n"
    )
    spec = script(code, argv=("{python}", "script.py", str(secret)))
    assert finish(best_runner, spec).state is JobState.SUCCEEDED
    out = best_runner.folder(spec.job_id) / "out"
    assert sorted(path.name for path in out.iterdir()) == ["closed", "latest.json", "real.json", "tool"]
    assert (out / "latest.json").read_text() == "{}"
    assert stat.S_IMODE((out / "tool").stat().st_mode) == 0o755
    assert "out/metrics.jsonl: removed, a symbolic link" in best_runner.log_tail(spec.job_id)
    assert secret.read_text() == "key"


def test_job_folders_are_closed_to_other_users(best_runner, script, finish):
    finish(best_runner, script("pass"))
    assert stat.S_IMODE(best_runner.root.stat().st_mode) == 0o700


def test_scratch_is_gone_when_the_job_has_ended(best_runner, script, finish):
    code = "import os\nos.makedirs(os.environ['HF_HOME'])\nopen(os.environ['HF_HOME'] + '/x', 'w').write('x')"
    assert finish(best_runner, script(code)).state is JobState.SUCCEEDED
    assert not (best_runner.folder(JobId("job")).parent / "scratch").exists()


def test_remove_deletes_an_ended_job_only(best_runner, script):
    spec = script("import time\ntime.sleep(60)")
    best_runner.launch(spec)
    with pytest.raises(UserError, match="cancel it first"):
        best_runner.remove(spec.job_id)
    best_runner.cancel(spec.job_id)
    best_runner.remove(spec.job_id)
    assert best_runner.status(spec.job_id) is None
    best_runner.remove(spec.job_id)


def test_wait_that_takes_too_long_says_so(best_runner, script):
    spec = script("import time\ntime.sleep(60)")
    best_runner.launch(spec)
    with pytest.raises(TimeoutError, match=r"job job is (queued|running) after 0.05 s"):
        best_runner.wait(spec.job_id, 0.05)
    with pytest.raises(UserError, match="no job nothing"):
        best_runner.wait(JobId("nothing"), 1)


# mounts


def test_model_in_the_hubs_cache_can_be_read_through_its_links(best_runner, script, finish, tmp_path):
    repository = tmp_path / "hub/models--org--name"
    snapshot = repository / "snapshots/abc123"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "blobs/f00").write_text("weights")
    (snapshot / "model.safetensors").symlink_to("../../blobs/f00")
    code = "import sys\nprint(open(sys.argv[1] + '/model.safetensors').read())"
    spec = script(code, argv=("{python}", "script.py", "{mount:init}"), mounts={"init": str(snapshot)})
    finish(best_runner, spec)
    assert best_runner.log_tail(spec.job_id) == "weights"


def test_mount_of_an_earlier_jobs_weights_works_and_of_all_jobs_is_refused(best_runner, script, finish):
    first = script("import os\nos.mkdir('out')\nopen('out/w', 'w').write('from the first')", "first")
    finish(best_runner, first)
    folder = str(best_runner.folder(first.job_id) / "out")
    code = "import sys\nprint(open(sys.argv[1] + '/w').read())"
    second = script(code, "second", argv=("{python}", "script.py", "{mount:init}"), mounts={"init": folder})
    finish(best_runner, second)
    assert best_runner.log_tail(second.job_id) == "from the first"
    for wide in (best_runner.root, best_runner.root.parent, Path("/")):
        with pytest.raises(UserError, match="holds the folders of all jobs"):
            best_runner.launch(replace(second, job_id=JobId("third"), mounts={"init": str(wide)}))


# refused


def test_untrusted_job_on_the_plain_tier_is_refused_with_what_to_install(new_runner, script):
    runner = new_runner(tier=Tier.PLAIN)
    with pytest.raises(UserError, match="apt-get install bubblewrap"):
        runner.launch(replace(script("open('ran', 'w')"), trusted=False))
    assert list(runner.jobs()) == []
    assert not runner.folder(JobId("job")).exists()


def test_untrusted_job_where_nothing_caps_its_processes_is_refused_with_what_to_change(new_runner, script, monkeypatch):
    walls = sandbox.TierReport(Tier.BUBBLEWRAP_RLIMITS, True, "only scripts that ship, because of root")
    monkeypatch.setattr(sandbox, "probe", lambda _python: [walls])
    with pytest.raises(UserError, match=r"rlimits does not hold it here \(only scripts .*Delegate=yes"):
        new_runner().launch(replace(script("pass"), trusted=False))


def test_untrusted_job_behind_walls_runs(best_runner, script, finish):
    if not best_runner.isolates:
        pytest.skip("no sandbox here")
    assert finish(best_runner, replace(script("pass"), trusted=False)).state is JobState.SUCCEEDED


def test_machine_without_bubblewrap_has_the_plain_tier_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    reports = {report.tier: report for report in sandbox._probe.__wrapped__(None)}
    assert [tier for tier, report in reports.items() if report.available] == [Tier.PLAIN]
    assert reports[Tier.BUBBLEWRAP_CGROUP].reason == "the program bwrap is not installed"
    assert "apt-get install bubblewrap" in reports[Tier.BUBBLEWRAP_RLIMITS].advice


def test_bubblewrap_that_fails_gives_its_own_words_as_the_reason(monkeypatch, tmp_path):
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    walls = sandbox._probe.__wrapped__(None)[0]
    assert (walls.available, walls.reason) == (False, "bwrap: setting up uid map: Permission denied")
    assert "apparmor_restrict_unprivileged_userns" in walls.advice


def test_tier_that_is_not_there_cannot_be_asked_for(new_runner, script, monkeypatch):
    missing = sandbox.TierReport(Tier.BUBBLEWRAP_CGROUP, False, "the program bwrap is not installed", "install it")
    monkeypatch.setattr(sandbox, "probe", lambda _python: [missing])
    with pytest.raises(UserError, match=r"bubblewrap\+cgroup is not available here: the program bwrap"):
        new_runner(tier=Tier.BUBBLEWRAP_CGROUP).launch(script("pass"))


def test_interpreter_that_does_not_exist_is_the_platforms_fault(new_runner, script, tmp_path):
    runner = new_runner(python=tmp_path / "no-python", tier=Tier.PLAIN)
    with pytest.raises(PlatformError, match="interpreter"):
        runner.launch(script("pass"))
    assert list(runner.jobs()) == []


def test_job_of_another_interpreter_runs_under_it(new_runner, tmp_path, script, finish):
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    runner = new_runner(python=environment / "bin/python")
    status = finish(runner, script("import sys\nprint(sys.prefix)"))
    assert (status.state, runner.log_tail(JobId("job"))) == (JobState.SUCCEEDED, str(environment))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"argv": ()}, "argv is empty"),
        ({"argv": ("a\0b",)}, "zero byte"),
        ({"argv": ("{mount:base}",)}, "mounts are: none"),
        ({"mounts": {"../up": "/tmp"}}, "letters, digits"),
        ({"mounts": {"init": "relative"}}, "absolute path"),
        ({"mounts": {"init": "/no/such/folder"}}, "absolute path of a folder that exists"),
        ({"environment": {"A=B": "x"}}, "letters, digits"),
        ({"environment": {"A": "x\0y"}}, "zero byte"),
        ({"files": {"a": "relative"}}, "absolute path"),
        ({"files": {"a": "/no/such/file"}}, "cannot be read"),
        ({"files": {"a": "/dev/null"}}, "not a link or a device"),
        ({"caps": Caps(memory_gib=0)}, "caps.memory_gib is 0"),
        ({"caps": Caps(timeout_seconds=float("nan"))}, "caps.timeout_seconds is nan"),
        ({"caps": Caps(pids=-1)}, "caps.pids is -1"),
        ({"caps": Caps(file_size_gib=float("inf"))}, "caps.file_size_gib is inf"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_specification_is_refused_in_words(best_runner, change, message):
    spec = replace(JobSpec(JobId("job"), ("{python}", "-c", "pass"), trusted=True), **change)
    with pytest.raises(UserError, match=message):
        best_runner.launch(spec)
    assert list(best_runner.jobs()) == []


# copied in


def test_link_that_leads_out_of_what_is_copied_is_refused(best_runner, script, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("key")
    folder = tmp_path / "experiment"
    (folder / "data").mkdir(parents=True)
    for link, target in (("data/rows", "../../secret"), ("data/rows", str(secret)), ("all", "..")):
        (folder / link).symlink_to(target)
        with pytest.raises(UserError, match="leads out of the folder"):
            best_runner.launch(script("", files={"experiment": str(folder)}))
        (folder / link).unlink()
    direct = tmp_path / "train.py"
    direct.symlink_to(secret)
    with pytest.raises(UserError, match="not a link"):
        best_runner.launch(script("", files={"train.py": str(direct)}))
    assert list(best_runner.jobs()) == []


def test_folder_is_copied_whole_with_its_inner_links_and_modes(best_runner, script, finish, tmp_path):
    folder = tmp_path / "bundle"
    (folder / "deep/er").mkdir(parents=True)
    (folder / "deep/er/tool").write_text("#!/bin/sh\necho from the tool\n")
    (folder / "deep/er/tool").chmod(0o555)
    (folder / "empty").mkdir()
    (folder / "link").symlink_to("deep/er/tool")
    extra = tmp_path / "extra"
    extra.write_text("more")
    spec = script("", argv=("bundle/link",), files={"bundle": str(folder), "bundle/extra": str(extra)})
    finish(best_runner, spec)
    copy = best_runner.folder(spec.job_id) / "bundle"
    assert best_runner.log_tail(spec.job_id) == "from the tool"
    assert (copy / "empty").is_dir()
    assert (copy / "extra").read_text() == "more"
    assert (copy / "deep/er/tool").stat().st_ino != (folder / "deep/er/tool").stat().st_ino


def test_disk_that_fills_while_a_job_is_prepared_is_the_platforms_fault_and_leaves_nothing(
    best_runner, script, monkeypatch
):
    def full(*_arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(PlatformError, match="No space left"):
        best_runner.launch(script("pass"))
    assert not best_runner.folder(JobId("job")).parent.exists()


def test_two_files_on_one_place_are_refused(best_runner, script, tmp_path):
    rows = tmp_path / "rows"
    rows.write_text("x")
    with pytest.raises(UserError, match="cannot be copied"):
        best_runner.launch(script("", files={"script.py/rows": str(rows)}))
