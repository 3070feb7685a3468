"""`postdoc reevaluate`: evaluations that the Hub starts by the clock, against a fake Hub that runs them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from bot import cli
from bot.practice.tiny_base import cached_path
from tests.doctor.test_hub import hub  # noqa: F401 - the fixture
from tests.fakes.hub import FakeHub
from tests.fakes.hub_jobs import ROOT
from tests.fakes.hub_models import Model
from tests.runners.harnesses.hf_jobs import REPOSITORY, RUNS_TOKEN, SERVER_TOKEN

ADD = ["reevaluate", "acme/speller", "--benchmark", "practice/reverse", "--every", "0 6 * * 1"]
Said = pytest.CaptureFixture[str]


@pytest.fixture
def model(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> FakeHub:  # noqa: F811
    """A Hub with a published model."""
    monkeypatch.setenv("POSTDOC_HF_JOBS_FLAVOR", "cpu-basic")
    hub.models.models["acme/speller"] = Model(private=False, files={"config.json": b"{}"})
    return hub


def listed(capsys: Said) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert cli.run(["reevaluate", "--list", "--json", "-"]) == 0
    return list(json.loads(capsys.readouterr().out))


def test_evaluation_is_scheduled_listed_and_removed(model: FakeHub, capsys: Said) -> None:
    assert cli.run(ADD) == 0
    [handle] = model.jobs.scheduled
    assert capsys.readouterr().out == (
        f"{handle}: acme/speller is evaluated on practice/reverse, dev split, `0 6 * * 1`, on cpu-basic.\n"
    )
    spec = model.jobs.scheduled[handle]["jobSpec"]
    assert spec["timeoutSeconds"] == 3600 + 1200
    assert RUNS_TOKEN not in json.dumps({**spec, "secrets": {}})
    [found] = listed(capsys)
    assert (found["id"], found["model"], found["every"]) == (handle, "acme/speller", "0 6 * * 1")
    assert (found["last_at"], found["result"], found["problem"]) == (None, None, "")
    assert cli.run(["reevaluate", "--remove", handle]) == 0
    assert listed(capsys) == []


def test_same_evaluation_is_scheduled_once(model: FakeHub, capsys: Said) -> None:
    assert cli.run(ADD) == 0
    assert cli.run([*ADD[:-1], "@daily"]) == 2
    assert "remove that one first" in capsys.readouterr().err
    assert len(model.jobs.scheduled) == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([*ADD[:-1], "on mondays"], "Invalid cron expression"),
        (["reevaluate", "acme/speller"], "--benchmark practice/reverse --every"),
        (["reevaluate"], "--list"),
        (["reevaluate", "acme/private", *ADD[2:]], "no model that everybody may read"),
        ([*ADD[:3], "practice/backwards", *ADD[4:]], "practice/backwards"),
        ([*ADD, "--split", "train"], "write dev or sealed"),
        (["reevaluate", "--remove", "feed"], "No evaluation feed is scheduled"),
    ],
    ids=["cron", "half", "nothing", "private", "benchmark", "split", "unknown"],
)
def test_words_that_cannot_be_followed_are_answered_in_one_line(
    model: FakeHub, capsys: Said, words: list[str], says: str
) -> None:
    model.models.models["acme/private"] = Model(private=True)
    assert cli.run(words) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
    assert model.jobs.scheduled == {}


def executed(hub: FakeHub, handle: str) -> None:  # noqa: F811
    """The clock strikes."""
    api = HfApi(endpoint=hub.url, token=SERVER_TOKEN)
    job = api.trigger_scheduled_job(scheduled_job_id=handle, namespace="acme")
    deadline = time.monotonic() + 120
    while hub.jobs.jobs[job.id].stage not in ("COMPLETED", "ERROR"):
        assert time.monotonic() < deadline, hub.jobs.jobs[job.id].log
        time.sleep(0.1)


def test_evaluation_that_fails_says_why(model: FakeHub, capsys: Said) -> None:
    assert cli.run(ADD) == 0
    [handle] = model.jobs.scheduled
    model.models.models["acme/speller"].private = True  # no longer what anybody may load
    executed(model, handle)
    [found] = listed(capsys)
    assert found["result"] is None
    assert "acme/speller cannot be fetched from the Hub" in found["problem"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_each_execution_evaluates_what_is_published_then(model: FakeHub, capsys: Said, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "bot.practice.tiny_base", "--quiet"], cwd=ROOT, check=True)
    published = {path.name: path.read_bytes() for path in cached_path().iterdir() if path.is_file()}
    model.models.models["acme/speller"].files = published
    assert cli.run(ADD) == 0
    [handle] = model.jobs.scheduled
    executed(model, handle)
    [found] = listed(capsys)
    assert found["problem"] == ""
    assert found["result"]["n"] == 200
    near = tmp_path / "near.json"
    words = ["evaluate", "--model", str(cached_path()), "--benchmark", "practice/reverse", "--json", str(near)]
    assert cli.run(words) == 0
    assert json.loads(near.read_text())["value"] == found["result"]["value"]
    executed(model, handle)
    results = [path for path in model.models.models[REPOSITORY].files if path.endswith("outputs.tar")]
    assert len(results) == 2
