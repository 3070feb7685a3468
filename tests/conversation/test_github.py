"""The GitHub port against the practice forge: every write made twice changes nothing, every refusal has its class."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from bot.conversation.github import GitHubApp, InlineComment, Pacing, Refused, Repository, StaleHead
from bot.conversation.github.repository import COMMIT, MINIMIZE, READY
from bot.errors import TransientError
from bot.practice.auth import new_key_pair
from bot.practice.forge import Forge
from bot.practice.server import serve
from tests import graphql_schema
from tests.openapi import Recorder, available

FAST = Pacing(write_pause_seconds=0, writes_per_hour=0)
KEY = "<!-- postdoc:acme/lab#1/sticky -->"
PERMISSIONS = {"contents": "write", "issues": "write", "pull_requests": "write", "checks": "write"}


class Scene:
    def __init__(self, forge: Forge, repository: Repository, app: GitHubApp) -> None:
        self.forge, self.repository, self.app = forge, repository, app
        self.ada = forge.user("ada")


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    forge = Forge(tmp_path)
    forge.add_user("ada")
    forge.add_repository("acme", "lab", {"README.md": "# Lab\n", "data/a.jsonl": "{}\n"})
    forge.add_collaborator("acme/lab", "ada", "write")
    registration = forge.register_app(slug="postdoc", permissions=PERMISSIONS, private_key_pem=new_key_pair()[0])
    installation = forge.install_app(registration.app_id, "acme/lab")
    recorder = Recorder()
    try:
        with serve(forge, wrap=recorder.wrap if available() else None) as url:
            app = GitHubApp(
                app_id=str(registration.app_id), private_key=registration.private_key_pem, base_url=f"{url}/api/v3",
                pacing=FAST,
            )  # fmt: skip
            async with app:
                yield Scene(forge, app.repository(installation, "acme", "lab"), app)
    finally:
        forge.close()
    if available():
        assert recorder.violations() == []


@pytest.fixture
def scene_for_loops(tmp_path: Path) -> Iterator[tuple[GitHubApp, int]]:
    forge = Forge(tmp_path)
    forge.add_repository("acme", "lab", {"README.md": "# Lab\n"})
    registration = forge.register_app(slug="postdoc", permissions=PERMISSIONS, private_key_pem=new_key_pair()[0])
    installation = forge.install_app(registration.app_id, "acme/lab")
    with serve(forge) as url:
        key = registration.private_key_pem
        yield (
            GitHubApp(app_id=str(registration.app_id), private_key=key, base_url=f"{url}/api/v3", pacing=FAST),
            installation,
        )
    forge.close()


async def branch(scene: Scene, name: str = "work") -> str:
    _, sha = await scene.repository.default_branch()
    return await scene.repository.create_branch(name, sha)


async def pull_request(scene: Scene) -> tuple[int, str]:
    start = await branch(scene)
    files: dict[str, bytes | None] = {"recipe.yaml": b"learning_rate: 2.0e-05\nseed: 0\n"}
    head = await scene.repository.commit("work", expected_head=start, message="Propose", key="k/propose", files=files)
    number = await scene.repository.open_pull_request(branch="work", base="main", title="T", body="B", draft=True)
    return number, head


async def test_app_knows_its_own_login(scene: Scene) -> None:
    assert await scene.app.login() == "postdoc[bot]"


async def test_missing_file_is_none_and_a_folder_is_no_file(scene: Scene) -> None:
    assert await scene.repository.file("README.md", "main") == b"# Lab\n"
    assert await scene.repository.file("nothing.md", "main") is None
    assert await scene.repository.file("data", "main") is None
    assert await scene.repository.folder("data", "main") == ["data/a.jsonl"]
    assert await scene.repository.folder("nothing", "main") == []


async def test_commit_made_twice_is_one_commit(scene: Scene) -> None:
    start = await branch(scene)
    again = {"expected_head": start, "message": "Add\n\nWhy.", "key": "goal/1", "files": {"a.txt": b"1\n"}}
    first = await scene.repository.commit("work", **again)  # type: ignore[arg-type]
    assert await scene.repository.commit("work", **again) == first  # type: ignore[arg-type]
    # Also when what was read as the head is the first attempt's own commit.
    assert await scene.repository.commit("work", **(again | {"expected_head": first})) == first  # type: ignore[arg-type]


async def test_commit_on_a_branch_that_moved_is_stale(scene: Scene) -> None:
    start = await branch(scene)
    await scene.repository.commit("work", expected_head=start, message="One", key="one", files={"a.txt": b"1"})
    with pytest.raises(StaleHead):
        await scene.repository.commit("work", expected_head=start, message="Two", key="two", files={"b.txt": b"2"})


async def test_commit_on_a_branch_that_is_gone_is_refused(scene: Scene) -> None:
    with pytest.raises(Refused):
        await scene.repository.commit("gone", expected_head="0" * 40, message="M", key="k", files={"a": b"1"})


async def test_pull_request_opened_twice_is_one(scene: Scene) -> None:
    number, _ = await pull_request(scene)
    assert (
        await scene.repository.open_pull_request(branch="work", base="main", title="T", body="B", draft=True) == number
    )
    assert (await scene.repository.pull_request(number))["draft"] is True
    await scene.repository.mark_ready(number)
    await scene.repository.mark_ready(number)
    assert (await scene.repository.pull_request(number))["draft"] is False


async def test_comment_is_found_by_its_first_line_and_only_there(scene: Scene) -> None:
    number, _ = await pull_request(scene)
    other = await scene.repository.upsert_comment(
        number, "<!-- postdoc:other -->", f"<!-- postdoc:other -->\nsays {KEY}"
    )
    first = await scene.repository.upsert_comment(number, KEY, f"{KEY}\none")
    assert first != other
    assert await scene.repository.upsert_comment(number, KEY, f"{KEY}\ntwo") == first
    bodies = [comment.body for comment in scene.forge.repository("acme/lab").issues[number].comments]
    assert bodies == [f"<!-- postdoc:other -->\nsays {KEY}", f"{KEY}\ntwo"]


async def test_comment_somebody_deleted_is_written_again(scene: Scene) -> None:
    number, _ = await pull_request(scene)
    first = await scene.repository.upsert_comment(number, KEY, f"{KEY}\none")
    await scene.app.call(scene.repository._installation_id, "DELETE", f"/repos/acme/lab/issues/comments/{first}")
    assert await scene.repository.upsert_comment(number, KEY, f"{KEY}\ntwo", known_id=first) != first


async def test_write_that_was_performed_but_not_answered_is_not_made_twice(scene: Scene) -> None:
    number, _ = await pull_request(scene)
    scene.forge.faults.drop_connection(1, lambda method, path: method == "POST" and "comments" in path, performed=True)
    with pytest.raises(TransientError):
        await scene.repository.upsert_comment(number, KEY, f"{KEY}\none")
    await scene.repository.upsert_comment(number, KEY, f"{KEY}\none")
    assert len(scene.forge.repository("acme/lab").issues[number].comments) == 1


async def test_review_posted_twice_is_one_with_its_comments_on_their_lines(scene: Scene) -> None:
    number, head = await pull_request(scene)
    inline = [InlineComment("recipe.yaml", 1, "too low\n```suggestion\nlearning_rate: 0.003\n```")]
    key = "<!-- postdoc:review -->"
    first = await scene.repository.review(number, sha=head, key_line=key, body=f"{key}\nverdict", comments=inline)
    assert (
        await scene.repository.review(number, sha=head, key_line=key, body=f"{key}\nverdict", comments=inline) == first
    )
    placed = await scene.app.call(scene.repository._installation_id, "GET", f"/repos/acme/lab/pulls/{number}/comments")
    assert [(comment["path"], comment["line"]) for comment in placed.json()] == [("recipe.yaml", 1)]


async def test_inline_comment_that_has_no_place_moves_into_the_review(scene: Scene) -> None:
    number, head = await pull_request(scene)
    inline = [InlineComment("recipe.yaml", 99, "beyond"), InlineComment("recipe.yaml", None, "nowhere")]
    key = "<!-- postdoc:review -->"
    await scene.repository.review(number, sha=head, key_line=key, body=f"{key}\nverdict", comments=inline)
    path = f"/repos/acme/lab/pulls/{number}/reviews"
    [review] = (await scene.app.call(scene.repository._installation_id, "GET", path)).json()
    assert "**recipe.yaml, line 99**\n\nbeyond" in review["body"]
    assert "nowhere" in review["body"]


async def test_check_created_twice_is_one(scene: Scene) -> None:
    _, head = await pull_request(scene)
    output = {"title": "starting", "summary": "s"}
    first = await scene.repository.create_check(name="run", sha=head, external_id="x/01", output=output)
    assert await scene.repository.create_check(name="run", sha=head, external_id="x/01", output=output) == first
    assert await scene.repository.create_check(name="run", sha=head, external_id="x/02", output=output) != first
    await scene.repository.update_check(first, output=output, conclusion="success")
    assert scene.forge.check_run(first).conclusion == "success"


async def test_permission_is_of_the_account_not_of_the_name(scene: Scene) -> None:
    assert await scene.repository.permission("ada", scene.ada.id) == "write"
    assert await scene.repository.permission("ada", scene.ada.id + 1) == "none"
    assert await scene.repository.permission("nobody-here", 1) == "none"


@pytest.mark.parametrize("status", [500, 502, 503])
async def test_server_error_is_transient(scene: Scene, status: int) -> None:
    scene.forge.faults.server_error(
        1, status=status, matches=lambda method, path: "/branches" in path or "/git/" in path
    )
    with pytest.raises(TransientError):
        await scene.repository.branch_head("main")
    assert await scene.repository.branch_head("main")


async def test_secondary_rate_limit_says_how_long_to_wait(scene: Scene) -> None:
    scene.forge.faults.secondary_limit(1, retry_after_seconds=7)
    with pytest.raises(TransientError) as error:
        await scene.repository.branch_head("main")
    assert error.value.retry_after_seconds == 7


async def test_unreachable_server_is_transient() -> None:
    app = GitHubApp(app_id="1", private_key=new_key_pair()[0], base_url="http://127.0.0.1:9/api/v3")
    async with app:
        with pytest.raises(TransientError):
            await app.login()


def test_app_is_used_from_two_event_loops(scene_for_loops: tuple[GitHubApp, int]) -> None:
    """DBOS runs recovered workflows on a loop of its own, beside the server's."""
    app, installation = scene_for_loops
    barrier = threading.Barrier(2)

    async def ask() -> list[str | None]:
        barrier.wait(timeout=10)
        repository = app.repository(installation, "acme", "lab")
        found = [await repository.branch_head("main") for _ in range(20)]
        await app.close()
        return found

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        left, right = pool.map(lambda _: asyncio.run(ask()), range(2))
    assert left == right
    assert None not in left


@pytest.mark.skipif(not graphql_schema.available(), reason="needs npm packages in tests/node")
@pytest.mark.parametrize("document", [COMMIT, READY, MINIMIZE])
def test_graphql_documents_are_valid_on_githubs_own_schema(document: str) -> None:
    assert graphql_schema.problems(document) == []
