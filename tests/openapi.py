"""GitHub's own description of its API as the judge of what the practice forge answers and sends, and of what it is
asked by the bot (tests/openapi_requests.py).

    recorder = Recorder()
    with serve(forge, wrap=recorder.wrap) as url: ...
    assert recorder.violations() == []

The description is `@octokit/openapi` (api.github.com), installed into tests/node by `npm ci`. Where it is missing,
`available()` is False and the tests that need it are skipped; with CI=true that is an error instead.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012
from starlette.types import ASGIApp, Message, Receive, Scope, Send

DESCRIPTION = Path(__file__).parent / "node/node_modules/@octokit/openapi/generated/api.github.com.json"
API = "/api/v3"
_BASE = "https://example.test/description"
_KEPT_BODY_BYTES = 4_000_000
FORMATS = FormatChecker(formats=())
UNDESCRIBED = {400, 401, 403, 404, 405, 406, 409, 410, 422, 429, 500, 502, 503}
"""Refusals that GitHub gives on every endpoint, although the description lists them for some only."""
BASIC_ERROR = "basic-error"
_STALE = re.compile(r"performed_via_github_app\.events\[\d+\]: 'workflow_job' is not one of")
"""The description describes this event, and forgets it where it lists the events that an App may subscribe to."""


@FORMATS.checks("date-time")
def _is_moment(value: object) -> bool:
    if not isinstance(value, str):
        return True
    try:
        return datetime.fromisoformat(value.replace("Z", "+00:00")).tzinfo is not None
    except ValueError:
        return False


@FORMATS.checks("uri")
def _is_uri(value: object) -> bool:
    return not isinstance(value, str) or re.fullmatch(r"[a-z][a-z0-9+.-]*:[^\s]+", value) is not None


def available() -> bool:
    """Whether the description is installed. Raises: RuntimeError in CI when it is not."""
    if DESCRIPTION.is_file():
        return True
    if os.environ.get("CI") == "true":
        raise RuntimeError(f"{DESCRIPTION} is missing: run `npm ci` in tests/node")
    return False


@dataclass(frozen=True, slots=True)
class Exchange:
    method: str
    path: str
    status: int
    media_type: str
    body: bytes
    query: str = ""
    request: bytes = b""
    """The request's body."""
    agent: str = ""
    """The request's User-Agent."""


@cache
def description() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(DESCRIPTION.read_text())
    _to_json_schema(loaded)
    return loaded


def _to_json_schema(node: Any) -> None:
    """OpenAPI 3.0 to JSON Schema, in place: `nullable` becomes a type, and alternatives need not exclude each other.

    GitHub's `oneOf` lists overlap (a file's contents also match a symlink's): one match is what is asked for.
    """
    if isinstance(node, list):
        for each in node:
            _to_json_schema(each)
        return
    if not isinstance(node, dict):
        return
    for each in node.values():
        _to_json_schema(each)
    if isinstance(node.get("oneOf"), list):
        node["anyOf"] = node.pop("oneOf") + node.get("anyOf", [])
    if node.get("nullable") is True:
        _allow_null(node)


def _allow_null(node: dict[str, Any]) -> None:
    if isinstance(node.get("type"), str):
        node["type"] = [node["type"], "null"]
    if isinstance(node.get("enum"), list) and None not in node["enum"]:
        node["enum"] = [*node["enum"], None]
    for name in ("anyOf", "allOf"):
        if isinstance(node.get(name), list) and name == "anyOf":
            node[name] = [*node[name], {"type": "null"}]
    if "$ref" in node:
        node["anyOf"] = [{"$ref": node.pop("$ref")}, {"type": "null"}]
    if isinstance(node.get("allOf"), list):
        node["anyOf"] = [{"allOf": node.pop("allOf")}, {"type": "null"}]


@cache
def _registry() -> Registry[Any]:
    resource = Resource.from_contents(description(), default_specification=DRAFT202012)
    registry: Registry[Any] = Registry()
    filled: Registry[Any] = registry.with_resource(_BASE, resource)
    return filled


@cache
def validator(pointer: str) -> Draft202012Validator:
    """A validator for the schema at a JSON pointer of the description."""
    return Draft202012Validator({"$ref": f"{_BASE}#{pointer}"}, registry=_registry(), format_checker=FORMATS)


def pointer_to(*parts: str) -> str:
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in parts)


@cache
def _templates() -> list[tuple[re.Pattern[str], str]]:
    """Path templates with a pattern for each, those with the fewest parameters first."""
    greedy = ("path", "ref", "basehead", "branch", "name", "tree_sha")
    found = []
    for template in description()["paths"]:
        pattern = re.sub(r"\\{(\w+)\\}", lambda match: "(.+)" if match[1] in greedy else "([^/]+)", re.escape(template))
        found.append((re.compile(pattern), template))
    return sorted(found, key=lambda entry: (entry[1].count("{"), -len(entry[1])))


@cache
def template_of(method: str, path: str) -> str | None:
    """The path template of the description that a request path falls under."""
    if path.endswith("/contents"):
        path += "/."  # the top folder, which the description leaves out
    for pattern, template in _templates():
        if method.lower() in description()["paths"][template] and pattern.fullmatch(path):
            return template
    return None


def check(exchange: Exchange) -> list[str]:
    """What is wrong with one answer according to the description; empty when nothing is."""
    template = template_of(exchange.method, exchange.path)
    where = f"{exchange.method} {exchange.path} -> {exchange.status}"
    if template is None:
        return [] if exchange.status == 404 else [f"{where}: no such endpoint in GitHub's description"]
    if exchange.status == 304:
        return []
    operation = description()["paths"][template][exchange.method.lower()]
    response = operation["responses"].get(str(exchange.status))
    if response is None:
        if exchange.status in UNDESCRIBED:
            return _problems(where, pointer_to("components", "schemas", BASIC_ERROR), exchange)
        return [f"{where}: {template} has no such status, only {sorted(operation['responses'])}"]
    at = ("paths", template, exchange.method.lower(), "responses", str(exchange.status))
    if "$ref" in response:
        at = tuple(response["$ref"].removeprefix("#/").split("/"))
        response = description()["components"]["responses"][at[-1]]
    return _check_content(where, at, response, exchange)


def _check_content(where: str, at: tuple[str, ...], response: dict[str, Any], exchange: Exchange) -> list[str]:
    content = response.get("content")
    if not content:
        refusal = exchange.status >= 400 and exchange.media_type == "application/json"
        return [] if not exchange.body or refusal else [f"{where}: should have no body"]
    if exchange.media_type != "application/json":
        return []  # diff, patch, raw: text of any kind
    if "application/json" not in content:
        return []
    return _problems(where, pointer_to(*at, "content", "application/json", "schema"), exchange)


def _problems(where: str, pointer: str, exchange: Exchange) -> list[str]:
    try:
        body = json.loads(exchange.body)
    except ValueError:
        return [f"{where}: the body is not JSON"]
    return list(problems(where, pointer, body))


def problems(where: str, pointer: str, value: Any) -> Iterator[str]:
    """Every way in which `value` breaks the schema at `pointer`, the innermost reason of each."""
    for error in validator(pointer).iter_errors(value):
        deepest = error
        while deepest.context:
            deepest = max(deepest.context, key=lambda each: (len(each.absolute_path), -len(each.context or ())))
        yield f"{where}: {deepest.json_path}: {deepest.message[:200]}"


def validate(method: str, path: str, status: int, body: bytes, media_type: str = "application/json") -> list[str]:
    """As `check`, for a path below /api/v3."""
    return check(Exchange(method.upper(), path, status, media_type, body))


def webhook_problems(event: str, payload: dict[str, Any]) -> list[str]:
    """What is wrong with a webhook's payload. Events and actions that the description does not know are an error."""
    action = payload.get("action")
    stem = event if action is None else f"{event}-{action}"
    schema = f"webhook-{stem.replace('_', '-')}"
    if schema not in description()["components"]["schemas"]:
        return [f"{event}.{action}: not in GitHub's description"]
    found = problems(f"webhook {event}.{action}", pointer_to("components", "schemas", schema), payload)
    return [problem for problem in found if not _STALE.search(problem)]


class Recorder:
    """An ASGI layer around the forge that keeps every REST exchange, to be judged when the test is over."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[bytes, Exchange] = {}

    def wrap(self, app: ASGIApp) -> ASGIApp:
        async def recording(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or not scope["path"].startswith((API + "/", "/api/graphql")):
                await app(scope, receive, send)
                return
            parts: list[bytes] = []
            asked: list[bytes] = []
            start: dict[str, Any] = {}

            async def overhear() -> Message:
                message = await receive()
                asked.append(message.get("body", b""))
                return message

            async def listen(message: Message) -> None:
                if message["type"] == "http.response.start":
                    start.update(message)
                elif message["type"] == "http.response.body":
                    parts.append(message.get("body", b""))
                    if not message.get("more_body"):
                        self._keep(scope, start, b"".join(parts), b"".join(asked))
                await send(message)

            await app(scope, overhear, listen)

        return recording

    def _keep(self, scope: Scope, start: dict[str, Any], body: bytes, request: bytes) -> None:
        headers = {name.decode().lower(): value.decode() for name, value in start["headers"]}
        media_type = headers.get("content-type", "").partition(";")[0]
        if len(body) > _KEPT_BODY_BYTES:
            return
        path, _, query = f"{scope['path']}?{scope.get('query_string', b'').decode()}".partition("?")
        if path == "/api/graphql":
            path = API + "/graphql"  # the one endpoint that stands beside the REST root
        agents = [value.decode() for name, value in scope["headers"] if name == b"user-agent"]
        exchange = Exchange(
            scope["method"], path.removeprefix(API), start["status"], media_type or "application/json", body,
            query=query, request=request, agent="".join(agents),
        )  # fmt: skip
        key = f"{exchange.method} {exchange.path}?{query} {exchange.status} {media_type}\n".encode() + body + request
        with self._lock:
            self._seen.setdefault(hashlib.sha256(key).digest(), exchange)

    @property
    def exchanges(self) -> list[Exchange]:
        with self._lock:
            return list(self._seen.values())

    def violations(self) -> list[str]:
        """Everything that GitHub's description objects to; the same exchange is judged once."""
        from tests.openapi_requests import request_problems

        found = [problem for exchange in self.exchanges for problem in request_problems(exchange)]
        return found + [p for exchange in self.exchanges if exchange.path != "/graphql" for p in check(exchange)]


Wrap = Callable[[ASGIApp], ASGIApp]
