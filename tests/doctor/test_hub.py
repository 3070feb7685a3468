"""`postdoc doctor --hub` and the settings of Hugging Face Jobs, against a fake Hub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bot import cli
from bot.practice.auth import new_key_pair
from tests.fakes.hub import FakeHub
from tests.fakes.hub_jobs import IMAGE
from tests.fakes.hub_models import Model
from tests.runners.harnesses.hf_jobs import REPOSITORY, RUNS_TOKEN, SERVER_TOKEN


def fine_grained(*scoped: tuple[str, str, str], everywhere: tuple[str, ...] = ()) -> dict[str, Any]:
    """What whoami says of such a token: (kind, name, permission) of everything that it opens."""
    return {"accessToken": {"displayName": "t", "role": "fineGrained", "fineGrained": {
        "canReadGatedRepos": False, "global": list(everywhere),
        "scoped": [{"entity": {"_id": "1", "type": kind, "name": name}, "permissions": [permission]}
                   for kind, name, permission in scoped]}}}  # fmt: skip


def account(auth: dict[str, Any], name: str = "ada", **said: Any) -> dict[str, Any]:
    return {"type": "user", "id": "1", "name": name, "orgs": [{"name": "acme"}], "auth": auth} | said


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A Hub on which everything is as it should be, and a server's settings."""
    made = FakeHub()
    made.models.writers = {SERVER_TOKEN: {"acme"}, RUNS_TOKEN: {REPOSITORY}}
    made.models.models[REPOSITORY] = Model()
    made.accounts = {
        SERVER_TOKEN: account(fine_grained(("org", "acme", "job.write"))),
        RUNS_TOKEN: account(fine_grained(("model", REPOSITORY, "repo.write"))),
    }
    key, _ = new_key_pair()
    settings = {
        "APP_ID": "1", "PRIVATE_KEY": key, "WEBHOOK_SECRET": "a-secret-of-tests", "RUNNER": "hf_jobs",
        "DATA_FOLDER": str(tmp_path / "data"), "HUB_TOKEN": SERVER_TOKEN, "HF_JOBS_TOKEN": RUNS_TOKEN,
        "HF_JOBS_NAMESPACE": "acme", "HF_JOBS_REPOSITORY": REPOSITORY, "HF_JOBS_IMAGE": IMAGE,
        "HF_JOBS_FLAVOR": "a10g-large",
    }  # fmt: skip
    for name, value in settings.items():
        monkeypatch.setenv(f"POSTDOC_{name}", value)
    with made.serve():
        monkeypatch.setenv("HF_ENDPOINT", made.url)
        yield made


def examined(capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, dict[str, Any]]]:
    code = cli.run(["doctor", "--hub", "--json", "-"])
    told = capsys.readouterr()
    assert SERVER_TOKEN not in told.out + told.err
    assert RUNS_TOKEN not in told.out + told.err
    return code, {finding["name"]: finding for finding in json.loads(told.out)["findings"]}


def test_well_set_up_hub_has_nothing_missing(hub: FakeHub, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, found = examined(capsys)
    assert code == 0
    assert all(finding["ok"] for finding in found.values()), found
    assert found["machine"]["detail"] == "a10g-large: 1 × A10G with 24 GB, 46 GB memory, $1.5 an hour"
    assert found["jobs' token"]["detail"] == f"fine-grained: it writes {REPOSITORY} and opens nothing else"
    assert hub.asked.count("GET /api/whoami-v2") == 2
    assert not (tmp_path / "data" / "jobs").exists()


@pytest.mark.parametrize(
    ("auth", "detail"),
    [
        ({"accessToken": {"role": "write"}}, "role write: it opens all that ada may open"),
        (fine_grained(("org", "acme", "repo.write")), f"it does not write {REPOSITORY}"),
        (fine_grained(("model", REPOSITORY, "repo.content.read")), f"it does not write {REPOSITORY}"),
        (
            fine_grained(("model", REPOSITORY, "repo.write"), ("org", "acme", "job.write")),
            f"it opens more than {REPOSITORY}: org acme",
        ),
        (
            fine_grained(("model", REPOSITORY, "repo.write"), everywhere=("discussion.write",)),
            f"it opens more than {REPOSITORY}: everything",
        ),
    ],
    ids=["role", "another", "reads", "more", "everywhere"],
)
def test_jobs_token_that_is_not_that_of_one_repository_is_a_fault(
    hub: FakeHub, capsys: pytest.CaptureFixture[str], auth: dict[str, Any], detail: str
) -> None:
    hub.accounts[RUNS_TOKEN] = account(auth)
    code, found = examined(capsys)
    assert code == 1
    assert (found["jobs' token"]["ok"], found["jobs' token"]["detail"]) == (False, detail)
    assert "fine-grained token" in found["jobs' token"]["advice"]


def test_what_is_wrong_is_said_with_what_to_do(hub: FakeHub, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    hub.accounts[SERVER_TOKEN] = account(
        fine_grained(("org", "acme", "repo.write")), orgs=[{"name": "acme", "canPay": False}]
    )
    del hub.accounts[RUNS_TOKEN]
    hub.models.models[REPOSITORY].private = False
    monkeypatch.setenv("POSTDOC_HF_JOBS_FLAVOR", "h900")
    monkeypatch.setenv("POSTDOC_HF_JOBS_IMAGE", "acme/train:latest")
    code, found = examined(capsys)
    assert code == 1
    assert "may not start jobs" in found["server's token"]["detail"]
    assert "no payment method" in found["payment"]["detail"]
    assert found["jobs' token"]["advice"] == "look at POSTDOC_HF_JOBS_TOKEN"
    assert "make it private" in found["runs repository"]["advice"]
    assert "write one of cpu-basic $" in found["machine"]["advice"]
    assert found["image"]["advice"].startswith("optional: add its digest")


def test_account_that_is_not_in_the_namespace_is_a_fault(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    hub.accounts[SERVER_TOKEN] = account(fine_grained(("user", "ada", "job.write")), orgs=[])
    code, found = examined(capsys)
    assert (code, found["namespace"]["detail"]) == (1, "ada is not in acme")


@pytest.mark.parametrize("name", ["HUB_TOKEN", "HF_JOBS_TOKEN", "HF_JOBS_NAMESPACE", "HF_JOBS_FLAVOR", "HF_JOBS_IMAGE",
                                  "HF_JOBS_REPOSITORY"])  # fmt: skip
def test_setting_that_is_missing_is_named_in_one_line(
    hub: FakeHub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv(f"POSTDOC_{name}")
    assert cli.run(["doctor", "--hub"]) == 2
    said = capsys.readouterr().err
    assert f"POSTDOC_{name}" in said
    assert said.count("\n") == 1


def test_one_token_for_both_is_refused(
    hub: FakeHub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTDOC_HF_JOBS_TOKEN", SERVER_TOKEN)
    assert cli.run(["doctor", "--hub"]) == 2
    assert "second, fine-grained token" in capsys.readouterr().err
