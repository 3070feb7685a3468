"""POST /api/graphql: parses, checks and executes a document; refusals come as GitHub's error objects with a `type`."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from ..model import Role
from ..replies import ApiError, Reply
from ..routing import Call, Endpoint
from . import mutations, objects

SCHEMA_FILE = Path(__file__).with_name("schema.graphql")
_TYPES = {401: "FORBIDDEN", 403: "FORBIDDEN", 404: "NOT_FOUND", 409: "STALE_DATA", 422: "UNPROCESSABLE"}


@cache
def _schema() -> Any:
    from graphql import build_schema  # 80 ms, paid at the first query only

    return build_schema(SCHEMA_FILE.read_text())


def execute(call: Call) -> Reply:
    """200 for anything that can be read, errors included, as on GitHub."""
    from graphql import GraphQLError, graphql_sync

    if call.actor.user is None:
        raise ApiError(401, "This endpoint requires you to be authenticated.")
    query, variables = call.required_text("query"), call.value("variables", dict)
    root = objects.Root(call)
    fields: dict[str, Any] = {**root.fields(), **mutations.fields(root)}
    result = graphql_sync(
        _schema(), query, root_value=fields, variable_values=variables, operation_name=call.text("operationName")
    )
    body: dict[str, Any] = {}
    if result.data is not None or not result.errors:
        body["data"] = result.data
    if result.errors:
        body["errors"] = [_formatted(error) for error in result.errors if isinstance(error, GraphQLError)]
    return Reply(body=body)


def _formatted(error: Any) -> dict[str, Any]:
    shape: dict[str, Any] = dict(error.formatted)
    cause = error.original_error
    if isinstance(cause, ApiError):
        shape = {"type": _TYPES.get(cause.status, "UNPROCESSABLE"), **shape, "message": _words(cause)}
    elif cause is not None and not isinstance(cause, TypeError | ValueError):
        raise cause
    return shape


def _words(error: ApiError) -> str:
    details = [str(each["message"]) for each in error.errors or [] if isinstance(each, dict) and "message" in each]
    return "; ".join(details) or error.message


ENDPOINT = Endpoint("POST", "/graphql", execute, (), Role.READ)
