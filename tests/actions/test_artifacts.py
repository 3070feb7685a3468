"""`model: artifact:NAME`: whose artifact it is decides, and GitHub's one-minute address gets no token."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import httpx
import pytest

from actions.artifacts import fetched_artifact
from actions.models import measured
from actions.request import Mode, Request
from bot.errors import PlatformError, UserError
from tests.actions.conftest import REPOSITORY, TEMPLATES, Place, evaluation

WORKFLOW_PATH = ".github/workflows/postdoc-train.yml"
READS = {"contents": "read", "actions": "read"}


@pytest.fixture
def request_(place: Place, monkeypatch: pytest.MonkeyPatch) -> Request:
    (place.folder / "call").mkdir()
    monkeypatch.setenv("GITHUB_API_URL", f"{place.url}/api/v3")
    monkeypatch.setenv("GITHUB_REPOSITORY", REPOSITORY)
    monkeypatch.setenv("GITHUB_RUN_ID", "0")
    return Request(
        Mode.EVALUATE, place.folder / "call", place.folder, {"repository": {"default_branch": "main"}}, "push",
        github_token=place.token(**READS),
    )  # fmt: skip


class Uploads:
    """Workflow runs of the forge that leave artifacts, by way of a machine."""

    def __init__(self, place: Place) -> None:
        self.place, self.number = place, 0
        place.push({WORKFLOW_PATH: (TEMPLATES / "postdoc-train.yml").read_text()})
        machine = place.forge.add_machine(REPOSITORY, "box", ("gpu",))
        headers = {"authorization": f"Bearer {machine.token}"}
        self._door = httpx.Client(base_url=f"{place.url}/practice/machines", headers=headers, trust_env=False)

    def dispatch(self) -> dict[str, Any]:
        """The template as the bot starts it; what the machine is told."""
        self.number += 1
        inputs = {"job": f"lab-1-train-0{self.number}-1", "sha": "a" * 40, "store": "https://bot.invalid/store",
                  "token": "t" * 40, "timeout_minutes": "60", "label": "gpu"}  # fmt: skip
        headers = {"authorization": f"Bearer {self.place.forge.user_token('ada')}"}
        url = f"{self.place.url}/api/v3/repos/{REPOSITORY}/actions/workflows/postdoc-train.yml/dispatches"
        answer = self.place.http.post(
            url, json={"ref": "main", "inputs": inputs, "return_run_details": True}, headers=headers
        )
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = self._door.post("/next").json()
        return told

    def upload(self, name: str, files: dict[str, str]) -> int:
        told = self.dispatch()
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for path, content in files.items():
                archive.writestr(path, content)
        run = int(told["run"]["id"])
        assert self._door.put(f"/runs/{run}/artifacts/{name}", content=packed.getvalue()).status_code < 300
        self._door.post(f"/jobs/{told['job']['id']}/finish", json={"conclusion": "success"})
        return run

    def close(self) -> None:
        self._door.close()


def test_template_is_dispatched_with_the_bots_inputs_and_named_after_the_job(place: Place) -> None:
    uploads = Uploads(place)
    told = uploads.dispatch()
    assert told["event"]["inputs"]["job"] == "lab-1-train-01-1"
    assert told["run"]["display_title"] == "postdoc lab-1-train-01-1"
    uploads.close()


def test_newest_of_the_default_branch_is_taken_and_read(place: Place, request_: Request) -> None:
    uploads = Uploads(place)
    uploads.upload("trained", {"evaluation.json": evaluation(10)})
    newest = uploads.upload("trained", {"evaluation.json": evaluation(20)})
    found = measured(request_, "model", "artifact:trained")
    assert found.evaluation is not None
    assert found.evaluation.value == 0.1
    first = measured(request_, "model", f"artifact:trained@{newest - 1}") if newest > 1 else None
    assert first is None or first.evaluation is not None
    uploads.close()


def test_artifact_of_another_branch_or_of_a_fork_is_not_the_one_of_that_name(
    place: Place, request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads = Uploads(place)
    number = uploads.upload("trained", {"evaluation.json": evaluation(10)})
    run = place.forge.repository(REPOSITORY).actions.run(number)
    assert run is not None
    run.head_branch = "somebodys"
    with pytest.raises(UserError, match="none of that name in this workflow run or one of the default branch"):
        fetched_artifact(request_, "trained")
    monkeypatch.setenv("GITHUB_RUN_ID", str(number))
    assert (fetched_artifact(request_, "trained") / "evaluation.json").is_file()
    assert (fetched_artifact(request_, f"trained@{number}") / "evaluation.json").is_file()
    uploads.close()


@pytest.mark.parametrize("name", ["../../outside", "/outside"])
def test_archive_that_leads_out_stays_inside(place: Place, request_: Request, name: str) -> None:
    uploads = Uploads(place)
    uploads.upload("trained", {name: "x", "evaluation.json": evaluation(10)})
    folder = fetched_artifact(request_, "trained")
    outside = [path for path in Path(place.folder).rglob("outside") if not path.is_relative_to(folder)]
    assert outside == []
    assert not Path("/outside").exists()
    uploads.close()


def test_missing_permission_and_missing_artifact_are_said(place: Place, request_: Request) -> None:
    uploads = Uploads(place)
    with pytest.raises(UserError, match="there is none of that name"):
        fetched_artifact(request_, "nothing")
    with pytest.raises(UserError, match="write the workflow run's number"):
        fetched_artifact(request_, "trained@latest")
    blind = Request(Mode.EVALUATE, request_.folder, request_.workspace, {}, "push", github_token="ghs_garbage")
    with pytest.raises(PlatformError, match="actions: read"):
        fetched_artifact(blind, "trained")
    uploads.close()
