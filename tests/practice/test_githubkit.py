# mypy: disable-error-code="attr-defined, index, call-overload, typeddict-item, var-annotated, type-arg"
"""The client that the bot uses, against the forge: its own models have to accept every answer."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest
from githubkit import AppAuthStrategy, AppInstallationAuthStrategy, GitHub, TokenAuthStrategy
from githubkit.exception import GraphQLFailed, RequestFailed

from .conftest import COMMIT, RECIPE, REPOSITORY, World

OWNER, NAME = REPOSITORY.split("/")


def options(world: World) -> dict[str, Any]:
    return {"base_url": world.api, "http_cache": False, "auto_retry": False}


@pytest.fixture
async def kit(world: World) -> AsyncIterator[GitHub]:
    auth = AppInstallationAuthStrategy(world.app.app_id, world.app.private_key_pem, world.installation_id)
    async with GitHub(auth, **options(world)) as github:
        yield github


async def test_app_finds_its_installation(world: World):
    async with GitHub(AppAuthStrategy(world.app.app_id, world.app.private_key_pem), **options(world)) as github:
        app = (await github.rest.apps.async_get_authenticated()).parsed_data
        assert app is not None
        assert app.slug == "postdoc"
        found = (await github.rest.apps.async_get_repo_installation(OWNER, NAME)).parsed_data
        assert found.id == world.installation_id
        token = (await github.rest.apps.async_create_installation_access_token(found.id)).parsed_data
        assert token.token.startswith("ghs_")
        assert [each.id for each in (await github.rest.apps.async_list_installations()).parsed_data] == [found.id]


async def test_deliveries_are_read_and_repeated(world: World):
    world.events()
    async with GitHub(AppAuthStrategy(world.app.client_id, world.app.private_key_pem), **options(world)) as github:
        (delivery,) = (await github.rest.apps.async_list_webhook_deliveries()).parsed_data
        full = (await github.rest.apps.async_get_webhook_delivery(delivery.id)).parsed_data
        assert full.guid == delivery.guid
        await github.rest.apps.async_redeliver_webhook_delivery(delivery.id)
    assert world.names("installation") == ["installation.created"] * 2


async def test_a_goal_is_pursued_with_typed_answers(world: World, kit: GitHub):
    """One pass over everything that the bot does on a goal."""
    rest = kit.rest
    issue = (await rest.issues.async_create(OWNER, NAME, title="Raise it", labels=["postdoc"])).parsed_data
    comment = (await rest.issues.async_create_comment(OWNER, NAME, issue.number, body="on it")).parsed_data
    await rest.issues.async_update_comment(OWNER, NAME, comment.id, body="still on it")
    reaction = await rest.reactions.async_create_for_issue(OWNER, NAME, issue.number, content="eyes")
    assert reaction.status_code == 201
    listed = (await rest.issues.async_list_comments(OWNER, NAME, issue.number)).parsed_data
    assert [each.body for each in listed] == ["still on it"]
    tip = (await rest.git.async_get_ref(OWNER, NAME, "heads/main")).parsed_data.object_.sha
    await rest.git.async_create_ref(OWNER, NAME, ref="refs/heads/postdoc/1", sha=tip)
    head = await commit(kit, "postdoc/1", tip, {"experiments/1/recipe.yaml": RECIPE})
    pull = (
        await rest.pulls.async_create(OWNER, NAME, title="Exp", head="postdoc/1", base="main", draft=True, body="b")
    ).parsed_data
    assert (pull.draft, pull.head.sha, pull.changed_files) == (True, head, 1)
    files = (await rest.pulls.async_list_files(OWNER, NAME, pull.number)).parsed_data
    assert files[0].patch is not None
    review = (
        await rest.pulls.async_create_review(
            OWNER,
            NAME,
            pull.number,
            event="COMMENT",
            body="Run 1",
            comments=[
                {"path": "experiments/1/recipe.yaml", "line": 1, "side": "RIGHT", "body": "```suggestion\nx\n```"}
            ],
        )
    ).parsed_data
    assert review.state == "COMMENTED"
    (note,) = (await rest.pulls.async_list_review_comments(OWNER, NAME, pull.number)).parsed_data
    assert (note.line, note.side) == (1, "RIGHT")
    of_review = (await rest.pulls.async_list_comments_for_review(OWNER, NAME, pull.number, review.id)).parsed_data
    assert of_review[0].id == note.id
    run = (await rest.checks.async_create(OWNER, NAME, name="run 1", head_sha=head, status="in_progress")).parsed_data
    await rest.checks.async_update(OWNER, NAME, run.id, conclusion="success", output={"title": "t", "summary": "s"})
    for_ref = (await rest.checks.async_list_for_ref(OWNER, NAME, "postdoc/1")).parsed_data
    assert for_ref.check_runs[0].conclusion == "success"
    level = (await rest.repos.async_get_collaborator_permission_level(OWNER, NAME, "ada")).parsed_data
    assert (level.permission, level.role_name) == ("write", "write")
    compared = (await rest.repos.async_compare_commits(OWNER, NAME, "main...postdoc/1")).parsed_data
    assert compared.ahead_by == 1
    content = (await rest.repos.async_get_content(OWNER, NAME, "experiments/1/recipe.yaml", ref="postdoc/1")).json()
    assert base64.b64decode(content["content"]).decode() == RECIPE
    assert (await rest.repos.async_get(OWNER, NAME)).parsed_data.default_branch == "main"
    assert (await rest.repos.async_get_commit(OWNER, NAME, head)).parsed_data.files
    assert (await rest.issues.async_get(OWNER, NAME, pull.number)).parsed_data.pull_request
    assert (await rest.users.async_get_by_username("postdoc[bot]")).parsed_data.type == "Bot"
    assert (await rest.repos.async_get_combined_status_for_ref(OWNER, NAME, head)).parsed_data.state == "pending"
    closed = await rest.issues.async_update(OWNER, NAME, issue.number, state="closed", state_reason="completed")
    assert closed.parsed_data.state == "closed"


async def commit(kit: GitHub, branch: str, expected: str, files: dict[str, str]) -> str:
    additions = [{"path": p, "contents": base64.b64encode(t.encode()).decode()} for p, t in files.items()]
    given = {
        "branch": {"repositoryNameWithOwner": REPOSITORY, "branchName": branch},
        "expectedHeadOid": expected,
        "message": {"headline": "Plan", "body": "Postdoc-Run: 1/01"},
        "fileChanges": {"additions": additions},
    }
    data = await kit.graphql.arequest(COMMIT, {"input": given})
    oid: str = data["createCommitOnBranch"]["commit"]["oid"]
    return oid


async def test_graphql_refusal_arrives_as_an_exception(world: World, kit: GitHub):
    with pytest.raises(GraphQLFailed, match="did not"):
        await commit(kit, "main", "0" * 40, {"x": "1"})


async def test_refusals_carry_githubs_status(world: World, kit: GitHub):
    with pytest.raises(RequestFailed) as caught:
        await kit.rest.issues.async_create_comment(OWNER, NAME, 99, body="x")
    assert caught.value.response.status_code == 404
    with pytest.raises(RequestFailed) as caught:
        await kit.rest.pulls.async_create(OWNER, NAME, title="x", head="main", base="main")
    assert caught.value.response.status_code == 422


async def test_pages_are_followed(world: World, kit: GitHub):
    issue = (await kit.rest.issues.async_create(OWNER, NAME, title="many")).parsed_data
    for number in range(7):
        await kit.rest.issues.async_create_comment(OWNER, NAME, issue.number, body=f"c{number}")
    pages = kit.rest.paginate(
        kit.rest.issues.async_list_comments, owner=OWNER, repo=NAME, issue_number=issue.number, per_page=3
    )
    assert [each.body async for each in pages] == [f"c{number}" for number in range(7)]


async def test_person_with_a_token(world: World):
    async with GitHub(TokenAuthStrategy(world.forge.user_token("ada")), **options(world)) as github:
        assert (await github.rest.users.async_get_authenticated()).parsed_data.login == "ada"
        made = await github.rest.repos.async_create_or_update_file_contents(
            OWNER, NAME, "x.txt", message="m", content=base64.b64encode(b"x").decode()
        )
        assert made.status_code == 201
        assert made.parsed_data.commit.sha == world.tip()
