"""The pages of `/setup`. Whoever opens them from this machine may register the App; others need the token that the
terminal shows. Nothing secret is on a page, in an address or in a log: the App's keys go from GitHub into files.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ipaddress
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bot import __version__
from bot.config import SetupSettings, keep_app
from bot.conversation.github.registration import EVENTS, PERMISSIONS
from bot.errors import TransientError, UserError
from bot.server.setup.manifest import (
    NOWHERE,
    NewApp,
    app_manifest,
    checked_address,
    checked_name,
    checked_organisation,
    exchange,
    new_app_address,
    web_root,
)

HERE = Path(__file__).parent / "templates"
COOKIE = "postdoc_setup"
STATE_SECONDS = 3600.0
"""As long as GitHub's code works."""
LONGEST_GOODBYE_SECONDS = 30.0
MOST_WRONG_TOKENS = 10
LARGEST_FORM_BYTES = 16_384
MOST_PENDING = 100
_STYLE = (HERE / "setup.css").read_text(encoding="utf-8")
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")


@dataclass(slots=True)
class _Pending:
    """A registration that was begun, in one browser."""

    browser: str
    expires: float
    used: bool = False


class SetupDesk:
    """One server's setting up: at most one App comes out of it."""

    def __init__(
        self,
        settings: SetupSettings,
        *,
        on_done: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.settings, self.on_done, self.clock, self.transport = settings, on_done, clock, transport
        self.token = secrets.token_urlsafe(16)
        """Lets one browser of another machine in, once."""
        self.app: NewApp | None = None
        self.wrong_tokens = 0
        self._token_used = False
        self._browsers: dict[str, float] = {}
        """Digest of a cookie -> until when it is let in."""
        self._pending: dict[str, _Pending] = {}
        self._exchanging = asyncio.Lock()

    def admits(self, request: Request) -> bool:
        """True for this machine's own browser, spoken to directly, and for one that showed the token."""
        return _is_direct(request) or self._browsers.get(_browser(request), 0.0) > self.clock()

    def admit(self, token: str) -> str:
        """A cookie for the browser that knows the token. Raises: UserError."""
        if self.wrong_tokens >= MOST_WRONG_TOKENS:
            raise UserError("Too many wrong tokens. Start `postdoc serve --setup` again for a new one.")
        if self._token_used or not secrets.compare_digest(token.strip().encode(), self.token.encode()):
            self.wrong_tokens += 1
            raise UserError("This is not the token that the terminal shows, or it was used before.")
        self._token_used = True
        cookie = secrets.token_urlsafe(24)
        self._browsers[_digest(cookie)] = self.clock() + STATE_SECONDS
        return cookie

    def begin(self, browser: str) -> str:
        """The state of a new registration in the browser whose cookie this digest is of."""
        now = self.clock()
        self._pending = {s: p for s, p in self._pending.items() if p.expires > now and not p.used}
        while len(self._pending) >= MOST_PENDING:
            self._pending.pop(next(iter(self._pending)))
        state = secrets.token_urlsafe(32)
        self._pending[state] = _Pending(browser, now + STATE_SECONDS)
        return state

    async def finish(self, state: str, code: str, browser: str) -> NewApp:
        """Exchange the code and keep the App. Raises: UserError; TransientError, after which it may be tried again."""
        async with self._exchanging:
            pending = self._pending.get(state)
            if self.app is not None or (pending is not None and pending.used):
                raise UserError("This registration is finished. The App is set up once.")
            if pending is None or pending.expires <= self.clock():
                raise UserError("This registration was not begun here, or more than an hour ago. Start again.")
            if not secrets.compare_digest(pending.browser, browser):
                raise UserError("This registration was begun in another browser. Go on there, or start again.")
            pending.used = True
            try:
                new = await exchange(self.settings.github_url, code, transport=self.transport)
            except TransientError:
                pending.used = False
                raise
            try:
                keep_app(self.settings.data_folder, new.kept())
            except OSError as error:
                raise UserError(
                    f"The App {new.name} is registered, but its key could not be written: {error.filename}: "
                    f"{error.strerror}. Mend that, delete the App at {new.page} and start again."
                ) from error
            self.app = new
            # Whoever closes the page too early has an App all the same.
            asyncio.get_running_loop().call_later(LONGEST_GOODBYE_SECONDS, self.on_done)
            return new


def create_setup_app(desk: SetupDesk) -> FastAPI:
    """The application of a server that has no App yet: `/setup` and the health probes."""
    app = FastAPI(title="Postdoc setup", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    pages = _Pages(desk)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok", "version": __version__}

    @app.get("/readyz")
    async def readyz() -> Response:
        return JSONResponse({"ready": False, "why": "no GitHub App is set up yet"}, status_code=503)

    @app.get("/")
    async def front() -> Response:
        return RedirectResponse("/setup", status_code=303)

    app.get("/setup")(pages.show)
    app.post("/setup")(pages.begin)
    app.post("/setup/token")(pages.admit)
    app.get("/setup/callback")(pages.callback)
    app.get("/setup/done")(pages.done)
    return app


class _Pages:
    def __init__(self, desk: SetupDesk) -> None:
        self.desk = desk
        self.templates = Environment(
            loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
            lstrip_blocks=True,
        )  # fmt: skip

    async def show(self, request: Request) -> Response:
        if self.desk.app is not None:
            return RedirectResponse("/setup/done", status_code=303)
        if not self.desk.admits(request):
            return self._page("token.html", 401 if _browser(request) else 200, problem="")
        return self._form(request, "")

    async def admit(self, request: Request) -> Response:
        try:
            fields = await _fields(request)
            cookie = self.desk.admit(fields.get("token", ""))
        except UserError as error:
            return self._page("token.html", 403, problem=str(error))
        reply = RedirectResponse("/setup", status_code=303)
        _set_cookie(reply, request, cookie)
        return reply

    async def begin(self, request: Request) -> Response:
        desk = self.desk
        if desk.app is not None or not desk.admits(request):
            return RedirectResponse("/setup", status_code=303)
        try:
            fields = await _fields(request)
        except UserError as error:
            return self._message(403, str(error))
        try:
            name = checked_name(fields.get("name", ""))
            organisation = checked_organisation(fields.get("organisation", ""))
            reached_at = checked_address(fields.get("address", ""))
        except UserError as error:
            return self._form(request, str(error), fields)
        cookie = request.cookies.get(COOKIE) or secrets.token_urlsafe(24)
        state = desk.begin(_digest(cookie))
        manifest = app_manifest(name=name, seen_at=_seen_at(request), reached_at=reached_at)
        github = web_root(desk.settings.github_url)
        reply = self._page(
            "confirm.html", action=new_app_address(desk.settings.github_url, organisation, state),
            manifest=json.dumps(manifest), shown=manifest, permissions=PERMISSIONS, events=EVENTS,
            owner=organisation, github=github, nowhere=reached_at == NOWHERE, form_action=github,
        )  # fmt: skip
        _set_cookie(reply, request, cookie)
        return reply

    async def callback(self, request: Request) -> Response:
        state, code = request.query_params.get("state", ""), request.query_params.get("code", "")
        try:
            await self.desk.finish(state, code, _browser(request))
        except TransientError as error:
            return self._message(502, f"{error} Reload this page to try again; the code is good for an hour.")
        except UserError as error:
            return self._message(403, str(error))
        # The code is spent; the redirect takes it out of the address bar as well.
        return RedirectResponse("/setup/done", status_code=303)

    async def done(self, request: Request) -> Response:
        app = self.desk.app
        if app is None:
            return RedirectResponse("/setup", status_code=303)
        reply = self._page("done.html", app=app, data_folder=str(self.desk.settings.data_folder))
        self.desk.on_done()
        return reply

    def _form(self, request: Request, problem: str, fields: dict[str, str] | None = None) -> Response:
        known = self.desk.settings.public_url or ("" if _is_direct(request) else _seen_at(request))
        values = {"name": f"postdoc-{secrets.token_hex(2)}", "organisation": "", "address": known} | (fields or {})
        return self._page("form.html", 422 if problem else 200, problem=problem, values=values,
                          github=web_root(self.desk.settings.github_url))  # fmt: skip

    def _message(self, status: int, text: str) -> Response:
        return self._page("message.html", status, text=text)

    def _page(self, template: str, status: int = 200, *, form_action: str = "", **values: object) -> Response:
        html = self.templates.get_template(template).render(style=_STYLE, **values)
        to = f"'self' {form_action}".strip()
        headers = {
            "Content-Security-Policy": (
                f"default-src 'none'; img-src data:; style-src 'sha256-{_STYLE_HASH}'; "
                f"form-action {to}; base-uri 'none'; frame-ancestors 'none'"
            ),
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            # Not no-referrer: a browser would then send `Origin: null` with our own forms.
            "Referrer-Policy": "same-origin",
            "Cache-Control": "no-store",
        }
        return HTMLResponse(html, status_code=status, headers=headers)


def _digest(cookie: str) -> str:
    return hashlib.sha256(cookie.encode()).hexdigest() if cookie else ""


def _browser(request: Request) -> str:
    """Digest of the browser's cookie; empty when it has none."""
    return _digest(request.cookies.get(COOKIE, ""))


def _is_direct(request: Request) -> bool:
    """True when the other end is this machine and nobody passed the request on.

    A proxy on this machine comes from loopback too: it gives itself away by its headers or by the host's name, which
    also shuts out a foreign site that points a name of its own at 127.0.0.1.
    """
    if request.client is None or any(name in request.headers for name in _FORWARDED):
        return False
    host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    return _is_loopback(request.client.host) and (host == "localhost" or _is_loopback(host))


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _seen_at(request: Request) -> str:
    """This server's address as the browser sees it: a proxy may have taken the TLS off, and Origin still tells."""
    origin = request.headers.get("origin", "")
    host = request.headers.get("host", "")
    return origin if urlsplit(origin).netloc == host and host else f"{request.url.scheme}://{host}"


def _set_cookie(reply: Response, request: Request, cookie: str) -> None:
    # Lax: GitHub sends the browser back here from its own site, and the cookie has to come along.
    reply.set_cookie(
        COOKIE, cookie, max_age=int(STATE_SECONDS), path="/setup", httponly=True, samesite="lax",
        secure=_seen_at(request).startswith("https:"),
    )  # fmt: skip


async def _fields(request: Request) -> dict[str, str]:
    """The fields of a form that one of our own pages sent. Raises: UserError."""
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site", "same-origin")
    if site not in ("same-origin", "none") or (
        origin is not None and urlsplit(origin).netloc != request.headers.get("host")
    ):
        raise UserError("This form was sent from another site. Open /setup here and start again.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_FORM_BYTES:
            raise UserError("This form is too large.")
    try:
        fields = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=20)
    except ValueError as error:
        raise UserError("This form is too large.") from error
    return {name: values[0] for name, values in fields.items()}
