"""From an HTTP request to a handler and back: callers, permissions, limits, faults, ETags and GitHub's headers.

A handler is an ordinary function `(Call) -> Reply`, registered with what it needs:

    @routes.get("/repos/{owner}/{repo}/issues", needs=("issues:read",))
    def list_issues(call: Call) -> Reply: ...
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .auth import Actor
from .model import App, Issue, PullRequest, Repository, Role
from .permissions import require
from .rate_limits import headers as rate_headers
from .replies import ApiError, Reply, not_found

if TYPE_CHECKING:
    from .faults import Fault
    from .forge import Forge

T = TypeVar("T")
MAX_PER_PAGE = 100
_UNCOUNTED = {"/rate_limit", "/meta"}
_TYPE_NAMES = {str: "a string", int: "an integer", bool: "a boolean", list: "an array", dict: "an object"}


@dataclass(slots=True)
class Call:
    """One request, as a handler sees it."""

    forge: Forge
    method: str
    path: str
    actor: Actor
    params: dict[str, str]
    query: QueryParams
    accept: str
    body: dict[str, Any]
    url: str
    found: Repository | None = None
    links: dict[str, str] = field(default_factory=dict)

    @property
    def repository(self) -> Repository:
        assert self.found is not None
        return self.found

    def require(self, role: Role, *needs: str) -> None:
        """A check that depends on what was found. Raises: ApiError."""
        require(self.actor, self.repository, role, needs)

    def app(self) -> App:
        """The App that signed the JWT. Raises: ApiError 401 for any other caller."""
        if not self.actor.is_app or self.actor.app is None:
            raise ApiError(401, "A JSON web token could not be decoded")
        return self.actor.app

    def number(self, name: str) -> int:
        """A numeric path parameter. Raises: ApiError 404."""
        text = self.params[name]
        if not text.isascii() or not text.isdigit() or len(text) > 18:
            raise not_found()
        return int(text)

    def issue(self) -> Issue:
        """Raises: ApiError 404."""
        return self.repository.issues.get(self.number("number")) or _missing()

    def pull(self) -> PullRequest:
        """Raises: ApiError 404."""
        return self.issue().pull or _missing()

    def text(self, name: str, default: str | None = None) -> str | None:
        return self.value(name, str, default)

    def required_text(self, name: str) -> str:
        """Raises: ApiError 422."""
        if self.body.get(name) is None:
            raise ApiError(422, f'Invalid request.\n\n"{name}" wasn\'t supplied.')
        return self.value(name, str, "") or ""

    def value(self, name: str, kind: type[T], default: T | None = None) -> T | None:
        """A field of the body, with its type checked. Raises: ApiError 422."""
        given = self.body.get(name)
        if given is None:
            return default
        if not isinstance(given, kind) or (kind is int and isinstance(given, bool)):
            shown = json.dumps(given)[:80]
            raise ApiError(422, f"Invalid request.\n\nFor 'properties/{name}', {shown} is not {_TYPE_NAMES[kind]}.")
        return given

    def texts(self, name: str) -> list[str] | None:
        """A list of strings. Raises: ApiError 422."""
        given = self.value(name, list)
        if given is not None and not all(isinstance(each, str) for each in given):
            raise ApiError(422, f"Invalid request.\n\nFor 'properties/{name}', every item must be a string.")
        return given

    def page(self, items: Iterable[T]) -> list[T]:
        """One page of a list; remembers the Link header that belongs to it."""
        listed = list(items)
        size = min(max(_whole(self.query.get("per_page"), 30), 1), MAX_PER_PAGE)
        number = max(_whole(self.query.get("page"), 1), 1)
        last = max((len(listed) + size - 1) // size, 1)
        if number > 1:
            self.links |= {"prev": self._page_url(number - 1), "first": self._page_url(1)}
        if number < last:
            self.links |= {"next": self._page_url(number + 1), "last": self._page_url(last)}
        return listed[(number - 1) * size : number * size]

    def _page_url(self, number: int) -> str:
        pairs = [(name, value) for name, value in self.query.multi_items() if name != "page"]
        return f"{self.url}?{QueryParams([*pairs, ('page', str(number))])}"


def _whole(text: str | None, default: int) -> int:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 10 else default


def _missing() -> Any:
    raise not_found()


Handler = Callable[[Call], Reply]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`needs` are alternatives, one of which an installation token must carry; `role` is what a person needs."""

    method: str
    path: str
    handler: Handler
    needs: tuple[str, ...]
    role: Role


class Routes:
    """A group of endpoints, one for each file of `rest/`."""

    def __init__(self) -> None:
        self.endpoints: list[Endpoint] = []

    def _add(self, method: str, path: str, needs: tuple[str, ...], role: Role) -> Callable[[Handler], Handler]:
        def register(handler: Handler) -> Handler:
            self.endpoints.append(Endpoint(method, path, handler, needs, role))
            return handler

        return register

    def get(self, path: str, needs: tuple[str, ...] = (), role: Role = Role.READ) -> Callable[[Handler], Handler]:
        return self._add("GET", path, needs, role)

    def post(self, path: str, needs: tuple[str, ...] = (), role: Role = Role.WRITE) -> Callable[[Handler], Handler]:
        return self._add("POST", path, needs, role)

    def put(self, path: str, needs: tuple[str, ...] = (), role: Role = Role.WRITE) -> Callable[[Handler], Handler]:
        return self._add("PUT", path, needs, role)

    def patch(self, path: str, needs: tuple[str, ...] = (), role: Role = Role.WRITE) -> Callable[[Handler], Handler]:
        return self._add("PATCH", path, needs, role)

    def delete(self, path: str, needs: tuple[str, ...] = (), role: Role = Role.WRITE) -> Callable[[Handler], Handler]:
        return self._add("DELETE", path, needs, role)


def starlette_route(forge: Forge, endpoint: Endpoint, prefix: str, resource: str = "core") -> Route:
    async def serve(request: Request) -> Response:
        raw = await request.body()
        fault = forge.faults.take_request(request.method, request.url.path.removeprefix(prefix))
        if fault is not None and fault.kind == "drop":
            raise ConnectionDropped
        with forge.lock:
            response = _respond(forge, endpoint, request, raw, fault, resource)
        if fault is not None and fault.kind == "drop_after":
            raise ConnectionDropped
        return response

    return Route(prefix + endpoint.path, serve, methods=[endpoint.method])


class ConnectionDropped(Exception):
    """The fault that ends a connection without an answer; the outermost layer turns it into one."""


def _respond(
    forge: Forge, endpoint: Endpoint, request: Request, raw: bytes, fault: Fault | None, resource: str
) -> Response:
    extra: dict[str, str] = {"date": formatdate(forge.clock().timestamp(), usegmt=True)}
    try:
        actor = forge.authenticate(request.headers.get("authorization"))
        window = forge.limits.window(actor.rate_key, resource, forge.clock().timestamp())
        counted = request.url.path.removeprefix("/api/v3") not in _UNCOUNTED
        if counted and window.used >= window.limit:
            extra |= rate_headers(window, resource)
            raise _exhausted(actor, window.reset - int(forge.clock().timestamp()))
        window.used += counted
        extra |= rate_headers(window, resource)
        _raise_fault(fault)
        call = _call(forge, endpoint, request, raw, actor)
        response = _rendered(endpoint.handler(call), request, call, extra)
        if response.status_code == 304:
            window.used -= counted
            response.headers.update(rate_headers(window, resource))
        return response
    except ApiError as error:
        return _finished(_json(error.body), error.status, "application/json; charset=utf-8", extra | error.headers)


def _raise_fault(fault: Fault | None) -> None:
    if fault is not None and fault.kind == "secondary_limit":
        raise ApiError(
            fault.status,
            "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.",
            headers={"retry-after": str(fault.retry_after_seconds)},
        )
    if fault is not None and fault.kind == "server_error":
        raise ApiError(fault.status, "Server Error")


def _exhausted(actor: Actor, seconds: int) -> ApiError:
    who = f"user ID {actor.account.id}" if actor.user else "127.0.0.1"
    return ApiError(403, f"API rate limit exceeded for {who}.", headers={"retry-after": str(max(seconds, 1))})


def _call(forge: Forge, endpoint: Endpoint, request: Request, raw: bytes, actor: Actor) -> Call:
    if not request.headers.get("user-agent"):
        raise ApiError(
            403, "Request forbidden by administrative rules. Please make sure your request has a User-Agent header."
        )
    call = Call(
        forge=forge,
        method=request.method,
        path=request.url.path,
        actor=actor,
        params={name: str(value) for name, value in request.path_params.items()},
        query=request.query_params,
        accept=request.headers.get("accept", ""),
        body={},
        url=f"{forge.base_url}{request.url.path}",
    )
    if "owner" in call.params and "repo" in call.params:
        call.found = forge.repositories.get(f"{call.params['owner']}/{call.params['repo']}".lower()) or _missing()
        require(actor, call.repository, endpoint.role, endpoint.needs)
    call.body = _json_body(raw)
    return call


def _json_body(raw: bytes) -> dict[str, Any]:
    if not raw.strip():
        return {}
    try:
        body = json.loads(raw)
    except ValueError:
        raise ApiError(400, "Problems parsing JSON") from None
    if isinstance(body, list):  # adding labels may be asked for with a bare list
        return {"": body}
    if not isinstance(body, dict):
        raise ApiError(400, "Body should be a JSON object")
    return body


def _rendered(reply: Reply, request: Request, call: Call, extra: dict[str, str]) -> Response:
    content = reply.body if isinstance(reply.body, bytes) else b"" if reply.body is None else _json(reply.body)
    headers = extra | reply.headers
    if call.links:
        headers["link"] = ", ".join(f'<{url}>; rel="{rel}"' for rel, url in call.links.items())
    if request.method == "GET" and reply.status == 200:
        tag = f'W/"{hashlib.sha256(content).hexdigest()}"'
        headers |= {"etag": tag, "cache-control": "private, max-age=60, s-maxage=60", "vary": "Accept, Authorization"}
        asked = re.split(r"\s*,\s*", request.headers.get("if-none-match", ""))
        if tag in asked or tag.removeprefix("W/") in asked:
            return _finished(b"", 304, None, headers)
    return _finished(content, reply.status, reply.media_type if reply.body is not None else None, headers)


def _finished(content: bytes, status: int, media_type: str | None, headers: dict[str, str]) -> Response:
    headers |= {
        "x-github-request-id": secrets.token_hex(8).upper(),
        "x-github-media-type": "github.v3; format=json",
        "x-github-api-version-selected": "2022-11-28",
        "server": "practice-forge",
    }
    return Response(content, status, headers, media_type)


def _json(body: Any) -> bytes:
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode(errors="replace")
