"""GPUs found, waited for and bound. No GPU is needed: nvidia-smi is a script that answers from files, the device files
are ordinary files below another root."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bot.errors import UserError
from runners import gpus
from runners.gpus import GpuPlace, place, take
from runners.job import Hardware, JobId, JobSpec, JobState
from runners.layout import LEASE
from runners.local import LocalRunner
from runners.tier import Tier
from tests.runners.test_local import wait_for

H200 = "{index}, GPU-{index}aaa-bbb, NVIDIA H200, 143771, {used}, 00000000:{bus:02X}:00.0\n"
SEEN = (
    "import json, os, time\n"
    "names = ('CUDA_VISIBLE_DEVICES', 'ROCR_VISIBLE_DEVICES', 'HIP_VISIBLE_DEVICES')\n"
    "nodes = [n for n in os.listdir('/dev') if n.startswith(('nvidia', 'kfd', 'dri'))]\n"
    "json.dump({'env': {n: os.environ[n] for n in names if n in os.environ}, 'nodes': sorted(nodes),\n"
    "           'sys': os.path.isdir('/sys/devices'), 'caps': os.path.exists('/sys/kernel')}, open('seen.json', 'w'))\n"
    "while not os.path.exists('go'):\n  time.sleep(0.01)\n"
)


class Box:
    """A machine with NVIDIA GPUs, as its tool and its kernel tell of it."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.root = folder, folder / "root"
        (self.root / "dev").mkdir(parents=True)
        for name in ("nvidiactl", "nvidia-uvm", *(f"nvidia{number}" for number in range(count))):
            (self.root / "dev" / name).write_text("")
        self.tool = folder / "nvidia-smi"
        self.tool.write_text(
            f'#!/bin/sh\ncase "$1" in\n--query-gpu=*) cat {folder}/gpus;;\n'
            f"--query-compute-apps=*) cat {folder}/apps;;\n*) exit 9;;\nesac\n"
        )
        self.tool.chmod(0o755)
        self.memory_used(*[4] * count)
        self.busy()

    def memory_used(self, *mib: int) -> None:
        rows = [H200.format(index=i, used=used, bus=0x41 + i) for i, used in enumerate(mib)]
        (self.folder / "gpus").write_text("".join(rows))

    def busy(self, *pairs: tuple[int, int]) -> None:
        """(GPU, process)."""
        (self.folder / "apps").write_text("".join(f"GPU-{gpu}aaa-bbb, {pid}\n" for gpu, pid in pairs))

    def place(self, **environment: str) -> GpuPlace:
        return place({"PATH": f"{self.folder}:/usr/bin", **environment}, str(self.root), self.folder / "locks")


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path, 2)


@pytest.fixture
def runner(box: Box, new_runner: Callable[..., LocalRunner]) -> LocalRunner:
    return new_runner(gpu_place=box.place(), slots=4)


@pytest.fixture
def gpu_job(script: Callable[..., JobSpec]) -> Callable[..., JobSpec]:
    def make(job_id: str, count: int = 1) -> JobSpec:
        return replace(script(SEEN, job_id), hardware=Hardware(gpus=count))

    return make


def seen(runner: LocalRunner, job_id: str) -> dict[str, Any]:
    path = runner.folder(JobId(job_id)) / "seen.json"
    wait_for(lambda: path.exists() and path.read_text().endswith("}"))
    return json.loads(path.read_text())


def let_go(runner: LocalRunner, job_id: str) -> None:
    (runner.folder(JobId(job_id)) / "go").touch()
    assert runner.wait(JobId(job_id), 30).state is JobState.SUCCEEDED


def detail(runner: LocalRunner, job_id: str) -> str:
    return runner.status(JobId(job_id)).detail


# finding


def test_gpus_are_read_with_their_memory_users_and_the_device_file_that_the_driver_numbers(box):
    about = box.root / "proc/driver/nvidia/gpus/0000:41:00.0/information"
    about.parent.mkdir(parents=True)
    about.write_text("Model: \t\t NVIDIA H200\nDevice Minor: \t 1\nGPU Excluded:\t No\n")
    box.busy((1, 4711), (1, 12))
    first, second = box.place().gpus()
    assert (first.uuid, first.model, round(first.memory_gib), first.occupied) == (
        "GPU-0aaa-bbb", "NVIDIA H200", 140, "",
    )  # fmt: skip
    assert first.nodes == (str(box.root / "dev/nvidia1"),)
    assert second.occupied == "GPU 1 is in use by process 12, 4711"


def test_memory_in_use_without_a_process_that_can_be_seen_is_somebody_elses(box):
    box.memory_used(600, 40_000)
    first, second = box.place().gpus()
    assert first.occupied == "", "what a driver keeps for itself"
    assert second.occupied == "GPU 1 has 39.1 of 140 GiB in use by somebody else"


@pytest.mark.parametrize("answer", ["exit 6", "echo 'No devices were found'", "echo '[N/A], x'", "printf '\\377'"])
def test_tool_that_fails_or_talks_of_something_else_shows_no_gpu(box, answer):
    box.tool.write_text(f"#!/bin/sh\n{answer}\n")
    assert box.place().gpus() == []


@pytest.mark.parametrize(
    ("chosen", "left"),
    [("1", [1]), ("GPU-1aaa", [1]), ("0,1", [0, 1]), ("", []), ("-1", []), ("GPU-zzz", []), ("MIG-1aaa", [])],
)
def test_server_that_was_given_some_gpus_gives_away_those_alone(box, chosen, left):
    assert [gpu.index for gpu in box.place(CUDA_VISIBLE_DEVICES=chosen).gpus()] == left


def test_amds_gpus_are_read_from_the_kernel(tmp_path):
    node = tmp_path / "sys/class/kfd/kfd/topology/nodes/1"
    (node / "mem_banks/0").mkdir(parents=True)
    (node / "properties").write_text("simd_count 304\ndrm_render_minor 129\nunique_id 4660\n")
    (node / "name").write_text("gfx942\n")
    (node / "gpu_id").write_text("77\n")
    (node / "mem_banks/0/properties").write_text("heap_type 1\nsize_in_bytes 206141652992\n")
    processor = node.parent / "0"
    processor.mkdir()
    (processor / "properties").write_text("simd_count 0\n")
    user = tmp_path / "sys/class/kfd/kfd/proc/345"
    user.mkdir(parents=True)
    (user / "vram_77").write_text("1048576\n")
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/kfd").write_text("")
    (found,) = GpuPlace(root=str(tmp_path)).gpus()
    assert (found.uuid, found.model, round(found.memory_gib)) == ("GPU-0000000000001234", "gfx942", 192)
    assert (found.nodes, found.holders) == ((str(tmp_path / "dev/dri/renderD129"),), (345,))
    assert gpus.environment([found])["ROCR_VISIBLE_DEVICES"] == "GPU-0000000000001234"
    assert gpus.environment([found])["HIP_VISIBLE_DEVICES"] == "0"
    words = gpus.walls([found], str(tmp_path))
    assert [words[i + 2] for i, word in enumerate(words) if word == "--dev-bind"] == ["/dev/dri/renderD129", "/dev/kfd"]


# taking


def test_lock_folder_that_others_can_write_to_is_not_used(box):
    (box.folder / "locks").mkdir()
    (box.folder / "locks").chmod(0o777)
    with pytest.raises(PermissionError, match="belongs to somebody else"):
        take(box.place(), 1)


def test_gpus_are_taken_all_or_none_and_come_free_with_their_holder(box):
    first = take(box.place(), 1)
    assert [gpu.index for gpu in first.gpus] == [0]
    both = take(box.place(), 2)
    assert (both.gpus, both.waits_for) == ((), "waits for 2 GPUs, 1 of 2 idle: GPU 0 trains another job")
    assert [gpu.index for gpu in take(box.place(), 1).gpus] == [1], "what could not be used was let go"
    for descriptor in first.descriptors:
        os.close(descriptor)
    assert [gpu.index for gpu in take(box.place(), 1).gpus] == [0]


# giving


def test_job_sees_its_own_gpus_device_files_and_no_other(runner, gpu_job):
    if runner.tier is Tier.PLAIN:
        pytest.skip("no isolation here")
    for job_id in ("one", "two"):
        runner.launch(gpu_job(job_id))
    found = [seen(runner, job_id) for job_id in ("one", "two")]
    assert {each["env"]["CUDA_VISIBLE_DEVICES"] for each in found} == {"GPU-0aaa-bbb", "GPU-1aaa-bbb"}
    for each in found:
        own = "nvidia" + each["env"]["CUDA_VISIBLE_DEVICES"][4]
        assert each["nodes"] == sorted(["nvidia-uvm", own, "nvidiactl"])
        assert (each["sys"], each["caps"]) == (True, False)
    assert runner.status(JobId("one")).detail == f"on GPU {found[0]['env']['CUDA_VISIBLE_DEVICES'][4]} (NVIDIA H200)"
    for job_id in ("one", "two"):
        let_go(runner, job_id)


def test_job_that_asked_for_no_gpu_sees_none(runner, script):
    runner.launch(script(SEEN))
    found = seen(runner, "job")
    assert found["env"] == {"CUDA_VISIBLE_DEVICES": "", "ROCR_VISIBLE_DEVICES": ""}
    if runner.tier is not Tier.PLAIN:
        assert (found["nodes"], found["sys"]) == ([], False)
    let_go(runner, "job")


def test_plain_job_is_told_which_gpu_is_its_own(box, new_runner, gpu_job):
    runner = new_runner(gpu_place=box.place(), tier=Tier.PLAIN)
    runner.launch(gpu_job("job"))
    assert seen(runner, "job")["env"]["CUDA_VISIBLE_DEVICES"] == "GPU-0aaa-bbb"
    let_go(runner, "job")


def test_job_waits_while_a_stranger_computes_and_says_so(box, runner, gpu_job):
    box.busy((0, 4711))
    runner.launch(gpu_job("job", 2))
    wait_for(lambda: "4711" in detail(runner, "job"))
    expected = "next in line; 0 jobs are running; waits for 2 GPUs, 1 of 2 idle: GPU 0 is in use by process 4711"
    assert detail(runner, "job") == expected
    assert runner.status(JobId("job")).state is JobState.QUEUED
    box.busy()
    assert seen(runner, "job")["env"]["CUDA_VISIBLE_DEVICES"] == "GPU-0aaa-bbb,GPU-1aaa-bbb"
    let_go(runner, "job")


def test_jobs_wait_for_gpus_in_line_and_others_pass_them(runner, gpu_job, script, finish):
    runner.launch(gpu_job("all", 2))
    seen(runner, "all")
    for job_id in ("small", "third"):
        runner.launch(gpu_job(job_id))
    wait_for(lambda: "GPU 1 trains another job" in detail(runner, "small"))
    assert detail(runner, "small").startswith("next in line; 1 job is running; waits for 1 GPU, 0 of 2 idle")
    assert detail(runner, "third") == "2nd in line; 1 job is running"
    assert finish(runner, script("pass", "data")).state is JobState.SUCCEEDED, "it needs no GPU and waits for none"
    runner.cancel(JobId("third"))
    let_go(runner, "all")
    let_go(runner, "small")


def test_gpu_of_a_killed_supervisor_is_free_again(runner, gpu_job):
    runner.launch(gpu_job("all", 2))
    seen(runner, "all")
    lease = json.loads((runner.folder(JobId("all")).parent / LEASE).read_text())
    os.kill(lease["pid"], signal.SIGKILL)
    assert runner.wait(JobId("all"), 60).state is JobState.LOST
    runner.launch(gpu_job("next", 2))
    seen(runner, "next")
    let_go(runner, "next")


def test_second_runner_of_this_user_does_not_take_the_same_gpu(box, runner, new_runner, gpu_job):
    other = new_runner("other-jobs", gpu_place=box.place())
    runner.launch(gpu_job("one"))
    first = seen(runner, "one")
    other.launch(gpu_job("two"))
    assert seen(other, "two")["env"]["CUDA_VISIBLE_DEVICES"] != first["env"]["CUDA_VISIBLE_DEVICES"]
    let_go(runner, "one")
    let_go(other, "two")


@pytest.mark.parametrize(
    ("hardware", "message"),
    [
        (Hardware(gpus=3), r"asks for 3 GPUs, and this machine has GPU 0 \(NVIDIA H200\), GPU 1 .* at most 2"),
        (Hardware(gpus=-1), "hardware.gpus is -1"),
        (Hardware(nodes=2), "asks for 2 machines"),
        (Hardware(nodes=0), "hardware.nodes is 0"),
    ],
)
def test_more_than_the_machine_has_is_refused(runner, script, hardware, message):
    with pytest.raises(UserError, match=message):
        runner.launch(replace(script("pass"), hardware=hardware))
    assert list(runner.jobs()) == []


def test_machine_without_gpus_refuses_in_words(new_runner, tmp_path, script):
    runner = new_runner(gpu_place=place({"PATH": ""}, str(tmp_path)))
    with pytest.raises(UserError, match="shows none that jobs may have"):
        runner.launch(replace(script("pass"), hardware=Hardware(gpus=1)))


def test_this_machine_is_one_flavor_with_its_gpus(runner):
    (only,) = runner.flavors()
    assert (only.name, only.gpus, only.gpu_model, only.gpu_memory_gib) == ("local", 2, "NVIDIA H200", 140.4)
