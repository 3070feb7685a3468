"""What is asked of an engine, without one: the body of the request that makes a container."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bot.errors import UserError
from runners.cache import Shared
from runners.containers import plan as container_plan
from runners.containers.engine import Description, Image
from runners.containers.plan import Setting, container, launch_plan, with_gpus
from runners.gpus import Gpu, GpuPlace
from runners.job import Caps, Hardware, JobSpec

IMAGE = Image("sha256:" + "1" * 64, ("PATH=/opt/venv/bin:/usr/bin",), ("/var/lib/data",))
DOCKER = Description("docker", "28.0", rootless=False, remapped=False, caps_hold=True)
PODMAN = replace(DOCKER, kind="podman")


@pytest.fixture
def here(tmp_path: Path) -> Setting:
    return Setting("unix:///var/run/docker.sock", DOCKER, IMAGE, tmp_path, "python3", GpuPlace(), Shared())


@pytest.fixture
def spec(script: Callable[..., JobSpec]) -> JobSpec:
    return script("print()", caps=Caps(memory_gib=2, pids=100, file_size_gib=1, timeout_seconds=60))


def environment(body: Mapping[str, Any]) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in body["Env"])


def test_container_is_walled_in_unless_the_job_says_otherwise(here, spec, tmp_path):
    body = container(spec, here, tmp_path / "job")
    host = body["HostConfig"]
    assert host["NetworkMode"] == "none"
    assert (host["ReadonlyRootfs"], host["CapDrop"]) == (True, ["ALL"])
    assert "no-new-privileges" in host["SecurityOpt"]
    assert host["Memory"] == host["MemorySwap"] == 2 << 30
    assert host["PidsLimit"] == 101
    assert {limit["Name"]: limit["Hard"] for limit in host["Ulimits"]}["fsize"] == 1 << 30
    assert not {"Privileged", "CapAdd", "PidMode", "Devices", "DeviceRequests", "Binds", "UsernsMode"} & set(host)
    assert [(mount["Target"], mount["ReadOnly"]) for mount in host["Mounts"]] == [
        ("/job", False), ("/scratch", False), ("/postdoc", True),
    ]  # fmt: skip
    assert body["Image"] == IMAGE.identity
    # What the image would make a nameless volume of is memory under the job's cap.
    assert set(host["Tmpfs"]) == {"/tmp", "/var/lib/data"}


def test_job_is_never_root_in_its_container(here, spec, tmp_path, monkeypatch):
    for uid, user in ((0, "64737:64737"), (1000, "1000:1000")):
        monkeypatch.setattr(os, "getuid", lambda uid=uid: uid)
        monkeypatch.setattr(os, "getgid", lambda uid=uid: uid)
        assert container(spec, here, tmp_path)["User"] == user


def test_rootless_and_remapped_engines_leave_the_jobs_folder_to_its_owner(here, spec, tmp_path):
    podman = replace(here, engine=replace(PODMAN, rootless=True))
    assert container(spec, podman, tmp_path)["HostConfig"]["UsernsMode"] == "keep-id"
    remapped = replace(here, engine=replace(DOCKER, remapped=True))
    assert container(spec, remapped, tmp_path)["HostConfig"]["UsernsMode"] == "host"
    # There root is this very user outside, and nobody else could open the folder.
    rootless = replace(here, engine=replace(DOCKER, rootless=True))
    assert container(spec, rootless, tmp_path)["User"] == "0:0"


def test_image_keeps_its_own_path_and_the_job_gets_nothing_of_the_bots(here, spec, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 34)
    found = environment(container(replace(spec, environment={"GREETING": "a=b"}), here, tmp_path))
    assert "PATH" not in found
    assert found["GREETING"] == "a=b"
    assert (found["HOME"], found["HF_HOME"], found["HF_HUB_OFFLINE"]) == ("/tmp", "/scratch/huggingface", "1")
    assert "HF_TOKEN" not in found


def test_network_is_the_engines_default_where_the_job_asks_for_one(here, spec, tmp_path):
    body = container(replace(spec, network=True), here, tmp_path)
    assert "NetworkMode" not in body["HostConfig"]
    assert "HF_HUB_OFFLINE" not in environment(body)


def test_mount_that_holds_the_engines_socket_is_refused(here, spec, tmp_path):
    (tmp_path / "run").mkdir()
    other = replace(here, url=f"unix://{tmp_path}/run/docker.sock")
    with pytest.raises(UserError, match="holds the container engine's socket"):
        container(replace(spec, mounts={"init": str(tmp_path / "run")}), other, tmp_path)


def test_shared_cache_is_bound_for_reading(here, spec, tmp_path):
    (tmp_path / "cache" / "hub").mkdir(parents=True)
    body = container(spec, replace(here, shared=Shared(hub=str(tmp_path / "cache" / "hub"))), tmp_path)
    assert body["HostConfig"]["Mounts"][-1] == {
        "Type": "bind", "Source": str(tmp_path / "cache" / "hub"), "Target": "/cache/hub", "ReadOnly": True,
    }  # fmt: skip
    assert environment(body)["HF_HUB_CACHE"] == "/cache/hub"


def test_gpus_are_named_and_no_other_is_given(here, spec, tmp_path):
    wanted = replace(spec, hardware=Hardware(gpus=2))
    chosen = [
        Gpu(3, "GPU-3aaa", "NVIDIA H200", 140, "nvidia", ()),
        Gpu(5, "GPU-5bbb", "NVIDIA H200", 140, "nvidia", ()),
    ]
    plan = launch_plan(wanted, here, tmp_path)
    assert plan["gpus"] == {"count": 2, "place": GpuPlace().as_dict()}
    assert with_gpus(plan, chosen)["HostConfig"]["DeviceRequests"] == [
        {"Driver": "", "DeviceIDs": ["GPU-3aaa", "GPU-5bbb"], "Capabilities": [["gpu"]]}
    ]
    assert "DeviceRequests" not in plan["config"]["HostConfig"]
    podman = launch_plan(wanted, replace(here, engine=PODMAN), tmp_path)
    assert with_gpus(podman, chosen)["HostConfig"]["DeviceRequests"] == [
        {"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=3", "nvidia.com/gpu=5"]}
    ]


def test_amds_gpus_are_their_device_files(here, spec, tmp_path, monkeypatch):
    nodes = {"/dev/kfd": 109, str(tmp_path / "renderD129"): 44}
    monkeypatch.setattr(container_plan, "owner_group", lambda node: nodes[node])
    gpu = Gpu(0, "GPU-a", "gfx942", 192, "amd", (str(tmp_path / "renderD129"),))
    host = with_gpus(launch_plan(spec, here, tmp_path), [gpu])["HostConfig"]
    assert [each["PathOnHost"] for each in host["Devices"]] == [str(tmp_path / "renderD129"), "/dev/kfd"]
    assert host["GroupAdd"] == ["109", "44"]


def test_two_bots_on_one_machine_never_name_a_container_alike(here, tmp_path):
    names = {container_plan.container_name(root, "job") for root in (tmp_path / "a", tmp_path / "b")}
    assert len(names) == 2
