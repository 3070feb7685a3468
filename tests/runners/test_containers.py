"""What is particular to containers: their walls as seen from inside, what outlives what, and each way in which an
engine fails. What every backend does is in test_contract.py."""

from __future__ import annotations

import importlib
import json
import os
import re
import select
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bot.config import Settings
from bot.conversation.github import GitHubApp
from bot.errors import PlatformError, SettingsError, UserError
from bot.practice.auth import new_key_pair
from bot.server.backends import runner_of
from runners import slots
from runners.containers.doctor import container_engine
from runners.containers.engine import Engine, socket_path
from runners.containers.runner import ContainerRunner
from runners.job import Caps, FailureKind, Fault, Hardware, JobId, JobState, JobStatus, read_json
from runners.layout import LEASE
from tests.runners.test_contract import UNDER_WAY, running, wait
from tests.runners.test_gpus import Box

JOB = JobId("job")
ABSENT = f"registry.example/team/train@sha256:{'0' * 64}"


# The contract suite tries both; what podman does otherwise here is for the long run.
@pytest.fixture(params=["dockerd", pytest.param("podman", marks=pytest.mark.slow)])
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    yield from _harness(request.param, tmp_path)


@pytest.fixture
def dockerd(tmp_path: Path) -> Iterator[Any]:
    """For what does not depend on the engine, or is dockerd's alone."""
    yield from _harness("dockerd", tmp_path)


@pytest.fixture
def podman(tmp_path: Path) -> Iterator[Any]:
    yield from _harness("podman", tmp_path)


def _harness(kind: str, folder: Path) -> Iterator[Any]:
    made = importlib.import_module(f"tests.runners.harnesses.{kind}").Harness
    if why := made.missing():
        pytest.skip(f"{kind}: {why}")
    harness = made(folder)
    yield harness
    harness.close()
    assert harness.left_over() == []


def ended(runner: ContainerRunner, seconds: float = 60) -> JobStatus:
    return runner.wait(JOB, seconds)


def supervisor_of(runner: ContainerRunner) -> int:
    lease = read_json(runner.root / JOB / LEASE)
    assert lease is not None
    return int(lease["pid"])


def end_supervisor(runner: ContainerRunner, number: signal.Signals) -> None:
    """And wait until the kernel has let go of its lock."""
    os.kill(supervisor_of(runner), number)
    wait(lambda: not slots.is_held(runner.root / JOB / slots.LOCK), 10)


# --- the walls


LOOK = """
import json, os, pathlib, socket
def attempt(act):
    try:
        act()
    except OSError as error:
        return error.strerror or type(error).__name__
    return "done"
status = pathlib.Path("/proc/self/status").read_text()
field = lambda name: next(line.split()[1] for line in status.splitlines() if line.startswith(name + ":"))
def connect(where):
    with socket.socket(socket.AF_INET if isinstance(where, tuple) else socket.AF_UNIX) as each:
        each.settimeout(3)
        each.connect(where)
print(json.dumps({
    "ids": sorted({*os.getresuid(), *os.getresgid()}),
    "capabilities": {field(name) for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb", "CapInh")} - {"0" * 16} == set(),
    "no_new_privileges": field("NoNewPrivs"),
    "filtered": field("Seccomp"),
    "network": attempt(lambda: connect(("192.0.2.1", 80))),
    "interfaces": [name for _, name in socket.if_nameindex() if name != "lo"],
    "write": {path: attempt(lambda: open(path, "w")) for path in (
        "/new", "/usr/local/bin/python3", "/mounts/init/config.json", "/postdoc/new", "/proc/sys/kernel/hostname",
        "/sys/fs/cgroup/new", "/tmp/new", "/scratch/new", "/job/new", "/dev/shm/new")},
    "processes": sorted(int(name) for name in os.listdir("/proc") if name.isdigit()),
    "sockets": [str(path) for folder in ("/run", "/var/run", "/tmp", "/postdoc")
                for path in pathlib.Path(folder).rglob("*") if path.is_socket()],
    "device": attempt(lambda: os.mknod("/tmp/disk", 0o600 | 0o060000, os.makedev(254, 0))),
    "mount": attempt(lambda: os.chroot("/tmp")),
    "environment": sorted(os.environ),
    "host": pathlib.Path(HERE).exists(),
}))
"""


def test_job_sees_its_folder_and_nothing_else(harness, script, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    runner = harness.runner()
    runner.launch(script(f"HERE = {str(tmp_path)!r}{LOOK}", mounts={"init": str(model)}))
    assert ended(runner).state is JobState.SUCCEEDED, runner.log_tail(JOB)
    seen = json.loads(runner.log_tail(JOB, 1))
    assert 0 not in seen["ids"]
    assert seen["capabilities"]
    assert (seen["no_new_privileges"], seen["filtered"]) == ("1", "2")
    assert (seen["network"], seen["interfaces"]) == ("Network is unreachable", [])
    allowed = {path for path, answer in seen["write"].items() if answer == "done"}
    assert allowed == {"/tmp/new", "/scratch/new", "/job/new", "/dev/shm/new"}
    assert len(seen["processes"]) <= 2
    assert seen["sockets"] == []
    assert seen["device"] == seen["mount"] == "Operation not permitted"
    assert not {name for name in seen["environment"] if "TOKEN" in name or "KEY" in name or "SECRET" in name}
    assert not seen["host"]
    assert (model / "config.json").read_text() == "{}"
    written = runner.folder(JOB) / "new"
    assert (written.stat().st_uid, written.parent.stat().st_uid) == (os.getuid(), os.getuid())


def test_child_that_alone_was_killed_for_memory_makes_the_job_oom(harness, script):
    runner = harness.runner()
    runner.launch(script(
        "import subprocess, sys, time\n"
        "subprocess.run([sys.executable, '-c', 'held = []\\nwhile True: held.append(bytearray(8 << 20))'])\n"
        "print('goes on as if nothing had happened', flush=True)\ntime.sleep(600)",
        caps=Caps(memory_gib=0.125, timeout_seconds=60),
    ))  # fmt: skip
    status = ended(runner)
    assert (status.failure, status.fault) == (FailureKind.OOM, Fault.SCRIPT)
    assert "oom_kill counter" in " ".join(status.evidence)
    assert status.peak_memory_gib == pytest.approx(0.125, rel=0.1)


def test_processes_past_the_cap_are_refused(dockerd, script):
    runner = dockerd.runner()
    runner.launch(script(
        "import os, time\n"
        "for _ in range(100):\n    if os.fork() == 0:\n        time.sleep(600)\n",
        caps=Caps(memory_gib=1, pids=30, timeout_seconds=60),
    ))  # fmt: skip
    status = ended(runner)
    assert status.failure is FailureKind.PROCESS_LIMIT
    assert "pids.events max" in " ".join(status.evidence)


def test_files_past_the_cap_end_the_job(dockerd, script):
    runner = dockerd.runner()
    runner.launch(script(
        "import time\nfor n in range(64):\n    open(f'/scratch/{n}', 'wb').write(bytes(8 << 20))\ntime.sleep(600)",
        caps=Caps(memory_gib=1, disk_gib=0.25, timeout_seconds=60),
    ))  # fmt: skip
    status = ended(runner)
    assert status.failure is FailureKind.DISK_FULL
    assert not (runner.root / JOB / "scratch").exists()


def test_script_killed_by_its_own_signal_is_told_from_a_lost_machine(dockerd, script):
    runner = dockerd.runner()
    runner.launch(script("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)"))
    status = ended(runner)
    assert (status.state, status.failure, status.exit_code) == (JobState.FAILED, FailureKind.SIGNAL, 139)
    assert status.fault is Fault.SCRIPT


@pytest.mark.slow
def test_script_that_plays_with_the_supervisors_pipes_harms_itself_alone(dockerd, script):
    runner = dockerd.runner()
    runner.launch(script("import time\nopen('/postdoc/ended', 'w').write('x\\n')\ntime.sleep(600)"))
    status = ended(runner)
    assert (status.state, status.fault) == (JobState.FAILED, Fault.SCRIPT)


def test_what_one_job_wrote_for_itself_alone_the_next_can_read(dockerd, script):
    runner = dockerd.runner()
    runner.launch(script("import os\nos.umask(0o077)\nos.mkdir('out')\nopen('out/weights', 'w').write('w')", "first"))
    assert runner.wait(JobId("first"), 60).state is JobState.SUCCEEDED
    model = runner.folder(JobId("first")) / "out"
    assert (model / "weights").stat().st_mode & 0o777 == 0o600
    runner.launch(script("import sys\nprint(open(sys.argv[1] + '/weights').read())", mounts={"model": str(model)},
                         argv=("{python}", "script.py", "{mount:model}")))  # fmt: skip
    assert ended(runner).state is JobState.SUCCEEDED, runner.log_tail(JOB)
    assert runner.root.stat().st_mode & 0o077 == 0


@pytest.mark.skipif(os.getuid() != 0, reason="jobs of a bot that is not root run as its own user")
def test_mount_that_its_owner_alone_can_read_is_named_and_left_as_it_is(dockerd, script, tmp_path):
    secret = tmp_path / "model" / "weights"
    secret.parent.mkdir()
    secret.touch(0o600)
    runner = dockerd.runner()
    with pytest.raises(UserError, match=r"mount model: .*/weights can be read by its owner alone.*chmod -R o\+rX"):
        runner.launch(script("print()", mounts={"model": str(secret.parent)}))
    assert secret.stat().st_mode & 0o777 == 0o600
    assert list(runner.jobs()) == []


# --- what outlives what


COUNT = "import time\nfor n in range(2000):\n    print('line', n, flush=True)\n    time.sleep(0.002)\n"


def test_container_outlives_its_supervisor_and_is_taken_over(harness, script):
    runner = harness.runner()
    runner.launch(script(f"{COUNT}import os\nos.mkdir('out')\nopen('out/end', 'w').write('well')"))
    running(harness, runner, "line 5")
    started_at = runner.status(JOB).started_at
    end_supervisor(runner, signal.SIGKILL)
    again = harness.runner()
    assert again.sweep().running == (JOB,)
    status = ended(again)
    assert (status.state, status.started_at) == (JobState.SUCCEEDED, started_at)
    assert (again.folder(JOB) / "out" / "end").read_text() == "well"
    assert harness.launches(JOB) == 1
    lines = again.log_tail(JOB, 5000).splitlines()
    said = [int(found[1]) for line in lines if (found := re.fullmatch(r"line (\d+)", line))]
    # What the killed supervisor had read and not yet written is gone, and with it the end of a line.
    assert len(said) >= len(lines) - 1
    assert said == sorted(set(said))
    assert said[-1] == 1999


def test_supervisor_that_is_told_to_stop_loses_no_line(dockerd, script):
    runner = dockerd.runner()
    runner.launch(script(COUNT))
    running(dockerd, runner, "line 5")
    end_supervisor(runner, signal.SIGTERM)
    # Nobody has asked for it, so nothing happens to the job; the first who asks gives it a supervisor again.
    assert runner.status(JOB).state is JobState.RUNNING
    assert ended(runner).state is JobState.SUCCEEDED
    assert runner.log_tail(JOB, 5000).splitlines() == [f"line {n}" for n in range(2000)]


def test_job_that_ended_without_a_supervisor_ended_well(dockerd, script):
    runner = dockerd.runner()
    runner.launch(script(f"{UNDER_WAY}time.sleep(1)\nprint('the end', flush=True)\nraise SystemExit(3)"))
    running(dockerd, runner)
    end_supervisor(runner, signal.SIGKILL)
    pipe = os.open(runner.root / JOB / "pipes" / "ended", os.O_RDWR | os.O_NONBLOCK)
    try:
        wait(lambda: _readable(pipe), 20)
    finally:
        os.close(pipe)
    status = ended(runner)
    assert (status.state, status.exit_code) == (JobState.FAILED, 3)
    assert runner.log_tail(JOB, 1) == "the end"


def _readable(descriptor: int) -> bool:
    return bool(select.select([descriptor], [], [], 0)[0])


def test_time_out_holds_while_nobody_asks(dockerd, script):
    dockerd.runner().launch(script(f"{UNDER_WAY}time.sleep(600)", caps=Caps(memory_gib=1, timeout_seconds=2)))
    wait(dockerd.engine.containers, 30)
    wait(lambda: not dockerd.engine.containers(), 30)
    assert dockerd.runner().status(JOB).failure is FailureKind.TIMEOUT


def test_time_out_counts_from_the_start_of_the_job_and_not_of_its_supervisor(dockerd, script):
    runner = dockerd.runner()
    runner.launch(script(f"{UNDER_WAY}time.sleep(600)", caps=Caps(memory_gib=1, timeout_seconds=6)))
    running(dockerd, runner)
    end_supervisor(runner, signal.SIGKILL)
    again = time.time()
    status = ended(runner)
    assert status.failure is FailureKind.TIMEOUT
    assert status.seconds >= 6
    assert status.ended_at - again < 6


def test_cancel_reaches_a_job_whose_supervisor_has_died(dockerd, script):
    runner = dockerd.runner()
    runner.launch(script(f"{UNDER_WAY}time.sleep(600)"))
    running(dockerd, runner)
    end_supervisor(runner, signal.SIGKILL)
    assert runner.cancel(JOB).state is JobState.CANCELLED
    assert dockerd.left_over() == []


def test_container_killed_by_somebody_else_is_the_platforms_fault(harness, script):
    runner = harness.runner()
    runner.launch(script(f"{UNDER_WAY}time.sleep(600)"))
    running(harness, runner)
    harness.engine.client.kill(harness.engine.containers()[0])
    status = ended(runner)
    assert (status.state, status.fault) == (JobState.LOST, Fault.PLATFORM)
    assert "ended from outside, with exit code 137" in " ".join(status.evidence)


@pytest.mark.slow
def test_job_goes_on_while_podmans_service_is_away(podman, script):
    runner = podman.runner()
    runner.launch(script(f"{UNDER_WAY}time.sleep(2)\nprint('the end')"))
    running(podman, runner)
    podman.engine.stop_service()
    try:
        wait(lambda: "the end" in runner.log_tail(JOB), 20)
    finally:
        podman.engine.start()
    assert ended(runner).state is JobState.SUCCEEDED


def test_time_out_holds_while_the_engine_is_away(podman, script):
    runner = podman.runner()
    runner.launch(script(f"{UNDER_WAY}time.sleep(600)", caps=Caps(memory_gib=1, timeout_seconds=4)))
    running(podman, runner)
    podman.engine.stop_service()
    try:
        assert ended(runner).failure is FailureKind.TIMEOUT
    finally:
        podman.engine.start()
    # Its supervisor could not remove it; the timer's sweep does.
    wait(lambda: not processes_held(runner), 10)
    assert runner.sweep().ended
    assert podman.engine.containers() == []


def processes_held(runner: ContainerRunner) -> bool:
    return slots.is_held(runner.root / JOB / slots.LOCK)


@pytest.mark.slow
def test_engine_that_is_restarted_and_ends_its_containers_is_the_platforms_fault(dockerd, script):
    runner = dockerd.runner()
    runner.launch(script(f"{UNDER_WAY}time.sleep(600)"))
    running(dockerd, runner)
    dockerd.engine.stop_service()
    dockerd.engine.start()
    status = ended(runner)
    assert (status.state, status.fault) == (JobState.LOST, Fault.PLATFORM)


def test_sweep_ends_containers_that_are_nobodys_and_leaves_those_of_others(dockerd, script):
    runner = dockerd.runner()
    client = dockerd.engine.client
    for name, root in (("ours", runner.label), ("theirs", "0000feed")):
        client.create_container_from_config(
            {"Image": dockerd.engine.image, "Cmd": ["python3"], "Labels": {"postdoc.job": name, "postdoc.root": root}},
            name,
        )
    assert runner.sweep().ended == ("container ours",)
    assert dockerd.engine.containers() == ["theirs"]
    client.remove_container("theirs")


# --- what is refused, in one sentence each


def test_image_that_could_be_another_tomorrow_is_refused(tmp_path):
    for name in ("train", "train:latest", "registry.example:5000/team/train:v3", "train@sha256:abc", "-v/:/host"):
        with pytest.raises(UserError, match=r"is not pinned: write name@sha256"):
            ContainerRunner(tmp_path / "jobs", name)
    with pytest.raises(UserError, match="POSTDOC_DOCKER_IMAGE"):
        ContainerRunner(tmp_path / "jobs", "")


def test_image_that_is_not_here_is_named_and_not_fetched(harness, script):
    runner = ContainerRunner(harness.root, ABSENT, harness.engine.url)
    with pytest.raises(UserError, match=r"does not have the image registry\.example.*docker pull registry\.example"):
        runner.launch(script("print()"))
    assert runner.status(JOB) is None
    assert list(runner.jobs()) == []


def test_engine_that_is_not_running_is_the_platforms_trouble(tmp_path, script):
    (tmp_path / "jobs").mkdir()
    gone = tmp_path / "sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(gone))
    runner = ContainerRunner(tmp_path / "jobs", ABSENT, f"unix://{gone}")
    with pytest.raises(PlatformError, match=r"no container engine answers at .*Connection refused.*is it running"):
        runner.launch(script("print()"))


def test_engine_on_another_machine_is_refused(monkeypatch):
    with pytest.raises(UserError, match="not a socket of this machine"):
        socket_path("tcp://10.0.0.1:2375")
    monkeypatch.setenv("DOCKER_HOST", "ssh://somebody@elsewhere")
    with pytest.raises(UserError, match="not a socket of this machine"):
        socket_path("")


def test_user_who_may_not_use_the_engine_is_told_how_to_get_the_right(dockerd):
    """In a child that gives up being root."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        try:
            Engine(dockerd.engine.url).describe()
        except BaseException as error:
            os.write(writing, f"{type(error).__name__}: {error}".encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    said = os.read(reading, 4096).decode()
    os.close(reading)
    assert said.startswith("UserError: this user may not use the container engine at")
    assert "usermod -aG" in said


def test_gpu_that_the_engine_cannot_give_is_the_platforms_trouble_and_no_job_without_it(harness, script, tmp_path):
    runner = harness.runner(gpu_place=Box(tmp_path / "box", 2).place())
    runner.launch(script("print('trains on the processor')", hardware=Hardware(gpus=1)))
    status = ended(runner)
    assert (status.state, status.failure) == (JobState.FAILED, FailureKind.PLATFORM)
    words = {"dockerd": "could not select device driver", "podman": "took no notice of the request for GPUs"}
    assert words[harness.kind] in " ".join(status.evidence)
    assert "trains" not in runner.log_tail(JOB)


def test_command_that_is_not_in_the_image_is_the_scripts_fault(dockerd, script):
    runner = dockerd.runner()
    runner.launch(script("", argv=("no-such-program",)))
    status = ended(runner)
    assert (status.state, status.failure, status.exit_code) == (JobState.FAILED, FailureKind.SCRIPT_ERROR, 127)


# --- from the settings, and what doctor says


def test_settings_choose_it_and_name_what_is_missing(tmp_path):
    given: dict[str, Any] = {"app_id": "1", "webhook_secret": "long enough", "runner": "docker", "docker_image": ABSENT}
    settings = Settings(**given)
    runner = runner_of(settings, tmp_path / "jobs", GitHubApp(app_id="1", private_key=new_key_pair()[0]), ())
    assert isinstance(runner, ContainerRunner)
    assert (runner.name, runner.isolates) == ("docker", True)
    wrong = settings.model_copy(update={"docker_image": "train:latest"})
    with pytest.raises(SettingsError, match=r"^POSTDOC_RUNNER=docker: the image 'train:latest' is not pinned"):
        runner_of(wrong, tmp_path / "jobs", GitHubApp(app_id="1", private_key=new_key_pair()[0]), ())


def test_doctor_names_the_engine_and_the_image(harness):
    url = harness.engine.url
    ok, seen, advice = container_engine(url, harness.engine.image, wanted=True)
    assert (ok, advice) == (True, "")
    assert seen.startswith({"dockerd": "docker ", "podman": "podman "}[harness.kind])
    assert harness.engine.image in seen
    assert container_engine(url)[::2] == (True, "")
    ok, _, advice = container_engine(url, wanted=True)
    assert not ok
    assert "POSTDOC_DOCKER_IMAGE" in advice
    ok, _, advice = container_engine(url, ABSENT, wanted=True)
    assert not ok
    assert f"docker pull {ABSENT}" in advice


def test_doctor_makes_an_engine_optional_for_who_does_not_use_it(tmp_path):
    ok, seen, advice = container_engine(f"unix://{tmp_path}/sock")
    assert (ok, seen) == (False, "none that can be used")
    assert advice.startswith("optional, for jobs in containers: no container engine answers at")
    assert not container_engine(f"unix://{tmp_path}/sock", wanted=True)[2].startswith("optional")
