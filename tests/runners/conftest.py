"""A runner for each sandbox tier that this machine really has, and proof that no test leaves a process behind."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runners import cgroup, sandbox
from runners.job import Caps, JobId, JobSpec, JobStatus
from runners.local import LocalRunner
from runners.sandbox import TierReport
from runners.tier import Tier
from tests.runners import ray_cluster

REPORTS = {report.tier: report for report in sandbox.probe()}


def processes_naming(path: Path) -> list[str]:
    """Command lines of this machine's processes that name `path`: supervisors and sandboxes do."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                words = Path("/proc", name, "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if str(path) in words:
                found.append(f"{name}: {words[-200:]}")
    return found


@pytest.fixture(scope="session", autouse=True)
def no_cluster_stays() -> Iterator[None]:
    """A cluster takes too long to start to be started for each test."""
    yield
    ray_cluster.close_shared()


def control_groups(runners: list[LocalRunner]) -> list[Path]:
    try:
        hierarchy = cgroup.find_hierarchy()
    except cgroup.CgroupUnavailable:
        return []
    prefixes = {sandbox.group_prefix(runner.root) for runner in runners}
    return [path for folder in hierarchy.folders for prefix in prefixes for path in folder.glob(f"{prefix}*")]


@pytest.fixture(scope="session", autouse=True)
def container_engines() -> Iterator[None]:
    """Ends the engines that tests have started, and proves that nothing of them is left."""
    yield
    engines = sys.modules.get("tests.runners.engines")
    if engines is not None:
        assert engines.stop_engines() == []


@pytest.fixture(params=list(Tier), ids=str)
def tier(request: pytest.FixtureRequest) -> TierReport:
    report = REPORTS[request.param]
    if not report.available:
        pytest.skip(f"{report.tier}: {report.reason}")
    return report


@pytest.fixture
def new_runner(tmp_path: Path) -> Iterator[Callable[..., LocalRunner]]:
    """Makes runners below one folder; at the end their jobs are ended and nothing of them may be running."""
    made: list[LocalRunner] = []

    def make(name: str = "jobs", **options: Any) -> LocalRunner:
        runner = LocalRunner(tmp_path / name, **options)
        made.append(runner)
        return runner

    yield make
    for runner in made:
        for job_id in runner.jobs():
            runner.cancel(job_id)
    # A supervisor needs some milliseconds to end after it has written its last word.
    deadline = time.monotonic() + 30
    while (left := processes_naming(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.005)
    assert left == []
    assert control_groups(made) == []


@pytest.fixture
def runner(tier: TierReport, new_runner: Callable[..., LocalRunner]) -> LocalRunner:
    return new_runner(tier=tier.tier, slots=4)


@pytest.fixture
def best_runner(new_runner: Callable[..., LocalRunner]) -> LocalRunner:
    """The strongest tier, for what does not depend on it."""
    return new_runner(slots=4)


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., JobSpec]:
    """A job that runs the given Python, with caps fit for a test."""

    def make(code: str, job_id: str = "job", *, caps: Caps | None = None, **fields: Any) -> JobSpec:
        path = tmp_path / f"{job_id}.py"
        path.write_text(code, encoding="utf-8")
        fields.setdefault("argv", ("{python}", "script.py"))
        fields["files"] = {"script.py": str(path), **fields.get("files", {})}
        return JobSpec(job_id=JobId(job_id), caps=caps or Caps(memory_gib=1, timeout_seconds=60),
                       **{"trusted": True, **fields})  # fmt: skip

    return make


@pytest.fixture
def finish() -> Callable[[LocalRunner, JobSpec], JobStatus]:
    def run(runner: LocalRunner, spec: JobSpec, timeout_seconds: float = 60) -> JobStatus:
        runner.launch(spec)
        return runner.wait(spec.job_id, timeout_seconds)

    return run
