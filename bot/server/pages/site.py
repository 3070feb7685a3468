"""The frame around every page: who may look, the headers, the templates, and the sign-in."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, urlsplit

from fastapi import APIRouter
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from bot.conversation.github.servers import server_at
from bot.errors import TransientError
from bot.server.access import SESSION_COOKIE, SESSION_SECONDS, Denied
from bot.server.pages import charts, looks, overview
from bot.server.pages.goal import goal_page
from bot.server.pages.view import NotHere, View

if TYPE_CHECKING:
    from bot.server.app import Bot

log = logging.getLogger("postdoc.pages")

HERE = Path(__file__).parent
TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
STATIC = {file.name: file.read_bytes() for file in sorted((HERE / "static").iterdir()) if file.suffix in TYPES}
VERSION = hashlib.sha256(b"".join(STATIC.values())).hexdigest()[:12]
LARGEST_FORM = 4_096
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
Handler = Callable[["Bot", Request], View]
"""Blocks: it reads journals and job folders, so it runs in a thread."""


@dataclass(frozen=True, slots=True)
class Site:
    """The pages of one server."""

    bot: Bot
    templates: Environment

    def endpoint(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        """A page as an endpoint: whoever may not look is told why, or led to the sign-in."""

        async def answer(request: Request) -> Response:
            try:
                self.bot.access.require(request.headers, request.cookies.get(SESSION_COOKIE, ""))
                view = await asyncio.to_thread(handler, self.bot, request)
                return await asyncio.to_thread(self.show, request, view)
            except Denied as denied:
                if denied.status == 401:
                    return self._redirect(f"/sign-in?next={quote(request.url.path)}")
                return self._message(request, denied.status, str(denied))
            except NotHere as missing:
                return self._message(request, 404, str(missing))
            except (TransientError, SQLAlchemyError) as error:
                log.warning("the page %s cannot be made now: %s", request.url.path, type(error).__name__)
                return self._message(request, 503, "The database cannot be read now. Try again in a moment.")
            except Exception:
                log.exception("the page %s failed", request.url.path)
                return self._message(request, 500, "Postdoc failed at this page. The server's log says why.")

        return answer

    def show(self, request: Request, view: View) -> Response:
        """A view as a page; 304 to a browser that already shows it."""
        framed, trusted = view.template != "sign_in.html", view.template not in ("sign_in.html", "message.html")
        html = self.templates.get_template(view.template).render(
            **view.values,
            place=view.place,
            halted=self.bot.halted() if trusted else None,
            framed=framed,
            signed_in=trusted and self.bot.access.needs_token,
            version=VERSION,
        )
        tag = f'W/"{hashlib.sha256(html.encode()).hexdigest()[:24]}"'
        headers = {**HEADERS, "ETag": tag, "Vary": "Cookie"}
        if view.status == 200 and request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(html, view.status, headers, media_type="text/html")

    async def sign_in(self, request: Request) -> Response:
        """The form, and its answer: a session in a cookie, never the token itself."""
        onwards = _safe_return(request.query_params.get("next", "/"))
        if request.method != "POST":
            if not self.bot.access.needs_token or self.bot.access.is_session(request.cookies.get(SESSION_COOKIE, "")):
                return self._redirect(onwards)
            return self.show(request, View("sign_in.html", {"onwards": onwards, "problem": ""}))
        try:
            form = await _own_form(request)
            address = request.client.host if request.client is not None else ""
            session = self.bot.access.sign_in(form.get("token", [""])[0], address)
        except Denied as denied:
            values = {"onwards": onwards, "problem": str(denied)}
            return self.show(request, View("sign_in.html", values, status=denied.status))
        reply = self._redirect(onwards)
        reply.set_cookie(
            SESSION_COOKIE, session, max_age=int(SESSION_SECONDS), path="/", httponly=True, samesite="strict",
            secure=request.url.scheme == "https",
        )  # fmt: skip
        return reply

    async def sign_out(self, request: Request) -> Response:
        try:
            await _own_form(request)
        except Denied as denied:
            return self._message(request, denied.status, str(denied))
        reply = self._redirect("/sign-in")
        reply.delete_cookie(SESSION_COOKIE, path="/", httponly=True, samesite="strict")
        return reply

    def _redirect(self, to: str) -> Response:
        return RedirectResponse(to, status_code=303, headers=HEADERS)

    def _message(self, request: Request, status: int, sentence: str) -> Response:
        return self.show(request, View("message.html", {"sentence": sentence}, status=status))


def page_routes(bot: Bot) -> APIRouter:
    """`/`, `/goals/...`, `/queue`, `/spend`, and the sign-in where a token is set."""
    site = Site(bot, _templates(bot))
    router = APIRouter()
    pages: tuple[tuple[str, Handler], ...] = (
        ("/", overview.dashboard),
        ("/goals/{owner}/{repository}/{issue}", goal_page),
        ("/queue", overview.queue_page),
        ("/spend", overview.spend_page),
    )
    for path, handler in pages:
        router.add_route(path, site.endpoint(handler), methods=["GET"], include_in_schema=False)
    router.add_route("/sign-in", site.sign_in, methods=["GET", "POST"], include_in_schema=False)
    router.add_route("/sign-out", site.sign_out, methods=["POST"], include_in_schema=False)
    router.add_route("/-/{name}", _static, methods=["GET"], include_in_schema=False)
    return router


def _templates(bot: Bot) -> Environment:
    cleaned = looks.cleaner(bot.settings.secrets())
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined, finalize=cleaned,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.filters |= {"ticked": looks.ticked(cleaned), "path": looks.path, "clipped": looks.shortened(cleaned)}
    made.globals |= looks.WORDS | {
        "when": looks.when, "moment": looks.moment, "tone": looks.tone, "hours": looks.hours, "share": looks.share,
        "strip": charts.strip, "meter": charts.meter, "web": server_at(bot.settings.github_url).html,
    }  # fmt: skip
    return made


async def _static(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in STATIC:
        return Response("Not Found", 404, media_type="text/plain")
    # Its address carries the version, so a browser may keep it for good.
    headers = {**HEADERS, "Cache-Control": "public, max-age=31536000, immutable"}
    return Response(STATIC[name], headers=headers, media_type=TYPES[Path(name).suffix])


async def _own_form(request: Request) -> Mapping[str, list[str]]:
    """The fields of a form that one of our own pages sent.

    Raises: Denied when another site sent it, or when it is no such form. With `no-referrer` a browser says
    `Origin: null` even for its own site, so Sec-Fetch-Site decides where it is sent.
    """
    own = f"{request.url.scheme}://{request.headers.get('host', '')}"
    foreign = request.headers.get("origin", "null") not in ("null", own)
    if foreign or request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Denied(403, "This form was sent from another site. Open this page in the browser itself.")
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        raise Denied(415, "Send the page's own form.")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_FORM:
            raise Denied(413, "That is longer than any token.")
    try:
        return parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=20)
    except ValueError as error:
        raise Denied(400, "Send the page's own form.") from error


def _safe_return(address: str) -> str:
    """An address on this site to go back to; anything else becomes the front page."""
    if re.fullmatch(r"/(?![/\\])[^\x00-\x20\\]{0,300}", address) and not urlsplit(address).netloc:
        return address
    return "/"
