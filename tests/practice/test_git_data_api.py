"""Refs, blobs, trees, commits, contents, comparisons, over a repository that git itself agrees with."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from .conftest import COMMIT, REPOSITORY, World


def git(world: World, *arguments: str) -> str:
    path = world.forge.repository(REPOSITORY).git.path
    return subprocess.run(["git", *arguments], cwd=path, check=True, capture_output=True, text=True).stdout.strip()


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_commit_by_blob_tree_commit_and_ref_is_what_git_reads(world: World, bot: httpx.Client):
    blob = bot.post(world.repo("/git/blobs"), json={"content": b64("hello\n"), "encoding": "base64"}).json()
    assert blob["sha"] == "ce013625030ba8dba906f756967f9e9ca394464a"  # git hash-object's own answer
    entries = [
        {"path": "a/b.txt", "mode": "100644", "type": "blob", "sha": blob["sha"]},
        {"path": "run.sh", "mode": "100755", "type": "blob", "content": "#!/bin/sh\n"},
        {"path": "data/rows.jsonl", "mode": "100644", "type": "blob", "sha": None},
    ]
    tree = bot.post(world.repo("/git/trees"), json={"base_tree": world.tip(), "tree": entries})
    assert tree.status_code == 201
    assert {each["path"] for each in tree.json()["tree"]} == {"README.md", "a", "run.sh"}
    made = bot.post(
        world.repo("/git/commits"), json={"message": "Add\n", "tree": tree.json()["sha"], "parents": [world.tip()]}
    )
    assert made.status_code == 201
    assert made.json()["verification"]["verified"] is True
    ref = bot.post(world.repo("/git/refs"), json={"ref": "refs/heads/topic/one", "sha": made.json()["sha"]})
    assert ref.status_code == 201
    assert git(world, "log", "--format=%s|%an", "-1", "topic/one") == "Add|postdoc[bot]"
    assert git(world, "show", "topic/one:a/b.txt") == "hello"
    assert git(world, "ls-tree", "topic/one", "run.sh").startswith("100755 blob")
    assert git(world, "fsck", "--strict", "--no-dangling") == ""
    assert bot.get(world.repo("/git/ref/heads/topic/one")).json()["object"]["sha"] == made.json()["sha"]
    assert bot.get(world.repo("/branches/topic%2Fone")).json()["commit"]["sha"] == made.json()["sha"]
    assert {each["name"] for each in bot.get(world.repo("/branches")).json()} == {"main", "topic/one"}


def test_refs_refuse_what_git_refuses(world: World, bot: httpx.Client):
    first = world.tip()
    second = world.commit(bot, {"x": "1"})

    def create(ref: str, sha: str) -> httpx.Response:
        return bot.post(world.repo("/git/refs"), json={"ref": ref, "sha": sha})

    def update(ref: str, **body: Any) -> httpx.Response:
        return bot.patch(world.repo(f"/git/refs/{ref}"), json=body)

    assert create("refs/heads/work", first).json()["message"] == "Reference already exists"
    assert create("refs/heads/other", "0" * 40).json()["message"] == "Object does not exist"
    for name in ("heads/x", "refs/heads/a..b", "refs/heads/x.lock", "refs/heads/work/below"):
        assert create(name, first).status_code == 422, name
    assert update("heads/work", sha=first).json()["message"] == "Update is not a fast forward"
    assert update("heads/work", sha=first, force=True).status_code == 200
    assert update("heads/work", sha=second).status_code == 200
    assert update("heads/none", sha=second).json()["message"] == "Reference does not exist"
    assert bot.delete(world.repo("/git/refs/heads/work")).status_code == 204
    assert bot.get(world.repo("/git/ref/heads/work")).status_code == 404
    assert bot.delete(world.repo("/git/refs/heads/main")).status_code == 422


def test_matching_refs_hold_the_bots_own_namespace(world: World, bot: httpx.Client):
    for name in ("refs/postdoc/g1", "refs/postdoc/g2"):
        assert bot.post(world.repo("/git/refs"), json={"ref": name, "sha": world.tip()}).status_code == 201
    listed = bot.get(world.repo("/git/matching-refs/postdoc/")).json()
    assert [each["ref"] for each in listed] == ["refs/postdoc/g1", "refs/postdoc/g2"]
    assert world.names("push") == []  # neither a branch nor a tag: GitHub sends nothing


@pytest.mark.parametrize(
    "entry",
    [
        {"path": "../x", "mode": "100644", "content": "x"},
        {"path": ".git/config", "mode": "100644", "content": "x"},
        {"path": "x", "mode": "123456", "content": "x"},
        {"path": "x", "mode": "100644", "sha": "0" * 40},
    ],
)
def test_tree_with_a_bad_entry_is_refused(world: World, bot: httpx.Client, entry: dict[str, Any]):
    assert bot.post(world.repo("/git/trees"), json={"tree": [entry]}).status_code == 422


def test_tree_is_read_recursively(world: World, bot: httpx.Client):
    shallow = bot.get(world.repo("/git/trees/main")).json()
    deep = bot.get(world.repo("/git/trees/main"), params={"recursive": "1"}).json()
    assert [each["path"] for each in shallow["tree"]] == ["README.md", "data"]
    assert [each["path"] for each in deep["tree"]] == ["README.md", "data", "data/rows.jsonl"]
    assert bot.get(world.repo("/git/trees/nothing")).status_code == 404


def test_contents_of_file_folder_and_raw(world: World, bot: httpx.Client):
    file = bot.get(world.repo("/contents/README.md")).json()
    assert base64.b64decode(file["content"]) == b"# Lab\n"
    raw = bot.get(world.repo("/contents/README.md"), headers={"accept": "application/vnd.github.raw+json"})
    assert (raw.content, raw.headers["content-type"].split(";")[0]) == (b"# Lab\n", "application/vnd.github.raw")
    folder = bot.get(world.repo("/contents")).json()
    assert [(each["name"], each["type"]) for each in folder] == [("README.md", "file"), ("data", "dir")]
    short = bot.get(world.repo("/contents/README.md"), params={"ref": world.tip()[:7]})
    assert short.status_code == 200
    assert bot.get(world.repo("/readme")).json()["path"] == "README.md"
    assert bot.get(world.repo("/contents/none")).status_code == 404
    assert bot.get(world.repo("/contents/README.md"), params={"ref": "none"}).status_code == 404
    assert bot.get(world.repo("/contents/..%2F..%2Fetc")).status_code == 404


def test_contents_are_written_with_the_right_sha_only(world: World, ada: httpx.Client):
    path = world.repo("/contents/notes/a%20b.md")
    new = ada.put(path, json={"message": "Add", "content": b64("one\n")})
    assert new.status_code == 201
    assert git(world, "log", "-1", "--format=%an <%ae>|%cn") == (
        f"Ada <{world.forge.user('ada').id}+ada@users.noreply.github.com>|GitHub"
    )
    sha = new.json()["content"]["sha"]
    assert ada.put(path, json={"message": "Change", "content": b64("two\n")}).status_code == 422
    assert ada.put(path, json={"message": "Change", "content": b64("two\n"), "sha": "0" * 40}).status_code == 409
    changed = ada.put(path, json={"message": "Change", "content": b64("two\n"), "sha": sha})
    assert changed.status_code == 200
    stale = ada.request("DELETE", path, json={"message": "Remove", "sha": sha})
    assert stale.status_code == 409
    gone = ada.request("DELETE", path, json={"message": "Remove", "sha": changed.json()["content"]["sha"]})
    assert gone.status_code == 200
    assert ada.get(path).status_code == 404
    assert ada.put(path, json={"message": "m", "content": b64("x"), "branch": "none"}).status_code == 404


def test_commit_on_branch_is_the_bots_and_verified(world: World, bot: httpx.Client):
    oid = world.commit(bot, {"experiments/1/recipe.yaml": "a: 1\n", "top.txt": "x"})
    shown = bot.get(world.repo(f"/commits/{oid}")).json()
    assert shown["commit"]["verification"]["verified"] is True
    assert (shown["author"]["login"], shown["committer"]["login"]) == ("postdoc[bot]", "web-flow")
    assert shown["commit"]["author"]["email"].endswith("+postdoc[bot]@users.noreply.github.com")
    assert {each["filename"]: each["status"] for each in shown["files"]} == {
        "experiments/1/recipe.yaml": "added",
        "top.txt": "added",
    }
    assert shown["stats"] == {"additions": 2, "deletions": 0, "total": 2}
    text = bot.get(world.repo(f"/commits/{oid}"), headers={"accept": "application/vnd.github.diff"}).text
    assert "+a: 1" in text
    assert bot.get(world.repo("/commits"), params={"sha": "work", "path": "top.txt"}).json()[0]["sha"] == oid


def test_commit_on_a_moved_branch_is_stale_data(world: World, bot: httpx.Client):
    old = world.tip()
    world.commit(bot, {"a": "1"})
    before = world.tip("work")
    answer = world.graphql(
        bot,
        COMMIT,
        input={
            "branch": {"repositoryNameWithOwner": REPOSITORY, "branchName": "work"},
            "expectedHeadOid": old,
            "message": {"headline": "late"},
            "fileChanges": {"additions": [{"path": "b", "contents": b64("2")}]},
        },
    )
    assert answer["data"] == {"createCommitOnBranch": None}
    assert answer["errors"][0]["type"] == "STALE_DATA"
    assert answer["errors"][0]["path"] == ["createCommitOnBranch"]
    assert world.tip("work") == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"deletions": [{"path": "none"}]}, "does not exist"),
        ({"additions": [{"path": "../x", "contents": ""}]}, "malformed"),
        ({"additions": [{"path": "x", "contents": "%%%"}]}, "Base64"),
    ],
)
def test_commit_on_branch_with_bad_changes_is_refused(
    world: World, bot: httpx.Client, changes: dict[str, Any], words: str
):
    world.commit(bot, {"a": "1"})
    given = {
        "branch": {"repositoryNameWithOwner": REPOSITORY, "branchName": "work"},
        "expectedHeadOid": world.tip("work"),
        "message": {"headline": "h", "body": "b"},
        "fileChanges": changes,
    }
    answer = world.graphql(bot, COMMIT, input=given)
    assert words in answer["errors"][0]["message"]


def test_commit_on_branch_deletes_files_and_their_empty_folders(world: World, bot: httpx.Client):
    world.commit(bot, {"x/y/z": "1"})
    given = {
        "branch": {"repositoryNameWithOwner": REPOSITORY, "branchName": "work"},
        "expectedHeadOid": world.tip("work"),
        "message": {"headline": "Delete", "body": "Postdoc-Run: 1/01"},
        "fileChanges": {"deletions": [{"path": "x/y/z"}]},
    }
    assert "errors" not in world.graphql(bot, COMMIT, input=given)
    assert git(world, "ls-tree", "-r", "--name-only", "work").split() == ["README.md", "data/rows.jsonl"]
    assert git(world, "log", "-1", "--format=%(trailers:key=Postdoc-Run,valueonly)", "work") == "1/01"


def test_comparison_counts_commits_and_shows_patches(world: World, bot: httpx.Client):
    world.commit(bot, {"README.md": "# Lab\n\nmore\n"})
    world.commit(bot, {"new.txt": "x\n"})
    shown = bot.get(world.repo("/compare/main...work")).json()
    assert (shown["status"], shown["ahead_by"], shown["behind_by"]) == ("ahead", 2, 0)
    assert shown["files"][0]["patch"] == "@@ -1 +1,3 @@\n # Lab\n+\n+more"
    assert bot.get(world.repo("/compare/work...main")).json()["status"] == "behind"
    assert bot.get(world.repo("/compare/main...main")).json()["status"] == "identical"
    diff = bot.get(world.repo("/compare/main...work"), headers={"accept": "application/vnd.github.diff"})
    assert diff.text.startswith("diff --git a/README.md b/README.md")
    assert bot.get(world.repo("/compare/main...none")).status_code == 404


@pytest.mark.parametrize("path", [".github/workflows/ci.yml", ".github/workflows/deep/x.yml"])
def test_workflow_files_need_their_own_permission(world: World, bot: httpx.Client, ada: httpx.Client, path: str):
    for client, status in ((bot, 403), (ada, 201)):
        answer = client.put(world.repo(f"/contents/{path}"), json={"message": "m", "content": b64("on: push\n")})
        assert answer.status_code == status
    world.commit(bot, {"a": "1"})
    given = {
        "branch": {"repositoryNameWithOwner": REPOSITORY, "branchName": "work"},
        "expectedHeadOid": world.tip("work"),
        "message": {"headline": "h"},
        "fileChanges": {"additions": [{"path": path, "contents": b64("on: push\n")}]},
    }
    error = world.graphql(bot, COMMIT, input=given)["errors"][0]
    assert "refusing to allow a GitHub App to create or update workflow" in error["message"]


def test_workflow_files_cannot_be_smuggled_in_through_git_data(world: World, bot: httpx.Client):
    entry = {"path": ".github/workflows/x.yml", "mode": "100644", "content": "on: push\n"}
    tree = bot.post(world.repo("/git/trees"), json={"base_tree": world.tip(), "tree": [entry]}).json()["sha"]
    commit = bot.post(world.repo("/git/commits"), json={"message": "m", "tree": tree, "parents": [world.tip()]}).json()
    created = bot.post(world.repo("/git/refs"), json={"ref": "refs/heads/x", "sha": commit["sha"]})
    moved = bot.patch(world.repo("/git/refs/heads/main"), json={"sha": commit["sha"]})
    assert (created.status_code, moved.status_code) == (403, 403)


def test_push_event_lists_commits_and_files(world: World, bot: httpx.Client):
    oid = world.commit(bot, {"README.md": "# New\n", "x.txt": "1\n"})
    assert world.names("push", "create") == ["push", "create", "push"]
    push = world.events()[-2].payload if world.events()[-1].event != "push" else world.events()[-1].payload
    assert (push["ref"], push["after"], push["forced"], push["created"]) == ("refs/heads/work", oid, False, False)
    assert push["commits"][0]["added"] == ["x.txt"]
    assert push["commits"][0]["modified"] == ["README.md"]
    assert push["pusher"]["name"] == "postdoc[bot]"
    bot.delete(world.repo("/git/refs/heads/work"))
    assert world.names("push", "delete")[-2:] == ["push", "delete"]


def test_commits_of_an_empty_repository(world: World, tmp_path: Path):
    world.forge.add_repository("acme", "empty")
    client = world.client()
    assert client.get("/repos/acme/empty/commits").status_code == 409
    assert client.get("/repos/acme/empty/contents").status_code == 404
    assert client.get("/repos/acme/empty").json()["default_branch"] == "main"
