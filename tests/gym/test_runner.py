"""The warm runner and its host: the Runner protocol without walls, for shipped scripts alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bot.config import Settings
from bot.errors import PlatformError, SettingsError, UserError
from bot.gym.host import WarmHost
from bot.server.backends import runner_of
from runners.job import Caps, FailureKind, Hardware, JobId, JobSpec, JobState, JobStatus, read_json
from runners.warm import USAGE, WarmRunner

JOB = JobId("job")
Spec = Callable[..., JobSpec]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmHost]:
    with WarmHost(tmp_path_factory.mktemp("w"), modules=("json",)) as found:
        yield found


@pytest.fixture
def runner(host: WarmHost, tmp_path: Path) -> WarmRunner:
    return WarmRunner(tmp_path / "jobs", host.door)


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    def made(text: str, *words: str, job_id: str = JOB, trusted: bool = True, **more: Any) -> JobSpec:
        script = tmp_path / f"{job_id}.py"
        script.write_text(text)
        argv = ("{python}", "script.py", *words)
        return JobSpec(JobId(job_id), argv, files={"script.py": str(script)}, trusted=trusted, **more)

    return made


def ended(runner: WarmRunner, job_id: JobId = JOB) -> JobStatus:
    deadline = time.monotonic() + 20
    while not ((status := runner.status(job_id)) and status.state.ended):
        assert time.monotonic() < deadline, status
        time.sleep(0.01)
    return status


def test_job_that_succeeds_brings_outputs_metrics_log_and_its_account(
    runner: WarmRunner, spec: Spec, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    text = (
        "import os, pathlib, sys\npathlib.Path('out').mkdir()\n"
        "pathlib.Path('out/metrics.jsonl').write_text('{\"step\": 1, \"loss\": 2.0}\\n')\n"
        "print(sys.argv[1:], os.environ['MARK'])\n"
    )
    job = spec(text, "--model", "{mount:model}", mounts={"model": str(model)}, environment={"MARK": "here"})
    assert runner.launch(job).state in (JobState.QUEUED, JobState.RUNNING, JobState.SUCCEEDED)
    status = ended(runner)
    assert (status.state, status.exit_code, status.tier) == (JobState.SUCCEEDED, 0, "warm")
    assert runner.metrics(JOB) == [{"step": 1, "loss": 2.0}]
    assert runner.log_tail(JOB) == f"['--model', '{model}'] here"
    usage = read_json(runner.root / JOB / USAGE)
    assert usage is not None and 0 < usage["cpu_seconds"] < 5
    assert runner.launch(job) == status, "launched again it is the same job"
    assert runner.jobs() == [JOB]


@pytest.mark.parametrize(
    ("text", "code", "failure"),
    [
        ("import sys; sys.exit(2)", 2, FailureKind.SCRIPT_ERROR),
        ("raise MemoryError", 1, FailureKind.OOM),
        ("import os; os.kill(os.getpid(), 11)", 139, FailureKind.SIGNAL),
    ],
)
def test_failure_is_classified_as_everywhere(
    runner: WarmRunner, spec: Spec, text: str, code: int, failure: FailureKind
) -> None:
    runner.launch(spec(text))
    status = ended(runner)
    assert (status.state, status.exit_code, status.failure) == (JobState.FAILED, code, failure)


def test_time_out_ends_what_the_job_started(runner: WarmRunner, spec: Spec) -> None:
    runner.launch(spec("import time; time.sleep(60)", caps=Caps(timeout_seconds=0.3)))
    status = ended(runner)
    assert (status.state, status.failure) == (JobState.FAILED, FailureKind.TIMEOUT)


def test_cancelled_jobs_end_whether_they_run_or_wait(runner: WarmRunner, spec: Spec) -> None:
    first, second = JobId("first"), JobId("second")
    runner.launch(spec("import time; time.sleep(60)", job_id=first))
    runner.launch(spec("print('never')", job_id=second))
    found = runner.status(second)
    assert found is not None and found.state is JobState.QUEUED, "one at a time"
    for job_id in (second, first):
        runner.cancel(job_id)
        assert ended(runner, job_id).state is JobState.CANCELLED
    assert runner.log_tail(second) == ""


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"trusted": False}, "no sandbox. Set POSTDOC_RUNNER to local or docker"),
        ({"hardware": Hardware(gpus=1)}, "asks for GPUs"),
    ],
)
def test_job_that_must_not_run_here_is_refused(
    runner: WarmRunner, spec: Spec, changed: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        runner.launch(spec("print('ran')", **changed))
    assert runner.status(JOB) is None
    assert list(runner.jobs()) == []


def test_other_program_than_a_script_is_refused(runner: WarmRunner) -> None:
    with pytest.raises(UserError, match="starts Python scripts alone"):
        runner.launch(JobSpec(JOB, ("{python}", "-c", "print(1)"), trusted=True))


def test_jobs_are_lost_with_their_host(tmp_path: Path, spec: Spec) -> None:
    with WarmHost(tmp_path / "w", modules=("json",)) as host:
        runner = WarmRunner(tmp_path / "jobs", host.door)
        runner.launch(spec("import time; time.sleep(60)"))
        # As if the host's process had been killed: nobody was told, and the file says that the job runs.
        while not (status := runner.status(JOB)) or status.state is not JobState.RUNNING:
            time.sleep(0.01)
        kept = (runner.root / JOB / "status.json").read_bytes()
    time.sleep(0.1)
    (runner.root / JOB / "status.json").write_bytes(kept)
    assert ended(runner).state is JobState.LOST
    assert runner.sweep().lost == ()
    with pytest.raises(PlatformError, match="does not answer"):
        runner.launch(spec("print(1)", job_id="next"))


def test_path_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="shorter name"), WarmHost(tmp_path / ("x" * 100), modules=("json",)):
        pass


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "needs POSTDOC_WARM_DOOR"),
        ({"warm_door": "relative.sock"}, "needs POSTDOC_WARM_DOOR"),
        ({"warm_door": "/tmp/door.sock", "host": "0.0.0.0"}, "serves this machine only"),
    ],
)
def test_server_takes_it_only_where_it_is_meant(tmp_path: Path, given: dict[str, str], said: str) -> None:
    settings = Settings.model_validate({"app_id": "1", "webhook_secret": "x" * 20, "runner": "warm"} | given)
    with pytest.raises(SettingsError, match=said):
        runner_of(settings, tmp_path, None, ())
