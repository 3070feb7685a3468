"""The GitHub port against the practice forge: every write made twice changes nothing, every refusal has its class."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bot.conversation.github import GitHubApp, Gone, InlineComment, Pacing, Refused, Repository, StaleHead
from bot.conversation.github.repository import COMMIT, MINIMIZE, READY
from bot.errors import TransientError
from bot.practice.auth import new_key_pair
from bot.practice.forge import Forge
from bot.practice.server import create_app, serve
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


async def test_check_is_created_completed_in_one_write(scene: Scene) -> None:
    _, head = await pull_request(scene)
    check: dict[str, Any] = {
        "name": "verdict",
        "sha": head,
        "external_id": "x/end",
        "output": {"title": "done", "summary": "s"},
    }
    button = {"label": "Accept the suggested fix now", "description": "d" * 60, "identifier": "accept"}
    before = scene.app.writes
    first = await scene.repository.create_check(**check, conclusion="success", actions=[button])
    assert await scene.repository.create_check(**check, conclusion="success", actions=[button]) == first
    assert scene.app.writes == before + 1
    made = scene.forge.check_run(first)
    assert (made.status, made.conclusion) == ("completed", "success")
    assert [(len(each["label"]), len(each["description"])) for each in made.actions] == [(20, 40)]


async def test_check_that_was_left_in_progress_is_completed_by_the_replay(scene: Scene) -> None:
    _, head = await pull_request(scene)
    check: dict[str, Any] = {
        "name": "run",
        "sha": head,
        "external_id": "x/01",
        "output": {"title": "t", "summary": "s"},
    }
    first = await scene.repository.create_check(**check)
    other = await scene.repository.create_check(**(check | {"external_id": "x/02"}))
    assert await scene.repository.create_check(**check, conclusion="neutral") == first != other
    assert scene.forge.check_run(first).conclusion == "neutral"


async def test_annotations_are_sent_by_fifty_and_never_doubled(scene: Scene) -> None:
    _, head = await pull_request(scene)
    place: dict[str, Any] = {"path": "recipe.yaml", "start_line": 1, "end_line": 1, "annotation_level": "notice"}
    notes = [place | {"message": f"m{n}", "title": "t" * 300} for n in range(120)]
    check: dict[str, Any] = {
        "name": "policy",
        "sha": head,
        "external_id": "p",
        "output": {"title": "t", "summary": "s"},
    }
    # The connection drops after the second portion was taken.
    scene.forge.faults.drop_connection(1, lambda method, path: method == "PATCH", performed=True)
    with pytest.raises(TransientError):
        await scene.repository.create_check(**check, conclusion="failure", annotations=notes)
    first = await scene.repository.create_check(**check, conclusion="failure", annotations=notes)
    assert [each.message for each in scene.forge.check_run(first).annotations] == [f"m{n}" for n in range(120)]
    assert scene.forge.check_run(first).conclusion == "failure"


async def test_text_that_is_too_long_is_cut_with_a_note(scene: Scene) -> None:
    number, head = await pull_request(scene)
    await scene.repository.upsert_comment(number, KEY, f"{KEY}\n```\n" + "x\n" * 60_000)
    [body] = [comment.body for comment in scene.forge.repository("acme/lab").issues[number].comments]
    assert len(body) <= 65_536
    assert body.startswith(KEY)
    assert body.endswith("x\n```\n\n*Cut here: GitHub takes 65,536 characters.*")
    output = {"title": "t " * 300, "summary": "s" * 70_000, "text": "é" * 70_000}
    note = {"path": "a", "start_line": 1, "end_line": 1, "annotation_level": "notice", "message": "é" * 40_000}
    check = await scene.repository.create_check(
        name="run", sha=head, external_id="x", output=output, annotations=[note]
    )
    made = scene.forge.check_run(check)
    assert len(made.title or "") <= 255
    assert len(made.summary or "") <= 65_535
    assert len(made.annotations[0].message.encode()) <= 65_536


async def test_button_that_cannot_be_shown_is_a_mistake_of_ours(scene: Scene) -> None:
    button = {"label": "l", "description": "d", "identifier": "i"}
    for wrong in ([button] * 4, [button | {"identifier": "i" * 21}]):
        with pytest.raises(ValueError, match="at most"):
            await scene.repository.update_check(1, output={"title": "t", "summary": "s"}, actions=wrong)


async def test_installations_and_their_repositories(scene: Scene) -> None:
    [installation] = await scene.app.installations()
    assert (installation.account, installation.suspended, installation.all_repositories) == ("acme", False, False)
    assert installation.permissions["checks"] == "write"
    names = [row["full_name"] for row in await scene.app.installation_repositories(installation.id)]
    assert names == ["acme/lab"]
    assert (await scene.app.rate_limit(installation.id))["core"]["limit"] == 5000


async def test_suspended_and_uninstalled_app_is_gone(scene: Scene) -> None:
    [installation] = await scene.app.installations()
    await scene.repository.branch_head("main")
    scene.forge.suspend_app(installation.id)
    assert [each.suspended for each in await scene.app.installations()] == [True]
    with pytest.raises(Gone, match="suspended"):
        await scene.repository.branch_head("main")
    scene.forge.suspend_app(installation.id, suspended=False)
    assert await scene.repository.branch_head("main")
    scene.forge.uninstall_app(installation.id)
    assert await scene.app.installations() == []
    with pytest.raises(Gone, match="not installed any more"):
        await scene.repository.branch_head("main")


async def test_issues_comments_and_pull_requests_are_listed(scene: Scene) -> None:
    number, _ = await pull_request(scene)
    path = "/repos/acme/lab/issues"
    for n in range(3):
        payload = {"title": f"Issue {n}", "labels": ["postdoc"] if n else []}
        await scene.app.call(scene.repository._installation_id, "POST", path, json=payload)
    found = await scene.repository.issues(labels=["postdoc"])
    assert [row["title"] for row in found] == ["Issue 2", "Issue 1"]
    issue = found[0]["number"]
    assert len(await scene.repository.issues(state="all")) == 3
    await scene.repository.close_issue(issue, completed=True)
    assert [row["number"] for row in await scene.repository.issues(state="closed")] == [issue]
    for n in range(101):
        await scene.app.call(
            scene.repository._installation_id, "POST", f"{path}/{issue}/comments", json={"body": f"{n}"}
        )
    comments = await scene.repository.comments(issue)
    assert len({comment["id"] for comment in comments}) == 101
    assert {(c["user"]["type"], c["user"]["login"]) for c in comments} == {("Bot", "postdoc[bot]")}
    assert await scene.repository.comments(issue, since="2100-01-01T00:00:00Z") == []
    assert [row["number"] for row in await scene.repository.pull_requests(state="all")] == [number]
    await scene.repository.minimize(comments[0]["node_id"])
    stored = scene.forge.repository("acme/lab").issues[issue].comments[0]
    assert stored.minimized_reason == "outdated"


async def test_commit_is_seen_with_its_author_and_signature(scene: Scene) -> None:
    _, head = await pull_request(scene)
    seen = await scene.repository.commit_at(head)
    assert seen is not None
    assert (seen.login, seen.verified, len(seen.parents)) == ("postdoc[bot]", True, 1)
    assert "Postdoc-Key: k/propose" in seen.message
    first = await scene.repository.commit_at(seen.parents[0])
    assert first is not None
    assert (first.login, first.parents) == ("ada", ())
    assert await scene.repository.commit_at("0" * 40) is None


async def test_deliveries_are_read_page_by_page_and_again(scene: Scene) -> None:
    app_id = next(iter(scene.forge.apps))
    assert await scene.app.deliveries() == ([], None)
    scene.forge.set_webhook(app_id, "http://127.0.0.1:9/webhook", "a-secret")
    assert (await scene.app.hook_config())["url"] == "http://127.0.0.1:9/webhook"
    for _ in range(120):
        scene.forge.ping_app(app_id)
    assert scene.forge.settle()
    rows, cursor = await scene.app.deliveries()
    assert len(rows) == 100
    assert cursor is not None
    more, end = await scene.app.deliveries(cursor=cursor)
    assert len({row["id"] for row in rows + more}) == 120
    assert end is None
    whole = await scene.app.delivery(rows[0]["id"])
    assert "zen" in whole["request"]["payload"]
    await scene.app.redeliver(rows[0]["id"])
    assert scene.forge.settle()
    newest = (await scene.app.deliveries())[0][0]
    assert (newest["guid"], newest["redelivery"]) == (rows[0]["guid"], True)


async def test_what_is_polled_is_free_of_charge(scene: Scene) -> None:
    number, _ = await pull_request(scene)
    for _ in range(2):
        await scene.repository.branch_head("work")
        await scene.repository.pull_request(number)
        await scene.repository.comments(number)
    used = (await scene.app.rate_limit(scene.repository._installation_id))["core"]["used"]
    before = scene.app.counts["304"]
    for _ in range(5):
        await scene.repository.branch_head("work")
        await scene.repository.pull_request(number)
        await scene.repository.comments(number)
    assert scene.app.counts["304"] == before + 15
    assert (await scene.app.rate_limit(scene.repository._installation_id))["core"]["used"] == used


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


class RootLayout(httpx.AsyncBaseTransport):
    """The forge as api.github.com is laid out: REST at the root, GraphQL beside it."""

    def __init__(self, forge: Forge) -> None:
        self._inner = httpx.ASGITransport(app=create_app(forge))
        self.hosts: set[str] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.hosts.add(request.url.host)
        path = request.url.raw_path.decode()
        request.url = request.url.copy_with(raw_path=f"/api{'' if path == '/graphql' else '/v3'}{path}".encode())
        return await self._inner.handle_async_request(request)


@pytest.mark.parametrize("layout", ["", "/api/v3", "/api/v3/", "https://api.github.com"])
async def test_either_layout_of_a_server_is_understood(tmp_path: Path, layout: str) -> None:
    forge = Forge(tmp_path)
    forge.add_repository("acme", "lab", {"README.md": "# Lab\n"})
    registration = forge.register_app(slug="postdoc", permissions=PERMISSIONS, private_key_pem=new_key_pair()[0])
    installation = forge.install_app(registration.app_id, "acme/lab")
    with serve(forge) as url:
        transport = RootLayout(forge) if layout.startswith("https") else None
        app = GitHubApp(
            app_id=registration.client_id, private_key=registration.private_key_pem, pacing=FAST,
            base_url=layout if transport else url + layout, transport=transport,
        )  # fmt: skip
        async with app:
            repository = app.repository(installation, "acme", "lab")
            name, head = await repository.default_branch()
            await repository.create_branch("work", head)
            made = await repository.commit("work", expected_head=head, message="M", key="k", files={"a": b"1"})
            assert await repository.branch_head("work") == made != head
            assert name == "main"
            assert app.server.html == ("https://github.com" if transport else url)
            assert transport is None or transport.hosts == {"api.github.com"}
    forge.close()


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
