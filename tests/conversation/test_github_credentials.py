"""Tokens, clocks, redirects, pages and ETags: what the port sends to whom."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import httpx
import pytest

from bot.conversation.github import GitHubApp, Gone, Refused, server_at
from bot.conversation.github.connections import proxy_for
from bot.conversation.github.etags import ETags
from bot.errors import SettingsError, TransientError
from tests.fakes.clockwork import in_no_time
from tests.fakes.github import FakeGitHub, refuse, reply

READ = ("GET", "/repos/acme/lab")
WRITE = ("POST", "/repos/acme/lab/issues/1/comments")


# Tokens and clocks


@pytest.mark.parametrize("length", [40, 520])
def test_token_of_any_length_is_refreshed_before_its_hour_is_over(length: int) -> None:
    async def work() -> None:
        github = FakeGitHub()
        github.token_length = length
        app = github.app()
        for _ in range(3 * 60):
            await app.call(1, *READ)
            await asyncio.sleep(60)
        used = [asked.headers["authorization"] for asked in github.asked if asked.path == READ[1]]
        assert {len(each) for each in used} == {len("Bearer ") + length}
        assert len(github.tokens) == 4  # after 55 minutes each
        assert github.minted_for == [1] * 4

    in_no_time(work())


@pytest.mark.parametrize("behind", [-7200.0, -90.0, 0.0, 90.0, 7200.0])
def test_clock_that_is_off_is_measured_and_allowed_for(behind: float) -> None:
    """The fake refuses a JWT that is not of its own time, and hands out tokens that end by its own clock."""

    async def work() -> None:
        github = FakeGitHub()
        github.machine_behind = behind
        app = github.app()
        for _ in range(120):
            await app.call(1, *READ)
            await asyncio.sleep(60)
        assert app.skew_seconds == pytest.approx(behind, abs=2)
        assert len(github.tokens) == 3

    in_no_time(work())


def test_clock_that_jumps_is_followed() -> None:
    async def work() -> None:
        github = FakeGitHub()
        app = github.app()
        await app.login()
        github.machine_behind = 86_400.0
        await app.call(1, *READ)
        github.machine_behind = 0.0
        await app.call(2, *READ)
        assert app.skew_seconds == 0

    in_no_time(work())


def test_revoked_token_is_replaced_once_and_the_request_repeated() -> None:
    async def work() -> None:
        github = FakeGitHub()
        app = github.app()
        await app.call(1, *READ)
        github.revoked = set(github.tokens)
        github.say("POST", ".*/comments", refuse(401, "Bad credentials"), reply({"id": 1}, 201))
        await app.call(1, *WRITE, json={"body": "x"})
        assert len(github.tokens) == 2
        assert [a.body for a in github.asked if a.path == WRITE[1]] == [{"body": "x"}] * 2

    in_no_time(work())


def test_token_that_is_refused_again_and_again_ends_in_a_clear_refusal() -> None:
    async def work() -> None:
        github = FakeGitHub()
        app = github.app()
        github.say("GET", "/repos/acme/lab", refuse(401, "Bad credentials"))
        with pytest.raises(Refused, match=r"401.*installation 1's token, not even a new one"):
            await app.call(1, *READ)
        assert len(github.tokens) == 2
        assert github.paths() == ["GET /repos/acme/lab"] * 2

    in_no_time(work())


def test_wrong_key_is_refused_clearly_and_not_tried_again() -> None:
    async def work() -> None:
        github = FakeGitHub()
        app = github.app()
        github.say("GET", "/app", refuse(401, "A JSON web token could not be decoded"))
        with pytest.raises(Refused, match="App's id and private key together"):
            await app.login()
        assert github.paths() == ["GET /app"]

    in_no_time(work())


@pytest.mark.parametrize("pem", ["", "nonsense", "-----BEGIN RSA PRIVATE KEY-----\nx\n-----END RSA PRIVATE KEY-----"])
def test_key_that_is_none_is_a_setting_to_mend(pem: str) -> None:
    with pytest.raises(SettingsError, match="private key"):
        GitHubApp(app_id="1", private_key=pem)


def test_many_requests_at_once_ask_for_few_tokens() -> None:
    async def work() -> None:
        github = FakeGitHub()
        github.answer_seconds = 0.2
        app = github.app()
        await asyncio.gather(*(app.call(1, *READ) for _ in range(30)))
        assert len(github.tokens) == 1

    in_no_time(work())


def test_token_is_in_no_log_message_or_representation(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def work() -> list[str]:
        github = FakeGitHub()
        github.token_length = 520
        app = github.app()
        await app.call(1, *READ)
        github.say("GET", "/repos/acme/lab", refuse(500), refuse(403), refuse(429), refuse(401, "Bad credentials"))
        said = [repr(app._credentials._tokens), repr(vars(app._credentials)["_tokens"])]
        for _ in range(4):
            with pytest.raises((TransientError, Refused)) as error:
                await app.call(1, *READ)
            said += [str(error.value), repr(error.value)]
            await asyncio.sleep(4000)
        return [*said, caplog.text, *github.tokens]

    *said, text, first, _, _ = in_no_time(work())
    assert first not in text + "".join(said)
    assert "PRIVATE KEY" not in text


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (refuse(404, "Not Found"), r"not installed any more \(installation 5\)"),
        (refuse(403, "This installation has been suspended"), "suspended"),
    ],
)
def test_installation_that_is_gone_or_suspended(answer: Any, says: str) -> None:
    async def work() -> None:
        github = FakeGitHub()
        github.say("POST", "/app/installations/5/access_tokens", answer)
        app = github.app()
        with pytest.raises(Gone, match=says):
            await app.repository(5, "acme", "lab").branch_head("main")
        await app.call(6, *READ)

    in_no_time(work())


def test_suspension_is_noticed_under_a_token_that_still_lasts() -> None:
    async def work() -> None:
        github = FakeGitHub()
        app = github.app()
        await app.call(1, *READ)
        github.say("GET", "/repos/acme/lab.*", refuse(403, "This installation has been suspended"))
        with pytest.raises(Gone):
            await app.repository(1, "acme", "lab").file("a.txt", "main")

    in_no_time(work())


# Repositories that are gone, renamed or elsewhere


def test_repository_that_is_gone_is_told_from_a_thing_in_it_that_is_missing() -> None:
    async def work() -> None:
        github = FakeGitHub()
        repository = github.app().repository(1, "acme", "lab")
        github.say("GET", "/repos/acme/lab/.*", refuse(404, "Not Found"))
        assert await repository.branch_head("main") is None
        assert await repository.file("a.txt", "main") is None
        with pytest.raises(Refused, match="404") as error:
            await repository.issue(5)
        assert not isinstance(error.value, Gone)
        github.say("GET", "/repos/acme/lab", refuse(404, "Not Found"))
        github.say("PATCH", ".*", refuse(404, "Not Found"))
        for ask in (
            lambda: repository.branch_head("main"),
            lambda: repository.file("a.txt", "main"),
            lambda: repository.issue(5),
            lambda: repository.comments(5),
            lambda: repository.permission("ada", 1),
            lambda: repository.default_branch(),
            lambda: repository.upsert_comment(5, "k", "k", known_id=8),
        ):
            with pytest.raises(Gone, match="acme/lab is out of reach"):
                await ask()

    in_no_time(work())


@pytest.mark.parametrize("words", ["Repository was archived so is read-only.", "Repository access blocked"])
def test_repository_that_takes_no_writes_any_more_is_gone(words: str) -> None:
    async def work() -> None:
        github = FakeGitHub()
        github.say("POST", ".*/comments", refuse(403, words))
        with pytest.raises(Gone):
            await github.app().call(1, *WRITE, json={})

    in_no_time(work())


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_renamed_repository_is_followed_with_writes_repeated_verbatim(status: int) -> None:
    async def work() -> None:
        github = FakeGitHub()
        app = github.app()
        moved = reply({}, status, location="https://api.github.com/repositories/9/issues/1/comments")
        github.say("POST", "/repos/acme/lab/.*", moved)
        github.say("POST", "/repositories/9/.*", reply({"id": 4}, 201))
        assert (await app.call(1, *WRITE, json={"body": "x"})).json() == {"id": 4}
        last = github.asked[-1]
        assert (last.method, last.path, last.body) == ("POST", "/repositories/9/issues/1/comments", {"body": "x"})
        assert last.headers["authorization"] == f"Bearer {github.tokens[0]}"
        github.say("GET", "/repos/acme/lab", reply({}, status, location="/repositories/9"))
        github.say("GET", "/repositories/9", reply({"default_branch": "main"}))
        assert (await app.repository(1, "acme", "lab").describe())["default_branch"] == "main"

    in_no_time(work())


@pytest.mark.parametrize(
    "elsewhere",
    ["https://evil.example/x", "http://api.github.com/x", "https://api.github.com:444/x", "//evil.example/x"],
)
def test_no_token_leaves_the_server(elsewhere: str) -> None:
    async def work() -> None:
        github = FakeGitHub()
        app = github.app()
        github.say("GET", "/repos/acme/lab", reply({}, 301, location=elsewhere))
        with pytest.raises(Refused, match="another server"):
            await app.call(1, *READ)
        github.say("GET", "/repos/acme/lab/issues/1/comments", reply([], link=f'<{elsewhere}>; rel="next"'))
        with pytest.raises(Refused, match="another server"):
            await app.repository(1, "acme", "lab").comments(1)
        github.say("GET", "/app/hook/deliveries", reply([], link=f'<{elsewhere}?cursor=v1_2>; rel="next"'))
        with pytest.raises(Refused, match="another server"):
            await app.deliveries()
        assert "/x" not in {asked.path for asked in github.asked}

    in_no_time(work())


def test_redirects_in_a_circle_end() -> None:
    async def work() -> None:
        github = FakeGitHub()
        github.say("GET", "/repos/acme/lab", reply({}, 302, location="/repos/acme/lab"))
        with pytest.raises(Refused, match="circle"):
            await github.app().call(1, *READ)
        assert len(github.paths()) == 4

    in_no_time(work())


def test_pages_follow_the_link_and_odd_answers_are_transient() -> None:
    async def work() -> None:
        github = FakeGitHub()
        app = github.app()
        repository = app.repository(1, "acme", "lab")
        link = '<https://api.github.com/repositories/9/comments?page=2>; rel="next", <https://x.test/>; rel="last"'
        github.say("GET", "/repos/acme/lab/issues/1/comments", reply([{"id": 1}], link=link))
        github.say("GET", "/repositories/9/comments", reply([{"id": 2}]))
        assert [row["id"] for row in await repository.comments(1)] == [1, 2]
        github.say("GET", "/repositories/9/comments", reply({"message": "odd"}))
        with pytest.raises(TransientError):
            await repository.comments(1)
        github.say("GET", "/repos/acme/lab/issues/1", lambda _: httpx.Response(200, text="<html>a proxy's page"))
        with pytest.raises(TransientError, match="could not be read"):
            await repository.issue(1)

    in_no_time(work())


def test_names_from_outside_stay_names() -> None:
    async def work() -> None:
        github = FakeGitHub()
        repository = github.app().repository(1, "acme", "lab")
        github.say("GET", "/repos/.*", reply({"object": {"sha": "a"}}))
        await repository.branch_head("fix#1?x=%2e")
        assert github.asked[-1].path == "/repos/acme/lab/git/ref/heads/fix#1?x=%2e"
        before = len(github.asked)
        for path in ("../../other/repo/contents/x", "a/../../b", "."):
            with pytest.raises(Refused, match="no such path"):
                await repository.folder(path, "main")
        assert len(github.asked) == before

    in_no_time(work())


# ETags


def tagged(github: FakeGitHub, path: str, body: Any) -> None:
    """Answers `body` with an ETag for each token, and 304 to who has it."""

    def say(request: httpx.Request) -> httpx.Response:
        tag = f'W/"{hash((str(body), request.headers["authorization"]))}"'
        if request.headers.get("if-none-match") == tag:
            return httpx.Response(304, headers={"etag": tag})
        return httpx.Response(200, json=body, headers={"etag": tag})

    github.say("GET", path, say)


def test_what_is_polled_is_asked_for_conditionally() -> None:
    async def work() -> None:
        github = FakeGitHub()
        app = github.app()
        repository = app.repository(1, "acme", "lab")
        tagged(github, "/repos/acme/lab/git/ref/heads/main", {"object": {"sha": "one"}})
        tagged(github, "/repos/acme/lab/issues/1", {"title": "T"})
        tagged(github, "/repos/acme/lab/contents/a.txt", {"raw": 1})
        for _ in range(3):
            assert await repository.branch_head("main") == "one"
            assert await repository.issue(1) == {"title": "T"}
            assert await repository.file("a.txt", "main") == b'{"raw":1}'
        assert (app.counts["304"], app.counts["2xx"]) == (6, 4)  # one of them for the token
        tagged(github, "/repos/acme/lab/git/ref/heads/main", {"object": {"sha": "two"}})
        assert await repository.branch_head("main") == "two"

    in_no_time(work())


def test_another_credential_starts_without_etags() -> None:
    async def work() -> None:
        github = FakeGitHub()
        app = github.app()
        tagged(github, "/repos/acme/lab/issues/1", {"title": "T"})
        for installation in (1, 2):
            await app.repository(installation, "acme", "lab").issue(1)
        await asyncio.sleep(3500)
        await app.repository(1, "acme", "lab").issue(1)
        assert [a.headers.get("if-none-match") for a in github.asked if "issues" in a.path] == [None] * 3
        # A token that is refused takes its ETag with it.
        await app.repository(1, "acme", "lab").issue(1)
        github.say("GET", "/repos/acme/lab/issues/1", refuse(401, "Bad credentials"), reply({"title": "new"}))
        assert await app.repository(1, "acme", "lab").issue(1) == {"title": "new"}
        assert [a.headers.get("if-none-match") is None for a in github.asked if "issues" in a.path][-2:] == [
            False,
            True,
        ]

    in_no_time(work())


def test_permission_is_never_remembered() -> None:
    async def work() -> None:
        github = FakeGitHub()
        repository = github.app().repository(1, "acme", "lab")
        path = "/repos/acme/lab/collaborators/ada/permission"
        for role in ("admin", "none"):
            tagged(github, path, {"permission": role, "role_name": role, "user": {"id": 3}})
            assert await repository.permission("ada", 3) == role
        assert not any("if-none-match" in asked.headers for asked in github.asked)
        tagged(github, path, {"permission": "write", "role_name": "model-trainer", "user": {"id": 3}})
        assert await repository.permission("ada", 3) == "write"

    in_no_time(work())


def test_etags_are_kept_within_bounds() -> None:
    kept = ETags()

    def asked(n: int) -> httpx.Request:
        return httpx.Request("GET", f"https://api.github.com/{n}", headers={"authorization": "t"})

    for n in range(1200):
        kept.keep(asked(n), httpx.Response(200, headers={"etag": "x"}, content=b"y" * 20_000))
    assert kept._bytes <= 16 * 2**20
    assert kept.ask(asked(0)) is None
    assert kept.ask(asked(1199)) is not None
    kept.keep(asked(1), httpx.Response(200, headers={"etag": "x"}, content=b"y" * 2**21))
    kept.keep(asked(2), httpx.Response(200, headers={"etag": "x", "cache-control": "no-store"}))
    assert kept.ask(asked(1)) is None
    assert kept.ask(asked(2)) is None


# Where GitHub is


@pytest.mark.parametrize(
    ("written", "rest", "graphql", "html"),
    [
        ("https://api.github.com", "https://api.github.com", "https://api.github.com/graphql", "https://github.com"),
        ("https://github.com/", "https://api.github.com", "https://api.github.com/graphql", "https://github.com"),
        ("https://git.acme.org", "https://git.acme.org/api/v3", "https://git.acme.org/api/graphql", "https://git.acme.org"),
        ("https://git.acme.org:8443/api/v3/", "https://git.acme.org:8443/api/v3",
         "https://git.acme.org:8443/api/graphql", "https://git.acme.org:8443"),
        ("https://acme.ghe.com", "https://api.acme.ghe.com", "https://api.acme.ghe.com/graphql", "https://acme.ghe.com"),
        ("https://api.acme.ghe.com/", "https://api.acme.ghe.com", "https://api.acme.ghe.com/graphql",
         "https://acme.ghe.com"),
        ("http://127.0.0.1:99/api/v3", "http://127.0.0.1:99/api/v3", "http://127.0.0.1:99/api/graphql",
         "http://127.0.0.1:99"),
        ("http://[::1]:99", "http://[::1]:99/api/v3", "http://[::1]:99/api/graphql", "http://[::1]:99"),
    ],
)  # fmt: skip
def test_server_is_found_from_what_people_write(written: str, rest: str, graphql: str, html: str) -> None:
    found = server_at(written)
    assert (found.rest, found.graphql, found.html) == (rest, graphql, html)


@pytest.mark.parametrize(
    "written",
    ["", "git.acme.org", "ftp://git.acme.org", "http://git.acme.org", "https://user:pw@git.acme.org",
     "https://git.acme.org/acme/lab", "https://git.acme.org/?x=1", "https://", "https://a b"],
)  # fmt: skip
def test_address_that_cannot_be_one_is_a_setting_to_mend(written: str) -> None:
    with pytest.raises(SettingsError) as error:
        server_at(written)
    assert "POSTDOC_GITHUB_URL" in str(error.value)
    assert "pw" not in str(error.value)


def test_requests_of_an_enterprise_server_go_where_it_has_its_doors() -> None:
    async def work() -> None:
        github = FakeGitHub()
        github.say("GET", "/api/v3/app", reply({"slug": "postdoc"}))
        github.say("POST", "/api/v3/app/installations/1/access_tokens", reply({"token": "t"}, 201))
        github.say("POST", "/api/graphql", reply({"data": {"a": 1}}))
        app = github.app(base_url="https://git.acme.org")
        assert await app.login() == "postdoc[bot]"
        assert await app.graphql(1, "{ a }", {}) == {"a": 1}
        assert app.repository(1, "acme", "lab").page == "https://git.acme.org/acme/lab"

    in_no_time(work())


def test_proxy_is_the_environments_but_never_for_this_machine() -> None:
    named = {"https_proxy": "proxy.acme.org:3128", "no_proxy": "git.acme.org,.internal"}
    assert proxy_for("https://api.github.com", named) == "http://proxy.acme.org:3128"
    assert proxy_for("https://git.acme.org/api/v3", named) is None
    assert proxy_for("https://git.internal/api/v3", named) is None
    assert proxy_for("http://127.0.0.1:80/api/v3", named) is None
    assert proxy_for("https://api.github.com", {}) is None
