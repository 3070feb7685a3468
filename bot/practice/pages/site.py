"""The frame around every page: who visits, what is refused and how that is said, caching, and the templates."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from bot.practice import replies
from bot.practice.pages import live, looks
from bot.practice.pages.access import (
    SECURITY_HEADERS,
    FormData,
    Refused,
    Sessions,
    Visitor,
    read_form,
    require_loopback_host,
)
from bot.practice.pages.api import Api, ApiError, Asgi

if TYPE_CHECKING:
    from bot.practice.forge import Forge

HERE = Path(__file__).parent
FAILED = "The practice forge failed at this page. Its terminal says why."
log = logging.getLogger(__name__)
# Accounts of the forge's own that nobody signs in as.
SERVICE_ACCOUNTS = frozenset(("web-flow", "app-owner"))


@dataclass(frozen=True, slots=True)
class View:
    """A template and what it shows."""

    template: str
    values: Mapping[str, Any]
    status: int = 200


@dataclass(frozen=True, slots=True)
class Redirect:
    """Where to look after a form was acted on."""

    to: str


@dataclass(frozen=True, slots=True)
class Visit:
    """One request by one visitor."""

    site: Site
    request: Request
    visitor: Visitor
    form: FormData

    @property
    def login(self) -> str | None:
        return self.visitor.login

    @property
    def api(self) -> Api:
        return Api(self.site.door, str(self.request.base_url), self.site.token(self.login))

    @property
    def repository(self) -> str:
        return f"{self.request.path_params['owner']}/{self.request.path_params['repo']}"

    @property
    def number(self) -> int:
        return self.integer("number")

    def integer(self, name: str) -> int:
        value = self.word(name)
        if not re.fullmatch(r"[0-9]{1,12}", value):
            raise ApiError(404, "Not Found")
        return int(value)

    def word(self, name: str) -> str:
        return str(self.request.path_params[name])

    def query(self, name: str, otherwise: str = "") -> str:
        return self.request.query_params.get(name, otherwise)

    def person(self) -> str:
        """Who acts; nobody may act without having signed in."""
        if self.login is None:
            raise Refused(401, "Sign in first: choose a person at the top of the page.")
        return self.login


Handler = Callable[[Visit], Awaitable[View | Redirect | Response]]


class Site:
    """The pages of one forge."""

    def __init__(self, door: Asgi, forge: Forge) -> None:
        self.door = door
        self.forge = forge
        self.sessions = Sessions()
        self.generation = live.Generation()
        self.templates = Environment(
            loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined,
            trim_blocks=True, lstrip_blocks=True,
        )  # fmt: skip
        self.templates.filters["path"] = lambda value: quote(str(value), safe="/")
        self.templates.globals.update(looks.TEMPLATE_GLOBALS)

        self._tokens: dict[str, str] = {}

    def people(self) -> list[str]:
        """Everybody one can sign in as, in the order they were added."""
        users = list(self.forge.users.values())
        return [user.login for user in users if user.type == "User" and user.login not in SERVICE_ACCOUNTS]

    def repositories(self) -> list[str]:
        """The full names of all repositories; whether a visitor may see one is for the API to say."""
        return [repository.full_name for repository in list(self.forge.repositories.values())]

    def token(self, login: str | None) -> str | None:
        """A token of that person, made once."""
        if login is not None and login not in self._tokens:
            self._tokens[login] = self.forge.user_token(login)
        return self._tokens[login] if login is not None else None

    def endpoint(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        """A page as an ASGI endpoint: what a handler raises reaches the person as a sentence."""

        async def answer(request: Request) -> Response:
            if request.path_params.get("owner") == "api":
                return JSONResponse({"message": "Not Found", "status": "404"}, status_code=404)
            visitor = self._visitor(request)
            try:
                require_loopback_host(request)
                reply = await self._answer(handler, request, visitor)
            except Refused as refusal:
                reply = self._message(request, visitor, refusal.status, refusal.message, "")
            except Exception:
                log.exception("the page %s failed", request.url.path)
                reply = self._message(request, visitor, 500, FAILED, "")
            for name, value in SECURITY_HEADERS.items():
                reply.headers.setdefault(name, value)
            return reply

        return answer

    def _visitor(self, request: Request) -> Visitor:
        visitor = self.sessions.visitor(request)
        if visitor.login is not None and visitor.login not in self.people():
            return self.sessions.signed_in("")
        return visitor

    async def _answer(self, handler: Handler, request: Request, visitor: Visitor) -> Response:
        generation = self.generation.now()
        previous = request.headers.get("if-none-match")
        if request.method == "GET" and live.still_current(previous, generation, visitor.csrf):
            return Response(status_code=304, headers={"ETag": previous or ""})
        form = await read_form(request, visitor) if request.method == "POST" else FormData({})
        try:
            result = await handler(Visit(self, request, visitor, form))
        except ApiError as error:
            return self._message(request, visitor, error.status, self._refusal(error, visitor), form["body"])
        except Refused as refusal:
            return self._message(request, visitor, refusal.status, refusal.message, form["body"])
        except replies.ApiError as error:  # from a method of the Forge
            refused = ApiError(error.status, error.message)
            return self._message(request, visitor, error.status, self._refusal(refused, visitor), form["body"])
        if isinstance(result, Redirect):
            return RedirectResponse(result.to, status_code=303)
        if isinstance(result, Response):
            return result
        reply = self.show(request, visitor, result)
        if request.method == "GET" and result.status == 200:
            current = live.tag(generation, visitor.csrf, bytes(reply.body).decode())
            if live.same_page(previous, current):
                return Response(status_code=304, headers={"ETag": current})
            reply.headers["ETag"] = current
        return reply

    def show(self, request: Request, visitor: Visitor, view: View) -> Response:
        """A view as a page, with the banner, the person switch and the cookie that goes with its forms."""
        address = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        html = self.templates.get_template(view.template).render(
            **view.values, visitor=visitor, people=self.people(), address=address, status=view.status
        )
        reply = Response(html, status_code=view.status, media_type="text/html")
        self.sessions.remember(request, reply, visitor)
        return reply

    @staticmethod
    def _refusal(error: ApiError, visitor: Visitor) -> str:
        who = visitor.login or "A visitor who is not signed in"
        match error.status:
            case 404:
                return "There is nothing here that you may see. Sign in as somebody else, or check the address."
            case 401 | 403:
                return f"{who} may not do this: {error.message}"
            case status if status >= 500:
                return (
                    "The practice forge failed at this. Its terminal says why; nothing of what you typed is lost below."
                )
            case _:
                return f"This was not done: {error.message}"

    def _message(self, request: Request, visitor: Visitor, status: int, sentence: str, typed: str) -> Response:
        back = request.headers.get("referer", "/") if request.method == "POST" else "/"
        return self.show(
            request, visitor, View("message.html", {"sentence": sentence, "typed": typed, "back": back}, status)
        )
