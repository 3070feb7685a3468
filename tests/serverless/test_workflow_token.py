"""What the workflow's own token is to us, and where it ends."""

from __future__ import annotations

import pytest

from bot.conversation.github import ACTIONS_LOGIN, Refused
from bot.errors import UserError
from tests.serverless.conftest import REPOSITORY, Place
from tests.serverless.workflows import WORKFLOW_PERMISSIONS

OWNER, NAME = REPOSITORY.split("/")


async def test_comment_is_the_workflows_own_and_found_again(place: Place) -> None:
    issue = place.app().repository(0, OWNER, NAME)
    created = await place.app().call(0, "POST", f"/repos/{REPOSITORY}/issues", json={"title": "T"})
    number = int(created.json()["number"])
    first = await issue.upsert_comment(number, "<!-- postdoc:x -->", "<!-- postdoc:x -->\none")
    again = await place.app().repository(0, OWNER, NAME).upsert_comment(number, "<!-- postdoc:x -->", "two")
    assert again == first
    (comment,) = await issue.comments(number)
    assert comment["user"]["login"] == ACTIONS_LOGIN == await place.app().login()


async def test_one_repository_is_all_there_is(place: Place) -> None:
    app = place.app()
    assert [row["full_name"] for row in await app.installation_repositories(0)] == [REPOSITORY]
    assert [row["id"] for row in await app.installation_rows()] == [0]
    with pytest.raises(Refused, match="cannot speak for an App"):
        await app.call_as_app("GET", "/app")


async def test_token_that_has_ended_is_said_to_be_one(place: Place) -> None:
    place.forge.tokens.revoke(place.forge.workflow_token(REPOSITORY, WORKFLOW_PERMISSIONS))
    over = Place(place.forge, place.url, "ghs_over", place.opened)
    with pytest.raises(Refused, match="does not accept the workflow's token"):
        await over.app().repository(0, OWNER, NAME).describe()


async def test_workflow_that_may_open_no_pull_request_is_told_where_to_allow_it(place: Place) -> None:
    token = place.forge.workflow_token(REPOSITORY, WORKFLOW_PERMISSIONS, may_open_pulls=False).token
    repository = Place(place.forge, place.url, token, place.opened).app().repository(0, OWNER, NAME)
    _, sha = await repository.default_branch()
    await repository.create_branch("postdoc/1-x", sha)
    with pytest.raises(UserError, match="Allow GitHub Actions to create"):
        await repository.open_pull_request(branch="postdoc/1-x", base="main", title="T", body="B", draft=True)


async def test_no_workflow_file_is_ever_written_with_it(place: Place) -> None:
    repository = place.app().repository(0, OWNER, NAME)
    _, sha = await repository.default_branch()
    files = {".github/workflows/x.yml": b"on: push\n"}
    with pytest.raises(Refused):
        await repository.commit("main", expected_head=sha, message="m", key="k", files=files)
