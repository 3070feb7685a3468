"""Ray beyond the contract: what is told of a queue, who ends what, and what happens when either side goes away."""

from __future__ import annotations

import http.server
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from bot.errors import PlatformError, SettingsError, UserError
from runners.job import Caps, Fault, Hardware, JobId, JobSpec, JobState, JobStatus
from runners.local import LocalRunner
from runners.ray_jobs.backend import RayJobs, code_package
from runners.ray_jobs.dashboard import Dashboard, Machine, Machines
from runners.ray_jobs.demand import Demand, waiting_words
from runners.ray_jobs.train import interface_of
from runners.remote import package
from runners.remote.runner import RemoteRunner
from runners.remote.store import CANCEL, INPUTS, STATUS, FolderStore
from tests.runners import ray_cluster
from tests.runners.conftest import processes_naming
from tests.runners.test_contract import running, wait

ROOT = Path(__file__).resolve().parents[2]
JOB = JobId("job")
UNDER_WAY = "import time\nprint('under way', flush=True)\n"


# --- without a cluster ----------------------------------------------------------------------------------------------


@pytest.fixture
def answering() -> Iterator[Callable[[int, str], str]]:
    """The address of a dashboard that gives every request the same answer."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def serve(code: int, body: str) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(code)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None: ...

        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("code", "body", "words"),
    [
        (401, "Unauthorized", "refuses the token; set POSTDOC_RAY_TOKEN"),
        (
            500,
            "Traceback (most recent call last):\n  File x\nValueError: no agent",
            "answers 500: ValueError: no agent",
        ),
        (200, "<html>a login page</html>", "does not answer as the dashboard of a Ray cluster does"),
    ],
)
def test_refusal_of_the_dashboard_is_one_sentence(answering, code, body, words):
    with pytest.raises(PlatformError) as caught:
        Dashboard(answering(code, body)).job("job")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_job_on_a_cluster_that_is_away_is_prepared_and_waits(tmp_path, script):
    backend = RayJobs(Dashboard("http://127.0.0.1:9", timeout_seconds=2), tmp_path / "storage", "tests")
    runner = RemoteRunner(tmp_path / "mirror", backend, redact=str)
    with pytest.raises(PlatformError, match="cannot be reached"):
        runner.launch(script("print(1)"))
    assert runner.status(JOB).state is JobState.QUEUED
    assert runner.sweep().lost == ()


def test_several_machines_are_for_shipped_scripts_only(tmp_path, script):
    backend = RayJobs(Dashboard("http://127.0.0.1:9"), tmp_path / "storage", "tests")
    runner = RemoteRunner(tmp_path / "mirror", backend, redact=str)
    with pytest.raises(UserError, match="Only scripts that ship with Postdoc may"):
        runner.launch(script("print(1)", hardware=Hardware(nodes=2), trusted=False))
    assert runner.jobs() == []


def test_waiting_is_told_with_what_is_wanted_and_what_is_free():
    small, large = (Machine(name, name, 8, gpus, 32.0, "A100", 80.0, {"memory": 2**35, "GPU": gpus}) for name, gpus in
                    (("one", 1.0), ("two", 4.0)))  # fmt: skip
    machines = Machines([small, large], {"GPU": 5.0, "CPU": 1.0})
    demand = Demand(1, 1, 2**34, {})
    assert waiting_words(demand, machines, 0) == (
        "waits for 1 GPU, 1 CPU core and 16 GiB of memory; the cluster has 5 GPUs, 0 of them free"
    )
    assert waiting_words(demand, machines, 1).endswith("; 1 job before it")
    assert waiting_words(Demand(1, 8, 0, {}), machines, 0) == (
        "waits for 8 GPUs and 1 CPU core; no machine of the cluster has that, "
        "its largest has 4 GPUs, 8 CPU cores, 32 GiB"
    )
    assert waiting_words(Demand(1, 0, 0, {}), Machines([], {}), 0).endswith("it has none that runs jobs now")


def test_what_a_node_runs_of_ours_is_whole_and_always_the_same_bytes(tmp_path):
    assert code_package() == code_package()
    with zipfile.ZipFile(io.BytesIO(code_package())) as archive:
        archive.extractall(tmp_path)
    assert not (tmp_path / "bot" / "server").exists()
    for module in ("runners.remote.wrapper", "runners.ray_jobs.train"):
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, '.'); import {module}"],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


def test_address_is_found_on_its_interface():
    assert interface_of("127.0.0.3") == "lo"
    assert interface_of("203.0.113.7") == ""


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "POSTDOC_RAY_ADDRESS"),
        ({"ray_address": "ray://head:10001"}, "write the address of the cluster's dashboard"),
        ({"ray_address": "http://h:8265"}, "POSTDOC_RAY_STORAGE"),
        ({"ray_address": "http://h:8265", "ray_storage": Path("/nowhere/at/all")}, "/nowhere/at/all is none here"),
    ],
)
def test_settings_that_ray_lacks_are_named(tmp_path, settings, words):
    from bot.config import Settings
    from bot.server.backends import runner_of

    made = Settings(app_id="1", webhook_secret=SecretStr("long enough"), runner="ray", **settings)
    with pytest.raises(SettingsError, match=words):
        runner_of(made, tmp_path, None, ())


class Node:
    """A machine of a cluster as its scheduler leaves it: the wrapper as Ray would start it, and nothing else."""

    def __init__(self, folder: Path, spec: JobSpec) -> None:
        self.jobs, self.store = folder / "node", FolderStore(folder / "store")
        self.store.folder.mkdir()
        archive = folder / "inputs.tar"
        work = folder / "packed"
        work.mkdir()
        for target, source in spec.files.items():
            (work / target).write_bytes(Path(source).read_bytes())
        package.pack(spec, work, archive)
        self.store.push(archive, INPUTS)

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "runners.remote.wrapper", "--job", JOB, "--store", str(self.store.folder)]
        command += ["--jobs", str(self.jobs), "--slots", "64", "--tethered", "--clean"]
        return subprocess.Popen(command, cwd=ROOT, start_new_session=True)

    def told(self) -> JobStatus | None:
        content = self.store.read(STATUS)
        return JobStatus.from_dict(json.loads(content)) if content else None

    def runs(self) -> bool:
        return bool((told := self.told()) and told.state is JobState.RUNNING and self.store.names("log/"))


@pytest.fixture
def node(tmp_path, script) -> Iterator[Node]:
    made = Node(tmp_path, script(f"import os\nos.mkdir('out')\nopen('out/part', 'w').write('x')\n{UNDER_WAY}"
                                 "time.sleep(600)"))  # fmt: skip
    yield made
    wait(lambda: processes_naming(made.jobs) == [], 30)


def test_job_ends_with_its_wrapper_however_that_went(node):
    wrapper = node.start()
    wait(node.runs, 60)
    os.killpg(wrapper.pid, signal.SIGKILL)
    wrapper.wait()
    wait(lambda: processes_naming(node.jobs) == [], 30)
    assert LocalRunner(node.jobs).status(JOB).state is JobState.CANCELLED


def test_machine_that_is_wanted_back_ends_the_job_and_brings_home_what_there_is(node, tmp_path):
    wrapper = node.start()
    wait(node.runs, 60)
    wrapper.terminate()
    assert wrapper.wait(30) == 1
    assert node.told().state is JobState.CANCELLED
    assert node.store.fetch("outputs.tar", tmp_path / "outputs.tar")
    package.unpack_outputs(tmp_path / "outputs.tar", tmp_path / "home", 1 << 20)
    assert (tmp_path / "home" / "out" / "part").read_text() == "x"
    assert list(node.jobs.glob("*/spec.json")) == [], "nothing of the job stays on the machine"


def test_job_called_off_while_it_waited_never_starts(node):
    node.store.write(CANCEL, b"")
    assert node.start().wait(60) == 1
    assert node.told().state is JobState.CANCELLED
    assert node.told().started_at is None


# --- on a real cluster ----------------------------------------------------------------------------------------------

on_cluster = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(ray_cluster.missing()), reason=ray_cluster.missing() or "-"),
]


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Any]:
    from tests.runners.harnesses.ray import Harness

    made = Harness(tmp_path)
    yield made
    made.close()
    assert made.left_over() == []


def ended(harness: Any, runner: RemoteRunner, job_id: JobId = JOB, seconds: float = 240) -> JobStatus:
    return wait(lambda: (status := runner.status(job_id)) and status.state.ended and status, seconds)


def in_rays_own_words(harness: Any, code: str) -> Any:
    """What Ray's job client says, in a process of its own: this one stays without Ray."""
    start = "import json\nfrom ray.job_submission import JobSubmissionClient\n"
    start += f"client = JobSubmissionClient({harness.cluster.dashboard!r})\n"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"{start}print(json.dumps({code}))"],
        capture_output=True, text=True, check=False, timeout=120, cwd=harness.folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class TestOnCluster:
    pytestmark = on_cluster

    def test_rays_own_client_sees_the_job_as_it_was_meant_and_can_stop_it(self, harness, script):
        runner = harness.runner()
        runner.launch(script(f"{UNDER_WAY}time.sleep(600)", labels={"goal": "7"}))
        wait(lambda: runner.status(JOB) and "under way" in runner.log_tail(JOB), 120)
        name = harness.dashboard.full_name(JOB)
        seen = in_rays_own_words(harness, f"client.get_job_info({name!r}).__dict__")
        assert seen["status"] == "RUNNING"
        assert seen["metadata"] == {"goal": "7", "postdoc": "tests", "postdoc-job": "job"}
        assert seen["runtime_env"]["working_dir"].startswith("gcs://_ray_pkg_")
        assert in_rays_own_words(harness, f"client.stop_job({name!r})") is True
        assert ended(harness, runner).state is JobState.CANCELLED

    def test_job_that_no_machine_can_hold_says_so_and_can_be_called_off(self, harness, script):
        runner = harness.runner()
        assert (
            "no machine of the cluster has that, its largest has 2 CPU cores, 8 GiB"
            in runner.launch(script("print(1)", hardware=Hardware(gpus=1))).detail
        )
        began = time.monotonic()
        assert runner.cancel(JOB).state is JobState.CANCELLED
        assert time.monotonic() - began < 20
        # Ray takes nothing out of its queue, and this one would wait there until Ray gives up on it.
        harness.dashboard.forgotten.add(JOB)

    def test_orphans_are_ended_and_another_bots_jobs_are_not(self, harness, script, tmp_path):
        runner = harness.runner()
        for name in ("job", "theirs"):
            harness.backend._owner = "tests" if name == "job" else "somebody else"
            runner.launch(script(f"{UNDER_WAY}time.sleep(600)", name))
            running(harness, runner, job_id=JobId(name))
        harness.backend._owner = "tests"
        assert harness.backend.orphans(frozenset({JOB})) == []
        assert harness.backend.orphans(frozenset()) == ["Ray job job"]
        wait(lambda: harness.dashboard.job("job")["status"] == "STOPPED", 60)
        assert harness.dashboard.job("theirs")["status"] == "RUNNING"

    def test_rays_patience_is_shorter_than_ours(self, tmp_path, script):
        from tests.runners.harnesses.ray import Harness

        cluster = ray_cluster.RayCluster(workers=1, cpus=1, RAY_JOB_START_TIMEOUT_SECONDS="15")
        try:
            harness = Harness(tmp_path, cluster)
            runner = harness.runner()
            runner.launch(script("import os, time\nwhile not os.path.exists('go'): time.sleep(0.1)", "first"))
            wait(lambda: runner.status(JobId("first")).state is JobState.RUNNING, 120)
            runner.launch(script("print('well')", "second"))
            wait(lambda: "waits anew" in runner.status(JobId("second")).detail, 120)
            wait(lambda: runner.status(JobId("second")) and harness.launches(JobId("second")) == 2, 60)
            (harness.node_jobs / "first" / "work" / "go").touch()
            assert ended(harness, runner, JobId("second")).state is JobState.SUCCEEDED
        finally:
            cluster.close()

    def test_head_that_goes_away_does_not_take_the_news_with_it(self, tmp_path, script):
        from tests.runners.harnesses.ray import Harness

        cluster = ray_cluster.RayCluster(workers=1)
        try:
            harness = Harness(tmp_path, cluster)
            runner = harness.runner(lease_seconds=20)
            runner.launch(script(f"{UNDER_WAY}time.sleep(600)"))
            wait(lambda: runner.status(JOB) and "under way" in runner.log_tail(JOB), 120)
            cluster.head.kill()
            wait(lambda: "cannot be" in runner.status(JOB).detail, 60)
            # Without its head the node ends its work after a while, and the lease runs out here.
            for worker in cluster.workers:
                worker.kill()
            status = ended(harness, runner)
            assert (status.state, status.fault) == (JobState.LOST, Fault.PLATFORM)
            wait(lambda: processes_naming(harness.node_jobs) == [], 60)
        finally:
            cluster.close()


class TestSeveralMachines:
    pytestmark = on_cluster

    def test_machine_that_runs_out_of_memory_is_named_and_all_end(self, harness, script):
        runner = harness.runner()
        runner.launch(script(
            f"import os\n{UNDER_WAY}held = []\n"
            "while os.environ['NODE_RANK'] == '1': held.append(bytearray(8 << 20))\ntime.sleep(600)",
            hardware=Hardware(nodes=2), caps=Caps(memory_gib=0.5, timeout_seconds=300),
        ))  # fmt: skip
        status = ended(harness, runner)
        assert (status.state, status.failure, status.fault) == (JobState.FAILED, "oom", Fault.SCRIPT)
        assert status.evidence[0] == "on machine 2 of 2"

    def test_machine_that_is_lost_loses_the_job_and_no_other_goes_on(self, harness, script):
        runner = harness.runner()
        runner.launch(script(f"{UNDER_WAY}time.sleep(600)", hardware=Hardware(nodes=2)))
        wait(lambda: runner.status(JOB) and "under way" in runner.log_tail(JOB), 240)
        driver = runner.status(JOB).machine
        other = next(node for node in harness.cluster.workers if node.address != driver)
        other.kill()
        status = ended(harness, runner)
        assert status.fault is Fault.PLATFORM, status
        wait(lambda: processes_naming(harness.node_jobs) == [], 60)

    def test_two_machines_train_as_one_with_twice_the_batch(self, harness, tmp_path):
        from runners.launching import CONFIG_FILE, SCRIPT_FILE, launch_plan
        from tests.templates.conftest import BUILD, QUICK, SFT, Job, chat_rows, python

        base = tmp_path / "base"
        assert python("-c", BUILD, base).returncode == 0
        one = Job(tmp_path / "one", base)
        one.data(chat_rows(64))
        one.run(per_device_train_batch_size=8, max_steps=8)
        recipe = QUICK | {"max_steps": 8, "save_strategy": "steps", "save_steps": 4}
        plan = launch_plan(None, gpus=0, gpu_memory_gib=0.0, nodes=2)
        (tmp_path / CONFIG_FILE).write_text(plan.config)
        (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
        runner = harness.runner()
        runner.launch(JobSpec(
            JOB, (*plan.prefix, "train.py", "--config", "recipe.yaml", "--init_from", "{mount:init}"),
            files={"train.py": str(SFT), SCRIPT_FILE: str(ROOT / "templates" / SCRIPT_FILE),
                   CONFIG_FILE: str(tmp_path / CONFIG_FILE), "recipe.yaml": str(tmp_path / "recipe.yaml"),
                   "data/train.jsonl": str(one.path / "data" / "train.jsonl")},
            mounts={"init": str(base)}, trusted=True, hardware=Hardware(nodes=2), checkpoints="out",
            caps=Caps(memory_gib=3, timeout_seconds=400, pids=512),
        ))  # fmt: skip
        status = ended(harness, runner, seconds=400)
        assert status.state is JobState.SUCCEEDED, (status, runner.log_tail(JOB, 20))
        losses = [row["loss"] for row in runner.metrics(JOB) if "loss" in row]
        assert losses == pytest.approx([row["loss"] for row in one.metrics if "loss" in row], abs=1e-4)
        out = runner.folder(JOB) / "out"
        assert (out / "model" / "model.safetensors").is_file()
        assert json.loads((out / "setup.json").read_text())["processes"] == 2
        assert runner.log_tail(JOB).count("done: 8 steps") == 1
        assert harness.backend.store(JOB).names("checkpoints/") != []
