"""GitHub's published GraphQL schema as the judge of every document that the tests send.

The schema is `@octokit/graphql-schema`, installed into tests/node by `npm ci`; see tests/openapi.py for what happens
where it is missing.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from graphql import GraphQLSchema, build_schema, parse
from graphql import validate as validate_document

SCHEMA = Path(__file__).parent / "node/node_modules/@octokit/graphql-schema/schema.graphql"


def available() -> bool:
    """Whether the schema is installed. Raises: RuntimeError in CI when it is not."""
    if SCHEMA.is_file():
        return True
    if os.environ.get("CI") == "true":
        raise RuntimeError(f"{SCHEMA} is missing: run `npm ci` in tests/node")
    return False


@cache
def github_schema() -> GraphQLSchema:
    # The published file defines two fields twice, which a strict reading of the specification forbids.
    return build_schema(SCHEMA.read_text(), assume_valid=True, assume_valid_sdl=True)


def problems(document: str) -> list[str]:
    """What GitHub's schema objects to in a document; empty when nothing."""
    return [error.message for error in validate_document(github_schema(), parse(document))]
