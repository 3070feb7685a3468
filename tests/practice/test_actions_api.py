"""GitHub Actions on the practice forge: dispatches, runs, machines and artifacts, as GitHub describes them."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest

from bot.practice.actions_model import Machine

from .conftest import REPOSITORY, World

FILE = ".github/workflows/train.yml"
WORKFLOW = """\
name: Training
run-name: train ${{ inputs.job }}
on:
  workflow_dispatch:
    inputs:
      job: {required: true, type: string}
      label: {type: string, default: gpu}
      kind: {type: choice, options: [small, large], default: small}
concurrency: {group: "train-${{ inputs.job }}"}
jobs:
  train:
    name: ${{ inputs.job }}
    runs-on: [self-hosted, "${{ inputs.label }}"]
    steps: [{run: "true"}]
"""
PUSHED = "on: push\njobs: {a: {runs-on: x, steps: [{run: ls}]}}\n"


@pytest.fixture
def place(world: World) -> World:
    clerk = world.as_user("dora")
    for path, text in ((FILE, WORKFLOW), (".github/workflows/ci.yml", PUSHED)):
        content = base64.b64encode(text.encode()).decode()
        clerk.put(world.repo(f"/contents/{path}"), json={"message": "Add", "content": content}).raise_for_status()
    return world


@pytest.fixture
def machine(place: World) -> Machine:
    return place.forge.add_machine(REPOSITORY, "box", ["GPU"])


def door(place: World, machine: Machine | None) -> httpx.Client:
    client = place.client(machine.token if machine else "wrong")
    client.base_url = httpx.URL(f"{place.url}/practice/machines")
    return client


def dispatch(place: World, client: httpx.Client, file: str = "train.yml", **fields: Any) -> httpx.Response:
    body = {"ref": "main", "inputs": {"job": "j1"}} | fields
    return client.post(place.repo(f"/actions/workflows/{file}/dispatches"), json=body)


def started(place: World, client: httpx.Client, job: str = "j1") -> int:
    answer = dispatch(place, client, inputs={"job": job}, return_run_details=True)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["workflow_run_id"])


def test_dispatch_starts_a_run_and_tells_which(place: World, bot: httpx.Client) -> None:
    number = started(place, bot)
    run = bot.get(place.repo(f"/actions/runs/{number}")).json()
    assert (run["display_title"], run["status"], run["conclusion"]) == ("train j1", "queued", None)
    assert (run["path"], run["event"], run["actor"]["login"]) == (FILE, "workflow_dispatch", "postdoc[bot]")
    [job] = bot.get(place.repo(f"/actions/runs/{number}/jobs")).json()["jobs"]
    assert (job["name"], job["labels"], job["status"], job["runner_name"]) == (
        "j1", ["self-hosted", "gpu"], "queued", None,
    )  # fmt: skip
    assert bot.get(place.repo(f"/actions/jobs/{job['id']}")).json() == job
    assert dispatch(place, bot, inputs={"job": "j2"}).status_code == 204
    listed = bot.get(place.repo("/actions/workflows/train.yml/runs"), params={"per_page": "1"})
    assert (listed.json()["total_count"], listed.json()["workflow_runs"][0]["display_title"]) == (2, "train j2")
    assert 'rel="next"' in listed.headers["link"]
    assert place.names("workflow_run", "workflow_job") == ["workflow_run.requested", "workflow_job.queued"] * 2


def test_runs_are_narrowed_by_what_is_asked(place: World, bot: httpx.Client, ada: httpx.Client) -> None:
    mine, theirs = started(place, bot, "j1"), started(place, ada, "j2")
    bot.post(place.repo(f"/actions/runs/{theirs}/cancel"))

    def numbers(**query: str) -> list[int]:
        return [run["id"] for run in bot.get(place.repo("/actions/runs"), params=query).json()["workflow_runs"]]

    assert numbers() == [theirs, mine]
    assert numbers(actor="postdoc[bot]") == [mine]
    assert numbers(status="cancelled") == [theirs]
    assert numbers(event="push") == []
    assert numbers(created=">=2999-01-01") == []
    assert numbers(created=">=2020-01-01", branch="main") == [theirs, mine]


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"ref": "gone"}, 422, "No ref found for: gone"),
        ({"inputs": {}}, 422, "Required input 'job' not provided"),
        ({"inputs": {"job": "j", "x": "1"}}, 422, 'Unexpected inputs provided: ["x"]'),
        ({"inputs": {"job": "j", "kind": "huge"}}, 422, "not in the list of allowed values"),
        ({"inputs": {"job": "j" * 70_000}}, 422, "inputs are too large"),
        ({"file": "ci.yml"}, 422, "Workflow does not have 'workflow_dispatch' trigger"),
        ({"file": "none.yml"}, 404, "Not Found"),
    ],
)
def test_dispatch_is_refused_in_githubs_words(
    place: World, bot: httpx.Client, fields: dict[str, Any], status: int, words: str
) -> None:
    answer = dispatch(place, bot, **fields)
    assert (answer.status_code, words in answer.json()["message"]) == (status, True), answer.text
    assert place.forge.runs_of(REPOSITORY) == []


def test_workflow_files_are_those_of_the_default_branch(place: World, bot: httpx.Client) -> None:
    listed = bot.get(place.repo("/actions/workflows")).json()["workflows"]
    assert {each["path"] for each in listed} == {FILE, ".github/workflows/ci.yml"}
    by_id = bot.get(place.repo(f"/actions/workflows/{listed[0]['id']}")).json()
    assert by_id == listed[0]


def test_permission_to_dispatch_is_actions_write(place: World) -> None:
    reader = place.as_bot(permissions={"actions": "read"})
    answer = dispatch(place, reader)
    assert (answer.status_code, answer.json()["message"]) == (403, "Resource not accessible by integration")
    assert dispatch(place, place.as_user("carl")).status_code == 403
    assert reader.get(place.repo("/actions/runs")).status_code == 200
    assert reader.get(place.repo("/actions/runners")).status_code == 403


def test_machine_takes_executes_and_finishes(place: World, bot: httpx.Client, machine: Machine) -> None:
    number = started(place, bot)
    hands = door(place, machine)
    taken = hands.post("/next").json()
    assert (taken["run"]["id"], taken["event"]["inputs"]["job"], taken["workflow"]) == (number, "j1", WORKFLOW)
    assert (taken["job"]["status"], taken["job"]["runner_name"]) == ("in_progress", "box")
    assert hands.post("/next").status_code == 204  # one at a time
    url = f"/jobs/{taken['job']['id']}"
    assert hands.get(url).json() == {"status": "in_progress", "cancel": ""}
    assert hands.post(f"{url}/finish", json={"conclusion": "splendid"}).status_code == 422
    assert hands.post(f"{url}/finish", json={"conclusion": "success"}).json()["conclusion"] == "success"
    assert hands.post(f"{url}/finish", json={"conclusion": "failure"}).json()["conclusion"] == "success"
    assert bot.get(place.repo(f"/actions/runs/{number}")).json()["conclusion"] == "success"
    assert sorted(place.names("workflow_run", "workflow_job")) == [
        "workflow_job.completed", "workflow_job.in_progress", "workflow_job.queued",
        "workflow_run.completed", "workflow_run.in_progress", "workflow_run.requested",
    ]  # fmt: skip
    stranger = place.forge.add_machine(REPOSITORY, "other", ["cpu"])
    for hands in (door(place, None), door(place, stranger)):
        assert hands.get(url).status_code == 401
        assert hands.post(f"{url}/finish", json={"conclusion": "failure"}).status_code == 401


def test_machine_takes_only_jobs_with_its_labels(place: World, bot: httpx.Client) -> None:
    started(place, bot)
    assert door(place, place.forge.add_machine(REPOSITORY, "plain", ["cpu"])).post("/next").status_code == 204
    offline = place.forge.add_machine(REPOSITORY, "gone", ["gpu"])
    place.forge.lose_machine(offline)
    assert door(place, offline).post("/next").status_code == 204


def test_machines_are_shown_to_who_administrates(place: World, machine: Machine) -> None:
    dora = place.as_user("dora")
    [shown] = dora.get(place.repo("/actions/runners")).json()["runners"]
    assert (shown["name"], shown["status"], shown["busy"]) == ("box", "online", False)
    assert [label["name"] for label in shown["labels"]] == ["self-hosted", "Linux", "X64", "GPU"]
    started(place, dora)
    door(place, machine).post("/next")
    assert dora.get(place.repo("/actions/runners")).json()["runners"][0]["busy"] is True
    place.forge.lose_machine(machine)
    [shown] = dora.get(place.repo("/actions/runners"), params={"name": "box"}).json()["runners"]
    assert (shown["status"], shown["busy"]) == ("offline", False)
    assert place.forge.runs_of(REPOSITORY)[0].conclusion == "failure"


def test_cancel_ends_what_waits_and_asks_what_runs(place: World, bot: httpx.Client, machine: Machine) -> None:
    waiting = place.repo(f"/actions/runs/{started(place, bot)}")
    assert bot.post(f"{waiting}/cancel").status_code == 202
    assert bot.get(waiting).json()["conclusion"] == "cancelled"
    for verb in ("cancel", "force-cancel"):
        assert bot.post(f"{waiting}/{verb}").status_code == 409
    running = place.repo(f"/actions/runs/{started(place, bot, 'j2')}")
    job = door(place, machine).post("/next").json()["job"]["id"]
    assert bot.post(f"{running}/cancel").status_code == 202
    assert bot.get(running).json()["status"] == "in_progress"
    assert door(place, machine).get(f"/jobs/{job}").json()["cancel"] == "cancel"
    assert bot.post(f"{running}/force-cancel").status_code == 202
    assert bot.get(running).json()["conclusion"] == "cancelled"


def test_one_run_of_a_group_goes_and_one_waits(place: World, bot: httpx.Client, machine: Machine) -> None:
    first, second, third = (place.repo(f"/actions/runs/{started(place, bot)}") for _ in range(3))
    assert [bot.get(url).json()["status"] for url in (first, second, third)] == ["queued", "completed", "pending"]
    assert bot.get(second).json()["conclusion"] == "cancelled"
    hands = door(place, machine)
    job = hands.post("/next").json()["job"]["id"]
    assert hands.post("/next").status_code == 204
    hands.post(f"/jobs/{job}/finish", json={"conclusion": "success"})
    assert bot.get(third).json()["status"] == "queued"
    assert hands.post("/next").status_code == 200


def test_artifact_lies_behind_an_address_that_holds_a_minute(place: World, bot: httpx.Client, machine: Machine) -> None:
    number, hands = started(place, bot), door(place, machine)
    assert hands.put(f"/runs/{number}/artifacts/out", content=b"zip").status_code == 401  # not its run
    hands.post("/next")
    assert hands.put(f"/runs/{number}/artifacts/out", content=b"zip").status_code == 201
    assert hands.put(f"/runs/{number}/artifacts/out", content=b"other").status_code == 409
    url = place.repo(f"/actions/runs/{number}/artifacts")
    assert bot.get(url, params={"name": "none"}).json()["artifacts"] == []
    [found] = bot.get(url, params={"name": "out"}).json()["artifacts"]
    assert (found["size_in_bytes"], found["expired"], found["workflow_run"]["id"]) == (3, False, number)
    archive = place.repo(f"/actions/artifacts/{found['id']}/zip")
    assert place.client().get(archive).status_code == 401
    answer = bot.get(archive)
    assert answer.status_code == 302
    address = answer.headers["location"]
    assert httpx.get(address).content == b"zip"
    assert httpx.get(address, headers=bot.headers).status_code == 400  # the token is not for there
    assert httpx.get(address.replace("sig=", "sig=0")).status_code == 403
    place.clock.advance(seconds=62)
    assert httpx.get(address).status_code == 403
    assert httpx.get(bot.get(archive).headers["location"]).content == b"zip"
    place.clock.advance(days=91)
    again = place.as_bot()
    assert again.get(archive).status_code == 410
    assert again.get(place.repo(f"/actions/artifacts/{found['id']}")).json()["expired"] is True
    assert again.delete(place.repo(f"/actions/artifacts/{found['id']}")).status_code == 204
    assert again.get(place.repo("/actions/artifacts")).json()["total_count"] == 0


def test_expression_that_is_not_understood_is_no_silence(place: World, bot: httpx.Client) -> None:
    text = WORKFLOW.replace("inputs.job }}\non", "fromJSON(inputs.job) }}\non")
    dora = place.as_user("dora")
    sha = dora.get(place.repo(f"/contents/{FILE}")).json()["sha"]
    content = base64.b64encode(text.encode()).decode()
    dora.put(place.repo(f"/contents/{FILE}"), json={"message": "e", "content": content, "sha": sha}).raise_for_status()
    answer = dispatch(place, bot)
    assert (answer.status_code, "does not evaluate ${{ fromJSON(inputs.job) }}" in answer.text) == (422, True)
