"""Jobs on Actions machines: found again, told truthfully while they wait, never lost while their wrapper lives."""

from __future__ import annotations

import json
import os
import signal
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bot.errors import PlatformError, UserError
from bot.practice import workflow_runs
from runners.github_actions.artifact import import_artifact
from runners.github_actions.backend import STORE, ActionsBackend, Dispatching
from runners.job import Caps, FailureKind, Fault, JobId, JobSpec, JobState
from runners.remote.sealing import SEALED, new_key, seal, unseal
from runners.remote.store import OUTPUTS, SEAL, STATUS, FolderStore
from tests.runners.actions_world import LAB, ActionsWorld
from tests.runners.test_contract import UNDER_WAY, wait

JOB = JobId("job")
SECONDS = 60.0


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ActionsWorld]:
    made = ActionsWorld(tmp_path)
    yield made
    made.close()


def ended(runner: Any, job_id: JobId = JOB) -> Any:
    return wait(lambda: (status := runner.status(job_id)) and status.state.ended and status, SECONDS)


def under_way(runner: Any) -> None:
    wait(lambda: runner.status(JOB) and "under way" in runner.log_tail(JOB), SECONDS)


def test_dispatch_names_the_commit_and_keeps_the_token_to_itself(world, script):
    runner = world.runner()
    spec = script("print('well')", labels={"sha": "c" * 40}, caps=Caps(timeout_seconds=601))
    assert runner.launch(spec).state is JobState.QUEUED
    [run] = world.runs()
    assert (run.head_branch, run.event, run.actor.login) == ("main", "workflow_dispatch", "postdoc[bot]")
    token = world.tokens.of(JOB)
    assert run.inputs == {
        "job": "job", "sha": "c" * 40, "store": f"{world.server_url}/runs/job/store", "token": token,
        "timeout_minutes": "26", "label": "postdoc",
    }  # fmt: skip
    written = [path for path in world.root.rglob("*") if path.is_file()]
    assert len(written) >= 3
    assert not [path for path in written if token.encode() in path.read_bytes()]


def test_job_without_a_commit_trains_the_default_branch(world, script):
    world.runner().launch(script("print('well')"))
    assert world.runs()[0].inputs["sha"] == world.forge.repository(LAB).git.branch("main")


def test_dispatch_that_was_not_noted_is_found_again(world, script):
    world.runner().launch(script("print('well')"))
    (world.root / JOB / "remote.json").unlink()
    again = world.runner()
    assert again.sweep().started == (JOB,)
    assert len(world.runs()) == 1
    world.machine()
    assert ended(again).state is JobState.SUCCEEDED


def test_run_that_github_lists_late_is_waited_for(world, script):
    """Killed right after a dispatch, the bot must not dispatch once more because the list is not up to date."""
    world.runner().launch(script("print('well')"))
    (world.root / JOB / "remote.json").unlink()
    [run] = world.runs()
    state = world.forge.repository(LAB).actions
    looks = iter([[], [], [run]])

    class Late(list[Any]):
        def __iter__(self) -> Iterator[Any]:
            return iter(next(looks, [run]))

    state.runs = Late([run])
    world.runner().sweep()
    state.runs = [run, *[other for other in list.__iter__(state.runs) if other is not run]]
    assert len(world.runs()) == 1


def test_older_server_that_does_not_tell_which_run_it_is(world, script, monkeypatch):
    runner = world.runner()
    api = runner.actions._api
    told = api.dispatch
    monkeypatch.setattr(api, "dispatch", lambda *given: (told(*given), None)[1])
    runner.launch(script("print('well')"))
    handle = json.loads((world.root / JOB / "remote.json").read_text())["handle"]
    assert handle["run"] == world.runs()[0].id


def test_workflow_file_that_is_missing_is_one_clear_sentence(world, script):
    runner = world.runner(dispatching={"workflow": "other.yml"})
    with pytest.raises(UserError, match=r"`\.github/workflows/other\.yml` is not on the default branch of acme/lab"):
        runner.launch(script("print('well')"))
    assert list(runner.jobs()) == []


def test_app_without_the_permission_is_told_so(tmp_path, script):
    world = ActionsWorld(tmp_path, permissions={"actions": "read", "metadata": "read", "checks": "write"}, events=())
    try:
        with pytest.raises(UserError, match="The App lacks a permission"):
            world.runner().launch(script("print('well')"))
    finally:
        world.close()


def test_who_waits_is_told_for_what_and_not_for_ever(world, script):
    now = time.time()
    machine = world.forge.add_machine(LAB, "gpu-box", ("gpu",))
    runner = world.runner(dispatching={"label": "gpu", "queue_seconds": 60.0})
    runner.actions._clock = lambda: now
    assert "hidden: the App lacks the permission `administration: read`" in runner.launch(script("1")).detail
    world.forge.installations[next(iter(world.forge.installations))].permissions["administration"] = "read"
    world.forge.tokens.end(next(iter(world.forge.installations.values())))

    def detail() -> str:
        runner.refresh(JOB)
        return str(runner.status(JOB).detail)

    wait(lambda: detail() == "waiting for gpu-box", SECONDS)
    machine.online = False
    wait(lambda: detail() == "no machine with the label gpu is online: gpu-box is offline", SECONDS)
    now += 61
    status = ended(runner)
    assert (status.state, status.failure, status.fault) == (JobState.FAILED, FailureKind.PLATFORM, Fault.PLATFORM)
    assert status.evidence[0].startswith("no machine took it within 1 minutes: no machine with the label gpu is online")
    assert (world.runs()[0].status, world.runs()[0].conclusion) == ("completed", "cancelled")


def test_workflow_that_dies_does_not_lose_a_wrapper_that_lives(world, script):
    """After 24 hours, say, or with the agent's service: training goes on, and so does the job."""
    machine, runner = world.machine(), world.runner()
    runner.launch(script(f"{UNDER_WAY}import os\nwhile not os.path.exists('go'): time.sleep(0.05)\n"
                         "os.mkdir('out')\nopen('out/model', 'w').write('weights')"))  # fmt: skip
    under_way(runner)
    workflow_runs.finish(world.forge, world.runs()[0].jobs[0], "failure")
    wait(lambda: "ended as failure" in runner.status(JOB).detail, SECONDS)
    signs: set[object] = set()  # of life, that the wrapper goes on giving
    while len(signs) < 4:
        assert runner.status(JOB).state is JobState.RUNNING
        signs.add(json.loads((world.root / JOB / "remote.json").read_text()).get("lease"))
        time.sleep(0.05)
    (machine.jobs / JOB / "work" / "go").touch()
    assert ended(runner).state is JobState.SUCCEEDED
    assert (runner.folder(JOB) / "out" / "model").read_text() == "weights"


def test_run_that_a_person_cancels_on_github_ends_the_job_on_its_machine(world, script):
    machine, runner = world.machine(), world.runner()
    runner.launch(script(f"{UNDER_WAY}time.sleep(600)"))
    under_way(runner)
    workflow_runs.cancel(world.forge, world.runs()[0], force=False)
    assert ended(runner).state is JobState.CANCELLED
    assert machine.processes[JOB].wait(60) == 1


@pytest.mark.parametrize("told", [True, False])
def test_end_of_a_run_is_heard_of_by_webhook_and_seen_without_one(world, script, told):
    if not told:
        world.forge.faults.lose_webhooks(count=1000)
    runner = world.runner(dispatching={"look_seconds": 3600.0 if told else 0.3})
    runner.launch(script("print('well')"))
    assert runner.status(JOB).state is JobState.QUEUED
    workflow_runs.complete(world.forge, world.runs()[0], "startup_failure")
    status = ended(runner)
    assert (status.state, status.failure) == (JobState.FAILED, FailureKind.PLATFORM)
    assert "ended as startup_failure" in status.evidence[0]


def test_githubs_outage_ends_no_job(world, script):
    world.machine()
    runner = world.runner()
    runner.launch(script(f"{UNDER_WAY}time.sleep(1)\nimport os\nos.mkdir('out')\nopen('out/model', 'w').write('w')"))
    under_way(runner)
    world.forge.faults.server_error(count=100_000, matches=lambda _, path: "/actions/" in path)
    runner.refresh()
    wait(lambda: runner.status(JOB).state is JobState.RUNNING, SECONDS)
    assert ended(runner).state is JobState.SUCCEEDED


def test_sweep_survives_githubs_outage(world, script):
    world.runner().launch(script("print('well')"))
    world.forge.faults.server_error(count=100_000, matches=lambda _, path: "/actions/" in path)
    assert world.runner().sweep().running == (JOB,)


def test_server_that_was_away_for_longer_than_the_lease_finds_its_job_again(world, script):
    world.machine()
    runner = world.runner(lease_seconds=60.0)
    runner.launch(script(f"{UNDER_WAY}time.sleep(9)\nimport os\nos.mkdir('out')\nopen('out/model', 'w').write('w')"))
    under_way(runner)
    wait(lambda: runner.status(JOB).state is JobState.RUNNING, SECONDS)
    remote = world.root / JOB / "remote.json"
    world.refused = "*"
    noted = json.loads(remote.read_text())
    remote.write_text(json.dumps(noted | {"lease_seen_at": time.time() - 3600}))  # an hour has passed
    time.sleep(1.5)
    world.refused = ""
    again = world.runner(lease_seconds=60.0)
    assert again.sweep().lost == ()
    assert ended(again).state is JobState.SUCCEEDED
    assert (again.folder(JOB) / "out" / "model").read_text() == "w"


def test_wrapper_that_was_given_up_as_lost_ends_its_job(world, script):
    machine, runner = world.machine(), world.runner()
    runner.launch(script(f"{UNDER_WAY}time.sleep(600)"))
    under_way(runner)
    os.kill(machine.processes[JOB].pid, signal.SIGSTOP)
    world.give_up()
    assert ended(runner).state is JobState.LOST
    os.kill(machine.processes[JOB].pid, signal.SIGCONT)
    machine.processes[JOB].wait(60)
    local = json.loads((machine.jobs / JOB / "status.json").read_text())
    assert local["state"] == "cancelled"
    assert "the job has ended: lost" in (machine.folder / "job.log").read_text()


def test_outputs_that_the_store_did_not_get_come_by_the_artifact(world, script):
    """The server is down at the very end; what the workflow kept is fetched later, and nobody else can read it."""
    machine, runner = world.machine(), world.runner(lease_seconds=3600)
    world.refused = OUTPUTS
    runner.launch(script("import os\nos.mkdir('out')\nopen('out/samples', 'w').write('a benchmark item')"))
    sealed = wait(lambda: next(iter(machine.folder.glob(f"artifact-*/{SEALED}")), None), SECONDS)
    assert b"benchmark item" not in sealed.read_bytes()
    machine.kill(JOB)
    world.refused_downloads = 1
    status = ended(runner)
    assert status.state is JobState.SUCCEEDED
    assert (runner.folder(JOB) / "out" / "samples").read_text() == "a benchmark item"
    assert world.refused_downloads == 0
    assert not (world.root / JOB / STORE).exists()


def test_run_that_nobody_here_knows_is_ended_and_in_the_end_forced(world, script, tmp_path):
    """The folder of jobs is lost and the machine does not listen: it costs no more than that."""
    world.runner().launch(script("print('well')"))
    deaf = world.forge.add_machine(LAB, "deaf", ("postdoc",))
    assert workflow_runs.next_job(world.forge, deaf) is not None
    backend = ActionsBackend(tmp_path / "empty", world.api(), world.tokens.of, Dispatching(world.server_url))
    now = time.time()
    backend._clock = lambda: now
    [run] = world.runs()
    assert world.runner().sweep().ended == ()
    assert backend.orphans(frozenset()) == [f"acme/lab run {run.id} (job)"]
    assert (run.status, run.cancel) == ("in_progress", "cancel")
    now += 121
    backend.orphans(frozenset())
    assert (run.status, run.conclusion, run.cancel) == ("completed", "cancelled", "force-cancel")
    assert backend.orphans(frozenset()) == []


def test_packed_forms_are_kept_no_longer_than_the_job_lasts(world, script):
    world.machine()
    runner = world.runner()
    runner.launch(script("import os\nos.mkdir('out')\nopen('out/model', 'w').write('weights')"))
    assert (world.root / JOB / STORE / "inputs.tar").exists()
    assert ended(runner).state is JobState.SUCCEEDED
    assert not (world.root / JOB / STORE).exists()
    assert not list((world.root / JOB).glob("*.tar"))


# --- sealing


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    path = tmp_path / "outputs.tar"
    path.write_bytes(os.urandom((1 << 20) * 2 + 17))
    return path


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 30, 1 << 20, (1 << 21) + 5])
def test_sealed_outputs_are_whole_again(tmp_path, size):
    (tmp_path / "o").write_bytes(os.urandom(size))
    key = new_key()
    seal({"state": "succeeded"}, tmp_path / "o", key, tmp_path / "s")
    with open(tmp_path / "s", "rb") as file:
        assert unseal(file, key, tmp_path / "back") == {"state": "succeeded"}
    assert (tmp_path / "back").read_bytes() == (tmp_path / "o").read_bytes()


def _flipped(content: bytes) -> bytes:
    return content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]


def _swapped(content: bytes) -> bytes:
    start, size = len(content) % ((1 << 20) + 16) - 53, (1 << 20) + 16
    head = len(content) - (len(content) - 32) // size * size if start else 32
    return content[:head] + content[head + size : head + 2 * size] + content[head : head + size]


@pytest.mark.parametrize(
    "damage",
    [
        _flipped,
        _swapped,
        lambda content: content[: 32 + (1 << 20) + 16],
        lambda content: content[:32],
        lambda content: b"x" + content[1:],
        lambda content: content + b"more",
    ],
    ids=["flipped", "swapped", "cut", "empty", "other", "longer"],
)
def test_damaged_seal_is_refused(tmp_path: Path, packed: Path, damage: Callable[[bytes], bytes]) -> None:
    key = new_key()
    seal({"state": "succeeded"}, packed, key, tmp_path / "s")
    (tmp_path / "s").write_bytes(damage((tmp_path / "s").read_bytes()))
    with open(tmp_path / "s", "rb") as file, pytest.raises(PlatformError):
        unseal(file, key, tmp_path / "back")


def test_artifact_of_another_job_is_not_taken(tmp_path: Path, packed: Path) -> None:
    store = FolderStore(tmp_path / "store")
    store.write(SEAL, new_key())
    seal({"job_id": "job", "state": "succeeded"}, packed, new_key(), tmp_path / SEALED)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / SEALED, SEALED)
    with pytest.raises(UserError, match="holds no outputs of this job"):
        import_artifact(tmp_path / "a.zip", store, 1 << 30)
    (tmp_path / "b.zip").write_bytes(b"no zip")
    with pytest.raises(UserError):
        import_artifact(tmp_path / "b.zip", store, 1 << 30)
    assert store.read(STATUS) is None


def test_job_that_names_no_repository_is_refused(world: ActionsWorld, script: Callable[..., JobSpec]) -> None:
    backend = world.runner().actions
    with pytest.raises(UserError, match="names no repository"):
        backend.submit(script("print('well')"))
