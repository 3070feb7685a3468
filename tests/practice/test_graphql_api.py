"""Queries, and the forge's own schema against GitHub's."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    build_schema,
)

from bot.practice.graphql import SCHEMA_FILE
from tests import graphql_schema

from .conftest import REPOSITORY, World

REPO = "query($owner: String!, $name: String!) { repository(owner: $owner, name: $name) { %s } }"


def ask(world: World, client: httpx.Client, fields: str, name: str = "lab") -> dict[str, Any]:
    return world.graphql(client, REPO % fields, owner="acme", name=name)


def test_repository_and_its_objects(world: World, bot: httpx.Client):
    oid = world.commit(bot, {"a/b.txt": "text\n"})
    fields = """
      id nameWithOwner isPrivate viewerPermission defaultBranchRef { name prefix target { oid } }
      ref(qualifiedName: "refs/heads/work") { target { ... on Commit { oid messageHeadline author { name } additions
        signature { isValid } file(path: "a/b.txt") { type } tree { entries { name type } } } } }
      blob: object(expression: "work:a/b.txt") { ... on Blob { text byteSize isBinary } }
      none: object(expression: "work:none") { oid }
    """
    found = ask(world, bot, fields)["data"]["repository"]
    assert (found["nameWithOwner"], found["viewerPermission"]) == (REPOSITORY, "WRITE")
    assert found["defaultBranchRef"] == {"name": "main", "prefix": "refs/heads/", "target": {"oid": world.tip()}}
    target = found["ref"]["target"]
    assert (target["oid"], target["author"]["name"], target["additions"]) == (oid, "postdoc[bot]", 1)
    assert (target["signature"], target["file"]) == ({"isValid": True}, {"type": "blob"})
    assert {each["name"] for each in target["tree"]["entries"]} == {"README.md", "a", "data"}
    assert found["blob"] == {"text": "text\n", "byteSize": 5, "isBinary": False}
    assert found["none"] is None


def test_pull_request_by_number_and_by_branch(world: World, bot: httpx.Client):
    pull = world.pull(bot, draft=True)
    fields = """
      pullRequest(number: 1) { id isDraft state headRefOid mergeable changedFiles additions author { login }
        comments(first: 5) { totalCount } reviews(first: 5) { totalCount } repository { name } }
      pullRequests(first: 5, states: [OPEN], headRefName: "work") { totalCount nodes { number }
        pageInfo { hasNextPage endCursor } }
    """
    found = ask(world, bot, fields)["data"]["repository"]
    assert found["pullRequest"]["id"] == pull["node_id"]
    assert (found["pullRequest"]["isDraft"], found["pullRequest"]["author"]) == (True, {"login": "postdoc"})
    assert found["pullRequests"]["nodes"] == [{"number": 1}]
    node = world.graphql(
        bot, "query($id: ID!) { node(id: $id) { id ... on PullRequest { number } } }", id=pull["node_id"]
    )
    assert node["data"]["node"]["number"] == 1


@pytest.mark.parametrize("fields", ["issue(number: 9) { id }", "pullRequest(number: 9) { id }"])
def test_what_is_not_there_is_not_found(world: World, bot: httpx.Client, fields: str):
    answer = ask(world, bot, fields)
    assert answer["errors"][0]["type"] == "NOT_FOUND"
    assert "Could not resolve to" in answer["errors"][0]["message"]


def test_private_repository_is_not_found(world: World, eve: httpx.Client, bot: httpx.Client):
    for client in (eve, bot):
        assert ask(world, client, "id", "secret")["errors"][0]["type"] == "NOT_FOUND"
    dora = world.forge.repository("acme/secret").node_id
    assert world.graphql(eve, "query($id: ID!) { node(id: $id) { id } }", id=dora)["errors"][0]["type"] == "NOT_FOUND"


def test_comments_are_paged_with_cursors(world: World, ada: httpx.Client):
    ada.post(world.repo("/issues"), json={"title": "x"})
    for number in range(5):
        ada.post(world.repo("/issues/1/comments"), json={"body": f"c{number}"})
    fields = "issue(number: 1) { comments(first: 2%s) { nodes { body } pageInfo { hasNextPage endCursor } } }"
    seen, after = [], ""
    while True:
        page = ask(world, ada, fields % after)["data"]["repository"]["issue"]["comments"]
        seen += [each["body"] for each in page["nodes"]]
        if not page["pageInfo"]["hasNextPage"]:
            break
        after = f', after: "{page["pageInfo"]["endCursor"]}"'
    assert seen == [f"c{number}" for number in range(5)]
    assert "errors" in ask(world, ada, "issue(number: 1) { comments { totalCount } }")


def test_reaction_through_graphql(world: World, ada: httpx.Client):
    issue = ada.post(world.repo("/issues"), json={"title": "x"}).json()
    document = "mutation($id: ID!) { addReaction(input: {subjectId: $id, content: EYES}) { subject { id } } }"
    world.graphql(ada, document, id=issue["node_id"])
    assert ada.get(world.repo("/issues/1")).json()["reactions"]["eyes"] == 1


def test_documents_that_cannot_be_read_are_errors(world: World, ada: httpx.Client):
    url = f"{world.url}/api/graphql"
    for query in ("{ nonsense }", "{ viewer {", "mutation { createCommitOnBranch { commit { oid } } }"):
        body = ada.post(url, json={"query": query}).json()
        assert "data" not in body
        assert body["errors"][0]["message"]
    assert ada.post(url, json={}).status_code == 422
    assert world.client().post(url, json={"query": "{ viewer { login } }"}).status_code == 401


@pytest.mark.skipif(not graphql_schema.available(), reason="npm packages of tests/node are not installed")
def test_forges_schema_is_a_part_of_githubs():
    """Every type, field, argument and value that the forge knows is GitHub's, with GitHub's type."""
    ours, theirs = build_schema(SCHEMA_FILE.read_text()), graphql_schema.github_schema()
    differences = []
    mine: Any
    for name, mine in ours.type_map.items():
        if name.startswith("__"):
            continue
        other: Any = theirs.type_map.get(name)
        if type(other) is not type(mine):
            differences.append(f"{name} is another kind of type")
        elif isinstance(mine, GraphQLEnumType):
            differences += [f"{name}.{value}" for value in mine.values if value not in other.values]
        elif isinstance(mine, GraphQLObjectType | GraphQLInterfaceType):
            for field, described in mine.fields.items():
                known = other.fields.get(field)
                if known is None or str(known.type) != str(described.type):
                    differences.append(f"{name}.{field}: {described.type}")
                    continue
                differences += [
                    f"{name}.{field}({argument}: {each.type})"
                    for argument, each in described.args.items()
                    if argument not in known.args or str(known.args[argument].type) != str(each.type)
                ]
        elif isinstance(mine, GraphQLInputObjectType):
            wrong = {
                k for k, v in mine.fields.items() if k not in other.fields or str(other.fields[k].type) != str(v.type)
            }
            demanded = {k for k, v in other.fields.items() if str(v.type).endswith("!") and k not in mine.fields}
            differences += [f"{name}.{field}" for field in wrong | demanded]
    assert differences == []


@pytest.mark.skipif(not graphql_schema.available(), reason="npm packages of tests/node are not installed")
def test_judge_of_documents_objects_to_wrong_ones():
    assert graphql_schema.problems("{ viewer { login } }") == []
    assert graphql_schema.problems("{ viewer { surname } }") != []
    assert graphql_schema.problems("mutation { minimizeComment(input: {subjectId: 1}) { clientMutationId } }") != []
