"""Who may look at the pages, `/api` and `/metrics`: the token, the session in a cookie, and this machine alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from bot.server.access import MOST_TRIES, SESSION_COOKIE, SESSION_SECONDS, Access, Denied
from bot.server.app import Bot, create_app
from tests.server.pages_world import Story, make_bot

TOKEN = "a-token-for-tests-ünïcode"
PAGES = ("/", "/queue", "/spend", "/goals/acme/speller/1")
GUARDED = (*PAGES, "/api/goals", "/api/goals/acme/speller/1/events", "/metrics")


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def browser(bot: Bot, host: str = "127.0.0.1:8787", **options: object) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=create_app(bot))
    return httpx.AsyncClient(transport=transport, base_url=f"http://{host}", **options)  # type: ignore[arg-type]


@pytest.fixture
def guarded(tmp_path: Path) -> Bot:
    bot = make_bot(tmp_path, host="0.0.0.0", api_token=TOKEN)
    Story(bot, 1, title="A private matter")
    return bot


@pytest.fixture
async def client(guarded: Bot) -> AsyncIterator[httpx.AsyncClient]:
    async with browser(guarded, "postdoc.acme.com") as found:
        yield found


async def test_this_machine_needs_no_token(tmp_path: Path) -> None:
    bot = make_bot(tmp_path)
    Story(bot, 1)
    for host in ("127.0.0.1:8787", "localhost:8787", "[::1]:8787", "127.0.0.2"):
        async with browser(bot, host) as client:
            for path in GUARDED:
                assert (await client.get(path)).status_code == 200, (host, path)
            assert (await client.get("/sign-in")).headers["location"] == "/"


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "0.0.0.0", "10.0.0.1"]
)
async def test_name_that_somebody_points_at_this_machine_is_refused(tmp_path: Path, host: str) -> None:
    bot = make_bot(tmp_path)
    Story(bot, 1, title="A private matter")
    async with browser(bot, host) as client:
        for path in GUARDED:
            reply = await client.get(path)
            assert reply.status_code == 421, path
            assert "private matter" not in reply.text
        assert (await client.get("/healthz")).status_code == 200


@pytest.mark.parametrize("host", ["", "[", "@", "127.0.0.1:x", "evil.example@127.0.0.1@"])
def test_broken_host_header_is_refused(tmp_path: Path, host: str) -> None:
    access = Access(make_bot(tmp_path).settings)
    if host in ("127.0.0.1:x",):
        access.require({"host": host})
    else:
        with pytest.raises(Denied):
            access.require({"host": host})


async def test_what_a_proxy_hands_on_needs_the_token(tmp_path: Path) -> None:
    bot = make_bot(tmp_path)
    for name in ("X-Forwarded-For", "Forwarded", "X-Forwarded-Host", "X-Real-IP"):
        async with browser(bot, headers={name: "203.0.113.7"}) as client:
            for path in ("/", "/api/goals", "/metrics"):
                assert (await client.get(path)).status_code == 403


async def test_public_address_without_a_token_shows_nothing(tmp_path: Path) -> None:
    bot = make_bot(tmp_path, host="0.0.0.0")
    Story(bot, 1, title="A private matter")
    async with browser(bot) as client:
        for path in GUARDED:
            reply = await client.get(path)
            assert reply.status_code == 403
            assert "POSTDOC_API_TOKEN" in reply.text and "private matter" not in reply.text


async def test_page_leads_to_the_sign_in_and_back(client: httpx.AsyncClient) -> None:
    for path in PAGES:
        reply = await client.get(path)
        assert reply.status_code == 303
        assert reply.headers["location"] == f"/sign-in?next={path}"
    for path in ("/api/goals", "/metrics"):
        assert (await client.get(path)).status_code == 401
    form = await client.get("/sign-in?next=/queue")
    assert 'action="/sign-in?next=/queue"' in form.text and "private matter" not in form.text
    reply = await client.post("/sign-in?next=/queue", data={"token": TOKEN}, headers={"Origin": "null"})
    assert (reply.status_code, reply.headers["location"]) == (303, "/queue")
    for path in PAGES:
        assert (await client.get(path)).status_code == 200
    # The cookie is for pages alone: no other site's request can carry it to the API, and no script needs it there.
    assert (await client.get("/api/goals")).status_code == 401
    out = await client.post("/sign-out", headers={"Sec-Fetch-Site": "same-origin"}, data={"x": "y"})
    assert out.status_code == 303
    assert (await client.get("/")).status_code == 303


async def test_cookie_holds_no_token_and_no_script_reads_it(client: httpx.AsyncClient) -> None:
    reply = await client.post("/sign-in", data={"token": f" {TOKEN}\n"})
    cookie = reply.headers["set-cookie"]
    assert cookie.startswith(f"{SESSION_COOKIE}=")
    assert TOKEN not in cookie and TOKEN.encode().hex() not in cookie
    for part in ("HttpOnly", "SameSite=strict", "Path=/", f"Max-Age={int(SESSION_SECONDS)}"):
        assert part in cookie
    assert "Secure" not in cookie
    assert TOKEN not in str(reply.headers.get("location")) + reply.text


async def test_cookie_is_secure_behind_https(guarded: Bot) -> None:
    transport = httpx.ASGITransport(app=create_app(guarded))
    async with httpx.AsyncClient(transport=transport, base_url="https://postdoc.acme.com") as client:
        assert "Secure" in (await client.post("/sign-in", data={"token": TOKEN})).headers["set-cookie"]


async def test_bearer_token_opens_everything(tmp_path: Path) -> None:
    bot = make_bot(tmp_path, host="0.0.0.0", api_token="plain-token")
    Story(bot, 1)
    async with browser(bot, headers={"Authorization": "Bearer plain-token"}) as client:
        for path in GUARDED:
            assert (await client.get(path)).status_code == 200
    for wrong in ("Bearer wrong", "Bearer plain-token2", "bearer", "plain-token", "Basic plain-token", ""):
        async with browser(bot, headers={"Authorization": wrong}) as client:
            assert (await client.get("/metrics")).status_code == 401
            assert (await client.get("/")).status_code == 303


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Content-Type": "text/plain"}, 415),
    ],
)
async def test_form_of_another_site_is_refused(client: httpx.AsyncClient, headers: dict[str, str], status: int) -> None:
    for path in ("/sign-in", "/sign-out"):
        reply = await client.post(path, content=f"token={TOKEN}", headers={
            "Content-Type": "application/x-www-form-urlencoded"} | headers)  # fmt: skip
        assert reply.status_code == status
        assert "set-cookie" not in reply.headers


async def test_odd_forms_are_refused_with_a_sentence(client: httpx.AsyncClient) -> None:
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    for body in (b"", b"token=", b"token=%ff%fe", b"\xff\x00", b"a=1&" * 100, b"token=" + b"x" * 100_000):
        reply = await client.post("/sign-in", content=body, headers=kind)
        assert reply.status_code in (400, 401, 413), body[:20]
        assert 'role="alert"' in reply.text


@pytest.mark.parametrize(
    "onwards", ["//evil.example", "https://evil.example", "/\\evil.example", "/ x", "javascript:1", ""]
)
async def test_sign_in_leads_nowhere_else(client: httpx.AsyncClient, onwards: str) -> None:
    reply = await client.post("/sign-in", params={"next": onwards}, data={"token": TOKEN})
    assert reply.headers["location"] == "/"


async def test_guessing_is_slowed_down(client: httpx.AsyncClient) -> None:
    for _ in range(MOST_TRIES):
        assert (await client.post("/sign-in", data={"token": "guess"})).status_code == 401
    assert (await client.post("/sign-in", data={"token": TOKEN})).status_code == 429


def test_session_expires_and_cannot_be_made_up(guarded: Bot) -> None:
    clock = Clock()
    access = Access(guarded.settings, clock=clock)
    session = access.sign_in(TOKEN, "203.0.113.7")
    until, nonce, digest = session.split(".")
    assert access.is_session(session)
    later = str(int(until) + 1)
    for forged in (
        "",
        "..",
        f"{later}.{nonce}.{digest}",
        f"{until}.x.{digest}",
        session + "0",
        f"{until}.{nonce}.",
        "é.é.é",
    ):
        assert not access.is_session(forged)
    # Another process of the same server knows it; one with another token or secret does not.
    assert Access(guarded.settings, clock=clock).is_session(session)
    for changes in ({"api_token": "another-token"}, {"webhook_secret": "another-webhook-secret"}):
        other = make_bot(guarded.settings.data_folder.parent, **({"api_token": TOKEN} | changes))
        assert not Access(other.settings, clock=clock).is_session(session)
    clock.now += SESSION_SECONDS
    assert not access.is_session(session)


def test_addresses_that_guess_are_remembered_within_bounds(guarded: Bot) -> None:
    clock = Clock()
    access = Access(guarded.settings, clock=clock)
    for n in range(3_000):
        with pytest.raises(Denied):
            access.sign_in("guess", f"2001:db8::{n:x}")
    assert len(access._tries) <= 1_000
    for _ in range(MOST_TRIES):
        with pytest.raises(Denied):
            access.sign_in("guess", "203.0.113.7")
    with pytest.raises(Denied, match="many times"):
        access.sign_in(TOKEN, "203.0.113.7")
    clock.now += 61
    assert access.is_session(access.sign_in(TOKEN, "203.0.113.7"))
