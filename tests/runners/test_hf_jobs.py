"""What is Hugging Face Jobs' own: money, labels, the token in the container, a log that breaks, a Hub that refuses."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bot.errors import PlatformError, PostdocError, TransientError, UserError
from runners.hf_jobs.backend import GRACE_SECONDS, JOB_LABEL, OWNER_LABEL, TOKEN_VARIABLE
from runners.job import Caps, FailureKind, Fault, Hardware, JobId, JobSpec, JobState, JobStatus
from runners.remote.runner import REMOTE, RemoteRunner
from tests.fakes.hub import Fault as HubFault
from tests.fakes.hub_jobs import IMAGE
from tests.fakes.hub_models import Model
from tests.runners.harnesses.hf_jobs import REPOSITORY, RUNS_TOKEN, SERVER_TOKEN, Harness

JOB = JobId("job")


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    if why := Harness.missing():
        pytest.skip(why)
    made = Harness(tmp_path)
    yield made
    made.close()
    assert made.left_over() == []


@pytest.fixture
def waiting(harness: Harness) -> Harness:
    """Where no machine comes before somebody says so: what is asked of the platform costs no container."""
    harness.hub.jobs.capacity.clear()
    return harness


Script = Callable[..., JobSpec]


def ended(runner: RemoteRunner, job_id: JobId = JOB) -> JobStatus:
    deadline = time.monotonic() + 60
    while not (status := runner.status(job_id)) or not status.state.ended:
        assert time.monotonic() < deadline, (status, runner.log_tail(job_id))
        time.sleep(0.05)
    return status


def backend(runner: RemoteRunner) -> Any:
    return runner.backend


# what the platform is asked for


def test_job_is_asked_for_with_its_labels_its_time_and_no_secret_in_sight(waiting: Harness, script: Script) -> None:
    runner = waiting.runner()
    labels = {"repository": "acme/speller", "goal": "7", "role": "train", "run": "2", "sha": "abc"}
    runner.launch(script("pass", labels=labels, caps=Caps(timeout_seconds=7200), environment={"SEED": "1"}))
    spec = waiting.job(JOB).spec
    assert spec["timeoutSeconds"] == 7200 + GRACE_SECONDS
    assert spec["flavor"] == "cpu-basic"
    assert spec["dockerImage"] == IMAGE
    assert spec["secrets"] == {TOKEN_VARIABLE: RUNS_TOKEN}
    assert (
        spec["labels"] | {JOB_LABEL: "job", "postdoc-repository": "acme-speller", "postdoc-run": "2"} == spec["labels"]
    )
    open_to_all = json.dumps({**spec, "secrets": {}})
    on_disk = [path for path in waiting.folder.rglob("*") if path.is_file()]
    for secret in (RUNS_TOKEN, SERVER_TOKEN):
        assert secret not in open_to_all
        assert not [path for path in on_disk if secret.encode() in path.read_bytes()]
    # Never asked who it is: the Hub limits that, and every call names its namespace.
    assert not [path for path in waiting.hub.asked if "whoami" in path or "agent-harnesses" in path]


def test_job_that_waits_says_for_what_and_is_cancelled_without_a_machine(waiting: Harness, script: Script) -> None:
    runner = waiting.runner()
    status = runner.launch(script("pass"))
    assert (status.state, status.detail) == (JobState.QUEUED, "waiting for a cpu-basic machine")
    assert status.cost_usd is None
    assert runner.cancel(JOB).state is JobState.CANCELLED
    assert waiting.job(JOB).stage == "CANCELED"
    assert waiting.job(JOB).process is None


def test_bot_that_dies_between_starting_and_noting_finds_its_job_by_label(waiting: Harness, script: Script) -> None:
    spec = script("pass")
    waiting.runner().launch(spec)
    (waiting.folder / "mirror" / JOB / REMOTE).unlink()
    waiting.runner().sweep()
    waiting.runner().launch(spec)
    assert waiting.launches(JOB) == 1


def test_answer_that_is_lost_starts_no_second_job(waiting: Harness, script: Script) -> None:
    runner, spec = waiting.runner(), script("pass")
    waiting.hub.jobs.lose_answers = 1
    with pytest.raises(PlatformError, match="502"):
        runner.launch(spec)
    assert runner.launch(spec).state is JobState.QUEUED
    assert waiting.launches(JOB) == 1


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        (402, UserError, "no credit for jobs"),
        (401, UserError, "replace POSTDOC_HUB_TOKEN"),
        (403, UserError, "job.write"),
        (404, UserError, "POSTDOC_HF_JOBS_NAMESPACE"),
        (400, UserError, "does not accept"),
        (429, TransientError, "fewer requests"),
        (500, PlatformError, "answers 500"),
        (503, PlatformError, "answers 503"),
    ],
)
def test_refusal_is_one_sentence_of_the_right_kind(
    waiting: Harness, script: Script, fault: int, kind: type[PostdocError], says: str
) -> None:
    headers = {"Retry-After": "17"} if fault == 429 else {}
    waiting.hub.faults.append(HubFault("/api/jobs/acme", status=fault, headers=headers, method="POST"))
    runner, spec = waiting.runner(), script("pass")
    with pytest.raises(kind, match=says) as raised:
        runner.launch(spec)
    assert type(raised.value) is kind
    assert "\n" not in str(raised.value)
    assert RUNS_TOKEN not in str(raised.value)
    if isinstance(raised.value, TransientError):
        assert raised.value.retry_after_seconds == 17
    assert waiting.launches(JOB) == 0
    # What a person has to mend is forgotten until it is asked for again; the rest is started by the next sweep.
    assert runner.sweep().started == (() if kind is UserError else (JOB,))
    runner.launch(spec)
    assert waiting.launches(JOB) == 1


def test_account_without_credit_is_told_in_the_hubs_own_words(waiting: Harness, script: Script) -> None:
    waiting.hub.jobs.poor.add("acme")
    with pytest.raises(UserError, match=r"acme has no credit for jobs \(the Hub says: Pre-paid credit"):
        waiting.runner().launch(script("pass"))


@pytest.mark.parametrize(
    ("hardware", "says"),
    [
        (Hardware(flavor="b300"), "no machine 'b300': write one of cpu-basic, a10g-large, l40sx4"),
        (Hardware(gpus=2), "cpu-basic has 0 GPUs and the job asks for 2: write one of l40sx4"),
        (Hardware(nodes=2), "one node"),
    ],
    ids=["unknown", "too few GPUs", "nodes"],
)
def test_machine_that_there_is_not_is_refused_with_those_that_there_are(
    waiting: Harness, script: Script, hardware: Hardware, says: str
) -> None:
    with pytest.raises(UserError, match=says):
        waiting.runner().launch(script("pass", hardware=hardware))
    assert waiting.launches(JOB) == 0


def test_prices_are_the_hubs_own_and_asked_once_in_a_while(waiting: Harness) -> None:
    backend = waiting.backend(flavor="a10g-large")
    waiting.hub.jobs.prices[0]["unitCostUSD"] = 0.001
    default, small, large = backend.flavors()
    assert (default.name, default.gpus, default.gpu_model, default.gpu_memory_gib) == ("a10g-large", 1, "A10G", 24.0)
    assert (default.memory_gib, default.cpus, default.usd_per_hour) == (46.0, 12.0, 1.5)
    assert (small.name, small.gpus, small.usd_per_hour) == ("cpu-basic", 0, 0.06)
    assert (large.gpus, large.gpu_memory_gib) == (4, 48.0)
    backend.flavors()
    assert waiting.hub.asked.count("GET /api/jobs/hardware") == 1


def test_repository_that_everybody_sees_gets_nothing(waiting: Harness, script: Script) -> None:
    waiting.hub.models.models[REPOSITORY] = Model(private=False)
    with pytest.raises(UserError, match="Everybody can see acme/postdoc-runs"):
        waiting.runner().launch(script("pass"))
    assert waiting.hub.models.models[REPOSITORY].commits == []


def test_two_commits_at_once_are_both_made(waiting: Harness, script: Script) -> None:
    waiting.hub.faults.append(HubFault(f"/api/models/{REPOSITORY}/commit", status=412, times=2))
    waiting.runner().launch(script("pass"))
    assert waiting.launches(JOB) == 1


# what nobody waits for any more


def test_orphans_are_ended_and_others_jobs_are_left_alone(waiting: Harness, script: Script) -> None:
    runner = waiting.runner()
    runner.launch(script("pass"))
    owner = waiting.job(JOB).spec["labels"][OWNER_LABEL]
    waiting.hub.jobs.page_size = 2
    user = {"type": "user", "id": "1"}
    for n in range(5):
        spec = {"dockerImage": IMAGE, "command": ["python"], "labels": {JOB_LABEL: f"lost-{n}", OWNER_LABEL: owner}}
        waiting.hub.jobs.start("acme", spec, user)
    others = waiting.hub.jobs.start("acme", spec | {"labels": {JOB_LABEL: "x", OWNER_LABEL: "another"}}, user)
    bare = waiting.hub.jobs.start("acme", spec | {"labels": {}}, user)
    assert sorted(each.split()[0] for each in runner.sweep().ended) == [f"lost-{n}" for n in range(5)]
    assert [others.stage, bare.stage, waiting.job(JOB).stage] == ["SCHEDULING"] * 3
    assert runner.sweep().ended == ()


def test_job_launched_while_orphans_are_looked_for_is_none(waiting: Harness, script: Script) -> None:
    runner = waiting.runner()
    runner.launch(script("pass"))
    assert backend(runner).orphans(frozenset()) == []
    assert waiting.job(JOB).stage == "SCHEDULING"


def test_job_that_somebody_ended_on_the_hub_is_cancelled_not_lost(waiting: Harness, script: Script) -> None:
    runner = waiting.runner()
    runner.launch(script("pass"))
    waiting.job(JOB).become("CANCELED")
    assert ended(runner).state is JobState.CANCELLED


def test_job_that_the_hub_has_forgotten_is_lost(waiting: Harness, script: Script) -> None:
    runner = waiting.runner()
    runner.launch(script("pass"))
    job = waiting.job(JOB)
    del waiting.hub.jobs.jobs[job.id]
    job.become("DELETED")
    status = ended(runner)
    assert (status.state, status.fault) == (JobState.LOST, Fault.PLATFORM)
    assert "does not know it any more" in status.evidence[0]


def test_image_that_is_not_there_is_the_platforms_fault_and_is_named(harness: Harness, script: Script) -> None:
    harness.hub.jobs.images.clear()
    runner = harness.runner()
    runner.launch(script("pass"))
    status = ended(runner)
    assert (status.state, status.fault) == (JobState.LOST, Fault.PLATFORM)
    assert "Failed to pull image" in status.evidence[0]


def test_image_without_the_library_says_so(harness: Harness, script: Script, tmp_path: Path) -> None:
    programs = tmp_path / "image"
    programs.mkdir()
    (programs / "python").write_text('#!/bin/sh\nexec /usr/bin/env python3 -I -S "$@"\n')
    (programs / "python").chmod(0o755)
    harness.hub.jobs.images[IMAGE] = str(programs)
    runner = harness.runner()
    runner.launch(script("pass"))
    assert "this image has no huggingface_hub" in " ".join(ended(runner).evidence)
    assert "this image has no huggingface_hub" in runner.log_tail(JOB)


def test_job_is_watched_to_its_end_from_another_machine(waiting: Harness, script: Script, tmp_path: Path) -> None:
    first = waiting.runner()
    first.launch(script("import os\nos.mkdir('out')\nopen('out/model', 'w').write('weights')"))
    trace = json.loads(json.dumps(first.trace(JOB)))
    there = waiting.backend(root=tmp_path / "elsewhere")
    second = RemoteRunner(tmp_path / "elsewhere", there, redact=lambda text: text)
    assert second.adopt(trace) == JOB
    waiting.hub.jobs.capacity.set()
    assert ended(second).state is JobState.SUCCEEDED
    assert (second.folder(JOB) / "out" / "model").read_text() == "weights"
    assert second.sweep().ended == ()


# a Hub that is away, and a log that breaks


def test_hub_that_is_away_for_a_while_changes_nothing(waiting: Harness, script: Script) -> None:
    runner = waiting.runner()
    runner.launch(script("pass"))
    waiting.hub.faults.append(HubFault("/api/jobs/acme", status=503, times=1000))
    runner.refresh()
    status = runner.status(JOB)
    assert status.state is JobState.QUEUED
    assert "cannot be asked now" in status.detail
    again = waiting.runner()
    assert again.sweep().lost == ()
    with pytest.raises(TransientError):
        again.cancel(JOB)  # it goes on and costs money: the caller has to try again
    waiting.hub.faults.clear()
    again.refresh()
    assert "cannot be asked" not in again.status(JOB).detail


def test_log_that_breaks_again_and_again_arrives_once(harness: Harness, script: Script) -> None:
    harness.hub.jobs.break_logs_after = [1, 2, 4, 6]
    runner = harness.runner()
    runner.launch(script(
        "import json, os, time\nos.mkdir('out')\n"
        "for step in range(1, 31):\n"
        "    with open('out/metrics.jsonl', 'a') as file: file.write(json.dumps({'step': step}) + '\\n')\n"
        "    print('line', step, flush=True)\n    time.sleep(0.05)\n"
    ))  # fmt: skip
    assert ended(runner).state is JobState.SUCCEEDED
    assert [row["step"] for row in runner.metrics(JOB)] == list(range(1, 31))
    lines = [line for line in runner.log_tail(JOB).splitlines() if line.startswith("line ")]
    assert lines == [f"line {step}" for step in range(1, 31)]


@pytest.mark.slow
def test_job_whose_log_cannot_be_read_ends_as_it_did(harness: Harness, script: Script) -> None:
    harness.hub.faults.append(HubFault("/logs", status=500, times=10**6))
    runner = harness.runner()
    backend(runner)._drain_seconds = 0.5
    runner.launch(script("import os\nos.mkdir('out')\nopen('out/model', 'w').write('weights')"))
    assert ended(runner).state is JobState.SUCCEEDED
    assert (runner.folder(JOB) / "out" / "model").read_text() == "weights"


@pytest.mark.slow
def test_cost_grows_while_it_runs(harness: Harness, script: Script) -> None:
    harness.hub.jobs.prices[0]["unitCostUSD"] = 6.0
    runner = harness.runner()
    runner.launch(script("import time\ntime.sleep(2.5)"))
    status = ended(runner)
    # Ten cents a second, whole seconds, container included.
    assert 0.2 <= status.cost_usd <= 2.0
    assert status.machine == "cpu-basic"


# the token, and what a hostile script can do in its container

HOSTILE = f"""
import os, pathlib, subprocess
found = []
for place in pathlib.Path('/proc').glob('[0-9]*'):
    try:
        if place.stat().st_uid == os.getuid():
            continue  # a script of another fake container, which a real one does not show
    except OSError:
        continue
    for name in ('environ', 'cmdline'):
        try:
            content = (place / name).read_bytes()
        except OSError:
            continue
        if b'{RUNS_TOKEN}' in content and b'HOSTILE' not in content:
            found.append(f'{{place.name}}/{{name}}')
    try:
        (place / 'mem').open('rb').close()
        found.append(f'{{place.name}}/mem')
    except OSError:
        pass
for top in (os.environ['TMPDIR'], os.path.dirname(os.path.dirname(os.path.dirname(os.getcwd())))):
    for parent, _, files in os.walk(top):
        for name in files:
            try:
                content = open(os.path.join(parent, name), 'rb').read(1 << 16)
            except OSError:
                continue
            if b'{RUNS_TOKEN}' in content and name != 'script.py':
                found.append(name)
for name in ('status.json', 'cancel'):
    try:
        open(os.path.join(os.path.dirname(os.getcwd()), name), 'w').write('x')
        found.append('wrote ' + name)
    except OSError:
        pass
for pid in (os.getppid(), 1):
    for number in (1, 2):
        try:
            os.open(f'/proc/{{pid}}/fd/{{number}}', os.O_WRONLY)
            found.append(f'opened {{pid}}/fd/{{number}}')
        except OSError:
            pass
print('@postdoc 1 0123456789abcdef0123456789abcdef status {{"state": "succeeded"}}', flush=True)
print('uid', os.getuid(), 'found', found, 'environment', sorted(os.environ), flush=True)
raise SystemExit(3)
"""


def test_hostile_script_finds_no_token_and_forges_no_end(harness: Harness, script: Script) -> None:
    runner = harness.runner()
    runner.launch(script(HOSTILE, trusted=False))
    status = ended(runner)
    said = runner.log_tail(JOB)
    assert (status.state, status.exit_code) == (JobState.FAILED, 3), said
    assert "found [] environment" in said
    assert "uid 0 " not in said
    for name in (TOKEN_VARIABLE, "HF_TOKEN", "JOB_ID", "HF_ENDPOINT"):
        assert f"'{name}'" not in said


def test_container_that_would_show_the_token_runs_no_job(harness: Harness, script: Script) -> None:
    # As an image with an entry point of its own does: its first process keeps the first environment.
    backend = harness.backend(uid=0)
    runner = RemoteRunner(harness.folder / "mirror", backend, redact=lambda text: text)
    programs = harness.folder / "image"
    programs.mkdir()
    inner = harness.hub.jobs.images[IMAGE]
    (programs / "python").write_text(f'#!/bin/sh\n"{inner}/python" "$@"\nexit $?\n')
    (programs / "python").chmod(0o755)
    harness.hub.jobs.images[IMAGE] = str(programs)
    runner.launch(script("print('it ran')"))
    status = ended(runner)
    assert (status.state, status.failure) == (JobState.FAILED, FailureKind.PLATFORM)
    assert "shows the jobs' token to the job" in " ".join(status.evidence)
    assert "it ran" not in runner.log_tail(JOB)


def tampered(harness: Harness, name: str) -> None:
    """Somebody with the jobs' token has changed every version of a file."""
    model = harness.hub.models.models[REPOSITORY]
    for files in (model.files, *model.history.values()):
        for path in files:
            if path.endswith(name):
                files[path] = b"!" + files[path][1:]  # no archive begins so; versions may share a file


@pytest.mark.parametrize(("name", "says"), [("inputs.tar", "inputs"), ("", "code")])
def test_inputs_and_code_that_were_changed_on_the_way_do_not_run(
    waiting: Harness, script: Script, name: str, says: str
) -> None:
    runner = waiting.runner()
    runner.launch(script("print('it ran')"))
    model = waiting.hub.models.models[REPOSITORY]
    tampered(waiting, name or next(path for path in model.files if path.startswith("code/")))
    waiting.hub.jobs.capacity.set()
    status = ended(runner)
    assert status.fault is Fault.PLATFORM
    assert "not what was sent" in " ".join(status.evidence)
    assert says in " ".join(status.evidence)
    assert "it ran" not in runner.log_tail(JOB)


# what does not travel twice


def test_model_of_an_earlier_job_and_one_of_the_hub_are_fetched_where_they_are_needed(
    harness: Harness, script: Script, tmp_path: Path
) -> None:
    runner = harness.runner()
    runner.launch(script("import os\nos.makedirs('out/model')\n"
                         "open('out/model/config.json', 'w').write('trained')\n"
                         "open('out/model/weights', 'wb').write(os.urandom(1 << 20))\n"))  # fmt: skip
    assert ended(runner).state is JobState.SUCCEEDED
    harness.hub.models.models["acme/base"] = base = Model(private=False, files={"config.json": b"base", "a.bin": b"x"})
    here = tmp_path / "base"
    here.mkdir()
    (here / "config.json").write_text("base")
    mounts = {"model": str(runner.folder(JOB) / "out" / "model"), "base": str(here)}
    origins = {"model": f"job:{JOB}/out/model", "base": f"hub:acme/base@{base.sha}"}
    reads = script(
        "import sys, os\nfor path in sys.argv[1:]: print(sorted(os.listdir(path)), open(path + '/config.json').read())",
        "second", argv=("{python}", "script.py", "{mount:model}", "{mount:base}"), mounts=mounts, origins=origins,
    )  # fmt: skip
    runner.launch(reads)
    assert ended(runner, JobId("second")).state is JobState.SUCCEEDED, runner.log_tail(JobId("second"))
    said = runner.log_tail(JobId("second"))
    assert "['config.json', 'weights'] trained" in said
    assert "['config.json'] base" in said  # nothing but weights and words is fetched: a pickle could run code
    files = harness.hub.models.models[REPOSITORY].files
    assert len(files["jobs/second/inputs.tar"]) < 1 << 17
    tampered(harness, "jobs/job/outputs.tar")
    third = replace(reads, job_id=JobId("third"))
    runner.launch(third)
    status = ended(runner, third.job_id)
    assert status.fault is Fault.PLATFORM
    assert "is not what job job left there" in " ".join(status.evidence)


def test_gated_or_private_model_travels_from_here(waiting: Harness, script: Script, tmp_path: Path) -> None:
    waiting.hub.models.models["acme/private-base"] = Model(private=True)
    here = tmp_path / "base"
    here.mkdir()
    (here / "config.json").write_bytes(b"x" * (1 << 18))
    origins = {"init": "hub:acme/private-base@main"}
    waiting.runner().launch(script("pass", mounts={"init": str(here)}, origins=origins))
    assert len(waiting.hub.models.models[REPOSITORY].files["jobs/job/inputs.tar"]) > 1 << 18


@pytest.mark.slow
def test_checkpoints_are_few_commits_and_the_newest_alone_is_kept(harness: Harness, script: Script) -> None:
    runner = harness.runner()
    runner.launch(script(
        "import os, time\n"
        "for n in (10, 20, 30):\n"
        "    os.makedirs(f'out/checkpoint-{n}')\n"
        "    open(f'out/checkpoint-{n}/state', 'w').write(str(n))\n"
        "    open('out/latest', 'w').write(f'checkpoint-{n}')\n"
        "    time.sleep(1)\n", checkpoints="out",
    ))  # fmt: skip
    assert ended(runner).state is JobState.SUCCEEDED
    messages = harness.hub.models.models[REPOSITORY].commits
    assert len([message for message in messages if message.startswith("Checkpoint")]) == 1
    assert (runner.folder(JOB) / "out" / "checkpoint-30" / "state").read_text() == "30"
