"""Mode `train` as the bot dispatches it: the wrapper in a store's service, detached, with a token that nobody sees."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runners.job import Caps, JobId, JobSpec, JobState, JobStatus
from runners.local import LocalRunner
from runners.remote import package
from runners.remote.store import INPUTS, OUTPUTS, STATUS, FolderStore
from tests.actions.conftest import TEMPLATES, Place
from tests.actions.stepper import JobRun
from tests.actions.tracked import command_lines_with, now_ticks, processes_with

TRAIN = TEMPLATES / "postdoc-train.yml"
TOKEN = "pdr_Wq8ZxN3vT6mK1sLpR9cYdH2fGbJ4"
STEP = "OWNER/postdoc@0000000000000000000000000000000000000000"
WELL = "import os; os.mkdir('out'); open('out/answer', 'w').write('42')\n"


@pytest.fixture
def dispatched(place: Place) -> Iterator[Dispatched]:
    found = Dispatched(place)
    yield found
    found.close()


class Dispatched:
    """A store with one job in it, and the workflow that the bot starts for it."""

    def __init__(self, place: Place) -> None:
        self.place, self.job = place, JobId("lab-1-train-01-1")
        self.store = FolderStore(place.folder / "store")
        self.store.folder.mkdir()
        self.jobs = place.folder / "home" / ".postdoc" / "jobs"
        self.began = now_ticks()

    def put(self, script: str, **changed: Any) -> None:
        work = self.place.folder / "inputs"
        work.mkdir()
        (work / "job.py").write_text(script)
        (work / "recipe.yaml").write_text("learning_rate: 1.0e-06\nmethod: grpo\n")
        spec = JobSpec(
            self.job, ("{python}", "job.py"), files={name: str(work / name) for name in ("job.py", "recipe.yaml")},
            trusted=True, caps=Caps(memory_gib=1, timeout_seconds=60), **changed,
        )  # fmt: skip
        package.pack(spec, work, self.store.folder / INPUTS)

    def run(self, cancel_when: Callable[[str], bool] | None = None, **changed: str) -> JobRun:
        sha = str(self.place.forge.repository("acme/lab").git.branch("main"))
        inputs = {"job": self.job, "sha": sha, "store": str(self.store.folder), "token": TOKEN,
                  "timeout_minutes": "5", "label": "gpu"} | changed  # fmt: skip
        machine = self.place.machine(cancel_when=cancel_when)
        return self.place.run(TRAIN, "workflow_dispatch", {"inputs": inputs}, machine=machine)

    def told(self) -> JobStatus:
        found = self.store.read(STATUS)
        assert found is not None
        return JobStatus.from_dict(json.loads(found))

    def until(self, condition: Callable[[], Any], what: str) -> None:
        deadline = time.monotonic() + 90
        while not condition():
            assert time.monotonic() < deadline, what
            time.sleep(0.05)

    def wrappers(self) -> list[str]:
        return [line for line in command_lines_with("actions.wrapping", self.began) if self.job in line]

    def close(self) -> None:
        if self.jobs.exists():
            runner = LocalRunner(self.jobs)
            for job_id in runner.jobs():
                runner.cancel(job_id)
            self.until(lambda: not self.wrappers(), "the wrapper ends with its job")


def test_job_is_run_and_its_outputs_come_home(dispatched: Dispatched, tmp_path: Path) -> None:
    dispatched.put(WELL)
    run = dispatched.run()
    assert run.conclusion == "success", run.log.text
    assert (run.run_name, run.concurrency) == (f"postdoc {dispatched.job}", f"postdoc-{dispatched.job}")
    assert run.permissions == {"contents": "read"}
    assert dispatched.told().state is JobState.SUCCEEDED
    package.unpack_outputs(dispatched.store.folder / OUTPUTS, tmp_path / "home-again", 1 << 20)
    assert (tmp_path / "home-again" / "out" / "answer").read_text() == "42"
    assert run.step(STEP).outputs["state"] == "succeeded"
    assert (run.artifact(f"postdoc-{dispatched.job}") / "result.json").is_file()
    assert not (run.artifact(f"postdoc-{dispatched.job}") / "out").exists()


def test_token_is_masked_and_in_no_log_environment_command_or_file(dispatched: Dispatched) -> None:
    dispatched.put("import os, time; print(os.environ); os.mkdir('out'); time.sleep(1.5)\n")
    seen: list[str] = []
    looking = threading.Event()

    def look() -> None:
        while not looking.wait(0.1):
            for pid in processes_with(b"POSTDOC_MARK=dispatched", dispatched.began):
                for name in ("environ", "cmdline"):
                    try:
                        seen.append(Path(f"/proc/{pid}/{name}").read_text(errors="replace"))
                    except OSError:
                        continue

    watcher = threading.Thread(target=look)
    machine = dispatched.place.machine()
    machine.environment["POSTDOC_MARK"] = "dispatched"
    watcher.start()
    sha = str(dispatched.place.forge.repository("acme/lab").git.branch("main"))
    inputs = {"job": dispatched.job, "sha": sha, "store": str(dispatched.store.folder), "token": TOKEN,
              "timeout_minutes": "5", "label": "gpu"}  # fmt: skip
    run = dispatched.place.run(TRAIN, "workflow_dispatch", {"inputs": inputs}, machine=machine)
    looking.set()
    watcher.join()
    assert run.conclusion == "success", run.log.text
    assert TOKEN in run.log.masks
    assert TOKEN not in run.log.text + run.summary
    assert any("actions.wrapping" in text for text in seen)
    assert not any(TOKEN in text for text in seen)
    event = dispatched.place.folder / "machine" / "run-1" / "event.json"
    holding = [
        path for path in dispatched.place.folder.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()
    ]
    assert holding == [event]


DOOMED = """
import json, os, time
os.makedirs('out/checkpoint-30')
json.dump({'max_steps': 100}, open('out/setup.json', 'w'))
with open('out/metrics.jsonl', 'w') as file:
    for step in range(1, 31):
        row = {'step': step, 'loss': 0.0, 'grad_norm': 0.0, 'reward': 0.0, 'frac_reward_zero_std': 1.0}
        file.write(json.dumps(row) + chr(10))
while not os.path.exists('out/checkpoint_now'): time.sleep(0.02)
open('out/checkpoint-30/weights', 'w').write('kept')
os.unlink('out/checkpoint_now')
time.sleep(600)
"""


def test_doomed_job_is_ended_beside_it_with_a_checkpoint_and_the_store_hears_why(
    dispatched: Dispatched, tmp_path: Path
) -> None:
    """Nobody reads the store here: the server is away."""
    dispatched.put(DOOMED, monitor="abort", checkpoints="out")
    run = dispatched.run()
    assert run.conclusion == "failure"
    told = dispatched.told()
    assert (told.state, told.watched) == (JobState.CANCELLED, True), told
    assert told.judged is not None
    assert (told.judged["tier"], told.judged["step"], told.judged["total_steps"]) == ("hard", 30, 100)
    assert [each["symptom"] for each in told.judged["diagnoses"]] == ["reward_zero"]
    package.unpack_outputs(dispatched.store.folder / OUTPUTS, tmp_path / "home-again", 1 << 20)
    assert (tmp_path / "home-again" / "out" / "checkpoint-30" / "weights").read_text() == "kept"
    assert "was ended by the monitor at step 30" in run.summary


@pytest.mark.slow
def test_failing_job_fails_the_workflow_and_tells_the_store(dispatched: Dispatched) -> None:
    dispatched.put("raise SystemExit(3)\n")
    run = dispatched.run()
    assert run.conclusion == "failure"
    assert (dispatched.told().state, dispatched.told().exit_code) == (JobState.FAILED, 3)
    assert run.step("Artifact").conclusion == "success"
    assert "failed (script_error)" in run.summary.replace("\\", "")


def test_store_without_the_job_is_said(dispatched: Dispatched) -> None:
    run = dispatched.run()
    assert run.conclusion == "failure"
    assert "the job's inputs are not in its store" in json.dumps(dispatched.told().as_dict()) + run.log.text


def test_wrong_job_id_is_refused_before_a_path_is_made_of_it(dispatched: Dispatched) -> None:
    run = dispatched.run(job="../../x;touch pwned")
    assert run.conclusion == "failure"
    assert any("write up to 120 lowercase letters" in each.message for each in run.annotations)
    assert not list(dispatched.place.folder.rglob("pwned"))


def test_cancelled_workflow_ends_the_job_and_the_store_hears_of_it(dispatched: Dispatched) -> None:
    dispatched.put("import time; time.sleep(600)\n")
    run = dispatched.run(cancel_when=lambda line: line.endswith(": running"))
    assert run.conclusion == "cancelled"
    dispatched.until(lambda: not dispatched.wrappers(), "the wrapper ends")
    assert dispatched.told().state is JobState.CANCELLED


def test_job_outlives_a_step_that_is_killed_and_the_next_workflow_follows_it(dispatched: Dispatched) -> None:
    """Power is not lost: only GitHub's side of the job is. The processes with its tracking id end, ours do not."""
    dispatched.put(f"import os, time\nwhile not os.path.exists({'go'!r}): time.sleep(0.05)\n{WELL}")

    def kill_the_step(line: str) -> bool:
        if line.endswith(": running"):
            for pid in processes_with(b"INPUT_JOB=" + dispatched.job.encode(), dispatched.began):
                os.kill(pid, signal.SIGKILL)
        return False

    run = dispatched.run(cancel_when=kill_the_step)
    assert run.conclusion == "failure"
    assert "ended without a result" in run.summary
    assert len(dispatched.wrappers()) == 1
    # The step read the job's own folder; the store hears of it when the wrapper next looks.
    dispatched.until(lambda: dispatched.told().state is JobState.RUNNING, "the store hears that it runs")
    work = LocalRunner(dispatched.jobs).folder(dispatched.job)

    def let_go(line: str) -> bool:
        if "following it" in line:
            (work / "go").touch()
        return False

    again = dispatched.run(cancel_when=let_go)
    assert again.conclusion == "success", again.log.text
    assert dispatched.told().state is JobState.SUCCEEDED


@pytest.mark.slow
def test_wrapper_runs_from_a_copy_and_without_a_variable_of_githubs(dispatched: Dispatched) -> None:
    """The runner's own folder with this action is emptied before its next job."""
    dispatched.put("import time; time.sleep(1.5)\n")
    seen: list[bytes] = []

    def look(line: str) -> bool:
        if line.endswith(": running"):
            [version] = (dispatched.jobs / ".code").iterdir()
            [pid] = processes_with(f"PYTHONPATH={version}".encode(), dispatched.began)
            seen.append(Path(f"/proc/{pid}/environ").read_bytes())
        return False

    run = dispatched.run(cancel_when=look)
    assert run.conclusion == "success", run.log.text
    assert seen
    assert not any(name in seen[0] for name in (b"RUNNER_", b"GITHUB_", b"INPUT_", b"ACTIONS_"))
