"""Check runs, their limits and buttons, and commit statuses."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from bot.practice.replies import ApiError

from .conftest import World, app_key

OUTPUT = {"title": "step 10/300", "summary": "going on"}
BUTTON = {"label": "Accept fix", "description": "Commit the suggestion", "identifier": "accept"}


def create(client: httpx.Client, world: World, **fields: object) -> httpx.Response:
    body = {"name": "postdoc / run 1", "head_sha": world.tip(), "status": "in_progress", "output": OUTPUT} | fields
    return client.post(world.repo("/check-runs"), json=body)


def test_check_run_lifecycle(world: World, bot: httpx.Client):
    pull = world.pull(bot)
    head = pull["head"]["sha"]
    made = create(bot, world, head_sha=head, external_id="42/01")
    assert made.status_code == 201
    run = made.json()
    assert (run["app"]["slug"], run["status"], run["external_id"]) == ("postdoc", "in_progress", "42/01")
    assert [each["number"] for each in run["pull_requests"]] == [pull["number"]]
    path = world.repo(f"/check-runs/{run['id']}")
    half = bot.patch(path, json={"output": OUTPUT | {"title": "step 20/300"}}).json()
    assert (half["output"]["title"], half["conclusion"], half["completed_at"]) == ("step 20/300", None, None)
    done = bot.patch(path, json={"conclusion": "neutral", "actions": [BUTTON]}).json()
    assert (done["status"], done["conclusion"]) == ("completed", "neutral")
    assert done["completed_at"] is not None
    listed = bot.get(world.repo("/commits/work/check-runs")).json()
    assert (listed["total_count"], listed["check_runs"][0]["id"]) == (1, run["id"])
    suites = bot.get(world.repo(f"/commits/{head}/check-suites")).json()
    suite = suites["check_suites"][0]
    assert (suite["status"], suite["conclusion"]) == ("completed", "neutral")
    assert bot.get(world.repo(f"/check-suites/{suite['id']}")).json()["latest_check_runs_count"] == 1
    assert bot.get(world.repo(f"/check-suites/{suite['id']}/check-runs")).json()["total_count"] == 1
    assert world.names("check_run") == ["check_run.created", "check_run.completed"]


def test_buttons_work_once_the_run_has_completed(world: World, bot: httpx.Client):
    run = create(bot, world, actions=[BUTTON]).json()
    with pytest.raises(ApiError, match="completed"):
        world.forge.press_button(run["id"], "accept", "ada")
    bot.patch(world.repo(f"/check-runs/{run['id']}"), json={"conclusion": "failure"})
    with pytest.raises(ApiError, match="no button"):
        world.forge.press_button(run["id"], "other", "ada")
    with pytest.raises(ApiError, match="access"):
        world.forge.press_button(run["id"], "accept", "eve")
    world.forge.press_button(run["id"], "accept", "ada")
    payload = world.events()[-1].payload
    assert (payload["action"], payload["requested_action"]) == ("requested_action", {"identifier": "accept"})
    assert (payload["sender"]["login"], payload["check_run"]["id"]) == ("ada", run["id"])


def test_rerequest_reaches_the_app(world: World, bot: httpx.Client):
    run = create(bot, world).json()
    world.forge.rerequest_check(run["id"], "ada")
    assert world.names("check_run") == ["check_run.created", "check_run.rerequested"]
    assert bot.post(world.repo(f"/check-runs/{run['id']}/rerequest")).status_code == 201


def test_people_and_other_apps_cannot_touch_a_run(world: World, bot: httpx.Client, ada: httpx.Client):
    run = create(bot, world).json()
    assert create(ada, world).status_code == 403
    assert ada.patch(world.repo(f"/check-runs/{run['id']}"), json={"conclusion": "success"}).status_code == 403
    other = world.forge.register_app(slug="other", permissions={"checks": "write"}, private_key_pem=app_key())
    world.forge.install_app(other.app_id, "acme/lab")
    installation = next(i for i in world.forge.installations.values() if i.app.id == other.app_id)
    stranger = world.client(world.forge.new_token(installation).token)
    denied = stranger.patch(world.repo(f"/check-runs/{run['id']}"), json={"conclusion": "success"})
    assert denied.status_code == 403
    assert bot.get(world.repo(f"/check-runs/{run['id']}")).json()["conclusion"] is None
    assert create(stranger, world).json()["app"]["slug"] == "other"


def annotation(line: int, **fields: object) -> dict[str, Any]:
    shape = {"path": "README.md", "start_line": line, "end_line": line, "annotation_level": "warning", "message": "m"}
    return shape | fields


def test_annotations_are_appended_fifty_at_a_time(world: World, bot: httpx.Client):
    run = create(bot, world, output=OUTPUT | {"annotations": [annotation(1)] * 50}).json()
    path = world.repo(f"/check-runs/{run['id']}")
    more = OUTPUT | {"annotations": [annotation(2)] * 3}
    assert bot.patch(path, json={"output": more}).json()["output"]["annotations_count"] == 53
    too_many = OUTPUT | {"annotations": [annotation(3)] * 51}
    assert bot.patch(path, json={"output": too_many}).status_code == 422
    listed = bot.get(f"{path}/annotations", params={"per_page": 100}).json()
    assert [each["start_line"] for each in listed] == [1] * 50 + [2] * 3


@pytest.mark.parametrize(
    "fields",
    [
        {"output": {"title": "t", "summary": "s" * 65_536}},
        {"output": {"title": "t", "summary": "s", "text": "t" * 65_536}},
        {"output": {"title": "t"}},
        {"output": OUTPUT | {"annotations": [annotation(1, title="t" * 256)]}},
        {"output": OUTPUT | {"annotations": [annotation(1, message="m" * 65_537)]}},
        {"output": OUTPUT | {"annotations": [annotation(1, annotation_level="error")]}},
        {"output": OUTPUT | {"annotations": [{"path": "x"}]}},
        {"actions": [BUTTON] * 4},
        {"actions": [BUTTON | {"label": "l" * 21}]},
        {"actions": [BUTTON | {"description": "d" * 41}]},
        {"actions": [BUTTON | {"identifier": "i" * 21}]},
        {"status": "finished"},
        {"status": "completed"},
        {"conclusion": "stale"},
        {"head_sha": "0" * 40},
        {"name": None},
    ],
)
def test_check_run_beyond_the_limits_is_refused(world: World, bot: httpx.Client, fields: dict[str, Any]):
    assert create(bot, world, **fields).status_code == 422
    assert bot.get(world.repo("/commits/main/check-runs")).json()["total_count"] == 0


def test_check_run_at_the_limits_is_taken(world: World, bot: httpx.Client):
    output = {"title": "t", "summary": "ü" * 65_535, "text": "t" * 65_535}
    button = {"label": "l" * 20, "description": "d" * 40, "identifier": "i" * 20}
    assert create(bot, world, output=output, actions=[button] * 3).status_code == 201


def test_latest_run_of_a_name_is_listed(world: World, bot: httpx.Client):
    first, second = create(bot, world).json(), create(bot, world).json()
    listed = bot.get(world.repo("/commits/main/check-runs")).json()["check_runs"]
    assert [each["id"] for each in listed] == [second["id"]]
    everything = bot.get(world.repo("/commits/main/check-runs"), params={"filter": "all"}).json()["check_runs"]
    assert {each["id"] for each in everything} == {first["id"], second["id"]}


def test_commit_statuses_combine(world: World, bot: httpx.Client, eve: httpx.Client):
    sha = world.tip()
    path = world.repo(f"/statuses/{sha}")
    assert bot.post(path, json={"state": "pending", "context": "postdoc"}).status_code == 201
    assert bot.get(world.repo("/commits/main/status")).json()["state"] == "pending"
    assert bot.post(path, json={"state": "success", "context": "postdoc", "description": "done"}).status_code == 201
    assert bot.get(world.repo("/commits/main/status")).json()["state"] == "success"
    assert bot.post(path, json={"state": "failure", "context": "other"}).status_code == 201
    assert bot.get(world.repo("/commits/main/status")).json()["state"] == "failure"
    assert len(bot.get(world.repo("/commits/main/statuses")).json()) == 3
    assert bot.post(path, json={"state": "great"}).status_code == 422
    assert bot.post(path, json={"state": "success", "description": "d" * 141}).status_code == 422
    assert eve.post(path, json={"state": "success"}).status_code == 403
    assert world.names("status") == ["status"] * 3
