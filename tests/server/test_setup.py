"""Registering the App at /setup: the whole way through the practice forge's pages, and every way it can go wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from bot.cli import run
from bot.config import SetupSettings, keep_app, kept_app, load_settings, load_setup_settings
from bot.conversation.github.registration import EVENTS, PERMISSIONS
from bot.errors import SettingsError
from bot.practice.auth import new_key_pair
from bot.practice.forge import Forge
from bot.practice.server import serve
from bot.practice.world import free_port
from bot.server.setup import SetupDesk, create_setup_app
from bot.server.setup.manifest import app_manifest, new_app_address, web_root
from tests.openapi import Recorder, available
from tests.practice.pages_browser import Browser, Page
from tests.world import ROOT

KEY = new_key_pair()[0]
SECRET = "whsec-0123456789abcdef"
FIELDS = {"name": "speller-postdoc", "organisation": "", "address": "https://postdoc.example.org"}
ANSWER = {
    "id": 4711, "slug": "speller-postdoc", "name": "speller-postdoc", "html_url": "https://github.com/apps/speller-postdoc",
    "client_id": "Iv1.x", "client_secret": "not-kept-anywhere", "webhook_secret": SECRET, "pem": KEY,
}  # fmt: skip


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No settings but a data folder; returns it."""
    for name in [name for name in os.environ if name.startswith("POSTDOC_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("POSTDOC_DATA_FOLDER", str(tmp_path / "data"))
    return tmp_path / "data"


# --- the whole way


@pytest.fixture
def forge(tmp_path: Path) -> Iterator[tuple[Forge, str, Recorder]]:
    forge = Forge(tmp_path / "forge")
    forge.add_user("ada")
    forge.add_organization("acme")
    recorder = Recorder()
    with serve(forge, wrap=recorder.wrap if available() else None) as url:
        yield forge, url, recorder
    forge.close()
    if available():
        assert recorder.violations() == []


def until(condition: Callable[[], object], what: str, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def answers(url: str, status: int) -> bool:
    try:
        return httpx.get(url, timeout=2, trust_env=False).status_code == status
    except httpx.HTTPError:
        return False


def test_server_without_an_app_registers_one_and_goes_on_as_that_app(
    tmp_path: Path, clean: Path, forge: tuple[Forge, str, Recorder]
) -> None:
    practice, github, _ = forge
    port = free_port()
    here = f"http://127.0.0.1:{port}"
    environment = os.environ | {"POSTDOC_GITHUB_URL": f"{github}/api/v3", "POSTDOC_PORT": str(port)}
    log = tmp_path / "log.txt"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "bot", "serve", "--setup"], cwd=ROOT, env=environment, stdout=file, stderr=file
        )
    try:
        until(lambda: answers(f"{here}/healthz", 200), "setup serves")
        assert answers(f"{here}/readyz", 503)
        assert answers(f"{here}/webhook", 404)
        ours, theirs, stranger = Browser(here), Browser(github).sign_in("ada"), Browser(here)
        page = ours.get("/")
        assert "Register the GitHub App" in page.text
        confirm = ours.send(page, page.form("/setup"), name="Speller Postdoc", organisation="acme", address=here)
        [form] = confirm.forms
        assert form.action.startswith(f"{github}/organizations/acme/settings/apps/new?state=")
        manifest = json.loads(dict(form.fields)["manifest"])
        assert manifest["public"] is False
        assert manifest["default_permissions"] == PERMISSIONS
        assert set(manifest["default_events"]) == set(EVENTS)
        assert manifest["hook_attributes"] == {"url": f"{here}/webhook", "active": True}

        reply = theirs.client.post(form.action, data={"manifest": dict(form.fields)["manifest"]})
        proposal = Page(str(reply.url), reply.status_code, reply.text, reply.headers)
        assert "Only its owner can install it." in proposal.text
        create = proposal.form("/-/apps/new")
        back = theirs.client.post("/-/apps/new", data=dict(create.fields), headers={"Origin": github})
        assert back.status_code == 303
        callback = back.headers["location"]
        assert callback.startswith(f"{here}/setup/callback?code=")

        # Another browser cannot finish what this one began, and neither can this one with another state.
        assert stranger.get(callback).status == 403
        assert ours.get(callback.replace("state=", "state=x")).status == 403
        done = ours.get(callback)
        assert done.url == f"{here}/setup/done"
        [app] = [app for app in practice.apps.values() if app.slug == "speller-postdoc"]
        assert f"{github}/apps/speller-postdoc/installations/new" in done.html
        assert (app.public, app.owner.login, app.permissions) == (False, "acme", PERMISSIONS)
        assert app.events == set(EVENTS)

        until(lambda: answers(f"{here}/readyz", 200), "the App is served")
        assert answers(f"{here}/setup", 404)
        practice.ping_app(app.id)
        assert practice.settle()
        assert [d.status_code for d in practice.webhooks.deliveries(app)] == [202]
        for browser in (ours, theirs, stranger):
            browser.close()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=20)
    assert process.returncode == 0
    folder = clean / "app"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = {path.name: path for path in folder.iterdir()}
    assert sorted(files) == ["id", "private-key.pem", "webhook-secret"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files.values()} == {0o600}
    assert app.webhook_secret == files["webhook-secret"].read_text().strip()
    said = log.read_text()
    code = parse_qs(urlsplit(callback).query)["code"][0]
    for secret in (code, app.webhook_secret or "", app.private_key_pem.splitlines()[3]):
        assert secret not in said
        assert secret not in page.html + confirm.html + done.html + done.url
    assert "no GitHub App is set up yet. Open http://127.0.0.1:" in said


# --- what can go wrong, in one process

Client = httpx.AsyncClient


def made_desk(
    folder: Path, answer: Callable[[httpx.Request], httpx.Response] | None = None, **more: object
) -> SetupDesk:
    settings = SetupSettings.model_validate({"data_folder": folder} | more)
    asked: list[str] = []

    def default(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return (
            httpx.Response(201, json=ANSWER) if len(asked) == 1 else httpx.Response(404, json={"message": "Not Found"})
        )

    return SetupDesk(settings, transport=httpx.MockTransport(answer or default))


def client_of(desk: SetupDesk, address: str = "127.0.0.1", host: str = "127.0.0.1:8787") -> Client:
    transport = httpx.ASGITransport(app=create_setup_app(desk), client=(address, 4000))
    return httpx.AsyncClient(transport=transport, base_url=f"http://{host}")


@pytest.fixture
async def desk(tmp_path: Path, clean: Path) -> SetupDesk:
    return made_desk(tmp_path / "data")


@pytest.fixture
async def client(desk: SetupDesk) -> AsyncIterator[Client]:
    async with client_of(desk) as found:
        yield found


async def begun(client: Client, **fields: str) -> str:
    """Fill in the form; returns the state that GitHub is given."""
    reply = await client.post("/setup", data=FIELDS | fields)
    assert reply.status_code == 200, reply.text
    found = re.search(r'action="([^"]+)"', reply.text)
    assert found is not None
    return parse_qs(urlsplit(found[1]).query)["state"][0]


async def test_code_is_exchanged_once_and_the_address_is_cleared(desk: SetupDesk, client: Client, clean: Path) -> None:
    state = await begun(client)
    reply = await client.get("/setup/callback", params={"state": state, "code": "abc"})
    assert (reply.status_code, reply.headers["location"]) == (303, "/setup/done")
    done = await client.get("/setup/done")
    assert "https://github.com/apps/speller-postdoc/installations/new" in done.text
    assert kept_app(clean) == {"app_id": "4711", "private_key": KEY.strip(), "webhook_secret": SECRET}
    assert "not-kept-anywhere" not in "".join(path.read_text() for path in (clean / "app").iterdir())

    replay = await client.get("/setup/callback", params={"state": state, "code": "abc"})
    assert replay.status_code == 403
    assert "finished" in replay.text
    assert (await client.get("/setup")).headers["location"] == "/setup/done"
    assert (await client.post("/setup", data=FIELDS)).status_code == 303


async def test_state_belongs_to_one_browser_for_an_hour(tmp_path: Path, clean: Path) -> None:
    now = [0.0]
    desk = made_desk(tmp_path / "data")
    desk.clock = lambda: now[0]
    async with client_of(desk) as client, client_of(desk) as other:
        state = await begun(client)
        await begun(other)
        stolen = await other.get("/setup/callback", params={"state": state, "code": "abc"})
        assert (stolen.status_code, "another browser" in stolen.text) == (403, True)
        for wrong in ("", "nonsense", state + "x"):
            reply = await client.get("/setup/callback", params={"state": wrong, "code": "abc"})
            assert (reply.status_code, "not begun here" in reply.text) == (403, True)
        now[0] = 3601.0
        late = await client.get("/setup/callback", params={"state": state, "code": "abc"})
        assert (late.status_code, "more than an hour ago" in late.text) == (403, True)
    assert kept_app(clean) == {}


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (httpx.Response(404, json={"message": "Not Found"}), "works once, and for an hour"),
        (httpx.Response(422, json={"message": "no"}), "GitHub answered 422"),
        (httpx.Response(302, headers={"location": "https://evil.test/"}), "GitHub answered 302"),
        (httpx.Response(201, text="<html>"), "not an App"),
        (httpx.Response(201, json=[1]), "not an App"),
        (httpx.Response(201, json=ANSWER | {"pem": "nothing"}), "lacks the App"),
        (httpx.Response(201, json=ANSWER | {"webhook_secret": None}), "lacks the App"),
        (httpx.Response(201, json=ANSWER | {"html_url": "https://evil.test/apps/x"}), "lacks the App"),
    ],
)
async def test_github_says_no_and_one_page_says_what_to_do(
    tmp_path: Path, clean: Path, answer: httpx.Response, says: str
) -> None:
    desk = made_desk(tmp_path / "data", lambda request: answer)
    async with client_of(desk) as client:
        reply = await client.get("/setup/callback", params={"state": await begun(client), "code": "abc"})
    assert reply.status_code == 403
    assert says in reply.text
    assert KEY.splitlines()[3] not in reply.text
    assert kept_app(clean) == {}


async def test_code_is_never_a_path(tmp_path: Path, clean: Path) -> None:
    asked: list[httpx.URL] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url)
        return httpx.Response(201, json=ANSWER)

    async with client_of(made_desk(tmp_path / "data", answer)) as client:
        for code in ("../../user", "a/b", "", "a?b", "é", "x" * 300):
            reply = await client.get("/setup/callback", params={"state": await begun(client), "code": code})
            assert (reply.status_code, "sent no code" in reply.text) == (403, True)
    assert asked == []


async def test_outage_leaves_the_code_good_for_another_try(tmp_path: Path, clean: Path) -> None:
    tries: list[int] = []

    def answer(request: httpx.Request) -> httpx.Response:
        tries.append(1)
        if len(tries) == 1:
            raise httpx.ConnectError("no route")
        return httpx.Response(502) if len(tries) == 2 else httpx.Response(201, json=ANSWER)

    async with client_of(made_desk(tmp_path / "data", answer)) as client:
        params = {"state": await begun(client), "code": "abc"}
        for said in ("could not be reached", "GitHub answered 502"):
            reply = await client.get("/setup/callback", params=params)
            assert (reply.status_code, said in reply.text, "Reload" in reply.text) == (502, True, True)
        assert (await client.get("/setup/callback", params=params)).status_code == 303
    assert kept_app(clean)["app_id"] == "4711"


async def test_key_that_cannot_be_kept_is_said(tmp_path: Path, clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", str(clean))

    async with client_of(made_desk(tmp_path / "data")) as client:
        state = await begun(client)
        monkeypatch.setattr("bot.server.setup.pages.keep_app", full)
        reply = await client.get("/setup/callback", params={"state": state, "code": "abc"})
    assert (reply.status_code, "No space left on device" in reply.text) == (403, True)
    assert KEY.splitlines()[3] not in reply.text


@pytest.mark.parametrize(
    ("address", "host", "headers"),
    [
        ("192.0.2.7", "127.0.0.1:8787", {}),
        ("127.0.0.1", "evil.test:8787", {}),
        ("127.0.0.1", "postdoc.example.org", {}),
        ("127.0.0.1", "127.0.0.1:8787", {"X-Forwarded-For": "192.0.2.7"}),
        ("127.0.0.1", "127.0.0.1:8787", {"Forwarded": "for=192.0.2.7"}),
    ],
)
async def test_others_need_the_token_of_the_terminal_once(
    tmp_path: Path, clean: Path, address: str, host: str, headers: dict[str, str]
) -> None:
    desk = made_desk(tmp_path / "data")
    async with client_of(desk, address, host) as client:
        client.headers.update(headers)
        assert "Register the GitHub App" not in (await client.get("/setup")).text
        assert (await client.post("/setup", data=FIELDS)).headers["location"] == "/setup"
        assert (await client.post("/setup/token", data={"token": "guess"})).status_code == 403
        admitted = await client.post("/setup/token", data={"token": desk.token})
        cookie = admitted.headers["set-cookie"]
        assert admitted.status_code == 303
        assert "HttpOnly" in cookie and "SameSite=lax" in cookie and desk.token not in cookie
        assert "Register the GitHub App" in (await client.get("/setup")).text
        await begun(client)
    async with client_of(desk, address, host) as second:
        second.headers.update(headers)
        assert (await second.post("/setup/token", data={"token": desk.token})).status_code == 403


async def test_tokens_cannot_be_guessed_at_length(tmp_path: Path, clean: Path) -> None:
    desk = made_desk(tmp_path / "data")
    async with client_of(desk, "192.0.2.7") as client:
        for n in range(10):
            await client.post("/setup/token", data={"token": f"guess {n}"})
        reply = await client.post("/setup/token", data={"token": desk.token})
    assert (reply.status_code, "Too many" in reply.text) == (403, True)


async def test_form_of_another_site_and_odd_forms_do_nothing(client: Client) -> None:
    for headers in ({"Origin": "https://evil.test"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        reply = await client.post("/setup", data=FIELDS, headers=headers)
        assert (reply.status_code, "another site" in reply.text) == (403, True)
    for body in (b"\xff\xfe", b"a=" + b"x" * 20_000, b"&".join(b"a=1" for _ in range(50)), b""):
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        assert (await client.post("/setup", content=body, headers=headers)).status_code in (403, 422)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"name": ""}, "1 to 34 characters"),
        ({"name": "x" * 35}, "1 to 34 characters"),
        ({"organisation": "../settings"}, "as it stands in its address"),
        ({"address": "javascript:alert(1)"}, "https://postdoc.example.org"),
        ({"address": "postdoc.example.org"}, "https://postdoc.example.org"),
        ({"address": "https://user:pw@example.org"}, "https://postdoc.example.org"),
    ],
)
async def test_wrong_field_is_said_and_what_was_typed_is_kept(
    client: Client, fields: dict[str, str], says: str
) -> None:
    reply = await client.post("/setup", data=FIELDS | {"name": "<b>mine</b>"} | fields)
    assert (reply.status_code, says in reply.text) == (422, True)
    assert "<b>mine</b>" not in reply.text


async def test_every_page_forbids_scripts_frames_and_foreign_forms(client: Client) -> None:
    reply = await client.post("/setup", data=FIELDS)
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert "form-action 'self' https://github.com;" in policy
    assert reply.headers["cache-control"] == "no-store"
    assert "<script" not in reply.text
    assert "form-action 'self';" in (await client.get("/setup")).headers["content-security-policy"]


# --- addresses and settings


@pytest.mark.parametrize(
    ("github", "root"),
    [
        ("https://api.github.com", "https://github.com"),
        ("https://ghe.example.org/api/v3", "https://ghe.example.org"),
        ("https://api.acme.ghe.com", "https://acme.ghe.com"),
        ("http://127.0.0.1:9/api/v3", "http://127.0.0.1:9"),
    ],
)
def test_address_of_githubs_pages_follows_from_its_api(github: str, root: str) -> None:
    assert web_root(github) == root
    assert new_app_address(github, "", "s+1") == f"{root}/settings/apps/new?state=s%2B1"
    assert new_app_address(github, "acme", "s") == f"{root}/organizations/acme/settings/apps/new?state=s"


def test_server_without_a_public_address_sends_events_nowhere() -> None:
    manifest = app_manifest(name="x", seen_at="http://127.0.0.1:8787", reached_at="https://postdoc.invalid")
    assert manifest["hook_attributes"]["url"] == "https://postdoc.invalid/webhook"
    assert manifest["url"] == "http://127.0.0.1:8787"
    assert manifest["public"] is False


def test_kept_app_fills_in_what_the_environment_lacks(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_app(clean, {"app_id": "7", "private_key": KEY, "webhook_secret": SECRET})
    settings = load_settings()
    assert (settings.app_id, settings.key(), settings.webhook_secret.get_secret_value()) == ("7", KEY.strip(), SECRET)
    assert load_setup_settings() is None

    monkeypatch.setenv("POSTDOC_WEBHOOK_SECRET", "another-secret")
    assert load_settings().webhook_secret.get_secret_value() == "another-secret"

    # Another App's id takes nothing from the files: its key would not fit.
    monkeypatch.setenv("POSTDOC_APP_ID", "8")
    with pytest.raises(SettingsError, match="POSTDOC_PRIVATE_KEY_PATH"):
        load_settings()


def test_kept_app_is_never_overwritten_or_half_there(clean: Path) -> None:
    values = {"app_id": "7", "private_key": KEY, "webhook_secret": SECRET}
    keep_app(clean, values)
    with pytest.raises(OSError, match="not empty"):
        keep_app(clean, values | {"app_id": "8"})
    assert kept_app(clean)["app_id"] == "7"
    assert [path.name for path in clean.iterdir()] == ["app"]
    (clean / "app" / "private-key.pem").unlink()
    with pytest.raises(SettingsError, match=r"private-key\.pem.*set the App up again"):
        load_settings()


def test_half_set_environment_is_a_wrong_setting_also_with_setup(
    clean: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POSTDOC_PRIVATE_KEY", KEY)
    assert run(["serve", "--setup"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("postdoc: POSTDOC_APP_ID is not set.") and said.count("\n") == 1


def test_serve_without_an_app_says_how_to_get_one(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve"]) == 2
    said = capsys.readouterr().err
    assert "`postdoc serve --setup` registers an App" in said and said.count("\n") == 1


def test_setup_refuses_a_data_folder_that_cannot_be_written(
    clean: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clean.parent.mkdir(exist_ok=True)
    clean.write_text("a file")
    assert run(["serve", "--setup", "--port", "0"]) == 2
    assert "cannot be written" in capsys.readouterr().err
