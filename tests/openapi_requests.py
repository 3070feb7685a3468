"""GitHub's own description of its API as the judge of what the bot asks for: method, path, query and body.

Stricter than GitHub, which ignores what it does not know: a name that the description lacks is a mistake of ours. The
limits that the description does not state are GitHub's all the same and come from its documentation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl

from graphql import GraphQLError, OperationDefinitionNode, get_operation_ast, parse
from graphql.execution.values import get_variable_values

from tests import graphql_schema
from tests.openapi import Exchange, description, pointer_to, problems, template_of

AGENT = "postdoc"
"""The user agent of the bot; what people send in tests is often wrong on purpose."""
LIMITS: dict[str, dict[str, int]] = {
    # "body is too long (maximum is 65536 characters)" is GitHub's answer to more; titles hold 256 and 255.
    "/repos/{owner}/{repo}/issues/{issue_number}/comments": {"body": 65_536},
    "/repos/{owner}/{repo}/issues/comments/{comment_id}": {"body": 65_536},
    "/repos/{owner}/{repo}/pulls": {"body": 65_536, "title": 256},
    "/repos/{owner}/{repo}/pulls/{pull_number}": {"body": 65_536, "title": 256},
    "/repos/{owner}/{repo}/pulls/{pull_number}/reviews": {"body": 65_536},
    # https://docs.github.com/en/rest/checks/runs: 50 annotations a request, 65535 characters of summary and text
    "/repos/{owner}/{repo}/check-runs": {"output.title": 255, "output.summary": 65_535, "output.text": 65_535},
    "/repos/{owner}/{repo}/check-runs/{check_run_id}": {"output.title": 255, "output.summary": 65_535,
                                                        "output.text": 65_535},
}  # fmt: skip


def request_problems(exchange: Exchange) -> list[str]:
    """What is wrong with one request; empty when nothing is, or when somebody else than the bot made it."""
    if AGENT not in exchange.agent:
        return []
    where = f"request {exchange.method} {exchange.path}"
    if exchange.path == "/graphql":
        return [f"{where}: {problem}" for problem in graphql_problems(exchange.request)]
    template = template_of(exchange.method, exchange.path)
    if template is None:
        return [f"{where}: no such endpoint in GitHub's description"]
    operation = description()["paths"][template][exchange.method.lower()]
    return [*_query_problems(where, operation, exchange.query), *_body_problems(where, template, operation, exchange)]


def graphql_problems(request: bytes) -> list[str]:
    """What GitHub's schema objects to in a document or in the variables that go with it."""
    sent = json.loads(request)
    found = graphql_schema.problems(sent["query"])
    if found:
        return found
    try:
        operation = get_operation_ast(parse(sent["query"]))
    except GraphQLError as error:
        return [str(error)]
    assert isinstance(operation, OperationDefinitionNode)
    schema = graphql_schema.github_schema()
    values = get_variable_values(schema, list(operation.variable_definitions or ()), sent.get("variables") or {})
    return [error.message for error in values] if isinstance(values, list) else []


def _query_problems(where: str, operation: dict[str, Any], query: str) -> Iterator[str]:
    known = {each["name"]: each for each in map(_resolved, operation.get("parameters", ())) if each["in"] == "query"}
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            yield f"{where}: no query parameter {name!r}, only {sorted(known)}"
            continue
        schema = _resolved(known[name]["schema"])
        if schema.get("type") == "integer" and not re.fullmatch(r"-?\d+", text):
            yield f"{where}: query {name}={text!r} is no integer"
        if schema.get("type") == "boolean" and text not in ("true", "false"):
            yield f"{where}: query {name}={text!r} is neither true nor false"
        if "enum" in schema and text not in schema["enum"]:
            yield f"{where}: query {name}={text!r} is none of {schema['enum']}"
        if name == "per_page" and text.isdigit() and not 1 <= int(text) <= 100:
            yield f"{where}: per_page={text}, GitHub gives at most 100"
    for name, parameter in known.items():
        if parameter.get("required") and name not in dict(parse_qsl(query, keep_blank_values=True)):
            yield f"{where}: query parameter {name!r} is required"


def _body_problems(where: str, template: str, operation: dict[str, Any], exchange: Exchange) -> Iterator[str]:
    described = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if described is None:
        if exchange.request:
            yield f"{where}: takes no body"
        return
    if not exchange.request:
        if operation["requestBody"].get("required"):
            yield f"{where}: needs a body"
        return
    body = json.loads(exchange.request)
    pointer = pointer_to(
        "paths", template, exchange.method.lower(), "requestBody", "content", "application/json", "schema"
    )
    yield from problems(where, pointer, body)
    yield from _unknown(where, "$", described["schema"], body)
    for path, limit in LIMITS.get(template, {}).items():
        value: Any = body
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if isinstance(value, str) and len(value) > limit:
            yield f"{where}: {path} has {len(value)} characters, GitHub takes {limit}"
    output = body.get("output") if isinstance(body, dict) else None
    if isinstance(output, dict) and len(output.get("annotations") or ()) > 50:
        yield f"{where}: more than 50 annotations in one request"


def _unknown(where: str, at: str, schema: dict[str, Any], value: Any) -> Iterator[str]:
    """Properties that the description does not have."""
    schema = _resolved(schema)
    alternatives = [_resolved(each) for name in ("anyOf", "oneOf", "allOf") for each in schema.get(name, ())]
    if isinstance(value, dict):
        parts = [schema, *alternatives]
        known = {name: content for part in parts for name, content in part.get("properties", {}).items()}
        free = not known or any(isinstance(p.get("additionalProperties"), dict) for p in parts)
        for name, content in value.items():
            if name in known:
                yield from _unknown(where, f"{at}.{name}", known[name], content)
            elif not free:
                yield f"{where}: {at}.{name} is not in GitHub's description"
    if isinstance(value, list) and "items" in schema:
        for index, each in enumerate(value):
            yield from _unknown(where, f"{at}[{index}]", schema["items"], each)


def _resolved(node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        found: Any = description()
        for part in node["$ref"].removeprefix("#/").split("/"):
            found = found[part.replace("~1", "/").replace("~0", "~")]
        node = found
    return node
