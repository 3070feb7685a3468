"""Control groups of both layouts: over plain folders that stand for the kernel's, and where it lets us over its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from runners.cgroup import Cgroup, CgroupUnavailable, Hierarchy, find_hierarchy
from runners.job import Caps


@pytest.fixture
def unified(tmp_path):
    """Version 2: this process is in /system.slice/postdoc.service."""
    for folder, enabled in (("", "cpu memory pids"), ("system.slice", "pids"), ("system.slice/postdoc.service", "")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "cgroup.controllers").write_text("cpu memory pids\n")
        (tmp_path / folder / "cgroup.subtree_control").write_text(enabled + "\n")
    return tmp_path


def test_v2_group_is_made_beside_our_own_with_the_controllers_enabled(unified):
    found = find_hierarchy(unified, "0::/system.slice/postdoc.service\n")
    assert found == Hierarchy(2, str(unified / "system.slice"), str(unified / "system.slice"))
    assert found.folders == (unified / "system.slice",)
    assert (unified / "system.slice/cgroup.subtree_control").read_text() == "+memory"
    assert (unified / "cgroup.subtree_control").read_text() == "cpu memory pids\n", "nothing was missing there"
    assert Hierarchy.from_dict(found.as_dict()) == found


def test_v2_group_that_refuses_controllers_leaves_the_one_above(unified):
    control = unified / "system.slice/cgroup.subtree_control"
    control.unlink()
    control.mkdir()  # cannot be read as a file: stands for a group that does not let us
    assert find_hierarchy(unified, "0::/system.slice/postdoc.service\n").memory == str(unified)
    (unified / "cgroup.subtree_control").unlink()
    with pytest.raises(CgroupUnavailable, match=r"system.slice: controllers cannot be enabled"):
        find_hierarchy(unified, "0::/system.slice/postdoc.service\n")


def test_v2_process_at_the_root_uses_the_root(unified):
    assert find_hierarchy(unified, "0::/\n").memory == str(unified)


@pytest.fixture
def fill_new_folders(monkeypatch):
    """Makes a new folder hold the given files at once, as the kernel does."""

    def fill(files):
        plain_mkdir = Path.mkdir

        def mkdir(path):
            plain_mkdir(path)
            for name, text in files.items():
                (path / name).write_text(text)

        monkeypatch.setattr(Path, "mkdir", mkdir)

    return fill


V2_FILES = {
    "memory.max": "max\n", "memory.swap.max": "max\n", "memory.oom.group": "0\n", "memory.peak": "734003200\n",
    "memory.events": "low 0\nhigh 0\nmax 31\noom 1\noom_kill 2\noom_group_kill 1\n", "pids.max": "max\n",
    "memory.stat": "anon 1000\nfile 5000\nshmem 24\nanon_thp 0\n", "pids.events": "max 3\n", "cgroup.procs": "",
}  # fmt: skip


def test_v2_caps_counters_and_peak(unified, fill_new_folders):
    fill_new_folders(V2_FILES)
    group = Cgroup(find_hierarchy(unified, "0::/system.slice/postdoc.service\n"), "job")
    group.create(64 << 20, 32)
    group.enter()
    folder = unified / "system.slice/job"
    assert {name: (folder / name).read_text() for name in (
        "memory.max", "memory.swap.max", "memory.oom.group", "pids.max", "cgroup.procs"
    )} == {
        "memory.max": "67108864", "memory.swap.max": "0", "memory.oom.group": "1", "pids.max": "32", "cgroup.procs": "0"
    }  # fmt: skip
    assert (group.oom_kills(), group.pids_refused(), group.peak_bytes()) == (2, 3, 734003200)
    assert group.private_bytes() == 1024


V1_FILES = {
    "memory.limit_in_bytes": "9223372036854771712\n", "memory.memsw.limit_in_bytes": "9223372036854771712\n",
    "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n", "cgroup.procs": "",
    "memory.max_usage_in_bytes": "67108864\n", "memory.stat": "rss 1\ntotal_rss 70\ntotal_shmem 7\n",
    "pids.max": "max\n", "pids.events": "max 0\n",
}  # fmt: skip


@pytest.fixture
def split(tmp_path):
    """Version 1: a folder for each controller; the memory group of this process is visible, that of pids is not."""
    for folder in ("memory", "memory/service", "pids"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "cgroup.procs").write_text("")
    return tmp_path


MEMBERSHIP = "9:name=systemd:/\n8:pids:/docker/abc\n4:memory:/service\n1:cpu,cpuacct:/\n0::/\n"


def test_v1_group_is_made_below_our_own_or_at_the_root_where_that_is_not_visible(split):
    found = find_hierarchy(split, MEMBERSHIP)
    assert found == Hierarchy(1, str(split / "memory/service"), str(split / "pids"))


def test_v1_caps_counters_and_peak(split, fill_new_folders):
    fill_new_folders(V1_FILES)
    group = Cgroup(find_hierarchy(split, MEMBERSHIP), "job")
    group.create(64 << 20, 32)
    group.enter()
    memory, pids = split / "memory/service/job", split / "pids/job"
    assert (memory / "memory.limit_in_bytes").read_text() == "67108864"
    assert (memory / "memory.memsw.limit_in_bytes").read_text() == "67108864"
    assert (pids / "pids.max").read_text() == "32"
    assert [(folder / "cgroup.procs").read_text() for folder in (memory, pids)] == ["0", "0"]
    assert (group.oom_kills(), group.pids_refused(), group.peak_bytes(), group.private_bytes()) == (1, 0, 67108864, 77)


def test_v1_without_a_pids_hierarchy_is_unavailable(split):
    (split / "pids/cgroup.procs").unlink()
    with pytest.raises(CgroupUnavailable, match=r"no right to make a group in .*pids"):
        find_hierarchy(split, MEMBERSHIP)


def test_machine_without_control_groups_says_so(tmp_path):
    with pytest.raises(CgroupUnavailable, match="no cgroup file system"):
        find_hierarchy(tmp_path, "0::/\n")


def test_missing_control_file_is_an_error_and_does_not_come_to_be(split):
    found = find_hierarchy(split, MEMBERSHIP)
    with pytest.raises(FileNotFoundError):
        Cgroup(found, "job").create(1 << 20, 8)
    assert not (split / "memory/service/job/memory.limit_in_bytes").exists()


def test_real_group_holds_its_process_and_can_be_killed_and_removed():
    try:
        group = Cgroup(find_hierarchy(), f"postdoc-test-{uuid4().hex}")
        group.create(256 << 20, Caps().pids)
    except (CgroupUnavailable, OSError) as error:
        pytest.skip(f"no control group here: {error}")
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], preexec_fn=group.enter)
    try:
        assert group.processes() == [sleeper.pid]
        assert not group.remove(timeout_seconds=0.02), "a group with a process in it stays"
        assert (group.oom_kills(), group.pids_refused()) == (0, 0)
    finally:
        sleeper_waits = group.kill(timeout_seconds=0.01)
        assert sleeper.wait() == -9
        assert group.kill() or sleeper_waits
        assert group.remove()
    assert not group.exists()
